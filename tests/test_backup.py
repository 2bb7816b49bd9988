"""Backup and restore: every human decision is back, no wrong row is believed, and nothing is touched too early."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from ingestion import backup, backup_file, ledger, refilling, restoring, switchover, tables
from ingestion.models import Crawl, Work
from search import curation, embeddings, highwater, thumbnails
from search.models import (
    Action,
    Album,
    AlbumEntry,
    Comment,
    Counter,
    Embedding,
    EmbeddingSpace,
    Favourite,
    Image,
    SavedSearch,
    Selection,
    Source,
    SourceAccess,
    Tag,
)
from search.vectors import get_store, reset_stores
from search.verification import verify
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db(transaction=True)

same_on_both = pytest.mark.skipif(
    connection.vendor != "sqlite", reason="the archive and its files are the same on both databases: tested on SQLite"
)
COMPUTED = {"search.counter", "search.embedding", "search.embeddingspace", "auth.permission"}
HUMAN = sorted(
    label
    for label in tables.kept_models()
    if label not in COMPUTED and label.partition(".")[0] not in {"ingestion", "contenttypes"}
)
"""Every table in which people's work lies, those that are added later among them."""
FILLED = {
    "auth.user", "search.source", "search.sourceaccess", "search.tag", "search.imagetag", "search.action",
    "search.album", "search.albumentry", "search.comment", "search.favourite", "search.image", "search.imagemetadata",
    "search.albumshare", "search.savedsearch", "search.selection",
}  # fmt: skip


def rows_of(labels=None) -> dict:
    """Every column of every row, as the database answers it."""
    models = tables.kept_models()
    return {
        label: sorted(
            models[label]._base_manager.values_list(*tables.columns_of(models[label])), key=lambda row: row[0]
        )
        for label in (labels or models)
    }


def vector(image_id: int, salt: int = 0, dim: int = 16) -> np.ndarray:
    row = np.random.default_rng([image_id, salt]).standard_normal(dim).astype(np.float32)
    return row / np.linalg.norm(row)


def make_space(name: str = "toy", dim: int = 16) -> EmbeddingSpace:
    return EmbeddingSpace.objects.create(name=name, encoder="look", key=name, label=name, dim=dim, text=False)


def embed(space: EmbeddingSpace, ids, salt: int = 0) -> None:
    ids = np.array(sorted(ids), dtype=np.int64)
    rows = np.stack([vector(int(i), salt, space.dim) for i in ids])
    embeddings.record(space, ids, rows, still_mine=lambda ids: ids, within=lambda ids: None)


def curated(tmp_path: Path):
    """A library in which people did every kind of thing."""
    (tmp_path / "photos").mkdir(exist_ok=True)
    anna, ben = make_user("anna", staff=True), make_user("ben")
    source = make_source(tmp_path / "photos", owner=anna, viewer=ben, name="photos")
    odd = b"f\xc3\xa4\xff/\xe9t\xe9 \xf0\x9f\x98\x80.jpg"
    images = [make_image(source, odd, exif={"Model": "X-T5", "list": [1, 2.5, None, "ü\\u0000"]})]
    images += [
        make_image(
            source, f"trip/{n}.jpg", sha256=bytes([n]) * 32, perceptual_hash=-(2**63) + n, latitude=48.2 + n / 7,
            colours=[["#aabbcc", 0.5]], captured_at=timezone.now() - timedelta(days=n, microseconds=n * 7),
            exposure_time=1 / 3, read_at=timezone.now(),
        )
        for n in range(1, 30)
    ]  # fmt: skip
    ids = [image.pk for image in images]
    curation.tag(ids[:20], ["holiday", "Größe"], anna)
    curation.rate(ids[:9], 4, anna)
    curation.set_title(ids[3:4], "The sea; “quiet”\n at 5 o'clock", anna)
    curation.hide(ids[5:7], anna)
    curation.remove(ids[7:9], anna)
    undone = curation.rate(ids[10:12], 2, anna)
    curation.undo(undone, anna)
    for image in images[:4]:
        Favourite.objects.create(user=ben, image=image)
        Comment.objects.create(author=ben, image=image, text="Schön! \U0001f600")
    album = Album.objects.create(owner=anna, name="Best of", description="")
    album.shared_with.add(ben)
    for place, image in enumerate(images[:6]):
        AlbumEntry.objects.create(album=album, image=image, position=place * 10, score=0.1 + 0.2 * place)
    SavedSearch.objects.create(user=ben, name="Red", query="q=red+%C3%A4&like=3")
    Selection.objects.create(user=anna, ids=b"\x00\xff\x80", scores=b"\xff" * 8, count=2)
    child, parent = Tag.objects.order_by("-id")[:2]
    Tag.objects.filter(pk=child.pk).update(parent=parent, colour="teal")
    space = make_space()
    embed(space, [i for i in ids if i not in ids[7:9]])
    Counter.objects.create(name="settings:made-up", value=2**40)
    return source, images, space


