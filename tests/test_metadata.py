"""What a picture file says about itself: the camera, the exposure, the words."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL.TiffImagePlugin import IFDRational

from ingestion.exif import as_json, coded_text, read_exif
from ingestion.metadata import Metadata, read_metadata
from search.models import Image, ImageMetadata
from tests.factories import make_image
from tests.metadata_blocks import exif_block, read
from tests.picture_files import encoded, scene

SAMPLES = "photos/metadata/exif-samples"


# --- real files ------------------------------------------------------------


def test_known_photos(shared: Path) -> None:
    def of(name: str) -> Metadata:
        return read_metadata((shared / SAMPLES / name).read_bytes())

    nikon = of("jpg/gps/DSCN0010.jpg")
    assert nikon.captured_at == datetime(2008, 10, 22, 16, 28, 39, tzinfo=UTC)
    assert nikon.captured_offset is None
    assert (nikon.camera, nikon.iso, nikon.aperture, nikon.focal_length) == ("NIKON COOLPIX P6000", 64, 5.9, 24)
    assert nikon.exposure_time == pytest.approx(1 / 75)
    assert (nikon.latitude, nikon.longitude) == pytest.approx((43.467448, 11.885127), abs=1e-6)

    canon = of("jpg/Canon_40D.jpg")
    assert canon.captured_at == datetime(2008, 5, 30, 15, 56, 1, tzinfo=UTC)
    assert (canon.camera, canon.iso, canon.aperture, canon.exposure_time) == ("Canon EOS 40D", 100, 7.1, 1 / 160)
    assert canon.exif["MeteringMode"] == 5

    iphone = of("heic/mobile/iphone_13_pro_max.HEIC")
    assert iphone.captured_at == datetime(2022, 2, 16, 11, 55, 41, 762000, tzinfo=UTC)
    assert iphone.captured_offset == 60
    assert iphone.camera == "Apple iPhone 13 Pro Max"
    assert iphone.lens == "iPhone 13 Pro Max back triple camera 5.7mm f/1.5"
    assert (iphone.iso, iphone.aperture) == (250, 1.5)

    nokia = of("jpg/mobile/HMD_Nokia_8.3_5G.jpg")
    assert (nokia.captured_at, nokia.captured_offset) == (datetime(2022, 8, 14, 11, 12, 31, tzinfo=UTC), 180)
    assert (nokia.latitude, nokia.longitude) == pytest.approx((60.1467056, 24.9067722))

    heif = of("heic/mobile/HMD_Nokia_8.3_5G.heif")
    assert (heif.latitude, heif.longitude, heif.altitude) == pytest.approx((40.7886852, -4.0051409, 1942.4216))

    square = of("jpg/xmp/BlueSquare.jpg")
    assert square.title == "Blue Square Test File - .jpg"
    assert square.keywords == ["XMP", "Blue Square", "test file", "Photoshop", ".jpg"]
    assert (square.captured_at, square.captured_offset) == (datetime(2005, 9, 7, 22, 7, 40, tzinfo=UTC), -420)

    soldiers = of("jpg/long_description.jpg")
    assert soldiers.title == "030904-A-2140D-006"
    assert soldiers.description.startswith("Operation Mountain Viper put the soldiers of A Company")
    assert soldiers.captured_at == datetime(2003, 8, 31, tzinfo=UTC)

    olympus = of("jpg/corrupted.jpg")
    assert (olympus.camera, olympus.description) == ("OLYMPUS u1020,S1020", "")
    gallery = read_metadata((shared / "photos/formats/pillow/iptc.jpg").read_bytes())
    assert gallery.keywords == ["HvK", "2006", "summer", "July", "holiday", "Hungary", "Budapest"]


_EXIFTOOL_TAGS = [
    "ExifIFD:DateTimeOriginal", "ExifIFD:CreateDate", "ExifIFD:FNumber", "ExifIFD:ExposureTime",
    "ExifIFD:FocalLength", "ExifIFD:ISO",
    "Composite:GPSLatitude", "Composite:GPSLongitude", "IFD0:Make", "IFD0:Model",
]  # fmt: skip


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed (only for the cross-check)")
def test_all_samples_agree_with_exiftool(shared: Path) -> None:
    folder = shared / SAMPLES
    said = subprocess.run(
        ["exiftool", "-j", "-n", "-r", "-struct", *(f"-{tag}" for tag in _EXIFTOOL_TAGS), str(folder)],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    compared = dict.fromkeys(("date", "aperture", "iso", "latitude", "camera"), 0)
    for entry in json.loads(said):
        name = Path(entry["SourceFile"])
        found = read_metadata(name.read_bytes(), now=datetime(2100, 1, 1, tzinfo=UTC))
        date = entry.get("DateTimeOriginal") or entry.get("CreateDate")
        if date and found.captured_at is not None:
            wall = found.captured_at + timedelta(minutes=found.captured_offset or 0)
            assert wall.strftime("%Y:%m:%d %H:%M:%S").startswith(date[:19]), name
            compared["date"] += 1
        for ours, theirs in [
            (found.aperture, entry.get("FNumber")),
            (found.exposure_time, entry.get("ExposureTime")),
            (found.focal_length, entry.get("FocalLength") or None),
            (found.latitude, entry.get("GPSLatitude")),
            (found.longitude, entry.get("GPSLongitude")),
        ]:
            if isinstance(theirs, int | float):
                assert ours == pytest.approx(theirs, rel=1e-5), name
        compared["aperture"] += found.aperture is not None
        if isinstance(entry.get("GPSLatitude"), float):
            compared["latitude"] += 1
        if "ISO" in entry and isinstance(entry["ISO"], int) and found.iso is not None:
            assert found.iso == entry["ISO"], name
            compared["iso"] += 1
        if isinstance(model := entry.get("Model"), str) and found.camera:
            assert found.camera.endswith(" ".join(model.split())), name
            compared["camera"] += 1
    assert compared["date"] >= 50
    assert compared["aperture"] >= 50
    assert compared["iso"] >= 40
    assert compared["latitude"] >= 10
    assert compared["camera"] >= 55


def test_every_file_has_metadata_that_a_database_takes(shared: Path, db: None) -> None:
    """Each file's, one after the other, into JSON and into the row: PostgreSQL takes neither NUL nor NaN."""
    image = make_image()
    stored = 0
    for path in sorted((shared / "photos").rglob("*")):
        if path.is_file() and "captioned" not in path.parts and "people" not in path.parts:
            found = read_metadata(path.read_bytes())
            text = json.dumps(found.exif, allow_nan=False)
            assert "\\u0000" not in text
            if found.exif or found.title or found.description:
                for name in ("camera", "lens", "title", "description", "captured_at", "iso", "latitude"):
                    setattr(image, name, getattr(found, name))
                image.save()
                ImageMetadata.objects.update_or_create(image=image, defaults={"exif": found.exif})
                assert Image.objects.get(pk=image.pk).exif == json.loads(text)
                stored += 1
    assert stored > 150


