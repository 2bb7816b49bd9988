"""An InsightFace pack: a folder of ONNX networks, one that finds faces and one that tells them apart."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from faces.detector import FoundFace
from faces.errors import DetectorUnavailable
from faces.networks import Found, Pixels, faces_of, fingerprint, in_batches

PREPARATION = "1"
"""Changes when faces are prepared for the networks in another way: their vectors are another space's then."""
_BATCH = 32


class InsightFacePack:
    """See `faces.detector.Detector`. Raises DetectorUnavailable: a sentence that says what is missing."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        self.label = folder.name
        models = _models(folder, threads)
        self._detection, self._recognition = models["detection"], models["recognition"]
        self._detection.prepare(-1, input_size=None, det_thresh=0.5)
        batch = self._recognition.input_shape[0]
        self._batch = batch if isinstance(batch, int) else _BATCH
        self.dim = self._dim(folder)
        files = Path(self._detection.model_file), Path(self._recognition.model_file)
        self.key = f"insightface:{fingerprint(*files)}:{PREPARATION}"

    def find(self, picture: PIL.Image.Image) -> list[FoundFace]:
        return faces_of(picture, self._detect, self._vectors, label=self.label)

    def _detect(self, pixels: Pixels) -> Found:
        boxes, points = self._detection.detect(pixels)
        return boxes[:, :4], boxes[:, 4], points

    def _vectors(self, pixels: Pixels, found: Found) -> npt.NDArray[np.float32]:
        from insightface.utils import face_align

        size = self._recognition.input_size[0]
        crops = [face_align.norm_crop(pixels, landmark=points, image_size=size) for points in found[2]]
        rows = [self._recognition.get_feat(list(some)) for some in in_batches(crops, self._batch)]
        return np.concatenate(rows).astype(np.float32)

    def _dim(self, folder: Path) -> int:
        size = self._recognition.input_size
        try:
            row = self._recognition.get_feat([np.zeros((size[1], size[0], 3), dtype=np.uint8)])
        except Exception as error:
            raise DetectorUnavailable(
                f"The recogniser of {folder} does not take faces as InsightFace's do ({error}); choose another pack."
            ) from error
        return int(np.asarray(row).reshape(1, -1).shape[1])


def _models(folder: Path, threads: int) -> dict[str, Any]:
    if not folder.is_dir():
        raise DetectorUnavailable(f"There is no folder {folder}; put the pack of face networks there.")
    if not any(folder.glob("*.onnx")):
        raise DetectorUnavailable(f"{folder} holds no network (*.onnx); put the files of an InsightFace pack there.")
    try:
        import onnxruntime
        from insightface.app import FaceAnalysis

        # Of scikit-image's, once for each face; for the whole process, since threads share what is shown.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"insightface\.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        pack = FaceAnalysis(
            name=str(folder), allowed_modules=["detection", "recognition"], sess_options=options,
            providers=["CPUExecutionProvider"],
        )  # fmt: skip
        models: dict[str, Any] = pack.models
    except AssertionError as error:
        raise DetectorUnavailable(
            f"{folder} holds no network that finds faces, or one that InsightFace does not know; put the files of an "
            "InsightFace pack there."
        ) from error
    except Exception as error:
        raise DetectorUnavailable(
            f"The networks of {folder} cannot be loaded ({type(error).__name__}: {error}); copy them again, or run "
            "`make setup` where a package is missing."
        ) from error
    for task, what in (("detection", "finds faces"), ("recognition", "tells faces apart")):
        if task not in models:
            raise DetectorUnavailable(
                f"{folder} holds no network that {what}; an InsightFace pack has one for finding and one for telling "
                "apart. Put both there."
            )
    if not models["detection"].use_kps:
        raise DetectorUnavailable(
            f"The detector of {folder} does not say where eyes, nose and mouth are, which straightening a face needs; "
            "choose a pack whose detector has key points."
        )
    return models
