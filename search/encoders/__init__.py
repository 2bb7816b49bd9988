"""What turns pictures and words into vectors. `get_encoder()` loads; `availability()` only looks.

Settings accepted (IMAGESEARCH_ENCODER): see `search.encoders.specification.ACCEPTS`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from search.encoders import weights
from search.encoders.base import Availability, Encoder
from search.encoders.extras import missing_package
from search.encoders.specification import Kind, Specification, parse
from search.encoders.threads import encode_plan, set_threads, thread_budget
from search.errors import EncoderUnavailable

__all__ = [
    "Availability",
    "Encoder",
    "availability",
    "encode_plan",
    "fetch",
    "get_encoder",
    "reset_encoders",
    "set_threads",
    "thread_budget",
]

DEFAULT_BYTES = {("ViT-B-32-256", "datacomp_s34b_b86k"): 605_189_364}
"""Size of the weights of the default model, said before asking the hub."""

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, bytes that are here, bytes in all (None: the server does not say)."""

_lock = threading.Lock()
_loaded: dict[str, Encoder] = {}
_loading: dict[str, threading.Lock] = {}
_failed: dict[str, tuple[object, str]] = {}


def get_encoder(spec: str | None = None) -> Encoder:
    """The encoder of this setting (None: settings.IMAGESEARCH_ENCODER); loaded once per process. Never downloads.

    Raises ImproperlyConfigured for a setting that cannot be understood, EncoderUnavailable when its files are not
    here or cannot be loaded; both are sentences that say what to do.
    """
    specification = parse(spec)
    name = specification.text
    with _lock:
        if name in _loaded:
            return _loaded[name]
        loading = _loading.setdefault(name, threading.Lock())
    with loading:
        if name in _loaded:
            return _loaded[name]
        before = _stamp(specification)
        if name in _failed and _failed[name][0] == before:
            raise EncoderUnavailable(_failed[name][1])
        try:
            encoder = load_anew(specification)
        except EncoderUnavailable as error:
            _failed[name] = (before, str(error))
            raise
        with _lock:
            _loaded[name] = encoder
        _failed.pop(name, None)
        return encoder


def availability(spec: str | None = None) -> Availability:
    """Whether `get_encoder(spec)` could load right now. No torch, no network, a few milliseconds at most.

    Files that this process tried to load and could not are not ready until they change.
    Raises ImproperlyConfigured for a setting that cannot be understood.
    """
    specification = parse(spec)
    if specification.kind in {Kind.LOOK, Kind.RANDOM}:
        return Availability(specification.text, True, specification.label, "")
    try:
        found = weights.locate(specification)
    except EncoderUnavailable as error:
        return Availability(specification.text, False, specification.label, str(error))
    if found is None:
        size = DEFAULT_BYTES.get((specification.architecture, specification.tag))
        sentence = weights.how_to_bring(specification)
        return Availability(specification.text, False, specification.label, sentence, size)
    if specification.kind is not Kind.ONNX and (lacks := missing_package(specification, found.config)):
        return Availability(specification.text, False, specification.label, lacks)
    stamp, said = _failed.get(specification.text, (None, ""))
    if said and stamp == _stamp(specification):
        return Availability(specification.text, False, specification.label, said)
    return Availability(specification.text, True, specification.label, "")


def fetch(spec: str | None = None, progress: Progress | None = None) -> Availability:
    """Download what is missing of this model into settings.IMAGESEARCH_MODELS; goes on where it was interrupted.

    Raises EncoderUnavailable (a sentence) when that is not possible: out of reach, offline, not there, disk full.
    """
    from search.encoders.hub import fetch as bring

    specification = parse(spec)
    bring(specification, progress or (lambda name, done, total: None))
    return availability(specification.text)


def reset_encoders() -> None:
    """Forget loaded encoders and failures; the next `get_encoder` reads the settings and files again."""
    with _lock:
        _loaded.clear()
        _loading.clear()
        _failed.clear()
    set_threads(None)


def load_anew(specification: Specification) -> Encoder:
    """Load without keeping; `get_encoder` is what the program calls."""
    if specification.kind is Kind.LOOK:
        from search.encoders.look import LookEncoder

        return LookEncoder()
    if specification.kind is Kind.ONNX:
        from search.encoders import onnx

        return onnx.load(specification)
    from search.encoders import openclip

    return openclip.load(specification)


def _stamp(specification: Specification) -> object:
    """Changes when the model's files do."""
    try:
        found = weights.locate(specification)
    except EncoderUnavailable as error:
        return str(error)
    if found is None:
        return None
    stats = [path.stat() for path in (found.checkpoint, found.config, *found.beside) if path]
    return (str(found.checkpoint), *((stat.st_size, stat.st_mtime_ns) for stat in stats))
