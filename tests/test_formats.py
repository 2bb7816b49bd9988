"""What a file is, by its first bytes."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from search.formats import HEAD_BYTES, article, describe, looks_like_image_name, sniff, wrong_content
from tests.picture_files import encoded, scene


def tiff(*tags: tuple[int, int, int, int], order: str = "<", tail: bytes = b"") -> bytes:
    """A TIFF header with one directory of (tag, type, count, value) entries."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, count) + _inline(order, kind, value) for tag, kind, count, value in tags
    )
    return magic + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4) + tail


def _inline(order: str, kind: int, value: int) -> bytes:
    return struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)


def film(brand: bytes, *compatible: bytes) -> bytes:
    return struct.pack(">I4s4sI", 16 + 4 * len(compatible), b"ftyp", brand, 0) + b"".join(compatible) + bytes(32)


@pytest.mark.parametrize(
    ("format", "expected"),
    [("JPEG", "JPEG"), ("PNG", "PNG"), ("GIF", "GIF"), ("BMP", "BMP"), ("TIFF", "TIFF"), ("WEBP", "WEBP"),
     ("AVIF", "AVIF"), ("JPEG2000", "JPEG2000")],
)  # fmt: skip
def test_sniff_knows_what_pillow_writes_whatever_its_name(format: str, expected: str) -> None:
    data = encoded(scene(64, 48), format)
    assert sniff(data[:HEAD_BYTES], b"lies.txt") == expected
    assert sniff(data[:64]) == expected


def test_sniff_knows_bare_codestreams_bigtiff_and_heif() -> None:
    import pillow_heif

    out = io.BytesIO()
    pillow_heif.from_pillow(scene(64, 64)).save(out)
    assert sniff(out.getvalue()) == "HEIF"
    assert sniff(encoded(scene(64, 64), "JPEG2000", no_jp2=True)) == "JPEG2000"
    assert sniff(encoded(scene(64, 64), "TIFF", big_tiff=True)) == "TIFF"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (film(b"mif1", b"mif1", b"heic"), "HEIF"),
        (film(b"mif1", b"mif1", b"avif"), "AVIF"),
        (film(b"MiHB", b"mif1", b"heix"), "HEIF"),
        (film(b"avis", b"avif"), "AVIF"),
        (film(b"isom", b"mp41", b"mif1"), None),
        (film(b"crx ", b"crx ", b"isom"), "RAW"),
        (film(b"qt  "), None),
    ],
)
def test_sniff_reads_brands(head: bytes, expected: str | None) -> None:
    assert sniff(head) == expected


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(64), "a.tif", "Canon CR2 raw photo"),
        (tiff((254, 4, 1, 1), (50706, 1, 4, 1)), "a.tif", "DNG raw photo"),
        (
            tiff((254, 4, 1, 1), (271, 2, 18, 50), (330, 4, 2, 200), tail=b"NIKON CORPORATION\0"), "a",
            "Nikon NEF raw photo",
        ),
        (tiff((259, 3, 1, 32767), (271, 2, 5, 38), order=">", tail=b"SONY\0"), "a", "Sony ARW raw photo"),
        (tiff((262, 3, 1, 32803), (271, 2, 5, 38), tail=b"Acme\0"), "a", "Camera raw photo"),
        (tiff((271, 2, 5, 26), tail=b"Acme\0"), "a.erf", "Epson ERF raw photo"),
        (b"II*\0\0\0\x10\0" + bytes(100), "a.NEF", "Nikon NEF raw photo"),
        (film(b"crx ", b"isom"), "a", "Canon CR3 raw photo"),
        (b"FUJIFILMCCD-RAW 0201", "a", "Fujifilm RAF raw photo"),
        (b"IIRO\x08\0\0\0" + bytes(9), "a", "Olympus ORF raw photo"),
        (b"IIU\0" + bytes(9), "a.x", "Panasonic RW2 raw photo"),
    ],
)  # fmt: skip
def test_raw_photos_are_no_tiff_pictures(head: bytes, name: str, kind: str) -> None:
    assert sniff(head, name) == "RAW"
    assert describe(head, name) == kind


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (tiff((254, 4, 1, 1), (330, 4, 2, 200)), "pyramid.tif"),
        (tiff((271, 2, 5, 26), tail=b"Acme\0"), "scan.tif"),
        (tiff((256, 4, 1, 1)), "renamed.nef"),
        (b"II*\0\0\0\x10\0" + bytes(100), "directory at the end.tif"),
    ],
)
def test_a_tiff_picture_is_no_raw_photo(head: bytes, name: str) -> None:
    assert sniff(head, name) == "TIFF"


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return out.getvalue()


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"%PDF-1.7\n", "a.jpg", "PDF document"),
        (film(b"isom", b"mp41"), "a.mp4", "MP4 video"),
        (film(b"qt  "), "a.mov", "QuickTime video"),
        (film(b"3gp5"), "a", "3GP video"),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x23\x42\x82\x88matroska", "a.mkv", "Matroska video"),
        (b"RIFF\x10\0\0\0AVI LIST", "a", "AVI video"),
        (b"8BPS\0\x01", "a.psd", "Photoshop document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a", "EPS drawing"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg", "SVG drawing"),
        (b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>", "a.xmp", "XMP sidecar"),
        (b"hello\nworld\n", "notes.txt", "text"),
        ("grüße".encode()[:3], "notes", "text"),
        (b"\xff\xfeh\0e\0l\0l\0o\0", "notes.txt", "text"),
        (zipped("word/document.xml"), "a.docx", "Word document"),
        (zipped("a.jpg"), "a.zip", "ZIP archive"),
        (b"SQLite format 3\0", "Thumbs.db", "SQLite database"),
        (bytes(100), "a.jpg", "zero bytes"),
        (b"", "a.jpg", "empty file"),
        (b"\x01\x02\x03\x04\x99\x98\x97", "catalog.lrcat", "LRCAT file"),
        (b"\x01\x02\x03\x04\x99\x98\x97", "noextension", "unknown"),
        (b"\x01\x02\x03\x04\x99\x98\x97", "a.jpg", "unknown"),
        (b"\x01\x02\x03\x04\x99\x98\x97", "holiday.mts", "MPEG video"),
        (b"wOF2\0\1\0\0", "a.woff2", "font"),
    ],
)  # fmt: skip
def test_describe_names_what_lies_among_photos(head: bytes, name: str, kind: str) -> None:
    assert sniff(head, name) is None
    assert describe(head, name) == kind