def wipe() -> None:
    """As a new machine: no rows, no files."""
    from django.conf import settings

    reset_stores()
    with transaction.atomic():
        tables.empty(tables.all_models())
    for folder in (settings.IMAGESEARCH_SPACES, settings.IMAGESEARCH_THUMBNAILS):
        shutil.rmtree(folder, ignore_errors=True)


def back_up(tmp_path: Path, name: str = "b.tar", **options) -> Path:
    file = tmp_path / name
    backup.back_up(file, **options)
    return file


def test_every_human_decision_is_back(tmp_path):
    curated(tmp_path)
    before = rows_of()
    file = back_up(tmp_path)
    wipe()
    report = restoring.restore(file)
    after = rows_of()
    for label in HUMAN:
        assert after[label] == before[label], label
    assert set(HUMAN) >= FILLED and all(after[label] for label in FILLED)
    assert after["search.embedding"] == before["search.embedding"]
    assert report.vectors["toy"] == 28 and not report.dropped and report.queued == 0
    assert get_user_model().objects.get(username="ben").check_password("pass-word-1")
    assert ledger.counts() == ledger.count_anew()
    assert all(verdict.ok for verdict in verify(sample=0))
    action = Action.objects.filter(undone_at=None, verb="rate").latest("id")
    curation.undo(action, get_user_model().objects.get(username="anna"))
    assert not Image.objects.filter(rating=4).exists()


def test_every_kept_table_can_be_told_in_json_and_needs_none_that_is_left_out():
    kept = tables.kept_models()
    for label, model in kept.items():
        for field in model._meta.concrete_fields:
            assert tables._kind(field) in {
                *tables._WRITERS, "BigAutoField", "AutoField", "BigIntegerField", "IntegerField", "SmallIntegerField",
                "PositiveIntegerField", "PositiveSmallIntegerField", "PositiveBigIntegerField", "FloatField",
                "BooleanField", "CharField", "TextField", "JSONField", "SlugField", "EmailField", "URLField",
            }, (label, field.name)  # fmt: skip
            if field.is_relation:
                assert field.related_model._meta.label_lower in kept, (label, field.name)


