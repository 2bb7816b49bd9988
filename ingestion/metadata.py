"""What a picture file says about itself: EXIF, XMP and IPTC, with one precedence for all formats. Pure.

Title, description, keywords, rating: XMP before IPTC before EXIF, since that is where people's programs write (keywords
are joined from all). What the camera recorded: EXIF before XMP. Dates: see `capture.captured`.

Sidecars come before the file itself for title, description and rating, and where one names any keywords, these are
all: a program that writes sidecars leaves the file as it was. They say nothing here of camera, date and place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ingestion import capture
from ingestion.cleaning import one_line
from ingestion.containers import find_blocks, photoshop_iptc
from ingestion.exif import IPTC, PHOTOSHOP, XMP, Exif, as_json, as_number, coded_text, read_exif, windows_text
from ingestion.xmp import Properties, read_iptc, read_xmp

_MOST_KEYWORDS = 500
_KEYWORD_LENGTH = 200
_TITLE_LENGTH = 1000
_DESCRIPTION_LENGTH = 10_000
_NAME_LENGTH = 200
_MOST_ISO = 10_000_000
_PLACEHOLDERS = re.compile(
    r"[A-Z ]{0,20}DIGITAL CAMERA|SONY DSC|SAMSUNG CSC|DCIM\w*|DIGITAL IMAGE|<?untitled>?|ascii|binary comment|.{0,2}"
    r"|Exif_JPEG_PICTURE|\(C\)\w*|Screenshot|default|charset=.{0,12}|Created with (The )?GIMP"
    r"|File written by Adobe Photoshop.{0,8}|LEAD Technologies Inc.*",
    re.IGNORECASE,
)
"""What cameras and programs write where nobody wrote anything."""
_COMPANY_WORDS = re.compile(
    r"[ ,]+(CORPORATION|CORP\.?|COMPANY|CO\.?,? ?LTD\.?|CO\.|LTD\.?|INC\.?|OPTICAL|ELECTRIC|ELECTRONICS|TECHWIN|IMAGING"
    r"|AG|GMBH|COMPUTER)(?=$|[ ,.])\.?",
    re.IGNORECASE,
)
_RATINGS = {"xmp:Rating", "MicrosoftPhoto:Rating"}
_SHORT_MAKES = {"hewlett-packard": "hp", "research in motion": "blackberry", "asahi optical": "pentax"}


@dataclass
class Metadata:
    """Empty fields where the file says nothing, or nothing that makes sense."""

    captured_at: datetime | None = None
    """Aware, in UTC: an instant where `captured_offset` is known, else the camera's wall clock as if UTC."""
    captured_offset: int | None = None
    """Minutes east of UTC."""
    camera: str = ""
    lens: str = ""
    exposure_time: float | None = None
    """Seconds."""
    aperture: float | None = None
    """The f-number."""
    iso: int | None = None
    focal_length: float | None = None
    """Millimetres."""
    latitude: float | None = None
    longitude: float | None = None
    """Degrees, north and east positive."""
    altitude: float | None = None
    """Metres."""
    title: str = ""
    description: str = ""
    keywords: list[str] = field(default_factory=list)
    """In the file's order, each once whatever its case, of at most 200 characters."""
    rating: int | None = None
    """0 to 5; None where there is none, or the file was marked as rejected."""
    exif: dict[str, Any] = field(default_factory=dict)
    """All EXIF tags by name, as plain JSON."""


def read_metadata(data: bytes, *, sidecars: Iterable[bytes] = (), now: datetime | None = None) -> Metadata:
    """A whole picture file -> its metadata. Never raises for a broken file: what could be read is returned.

    `sidecars` are whole XMP files, the first one before the others; `now` (default: the clock) is what dates must
    not lie after.
    """
    blocks = find_blocks(data)
    exif = read_exif(blocks.exif or b"")
    inner = exif.image.get(XMP)
    xmp = read_xmp([*blocks.xmp, *([inner] if isinstance(inner, bytes) else [])])
    iptc = read_iptc(blocks.iptc or _inner_iptc(exif))
    texts = blocks.texts
    beside = read_xmp(sidecars)

    taken = capture.captured(exif, xmp, iptc, created=texts.get("creation time", ""), now=now)
    place = capture.position(exif, xmp)
    return Metadata(
        captured_at=taken.at if taken else None,
        captured_offset=taken.offset if taken else None,
        camera=_camera(
            exif.image.get(0x010F) or _first(xmp, "tiff:Make"), exif.image.get(0x0110) or _first(xmp, "tiff:Model")
        ),
        lens=_lens(exif, xmp),
        exposure_time=_exposure_time(exif),
        aperture=_aperture(exif),
        iso=_iso(exif),
        focal_length=_between(exif.number(0x920A), 0, 100_000),
        latitude=place[0] if place else None,
        longitude=place[1] if place else None,
        altitude=place[2] if place else None,
        title=_first_text(
            [
                _first(beside, "dc:title"),
                _first(xmp, "dc:title"),
                *iptc.get(5, []),
                windows_text(exif.image.get(0x9C9B)),
                texts.get("title", ""),
            ]
        )[:_TITLE_LENGTH],
        description=_first_text(
            [
                _first(beside, "dc:description"),
                _first(xmp, "dc:description"),
                *iptc.get(120, []),
                exif.text(0x010E),
                coded_text(exif.get(0x9286)),
                windows_text(exif.image.get(0x9C9C)),
                texts.get("description", ""),
            ],
            nothing=[exif.image.get(0x010F), exif.image.get(0x0110)],
        )[:_DESCRIPTION_LENGTH],
        keywords=_keywords(beside, {}, Exif()) or _keywords(xmp, iptc, exif),
        rating=_rating(beside, Exif()) if beside.keys() & _RATINGS else _rating(xmp, exif),
        exif=as_json(exif),
    )


