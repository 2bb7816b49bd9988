"""Faces in a picture: where they are and which vector each has, behind one protocol.

Two kinds of networks serve: an InsightFace pack (`insightface_pack`) and OpenCV's YuNet with SFace (`opencv_pair`).
Each library is imported only in its own module, when first used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import PIL.Image

Landmarks = npt.NDArray[np.float32]
"""Left eye, right eye, nose, left and right corner of the mouth as seen in the picture: (5, 2), shares of width and
height."""

SIDE = 640
"""Pictures are looked through with their longer side at so many pixels; decode with a shorter side of no less."""
LONGEST = 8
"""Of pictures longer than so many times their shorter side, parts of that shape are looked through one by one."""
THINNEST = 16
"""A picture with a shorter side of fewer pixels holds no face that could be told."""
CROP = 112
FEWEST_PIXELS = 32
"""A face of fewer `pixels` is of low quality..."""
LEAST_SCORE = 0.6
"""...as is one that the detector is less sure of..."""
MOST_TURNED = 1.1
"""...one that is turned away further..."""
LEAST_SHARP = 15.0
"""...and one that is more blurred."""


@dataclass(frozen=True)
class Box:
    """Where a face is: left, top, width and height as shares of the upright picture's, all within 0..1."""

    left: float
    top: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height

    def common(self, other: Box) -> float:
        """The area that both cover."""
        across = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        down = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)

    def overlap(self, other: Box) -> float:
        """Intersection over union, 0..1."""
        common = self.common(other)
        return common / (self.area + other.area - common) if common else 0.0

    def within(self, other: Box) -> float:
        """Intersection over the smaller one's area, 0..1."""
        common = self.common(other)
        return common / min(self.area, other.area) if common else 0.0


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face that a detector found."""

    box: Box
    landmarks: Landmarks
    score: float
    """How sure the detector is, 0..1."""
    vector: npt.NDArray[np.float32]
    """(dim,) of unit length."""
    pixels: int
    """The shorter side of its box, in pixels of the picture with its longer side at SIDE (or as it is, if smaller)."""
    sharpness: float
    """Variance of the Laplacian of the grey face, brought to CROP pixels (levels squared): low is blurred."""
    roll: float
    """Degrees by which the line of the eyes is turned, clockwise."""
    turn: float
    """0 for a face that looks at the camera, 1 and more for a profile: how far the nose lies off the middle of the
    eyes, along their line, in halves of their distance."""

    @property
    def low_quality(self) -> bool:
        """Too small, blurred, turned away or unsure to begin a group of faces with."""
        return (
            self.pixels < FEWEST_PIXELS
            or self.score < LEAST_SCORE
            or self.turn > MOST_TURNED
            or self.sharpness < LEAST_SHARP
        )


@runtime_checkable
class Detector(Protocol):
    """Networks that are loaded and ready. Thread-safe."""

    key: str
    """Identity: the networks' fingerprints and how faces are prepared for them. One key, one face space."""
    label: str
    """Name for people."""
    dim: int

    def find(self, picture: PIL.Image.Image) -> list[FoundFace]:
        """The faces of an upright RGB picture, the surest first. Raises DetectorFault."""
        ...


def angles(landmarks: npt.NDArray[np.floating]) -> tuple[float, float]:
    """(roll, turn) of a face, see `FoundFace`; landmarks (5, 2) in pixels."""
    left, right, nose = landmarks[:3].astype(np.float64)
    line = right - left
    distance = float(np.hypot(*line))
    if distance < 1e-6:
        return 0.0, 2.0
    roll = math.degrees(math.atan2(line[1], line[0]))
    turn = abs(float((nose - (left + right) / 2) @ line)) / distance / (distance / 2)
    return roll, min(turn, 2.0)


def parts(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of the parts of a picture that are looked through: one, of usual pictures; of very
    long ones several that overlap by half, so that every face lies whole in one of them; of too thin ones none."""
    short, long = min(width, height), max(width, height)
    if short < THINNEST:
        return []
    if long <= LONGEST * short:
        return [(0, 0, width, height)]
    size, step = LONGEST * short, LONGEST * short // 2
    starts = [*range(0, long - size, step), long - size]
    return [(at, 0, at + size, height) if width > height else (0, at, width, at + size) for at in starts]


def without_doubles(faces: list[FoundFace], *, most: float = 0.6) -> list[FoundFace]:
    """The surest of faces of which the smaller box lies within the other by more than `most`, the surest first."""
    kept: list[FoundFace] = []
    for face in sorted(faces, key=lambda one: -one.score):
        if all(face.box.within(other.box) <= most for other in kept):
            kept.append(face)
    return kept
