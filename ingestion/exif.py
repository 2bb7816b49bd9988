"""EXIF blocks (TIFF directories) -> values by tag, tag by tag, so that one broken tag costs only itself. Pure.

Not Pillow's reader, because that one stops at the first tag whose data lie outside of the block, as they do in many
cameras' files, and takes every text for Latin-1.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any

from ingestion.cleaning import clean

Value = Any
"""int, float (NaN where the denominator is 0), str, bytes, or a tuple of ints or floats."""

_MOST_TAGS = 500
_MOST_VALUES = 64
_MOST_BYTES = 16 * 1024 * 1024
_TYPES: dict[int, tuple[int, str]] = {
    1: (1, "B"), 2: (1, ""), 3: (2, "H"), 4: (4, "I"), 5: (8, "II"), 6: (1, "b"), 7: (1, ""), 8: (2, "h"), 9: (4, "i"),
    10: (8, "ii"), 11: (4, "f"), 12: (8, "d"), 13: (4, "I"), 16: (8, "Q"), 17: (8, "q"), 18: (8, "Q"), 129: (1, ""),
}  # fmt: skip
_EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 0x8769, 0x8825, 0xA005
XMP, IPTC, PHOTOSHOP = 0x02BC, 0x83BB, 0x8649
_BLOCK_TAGS = {XMP, IPTC, PHOTOSHOP}
_XP_TAGS = {0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}
_CODED_TEXTS = {0x9286, 0x1B, 0x1C}
_LEFT_OUT = {
    _EXIF_IFD, _GPS_IFD, _INTEROP_IFD, XMP, IPTC, PHOTOSHOP, 0x014A, 0x0111, 0x0117, 0x0144, 0x0145, 0x015B, 0x0201,
    0x0202, 0x8773, 0x927C, 0xEA1C, 0x0207, 0x0208, 0x0209, 0x0140, 0x935C,
}  # fmt: skip
"""Pointers, offsets, tables and blocks: nothing for people."""


@dataclass
class Exif:
    """The directories of one block; each a dict of tag number to value."""

    image: dict[int, Value] = field(default_factory=dict)
    photo: dict[int, Value] = field(default_factory=dict)
    gps: dict[int, Value] = field(default_factory=dict)
    interop: dict[int, Value] = field(default_factory=dict)

    def get(self, tag: int) -> Value:
        """From the photo's directory or, for the sake of muddled writers, the image's; None where neither has it."""
        return self.photo.get(tag, self.image.get(tag))

    def text(self, tag: int) -> str:
        value = self.get(tag)
        return value if isinstance(value, str) else ""

    def number(self, tag: int) -> float | None:
        """The first value as a finite number, or None."""
        return as_number(self.get(tag))


def as_number(value: Value) -> float | None:
    if isinstance(value, tuple):
        value = value[0] if value else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def read_exif(block: bytes) -> Exif:
    """A block from its TIFF header on (also BigTIFF, also a whole TIFF file); what cannot be read is left out."""
    exif = Exif()
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return exif
    big = block[2:4] in (b"+\x00", b"\x00+")
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), block, 8 if big else 4)
    except struct.error:
        return exif
    seen: set[int] = set()

    def directory(at: Value) -> dict[int, Value]:
        at = at[0] if isinstance(at, tuple) and at else at
        if not isinstance(at, int) or at in seen:
            return {}
        seen.add(at)
        return _read_directory(block, order, big, at)

    exif.image = directory(start)
    exif.photo = directory(exif.image.get(_EXIF_IFD))
    exif.gps = directory(exif.image.get(_GPS_IFD) or exif.photo.get(_GPS_IFD))
    exif.interop = directory(exif.photo.get(_INTEROP_IFD))
    return exif


def _read_directory(block: bytes, order: str, big: bool, start: int) -> dict[int, Value]:
    tags: dict[int, Value] = {}
    entry, at_count, step = (order + "HHQ", start + 8, 20) if big else (order + "HHI", start + 2, 12)
    try:
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), block, start)
    except (struct.error, OverflowError):
        return tags
    for at in range(at_count, at_count + min(count, _MOST_TAGS) * step, step):
        try:
            tag, kind, number = struct.unpack_from(entry, block, at)
            if tag not in tags and kind in _TYPES and number:
                value = _read_value(block, order, big, at, tag, kind, number)
                if value is not None:
                    tags[tag] = value
        except (struct.error, OverflowError):
            continue
    return tags


def _read_value(block: bytes, order: str, big: bool, at: int, tag: int, kind: int, number: int) -> Value:
    width, code = _TYPES[kind]
    size = width * number
    at_data = at + (12 if big else 8)
    if size > (8 if big else 4):
        (at_data,) = struct.unpack_from(order + ("Q" if big else "I"), block, at_data)
    if at_data + size > len(block) or size > _MOST_BYTES:
        return None
    if tag in _BLOCK_TAGS or kind == 7 or (kind == 1 and number > 8):
        return block[at_data : at_data + size]
    if kind in (2, 129):
        return decode_text(block[at_data : at_data + size].split(b"\0")[0])
    number = min(number, _MOST_VALUES + 1)
    values = struct.unpack_from(order + code * number, block, at_data)
    if kind in (5, 10):
        values = tuple(a / b if b else math.nan for a, b in zip(values[::2], values[1::2], strict=True))
    return values[0] if len(values) == 1 else values


def decode_text(raw: bytes) -> str:
    """UTF-8 where it is that, else Windows' Western European; clean (see `cleaning.clean`)."""
    try:
        return clean(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return clean(raw.decode("cp1252", "replace"))


def coded_text(value: Value) -> str:
    """UserComment and its kin: eight bytes that name the character code, then the text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        return ""
    code, rest = value[:8], value[8:]
    if code.startswith(b"UNICODE"):
        codec = "utf-16-be" if rest[:1] == b"\0" or rest.startswith(b"\xfe\xff") else "utf-16-le"
        return clean(rest.decode(codec, "replace").removeprefix("\ufeff").split("\0")[0])
    if code.startswith(b"JIS"):
        return clean(rest.decode("iso2022_jp", "replace"))
    if code.startswith(b"ASCII") or not code.strip(b"\0 "):
        return decode_text(rest.split(b"\0")[0])
    return decode_text(value.split(b"\0")[0]) if value[:8].isascii() and value[:8].strip(b"\0").isalnum() else ""


def windows_text(value: Value) -> str:
    """Windows' XP tags: UTF-16 in bytes."""
    if isinstance(value, tuple) and all(isinstance(part, int) and 0 <= part < 256 for part in value):
        value = bytes(value)
    return clean(value.decode("utf-16-le", "replace").split("\0")[0]) if isinstance(value, bytes) else ""


def as_json(exif: Exif) -> dict[str, Any]:
    """All tags by name, in one flat dict that any JSON column takes: no NaN, NUL or half surrogate, nothing long."""
    from PIL import ExifTags

    interop = {int(tag): tag.name for tag in ExifTags.Interop}
    result: dict[str, Any] = {}
    for tags, names in [
        (exif.image, ExifTags.TAGS),
        (exif.photo, ExifTags.TAGS),
        (exif.gps, ExifTags.GPSTAGS),
        (exif.interop, interop),
    ]:
        for tag, value in tags.items():
            if tag in _LEFT_OUT and tags is not exif.gps:
                continue
            if tag in _XP_TAGS:
                value = windows_text(value)
            elif tag in _CODED_TEXTS and (tags is exif.gps or tag == 0x9286):
                value = coded_text(value)
            plain = _plain(value)
            if plain is not None:
                result.setdefault(names.get(tag, f"0x{tag:04x}"), plain)
    return result


def _plain(value: Value) -> Any:
    """A value as JSON; None where nothing is left of it."""
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    if isinstance(value, str):
        return (value if len(value) <= 2000 else value[:2000] + "…") or None
    if isinstance(value, bytes):
        text = value.rstrip(b"\0 ")
        if text and len(text) <= 200 and text.isascii() and text.decode().isprintable():
            return text.decode()
        return value.hex() if len(value) <= 32 else f"{value[:16].hex()}… ({len(value)} bytes)"
    values = [_plain(part) for part in value]
    if len(values) > _MOST_VALUES:
        return f"more than {_MOST_VALUES} values"
    return values if any(part is not None for part in values) else None
