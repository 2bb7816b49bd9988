"""What IMAGESEARCH_ENCODER may hold, read into its parts. Imports nothing heavy: architectures are file names."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

ACCEPTS = (
    "look (built in, needs no weights), ARCHITECTURE/WEIGHTS-TAG as OpenCLIP names them "
    "(such as ViT-B-32-256/datacomp_s34b_b86k), ARCHITECTURE/PATH-OF-A-CHECKPOINT, hf-hub:ORGANISATION/NAME, "
    "local-dir:FOLDER, onnx:FOLDER (an image-only network) or random:ARCHITECTURE"
)
CHECKPOINT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".npz", ".npy"}


class Kind(Enum):
    LOOK = "look"
    TAG = "tag"
    CHECKPOINT = "checkpoint"
    HUB = "hub"
    FOLDER = "folder"
    ONNX = "onnx"
    RANDOM = "random"


@dataclass(frozen=True)
class Specification:
    """One encoder setting, understood. Only the fields of its kind are filled."""

    text: str
    kind: Kind
    architecture: str = ""
    tag: str = ""
    repository: str = ""
    """ORGANISATION/NAME on the hub."""
    file: str = ""
    """The weights' file name in the repository, "" where OpenCLIP's usual names apply."""
    path: Path | None = None

    @property
    def words(self) -> bool:
        """Whether encoders of this kind know words."""
        return self.kind is not Kind.ONNX

    @property
    def label(self) -> str:
        """Name for people, as on the results page."""
        match self.kind:
            case Kind.TAG:
                return f"{self.architecture}, {self.tag}"
            case Kind.CHECKPOINT:
                return f"{self.architecture}, {self.path.name if self.path else ''}"
            case Kind.HUB:
                return self.repository
            case Kind.FOLDER | Kind.ONNX:
                return self.path.name if self.path else ""
            case Kind.RANDOM:
                return f"{self.architecture}, random weights"
        return "look"


def parse(text: str | None = None) -> Specification:
    """Read an encoder setting; None reads settings.IMAGESEARCH_ENCODER.

    Raises ImproperlyConfigured: one sentence naming the setting, its value and what it accepts.
    """
    text = (settings.IMAGESEARCH_ENCODER if text is None else text).strip()
    if text == "look":
        return Specification(text, Kind.LOOK)
    scheme, colon, rest = text.partition(":")
    if colon and scheme in {"local-dir", "onnx"}:
        if not rest.strip():
            raise _wrong(text)
        kind = Kind.ONNX if scheme == "onnx" else Kind.FOLDER
        return Specification(text, kind, path=_resolve(rest.strip()))
    if colon and scheme == "hf-hub":
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", rest):
            raise _wrong(text)
        return Specification(text, Kind.HUB, repository=rest)
    if colon and scheme == "random":
        return Specification(text, Kind.RANDOM, architecture=_architecture(text, rest))
    architecture, slash, weights = text.partition("/")
    if not slash or not weights.strip():
        raise _wrong(text)
    _architecture(text, architecture)
    if "/" in weights or Path(weights).suffix in CHECKPOINT_SUFFIXES:
        return Specification(text, Kind.CHECKPOINT, architecture=architecture, path=_resolve(weights))
    place = known_weights().get(architecture, {}).get(weights) or _ask_openclip(architecture, weights)
    if not place:
        tags = ", ".join(sorted(known_weights().get(architecture, {}))) or "none"
        raise _wrong(text, f" The weights OpenCLIP knows for {architecture}: {tags}.")
    repository, _, file = place.rpartition("/")
    return Specification(text, Kind.TAG, architecture=architecture, tag=weights, repository=repository, file=file)


@functools.cache
def known_weights() -> dict[str, dict[str, str]]:
    """Architecture -> tag -> where OpenCLIP has the weights on the hub: "ORGANISATION/NAME/[FILE]".

    Kept in a file, so that asking whether a model is here does not import torch; `tests/test_weights.py`
    compares it with the installed OpenCLIP.
    """
    return json.loads((Path(__file__).parent / "openclip_weights.json").read_text())  # type: ignore[no-any-return]


@functools.cache
def architectures() -> frozenset[str]:
    """The architectures the installed OpenCLIP has a configuration of."""
    folder = _configurations()
    return frozenset(file.stem for file in folder.glob("*.json")) if folder else frozenset(known_weights())


def architecture_file(name: str) -> Path | None:
    """OpenCLIP's own configuration of this architecture, None when it is not installed."""
    folder = _configurations()
    return folder / f"{name}.json" if folder and name in architectures() else None


def _configurations() -> Path | None:
    package = importlib.util.find_spec("open_clip")
    return Path(package.origin).parent / "model_configs" if package and package.origin else None


def _architecture(text: str, name: str) -> str:
    if name in architectures():
        return name
    near = difflib.get_close_matches(name, architectures(), n=3, cutoff=0.5)
    raise _wrong(text, f" OpenCLIP has no architecture {name!r}{'; near it: ' + ', '.join(near) if near else ''}.")


def _ask_openclip(architecture: str, tag: str) -> str:
    """For weights that a newer OpenCLIP knows and the file beside this module does not. Imports torch."""
    from search.encoders.threads import before_torch

    before_torch()
    from open_clip.pretrained import get_pretrained_cfg

    found = get_pretrained_cfg(architecture, tag)
    return found.get("hf_hub") or "" if found else ""


def _resolve(path: str) -> Path:
    """Relative to the project's folder, as every other path in the settings."""
    given = Path(path).expanduser()
    return given if given.is_absolute() else (Path(settings.BASE_DIR) / given).resolve()


def _wrong(text: str, more: str = "") -> ImproperlyConfigured:
    name = "IMAGESEARCH_ENCODER" if text == settings.IMAGESEARCH_ENCODER.strip() else "The encoder"
    return ImproperlyConfigured(f"{name} is {text!r}, but it accepts {ACCEPTS}.{more}")
