"""Thumbnails of all images, and the JPEG that stands in for what browsers cannot show."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from search import thumbnails
from search.errors import Unreadable
from tests.factories import make_image, make_source
from tests.picture_files import encoded, scene


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 768), (341, 256)),
        ((768, 1024), (256, 341)),
        ((256, 256), (256, 256)),
        ((200, 100), (200, 100)),
        ((200, 900), (200, 900)),
        ((4000, 400), (2048, 205)),
        ((5000, 32), (2048, 13)),
        ((100, 3000), (68, 2048)),
        ((30_000, 1), (2048, 1)),
    ],
)
def test_the_short_side_is_256_never_enlarged_and_the_long_side_is_held(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert thumbnails.make(PilImage.new("RGB", size)).size == expected


def test_a_thumbnail_looks_like_its_picture() -> None:
    small = np.asarray(PilImage.open(io.BytesIO(thumbnails.encode(thumbnails.make(scene(1024, 768)))))).astype(int)
    assert np.abs(small - np.asarray(scene(1024, 768).resize((341, 256)), dtype=int)).mean() < 2


def test_thumbnails_fan_out_over_folders(settings) -> None:
    root = Path(settings.IMAGESEARCH_THUMBNAILS)
    assert thumbnails.path_of(7) == root / "0000" / "7.jpg"
    assert thumbnails.path_of(4_123_456) == root / "4123" / "4123456.jpg"
    assert len({thumbnails.path_of(i).parent for i in range(0, 4_000_000, 500)}) == 4000


def test_save_read_replace_delete() -> None:
    assert thumbnails.read(1001) is None
    thumbnails.save(1001, b"one")
    thumbnails.save(1001, b"two")
    assert thumbnails.read(1001) == b"two"
    assert os.listdir(thumbnails.path_of(1001).parent) == ["1001.jpg"]
    thumbnails.delete([1001, 1002])
    assert thumbnails.read(1001) is None


def test_missing_ones_are_found_by_looking_at_the_folders(settings) -> None:  # type: ignore[no-untyped-def]
    for image_id in (1, 999, 1000, 3000):
        thumbnails.save(image_id, b"a thumbnail")
    asked = [0, 1, 2, 999, 1000, 1001, 2500, 3000, 5_000_000]
    assert thumbnails.missing(asked) == [i for i in asked if not thumbnails.path_of(i).exists()]
    assert thumbnails.missing(asked) == [0, 2, 1001, 2500, 5_000_000] and thumbnails.missing([]) == []


def test_a_failed_write_leaves_the_old_thumbnail_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails.save(5, b"old")
    with pytest.raises(TypeError):
        thumbnails.save(5, "not bytes")  # type: ignore[arg-type]
    assert thumbnails.read(5) == b"old"
    assert os.listdir(thumbnails.path_of(5).parent) == ["5.jpg"]


@pytest.fixture
def photo(tmp_path: Path, db: None):  # type: ignore[no-untyped-def]
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "photo.tif"
    path.write_bytes(encoded(scene(1600, 1200), "TIFF"))
    status = path.stat()
    source = make_source(tmp_path / "photos")
    return make_image(source, "photo.tif", size=status.st_size, mtime_ns=status.st_mtime_ns, width=1600, height=1200)


def test_a_rendition_is_a_jpeg_within_the_side_and_without_metadata(photo) -> None:  # type: ignore[no-untyped-def]
    with PilImage.open(io.BytesIO(thumbnails.rendition(photo, 800))) as image:
        assert (image.format, image.size) == ("JPEG", (800, 600))
        assert not image.getexif()
        assert (
            np.abs(np.asarray(image, dtype=int) - np.asarray(scene(1600, 1200).resize((800, 600)), dtype=int)).mean()
            < 2
        )
    with PilImage.open(io.BytesIO(thumbnails.rendition(photo, 100_000))) as image:
        assert image.size == (1600, 1200)


def test_a_rendition_is_kept_until_the_file_changes(photo, settings) -> None:  # type: ignore[no-untyped-def]
    first = thumbnails.rendition(photo, 512)
    path = Path(photo.absolute_path)
    path.unlink()
    assert thumbnails.rendition(photo, 512) == first
    path.write_bytes(encoded(PilImage.new("RGB", (600, 600), "#ff0000"), "PNG"))
    photo.size, photo.mtime_ns = path.stat().st_size, path.stat().st_mtime_ns
    photo.width = photo.height = 600
    with PilImage.open(io.BytesIO(thumbnails.rendition(photo, 512))) as image:
        assert image.size == (512, 512)


def test_the_renditions_are_bounded_and_the_last_used_stay(photo, settings) -> None:  # type: ignore[no-untyped-def]
    folder = Path(settings.IMAGESEARCH_THUMBNAILS) / "renditions"
    folder.mkdir(parents=True)
    for number in range(1200):
        old = folder / f"old-{number}.jpg"
        old.write_bytes(b"x")
        os.utime(old, (1_000_000 + number, 1_000_000 + number))
    thumbnails.rendition(photo, 512)
    kept = set(os.listdir(folder))
    assert len(kept) == 1000
    assert "old-1199.jpg" in kept
    assert "old-0.jpg" not in kept
    assert any(name.startswith(f"{photo.pk}-512-") for name in kept)


def test_a_rendition_of_what_cannot_be_read_is_a_sentence(photo) -> None:  # type: ignore[no-untyped-def]
    path = Path(photo.absolute_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Unreadable, match="TIFF picture"):
        thumbnails.rendition(photo, 512)
    path.unlink()
    with pytest.raises(Unreadable, match=r"^The file is not there\.$"):
        thumbnails.rendition(photo, 512)
    path.mkdir()
    with pytest.raises(Unreadable):
        thumbnails.rendition(photo, 512)
