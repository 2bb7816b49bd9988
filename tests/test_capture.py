"""When and where a photo was taken."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from PIL.TiffImagePlugin import IFDRational

from ingestion.capture import parse_date, parse_offset
from ingestion.metadata import Metadata
from tests.metadata_blocks import degrees, exif_block, iptc_block, read, xmp_packet

SAMPLES = "photos/metadata/exif-samples"


# --- dates ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "offset"),
    [
        ("2009:03:14 13:48:28", (2009, 3, 14, 13, 48, 28), None),
        ("2009-03-14T13:48:28", (2009, 3, 14, 13, 48, 28), None),
        ("2009-03-14T13:48:28.25+02:00", (2009, 3, 14, 11, 48, 28, 250000), 120),
        ("2009-03-14T00:10:00-0330", (2009, 3, 14, 3, 40), -210),
        ("2009-03-14T13:48Z", (2009, 3, 14, 13, 48), 0),
        ("2009:03:14", (2009, 3, 14), None),
        ("2009/3/4 1:02:03\0", (2009, 3, 4, 1, 2, 3), None),
        ("2009:12:31 24:00:00", (2010, 1, 1), None),
        ("1861:05:17 00:00:00", (1861, 5, 17), None),
    ],
)
def test_dates_as_they_are_written(text: str, at: tuple[int, ...], offset: int | None) -> None:
    found = parse_date(text)
    assert found is not None
    assert (found.at, found.offset) == (datetime(*at, tzinfo=UTC), offset)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    "text",
    ["0000:00:00 00:00:00", "    :  :     :  :  ", "", "2009:13:14 00:00:00", "2009:02:30 00:00:00",
     "2099:01:01 00:00:00", "1800:01:01 00:00:00", "2009:01:01 25:00:00", "2009:01:01 10:61:00", "yesterday", "2009"],
)  # fmt: skip
def test_dates_that_say_nothing(text: str) -> None:
    assert parse_date(text) is None
    assert read(exif=exif_block(photo={0x9003: text})).captured_at is None


def test_a_date_may_be_a_day_ahead_of_the_clock_but_not_more() -> None:
    now = datetime(2024, 6, 1, 12, tzinfo=UTC)
    assert parse_date("2024:06:02 11:00:00", now=now) is not None
    assert parse_date("2024:06:02 13:00:00", now=now) is None


def test_offset_and_fraction_come_from_tags_of_their_own() -> None:
    found = read(exif=exif_block(photo={0x9003: "2022:02:16 12:55:41", 0x9011: "+01:00", 0x9291: "76"}))
    assert (found.captured_at, found.captured_offset) == (datetime(2022, 2, 16, 11, 55, 41, 760000, tzinfo=UTC), 60)
    for nonsense in ("   :  ", "+99:00", "later", "+01:75"):
        found = read(exif=exif_block(photo={0x9003: "2022:02:16 12:55:41", 0x9011: nonsense, 0x9291: "x"}))
        assert (found.captured_at, found.captured_offset) == (datetime(2022, 2, 16, 12, 55, 41, tzinfo=UTC), None)
    assert (parse_offset("Z"), parse_offset("-09:30"), parse_offset("")) == (0, -570, None)


def test_the_first_date_that_says_something_wins() -> None:
    """EXIF original, XMP original, photoshop:DateCreated, IPTC, EXIF digitized, XMP created, EXIF modified."""
    exif = {0x9003: "2001:01:01 00:00:00", 0x9004: "2005:01:01 00:00:00"}
    xmp = {
        "exif:DateTimeOriginal": "2002-01-01T00:00:00",
        "photoshop:DateCreated": "2003-01-01",
        "xmp:CreateDate": "2006-01-01",
    }
    iptc = iptc_block((55, b"20040101"), (60, b"120000+0200"))
    years = []
    for gone in (
        None,
        0x9003,
        "exif:DateTimeOriginal",
        "photoshop:DateCreated",
        "iptc",
        0x9004,
        "xmp:CreateDate",
        0x0132,
    ):
        exif.pop(gone, None)  # type: ignore[arg-type]
        xmp.pop(gone, None)  # type: ignore[arg-type]
        iptc = b"" if gone == "iptc" else iptc
        image = {} if gone == 0x0132 else {0x0132: "2007:01:01 00:00:00"}
        attributes = " ".join(f'{name}="{value}"' for name, value in xmp.items())
        found = read(exif=exif_block(image, exif), xmp=xmp_packet("", attributes), iptc=iptc)
        years.append(found.captured_at.year if found.captured_at else None)
        if years[-1] == 2004:
            assert (found.captured_at, found.captured_offset) == (datetime(2004, 1, 1, 10, tzinfo=UTC), 120)
    assert years == [2001, 2002, 2003, 2004, 2005, 2006, 2007, None]


# --- places ------------------------------------------------------------


def gps(latitude: Any, north: Any, longitude: Any, east: Any, **more: Any) -> Metadata:
    return read(
        exif=exif_block(gps={1: north, 2: latitude, 3: east, 4: longitude, **{int(k[1:]): v for k, v in more.items()}})
    )


def test_positions_in_all_quarters_of_the_earth() -> None:
    for north, east, signs in [("N", "E", (1, 1)), ("S", "W", (-1, -1)), ("s", "E", (-1, 1)), ("N", "W", (1, -1))]:
        found = gps(degrees(51, 30, 36), north, degrees(0, 7, 5.1), east)
        assert (found.latitude, found.longitude) == pytest.approx((signs[0] * 51.51, signs[1] * 0.1180833))
    found = gps(degrees(51, 30.6), "N", degrees(7), "E", t6=IFDRational(125, 10), t5=b"\1")
    assert (found.latitude, found.altitude) == (51.51, -12.5)


@pytest.mark.parametrize(
    "place",
    [
        (degrees(0), "N", degrees(0), "E"),
        (degrees(91), "N", degrees(7), "E"),
        (degrees(51), "N", degrees(181), "E"),
        ((IFDRational(0, 0),) * 3, "N", (IFDRational(0, 0),) * 3, "E"),
        (degrees(51), "", degrees(7), "E"),
        (degrees(51), "N", degrees(7), "?"),
    ],
)
def test_positions_that_make_no_sense_are_left_out(place: tuple[Any, ...]) -> None:
    found = gps(*place)
    assert (found.latitude, found.longitude, found.altitude) == (None, None, None)


def test_a_position_may_come_from_xmp() -> None:
    found = read(xmp=xmp_packet("", 'exif:GPSLatitude="52,31.5N" exif:GPSLongitude="13,24,36W"'))
    assert (found.latitude, found.longitude) == pytest.approx((52.525, -13.41))
