"""Parts of a file, as players ask for them (RFC 9110, section 14): one range of bytes."""

from __future__ import annotations

import io
import re
from typing import BinaryIO

_ONE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.ASCII | re.IGNORECASE)


class NotThere(ValueError):
    """The range lies wholly beyond the file's end: to be answered by 416."""


def asked(header: str, size: int) -> tuple[int, int] | None:
    """(first byte, how many) of a file of `size` bytes that a Range header asks for; None for the whole file.

    What is no single range of bytes is left aside, as the standard allows. Raises NotThere.
    """
    match = _ONE.fullmatch(header.strip())
    if match is None or (not match[1] and not match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        if not length:
            raise NotThere
        return size - length, length
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    if first >= size:
        raise NotThere
    return first, min(last, size - 1) - first + 1


class Part(io.RawIOBase):
    """A stretch of a file, read from its first byte on; closing it closes the file."""

    def __init__(self, file: BinaryIO, first: int, length: int) -> None:
        self._file, self._left = file, length
        file.seek(first)

    def readable(self) -> bool:
        return True

    def readinto(self, into: object) -> int:
        view = memoryview(into)[: self._left]  # type: ignore[arg-type]
        data = self._file.read(len(view))
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
