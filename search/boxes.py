"""HEIF, AVIF and JPEG 2000 files as boxes (ISO/IEC 14496-12, 23008-12): size and metadata without a decoder."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF_UUID = b"JpgTiffExif->JP2"
_MOST_BOXES = 10_000


def walk(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each box's payload between two offsets; stops at the first that makes no sense."""
    end = len(data) if end is None else min(end, len(data))
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        elif size == 0:
            size = end - start
        if size < header:
            return
        yield kind, start + header, min(start + size, end)
        start += size


def size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) after rotation of a HEIF or AVIF file's main picture; None where the header does not tell.

    The first kilobytes of the file are enough. `None` also for what only a decoder can say (a crop).
    """
    try:
        meta = _Meta(data)
        properties = meta.properties_of(meta.primary)
    except (struct.error, IndexError, KeyError):
        return None
    size = None
    turned = False
    for kind, start, end in properties:
        if kind == b"ispe" and end - start >= 12:
            size = struct.unpack_from(">II", data, start + 4)
        elif kind == b"irot":
            turned = bool(data[start] & 1)
        elif kind == b"clap":
            return None
    if size is None or 0 in size:
        return None
    return (size[1], size[0]) if turned else (size[0], size[1])


def exif_and_xmp(data: bytes) -> tuple[bytes | None, bytes | None]:
    """The EXIF (from its TIFF header on) and XMP blocks of a HEIF, AVIF or JPEG 2000 file."""
    if data[4:8] == b"jP  ":
        return _from_jpeg2000(data)
    exif = xmp = None
    try:
        meta = _Meta(data)
        for item, kind, mime in meta.items():
            if kind == b"Exif" and exif is None:
                block = meta.content(item)
                skip = int.from_bytes(block[:4], "big")
                exif = block[4 + skip :] or None
            elif kind == b"mime" and mime == b"application/rdf+xml" and xmp is None:
                xmp = meta.content(item)
    except (struct.error, IndexError, KeyError):
        pass
    return exif, xmp


def _from_jpeg2000(data: bytes) -> tuple[bytes | None, bytes | None]:
    exif = xmp = None
    for kind, start, end in walk(data):
        if kind == b"uuid" and data[start : start + 16] == _EXIF_UUID:
            exif = data[start + 16 : end]
        elif kind == b"uuid" and data[start : start + 16] == _XMP_UUID:
            xmp = data[start + 16 : end]
        elif kind == b"xml " and xmp is None and b"rdf:RDF" in data[start:end]:
            xmp = data[start:end]
    return exif, xmp


class _Meta:
    """The `meta` box: which items there are, where they lie, and what is said of them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        start, end = {kind: (s, e) for kind, s, e in walk(data)}[b"meta"]
        self.boxes = {kind: (s, e) for kind, s, e in walk(data, start + 4, end)}
        at = self.boxes[b"pitm"][0]
        self.primary = int(struct.unpack_from(">I" if data[at] else ">H", data, at + 4)[0])

    def properties_of(self, item: int) -> list[tuple[bytes, int, int]]:
        inside = {kind: (s, e) for kind, s, e in walk(self.data, *self.boxes[b"iprp"])}
        known = list(walk(self.data, *inside[b"ipco"]))
        at, end = inside[b"ipma"]
        version, wide = self.data[at], self.data[at + 3] & 1
        (count,) = struct.unpack_from(">I", self.data, at + 4)
        at += 8
        for _ in range(min(count, _MOST_BOXES)):
            (entry,) = struct.unpack_from(">I" if version else ">H", self.data, at)
            at += 4 if version else 2
            links = self.data[at]
            at += 1
            step = 2 if wide else 1
            if entry == item:
                found = []
                for link in range(links):
                    number = int.from_bytes(self.data[at + link * step : at + (link + 1) * step], "big")
                    number &= 0x7FFF if wide else 0x7F
                    if 1 <= number <= len(known):
                        found.append(known[number - 1])
                return found
            at += links * step
            if at >= end:
                break
        return []

    def items(self) -> Iterator[tuple[int, bytes, bytes]]:
        """(id, type, MIME type) of each item."""
        start, end = self.boxes[b"iinf"]
        at = start + (8 if self.data[start] else 6)
        for kind, s, e in walk(self.data, at, end):
            if kind == b"infe" and self.data[s] >= 2:
                wide = self.data[s] >= 3
                (item,) = struct.unpack_from(">I" if wide else ">H", self.data, s + 4)
                type_at = s + (10 if wide else 8)
                names = self.data[type_at + 4 : e].split(b"\0")
                yield item, self.data[type_at : type_at + 4], names[1] if len(names) > 1 else b""

    def content(self, wanted: int) -> bytes:
        """The bytes of one item, b"" where its place cannot be told."""
        data, (at, _) = self.data, self.boxes[b"iloc"]
        version = data[at]
        offset_size, length_size = data[at + 4] >> 4, data[at + 4] & 15
        base_size, index_size = data[at + 5] >> 4, (data[at + 5] & 15) if version else 0
        count_format, count_size = (">I", 4) if version == 2 else (">H", 2)
        (count,) = struct.unpack_from(count_format, data, at + 6)
        at += 6 + count_size

        def number(size: int) -> int:
            nonlocal at
            value = int.from_bytes(data[at : at + size], "big")
            at += size
            return value

        for _ in range(min(count, _MOST_BOXES)):
            item = number(count_size)
            method = number(2) & 15 if version else 0
            number(2)
            base = number(base_size)
            extents = number(2)
            if at > len(data):
                break
            pieces = []
            for _ in range(extents):
                number(index_size)
                start, length = base + number(offset_size), number(length_size)
                if item == wanted:
                    start += self.boxes[b"idat"][0] if method == 1 else 0
                    pieces.append(data[start : start + length])
            if item == wanted:
                return b"".join(pieces)
        return b""
