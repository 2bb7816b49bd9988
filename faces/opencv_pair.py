"""OpenCV's own pair, under permissive licences: YuNet finds faces (MIT), SFace tells them apart (Apache-2.0).

Both are files that the owner gives: `face_detection_yunet_*.onnx` and `face_recognition_sface_*.onnx` of the OpenCV
Model Zoo, in one folder. Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector" (2023); Zhong, Deng, Hu,
Zhao, Li and Wen, "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition" (2021).

YuNet is tested with its real file; SFace's could not be had where the tests run, so that only its interface is.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from faces.detector import SIDE, FoundFace
from faces.errors import DetectorUnavailable
from faces.networks import Found, Pixels, faces_of, fingerprint

PREPARATION = "1"
_SCORE, _OVERLAP, _MOST = 0.6, 0.3, 5_000


class OpenCvPair:
    """See `faces.detector.Detector`. Raises DetectorUnavailable: a sentence that says what is missing."""

    label = "YuNet and SFace"

    def __init__(self, folder: Path) -> None:
        try:
            import cv2
        except ImportError as error:
            raise DetectorUnavailable(f"OpenCV cannot be imported ({error}): run `make setup`.") from error
        detector, recogniser = network(folder, "yunet", "finds faces"), network(folder, "sface", "tells faces apart")
        self._cv2, self._lock = cv2, threading.Lock()
        self._detector = yunet(detector)
        try:
            self._recogniser: Any = cv2.FaceRecognizerSF.create(str(recogniser), "")
            row = self._recogniser.feature(np.zeros((112, 112, 3), dtype=np.uint8))
        except cv2.error as error:
            raise DetectorUnavailable(f"{recogniser} cannot be loaded ({_short(error)}); copy it again.") from error
        if row is None:
            raise DetectorUnavailable(f"{recogniser} does not take faces as SFace does; put SFace's own file there.")
        self.dim = int(row.size)
        self.key = f"opencv:{fingerprint(detector, recogniser)}:{PREPARATION}"

    def find(self, picture: PIL.Image.Image) -> list[FoundFace]:
        with self._lock:  # OpenCV's networks keep what they compute with in themselves
            return faces_of(picture, lambda pixels: detected(self._detector, pixels), self._vectors, label=self.label)

    def _vectors(self, pixels: Pixels, found: Found) -> npt.NDArray[np.float32]:
        rows = []
        for box, points, score in zip(found[0], found[2], found[1], strict=True):
            left, top, right, bottom = box
            # As YuNet says it: box, then eyes, nose and mouth, each first the one on the picture's left.
            said = np.array([left, top, right - left, bottom - top, *points.ravel(), score], dtype=np.float32)
            rows.append(self._recogniser.feature(self._recogniser.alignCrop(pixels, said)).ravel())
        return np.stack(rows).astype(np.float32)


def network(folder: Path, word: str, does: str) -> Path:
    """The network of a folder that has this word in its name. Raises DetectorUnavailable."""
    found = sorted(path for path in folder.glob("*.onnx") if word in path.name.lower()) if folder.is_dir() else []
    if not found:
        raise DetectorUnavailable(
            f"{folder} lacks the network that {does}: a file with {word!r} in its name that ends in .onnx, from the "
            "OpenCV Model Zoo. Put it there."
        )
    return found[0]


def yunet(file: Path) -> Any:
    """YuNet, loaded. Raises DetectorUnavailable."""
    import cv2

    try:
        return cv2.FaceDetectorYN.create(str(file), "", (SIDE, SIDE), _SCORE, _OVERLAP, _MOST)
    except cv2.error as error:
        raise DetectorUnavailable(f"{file} cannot be loaded ({_short(error)}); copy it again.") from error


def detected(detector: Any, pixels: Pixels) -> Found:
    """What YuNet finds, in the pixels that were given; it looks through them with their longer side at SIDE."""
    import cv2

    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    detector.setInputSize(size)
    rows = detector.detect(cv2.resize(pixels, size) if scale < 1 else pixels)[1]
    if rows is None:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32)
    rows = np.asarray(rows, dtype=np.float32)
    across = np.array([width / size[0], height / size[1]], dtype=np.float32)
    corner, extent = rows[:, :2] * across, rows[:, 2:4] * across
    return np.concatenate([corner, corner + extent], axis=1), rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2) * across


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[-120:]
