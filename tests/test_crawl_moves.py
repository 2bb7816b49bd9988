"""Moves, copies, missing and returning files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ingestion import ledger, register
from ingestion.errors import BadSource, CrawlError
from ingestion.register import crawl, source_for
from search import curation, spaces
from search.models import Embedding, Image, Source
from tests.crawling import as_read, embed, go, only, root, row, work
from tests.photos import put

pytestmark = pytest.mark.django_db(transaction=True)

__all__ = ["go", "root"]


def test_a_moved_file_keeps_its_id_and_everything_on_it(root: Path, go: Any) -> None:
    put(root / "in" / "a.jpg", 1)
    put(root / "in" / "b.jpg", 2)
    go()
    as_read()
    before = row("in/a.jpg")
    curation.rate(Image.objects.filter(pk=before.pk), 5, None)
    curation.tag(Image.objects.filter(pk=before.pk), ["beach"], None)
    embed(before)
    (root / "out").mkdir()
    shutil.copyfile(root / "in" / "a.jpg", root / "out" / "renamed.jpg")
    os.unlink(root / "in" / "a.jpg")
    only(go(), moved=1, unchanged=1)
    after = row("out/renamed.jpg")
    assert (after.pk, after.rating, after.state) == (before.pk, 5, "ready")
    assert (after.folder, after.name) == ("out", "renamed.jpg")
    assert after.tag_links.get().tag.name == "beach"
    assert Embedding.objects.filter(image=after).exists() and not work()
    only(go(), unchanged=2)


def test_a_copy_is_its_own_image(root: Path, go: Any) -> None:
    put(root / "a.jpg", 1)
    go()
    as_read()
    shutil.copy2(root / "a.jpg", root / "b.jpg")
    only(go(), registered=1, unchanged=1)
    assert row("a.jpg").state == "ready" and row("b.jpg").state == "waiting"


def test_equal_files_pair_by_name_first_then_by_lowest_id(root: Path, go: Any) -> None:
    for name in ("x.jpg", "y.jpg", "z.jpg"):
        put(root / "in" / name, 1)
        go()
    as_read()
    ids = {name: row(f"in/{name}").pk for name in ("x.jpg", "y.jpg", "z.jpg")}
    shutil.rmtree(root / "in")
    put(root / "out" / "z.jpg", 1)
    put(root / "out" / "first.jpg", 1)
    report = go()
    only(report, moved=2)
    assert row("out/z.jpg").pk == ids["z.jpg"] and row("out/first.jpg").pk == ids["x.jpg"]
    assert row("in/y.jpg").state == "missing" and report.missing == 1


def test_images_that_were_never_read_move_by_name_size_and_mtime(root: Path, go: Any) -> None:
    put(root / "in" / "a.jpg", 1)
    put(root / "in" / "b.jpg", 2)
    go()
    ids = {name: row(f"in/{name}").pk for name in ("a.jpg", "b.jpg")}
    (root / "out").mkdir()
    os.rename(root / "in" / "a.jpg", root / "out" / "a.jpg")
    os.rename(root / "in" / "b.jpg", root / "out" / "other.jpg")
    report = go()
    only(report, moved=1, registered=1)
    assert row("out/a.jpg").pk == ids["a.jpg"] and row("out/a.jpg").state == "waiting"
    assert row("out/other.jpg").pk not in ids.values() and row("in/b.jpg").state == "missing"
    assert (b"out/a.jpg", "read") in work() and not [one for one in work() if one[0] == b"in/b.jpg"]


def test_a_file_of_equal_size_and_other_content_is_no_move(root: Path, go: Any) -> None:
    put(root / "a.jpg", b"\xff\xd8\xff" + b"1" * 500)
    put(root / "b.jpg", 5)
    go()
    as_read()
    os.unlink(root / "a.jpg")
    put(root / "c.jpg", b"\xff\xd8\xff" + b"2" * 500)
    report = go()
    only(report, registered=1, unchanged=1)
    assert report.missing == 1


def test_a_missing_file_that_returns_is_ready_at_once(root: Path, go: Any, tmp_path: Path) -> None:
    for number in range(4):
        put(root / f"{number}.jpg", number, mtime=1000)
    go()
    as_read()
    embed(row("1.jpg"))
    away = tmp_path / "away"
    away.mkdir()
    for number in range(1, 4):
        os.rename(root / f"{number}.jpg", away / f"{number}.jpg")
    report = go()
    assert report.missing == 3 and row("1.jpg").state == "missing"
    os.rename(away / "1.jpg", root / "1.jpg")
    put(root / "2.jpg", (away / "2.jpg").read_bytes(), mtime=5000)
    put(root / "3.jpg", 99, mtime=5000)
    only(go(), unchanged=3, registered=1)
    assert [row(f"{n}.jpg").state for n in (1, 2, 3)] == ["ready", "ready", "waiting"]
    stage = spaces.look_space().stage
    assert work() == {(b"2.jpg", stage), (b"3.jpg", "read"), (b"3.jpg", stage)}, "only what was never done"


def test_a_missing_file_that_turns_up_elsewhere_is_the_same_image(root: Path, go: Any, tmp_path: Path) -> None:
    put(root / "a.jpg", 1)
    put(root / "b.jpg", 2)
    go()
    as_read()
    image = row("a.jpg")
    embed(image)
    os.rename(root / "a.jpg", tmp_path / "a.jpg")
    assert go().missing == 1
    os.rename(tmp_path / "a.jpg", root / "back.jpg")
    only(go(), moved=1, unchanged=1)
    assert row("back.jpg").pk == image.pk and row("back.jpg").state == "ready" and not work()


def test_a_file_moved_between_the_walks_of_its_two_folders_keeps_its_id(
    root: Path, go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Met in the old place, then moved to a folder that the walk comes to later."""
    put(root / "a.jpg", 1)
    put(root / "last" / "b.jpg", 2)
    go()
    as_read()
    image = row("a.jpg")
    real = register.walk

    def walk(*args: Any, **options: Any) -> Any:
        for folder in real(*args, **options):
            yield folder
            if folder.path == b"":
                os.rename(root / "a.jpg", root / "last" / "a.jpg")

    monkeypatch.setattr(register, "walk", walk)
    assert go().moved == 1
    monkeypatch.undo()
    only(go(), unchanged=2)
    assert row("last/a.jpg").pk == image.pk and row("last/a.jpg").state == "ready"