def _inner_iptc(exif: Exif) -> bytes | None:
    block = exif.image.get(IPTC)
    if isinstance(block, bytes):
        return block
    resources = exif.image.get(PHOTOSHOP)
    return photoshop_iptc(resources) if isinstance(resources, bytes) else None


def _first(xmp: Properties, name: str) -> str:
    return (xmp.get(name) or [""])[0]


def _first_text(candidates: Iterable[str], *, nothing: Iterable[object] = ()) -> str:
    """The first that says something; `nothing` are further texts that do not."""
    empty = {text.strip().casefold() for text in nothing if isinstance(text, str)}
    for candidate in candidates:
        text = candidate.strip()
        if text and not _PLACEHOLDERS.fullmatch(text) and text.casefold() not in empty:
            return text
    return ""


def _camera(make: object, model: object) -> str:
    """Make and model as one name, the make not said twice: "Canon EOS 5D", "Apple iPhone 13"."""
    make = one_line(make, _NAME_LENGTH) if isinstance(make, str) else ""
    model = one_line(model, _NAME_LENGTH) if isinstance(model, str) else ""
    short = _COMPANY_WORDS.sub("", make).strip(" ,.") or make
    if not model:
        return short
    words = model.casefold().replace("_", " ").split()
    said = {word for word in short.casefold().split() if len(word) > 2} | {_SHORT_MAKES.get(short.casefold(), "")}
    if not short or words[0] in said or model.casefold().startswith(short.casefold()):
        return model
    return f"{short} {model}"[:_NAME_LENGTH]


def _lens(exif: Exif, xmp: Properties) -> str:
    for name in (exif.text(0xA434), _first(xmp, "exifEX:LensModel"), _first(xmp, "aux:Lens")):
        lens = one_line(name, _NAME_LENGTH)
        if lens and lens.strip("-. 0/") and lens.casefold() not in ("unknown", "n/a", "none"):
            return lens
    return _lens_by_numbers(exif.get(0xA432))


def _lens_by_numbers(numbers: object) -> str:
    """LensSpecification (shortest and longest focal length, the f-number at each) -> "18-55mm f/3.5-5.6"."""
    if not isinstance(numbers, tuple) or len(numbers) != 4:
        return ""
    short, long, wide, tele = (_between(as_number(number), 0, 10_000) for number in numbers)
    if short is None or long is None:
        return ""
    name = f"{short:g}mm" if short == long else f"{short:g}-{long:g}mm"
    if wide is None:
        return name
    return f"{name} f/{wide:.2g}" if tele is None or tele == wide else f"{name} f/{wide:.2g}-{tele:.2g}"


def _exposure_time(exif: Exif) -> float | None:
    seconds = _between(exif.number(0x829A), 0, 1_000_000)
    if seconds is None and (speed := exif.number(0x9201)) is not None and -20 < speed < 20:
        seconds = float(f"{math.pow(2, -speed):.6g}")  # APEX
    return seconds


def _aperture(exif: Exif) -> float | None:
    number = _between(exif.number(0x829D), 0, 1000)
    if number is None and (value := exif.number(0x9202)) is not None and 0 < value < 20:
        number = round(math.pow(2, value / 2), 1)  # APEX
    return number


def _iso(exif: Exif) -> int | None:
    for tag in (0x8827, 0x8833, 0x8832, 0x8831):
        value = exif.number(tag)
        # 65535 says "more than this tag can hold": the later tags have it.
        if value is not None and 0 < value <= _MOST_ISO and value != 65535:
            return round(value)
    return None


def _between(value: float | None, low: float, high: float) -> float | None:
    return value if value is not None and low < value <= high else None


def _keywords(xmp: Properties, iptc: dict[int, list[str]], exif: Exif) -> list[str]:
    candidates = [*xmp.get("dc:subject", []), *iptc.get(25, [])]
    # Of a path of tags the last part is the keyword: "Places|Germany|Berlin".
    candidates += [path.rsplit("|", 1)[-1] for path in xmp.get("lr:hierarchicalSubject", [])]
    candidates += [path.rsplit("/", 1)[-1] for path in xmp.get("digiKam:TagsList", [])]
    candidates += xmp.get("MicrosoftPhoto:LastKeywordXMP", [])
    candidates += windows_text(exif.image.get(0x9C9E)).split(";")
    found: dict[str, str] = {}
    for candidate in candidates:
        keyword = one_line(candidate, _KEYWORD_LENGTH)
        if keyword and len(found) < _MOST_KEYWORDS:
            found.setdefault(keyword.casefold(), keyword)
    return list(found.values())


def _rating(xmp: Properties, exif: Exif) -> int | None:
    """XMP's stars, else Windows' percents or stars; rejected (-1) is no rating."""
    stars = as_number(_first(xmp, "xmp:Rating"))
    if stars is not None:
        return _stars(stars)
    percent = as_number(_first(xmp, "MicrosoftPhoto:Rating"))
    if percent is not None:
        return _stars_of_percent(percent)
    stars = exif.number(0x4746)
    if stars is not None:
        return _stars(stars)
    percent = exif.number(0x4749)
    return None if percent is None else _stars_of_percent(percent)


def _stars(value: float) -> int | None:
    return round(value) if 0 <= value <= 5 else None


def _stars_of_percent(value: float) -> int | None:
    """0, 1, 25, 50, 75, 99 -> 0 to 5 stars."""
    if not 0 <= value <= 100:
        return None
    return 0 if value == 0 else 1 + sum(value >= step for step in (13, 38, 63, 87))