@same_on_both
def test_it_is_a_plain_tar_with_readable_parts(tmp_path):
    _source, images, _ = curated(tmp_path)
    file = back_up(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    rows = np.load(tmp_path / "out" / "spaces" / "toy" / "vectors.npy", mmap_mode="r")
    assert np.array_equal(rows[images[1].pk], vector(images[1].pk))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["sources"] == [{"name": "photos", "root": str(tmp_path / "photos")}]
    assert manifest["tables"]["search.image"]["rows"] == 30
    assert list(tmp_path.glob(".b.tar*")) == []


def test_what_is_written_during_the_backup_is_dropped_queued_and_counted(tmp_path, monkeypatch):
    """The rows of three images change, one appears and one is purged between the snapshot and the vectors."""
    _, images, space = curated(tmp_path)
    ids = [image.pk for image in images]

    def meanwhile(point: str) -> None:
        if point == "backup-before-vectors":
            embed(space, ids[1:4], salt=9)
            late = make_image(images[0].source, "late.jpg")
            embed(space, [late.pk])
            embeddings.forget(space, [ids[5]])
            Work.objects.create(image_id=ids[20], stage="read", newest=1)

    monkeypatch.setattr(backup, "reach", meanwhile)
    before = rows_of(HUMAN)
    file = back_up(tmp_path)
    wipe()
    report = restoring.restore(file)
    assert report.dropped == {"toy": 4} and report.vectors["toy"] == 24
    believed = set(Embedding.objects.filter(space=space).values_list("image_id", flat=True))
    assert believed == {*ids} - {*ids[1:4], ids[5], *ids[7:9]}
    rows = get_store(space).file.rows()
    assert all(np.array_equal(rows[i], vector(i)) for i in believed)
    assert not rows[ids[1]].any() and not rows[ids[5]].any() and not rows[ids[-1] + 1].any(), "strays are zero"
    queued = set(Work.objects.filter(stage=space.stage).values_list("image_id", flat=True))
    assert queued == {*ids[1:4], ids[5]} and report.queued == 4
    assert rows_of(HUMAN) == before, "nothing that came later is in it"
    assert ledger.counts() == ledger.count_anew()
    assert all(verdict.ok and not verdict.strays_zeroed for verdict in verify(sample=0))


def test_a_database_with_images_is_replaced_only_when_told_so(tmp_path):
    _, images, space = curated(tmp_path)
    file = back_up(tmp_path)
    before = rows_of()
    later = make_image(images[0].source, "later.jpg")
    embed(space, [later.pk])
    other = make_space("other", 8)
    embed(other, [later.pk])
    with pytest.raises(restoring.RestoreRefused, match="--replace"):
        restoring.restore(file)
    assert Image.objects.filter(pk=later.pk).exists()
    assert restoring.restore(file, dry_run=True).notes, "a dry run says what the restore will ask for"
    restoring.restore(file, replace=True)
    assert rows_of(HUMAN) == {label: before[label] for label in HUMAN}
    assert not (get_store(other).file.folder).exists()
    assert not get_store(space).file.rows()[later.pk :].any()
    assert make_image(Source.objects.get(), "new.jpg").pk > later.pk, "an id is never given out twice"
    assert highwater.check() == []


def test_ids_go_on_above_the_backup_s_mark_on_a_new_machine(tmp_path):
    _, images, _ = curated(tmp_path)
    with transaction.atomic():
        highwater.raise_to("image", images[-1].pk + 500)
    highwater.mend()
    file = back_up(tmp_path)
    wipe()
    restoring.restore(file)
    assert highwater.check() == []
    assert json.loads(highwater.path().read_text())["image"] == images[-1].pk + 500
    assert make_image(Source.objects.get(), "new.jpg").pk > images[-1].pk + 500
    assert make_user("carl").pk > get_user_model().objects.get(username="ben").pk


def test_sources_move_with_the_media(tmp_path):
    curated(tmp_path)
    Source.objects.update(mounts=["trip"], root_inode=7, root_device=7)
    file = back_up(tmp_path)
    wipe()
    os.rename(tmp_path / "photos", tmp_path / "elsewhere")
    old, new = os.fsencode(tmp_path / "photos"), os.fsencode(tmp_path / "elsewhere")
    with pytest.raises(restoring.RestoreRefused, match="no source of the backup lies there"):
        restoring.restore(file, maps=[(b"/nowhere", new)])
    assert "is not there: mount it" in " ".join(restoring.restore(file, dry_run=True).notes)
    report = restoring.restore(file, maps=[(os.fsencode(tmp_path), b"/wrong"), (old, new)])
    source = Source.objects.get()
    assert source.root == new and source.mounts == []
    assert report.mapped == {str(tmp_path / "photos"): str(tmp_path / "elsewhere")}
    assert not [note for note in report.notes if "mount it" in note]


@same_on_both
def test_two_sources_are_never_mapped_into_each_other(tmp_path):
    make_source("/a/one"), make_source("/b/two")
    file = back_up(tmp_path)
    wipe()
    for new in (b"/a/one", b"/a/one/in"):
        with pytest.raises(restoring.RestoreRefused, match="within another"):
            restoring.restore(file, maps=[(b"/b/two", new)])
    assert not Source.objects.exists()


def test_claims_of_workers_and_running_crawls_do_not_come_back(tmp_path):
    source, images, _ = curated(tmp_path)
    ledger.queue([images[1].pk], ["read"])
    assert len(ledger.claim("elsewhere:1:ab", ["read"], 5)) == 1
    Crawl.objects.create(source=source, owner="elsewhere:1", beat_at=timezone.now())
    file = back_up(tmp_path)
    with pytest.raises(restoring.RestoreRefused, match="A worker on elsewhere"):
        restoring.restore(file, replace=True)
    wipe()
    assert restoring.restore(file).leases_cleared == 1
    work = Work.objects.get(stage="read", image=images[1])
    assert (work.lease_owner, work.lease_until, work.attempts) == ("", None, 0)
    assert Crawl.objects.get().state == Crawl.State.FAILED
    assert len(ledger.claim("me:1:ab", ["read"], 50)) >= 1


@same_on_both
def test_a_restore_waits_for_no_worker_and_no_server(tmp_path):
    from ingestion import preparation, presence

    file = back_up(tmp_path)
    worker = presence.Presence()
    try:
        with pytest.raises(restoring.RestoreRefused, match="1 worker is running"):
            restoring.restore(file)
    finally:
        worker.close()
    with preparation.hold_data_folder(), pytest.raises(preparation.NotPrepared, match="already runs"):
        restoring.restore(file)
    with switchover.only_restore(), pytest.raises(CommandError, match="A restore is running"):
        call_command("restore", str(file))
    with switchover.only_restore():
        assert [message.id for message in switchover.check_restore(None)] == ["ingestion.E001"]
    assert switchover.check_restore(None) == []


def test_thumbnails_come_back_and_only_those_that_are_the_picture_s_own_stay(tmp_path):
    _, images, _ = curated(tmp_path)
    for image in images[:10]:
        thumbnails.save(image.pk, b"thumbnail %d" % image.pk)
    with_them, without = back_up(tmp_path, with_thumbnails=True), back_up(tmp_path, "without.tar")
    Image.objects.filter(pk=images[2].pk).update(sha256=b"\0" * 32)  # another picture took this id's place
    later = make_image(images[0].source, "later.jpg", sha256=b"\1" * 32)
    thumbnails.save(later.pk, b"later")
    report = restoring.restore(without, replace=True)
    assert thumbnails.read(images[3].pk) == b"thumbnail %d" % images[3].pk
    assert thumbnails.read(images[2].pk) is None and thumbnails.read(later.pk) is None
    assert thumbnails.read(images[0].pk) is None, "its content was never read, so nobody knows whose it is"
    assert (report.thumbnails, report.thumbnails_kept, report.repairs["no_thumbnail"]) == (0, 8, 22)
    wipe()
    report = restoring.restore(with_them)
    assert report.thumbnails == 10
    assert [thumbnails.read(image.pk) for image in images[:10]] == [b"thumbnail %d" % i.pk for i in images[:10]]
    assert not list(thumbnails.path_of(0).parent.parent.glob(".restore*"))


@same_on_both
def test_a_lost_database_s_thumbnails_are_recognised(tmp_path, shared):
    from ingestion.fingerprints import fingerprint
    from search import decoding

    photos = sorted((shared / "photos" / "captioned").rglob("*.jpg"))[:4]
    source = make_source(shared / "photos")
    images = []
    for photo in photos:
        pixels = decoding.read_pixels(photo.read_bytes(), min_side=512).pixels
        small = thumbnails.make(pixels)
        marks = fingerprint(small)
        images.append(
            make_image(source, photo.name, perceptual_hash=marks.perceptual_hash, uniformity=marks.uniformity)
        )
        thumbnails.save(images[-1].pk, thumbnails.encode(small))
    file = back_up(tmp_path)
    swapped = thumbnails.read(images[0].pk)
    thumbnails.save(images[1].pk, swapped)
    with transaction.atomic():
        tables.empty(tables.all_models())
    report = restoring.restore(file)
    kept = [thumbnails.read(image.pk) is not None for image in images]
    assert kept == [True, False, True, True] and report.thumbnails_kept == 3
    assert refilling.thumbnails_here().tolist() == [images[0].pk, images[2].pk, images[3].pk]


# --- what is refused, and what is saved from damage -----------------------------------------------------


@same_on_both
def test_a_backup_overwrites_nothing_and_says_where_it_cannot_be_written(tmp_path):
    file = back_up(tmp_path)
    kept = file.read_bytes()
    for wrong, said in [
        (file, "is there already"), (tmp_path, "is a folder: name a file in it"),
        (tmp_path / "no" / "b.tar", "is not there: make it"), (Path("/proc/b.tar"), "could not be written"),
    ]:  # fmt: skip
        with pytest.raises(backup.BackupFailed, match=said):
            backup.back_up(wrong)
    assert file.read_bytes() == kept
    with pytest.raises(CommandError, match="is there already"):
        call_command("backup", str(file))


@same_on_both
def test_somebody_else_s_file_that_comes_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    file = tmp_path / "b.tar"
    monkeypatch.setattr(backup, "reach", lambda point: file.write_text("mine") if point == "backup-written" else None)
    with pytest.raises(backup.BackupFailed, match="somebody else"):
        backup.back_up(file)
    assert file.read_text() == "mine" and [path.name for path in tmp_path.glob("*b.tar*")] == ["b.tar"]


@same_on_both
@pytest.mark.parametrize("point", ["backup-in-the-database", "backup-before-vectors"])
def test_a_full_disk_leaves_a_sentence_and_nothing_else(tmp_path, monkeypatch, point):
    curated(tmp_path)

    def full(reached: str) -> None:
        if reached == point:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "reach", full)
    with pytest.raises(backup.BackupFailed, match="no room for the backup"):
        backup.back_up(tmp_path / "b.tar")
    assert not list(tmp_path.glob("*b.tar*"))


