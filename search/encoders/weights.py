"""Finding a model's files on this machine, and telling its weights apart. No network, no torch.

Looked at in order: the hand-carried folder (settings.IMAGESEARCH_MODELS, where downloads go too), then the Hugging
Face cache. Names in the models folder, for the repository ORG/NAME and the setting ARCHITECTURE/TAG:

    ORG--NAME/            the repository's files (open_clip_config.json and the weights)
    ARCHITECTURE--TAG/    a folder with the weights
    ARCHITECTURE--TAG.safetensors (or .bin, .pt, .pth)    the weights alone
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from search.encoders import onnx_folder
from search.encoders.specification import Kind, Specification
from search.errors import EncoderUnavailable

CONFIG = "open_clip_config.json"
PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Names of weights in a repository or folder, best first (the order in which OpenCLIP looks)."""
LOOSE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)

_checked: dict[tuple[str, int, int], str] = {}
_digest_lock = threading.Lock()


@dataclass(frozen=True)
class Weights:
    """A model's files, found."""

    checkpoint: Path
    config: Path | None
    """open_clip_config.json (an ONNX folder's model.json); None where the architecture comes with OpenCLIP."""
    beside: tuple[Path, ...] = ()
    """Other files that may decide what the model is: an ONNX folder's mean vector and weights kept apart."""


def locate(specification: Specification) -> Weights | None:
    """The files of this model on this machine, or None. Quick: looks at names, sizes and one small header.

    Raises EncoderUnavailable (a sentence) when a file is there but incomplete.
    """
    match specification.kind:
        case Kind.LOOK | Kind.RANDOM:
            return None
        case Kind.CHECKPOINT:
            path = specification.path
            return Weights(_complete(path), None) if path and path.is_file() else None
        case Kind.FOLDER:
            return _in_folder(specification.path, specification) if specification.path else None
        case Kind.ONNX:
            read = onnx_folder.read(specification.path)
            return Weights(read.model, read.config, read.beside())
    for folder in _folders(specification):
        found = _in_folder(folder, specification)
        if found:
            return found
        if specification.kind is Kind.TAG:
            for suffix in LOOSE_SUFFIXES:
                if (file := folder.with_name(folder.name + suffix)).is_file():
                    return Weights(_complete(file), None)
    return None


def models_folder() -> Path:
    return Path(settings.IMAGESEARCH_MODELS)


def download_folder(specification: Specification) -> Path:
    """Where `fetch` puts this model's files."""
    return models_folder() / specification.repository.replace("/", "--")


def hub_cache() -> Path:
    """The Hugging Face cache, by the variables its own library reads."""
    environment = os.environ
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    home = environment.get("HF_HOME") or os.path.join(environment.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "hub"


def how_to_bring(specification: Specification) -> str:
    """What to do when the files are not here, as a sentence for people."""
    match specification.kind:
        case Kind.CHECKPOINT:
            return f"There is no file {specification.path}; put the checkpoint there or correct IMAGESEARCH_ENCODER."
        case Kind.FOLDER:
            folder = specification.path
            if folder and folder.is_dir():
                missing = CONFIG if not (folder / CONFIG).is_file() else "weights such as " + PREFERRED[0]
                return f"The folder {folder} lacks {missing}; put it there or correct IMAGESEARCH_ENCODER."
            return f"There is no folder {folder}; put the model there or correct IMAGESEARCH_ENCODER."
        case Kind.ONNX:
            return f"Put {onnx_folder.MODEL} and {onnx_folder.CONFIG} into {specification.path}."
    by_hand = f"put its files ({CONFIG} and {specification.file or PREFERRED[0]}) into {download_folder(specification)}"
    if specification.kind is Kind.TAG:
        name = f"{specification.architecture}--{specification.tag}"
        weights = specification.file or PREFERRED[0]
        by_hand = (
            f"carry {weights} of {specification.repository} by hand to {models_folder() / name}{Path(weights).suffix}"
        )
    return f"The model {specification.label} is not here yet: run `manage.py model fetch` to download it, or {by_hand}."


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; remembered in the models folder by path, size and modification time."""
    stat = path.stat()
    name, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
    book = models_folder() / "digests.json"
    with _digest_lock:
        known = _read_book(book)
        entry = known.get(name)
        if isinstance(entry, list) and entry[:2] == stamp:
            return str(entry[2])
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        known = {**_read_book(book), name: [*stamp, digest]}
        # Only a cache: where the models folder cannot be written, the digest is computed again next time.
        with contextlib.suppress(OSError):
            book.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=book.parent, prefix=".digests-")
            with os.fdopen(handle, "w") as out:
                json.dump(known, out)
            os.replace(temporary, book)
    return digest


def _read_book(book: Path) -> dict[str, list[object]]:
    try:
        known = json.loads(book.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _folders(specification: Specification) -> Iterator[Path]:
    models = models_folder()
    repository = specification.repository
    if specification.kind is Kind.TAG:
        yield models / f"{specification.architecture}--{specification.tag}"
    yield models / repository.replace("/", "--")
    yield models / repository
    for cache in (models, hub_cache()):
        snapshots = cache / f"models--{repository.replace('/', '--')}" / "snapshots"
        with contextlib.suppress(OSError):
            yield snapshots / (snapshots.parent / "refs" / "main").read_text().strip()
        with contextlib.suppress(OSError):
            yield from sorted(snapshots.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)


def _in_folder(folder: Path, specification: Specification) -> Weights | None:
    """The weights in a folder, and the configuration where the specification needs one."""
    if not folder.is_dir():
        return None
    config = folder / CONFIG
    needs_config = specification.kind in {Kind.FOLDER, Kind.HUB}
    if needs_config and not config.is_file():
        return None
    names = (specification.file, *PREFERRED) if specification.file else PREFERRED
    for name in names:
        if (folder / name).is_file():
            return Weights(_complete(folder / name), config if needs_config else None)
    others = sorted(
        (file for file in folder.iterdir() if file.suffix in LOOSE_SUFFIXES and file.is_file()),
        key=lambda file: (LOOSE_SUFFIXES.index(file.suffix), file.name),
    )
    return Weights(_complete(others[0]), config if needs_config else None) if others else None


def _complete(path: Path) -> Path:
    """The path again. Raises EncoderUnavailable when the file is shorter than its own header says."""
    stat = path.stat()
    seen = (str(path), stat.st_size, stat.st_mtime_ns)
    if seen not in _checked:
        _checked[seen] = _fault_of(path, stat.st_size)
    if _checked[seen]:
        raise EncoderUnavailable(_checked[seen])
    return path


def _fault_of(path: Path, size: int) -> str:
    """ "" when nothing is wrong: a safetensors file says in its header where its last tensor ends."""
    if size == 0:
        return f"The weights file {path} is empty; copy it again, or delete it and run `manage.py model fetch`."
    if path.suffix != ".safetensors":
        return ""
    again = "copy it again, or delete it and run `manage.py model fetch`."
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, 100_000_000):
                return f"The weights file {path} is not a safetensors file or is incomplete; {again}"
            header = json.loads(file.read(length))
        end = max((part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"), default=0)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"The weights file {path} cannot be read ({error}); {again}"
    if size != 8 + length + end:
        return f"The weights file {path} is incomplete ({size:,} of {8 + length + end:,} bytes); {again}"
    return ""
