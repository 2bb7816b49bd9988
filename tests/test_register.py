"""What a crawl registers, what it remembers, and what it leaves alone: on real files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ingestion import inspection
from ingestion.models import SeenFile
from search import changes, curation, spaces
from search.compact import unpack_ids
from search.models import Change, Embedding, Image
from tests.crawling import as_read, embed, go, only, root, row, work
from tests.photos import jpeg, put

pytestmark = pytest.mark.django_db(transaction=True)

__all__ = ["go", "root"]


def test_candidates_become_images_and_everything_else_is_remembered_with_its_kind(root: Path, go: Any) -> None:
    put(root / "a.jpg", 1, mtime=1_600_000_000)
    put(root / "deep" / "no-name", jpeg(2))
    put(root / "zero.png", b"")
    put(root / "broken.jpg", b"this is no picture")
    put(root / "cut.jpg", jpeg(3)[:90])
    put(root / "tiny.jpg", jpeg(4, size=(20, 31)))
    put(root / "paper.pdf", b"%PDF-1.7 ...")
    put(root / "notes.txt", b"words")
    put(root / ".hidden.jpg", 5)
    report = go()
    only(report, registered=5, too_small=1, unsupported=2, excluded=1)
    assert report.found == 9
    image = row("a.jpg")
    assert (image.state, image.name, image.folder) == ("waiting", "a.jpg", "")
    assert image.shown_at.timestamp() == 1_600_000_000 and image.mtime_ns == 1_600_000_000 * 10**9
    assert row("deep/no-name").folder == "deep"
    kinds = dict(SeenFile.objects.values_list("path", "kind"))
    assert kinds[b"tiny.jpg"] == "JPEG 20x31" and kinds[b"paper.pdf"] == "PDF document"
    assert set(SeenFile.objects.values_list("why", flat=True)) == {"too_small", "unsupported"}
    assert {stage for _, stage in work()} == {"read", spaces.look_space().stage}
    assert len(work()) == 10
    noticed = {i for change in Change.objects.filter(kind="images") for i in unpack_ids(change.ids).tolist()}
    assert noticed == set(Image.objects.values_list("pk", flat=True))


def test_a_second_crawl_opens_nothing_and_writes_nothing(root: Path, go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        put(root / f"{number}.jpg", number)
    put(root / "tiny.jpg", jpeg(4, size=(20, 20)))
    put(root / "paper.pdf", b"%PDF-1.7 ...")
    put(root / "bad.jpg", b"")
    go()
    as_read()
    Image.objects.filter(name="bad.jpg").update(state="unreadable", reason="The file is empty.")
    before = list(Image.objects.order_by("pk").values())
    changed = changes.last_number()
    opened: list[Any] = []
    real = os.open

    def noting(path: Any, *args: Any, **options: Any) -> int:
        opened.append(path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", noting)
    report = go()
    monkeypatch.undo()
    only(report, unchanged=3, unreadable=1, too_small=1, unsupported=1)
    assert not [path for path in opened if os.fsencode(path).startswith(os.fsencode(root))]
    assert list(Image.objects.order_by("pk").values()) == before and changes.last_number() == changed
    assert not work()


def test_the_queries_of_a_recrawl_do_not_grow_with_the_files(root: Path, go: Any) -> None:
    def queries() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            go()
        return [query["sql"] for query in captured.captured_queries]

    put(root / "a" / "0.jpg", 0)
    put(root / "a" / "0.txt", b"words")
    go()
    few = queries()
    for number in range(60):
        put(root / "a" / f"{number}.jpg", number)
        put(root / "a" / f"{number}.txt", b"words")
    go()
    many = queries()
    assert len(many) == len(few), many
    writes = [sql for sql in many if sql.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert len(writes) == 4 and all("ingestion_crawl" in sql or "search_source" in sql for sql in writes), writes


def test_names_of_any_bytes_are_registered_and_known_again(root: Path, go: Any) -> None:
    odd = [b"\xff\xfe.jpg", b"\\xff\\xfe.jpg", b"new\nline.jpg", b" sp ace .jpg", b"quo'te\"%s.jpg",
           "\U0001f600.jpg".encode(), b"a" * 251 + b".jpg", b"\xed\xa0\x80.jpg", b"back\\slash.jpg"]  # fmt: skip
    for number, name in enumerate(odd):
        put(os.path.join(os.fsencode(root), b"\xfe\\dir", name), number)
    only(go(), registered=9)
    put(os.path.join(os.fsencode(root), b"\xfe\\dir", b"\\xfe.jpg"), 20)
    only(go(), registered=1, unchanged=9)
    put(os.path.join(os.fsencode(root), b"\xfe\\dir", b"\xfe.jpg"), 21)
    only(go(), registered=1, unchanged=10)
    only(go(), unchanged=11)
    for name in (b"\\xfe.jpg", b"\xfe.jpg"):
        os.unlink(os.path.join(os.fsencode(root), b"\xfe\\dir", name))
    assert go().missing == 2
    Image.objects.filter(state="missing").delete()
    assert set(Image.objects.values_list("path", flat=True)) == {b"\xfe\\dir/" + name for name in odd}
    assert row(b"\xfe\\dir/\xff\xfe.jpg").name == row(b"\xfe\\dir/\\xff\\xfe.jpg").name == "\\xff\\xfe.jpg"
    only(go(), unchanged=9)
    as_read()
    ids = dict(Image.objects.values_list("sha256", "pk"))
    os.rename(os.path.join(os.fsencode(root), b"\xfe\\dir"), os.path.join(os.fsencode(root), b"\xfd"))
    only(go(), moved=9)
    assert dict(Image.objects.values_list("sha256", "pk")) == ids
    os.unlink(os.path.join(os.fsencode(root), b"\xfd", b"\\xff\\xfe.jpg"))
    assert go().missing == 1
    assert row(b"\xfd/\\xff\\xfe.jpg").state == "missing" and row(b"\xfd/\xff\xfe.jpg").state == "ready"


def test_times_beyond_the_calendar_are_kept_as_near_as_can_be(root: Path, go: Any) -> None:
    put(root / "old.jpg", 1, mtime=-86_400.0 * 400)
    put(root / "new.jpg", 2)
    os.utime(root / "new.jpg", (15_032_385_535, 15_032_385_535))
    go()
    assert row("old.jpg").shown_at.year == 1968 and row("new.jpg").shown_at.year == 2262
    only(go(), unchanged=2)
    assert inspection.clamp_mtime(2**70) == 2**63 - 1


def test_a_file_that_cannot_be_opened_is_a_candidate_by_name_only(root: Path) -> None:
    too_long = os.fsencode(root) + b"/" + b"x" * 300
    assert inspection.inspect(too_long + b".jpg").what is inspection.What.CANDIDATE
    closed = inspection.inspect(too_long)
    assert closed.what is inspection.What.CLOSED and "cannot be opened (File name too long)" in closed.error
    assert inspection.inspect(os.fsencode(root / "none.jpg")).what is inspection.What.VANISHED
    os.mkfifo(root / "pipe.jpg")
    assert inspection.inspect(os.fsencode(root / "pipe.jpg")).what is inspection.What.VANISHED
    assert inspection.sha256_of(os.fsencode(root / "pipe.jpg"), size=0, mtime_ns=0) is None


# --- changes -------------------------------------------------------------------------------------------


def test_a_changed_file_waits_again_with_its_curation_and_its_old_embedding(root: Path, go: Any) -> None:
    put(root / "a.jpg", 1, mtime=1000)
    put(root / "b.jpg", 2)
    go()
    as_read()
    curation.rate(Image.objects.filter(name="a.jpg"), 4, None)
    embed(row("a.jpg"))
    put(root / "a.jpg", 77, mtime=2000)
    report = go()
    only(report, registered=1, unchanged=1)
    image = row("a.jpg")
    assert (image.state, image.rating, image.sha256, image.mtime_ns) == ("waiting", 4, None, 2000 * 10**9)
    assert work() == {(b"a.jpg", "read"), (b"a.jpg", spaces.look_space().stage)}
    assert Embedding.objects.filter(image=image).exists()
    assert list(report.queued.chunks()) == [[image.pk]]


def test_a_seen_file_that_changes_is_looked_at_anew(root: Path, go: Any) -> None:
    put(root / "a.bin", b"words", mtime=1000)
    put(root / "b.bin", b"words", mtime=1000)
    only(go(), unsupported=2)
    put(root / "a.bin", jpeg(1), mtime=2000)
    put(root / "b.bin", b"%PDF-1.4", mtime=2000)
    only(go(), registered=1, unsupported=1)
    assert list(SeenFile.objects.values_list("path", "kind")) == [(b"b.bin", "PDF document")]
    os.unlink(root / "b.bin")
    go()
    assert not SeenFile.objects.exists()


def test_an_image_whose_content_is_a_picture_no_more_keeps_its_row(root: Path, go: Any) -> None:
    put(root / "a", jpeg(1), mtime=1000)
    go()
    as_read()
    put(root / "a", b"words", mtime=2000)
    only(go(), registered=1)
    assert row("a").state == "waiting" and not SeenFile.objects.exists()


def test_rehash_finds_what_size_and_mtime_hide(root: Path, go: Any) -> None:
    put(root / "a.jpg", 1, mtime=1000)
    put(root / "b.jpg", 2, mtime=1000)
    put(root / "c.txt", b"words", mtime=1000)
    go()
    as_read()
    data = bytearray((root / "a.jpg").read_bytes())
    data[-3] ^= 1
    put(root / "a.jpg", bytes(data), mtime=1000)
    only(go(), unchanged=2, unsupported=1)
    only(go(rehash=True), registered=1, unchanged=1, unsupported=1)
    assert row("a.jpg").state == "waiting" and row("b.jpg").state == "ready"


def test_removed_images_stay_removed_whatever_the_crawl_sees(root: Path, go: Any) -> None:
    put(root / "a.jpg", 1, mtime=1000)
    put(root / "b.jpg", 2)
    go()
    as_read()
    curation.remove(Image.objects.filter(name="a.jpg"), None)
    only(go(), unchanged=2)
    put(root / "a.jpg", 7, mtime=2000)
    only(go(), registered=1, unchanged=1)
    assert row("a.jpg").state == "removed"
    Image.objects.filter(name="a.jpg").update(sha256=inspection.sha256_of(
        os.fsencode(root / "a.jpg"), size=os.path.getsize(root / "a.jpg"), mtime_ns=2000 * 10**9
    ))  # fmt: skip
    os.rename(root / "a.jpg", root / "c.jpg")
    only(go(), moved=1, unchanged=1)
    assert row("c.jpg").state == "removed"
    os.unlink(root / "c.jpg")
    assert go().missing == 0 and row("c.jpg").state == "removed"
