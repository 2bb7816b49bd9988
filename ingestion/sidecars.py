"""XMP sidecars beside the originals: read with the picture, and noticed by the crawl when they come, change or go.

IMG.jpg.xmp (digiKam, darktable) comes before IMG.xmp (Lightroom). The latter is for every picture of that stem, unless
it says which one it is for (`photoshop:SidecarForExtension`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from ingestion.xmp import read_xmp
from search.models import Image, path_digest

MOST_BYTES = 8 << 20
_ENDINGS = (b".xmp", b".XMP")


def is_sidecar(name: bytes) -> bool:
    return name[-4:].lower() == b".xmp"


def read_beside(path: bytes) -> list[bytes]:
    """The sidecars of the picture at this absolute path, the first one first. What cannot be read is left out."""
    stem, extension = os.path.splitext(path)
    found = [data for ending in _ENDINGS if (data := _read(path + ending)) is not None][:1]
    if extension:
        for ending in _ENDINGS:
            data = _read(stem + ending)
            if data is not None:
                if _is_for(data, extension[1:]):
                    found.append(data)
                break
    return found


def images_beside(source_id: int, paths: Iterable[bytes]) -> list[int]:
    """Ids of the images that these sidecars (relative paths) may be of: one query for each folder."""
    wanted: dict[bytes, set[bytes]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        wanted.setdefault(folder, set()).add(name[:-4])
    found: list[int] = []
    for folder, names in wanted.items():
        there = Image.objects.filter(source=source_id, directory=path_digest(folder))
        for pk, path in there.values_list("pk", "path").iterator():
            name = os.path.basename(bytes(path))
            if name in names or os.path.splitext(name)[0] in names:
                found.append(pk)
    return sorted(found)


def _is_for(data: bytes, extension: bytes) -> bool:
    said = read_xmp([data]).get("photoshop:SidecarForExtension", [""])[0].strip().casefold()
    return not said or said == extension.decode("utf-8", "replace").casefold()


def _read(path: bytes) -> bytes | None:
    """The bytes of a plain file; a link is not followed, what is larger than any sidecar is not read."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode) and found.st_size <= MOST_BYTES:
                return file.read(MOST_BYTES)
    return None
