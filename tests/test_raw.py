"""Camera raw files: the embedded preview where it is large enough, else development; upright, and in right colours.

The DNG files are made in code (`tests/raw_files.py`). CR2, CR3, NEF, ARW, ORF, RW2 and RAF of real cameras lie nowhere
here: their path through LibRaw is the same, and is not tried.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingestion.inspection import What, inspect
from ingestion.metadata import read_metadata
from search.decoding import Limits, decode, is_risky, read_pixels
from search.errors import TooLarge, TooSmall, Unreadable
from search.formats import describe, sniff
from tests.raw_files import dng

LIMITS = Limits(min_side=16, max_pixels=50_000_000)
RED, GREEN, BLUE = (np.array(one) for one in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))


def colours(pixels) -> list[int]:
    """The strongest channel at the top left, top right, bottom left and bottom right."""
    data = np.asarray(pixels)
    h, w = data.shape[:2]
    return [
        int(data[y, x].argmax())
        for y, x in ((h // 8, w // 8), (h // 8, -w // 8), (-h // 8, w // 8), (-h // 8, -w // 8))
    ]


def test_a_dng_is_a_raw_photo_and_belongs_into_the_killable_process() -> None:
    data = dng(preview=(320, 240))
    assert sniff(data[:8192], b"a.dng") == sniff(data[:8192], b"a.tif") == "RAW"
    assert describe(data[:8192]) == "DNG raw photo" and is_risky("RAW", data)


def test_without_a_preview_it_is_developed_in_right_colours() -> None:
    found = read_pixels(dng(), min_side=None, name="a.dng", limits=LIMITS)
    assert (found.format, found.width, found.height, found.pixels.size) == ("RAW", 640, 480, (320, 240))
    assert found.pixels.mode == "RGB" and colours(found.pixels) == [0, 1, 2, 2]
    grey = np.asarray(found.pixels)[120, 160].astype(int)
    assert np.ptp(grey) <= 6 and 100 < grey.mean() < 255


@pytest.mark.parametrize(
    ("orientation", "size", "expected"),
    [(1, (640, 480), [0, 1, 2, 2]), (3, (640, 480), [2, 2, 1, 0]), (6, (480, 640), [2, 0, 2, 1]),
     (8, (480, 640), [1, 2, 0, 2])],
)  # fmt: skip
def test_it_is_upright(orientation: int, size: tuple[int, int], expected: list[int]) -> None:
    found = read_pixels(dng(orientation=orientation), min_side=None, name="a.dng", limits=LIMITS)
    assert (found.width, found.height) == size and colours(found.pixels) == expected


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_preview_that_is_large_enough_is_taken_and_turned(orientation: int) -> None:
    found = read_pixels(dng(preview=(320, 240), orientation=orientation), min_side=None, name="a.dng", limits=LIMITS)
    turned = orientation in (6, 8)
    assert found.pixels.size == ((240, 320) if turned else (320, 240))
    assert (found.width, found.height) == ((480, 640) if turned else (640, 480))
    assert np.abs(np.asarray(found.pixels, int) - (200, 120, 10)).max() < 8


def test_a_preview_that_is_too_small_gives_way_to_development() -> None:
    data = dng(preview=(160, 120))
    small = read_pixels(data, min_side=100, name="a.dng", limits=LIMITS)
    assert np.abs(np.asarray(small.pixels, int) - (200, 120, 10)).max() < 8
    large = read_pixels(data, min_side=200, name="a.dng", limits=LIMITS)
    assert colours(large.pixels) == [0, 1, 2, 2] and min(large.pixels.size) >= 200


def test_a_damaged_preview_and_one_of_another_shape_give_way_too() -> None:
    data = bytearray(dng(preview=(320, 240)))
    start = data.find(b"\xff\xda")
    data[start : start + 1200] = bytes(1200)
    assert colours(read_pixels(bytes(data), min_side=None, name="a.dng", limits=LIMITS).pixels) == [0, 1, 2, 2]
    upright = dng(preview=(240, 320))
    assert colours(read_pixels(upright, min_side=None, name="a.dng", limits=LIMITS).pixels) == [0, 1, 2, 2]


def test_limits_are_checked_before_anything_is_developed() -> None:
    with pytest.raises(TooLarge):
        decode(dng(), min_side=None, name="a.dng", limits=Limits(min_side=16, max_pixels=1000))
    with pytest.raises(TooSmall):
        decode(dng(), min_side=None, name="a.dng", limits=Limits(min_side=500, max_pixels=10**9))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (dng(cut=True), "cut off"),
        (dng()[:400], "raw photo"),
        (b"IIRO\x08\0\0\0" + bytes(200), "LibRaw does not know"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(200), "LibRaw does not know"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(200), "LibRaw does not know"),
    ],
)
def test_what_is_broken_is_said_in_a_sentence(data: bytes, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        read_pixels(data, min_side=None, name="a.dng", limits=LIMITS)


def test_metadata_come_from_the_files_own_exif(tmp_path: Path) -> None:
    said = read_metadata(dng(preview=(320, 240)))
    assert said.camera == "Testmaker Testcam 1" and said.iso == 400 and said.exposure_time == 0.005
    assert said.captured_at is not None and said.captured_at.year == 2021


@pytest.mark.django_db(transaction=True)
def test_raw_files_are_found_read_and_searchable(tmp_path: Path) -> None:
    from ingestion.register import crawl, source_for
    from ingestion.worker import Worker
    from search import thumbnails
    from search.models import Embedding, Image

    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "one.dng").write_bytes(dng())
    (tmp_path / "p" / "two.DNG").write_bytes(dng(preview=(320, 240), orientation=6))
    (tmp_path / "p" / "broken.nef").write_bytes(b"II*\0" + bytes(200))
    assert inspect(bytes(tmp_path / "p" / "one.dng")).what is What.CANDIDATE
    crawl(source_for(tmp_path / "p")[0])
    Worker(threads=2).run()
    found = {image.name: image for image in Image.objects.all()}
    assert found["one.dng"].state == found["two.DNG"].state == "ready" and found["one.dng"].format == "RAW"
    assert (found["two.DNG"].width, found["two.DNG"].height) == (480, 640)
    assert found["broken.nef"].state == "unreadable" and found["broken.nef"].reason
    assert Embedding.objects.count() == 2 and thumbnails.read(found["one.dng"].pk)