# --- EXIF ------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D70", "NIKON D70"),
        ("NIKON CORPORATION", "COOLPIX S1", "NIKON COOLPIX S1"),
        ("OLYMPUS OPTICAL CO.,LTD", "C960Z,D460Z", "OLYMPUS C960Z,D460Z"),
        ("EASTMAN KODAK COMPANY", "KODAK DC240 ZOOM", "KODAK DC240 ZOOM"),
        ("Hewlett-Packard", "HP PhotoSmart 618", "HP PhotoSmart 618"),
        ("CASIO COMPUTER CO.,LTD.", "EX-Z750 ", "CASIO EX-Z750"),
        ("Apple", "iPhone 13", "Apple iPhone 13"),
        ("Jolla", "Jolla", "Jolla"),
        ("SONY", "", "SONY"),
        ("", "DSC-1", "DSC-1"),
        ("Canon\0\0 junk", "Canon  PowerShot\0", "Canon PowerShot"),
        ("A" * 300, "B" * 300, "A" * 200),
    ],
)
def test_the_make_is_not_said_twice(make: str, model: str, camera: str) -> None:
    assert read(exif=exif_block({0x010F: make, 0x0110: model})).camera == camera


def test_the_settings_of_an_exposure() -> None:
    found = read(
        exif=exif_block(
            photo={0x829A: IFDRational(1, 125), 0x829D: IFDRational(28, 10), 0x8827: 400, 0x920A: IFDRational(50, 1),
                   0xA432: (IFDRational(18), IFDRational(55), IFDRational(35, 10), IFDRational(56, 10))},
        )
    )  # fmt: skip
    assert (found.exposure_time, found.aperture, found.iso, found.focal_length) == (1 / 125, 2.8, 400, 50)
    assert found.lens == "18-55mm f/3.5-5.6"
    assert found.exif["ExposureTime"] == 0.008
    assert found.exif["LensSpecification"] == [18, 55, 3.5, 5.6]


