"""One file on its way through the stages: its bytes, its pixels, its thumbnail, each made once and shared."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import PIL.Image

from search import decoding, thumbnails
from search.errors import Unreadable
from search.models import Image

if TYPE_CHECKING:
    from ingestion.ledger import Claimed


class NoThumbnail(Exception):
    """The stored thumbnail is not there, or is broken: it has to be made again before anything is made from it."""


T = TypeVar("T")


class made_once(Generic[T]):
    """`functools.cached_property` without its lock, which in Python 3.11 all pictures would share: two threads could
    not decode at once. A picture is in the hands of one thread at a time."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make, self._name, self.__doc__ = make, make.__name__, make.__doc__

    def __get__(self, picture: Any, owner: type | None = None) -> T:
        if picture is None:
            return self  # type: ignore[return-value]
        value = picture.__dict__[self._name] = self._make(picture)
        return value


_LARGE_BYTES = 16 * 2**20
_one_large_file = threading.Lock()
"""Held while a large file is decoded: what several at once would take is what the memory must have."""


@dataclass
class Picture:
    """A claimed image, first with its bytes as read, later with what was made of them."""

    image: Image
    claimed: Claimed
    side: int
    """Shortest side in pixels that any of its waiting stages wants to start from."""
    data: bytes = field(default=b"", repr=False)
    sidecars: list[bytes] = field(default_factory=list, repr=False)
    """XMP files beside it, as read with it."""
    size: int = 0
    mtime_ns: int = 0
    """The file's size and mtime as it was read; the same before and after."""
    needs_file: bool = True
    """Whether any of its waiting stages asks for the original; else its bytes are never read."""

    @property
    def id(self) -> int:
        return self.image.pk

    @property
    def cautious(self) -> bool:
        """Workers died over it: its bytes are decoded in a process that may die alone."""
        from ingestion.ledger import CAUTIOUS_AFTER

        return self.claimed.attempts >= CAUTIOUS_AFTER

    @made_once
    def decoded(self) -> decoding.Decoded:
        """The pixels, at the largest size that any waiting stage asks. Raises Unreadable."""
        name = os.path.basename(self.image.path)
        with _one_large_file if len(self.data) >= _LARGE_BYTES else contextlib.nullcontext():
            return decoding.read_pixels(self.data, min_side=self.side, name=name, cautious=self.cautious)

    @property
    def pixels(self) -> PIL.Image.Image:
        return self.decoded.pixels

    @made_once
    def thumbnail(self) -> PIL.Image.Image:
        """What is stored as the thumbnail, before it is encoded."""
        return thumbnails.make(self.pixels)

    @made_once
    def encoded_thumbnail(self) -> bytes:
        """The thumbnail as it is stored, of a picture that is being read."""
        return thumbnails.encode(self.thumbnail)

    @made_once
    def stored_thumbnail(self) -> PIL.Image.Image:
        """The thumbnail as it comes back from the disk, also when it is only on its way there. Raises NoThumbnail."""
        from ingestion.ledger import READ

        if READ in self.claimed.stages:
            return thumbnails.decoded(self.encoded_thumbnail)
        try:
            found = thumbnails.pixels(self.id)
        except (Unreadable, OSError) as error:
            raise NoThumbnail from error
        if found is None:
            raise NoThumbnail
        return found

    def let_go(self) -> None:
        """Drop the bytes and all that was made of them: every stage has its input."""
        for name in ("decoded", "thumbnail", "encoded_thumbnail", "stored_thumbnail"):
            self.__dict__.pop(name, None)
        self.data = b""