def test_describe_fits_its_column_and_never_fails(shared: Path) -> None:
    for path in (shared / "photos" / "formats").rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:HEAD_BYTES]
            assert 0 < len(describe(head, path.name)) <= 60
            assert 0 < len(describe(head[:40], path.name)) <= 60


def test_a_wrong_name_is_said_in_one_sentence() -> None:
    assert wrong_content(b"%PDF-1.7", "a.jpg") == "The file is named like a JPEG picture but holds a PDF document."
    assert wrong_content(film(b"isom"), b"a.heic") == "The file is named like a HEIF picture but holds an MP4 video."
    assert wrong_content(b"hi", "a.png") == "The file is named like a PNG picture but holds text."
    assert (
        wrong_content(bytes(9), "a.avif") == "The file is named like an AVIF picture but holds nothing but zero bytes."
    )
    assert wrong_content(b"\1\2\x99", "a.bmp").endswith("holds data of an unknown kind.")
    assert (
        wrong_content(b"8BPS", "a.psd")
        == "The file holds a Photoshop document, which is not a supported picture format."
    )
    assert wrong_content(b"", "a.psd") == "The file is empty."


@pytest.mark.parametrize(
    "phrase", ["an AVI video", "an MP4 video", "an HTML page", "a JPEG picture", "a ZIP archive", "an XMP sidecar",
               "an Excel document", "a TIFF picture", "a font", "a RAR archive", "an EPS drawing", "an SVG drawing",
               "an AVIF picture", "a GIMP document", "a NumPy array", "a DNG raw photo"],
)  # fmt: skip
def test_articles_follow_the_sound(phrase: str) -> None:
    expected, noun = phrase.split(" ", 1)
    assert article(noun) == expected


def test_names_that_claim_a_picture() -> None:
    assert all(
        looks_like_image_name(name) for name in ("a.JPG", b"b.heic", "c.Tiff", b"\xff\xfe.webp", "x.jp2", b"a.cr2")
    )
    assert not any(looks_like_image_name(name) for name in ("a.psd", "jpg", ".jpg", "a.raw", "a.svg", "a.mp4"))


def test_bmp_is_more_than_two_letters() -> None:
    assert sniff(b"BMWs are cars, not pictures") is None
    assert sniff(encoded(Image.new("RGB", (3, 3)), "BMP")) == "BMP"
