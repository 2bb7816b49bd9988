"""What lies in the folder of an ONNX encoder: the network, the JSON beside it, the mean to subtract. No onnxruntime.

`model.json` says what the network's file does not:

    {"name": "mobilenetv2", "file": "model.onnx", "input": "input", "output": "features", "dim": 1280,
     "size": 224, "resize": "shortest side, bicubic, centre crop",
     "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "subtract": "mean.npy"}

`input`, `output`, `size`, `mean` and `std` have to be there. A field with another name is refused: a misspelt one
would change the vectors in silence.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from search.errors import EncoderUnavailable

CONFIG = "model.json"
MODEL = "model.onnx"
NEEDED = ("input", "output", "size", "mean", "std")
KNOWN = (*NEEDED, "name", "file", "dim", "resize", "subtract")
REMARKS = ("description", "source", "license", "licence", "comment", "version")
"""Fields that change nothing."""
RESIZE = "shortest side, bicubic, centre crop"
LARGEST_SIDE = 4096
LARGEST_DIM = 65_536
_FILTERS = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "box": PIL.Image.Resampling.BOX,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}
_ACCEPTED_RESIZE = (
    f'"{RESIZE}", "shortest side 256, bilinear, centre crop" (resized to 256 before it is cropped), or '
    f'"squash, bicubic" (the whole picture, without keeping its shape); the filters are {", ".join(_FILTERS)}'
)

Row = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Resize:
    """How a picture becomes a square of the network's size."""

    squash: bool
    short_side: int
    """Pixels of the shorter side before the middle is cut out; the size itself for a squashed picture."""
    filter: PIL.Image.Resampling


