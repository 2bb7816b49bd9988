"""Names for files that are no supported picture: exact ones for what lies among photos, puremagic for the rest."""

from __future__ import annotations

import re

from search.tiff_header import RAW_EXTENSIONS

_STARTS: list[tuple[bytes, str]] = [
    (b"8BPS", "Photoshop document"),
    (b"%!PS", "PostScript document"),
    (b"\xc5\xd0\xd3\xc6", "EPS drawing"),
    (b"FUJIFILMCCD-RAW", "Fujifilm RAF raw photo"),
    (b"IIRO", "Olympus ORF raw photo"), (b"IIRS", "Olympus ORF raw photo"), (b"MMOR", "Olympus ORF raw photo"),
    (b"IIU\x00", "Panasonic RW2 raw photo"),
    (b"\x00MRM", "Minolta MRW raw photo"),
    (b"FOVb", "Sigma X3F raw photo"),
    (b"II\x1a\x00\x00\x00HEAPCCDR", "Canon CRW raw photo"),
    (b"\xff\x0a", "JPEG XL picture"), (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL picture"),
    (b"II\xbc", "JPEG XR picture"),
    (b"qoif", "QOI picture"),
    (b"DDS ", "DirectDraw surface"),
    (b"gimp xcf", "GIMP document"),
    (b"\x76\x2f\x31\x01", "OpenEXR picture"),
    (b"#?RADIANCE", "Radiance HDR picture"),
    (b"SIMPLE  =", "FITS picture"),
    (b"AT&TFORM", "DjVu document"),
    (b"icns", "Apple icon"),
    (b"\xd7\xcd\xc6\x9a", "Windows metafile"),
    (b"KRITA", "Krita document"), (b"BLENDER", "Blender file"),
    (b"FLV\x01", "Flash video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media video"),
    (b"\x00\x00\x01\xba", "MPEG video"), (b"\x00\x00\x01\xb3", "MPEG video"),
    (b"OggS", "Ogg audio or video"),
    (b"fLaC", "FLAC audio"), (b"ID3", "MP3 audio"), (b"\xff\xfb", "MP3 audio"), (b"\xff\xf3", "MP3 audio"),
    (b"MThd", "MIDI music"), (b"#!AMR", "AMR audio"),
    (b"\x1f\x8b", "gzip archive"), (b"BZh", "bzip2 archive"), (b"\xfd7zXZ\x00", "xz archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard archive"), (b"7z\xbc\xaf\x27\x1c", "7-Zip archive"),
    (b"Rar!\x1a\x07", "RAR archive"),
    (b"SQLite format 3\x00", "SQLite database"),
    (b"\x7fELF", "Linux program"), (b"MZ", "Windows program"),
    (b"\xcf\xfa\xed\xfe", "macOS program"), (b"\xca\xfe\xba\xbe", "macOS program"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Microsoft Office document"),
    (b"{\\rtf", "RTF document"),
    (b"\x00\x05\x16\x07", "AppleDouble file"),
    (b"\x93NUMPY", "NumPy array"), (b"wOFF", "font"), (b"wOF2", "font"), (b"OTTO", "font"),
    (b"\x00\x01\x00\x00\x00", "font"),
]  # fmt: skip

_FILM_BRANDS = {
    b"qt  ": "QuickTime video", b"M4V ": "MP4 video", b"M4A ": "MPEG-4 audio", b"M4B ": "MPEG-4 audio",
    b"crx ": "Canon CR3 raw photo", b"mjp2": "Motion JPEG 2000 video", b"jxl ": "JPEG XL picture",
}  # fmt: skip
_OPEN_BOXES = (b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot")
_RIFFS = {b"AVI ": "AVI video", b"WAVE": "WAV audio", b"ACON": "Windows cursor", b"RMID": "MIDI music"}
_ZIPS = [
    (b"word/", "Word document"), (b"xl/", "Excel document"), (b"ppt/", "PowerPoint document"),
    (b"application/epub", "EPUB book"), (b"opendocument.text", "OpenDocument text"),
    (b"opendocument.spreadsheet", "OpenDocument spreadsheet"),
    (b"opendocument.presentation", "OpenDocument presentation"),
    (b"image/openraster", "OpenRaster document"), (b"application/x-krita", "Krita document"),
    (b"AndroidManifest.xml", "Android program"), (b"META-INF/", "Java archive"),
]  # fmt: skip

_BY_EXTENSION = {
    "mp4": "MP4 video", "m4v": "MP4 video", "mov": "QuickTime video", "avi": "AVI video", "mkv": "Matroska video",
    "webm": "WebM video", "mts": "MPEG video", "m2ts": "MPEG video", "ts": "MPEG video", "mpg": "MPEG video",
    "mpeg": "MPEG video", "vob": "MPEG video", "3gp": "3GP video", "wmv": "Windows Media video",
    "insv": "Insta360 video",
    "mp3": "MP3 audio", "aac": "AAC audio", "m4a": "MPEG-4 audio", "pdf": "PDF document", "psb": "Photoshop document",
    "psd": "Photoshop document", "ai": "Illustrator drawing", "tga": "Targa picture", "pcx": "PCX picture",
    "ico": "Windows icon", "cur": "Windows cursor", "pcd": "Photo CD picture", "sgi": "SGI picture",
    "ras": "Sun raster",
    "fli": "FLI animation", "flc": "FLI animation", "iso": "disk image", "dmg": "disk image", "zip": "ZIP archive",
    "xmp": "XMP sidecar", "aae": "Apple edit sidecar", "thm": "camera thumbnail", "lrv": "GoPro preview video",
    "db": "database", "wmf": "Windows metafile", "emf": "Windows metafile",
}  # fmt: skip
_TEXTS = {
    "html": "HTML page", "htm": "HTML page", "json": "JSON text", "xmp": "XMP sidecar", "aae": "Apple edit sidecar",
    "eps": "EPS drawing",
}  # fmt: skip
_TEXT_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def describe(head: bytes, extension: str, *, picture_name: bool = False) -> str:
    """What these bytes begin, in at most 60 characters; "unknown" when nothing tells.

    With `picture_name` the extension claims a picture that this is not, and so says nothing.
    """
    if not head.strip(b"\0"):
        return "zero bytes"
    kind = _by_structure(head) or _by_start(head, extension) or _as_text(head, extension)
    if kind:
        return kind
    if extension in RAW_EXTENSIONS:
        return f"{RAW_EXTENSIONS[extension]} raw photo"
    if extension in _BY_EXTENSION:
        return _BY_EXTENSION[extension]
    guess = _by_puremagic(head)
    if guess or picture_name or not re.fullmatch(r"[a-z0-9]{1,8}", extension):
        return guess or "unknown"
    return f"{extension.upper()} file"


def _by_start(head: bytes, extension: str) -> str | None:
    for start, kind in _STARTS:
        if head.startswith(start):
            if kind == "PostScript document" and (extension == "eps" or b"EPSF" in head[:64]):
                return "EPS drawing"
            return kind
    return None


def _by_structure(head: bytes) -> str | None:
    if b"%PDF-" in head[:1024]:
        return "PDF document"
    if head[4:8] == b"ftyp":
        major = head[8:12]
        return _FILM_BRANDS.get(major) or ("3GP video" if major.startswith(b"3g") else "MP4 video")
    if head[4:8] in _OPEN_BOXES and int.from_bytes(head[:4], "big") < 1 << 28:
        return "QuickTime video"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "WebM video" if b"webm" in head[:64] else "Matroska video"
    if head[:4] in (b"RIFF", b"RIFX"):
        return _RIFFS.get(head[8:12])
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return next((kind for mark, kind in _ZIPS if mark in head), "ZIP archive")
    if head[257:262] == b"ustar":
        return "tar archive"
    if head[128:132] == b"DICM":
        return "DICOM picture"
    if any(head[at : at + 1] == head[at + step : at + step + 1] == b"\x47" for at, step in [(0, 188), (4, 192)]):
        return "MPEG video"
    if re.match(rb"P[1-7fF]\s", head):
        return "Netpbm picture"
    if head[:4] in (b"\x00\x00\x01\x00", b"\x00\x00\x02\x00") and head[4:6] != b"\0\0" and head[9:10] == b"\0":
        return "Windows icon" if head[2] == 1 else "Windows cursor"
    return None


def _as_text(head: bytes, extension: str) -> str | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and len(head) > 3 and head[2:64].count(0) * 3 > len(head[2:64]):
        return "text"
    if _TEXT_CONTROLS.search(head):
        return None
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character cut by the end of the head is no fault; old 8-bit text is told by its extension.
        if error.start < len(head) - 3 and extension not in {"txt", "csv", "md", "log"}:
            return None
    lowered = head[:2048].lower()
    if b"<svg" in lowered:
        return "SVG drawing"
    if b"<x:xmpmeta" in lowered:
        return "XMP sidecar"
    if b"<!doctype html" in lowered or b"<html" in lowered:
        return "HTML page"
    if lowered.startswith(b"<?xml") and extension not in _TEXTS:
        return "XML text"
    if lowered.lstrip().startswith(b"%!ps"):
        return "PostScript document"
    return _TEXTS.get(extension, "text")


def _by_puremagic(head: bytes) -> str | None:
    """The best of puremagic's guesses, where at least six bytes speak for it: shorter ones are mostly chance."""
    import puremagic

    try:
        guesses = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        return None
    for guess in guesses:
        if len(guess.byte_match or b"") >= 6 and guess.name:
            return str(guess.name)[:60]
    return None
