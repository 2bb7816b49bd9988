"""When and where a photo was taken: dates and positions out of EXIF, XMP and IPTC. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ingestion.exif import Exif, as_number
from ingestion.xmp import Properties

_EARLIEST_YEAR = 1826
"""Of the first photograph: what is dated before it is not dated."""
_DATE = re.compile(
    r"(\d{4})[:\-/.](\d{1,2})[:\-/.](\d{1,2})"
    r"(?:[ T]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d{1,9}))?)?)?"
    r"\s*(Z|[+\-]\d{1,2}:?\d{2})?\s*$"
)
_OFFSET = re.compile(r"([+\-])(\d{1,2}):?(\d{2})\s*$")
_MOST_OFFSET = 15 * 60


@dataclass(frozen=True)
class Captured:
    at: datetime
    """An instant in UTC; without `offset` the camera's wall clock as if UTC."""
    offset: int | None
    """Minutes east of UTC."""


def parse_date(text: str, *, offset: str = "", fraction: str = "", now: datetime | None = None) -> Captured | None:
    """A date as EXIF, XMP or IPTC write it, or None where it says nothing: zeros, blanks, the future, impossible days.

    `offset` ("+02:00") and `fraction` (digits of a second) come from tags of their own; `now` is for tests.
    """
    match = _DATE.match(text.strip().strip("\0"))
    if not match:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    if year < _EARLIEST_YEAR:
        return None
    digits = match[7] or (fraction.strip() if fraction.strip().isdecimal() and fraction.strip().isascii() else "")
    try:
        # Some cameras write 24:00:00 and a sixtieth second.
        wall = datetime(year, month, day, tzinfo=UTC) + timedelta(hours=hour, minutes=minute, seconds=min(second, 59))
    except (ValueError, OverflowError):
        return None
    if hour > 24 or minute > 59:
        return None
    wall += timedelta(microseconds=int(f"{digits:0<6.6}")) if digits else timedelta()
    east = parse_offset(match[8] or "") if match[8] else parse_offset(offset)
    captured = Captured(wall - timedelta(minutes=east or 0), east)
    # A day's grace: the wall clock may be ahead of UTC.
    return captured if captured.at <= (now or datetime.now(UTC)) + timedelta(days=1) else None


def parse_offset(text: str) -> int | None:
    """ "+02:00", "-0330" or "Z" -> minutes east of UTC."""
    text = text.strip()
    if text == "Z":
        return 0
    match = _OFFSET.match(text)
    if not match:
        return None
    minutes = int(match[2]) * 60 + int(match[3])
    if minutes > _MOST_OFFSET or int(match[3]) > 59:
        return None
    return -minutes if match[1] == "-" else minutes


def captured(
    exif: Exif, xmp: Properties, iptc: dict[int, list[str]], *, created: str, now: datetime | None = None
) -> Captured | None:
    """The first of these that holds a date: EXIF original, XMP original, XMP photoshop:DateCreated, IPTC date created,
    EXIF digitized, XMP created, EXIF modified, and `created` (the text a PNG calls "Creation Time")."""

    def from_exif(date: int, offset: int, fraction: int) -> Captured | None:
        return parse_date(exif.text(date), offset=exif.text(offset), fraction=exif.text(fraction), now=now)

    def from_xmp(name: str) -> Captured | None:
        return parse_date((xmp.get(name) or [""])[0], now=now)

    return (
        from_exif(0x9003, 0x9011, 0x9291)
        or from_xmp("exif:DateTimeOriginal")
        or from_xmp("photoshop:DateCreated")
        or _from_iptc(iptc, now)
        or from_exif(0x9004, 0x9012, 0x9292)
        or from_xmp("xmp:CreateDate")
        or from_exif(0x0132, 0x9010, 0x9290)
        or parse_date(created, now=now)
    )


def _from_iptc(iptc: dict[int, list[str]], now: datetime | None) -> Captured | None:
    date = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", (iptc.get(55) or [""])[0])
    if not date:
        return None
    time = re.fullmatch(r"(\d\d)(\d\d)(\d\d)([+\-]\d{4})?", (iptc.get(60) or [""])[0])
    clock = f" {time[1]}:{time[2]}:{time[3]}{time[4] or ''}" if time else ""
    return parse_date("-".join(date.groups()) + clock, now=now)


def position(exif: Exif, xmp: Properties) -> tuple[float, float, float | None] | None:
    """(latitude, longitude, altitude in metres or None); None where it is missing, half, 0/0 or out of range."""
    latitude = _degrees(exif.gps.get(2), exif.gps.get(1), "NS")
    longitude = _degrees(exif.gps.get(4), exif.gps.get(3), "EW")
    if latitude is None or longitude is None:
        latitude = _xmp_degrees((xmp.get("exif:GPSLatitude") or [""])[0], "NS")
        longitude = _xmp_degrees((xmp.get("exif:GPSLongitude") or [""])[0], "EW")
    if latitude is None or longitude is None:
        return None
    # Zero and zero, off Africa, is what receivers write before they know.
    if abs(latitude) > 90 or abs(longitude) > 180 or latitude == longitude == 0:
        return None
    return round(latitude, 7), round(longitude, 7), _altitude(exif)


def _degrees(parts: object, side: object, sides: str) -> float | None:
    if not isinstance(parts, tuple):
        parts = (parts,)
    numbers = [as_number(part) for part in parts[:3]]
    if not isinstance(side, str) or not numbers or numbers[0] is None:
        return None
    side = side.strip().upper()[:1]
    if not side or side not in sides:
        return None
    # A minute or second that was never written is 0/0.
    degrees = sum((number or 0.0) / 60**power for power, number in enumerate(numbers))
    return -degrees if side in "SW" else degrees


def _xmp_degrees(text: str, sides: str) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?(?:,(\d+(?:\.\d+)?))?([NSEW])", text.strip())
    if not match or match[4] not in sides:
        return None
    degrees = sum(float(match[place] or 0) / 60 ** (place - 1) for place in (1, 2, 3))
    return -degrees if match[4] in "SW" else degrees


def _altitude(exif: Exif) -> float | None:
    metres = as_number(exif.gps.get(6))
    if metres is None or math.fabs(metres) > 100_000:
        return None
    below = exif.gps.get(5)
    below = below[0] if isinstance(below, bytes | tuple) and below else below
    return -metres if below in (1, "1") and metres > 0 else metres
