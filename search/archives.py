"""ZIP archives that are written while they are sent: originals, or sidecars.

The standard library's `zipfile` writes to what cannot be sought in (sizes and checksums follow each file, ZIP64 where
needed), so a stream of any length takes one block of memory beside the directory that stands at the archive's end.
Photos are stored, not deflated: they are compressed already.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import time
import unicodedata
import zipfile
from collections.abc import Callable, Generator, Iterator
from typing import IO, BinaryIO

from search import exports, live, sidecars
from search.exports import Chosen, Row
from search.models import Image, path_digest
from search.originals import open_movie, open_original
from search.wording import agreeing, counted

BLOCK = 1 << 20
MISSING = "not-included.txt"
_PORTION = 100
_REPLACED = {ord(char): "_" for char in '\\/:*?"<>|\x7f'} | dict.fromkeys(range(32), "_")


class _Sink(io.RawIOBase):
    """What the archive is written to: bytes that wait to be taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class Names:
    """Unique names within an archive, also where capitals do not count; 8 bytes of memory and a little a name."""

    def __init__(self) -> None:
        self._taken: set[bytes] = set()

    def take(self, path: str) -> bool:
        """Whether the name was free; it is not any more."""
        digest = self._digest(path)
        if digest in self._taken:
            return False
        self._taken.add(digest)
        return True

    def unique(self, path: str) -> str:
        """The name, or with a number where it is taken."""
        stem, extension = os.path.splitext(path)
        tried, number = path, 1
        while not self.take(tried):
            number += 1
            tried = f"{stem} ({number}){extension}"
        return tried

    @staticmethod
    def _digest(path: str) -> bytes:
        return hashlib.blake2b(unicodedata.normalize("NFC", path).casefold().encode(), digest_size=12).digest()


def originals(chosen: Chosen) -> Iterator[bytes]:
    """The originals in their folders, beneath one folder for each source, with the films of live photos; what could
    not be read is listed within."""
    sink, names = _Sink(), Names()
    films: set[bytes] = set()
    names.take(MISSING)
    with (
        zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive,  # type: ignore[call-overload]
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as absent,
    ):
        lacking = 0
        for row in exports.rows(chosen, _PORTION):
            for place, open_it in _files(row.image, films):
                try:
                    file = open_it()
                except OSError as error:
                    absent.write(f"{_shown(place)}: {_reason(error)}\n")
                    lacking += 1
                    continue
                with file:
                    said = yield from _stored(archive, sink, names.unique(place), file)
                if said:
                    absent.write(f"{_shown(place)}: {said}\n")
                    lacking += 1
        if lacking:
            yield from _list_of_missing(archive, sink, absent, lacking)
    yield sink.take()


def _files(image: Image, films: set[bytes]) -> Iterator[tuple[str, Callable[[], BinaryIO]]]:
    """(its place in the archive, how it is opened) of an image and of its film; `films` are those that were given."""
    place = inside(image)
    yield place, lambda: open_original(image)
    if (movie := live.movie_of(image)) is not None:
        digest = path_digest(os.fsencode(live.path_of(movie)))
        if digest not in films:  # several files of one picture share it
            films.add(digest)
            yield f"{place.rpartition('/')[0]}/{_part(movie.name_text)}", lambda: open_movie(movie)


def _stored(archive: zipfile.ZipFile, sink: _Sink, name: str, file: IO[bytes]) -> Generator[bytes, None, str]:
    """One file, block by block; returns "" or what went wrong in the middle of it."""
    found = os.fstat(file.fileno())
    entry = _entry(name, found.st_mtime)
    entry.file_size = left = found.st_size  # whether ZIP64 is needed
    said = ""
    with archive.open(entry, "w") as into:
        while left and not said:
            try:
                block = file.read(min(BLOCK, left))
            except OSError as error:
                said = f"cut off in the archive: {_reason(error)}"
                break
            if not block:
                said = "cut off in the archive: the file was shortened while it was read"
            left -= len(block)
            into.write(block)
            yield sink.take()
    return said


def _list_of_missing(archive: zipfile.ZipFile, sink: _Sink, absent: IO[str], number: int) -> Iterator[bytes]:
    with archive.open(_entry(MISSING, time.time()), "w", force_zip64=True) as into:
        files = counted(number, "original")
        into.write(f"{files} {agreeing(number, 'is', 'are')} not in this archive as it should be:\n\n".encode())
        absent.seek(0)
        while text := absent.read(BLOCK):
            into.write(text.encode("utf-8", "backslashreplace"))
            yield sink.take()


def of_sidecars(chosen: Chosen, naming: str) -> Iterator[bytes]:
    """A fresh XMP sidecar for each image of which there is anything to say, in the folders of the originals."""
    sink, names = _Sink(), Names()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        for portion in portions(exports.rows(chosen)):
            said = exports.said_of(portion)
            for row in portion:
                if said[row.image.pk].nothing:
                    continue
                name, extension = sidecar_path(row.image, naming, names)
                archive.writestr(
                    _entry(name, time.time(), zipfile.ZIP_DEFLATED),
                    sidecars.sidecar(said[row.image.pk], extension=extension),
                )
                yield sink.take()
    yield sink.take()


def portions(rows: Iterator[Row], size: int = exports.PORTION) -> Iterator[list[Row]]:
    """Rows in lists of `size`."""
    portion: list[Row] = []
    for row in rows:
        portion.append(row)
        if len(portion) == size:
            yield portion
            portion = []
    if portion:
        yield portion


def sidecar_path(image: Image, naming: str, names: Names) -> tuple[str, str]:
    """Where an image's sidecar stands, and the extension it says that it is for ("" where its name tells).

    Two originals that differ in their extension only (a raw file and its JPEG) cannot share IMG.xmp: the second
    one gets IMG.jpg.xmp.
    """
    path = inside(image)
    stem, extension = os.path.splitext(path)
    if naming == sidecars.LIGHTROOM and extension:
        short = f"{stem}.xmp"
        if names.take(short):
            return short, extension[1:]
    return names.unique(f"{path}.xmp"), ""


def inside(image: Image) -> str:
    """Where an original stands in an archive or a folder: source, folders, name; nothing that leads out of it."""
    parts = [image.source.name, *image.path_text.split("/")]
    return "/".join(_part(part) for part in parts if part not in ("", ".", ".."))


def _part(part: str) -> str:
    cleaned = part.translate(_REPLACED).encode("utf-8", "backslashreplace").decode()
    cleaned = cleaned if cleaned.strip(". ") else "_"
    return cleaned.rstrip(". ") or "_"  # Windows drops them


def _entry(name: str, mtime: float, compression: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    try:
        moment = time.localtime(mtime)[:6]
    except (OverflowError, ValueError, OSError):
        moment = (1980, 1, 1, 0, 0, 0)
    moment = min(max(moment, (1980, 1, 1, 0, 0, 0)), (2107, 12, 31, 23, 59, 58))
    entry = zipfile.ZipInfo(name, moment)  # type: ignore[arg-type]
    entry.compress_type = compression
    entry.external_attr = 0o644 << 16
    return entry


def _shown(place: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in place)


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "the file is not there any more"
    return error.strerror or "it is no plain file, or lies outside of its source"
