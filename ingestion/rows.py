"""What a crawl writes: each function is one short transaction that moves rows, work and the change log together.

Rows are touched in ascending order of id, images before counters before work, as every writer does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
from django.db import connection
from django.db.models import Exists, OuterRef

from ingestion import ledger, stages
from ingestion.inspection import Finding, What
from ingestion.known import chunks
from ingestion.models import SeenFile, Work
from ingestion.moves import Absent, Arrived
from ingestion.sidecars import images_beside, is_sidecar
from ingestion.spool import Newcomer
from search import changes, highwater
from search.atomically import atomically
from search.embeddings import disbelieve
from search.faultpoints import reach
from search.models import Change, Embedding, EmbeddingSpace, Image, Source, path_digest

T = TypeVar("T")

Touched = tuple[int, int, int]
"""An image's id and its file's size and mtime_ns as they are now."""

PRESENT = (Image.State.WAITING, Image.State.READY, Image.State.UNREADABLE)
_CHUNK = 500
_WHY = {What.TOO_SMALL: SeenFile.Why.TOO_SMALL, What.UNSUPPORTED: SeenFile.Why.UNSUPPORTED}


def register(source: Source, files: Sequence[Newcomer], seen: Sequence[tuple[Newcomer, Finding]]) -> list[int]:
    """Insert these candidates, remember what is none, queue the work; returns the new images' ids."""

    def write() -> list[int]:
        rows = Image.objects.bulk_create([_image(source, file) for file in files])
        ids = [row.pk for row in rows]
        stale = [file.seen_id for file in (*files, *(file for file, _ in seen)) if file.seen_id]
        if stale:
            SeenFile.objects.filter(pk__in=stale).delete()
        SeenFile.objects.bulk_create([_seen(source, file, finding) for file, finding in seen])
        if ids:
            _announce(ids)
            highwater.raise_to("image", max(ids))
            reach("before-register-commit")
        return ids

    return _in_transaction(write)


def mark_changed(files: Sequence[Touched]) -> None:
    """These files differ from what was read: their images wait again, with everything on them.

    Removed images stay removed; what is known of them is brought up to date all the same.
    """

    def write() -> None:
        _update(
            "size = %s, mtime_ns = %s, sha256 = NULL, reason = '', "
            "state = CASE WHEN state = 'removed' THEN state ELSE 'waiting' END",
            [(size, mtime_ns, i) for i, size, mtime_ns in sorted(files)],
        )
        ids = sorted(i for i, _, _ in files)
        ledger.let_go(ids)
        _announce(ids)
        _forget_adopted(ids)
        reach("before-changed-commit")

    _in_transaction(write)


def mark_returned(files: Sequence[Touched]) -> None:
    """The files of these missing images are back and are the ones that were read: ready again, nothing is redone."""

    def write() -> None:
        _update(
            "size = %s, mtime_ns = %s, state = CASE WHEN state = 'missing' THEN 'ready' ELSE state END",
            [(size, mtime_ns, i) for i, size, mtime_ns in sorted(files)],
        )
        _resume([i for i, _, _ in files])

    _in_transaction(write)


def move(source: Source, pairs: Sequence[tuple[Absent, Arrived]]) -> None:
    """These images' files lie elsewhere now: the rows keep their ids and everything on them."""

    def write() -> None:
        ordered = sorted(pairs, key=lambda pair: pair[0].id)
        ids = [image.id for image, _ in ordered]
        lost = Image.objects.filter(pk__in=ids, state=Image.State.MISSING)
        missing = list(lost.values_list("pk", "sha256", "reason"))
        placed = [(arrived.file, _place(arrived.file.path)) for _, arrived in ordered]
        _update(
            "path = %s, path_digest = %s, directory = %s, name = %s, folder = %s, size = %s, mtime_ns = %s",
            [
                (*place, file.size, file.mtime_ns, i)
                for i, (file, place) in zip(ids, placed, strict=True)
            ],
        )  # fmt: skip
        changes.record(Change.Kind.FACTS, ids)
        ledger.let_go(ids)
        stale = [arrived.file.seen_id for _, arrived in ordered if arrived.file.seen_id]
        if stale:
            SeenFile.objects.filter(pk__in=stale).delete()
        if missing:
            read = [i for i, sha256, reason in missing if sha256 and not reason]
            unread = [i for i, sha256, reason in missing if not (sha256 and not reason)]
            Image.objects.filter(pk__in=read).update(state=Image.State.READY)
            Image.objects.filter(pk__in=unread).update(state=Image.State.WAITING, reason="")
            _resume(read)
            if unread:
                _announce(unread)
        _queue_forgotten(ids)
        reach("before-move-commit")

    _in_transaction(write)


def mark_missing(ids: Sequence[int]) -> int:
    """The files of these images are not there: nothing is left to do for them. Returns how many were marked."""

    def write() -> int:
        rows = Image.objects.filter(pk__in=ids, state__in=PRESENT).order_by("pk")
        gone = list(rows.select_for_update(of=("self",), no_key=True).values_list("pk", flat=True))
        Image.objects.filter(pk__in=gone).update(state=Image.State.MISSING)
        if gone:
            ledger.drop(gone)
            changes.record(Change.Kind.IMAGES, gone)
        reach("before-missing-commit")
        return len(gone)

    return _in_transaction(write)