@same_on_both
def test_a_full_disk_while_restoring_changes_nothing(tmp_path, monkeypatch):
    _, _images, space = curated(tmp_path)
    file = back_up(tmp_path)
    before = rows_of()

    def full(reached: str) -> None:
        if reached == "restore-laying-out":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(restoring, "reach", full)
    with pytest.raises(restoring.RestoreRefused, match="no room for the restore"):
        restoring.restore(file, replace=True)
    assert rows_of() == before
    assert [path.name for path in get_store(space).file.folder.parent.iterdir() if "restore" in path.name] == []


@same_on_both
def test_what_is_no_backup_is_said_so(tmp_path):
    curated(tmp_path)
    text, other = tmp_path / "text.tar", tmp_path / "other.tar"
    text.write_text("not a tar")
    (tmp_path / "empty.tar").touch()
    with tarfile.open(other, "w") as tar:
        tar.add(text, "about.json")
    before = rows_of()
    for wrong, said in [
        (text, "is no backup"), (other, "is no backup"), (tmp_path / "empty.tar", "is no backup"),
        (tmp_path, "is a folder"), (tmp_path / "none.tar", "There is no file"),
    ]:  # fmt: skip
        with pytest.raises(backup_file.BadArchive, match=said):
            restoring.restore(wrong, replace=True)
    assert rows_of() == before


