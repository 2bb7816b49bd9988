"""When a crawl's findings are not believed, and what it could not see."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ingestion import register
from ingestion.errors import SourceGone
from ingestion.models import Crawl
from ingestion.register import crawl, source_for
from search.models import Image
from tests.crawling import as_read, go, only, root, row
from tests.photos import put

pytestmark = pytest.mark.django_db(transaction=True)

__all__ = ["go", "root"]


def test_a_root_that_is_gone_changes_nothing(root: Path, go: Any, tmp_path: Path) -> None:
    put(root / "a.jpg", 1)
    source = source_for(root)[0]
    crawl(source)
    os.rename(root, tmp_path / "elsewhere")
    with pytest.raises(SourceGone, match="is not there: perhaps its disk is not mounted"):
        source_for(root)
    with pytest.raises(SourceGone):
        crawl(source)
    assert row("a.jpg").state == "waiting"
    assert Crawl.objects.first().state == "failed" and "not there" in Crawl.objects.first().message  # type: ignore[union-attr]


def test_an_emptied_source_marks_nothing_missing_until_told(root: Path, go: Any) -> None:
    put(root / "a.jpg", 1)
    put(root / "b.jpg", 2)
    go()
    for name in ("a.jpg", "b.jpg"):
        os.unlink(root / name)
    report = go()
    assert report.guarded and report.missing == 0 and "holds no files now, but 2 pictures" in report.message
    assert "--accept-missing" in report.message and Crawl.objects.first().state == "guarded"  # type: ignore[union-attr]
    assert row("a.jpg").state == "waiting"
    report = go(accept_missing=True)
    assert not report.guarded and report.missing == 2


def test_much_missing_at_once_is_not_believed(root: Path, go: Any, settings: Any) -> None:
    for number in range(24):
        put(root / f"{number}.jpg", number)
    go()
    for number in range(12):
        os.unlink(root / f"{number}.jpg")
    assert go().missing == 12, "half is not more than half"
    for number in range(12, 22):
        os.unlink(root / f"{number}.jpg")
    report = go()
    assert report.guarded and "10 of 12 known pictures" in report.message and report.missing == 0
    settings.IMAGESEARCH_MASS_CHANGE = 1.0
    assert go().missing == 10


def test_another_folder_in_the_roots_place_is_not_believed(root: Path, go: Any, tmp_path: Path) -> None:
    """As when a disk is not mounted and its mount point holds a stray file."""
    for number in range(3):
        put(root / f"{number}.jpg", number)
    go()
    as_read()
    os.rename(root, tmp_path / "unmounted")
    put(root / "stray.jpg", 9)
    report = go()
    assert report.guarded and "not the one that was there before" in report.message
    assert set(Image.objects.exclude(name="stray.jpg").values_list("state", flat=True)) == {"ready"}
    shutil.rmtree(root)
    os.rename(tmp_path / "unmounted", root)
    report = go()
    only(report, unchanged=3)
    assert row("stray.jpg").state == "missing"


@pytest.mark.parametrize("same_root", [False, True])
def test_the_files_of_a_wrong_disk_do_not_outvote_the_right_ones_the_second_time(
    root: Path, go: Any, tmp_path: Path, same_root: bool
) -> None:
    for number in range(12):
        put(root / f"{number}.jpg", number)
    go()
    as_read()
    os.rename(root, tmp_path / "unmounted")
    if same_root:
        os.rename(tmp_path / "unmounted", root)
        (tmp_path / "unmounted").mkdir()
        for number in range(12):
            os.rename(root / f"{number}.jpg", tmp_path / "unmounted" / f"{number}.jpg")
    for number in range(30):
        put(root / f"other{number}.jpg", 100 + number)
    for _ in range(3):
        report = go()
        assert report.guarded and report.missing == 0 and "12 of 12 known pictures" in report.message
    as_read()
    os.rename(root / "other0.jpg", root / "other.jpg")
    assert go().guarded, "nor do those that moved"
    report = go(accept_missing=True)
    assert report.missing == 12 and not go().guarded
    for number in range(1, 11):
        os.unlink(root / f"other{number}.jpg")
    assert go().missing == 10, "once believed, all count again"


def test_everything_moved_at_once_is_a_move_and_no_alarm(root: Path, go: Any) -> None:
    for number in range(15):
        put(root / f"{number}.jpg", number)
    go()
    as_read()
    (root / "all").mkdir()
    for number in range(15):
        os.rename(root / f"{number}.jpg", root / "all" / f"{number}.jpg")
    report = go()
    only(report, moved=15)
    assert not report.guarded


def test_a_disk_inside_a_source_that_is_not_mounted_protects_what_is_on_it(root: Path, go: Any) -> None:
    """A followed link to another device stands for the mount."""
    if os.stat("/dev/shm").st_dev == os.stat(root).st_dev:
        pytest.skip("needs /dev/shm on a device of its own")
    other = Path("/dev/shm") / f"imagesearch-test-{os.getpid()}"
    try:
        put(other / "deep" / "usb.jpg", 1)
        put(root / "home.jpg", 2)
        os.symlink(other, root / "usb")
        source = source_for(root, follow_symlinks=True)[0]
        only(crawl(source), registered=2)
        source.refresh_from_db()
        assert source.mounts == ["usb"]
        os.unlink(root / "usb")
        (root / "usb").mkdir()
        for _ in range(2):
            report = go()
            assert report.guarded and "usb was a disk of its own and is not now" in report.message
            assert row("usb/deep/usb.jpg").state == "waiting"
        os.rmdir(root / "usb")
        assert go().guarded
        report = go(accept_missing=True)
        assert report.missing == 1 and not report.guarded
        source.refresh_from_db()
        assert source.mounts == [] and not go().guarded
    finally:
        shutil.rmtree(other, ignore_errors=True)


def test_what_could_not_be_read_is_not_missing(root: Path, go: Any) -> None:
    put(root / "ok.jpg", 1)
    put(root / "link" / "a.jpg", 2)
    go()
    outside = root.parent / "outside"
    os.rename(root / "link", outside)
    os.symlink(outside, root / "link")
    source = source_for(root, follow_symlinks=True)[0]
    only(crawl(source), unchanged=2)
    os.rename(outside, root.parent / "unplugged")
    report = go()
    assert report.errors == 1 and report.missing == 0 and "cannot be reached" in report.problems[0]
    assert row("link/a.jpg").state == "waiting"


def test_a_file_that_vanishes_while_it_is_met_is_left_for_the_next_crawl(
    root: Path, go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "a.jpg", 1)
    put(root / "b.jpg", 2)
    put(root / "new.jpg", 3)
    real = register.walk

    def walk(*args: Any, **options: Any) -> Any:
        for folder in real(*args, **options):
            os.unlink(root / "new.jpg")
            yield folder

    monkeypatch.setattr(register, "walk", walk)
    only(go(), registered=2, vanished=1)
