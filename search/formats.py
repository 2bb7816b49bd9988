"""What a file is, by its first bytes: the pictures that are read, and a name for the rest."""

from __future__ import annotations

import os

from search import signatures
from search.tiff_header import TIFF_MAGICS, raw_kind

HEAD_BYTES = 8192
"""How many of a file's first bytes `sniff` and `describe` want to see; fewer work, with less to go by."""

EXTENSIONS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "jif", "mpo"),
    "PNG": ("png", "apng"),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff", "btf", "tf8"),
    "WEBP": ("webp",),
    "HEIF": ("heic", "heif", "hif", "heics", "heifs"),
    "AVIF": ("avif", "avifs"),
    "JPEG2000": ("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
    # Not every raw extension: "raw" and its like are other programs' too, and name no picture by themselves.
    "RAW": ("cr2", "cr3", "nef", "nrw", "arw", "sr2", "dng", "orf", "rw2", "raf", "pef", "srw"),
}
"""The supported formats and the extensions that their files usually bear."""

LABELS = {"WEBP": "WebP", "JPEG2000": "JPEG 2000", "RAW": "raw"}
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00")
"""Fujifilm RAF, Olympus ORF, Panasonic RW2; the others are TIFF inside, and CR3 is boxes."""
_FORMAT_OF = {extension: format for format, extensions in EXTENSIONS.items() for extension in extensions}

_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
_HEIF_BRANDS = {
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif", b"mif1", b"mif2", b"msf1", b"miaf",
}  # fmt: skip
_AVIF_BRANDS = {b"avif", b"avis", b"avio"}
_VIDEO_CODING_BRANDS = {b"crx ", b"qt  ", b"mjp2"}


def label(format: str) -> str:
    """The name of a supported format for people: "JPEG", "WebP", "JPEG 2000"."""
    return LABELS.get(format, format)


def extension_of(name: bytes | str) -> str:
    """The extension in small letters without the dot; "" where there is none."""
    return os.path.splitext(os.fsdecode(name))[1][1:].lower()


def looks_like_image_name(name: bytes | str) -> bool:
    """Whether a file with this name claims to be a picture of a supported format."""
    return extension_of(name) in _FORMAT_OF


def sniff(head: bytes, name: bytes | str = b"") -> str | None:
    """The supported format that these first bytes begin (a key of `EXTENSIONS`), or None.

    `head` may be the whole file. The name decides only between TIFF and a camera's raw file, and only where the
    first bytes leave that open: most raw files are TIFF inside, but what a TIFF reader finds there is a tiny preview.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head.startswith(TIFF_MAGICS):
        return "RAW" if raw_kind(head, extension_of(name)) else "TIFF"
    if head.startswith(_RAW_STARTS):
        return "RAW"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _sniff_boxes(head)
    if head.startswith(b"\x00\x00\x00\x0cjP  \r\n\x87\n"):
        return None if head[20:24] == b"mjp2" else "JPEG2000"
    if head.startswith(b"\xff\x4f\xff\x51"):
        return "JPEG2000"
    return None


def _sniff_boxes(head: bytes) -> str | None:
    """HEIF or AVIF by the brands of an ISO base media file; None for films and the rest."""
    length = min(int.from_bytes(head[0:4], "big"), 4096)
    major = head[8:12]
    brands = {major} | {head[at : at + 4] for at in range(16, min(length, len(head) - 3), 4)}
    if major == b"crx " and not brands & {b"qt  ", b"mp41", b"mp42"}:
        return "RAW"  # Canon CR3
    if major in _VIDEO_CODING_BRANDS or not (brands & (_HEIF_BRANDS | _AVIF_BRANDS)):
        return None
    heic = any(brand.startswith((b"hei", b"hev")) for brand in brands)
    if major in _AVIF_BRANDS or (brands & _AVIF_BRANDS and not heic):
        return "AVIF"
    # Films also list "mif1" now and then; a HEIF file says so first or names the coding of its pictures.
    return "HEIF" if major in _HEIF_BRANDS or heic else None


def describe(head: bytes, name: bytes | str = b"") -> str:
    """What a file is, for people, in at most 60 characters: "PDF document", "MP4 video", "text", ... or "unknown".

    By content; the extension decides only where the content says nothing.
    """
    extension = extension_of(name)
    supported = sniff(head, name)
    if supported and supported != "RAW":
        return f"{label(supported)} picture"
    if not head:
        return "empty file"
    if head.startswith(TIFF_MAGICS):
        return raw_kind(head, extension) or "TIFF picture"
    return signatures.describe(head, extension, picture_name=extension in _FORMAT_OF)


def wrong_content(head: bytes, name: bytes | str = b"") -> str:
    """Why a file that `sniff` does not know cannot be read, in one sentence."""
    if not head:
        return "The file is empty."
    kind = describe(head, name)
    holds = {"unknown": "data of an unknown kind", "text": "text", "zero bytes": "nothing but zero bytes"}.get(
        kind, f"{article(kind)} {kind}"
    )
    claimed = _FORMAT_OF.get(extension_of(name))
    if claimed:
        return f"The file is named like {article(label(claimed))} {label(claimed)} picture but holds {holds}."
    return f"The file holds {holds}, which is not a supported picture format."


def article(noun: str) -> str:
    """ "a" or "an", as the word or the abbreviation is spoken."""
    word = noun.split()[0]
    spelled = (
        len(word) > 1 and word.isupper() and word not in {"JPEG", "TIFF", "GIF", "HEIF", "BMP", "TAR", "RAR"}
    ) or (word[:2] in {"MP"} and word[2:].isdigit())
    if spelled:
        return "an" if word[0] in "AEFHILMNORSX" else "a"
    return "an" if word[0] in "AEIOaeio" else "a"
