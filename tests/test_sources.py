"""Sources and their roots, one crawl at a time, and the report."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from ingestion import roots, turns
from ingestion.crawlreport import CrawlReport, IdRuns
from ingestion.errors import BadSource, CrawlBusy
from ingestion.models import Crawl
from ingestion.register import crawl, source_for
from search.models import Change, Counter, Image, Source, SourceAccess
from tests.crawling import go, only, root, row
from tests.factories import make_user
from tests.photos import put

pytestmark = pytest.mark.django_db(transaction=True)

__all__ = ["go", "root"]


def test_a_source_is_made_once_and_belongs_to_the_first_owner(root: Path, tmp_path: Path) -> None:
    source, subpath = source_for(root)
    assert (source.name, subpath, source.access.count()) == ("photos", b"", 0)
    boss = make_user(staff=True)
    other = tmp_path / "x" / "photos"
    other.mkdir(parents=True)
    second = source_for(str(other) + "//")[0]
    assert second.name == "photos (2)"
    assert second.access.get().user == boss and second.access.get().role == SourceAccess.Role.OWNER
    user = make_user()
    assert source_for(root, owner=user)[0] == source and source.access.get().user == user
    assert Change.objects.filter(kind="access").exists()
    os.symlink(root, tmp_path / "link")
    assert source_for(tmp_path / "link")[0] == source
    (root / "sub").mkdir()
    assert source_for(f"{root}/sub/../sub/") == (source, b"sub")
    assert Source.objects.count() == 2


def test_paths_that_cannot_be_sources_are_refused_with_a_sentence(
    root: Path, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "a.jpg", 1)
    with pytest.raises(BadSource, match="There is no folder"):
        source_for(tmp_path / "none")
    with pytest.raises(BadSource, match="is a file; name the folder that holds it"):
        source_for(root / "a.jpg")
    source_for(root)
    with pytest.raises(BadSource, match="contains what is a source already: photos"):
        source_for(tmp_path)
    with pytest.raises(BadSource, match="The path is empty: name a folder of pictures"):
        source_for("")
    with pytest.raises(BadSource, match="is the source photos already"):
        source_for(root, name="other")
    settings.IMAGESEARCH_DATA.mkdir(exist_ok=True)
    (settings.IMAGESEARCH_THUMBNAILS / "00").mkdir(parents=True)
    for own in (settings.IMAGESEARCH_DATA, settings.IMAGESEARCH_THUMBNAILS / "00"):
        with pytest.raises(BadSource, match="of the program's own data"):
            source_for(own)
    elsewhere = tmp_path / "home" / "Pictures of mine"
    elsewhere.mkdir(parents=True)
    with pytest.raises(BadSource, match="There is a source named photos already"):
        source_for(elsewhere, name="photos")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert source_for("~/Pictures of mine")[0].root_path == str(elsewhere)


@pytest.mark.parametrize("other", [".", "sub"])
def test_two_commands_at_once_make_one_source(root: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """Both found no source yet before either made one: of the same folder, or of one within the other."""
    (root / "sub").mkdir()
    both, refuse_own = threading.Barrier(2, timeout=30), roots._refuse_own

    def meet(real: bytes) -> None:
        both.wait()
        refuse_own(real)

    monkeypatch.setattr(roots, "_refuse_own", meet)
    said: list[Any] = []

    def make(folder: Path) -> None:
        try:
            said.append(source_for(folder)[0])
        except BadSource as error:
            said.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=make, args=(folder,)) for folder in (root, root / other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (source,) = Source.objects.all()
    assert len(said) == 2 and source in said
    assert all(one == source or "Sources do not nest: name that folder, or another one." in one for one in said)


def test_the_programs_own_folder_inside_a_source_is_not_crawled(tmp_path: Path, settings: Any) -> None:
    put(tmp_path / "mine" / "a.jpg", 1)
    put(settings.IMAGESEARCH_THUMBNAILS / "00" / "1.jpg", 2)
    source = source_for(tmp_path)[0]
    crawl(source)
    assert list(Image.objects.values_list("path", flat=True)) == [b"mine/a.jpg"]


def test_one_crawl_of_a_source_at_a_time(root: Path, go: Any) -> None:
    source = source_for(root)[0]
    with turns.turn(source), pytest.raises(CrawlBusy, match=rf"The source photos is being crawled by .*:{os.getpid()}"):
        crawl(source)
    go()
    assert list(Crawl.objects.values_list("state", flat=True)) == ["finished", "failed"]


def test_a_crawl_on_another_host_is_respected_while_it_lives(root: Path, go: Any) -> None:
    from datetime import timedelta

    from django.utils import timezone

    source = source_for(root)[0]
    other = Crawl.objects.create(source=source, owner="elsewhere:12", beat_at=timezone.now())
    with pytest.raises(CrawlBusy, match="elsewhere:12"):
        go()
    Crawl.objects.filter(pk=other.pk).update(beat_at=timezone.now() - timedelta(minutes=10))
    go()
    other.refresh_from_db()
    assert other.state == "failed" and other.message == "It was stopped before its end."


def test_a_stopped_crawl_says_so_and_the_next_goes_on(root: Path, go: Any) -> None:
    for number in range(3):
        put(root / f"{number}.jpg", number)

    def stop(report: CrawlReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(progress=stop)
    assert Crawl.objects.first().state == "failed"  # type: ignore[union-attr]
    report = go()
    assert report.found == 3 and Image.objects.count() == 3


def test_settled_counts_move_what_turned_out_unreadable(root: Path, go: Any) -> None:
    for number in range(5):
        put(root / f"{number}.jpg", number)
    go()
    put(root / "new.jpg", b"")
    put(root / "newer.jpg", 8)
    report = go()
    only(report, registered=2, unchanged=5)
    Image.objects.filter(name__in=["new.jpg", "0.jpg"]).update(state="unreadable", reason="Why.")
    Image.objects.filter(name="newer.jpg").update(state="missing")
    assert report.settled_counts() == {
        "found": 7, "registered": 0, "unchanged": 4, "moved": 0, "unreadable": 2, "too_small": 0, "unsupported": 0,
        "excluded": 0, "vanished": 1,
    }  # fmt: skip


def test_id_runs_hold_neighbours_for_nothing() -> None:
    runs = IdRuns()
    runs.add(range(1, 1001))
    runs.add([5000, 7, 8])
    assert len(runs) == 1003 and [len(chunk) for chunk in runs.chunks()] == [500, 500, 3]
    assert list(runs.chunks())[-1] == [5000, 7, 8]


def test_each_new_row_raises_the_mark_of_ids(root: Path, go: Any) -> None:
    put(root / "a.jpg", 1)
    go()
    assert Counter.objects.get(name="highwater:image").value == row("a.jpg").pk


def test_known_rows_never_conflict_and_never_burn_ids(root: Path, go: Any) -> None:
    put(root / "a.jpg", 1)
    first = go()
    for _ in range(3):
        go()
    put(root / "b.jpg", 2)
    go()
    ids = sorted(Image.objects.values_list("pk", flat=True))
    assert ids[1] == ids[0] + 1 and first.registered == 1


def test_two_processes_crawl_two_sources_at_once(sandbox: Any, tmp_path: Path) -> None:
    for place in ("one", "two"):
        for number in range(30):
            put(tmp_path / place / f"{number}.jpg", number)
    box = sandbox()
    running = [box.popen("crawl", tmp_path / place, "--json") for place in ("one", "two")]
    outs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outs
    assert box.report("crawl")["unchanged"] == 60
