"""Looking into files that the catalogue does not know: is this a picture, and what are its bytes' digests?

Reads only regular files, without blocking on what became a FIFO meanwhile; a small pool of threads hides the
latency of network disks.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from django.conf import settings

from ingestion.crawler import readable
from search import decoding, formats
from search.errors import Unreadable

READERS = 8
_ANY_SIZE = decoding.Limits(min_side=0, max_pixels=2**63)
_BLOCK = 1 << 20

In = TypeVar("In")
Out = TypeVar("Out")


class What(Enum):
    CANDIDATE = "candidate"
    TOO_SMALL = "too small"
    UNSUPPORTED = "unsupported"
    CLOSED = "cannot be opened, and is not named like a picture"
    VANISHED = "vanished"


@dataclass(frozen=True, slots=True)
class Finding:
    what: What
    kind: str = ""
    """What the file is, for people, when it is no candidate; at most 60 characters."""
    error: str = ""
    """A sentence when the file could not be opened."""


def inspect(path: bytes) -> Finding:
    """What the file at this absolute path is, from its first bytes, its header and its name."""
    name = os.path.basename(path)
    try:
        head = _head(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return Finding(What.VANISHED)
    except OSError as error:
        if formats.looks_like_image_name(name):
            return Finding(What.CANDIDATE)
        return Finding(
            What.CLOSED, error=f"The file {readable(path)} cannot be opened ({error.strerror or error}); "
            "the next crawl tries again.",
        )  # fmt: skip
    if head is None:
        return Finding(What.VANISHED)
    format = formats.sniff(head, name)
    if format == "RAW":
        return Finding(What.CANDIDATE)  # LibRaw opens nothing in this process
    if format is None:
        if formats.looks_like_image_name(name):
            return Finding(What.CANDIDATE)
        return Finding(What.UNSUPPORTED, kind=_clean(formats.describe(head, name)))
    try:
        header = decoding.probe(path, limits=_ANY_SIZE)
    except (Unreadable, OSError):
        return Finding(What.CANDIDATE)
    if min(header.width, header.height) < settings.IMAGESEARCH_MIN_SIDE:
        kind = f"{formats.label(header.format)} {header.width}x{header.height}"
        return Finding(What.TOO_SMALL, kind=_clean(kind))
    return Finding(What.CANDIDATE)


def sha256_of(path: bytes, *, size: int, mtime_ns: int) -> bytes | None:
    """SHA-256 of a file; None when it is not, or does not stay, the regular file of this size and mtime."""
    try:
        handle = _open(path)
    except OSError:
        return None
    with os.fdopen(handle, "rb", buffering=0) as file:
        try:
            if not _is_still(file.fileno(), size, mtime_ns):
                return None
            digest = hashlib.sha256()
            block = bytearray(_BLOCK)
            view = memoryview(block)
            while count := file.readinto(block):
                digest.update(view[:count])
            return digest.digest() if _is_still(file.fileno(), size, mtime_ns) else None
        except OSError:
            return None


class Readers:
    """A pool of threads that is started when there is something to read."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def map(self, ask: Callable[[In], Out], things: Iterable[In]) -> Iterator[Out]:
        """Answers in the order of `things`. Give it chunks: all of `things` is queued at once."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="crawl")
        return self._pool.map(ask, things)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def clamp_mtime(mtime_ns: int) -> int:
    """A modification time that fits the database's 64 bits; some file systems hold any number."""
    return max(-(2**63), min(2**63 - 1, mtime_ns))


def _open(path: bytes) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _head(path: bytes) -> bytes | None:
    handle = _open(path)
    try:
        return os.read(handle, formats.HEAD_BYTES) if stat.S_ISREG(os.fstat(handle).st_mode) else None
    finally:
        os.close(handle)


def _is_still(handle: int, size: int, mtime_ns: int) -> bool:
    now = os.fstat(handle)
    return stat.S_ISREG(now.st_mode) and now.st_size == size and clamp_mtime(now.st_mtime_ns) == mtime_ns


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", " ").strip()[:60]
