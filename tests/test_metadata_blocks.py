"""XMP, IPTC and EXIF blocks in every format, whole and broken."""

from __future__ import annotations

import io
import json
import struct
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.containers import find_blocks
from ingestion.metadata import Metadata, read_metadata
from ingestion.xmp import read_iptc, read_xmp
from tests.metadata_blocks import degrees, exif_block, iptc_block, jpeg, read, xmp_packet
from tests.picture_files import encoded, png, png_chunk, scene

SAMPLES = "photos/metadata/exif-samples"


# --- XMP and IPTC ------------------------------------------------------------


def test_title_description_keywords_from_xmp_iptc_and_windows() -> None:
    xmp = xmp_packet(
        '<dc:title><rdf:Alt><rdf:li xml:lang="de">Hund</rdf:li><rdf:li xml:lang="x-default">Dog</rdf:li>'
        "</rdf:Alt></dc:title>"
        "<dc:description><rdf:Alt><rdf:li>On grass &amp; sand</rdf:li></rdf:Alt></dc:description>"
        "<dc:subject><rdf:Bag><rdf:li>Dog</rdf:li><rdf:li> Black  Lab </rdf:li><rdf:li/></rdf:Bag></dc:subject>"
        "<lr:hierarchicalSubject><rdf:Bag><rdf:li>Places|Germany|Berlin</rdf:li></rdf:Bag></lr:hierarchicalSubject>"
        "<digiKam:TagsList><rdf:Seq><rdf:li>Animals/dog</rdf:li></rdf:Seq></digiKam:TagsList>"
    )
    iptc = iptc_block((5, b"IPTC title"), (25, "Köln".encode()), (25, b"DOG"), (120, b"IPTC caption"), utf8=True)
    windows = exif_block(
        {0x9C9B: "Win".encode("utf-16-le"), 0x9C9E: "beach;Dog".encode("utf-16-le"), 0x010E: "EXIF text"}
    )
    found = read(exif=windows, xmp=xmp, iptc=iptc)
    assert (found.title, found.description) == ("Dog", "On grass & sand")
    assert found.keywords == ["Dog", "Black Lab", "Köln", "Berlin", "beach"]
    found = read(exif=windows, iptc=iptc)
    assert (found.title, found.description) == ("IPTC title", "IPTC caption")
    found = read(exif=windows)
    assert (found.title, found.description, found.keywords) == ("Win", "EXIF text", ["beach", "Dog"])


def test_iptc_texts_without_a_declared_code() -> None:
    assert read_iptc(iptc_block((5, "Köln".encode("cp1252")))) == {5: ["Köln"]}
    assert read_iptc(iptc_block((5, "Köln".encode()))) == {5: ["Köln"]}
    long = b"x" * 40_000
    extended = b"\x1c\x02\x78\x80\x04" + struct.pack(">I", len(long)) + long + iptc_block((5, b"after"))
    assert read_iptc(extended) == {120: ["x" * 40_000], 5: ["after"]}
    assert read_iptc(b"\x1c\x02\x05\xff") == {}


@pytest.mark.parametrize(
    ("attributes", "rating"),
    [
        ('xmp:Rating="4"', 4), ('xmp:Rating="5.0"', 5), ('xmp:Rating="0"', 0), ('xmp:Rating="-1"', None),
        ('xmp:Rating="9"', None), ('xmp:Rating="many"', None), ('xmp:Rating="nan"', None),
        ('MicrosoftPhoto:Rating="75"', 4), ('MicrosoftPhoto:Rating="99"', 5), ('MicrosoftPhoto:Rating="1"', 1),
        ('MicrosoftPhoto:Rating="25"', 2), ('MicrosoftPhoto:Rating="50"', 3), ('MicrosoftPhoto:Rating="0"', 0),
        ('xmp:Rating="2" MicrosoftPhoto:Rating="99"', 2), ("", None),
    ],
)  # fmt: skip
def test_ratings(attributes: str, rating: int | None) -> None:
    assert read(xmp=xmp_packet("", attributes)).rating == rating


def test_ratings_from_exif_come_after_xmp() -> None:
    assert read(exif=exif_block({0x4746: 3})).rating == 3
    assert read(exif=exif_block({0x4749: 99})).rating == 5
    assert read(exif=exif_block({0x4746: 3}), xmp=xmp_packet("<xmp:Rating>1</xmp:Rating>")).rating == 1


def test_xml_bombs_and_broken_xml_are_harmless() -> None:
    lol = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "lol">{lol}]><rdf:RDF xmlns:rdf="x"><a>&l9;</a></rdf:RDF>'.encode()
    outside = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
    for packet in (bomb, outside, b"<x:xmpmeta", b"", b"\xff" * 50, xmp_packet("<dc:title>"), bytes(9 << 20)):
        assert read_xmp([packet]) == {}
        assert read(xmp=packet[:60_000]).title == ""


def test_xmp_with_wrappers_controls_and_other_codes() -> None:
    packet = xmp_packet("", 'photoshop:DateCreated="2003-01-01" xmp:Rating="3"')
    for odd in (
        b"\0" + packet + b"\0\0\xff\xfe",
        packet.decode().encode("utf-16-le"),
        packet.decode().encode("utf-16-be"),
        packet.replace(b'xmp:Rating="3"', b'xmp:Rating="3\x01"'),
    ):
        assert read_xmp([odd])["xmp:Rating"] == ["3"]


# --- containers ------------------------------------------------------------