@same_on_both
def test_a_newer_format_or_an_unknown_column_is_refused_before_anything_is_touched(tmp_path, monkeypatch):
    curated(tmp_path)
    monkeypatch.setattr(backup_file, "FORMAT", 2)
    newer = back_up(tmp_path, "newer.tar")
    monkeypatch.setattr(backup_file, "FORMAT", 1)
    with pytest.raises(backup_file.BadArchive, match="format 2"):
        restoring.restore(newer, replace=True)
    real = tables.columns_of
    monkeypatch.setattr(tables, "columns_of", lambda model: [*real(model), "id"] if model is Image else real(model))
    with monkeypatch.context() as patched:
        patched.setattr(backup.tables, "columns_of", lambda model: real(model))
        file = back_up(tmp_path)
    checked = backup_file.check(file)
    checked.manifest["tables"]["search.image"]["columns"][3] = "flavour"
    with pytest.raises(tables.BadRows, match="'flavour'"):
        restoring._require_known_tables(checked, restoring.RestoreReport("", "", ""))


@same_on_both
def test_a_flipped_bit_anywhere_is_found_and_never_believed(tmp_path):
    """Wherever the bit lies: refused, or (after the database) restored with --partial and computed again."""
    curated(tmp_path)
    file = back_up(tmp_path)
    before = rows_of(HUMAN)
    whole = file.read_bytes()
    places = random.Random(3)
    outcomes = {"refused": 0, "partial": 0, "padding": 0}
    for _ in range(40):
        wrong = bytearray(whole)
        wrong[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        file.write_bytes(wrong)
        try:
            checked = backup_file.check(file)
        except (backup_file.BadArchive, restoring.RestoreRefused):
            outcomes["refused"] += 1
            continue
        outcomes["padding" if checked.whole else "partial"] += 1
    assert outcomes["refused"] and outcomes["padding"]
    offset, _size = backup_file.check(_written(file, whole)).places["spaces/toy/vectors.npy"]
    wrong = bytearray(whole)
    first = min(Embedding.objects.values_list("image_id", flat=True))
    wrong[offset + 128 + first * 64 + 5] ^= 4
    _written(file, bytes(wrong))
    wipe()
    with pytest.raises(restoring.RestoreRefused, match="its vectors are not"):
        restoring.restore(file)
    report = restoring.restore(file, partial=True)
    assert report.dropped == {"toy": 1} and rows_of(HUMAN) == before


def _written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


@same_on_both
def test_a_backup_that_was_cut_off_gives_back_every_decision_when_asked(tmp_path):
    _, _, space = curated(tmp_path)
    file = back_up(tmp_path)
    before, whole = rows_of(HUMAN), file.read_bytes()
    offset, _size = backup_file.check(file).places["spaces/toy/vectors.npy"]
    manifest = backup_file.check(file).places["manifest.json"][0]
    rows = [row[1] for row in Embedding.objects.order_by("image_id").values_list("space_id", "image_id")]
    file.write_bytes(whole[: offset + 128 + (rows[10] * 64) + 30])
    with pytest.raises(restoring.RestoreRefused, match="--partial"):
        restoring.restore(file, replace=True)
    wipe()
    report = restoring.restore(file, partial=True)
    assert rows_of(HUMAN) == before
    assert (report.vectors["toy"], report.dropped["toy"]) == (10, 18)
    assert get_store(space).file.capacity() == rows[10]
    assert all(verdict.ok for verdict in verify(sample=0))
    file.write_bytes(whole[:manifest])
    with pytest.raises(backup_file.BadArchive, match="before the end of its database"):
        restoring.restore(file, replace=True, partial=True)
    assert rows_of(HUMAN) == before


def test_the_same_backup_can_be_restored_twice(tmp_path):
    curated(tmp_path)
    file = back_up(tmp_path, with_thumbnails=True)
    before = rows_of(HUMAN)
    restoring.restore(file, replace=True)
    restoring.restore(file, replace=True)
    assert rows_of(HUMAN) == before and highwater.check() == []


def test_access_is_what_it_was_for_everybody(tmp_path):
    curated(tmp_path)
    make_image(make_source(name="private"), "secret.jpg")
    file = back_up(tmp_path)
    wipe()
    restoring.restore(file)
    ben = get_user_model().objects.get(username="ben")
    assert Image.objects.visible_to(ben).exists()
    assert not Image.objects.visible_to(ben).filter(source__name="private").exists()
    assert SourceAccess.objects.get(user=ben).role == SourceAccess.Role.VIEWER


def test_a_running_server_loads_everything_anew(tmp_path):
    from search.bitmaps import get_library

    _, images, _ = curated(tmp_path)
    file = back_up(tmp_path)
    library = get_library()
    hidden = images[10].pk
    curation.hide([hidden], get_user_model().objects.get(username="anna"))
    assert not get_library().visible(None)[hidden]
    from search import bitmaps

    held = bitmaps._library
    restoring.restore(file, replace=True)
    bitmaps._library = held  # another process, which was not told
    assert get_library() is library and get_library().visible(None)[hidden]


@same_on_both
def test_the_commands_say_what_they_did(tmp_path, capsys):
    curated(tmp_path)
    file = tmp_path / "b.tar"
    call_command("backup", str(file))
    said = capsys.readouterr().out
    assert "30 images with all that was ever done to them, 28 vectors of toy" in said, "not the room in the file"
    call_command("restore", str(file), "--dry-run")
    out = capsys.readouterr().out
    assert "checksums compared" in out and "Nothing was changed (--dry-run)" in out
    call_command("restore", str(file), "--replace", "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["vectors"]["toy"] == 28 and report["rows"]["search.image"] == 30
    with pytest.raises(CommandError, match="accepts OLD=NEW"):
        call_command("restore", str(file), "--map", "photos")


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's backup API")
def test_sqlite_is_copied_while_others_write(tmp_path):
    """A writer commits all the time; what is in the backup is one moment of it."""
    import threading

    stop, written = threading.Event(), [0]

    def write() -> None:
        database = sqlite3.connect(connection.settings_dict["NAME"], timeout=30, isolation_level=None)
        while not stop.is_set():
            number = written[0] + 1
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO search_counter (name, value) VALUES (?, 1)", (f"one {number}",))
            database.execute("INSERT OR REPLACE INTO search_counter (name, value) VALUES ('all', ?)", (number,))
            database.execute("COMMIT")
            written[0] = number
        database.close()

    def wait_for(number: int) -> None:
        while written[0] < number and writer.is_alive():
            stop.wait(0.01)
        assert written[0] >= number

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(5)
        files = []
        for n in range(3):
            files.append(back_up(tmp_path, f"{n}.tar"))
            wait_for(written[0] + 5)
    finally:
        stop.set()
        writer.join()
    seen = []
    for file in files:
        place, size = backup_file.check(file).places["database/search.counter/000000.jsonl.gz"]
        with open(file, "rb") as archived:
            archived.seek(place)
            counters = dict(json.loads(line) for line in backup_file.lines_of(archived.read(size)))
        assert counters["all"] == sum(name.startswith("one ") for name in counters)
        seen.append(counters["all"])
    assert 5 <= seen[0] < seen[1] < seen[2] <= written[0]


# --- the schedule ---------------------------------------------------------------------------------------


@same_on_both
def test_scheduled_backups_are_made_when_due_and_pruned_and_nothing_else_is(tmp_path, settings):
    from ingestion import backup_schedule, tasks

    home, own_key = tmp_path / "backups", settings.SECRET_KEY
    settings.IMAGESEARCH_BACKUPS, settings.IMAGESEARCH_BACKUP_KEEP = home, 2
    assert tasks.back_up_due() == "", "a folder that is away is not made"
    assert not home.exists() and backup_schedule.health().status == "degraded"
    home.mkdir()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert backup_schedule.run(now) and not backup_schedule.run(now + timedelta(hours=23))
    by_hand = back_up(home, "imagesearch-20200101-000000.tar")
    stranger = home / "imagesearch-20200102-000000.tar"
    stranger.write_bytes(b"not ours")
    settings.SECRET_KEY = "another installation that writes into the same folder"
    others = backup_schedule.run(now + timedelta(minutes=1))
    settings.SECRET_KEY = own_key
    made = [backup_schedule.run(now + timedelta(days=day)) for day in range(1, 5)]
    assert sorted(home.iterdir()) == sorted([by_hand, stranger, home / others.name, *made[-2:]])
    assert backup_schedule.health().status == "degraded", "these are of last year"
    assert tasks.back_up_due().startswith(str(home))
    assert backup_schedule.health().status == "ok"
    assert backup_file.check(made[-1]).whole
    settings.IMAGESEARCH_BACKUPS = None
    assert tasks.back_up_due() == "" and backup_schedule.health().status == "ok"
