"""What every adapter of face networks shares: from a picture to what the networks take, and back to faces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from faces.detector import CROP, SIDE, Box, FoundFace, angles, parts, without_doubles
from faces.errors import DetectorFault

Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Of the faces of a picture: boxes (n, 4) as left, top, right, bottom, scores (n,), landmarks (n, 5, 2), in pixels."""
Pixels = npt.NDArray[np.uint8]
"""(height, width, 3), blue, green, red, as OpenCV has them."""


def fingerprint(*files: Path) -> str:
    """The SHA-256 of these files' contents, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def faces_of(
    picture: PIL.Image.Image,
    detect: Callable[[Pixels], Found],
    vectors: Callable[[Pixels, Found], npt.NDArray[np.float32]],
    *,
    label: str,
) -> list[FoundFace]:
    """The faces of an upright picture: `detect` looks through it, `vectors` gives a row (n, dim) for each found face.

    Raises DetectorFault when a network fails, or gives numbers that are none.
    """
    pixels = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
    whole = pixels.shape[1], pixels.shape[0]
    faces: list[FoundFace] = []
    looked_through = parts(*whole)
    for left, top, right, bottom in looked_through:
        part = pixels if len(looked_through) == 1 else np.ascontiguousarray(pixels[top:bottom, left:right])
        try:
            found = _whole(detect(part), (left, top, right, bottom), whole)
            rows = vectors(part, found) if len(found[0]) else np.zeros((0, 1), dtype=np.float32)
        except Exception as error:
            raise DetectorFault(
                f"{label} failed ({type(error).__name__}: {error}). Copy its files again, or choose other networks."
            ) from error
        faces += _faces(part, found, rows, (left, top), whole, label)
    return without_doubles(faces)


def _whole(found: Found, part: tuple[int, int, int, int], whole: tuple[int, int]) -> Found:
    """Without faces that touch a border at which the picture goes on: another part has them whole."""
    left, top, right, bottom = part
    boxes = found[0]
    inside = np.ones(len(boxes), dtype=np.bool_)
    if left > 0:
        inside &= boxes[:, 0] > 1
    if top > 0:
        inside &= boxes[:, 1] > 1
    if right < whole[0]:
        inside &= boxes[:, 2] < right - left - 1
    if bottom < whole[1]:
        inside &= boxes[:, 3] < bottom - top - 1
    return boxes[inside], found[1][inside], found[2][inside]


def _faces(
    pixels: Pixels,
    found: Found,
    rows: npt.NDArray[np.float32],
    corner: tuple[int, int],
    whole: tuple[int, int],
    label: str,
) -> list[FoundFace]:
    height, width = pixels.shape[:2]
    looked_at = min(1.0, SIDE / max(width, height))
    faces = []
    for box, score, points, row in zip(found[0].astype(np.float64), found[1], found[2], rows, strict=True):
        length = float(np.linalg.norm(row))
        if not np.isfinite(length) or length < 1e-6 or not np.isfinite(box).all() or not np.isfinite(points).all():
            raise DetectorFault(f"{label} gave a vector that is none. Copy its files again, or choose other networks.")
        left, right = np.clip(box[[0, 2]], 0, width)
        top, bottom = np.clip(box[[1, 3]], 0, height)
        if right - left < 1 or bottom - top < 1:
            continue
        roll, turn = angles(points)
        from_left, from_top = (left + corner[0]) / whole[0], (top + corner[1]) / whole[1]
        faces.append(
            FoundFace(
                box=Box(
                    float(from_left),
                    float(from_top),
                    float(min((right - left) / whole[0], 1 - from_left)),
                    float(min((bottom - top) / whole[1], 1 - from_top)),
                ),
                landmarks=((points + np.array(corner)) / np.array(whole)).astype(np.float32),
                score=float(np.clip(score, 0, 1)),
                vector=(row / length).astype(np.float32),
                pixels=int(looked_at * min(right - left, bottom - top)),
                sharpness=_sharpness(pixels[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]),
                roll=roll,
                turn=turn,
            )
        )
    return faces


def _sharpness(face: Pixels) -> float:
    """Variance of the 4-neighbour Laplacian (Pech-Pacheco et al. 2000) of the grey face at CROP pixels."""
    small = PIL.Image.fromarray(np.ascontiguousarray(face[:, :, ::-1])).convert("L")
    grey = np.asarray(small.resize((CROP, CROP), PIL.Image.Resampling.BILINEAR), dtype=np.int16)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(np.var(laplacian, dtype=np.float64))


def in_batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The items in order, at most `size` together."""
    return [items[start : start + size] for start in range(0, len(items), size)]