def test_a_part_of_a_source_is_crawled_alone(root: Path, go: Any) -> None:
    put(root / "a" / "1.jpg", 1)
    put(root / "b" / "2.jpg", 2)
    put(root / "b" / "sub" / "3.jpg", 3)
    put(root / "b0" / "4.jpg", 4)
    go()
    as_read()
    os.unlink(root / "a" / "1.jpg")
    os.unlink(root / "b0" / "4.jpg")
    os.rename(root / "b" / "sub" / "3.jpg", root / "b" / "3.jpg")
    source, subpath = source_for(root / "b")
    assert subpath == b"b"
    report = crawl(source, subpath=subpath)
    only(report, moved=1, unchanged=1)
    assert report.missing == 0 and row("a/1.jpg").state == "ready"
    with pytest.raises(BadSource, match="To record what went away, crawl the whole source"):
        source_for(root / "gone")


def test_a_file_moved_into_the_part_that_is_crawled_keeps_its_id(root: Path, go: Any) -> None:
    put(root / "a" / "1.jpg", 1)
    put(root / "b" / "2.jpg", 2)
    go()
    as_read()
    image = row("a/1.jpg")
    os.rename(root / "a" / "1.jpg", root / "b" / "moved.jpg")
    only(crawl(*source_for(root / "b")[:1], subpath=b"b"), moved=1, unchanged=1)
    assert row("b/moved.jpg").pk == image.pk


def test_files_that_become_excluded_are_missing_until_they_are_not(root: Path, go: Any) -> None:
    put(root / "keep.jpg", 1)
    put(root / "drafts" / "a.jpg", 2)
    go()
    as_read()
    source = source_for(root, globs=["drafts/"])[0]
    assert source.excludes == "drafts/"
    assert crawl(source).missing == 1
    Source.objects.update(excludes="")
    only(go(), unchanged=2)
    assert row("drafts/a.jpg").state == "ready"
    Source.objects.update(excludes="drafts/")
    with pytest.raises(CrawlError, match=r"drafts is left out: the excludes of photos"):
        crawl(*source_for(root / "drafts")[:1], subpath=b"drafts")


def test_a_waiting_image_that_nothing_is_queued_for_is_queued_again(root: Path, go: Any) -> None:
    """It went missing unread, was removed, came back, and was restored: its work had been dropped."""
    put(root / "a.jpg", 1)
    put(root / "b.jpg", 2)
    go()
    ledger.drop([row("a.jpg").pk])
    only(go(), unchanged=2)
    assert {path for path, stage in work() if stage == "read"} == {b"a.jpg", b"b.jpg"}
    ledger.drop([row("a.jpg").pk])
    os.rename(root / "a.jpg", root / "c.jpg")
    shutil.copystat(root / "b.jpg", root / "c.jpg")
    only(go(), registered=1, unchanged=1)
    put(root / "in" / "d.jpg", 3, mtime=1000)
    go()
    ledger.drop([row("in/d.jpg").pk])
    (root / "out").mkdir()
    os.rename(root / "in" / "d.jpg", root / "out" / "d.jpg")
    only(go(), moved=1, unchanged=2)
    assert (b"out/d.jpg", "read") in work()