def test_apex_values_and_the_later_iso_tags_stand_in() -> None:
    found = read(exif=exif_block(photo={0x9201: IFDRational(7), 0x9202: IFDRational(3), 0x8827: 65535, 0x8832: 102400}))
    assert (found.exposure_time, found.aperture, found.iso) == (1 / 128, 2.8, 102400)


def test_values_that_make_no_sense_are_left_out() -> None:
    found = read(
        exif=exif_block(
            {0x010E: "OLYMPUS DIGITAL CAMERA         "},
            {0x829A: IFDRational(1, 0), 0x829D: IFDRational(0, 0), 0x8827: 0, 0x920A: IFDRational(0, 1), 0xA434: "----",
             0xA432: (IFDRational(0, 0),) * 4, 0x9286: b"ASCII\0\0\0          "},
        )
    )  # fmt: skip
    assert found == Metadata(exif=found.exif)
    assert "FNumber" not in found.exif


def test_texts_are_utf8_else_western_and_free_of_what_databases_refuse() -> None:
    assert read(exif=exif_block({0x010E: "Grüße aus Köln".encode()})).description == "Grüße aus Köln"
    assert read(exif=exif_block({0x010E: "Grüße aus Köln".encode("cp1252")})).description == "Grüße aus Köln"
    found = read(exif=exif_block({0x9C9B: "Ein \ud83d Titel\0".encode("utf-16-le", "surrogatepass")}))
    assert found.title == "Ein \ufffd Titel"
    json.dumps(found.exif, allow_nan=False).encode()
    assert coded_text(b"UNICODE\0" + "Straße".encode("utf-16-be")) == "Straße"
    assert coded_text(b"UNICODE\0" + "Straße".encode("utf-16-le")) == "Straße"
    assert coded_text(b"ASCII\0\0\0hello\0\0") == "hello"
    assert coded_text(b"JIS\0\0\0\0\0" + "写真".encode("iso2022_jp")) == "写真"
    assert coded_text(b"\x01\x02\x03") == ""


def test_all_tags_are_kept_by_name_and_none_is_long() -> None:
    found = read(
        exif=exif_block(
            {0x0131: "GIMP", 0xC0DE: "own"}, {0x927C: bytes(5000), 0x9000: b"0232", 0xA302: bytes(range(200)) * 40},
            {1: "N", 2: (IFDRational(10), IFDRational(30), IFDRational(0)), 0x1D: "2024:05:06"},
        )
    )  # fmt: skip
    assert found.exif["Software"] == "GIMP"
    assert found.exif["0xc0de"] == "own"
    assert found.exif["ExifVersion"] == "0232"
    assert found.exif["GPSDateStamp"] == "2024:05:06"
    assert found.exif["GPSLatitude"] == [10, 30, 0]
    assert found.exif["CFAPattern"].endswith("… (8000 bytes)")
    assert "MakerNote" not in found.exif
    assert len(json.dumps(found.exif)) < 1000


def test_one_broken_tag_costs_only_itself() -> None:
    entries = struct.pack("<HHII", 0x010F, 2, 40, 9999) + struct.pack("<HHII", 0x0110, 2, 4, 0x00544143)
    entries += struct.pack("<HHII", 0x0131, 99, 4, 1) + struct.pack("<HHII", 0x0112, 3, 1, 6)
    exif = read_exif(b"II*\0\x08\0\0\0" + struct.pack("<H", 4) + entries)
    assert exif.image == {0x0110: "CAT", 0x0112: 6}


def test_directories_that_point_at_themselves_end() -> None:
    block = b"II*\0\x08\0\0\0" + struct.pack("<HHHIIHHII", 2, 0x8769, 4, 1, 8, 0x8825, 4, 1, 8) + bytes(4)
    exif = read_exif(block)
    assert (exif.photo, exif.gps) == ({}, {})
    assert as_json(exif) == {}


def test_bigtiff_and_both_byte_orders() -> None:
    big = encoded(scene(64, 48), "TIFF", big_tiff=True, tiffinfo={0x010F: "Acme Cameras", 0x0131: "writer"})
    assert read_metadata(big).camera == "Acme Cameras"
    for order in ("II", "MM"):
        sign = "<" if order == "II" else ">"
        block = order.encode() + struct.pack(sign + "HIHHHI", 42, 8, 1, 0x0110, 2, 4) + b"CAT\0" + bytes(4)
        assert read_exif(block).image == {0x0110: "CAT"}