def resume_forgotten(ids: Sequence[int]) -> None:
    """Of these waiting images, those that nothing is queued for are queued (they were restored after a drop)."""

    _in_transaction(lambda: _queue_forgotten(ids))


def read_again(ids: Sequence[int]) -> None:
    """What lies beside these images' files changed: they are read again and lose nothing meanwhile.

    A worker that has one of them in hand may have read it before the change: its claim on that ends.
    """

    def write() -> None:
        present = Image.objects.filter(pk__in=ids, state__in=(Image.State.WAITING, Image.State.READY))
        again = list(present.order_by("pk").values_list("pk", flat=True))
        ledger.queue(again, [ledger.READ])

    _in_transaction(write)


def forget_seen(ids: Sequence[int]) -> list[bytes]:
    """These remembered non-candidates are gone; images whose sidecar is among them are read again.

    Returns their paths.
    """
    gone: dict[int, list[bytes]] = {}
    paths: list[bytes] = []
    for source, path in SeenFile.objects.filter(pk__in=ids).values_list("source", "path"):
        paths.append(path := bytes(path))
        if is_sidecar(path):
            gone.setdefault(source, []).append(path)
    for source, sidecars in gone.items():
        for some in chunks(images_beside(source, sidecars), _CHUNK):
            read_again(some)
    SeenFile.objects.filter(pk__in=ids).delete()
    return paths


def _announce(ids: Sequence[int]) -> None:
    ledger.queue(ids, stages.wanted())
    changes.record(Change.Kind.IMAGES, ids)


def _forget_adopted(ids: Sequence[int]) -> None:
    """Vectors of images that were never read are of the file that was registered: when that changes they are nobody's.

    (Reading tells by the SHA-256 whether those of other images still hold.)
    """
    unread = Embedding.objects.filter(image_id__in=ids, image__read_at=None)
    found: dict[int, list[int]] = {}
    for space, image_id in unread.values_list("space_id", "image_id"):
        found.setdefault(space, []).append(image_id)
    for one in EmbeddingSpace.objects.filter(pk__in=list(found)).order_by("pk"):
        with ledger.losing_results(one.stage, found[one.pk]):
            disbelieve(one, np.array(sorted(found[one.pk]), dtype=np.int64))


def _queue_forgotten(ids: Sequence[int]) -> None:
    waiting = Image.objects.filter(pk__in=ids, state=Image.State.WAITING)
    forgotten = waiting.exclude(Exists(Work.objects.filter(image=OuterRef("pk"))))
    if found := list(forgotten.order_by("pk").values_list("pk", flat=True)):
        ledger.queue(found, stages.wanted())


def _resume(ids: Sequence[int]) -> None:
    """Images that are ready again lack only what was never finished."""
    if ids:
        ledger.ensure(ids, stages.wanted(), lacking=True)
        changes.record(Change.Kind.IMAGES, ids)


def _image(source: Source, file: Newcomer) -> Image:
    path, digest, directory, name, folder = _place(file.path)
    return Image(
        source=source, path=path, path_digest=digest, directory=directory, name=name, folder=folder,
        size=file.size, mtime_ns=file.mtime_ns, shown_at=_moment(file.mtime_ns),
    )  # fmt: skip


def _seen(source: Source, file: Newcomer, finding: Finding) -> SeenFile:
    path, digest, directory, _, _ = _place(file.path)
    return SeenFile(
        source=source, path=path, path_digest=digest, directory=directory, size=file.size, mtime_ns=file.mtime_ns,
        why=_WHY[finding.what], kind=finding.kind,
    )  # fmt: skip


def _place(path: bytes) -> tuple[bytes, bytes, bytes, str, str]:
    """path, path_digest, directory, name and folder of an Image row."""
    folder, name = os.path.split(path)
    return (
        path, path_digest(path), path_digest(folder),
        name.decode("utf-8", "backslashreplace"), folder.decode("utf-8", "backslashreplace"),
    )  # fmt: skip


def _moment(mtime_ns: int) -> datetime:
    """The modification time, as near as years 1 to 9999 allow."""
    seconds, rest = divmod(mtime_ns, 1_000_000_000)
    seconds = max(-62_135_510_400, min(253_402_214_400, seconds))
    return datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=rest // 1000)


def _update(assignments: str, values: Sequence[tuple[int | bytes | str, ...]]) -> None:
    """Update images one by one by id, the last value of each tuple; one prepared statement."""
    with connection.cursor() as cursor:
        cursor.executemany(f"UPDATE {Image._meta.db_table} SET {assignments} WHERE id = %s", values)


def _in_transaction(write: Callable[[], T]) -> T:
    """Run a transaction; where the database chose it to end a deadlock, run it again."""
    return atomically(write)()