@dataclass(frozen=True)
class OnnxFolder:
    """One folder, read and checked as far as that goes without running the network."""

    path: Path
    model: Path
    config: Path
    name: str
    input: str
    output: str
    dim: int | None
    """What the JSON says of the length of the vectors; None where it says nothing."""
    size: int
    resize: Resize
    mean: tuple[float, ...]
    std: tuple[float, ...]
    subtract: Row | None
    """The mean vector that is taken from every vector before it is brought to unit length, (dim,)."""

    def beside(self) -> tuple[Path, ...]:
        """Every other file of the folder: the mean vector, and weights that the network keeps in files of their own."""
        own = {self.model, self.config}
        return tuple(sorted(path for path in self.path.iterdir() if path.is_file() and path not in own))

    @property
    def preprocessing(self) -> dict[str, Any]:
        """All that decides which numbers reach the network, and which of its outputs is taken."""
        return {
            "input": self.input,
            "output": self.output,
            "size": self.size,
            "squash": self.resize.squash,
            "short_side": self.resize.short_side,
            "filter": self.resize.filter.name,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def read(folder: Path | None) -> OnnxFolder:
    """Read a folder's JSON and look at its files; milliseconds. Raises EncoderUnavailable: a sentence that mends it."""
    if folder is None or not folder.is_dir():
        raise EncoderUnavailable(f"There is no folder {folder}; put the ONNX model there or correct the setting.")
    config = folder / CONFIG
    said = _json(config)
    wrong = sorted(set(said) - set(KNOWN) - set(REMARKS))
    if wrong:
        near = difflib.get_close_matches(wrong[0], KNOWN, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it may have {', '.join(KNOWN)}."
        raise EncoderUnavailable(f"{config} has a field {wrong[0]!r} that means nothing here: {hint}")
    missing = [name for name in NEEDED if name not in said]
    if missing:
        raise EncoderUnavailable(
            f"{config} lacks {' and '.join(repr(name) for name in missing)}; docs/settings.md shows a whole one."
        )
    size = _whole(config, said, "size", LARGEST_SIDE)
    subtract = _subtracted(config, said.get("subtract"))
    dim = _whole(config, said, "dim", LARGEST_DIM) if said.get("dim") is not None else None
    if subtract is not None and dim is not None and len(subtract) != dim:
        raise EncoderUnavailable(_wrong_length(config, len(subtract), dim))
    std = _channels(config, said, "std")
    if min(std) <= 0:
        raise EncoderUnavailable(f"{config} says std {list(std)}; channels are divided by it: give numbers above 0.")
    return OnnxFolder(
        path=folder,
        model=_file(config, _text(config, said, "file", MODEL), "the network"),
        config=config,
        name=_text(config, said, "name", folder.name)[:200],
        input=_text(config, said, "input"),
        output=_text(config, said, "output"),
        dim=dim,
        size=size,
        resize=_resize(config, said.get("resize", RESIZE), size),
        mean=_channels(config, said, "mean"),
        std=std,
        subtract=subtract,
    )


def wrong_dim(found: OnnxFolder, dim: int) -> str:
    """A sentence when the network's vectors have another length than the folder says, else ""."""
    if found.dim is not None and found.dim != dim:
        return f'{found.config} says "dim": {found.dim}, but {found.output!r} has {dim} numbers; correct one of them.'
    if found.subtract is not None and len(found.subtract) != dim:
        return _wrong_length(found.config, len(found.subtract), dim)
    return ""


def _wrong_length(config: Path, length: int, dim: int) -> str:
    return (
        f"The mean vector that {config} subtracts has {length} numbers, but the vectors have {dim}: make it anew "
        "from this network's own output, or leave 'subtract' away."
    )


def _json(config: Path) -> dict[str, Any]:
    if not config.is_file():
        raise EncoderUnavailable(
            f"The folder {config.parent} lacks {CONFIG}, which says how pictures are prepared for the network; "
            "docs/settings.md shows one."
        )
    try:
        said = json.loads(config.read_bytes())
    except (OSError, ValueError) as error:
        raise EncoderUnavailable(f"{config} cannot be read as JSON ({error}); correct it.") from error
    if not isinstance(said, dict):
        raise EncoderUnavailable(f"{config} holds no JSON object; docs/settings.md shows one.")
    return said


def _file(config: Path, name: str, what: str) -> Path:
    path = config.parent / name
    if not path.is_file():
        raise EncoderUnavailable(f"The folder {config.parent} lacks {name}, {what}; put it there or correct {config}.")
    if path.stat().st_size == 0:
        raise EncoderUnavailable(f"{path} is empty; copy it again.")
    return path


def _text(config: Path, said: dict[str, Any], field: str, default: str = "") -> str:
    value = said.get(field, default)
    if not isinstance(value, str) or not value.strip():
        raise EncoderUnavailable(f"{config} says {field} {value!r}; it takes a name in quotation marks.")
    return value.strip()


def _whole(config: Path, said: dict[str, Any], field: str, most: int) -> int:
    value = said[field]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise EncoderUnavailable(f"{config} says {field} {value!r}; it takes a whole number from 1 to {most:,}.")
    return value


def _channels(config: Path, said: dict[str, Any], field: str) -> tuple[float, ...]:
    value = said[field]
    right = isinstance(value, list) and len(value) == 3
    if not right or not all(_is_number(one) for one in value):
        raise EncoderUnavailable(
            f"{config} says {field} {value!r}; it takes three numbers, for red, green and blue between 0 and 1."
        )
    return tuple(float(one) for one in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _resize(config: Path, said: object, size: int) -> Resize:
    refused = EncoderUnavailable(f"{config} says resize {said!r}; it takes {_ACCEPTED_RESIZE}.")
    if not isinstance(said, str):
        raise refused
    squash, short_side, chosen = False, size, PIL.Image.Resampling.BICUBIC
    for part in (part.strip().lower() for part in said.split(",")):
        if part in _FILTERS:
            chosen = _FILTERS[part]
        elif part == "squash":
            squash = True
        elif found := re.fullmatch(r"shortest side(?: (\d{1,4}))?", part):
            short_side = int(found[1] or size)
        elif part not in {"centre crop", "center crop"}:
            raise refused
    if short_side < size or (squash and "side" in said.lower()):
        raise refused
    return Resize(squash, short_side, chosen)


def _subtracted(config: Path, said: object) -> Row | None:
    """The mean vector, from a .npy beside the JSON or from the JSON itself; None where nothing is subtracted."""
    if said is None:
        return None
    path: Path | None = None
    if isinstance(said, str):
        path = _file(config, said, "the mean vector to subtract")
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise EncoderUnavailable(
                f"{path} cannot be read as a .npy of numbers ({error}); make it with numpy.save."
            ) from error
    else:
        found = np.array(said if isinstance(said, list) and all(_is_number(one) for one in said) else [[]])
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu" or found.ndim != 1 or not len(found):
        where = path or f"'subtract' in {config}"
        raise EncoderUnavailable(f"{where} is no mean vector; it takes one row of numbers, one for each dimension.")
    row = found.astype(np.float32)
    if not np.isfinite(row).all():
        raise EncoderUnavailable(f"{path or config} has a number in the mean vector that is not finite; make it anew.")
    return row