_EXIF = exif_block({0x0110: "Box Camera"}, {0x9003: "2011:11:11 11:11:11"})
_XMP = xmp_packet("", 'xmp:Rating="4"')


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "JPEG2000", "GIF"])
def test_exif_and_xmp_are_found_in_every_format(format: str) -> None:
    picture = scene(64, 48)
    if format == "HEIF":
        import pillow_heif

        picture.info.update(exif=_EXIF, xmp=_XMP)
        out = io.BytesIO()
        pillow_heif.from_pillow(picture).save(out)
        data = out.getvalue()
    elif format == "JPEG2000":
        boxes = [(b"JpgTiffExif->JP2", _EXIF[6:]), (bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), _XMP)]
        data = encoded(picture, format) + b"".join(
            struct.pack(">I4s", 24 + len(content), b"uuid") + kind + content for kind, content in boxes
        )
    elif format == "GIF":
        data = encoded(picture, format)[:-1] + b"\x21\xff\x0bXMP DataXMP" + _XMP + b"\x01\xff\xfe\0\0\x3b"
    elif format == "TIFF":
        data = encoded(picture, format, tiffinfo={0x0110: "Box Camera", 0x0132: "2011:11:11 11:11:11", 0x02BC: _XMP})
    else:
        data = (
            encoded(picture, format, exif=_EXIF, xmp=_XMP) if format != "PNG" else encoded(picture, format, exif=_EXIF)
        )
    if format == "PNG":
        chunk = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(_XMP))
        data = data[:33] + chunk + data[33:]
    found = read_metadata(data)
    assert found.rating == 4
    if format != "GIF":
        assert found.camera == "Box Camera"
        assert found.captured_at == datetime(2011, 11, 11, 11, 11, 11, tzinfo=UTC)


def test_png_texts_and_imagemagicks_profiles() -> None:
    block = _EXIF
    profile = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    extra = (
        png_chunk(b"tEXt", b"Title\0" + "Münze".encode("latin-1"))
        + png_chunk(b"zTXt", b"Description\0\0" + zlib.compress(b"A coin"))
        + png_chunk(b"iTXt", b"Creation Time\0\0\0\0\0" + b"2012-01-02T03:04:05Z")
        + png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))
    )
    found = read_metadata(png(64, 48, rows=bytes(48 * 193), extra=extra))
    assert (found.title, found.description, found.camera) == ("Münze", "A coin", "Box Camera")
    assert found.captured_at == datetime(2011, 11, 11, 11, 11, 11, tzinfo=UTC)


def test_a_text_chunk_that_unpacks_to_gigabytes_is_left_out() -> None:
    bomb = zlib.compress(bytes(100 << 20), 9)
    extra = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + bomb) + png_chunk(b"tEXt", b"Title\0kept")
    found = read_metadata(png(64, 48, extra=extra))
    assert found.title == "kept"


def test_extended_xmp_is_put_together() -> None:
    body = xmp_packet("<dc:title>" + "x" * 70_000 + "</dc:title>")
    guid = b"0" * 32
    pieces = [(at, body[at : at + 60_000]) for at in range(0, len(body), 60_000)]
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", 2 + 35 + 40 + len(piece)) + b"http://ns.adobe.com/xmp/extension/\0" + guid
        + struct.pack(">II", len(body), at) + piece for at, piece in reversed(pieces)
    )  # fmt: skip
    data = jpeg()
    assert len(read_metadata(data[:2] + segments + data[2:]).title) == 1000


def test_a_file_without_any_says_nothing() -> None:
    assert read_metadata(encoded(scene(64, 48), "BMP")) == Metadata()
    assert read_metadata(b"") == Metadata()
    assert read_metadata(b"%PDF") == Metadata()


# --- whatever comes ------------------------------------------------------------


def _samples() -> list[bytes]:
    rich = exif_block({0x010F: "Make", 0x0110: "Model"}, {0x9003: "2011:11:11 11:11:11"}, {1: "N", 2: degrees(1, 2, 3)})
    made = [jpeg(rich, _XMP, iptc_block((5, b"t"), (25, b"k"))), encoded(scene(40, 40), "TIFF", exif=rich)]
    made += [encoded(scene(40, 40), format, exif=rich, xmp=_XMP) for format in ("WEBP", "AVIF")]
    made.append(encoded(scene(40, 40), "PNG", exif=rich))
    return made


@settings(max_examples=400, deadline=None)
@given(
    which=st.integers(0, 4),
    cut=st.floats(0.01, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=12),
)
def test_no_damage_makes_it_raise(which: int, cut: float, changes: list[tuple[float, int]]) -> None:
    data = bytearray(_SAMPLES[which])
    for place, value in changes:
        data[int(place * min(len(data), 1500))] = value
    found = read_metadata(bytes(data[: int(len(data) * cut)]))
    json.dumps(found.exif, allow_nan=False).encode("utf-8")
    assert found.captured_at is None or found.captured_at.tzinfo is not None
    assert found.rating is None or 0 <= found.rating <= 5
    assert (found.latitude is None) == (found.longitude is None)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_behind_every_signature(junk: bytes) -> None:
    for start in (b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"RIFF\0\0\0\0WEBP", b"GIF89a",
                  b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x0cjP  \r\n\x87\n"):  # fmt: skip
        find_blocks(start + junk)
        json.dumps(read_metadata(start + junk).exif, allow_nan=False)
    read_iptc(junk)
    read_xmp([junk])


_SAMPLES = _samples()
