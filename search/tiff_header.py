"""Telling a camera's raw file from a TIFF picture by the tags of its first directory."""

from __future__ import annotations

import struct

TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_NEW_SUBFILE_TYPE, _COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_IFDS, _DNG_VERSION = 254, 259, 262, 271, 330, 50706
_RAW_COMPRESSIONS = {32767, 32769, 32770, 34713, 65000, 65535}
"""Sony ARW, packed, Samsung SRW, Nikon NEF, Kodak DCR, Pentax PEF."""
_RAW_PHOTOMETRICS = {32803, 34892}
"""Colour filter array, linear raw."""

RAW_EXTENSIONS = {
    "3fr": "Hasselblad 3FR", "ari": "ARRI", "arw": "Sony ARW", "cap": "Phase One CAP", "cr2": "Canon CR2",
    "cr3": "Canon CR3", "crw": "Canon CRW", "dcr": "Kodak DCR", "dng": "DNG", "erf": "Epson ERF",
    "fff": "Hasselblad FFF",
    "gpr": "GoPro GPR", "iiq": "Phase One IIQ", "k25": "Kodak K25", "kdc": "Kodak KDC", "mef": "Mamiya MEF",
    "mos": "Leaf MOS", "mrw": "Minolta MRW", "nef": "Nikon NEF", "nrw": "Nikon NRW", "orf": "Olympus ORF",
    "pef": "Pentax PEF", "raf": "Fujifilm RAF", "raw": "Panasonic RAW", "rw2": "Panasonic RW2", "rwl": "Leica RWL",
    "sr2": "Sony SR2", "srf": "Sony SRF", "srw": "Samsung SRW", "x3f": "Sigma X3F",
}  # fmt: skip
_MAKERS = {
    "nikon": "Nikon NEF", "sony": "Sony ARW", "pentax": "Pentax PEF", "ricoh": "Pentax PEF", "samsung": "Samsung SRW",
    "hasselblad": "Hasselblad 3FR", "kodak": "Kodak DCR", "eastman": "Kodak DCR", "epson": "Epson ERF",
    "leaf": "Leaf MOS",
    "mamiya": "Mamiya MEF", "phase": "Phase One IIQ",
}  # fmt: skip


def raw_kind(head: bytes, extension: str = "") -> str | None:
    """ "Canon CR2 raw photo" and the like for a raw file with a TIFF header; None for a TIFF picture.

    `extension` (small letters, no dot) names the maker where the content does not, and decides where the first
    directory lies beyond `head`.
    """
    if head[8:11] == b"CR\x02":
        return "Canon CR2 raw photo"
    if head[8:12] in (b"IIII", b"MMMM"):
        return "Phase One IIQ raw photo"
    tags = read_first_directory(head)
    named = RAW_EXTENSIONS.get(extension)
    if tags is None:
        return f"{named} raw photo" if named else None
    if _DNG_VERSION in tags:
        return "DNG raw photo"
    if _MAKE not in tags:
        return None
    preview_first = tags.get(_NEW_SUBFILE_TYPE) == 1 and _SUB_IFDS in tags
    coded = tags.get(_COMPRESSION) in _RAW_COMPRESSIONS or tags.get(_PHOTOMETRIC) in _RAW_PHOTOMETRICS
    if not (preview_first or coded or named):
        return None
    make = str(tags[_MAKE]).casefold()
    maker = next((kind for word, kind in _MAKERS.items() if word in make), None)
    return f"{named or maker} raw photo" if named or maker else "Camera raw photo"


def read_first_directory(head: bytes) -> dict[int, int | str] | None:
    """Tags of the first directory: whole numbers by their first value, texts; None where it is not within `head`."""
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\x00", b"\x00+")
    try:
        if big:
            (start,) = struct.unpack_from(order + "Q", head, 8)
            (count,) = struct.unpack_from(order + "Q", head, start)
            first, step = start + 8, 20
        else:
            (start,) = struct.unpack_from(order + "I", head, 4)
            (count,) = struct.unpack_from(order + "H", head, start)
            first, step = start + 2, 12
        tags: dict[int, int | str] = {}
        for at in range(first, first + min(count, 512) * step, step):
            tag, kind = struct.unpack_from(order + "HH", head, at)
            tags[tag] = _value(head, order, at, kind, big)
        return tags
    except (struct.error, OverflowError):
        return None


def _value(head: bytes, order: str, at: int, kind: int, big: bool) -> int | str:
    inline = at + (12 if big else 8)
    if kind == 2:
        (count,) = struct.unpack_from(order + ("Q" if big else "I"), head, at + 4)
        if count <= (8 if big else 4):
            start = inline
        else:
            (start,) = struct.unpack_from(order + ("Q" if big else "I"), head, inline)
        return head[start : start + min(count, 64)].split(b"\0")[0].decode("latin-1")
    return int(struct.unpack_from(order + {1: "B", 3: "H", 16: "Q"}.get(kind, "I"), head, inline)[0])
