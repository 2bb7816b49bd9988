"""Thumbnails of all images, and the larger JPEG that stands in for what browsers cannot show.

A thumbnail has a short side of 256 pixels (never enlarged), large enough to embed from it again. Panoramas keep their
shape, with the long side at most 2,048: beyond 8:1 the short side gets smaller. Files lie at
`<IMAGESEARCH_THUMBNAILS>/<id // 1000>/<id>.jpg`: a thousand files a folder, four thousand folders for four million.
They are written beside and renamed, so that a reader never sees half a file; they are not flushed to disk, since a
lost one can be made again.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from PIL import Image as PilImage

from search.decoding import decode, read_file, read_pixels
from search.errors import Unreadable
from search.models import Image

SHORT_SIDE = 256
LONG_SIDE = 2048
_QUALITY = 80
_RENDITION_QUALITY = 85
_RENDITION_SIDES = (256, 4096)
_RENDITIONS_KEPT = 1000


def make(pixels: PilImage.Image) -> PilImage.Image:
    """RGB pixels -> the thumbnail as an RGB picture (the same picture where it is small enough)."""
    width, height = pixels.size
    scale = min(SHORT_SIDE / min(width, height), LONG_SIDE / max(width, height), 1.0)
    if scale == 1.0:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return pixels.resize(size, PilImage.Resampling.BICUBIC)


def encode(image: PilImage.Image, quality: int = _QUALITY) -> bytes:
    """RGB picture -> JPEG, 4:2:0."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()


def path_of(image_id: int) -> Path:
    """Where the thumbnail of this image lies, whether or not it is there."""
    return _root() / f"{image_id // 1000:04d}" / f"{image_id}.jpg"


def save(image_id: int, data: bytes) -> None:
    """Put a thumbnail in its place, whole or not at all. Raises OSError (a full disk, say)."""
    _write(path_of(image_id), data)


def write_beside(image_id: int, data: bytes) -> Path:
    """Write a thumbnail beside its place, to be put there by `place` or deleted. Raises OSError (a full disk, say)."""
    return _write_beside(path_of(image_id), data)


def place(image_id: int, beside: Path) -> None:
    """Put what `write_beside` wrote in its place."""
    os.replace(beside, path_of(image_id))


def read(image_id: int) -> bytes | None:
    """The JPEG, or None where there is none."""
    try:
        return path_of(image_id).read_bytes()
    except FileNotFoundError:
        return None


def pixels(image_id: int) -> PilImage.Image | None:
    """The thumbnail as an RGB picture, or None where there is none. Raises Unreadable for one that is broken."""
    data = read(image_id)
    return None if data is None else decoded(data)


def decoded(data: bytes) -> PilImage.Image:
    """What `encode` encoded, as an RGB picture. Raises Unreadable."""
    return decode(data, min_side=None).pixels


def missing(ids: Iterable[int]) -> list[int]:
    """Those of the ids, ascending, that have no thumbnail: one look at each folder instead of one at each file."""
    found: list[int] = []
    for _, some in groupby(ids, key=lambda image_id: image_id // 1000):
        here = list(some)
        try:
            there = set(os.listdir(path_of(here[0]).parent))
        except (FileNotFoundError, NotADirectoryError):
            there = set()
        found += [image_id for image_id in here if f"{image_id}.jpg" not in there]
    return found


def delete(ids: Iterable[int]) -> None:
    """Delete the thumbnails of these images; those that are not there are no error."""
    for image_id in ids:
        path_of(image_id).unlink(missing_ok=True)


def rendition(image: Image, side: int) -> bytes:
    """The image's file as an upright sRGB JPEG that fits into `side` x `side` pixels, without metadata.

    The newest thousand are kept beside the thumbnails, under the file's size and time, so that a changed file is made
    anew; small pictures are not enlarged. `side` is held within 256 to 4,096. Raises Unreadable with a sentence,
    also when the file is not there.
    """
    side = min(max(side, _RENDITION_SIDES[0]), _RENDITION_SIDES[1])
    kept = _root() / "renditions" / f"{image.pk}-{side}-{image.size}-{image.mtime_ns}.jpg"
    with contextlib.suppress(FileNotFoundError):
        data = kept.read_bytes()
        os.utime(kept)
        return data
    data = encode(_fit(image, side), _RENDITION_QUALITY)
    with contextlib.suppress(OSError):  # a full disk costs the copy, not the answer
        _write(kept, data)
        _drop_oldest(kept.parent)
    return data


def _fit(image: Image, side: int) -> PilImage.Image:
    try:
        data = read_file(image.absolute_path)
    except FileNotFoundError as fault:
        raise Unreadable("The file is not there.") from fault
    except OSError as fault:
        raise Unreadable(f"The file cannot be opened ({fault.strerror}).") from fault
    shape = min(image.width, image.height) / max(image.width, image.height) if image.width and image.height else 1.0
    decoded = read_pixels(data, min_side=max(1, round(side * shape)), name=bytes(image.path))
    pixels = decoded.pixels
    scale = side / max(pixels.size)
    if scale >= 1.0:
        return pixels
    width, height = pixels.size
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return pixels.resize(size, PilImage.Resampling.LANCZOS, reducing_gap=3.0)


def _root() -> Path:
    from django.conf import settings

    return Path(settings.IMAGESEARCH_THUMBNAILS)


def _write(path: Path, data: bytes) -> None:
    os.replace(_write_beside(path, data), path)


def _write_beside(path: Path, data: bytes) -> Path:
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    return Path(beside)


def _drop_oldest(folder: Path) -> None:
    """Keep the renditions that were used last; called after each new one, does its work once in a hundred."""
    entries = [entry for entry in os.scandir(folder) if entry.name.endswith(".jpg")]
    if len(entries) <= _RENDITIONS_KEPT + 100:
        return
    used = []
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            used.append((entry.stat().st_mtime_ns, entry.path))
    for _, path in sorted(used)[:-_RENDITIONS_KEPT]:
        Path(path).unlink(missing_ok=True)
