"""Where the metadata lie in each picture format: the raw EXIF, XMP and IPTC blocks. Pure Python, no decoder."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from search import boxes
from search.formats import HEAD_BYTES, sniff

_MOST_BYTES = 16 * 1024 * 1024
"""No metadata block larger than this is unpacked or put together."""
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_MORE_MARK = b"http://ns.adobe.com/xmp/extension/\x00"
_PHOTOSHOP_MARK = b"Photoshop 3.0\x00"
_FAULTS = (struct.error, IndexError, ValueError, zlib.error, OverflowError)


@dataclass
class Blocks:
    """The metadata blocks of one file, as bytes."""

    exif: bytes | None = None
    """From the TIFF header on (for a TIFF file the file itself)."""
    xmp: list[bytes] = field(default_factory=list)
    iptc: bytes | None = None
    """IPTC-IIM records."""
    texts: dict[str, str] = field(default_factory=dict)
    """PNG text chunks by keyword, in small letters."""


def find_blocks(data: bytes) -> Blocks:
    """The metadata blocks of a picture file; of a broken file those that were found before the break."""
    blocks = Blocks()
    format = sniff(data[:HEAD_BYTES])
    try:
        if format == "JPEG":
            _from_jpeg(data, blocks)
        elif format == "PNG":
            _from_png(data, blocks)
        elif format == "WEBP":
            _from_webp(data, blocks)
        elif format == "TIFF":
            blocks.exif = data
        elif format == "RAW":
            _from_raw(data, blocks)
        elif format == "GIF":
            _from_gif(data, blocks)
        elif format in ("HEIF", "AVIF", "JPEG2000"):
            blocks.exif, xmp = boxes.exif_and_xmp(data)
            blocks.xmp = [xmp] if xmp else []
    except _FAULTS:
        pass
    if blocks.exif is not None and blocks.exif.startswith(b"Exif\x00\x00"):
        blocks.exif = blocks.exif[6:]
    return blocks


def _from_raw(data: bytes, blocks: Blocks) -> None:
    """A TIFF structure, under whatever magic number; Fujifilm's holds a JPEG with all of it."""
    if data.startswith(b"FUJIFILMCCD-RAW"):
        start, length = struct.unpack_from(">II", data, 84)
        _from_jpeg(data[start : start + length], blocks)
    elif data[:2] in (b"II", b"MM"):
        blocks.exif = data
    else:
        _from_canon(data, blocks)


def _from_canon(data: bytes, blocks: Blocks) -> None:
    """CR3: boxes CMT1 to CMT4 beneath moov hold a TIFF directory each; CMT1 (camera, date, orientation) is read."""
    start = data[: 1 << 20].find(b"CMT1")
    if start >= 4:
        (size,) = struct.unpack_from(">I", data, start - 4)
        blocks.exif = data[start + 4 : start - 4 + size]


def _from_jpeg(data: bytes, blocks: Blocks) -> None:
    photoshop = b""
    more: dict[bytes, list[tuple[int, bytes]]] = {}
    for marker, start, end in _jpeg_segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\x00\x00":
            if blocks.exif is None and end - start > 6:
                blocks.exif = data[start + 6 : end]
        elif marker == 0xE1 and data.startswith(_XMP_MARK, start):
            blocks.xmp.append(data[start + len(_XMP_MARK) : end])
        elif marker == 0xE1 and data.startswith(_XMP_MORE_MARK, start):
            at = start + len(_XMP_MORE_MARK)
            (offset,) = struct.unpack_from(">I", data, at + 36)
            more.setdefault(data[at : at + 32], []).append((offset, data[at + 40 : end]))
        elif marker == 0xED and data.startswith(_PHOTOSHOP_MARK, start):
            photoshop += data[start + len(_PHOTOSHOP_MARK) : end]
    blocks.xmp += [b"".join(piece for _, piece in sorted(pieces))[:_MOST_BYTES] for pieces in more.values()]
    blocks.iptc = photoshop_iptc(photoshop)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment's content before the first scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)  # some writers leave bytes between the segments
            if at < 0:
                return
            continue
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at + 4, min(at + 2 + length, len(data))
        at += 2 + max(length, 2)


def photoshop_iptc(resources: bytes) -> bytes | None:
    """The IPTC records among Photoshop's image resources."""
    at = 0
    while resources[at : at + 4] == b"8BIM" and at + 12 <= len(resources):
        number = int.from_bytes(resources[at + 4 : at + 6], "big")
        at += 6
        at += (1 + resources[at] + 1) & ~1  # a Pascal string, padded
        size = int.from_bytes(resources[at : at + 4], "big")
        if number == 0x0404:
            return resources[at + 4 : at + 4 + size]
        at += 4 + ((size + 1) & ~1)
    return None


def _from_png(data: bytes, blocks: Blocks) -> None:
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, start, end = data[at + 4 : at + 8], at + 8, min(at + 8 + size, len(data))
        if kind == b"eXIf":
            blocks.exif = data[start:end]
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, text = _png_text(kind, data[start:end])
            _note_png_text(keyword, text, blocks)
        elif kind == b"IEND":
            return
        at += 12 + size


def _png_text(kind: bytes, chunk: bytes) -> tuple[str, bytes]:
    """Keyword and text of a text chunk; a text that unpacks to more than any metadata is left out."""
    keyword, _, rest = chunk.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\x01"
        rest = rest[2:].split(b"\0", 2)[2]
    elif packed:
        rest = rest[1:]
    if packed:
        unpacker = zlib.decompressobj()
        rest = unpacker.decompress(rest, _MOST_BYTES)
        if unpacker.unconsumed_tail:
            rest = b""
    if kind != b"iTXt":
        rest = rest.decode("latin-1").encode()
    return keyword.decode("latin-1"), rest


def _note_png_text(keyword: str, text: bytes, blocks: Blocks) -> None:
    key = keyword.casefold()
    if key == "xml:com.adobe.xmp":
        blocks.xmp.append(text)
    elif key.startswith("raw profile type "):
        # ImageMagick's way: a name, a length, and the block in hexadecimal.
        block = bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
        what = key.removeprefix("raw profile type ")
        if what in ("exif", "app1") and block.startswith(b"Exif\0\0"):
            blocks.exif = blocks.exif or block
        elif what in ("xmp", "app1"):
            blocks.xmp.append(block.removeprefix(_XMP_MARK))
        elif what in ("iptc", "8bim"):
            blocks.iptc = photoshop_iptc(block) or (block if block[:1] == b"\x1c" else None)
    elif len(blocks.texts) < 100:
        blocks.texts.setdefault(key, text.decode("utf-8", "replace"))


def _from_webp(data: bytes, blocks: Blocks) -> None:
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        content = data[at + 8 : at + 8 + size] if kind in (b"EXIF", b"XMP ") else b""
        if kind == b"EXIF":
            blocks.exif = content
        elif kind == b"XMP ":
            blocks.xmp.append(content)
        at += 8 + size + (size & 1)


def _from_gif(data: bytes, blocks: Blocks) -> None:
    start = data.find(b"\x21\xff\x0bXMP DataXMP")
    if start >= 0:
        end = data.find(b"</x:xmpmeta>", start)
        if end >= 0:
            blocks.xmp.append(data[start + 14 : end + 12])
