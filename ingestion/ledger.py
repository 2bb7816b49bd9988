"""The work ledger: with `tally` and `settlement`, the only writer of `Work`, `StageCount` and `StageTick`.

`Work` holds only what is still to be done or has failed; done work has no row. Two rules keep the counters true
for callers: queue the work before (or in the same transaction as, but ahead of) taking a result away, and leave
`Image.read_at` standing.

Locks, in the order in which every transaction takes them: rows of `Image`, the `changes` counter (taken here
by `tally.hold`), rows of `Work`, rows of `StageCount`. On SQLite the one write lock stands for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from django.db import connection, transaction
from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone

from ingestion import presence, tally
from ingestion.models import Work
from ingestion.scope import Scope
from ingestion.tally import EMBED, READ, count_anew, counts, describe_results, prune_ticks, recount
from search.arrays import Ids
from search.faultpoints import reach
from search.models import Image

__all__ = ["EMBED", "READ", "Scope", "count_anew", "counts", "describe_results", "prune_ticks", "recount"]

LEASE_SECONDS = 120
CAUTIOUS_AFTER = 2
"""Deaths in whose hands an image was, after which it is decoded in a killable process."""
GIVE_UP_AFTER = 5
_CHUNK = 2_000
_RANGE = 20_000


@dataclass(frozen=True)
class Claimed:
    """One image in a worker's hands, with the stages it waits for."""

    image_id: int
    stages: tuple[str, ...]
    attempts: int
    """How many earlier claims died over it."""


@dataclass(frozen=True)
class Batch:
    """What one claim gave, newest first."""

    owner: str
    items: tuple[Claimed, ...]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Failure:
    """Why one stage of one image failed; size and mtime_ns as read, None for what the catalogue says."""

    image_id: int
    stage: str
    reason: str
    size: int | None = None
    mtime_ns: int | None = None


# --- putting work in -----------------------------------------------------------------------------------


def queue(image_ids: Iterable[int] | Ids, stages: Sequence[str]) -> None:
    """These stages of these images are to be done (again): attempts, failures and leases start anew.

    A worker that has such an image in its hands will see that its claim no longer stands. Belongs in the
    transaction that makes the work necessary; ids without an Image row are ignored.
    """
    for ids in _chunks(image_ids):
        with transaction.atomic():
            tally.hold()
            for stage in stages:
                rows = Work.objects.filter(stage=stage, image_id__in=ids)
                had = dict(rows.values_list("state").annotate(n=Count("id")))
                results = tally.count_done(stage, ids)
                rows.delete()
                put = _insert(stage, Image.objects.filter(pk__in=ids))
                tally.move(
                    stage,
                    waiting=put - had.get(Work.State.WAITING, 0),
                    failed=-had.get(Work.State.FAILED, 0),
                    done=-results,
                )


def ensure(image_ids: Iterable[int] | Ids, stages: Sequence[str], *, lacking: bool = False) -> None:
    """Like `queue`, but work that already stands in the ledger, waiting or failed, is left as it is.

    With `lacking`, images that have the stage's result are left alone too.
    """
    for ids in _chunks(image_ids):
        with transaction.atomic():
            tally.hold()
            for stage in stages:
                images = Image.objects.filter(~tally.has_row(stage), pk__in=ids)
                if lacking:
                    images = images.filter(~tally.has_result(stage))
                if missing := list(images.values_list("pk", flat=True)):
                    queue(missing, [stage])


def queue_all(stage: str, go_on: Callable[[int], bool] = lambda queued: True) -> int:
    """Queue a stage for every image that could have its result and has not; returns how many.

    Works in id ranges, each a short transaction, so that millions do not hold a lock; stopped anywhere and
    called again it goes on from what is missing. Ends early when `go_on(queued so far)` says so.
    """
    last = Image.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    total = 0
    for start in range(0, last + 1, _RANGE):
        with transaction.atomic():
            tally.hold()
            _look_up_each()
            put = _insert(stage, _lacking(stage).filter(pk__gt=start, pk__lte=start + _RANGE))
            if put:
                tally.move(stage, waiting=put)
        total += put
        reach("queued-a-range")
        if not go_on(total):
            break
    return total


def drop(image_ids: Iterable[int] | Ids, *, waiting_only: bool = False) -> None:
    """These images have nothing left to do (missing, or about to be purged).

    With `waiting_only`, what failed keeps its reason.
    """
    for ids in _chunks(image_ids):
        with transaction.atomic():
            tally.hold()
            rows = Work.objects.filter(image_id__in=ids)
            if waiting_only:
                rows = rows.filter(state=Work.State.WAITING)
            counts: dict[str, dict[str, int]] = {}
            for stage, state, number in rows.values_list("stage", "state").annotate(n=Count("id")):
                counts.setdefault(stage, {})[state] = number
            before = {stage: tally.count_done(stage, ids) for stage in counts}
            rows.delete()
            for stage in sorted(counts):
                tally.move(
                    stage,
                    waiting=-counts[stage].get(Work.State.WAITING, 0),
                    failed=-counts[stage].get(Work.State.FAILED, 0),
                    done=tally.count_done(stage, ids) - before[stage],
                )


@contextmanager
def losing_results(stage: str, image_ids: Iterable[int] | Ids) -> Iterator[None]:
    """The block takes results of this stage away from these images; the counters follow. Inside a transaction."""
    ids = [one for chunk in _chunks(image_ids) for one in chunk]
    tally.hold()
    before = tally.count_done(stage, ids)
    yield
    tally.move(stage, done=tally.count_done(stage, ids) - before)


def let_go(image_ids: Iterable[int] | Ids) -> None:
    """End every claim on these images: whoever has them in hand has them as they were, or where they were.

    Belongs in the transaction that changes what a worker would find; the attempt is not held against them.
    """
    for ids in _chunks(image_ids):
        with transaction.atomic():
            tally.hold()
            Work.objects.filter(image_id__in=ids, attempts__gt=0).exclude(lease_owner="").update(
                lease_owner="", lease_until=None, attempts=F("attempts") - 1
            )


def retry(ids: Iterable[int] | Ids | None = None, *, stage: str | None = None, images: Any = None) -> int:
    """Failed work waits again; returns how many rows. All of it, or that of these ids, stage or image queryset."""
    rows = Work.objects.filter(state=Work.State.FAILED)
    if stage is not None:
        rows = rows.filter(stage=stage)
    if images is not None:
        rows = rows.filter(image__in=images.order_by().values("pk"))
    chosen: Iterable[list[int]] = [] if ids is None else _chunks(ids)
    if ids is None:
        chosen = _pages(rows)
    return sum(_retry(rows, chunk) for chunk in chosen)


def _retry(rows: QuerySet[Work], ids: list[int]) -> int:
    from search import changes
    from search.models import Change

    with transaction.atomic():
        again = rows.filter(image_id__in=ids)
        unread = sorted(set(again.filter(stage=READ).values_list("image_id", flat=True)))
        opened = Image.objects.filter(pk__in=unread, state=Image.State.UNREADABLE)
        changed = list(opened.values_list("pk", flat=True))
        opened.update(state=Image.State.WAITING, reason="")
        tally.hold()
        counts = dict(again.order_by().values_list("stage").annotate(n=Count("id")))
        again.update(
            state=Work.State.WAITING, attempts=0, reason="", size=None, mtime_ns=None, failed_at=None,
            lease_owner="", lease_until=None,
        )  # fmt: skip
        for stage, number in sorted(counts.items()):
            tally.move(stage, waiting=number, failed=-number)
        if changed:
            changes.record(Change.Kind.IMAGES, changed)
    return sum(counts.values())


# --- taking work out -----------------------------------------------------------------------------------


def claim(
    owner: str,
    stages: Sequence[str],
    limit: int,
    *,
    scope: Scope | None = None,
    leading: Sequence[str] | None = None,
    besides: Collection[int] = (),
) -> Batch:
    """Take up to `limit` images, newest first, each with all its waiting stages among `stages`, under a lease.

    Images that another worker has in hand are passed over; `leading` takes only images that wait for one of
    these stages; `besides` names images that this owner still works on from an earlier claim: one that was queued
    anew meanwhile has to wait, else what was made of its old bytes would pass for the new. What died in too many
    hands is failed here.
    """
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:  # claims queue up for an instant, so none sees half of another
                cursor.execute("SELECT pg_advisory_xact_lock(hashtext('imagesearch claim'))")
        now = timezone.now()
        ids = [i for i in _newest(leading or stages, limit, now, scope) if i not in besides]
        rows = Work.objects.filter(image_id__in=ids, state=Work.State.WAITING, stage__in=list(stages))
        free = _lock(rows).values_list("pk", "image_id", "stage", "attempts", "lease_until")
        held = set(Work.objects.filter(image_id__in=ids, lease_until__gte=now).values_list("image_id", flat=True))
        known = dict(rows.order_by().values_list("image_id").annotate(n=Count("id")))
        found: dict[int, list[tuple[int, str, int]]] = {}
        for pk, image_id, stage, attempts, _ in free:
            if image_id not in held:
                found.setdefault(image_id, []).append((pk, stage, attempts))
        whole = {i: parts for i, parts in found.items() if len(parts) == known.get(i)}
        spent = {i: max(p[2] for p in parts) for i, parts in whole.items()}
        lost = [i for i in whole if spent[i] >= GIVE_UP_AFTER]
        taken = [i for i in ids if i in whole and spent[i] < GIVE_UP_AFTER]
        keys = [part[0] for i in taken for part in whole[i]]
        for chunk in _chunks(keys):
            Work.objects.filter(pk__in=chunk).update(
                lease_owner=owner, lease_until=now + timedelta(seconds=LEASE_SECONDS), attempts=F("attempts") + 1
            )
        reach("before-claim-commit")
    reach("after-claim-commit")
    if lost:
        give_up(lost)
    items = tuple(Claimed(i, tuple(part[1] for part in whole[i]), spent[i]) for i in taken)
    return Batch(owner, items)


def give_up(image_ids: Sequence[int]) -> None:
    """Fail all that waits on these images: workers died over them too often."""
    reason = f"Processing this file ended the worker {GIVE_UP_AFTER} times; it is left alone until it changes."
    rows = Work.objects.filter(image_id__in=list(image_ids), state=Work.State.WAITING)
    fail([Failure(i, stage, reason) for i, stage in rows.values_list("image_id", "stage")])


def renew(batch: Batch | str) -> int:
    """Extend every lease of this owner; returns how many rows it still holds."""
    owner = batch if isinstance(batch, str) else batch.owner
    with transaction.atomic():
        keys = list(_lock(Work.objects.filter(lease_owner=owner)).values_list("pk", flat=True))
        until = timezone.now() + timedelta(seconds=LEASE_SECONDS)
        for chunk in _chunks(keys):
            Work.objects.filter(pk__in=chunk).update(lease_until=until)
    return len(keys)


def still_mine(owner: str, stage: str, ids: Ids) -> Ids:
    """Those of the ids whose claim by this owner still stands; inside a transaction they are locked until it ends."""
    if connection.in_atomic_block:
        tally.hold()
    mine: list[int] = []
    for chunk in _chunks(ids):
        rows = Work.objects.filter(lease_owner=owner, stage=stage, state=Work.State.WAITING, image_id__in=chunk)
        if connection.in_atomic_block and connection.features.has_select_for_update:
            rows = rows.select_for_update(of=("self",)).order_by("pk")
        mine.extend(rows.values_list("image_id", flat=True))
    return np.array(sorted(mine), dtype=np.int64)


def holds(owner: str, ids: Iterable[int] | Ids) -> list[int]:
    """Those of the ids of which this owner holds any stage at all; inside a transaction."""
    tally.hold()
    return [
        found
        for chunk in _chunks(ids)
        for found in Work.objects.filter(lease_owner=owner, image_id__in=chunk)
        .order_by("image_id")
        .values_list("image_id", flat=True)
        .distinct()
    ]


def finish(owner: str, stage: str, ids: Iterable[int] | Ids) -> int:
    """The stage's result is recorded in this very transaction: the work is gone, the counters move.

    Ids whose claim no longer stands are left alone; returns how many were finished.
    """
    total = 0
    tally.hold()
    for chunk in _chunks(ids):
        total += Work.objects.filter(lease_owner=owner, stage=stage, image_id__in=chunk).delete()[0]
    if total:
        tally.move(stage, waiting=-total, done=total)
        tally.tick(stage, total)
    return total


def fail(failures: Sequence[Failure], owner: str | None = None) -> int:
    """Record why stages failed; with `owner`, only where its claim still stands. Returns how many did."""
    if not failures:
        return 0
    now = timezone.now()
    failed: dict[str, int] = {}
    with transaction.atomic():
        tally.hold()
        files = {
            pk: (size, mtime)
            for chunk in _chunks([one.image_id for one in failures])
            for pk, size, mtime in Image.objects.filter(pk__in=chunk).values_list("pk", "size", "mtime_ns")
        }
        for one in failures:
            rows = Work.objects.filter(image_id=one.image_id, stage=one.stage, state=Work.State.WAITING)
            if owner is not None:
                rows = rows.filter(lease_owner=owner)
            size, mtime_ns = files.get(one.image_id, (None, None))
            failed[one.stage] = failed.get(one.stage, 0) + rows.update(
                state=Work.State.FAILED, reason=one.reason, failed_at=now, lease_owner="", lease_until=None,
                size=one.size if one.size is not None else size,
                mtime_ns=one.mtime_ns if one.mtime_ns is not None else mtime_ns,
            )  # fmt: skip
        for stage, number in sorted(failed.items()):
            if number:
                tally.move(stage, waiting=-number, failed=number)
    return sum(failed.values())


def release(owner: str, ids: Iterable[int] | Ids | None = None, *, wait_seconds: float = 0) -> int:
    """Hand claimed images back untouched, all of the owner's when no ids are named; returns how many rows.

    The claim is not held against them, except with `wait_seconds`: nobody takes them before that, and the
    attempt counts.
    """
    until = timezone.now() + timedelta(seconds=wait_seconds) if wait_seconds else None
    rows = Work.objects.filter(lease_owner=owner)
    pages = [None] if ids is None else list(_chunks(ids))
    total = 0
    with transaction.atomic():
        tally.hold()
        for page in pages:
            chosen = rows if page is None else rows.filter(image_id__in=page)
            total += chosen.update(
                lease_owner="", lease_until=until, attempts=F("attempts") - 1 if not wait_seconds else F("attempts")
            )
    return total


def release_dead() -> int:
    """Free what dead workers had claimed, at once; returns how many rows.

    Only images that a dead worker had in hand when it died keep the attempt; the rest were merely waiting
    their turn in its batch.
    """
    total = 0
    holders = Work.objects.exclude(lease_owner="").order_by().values_list("lease_owner", flat=True).distinct()
    for owner in holders:
        if not presence.is_dead(owner):
            continue
        blamed = presence.last_in_hand(owner)
        with transaction.atomic():
            tally.hold()
            rows = Work.objects.filter(lease_owner=owner)
            free: dict[str, Any] = {"lease_owner": "", "lease_until": None}
            if blamed is not None:
                total += rows.filter(attempts__gt=0).exclude(image_id__in=blamed).update(
                    **free, attempts=F("attempts") - 1
                )  # fmt: skip
            total += rows.update(**free)
    held = set(holders.all())
    for owner in presence.owners():
        if owner not in held and presence.is_dead(owner):
            presence.bury(owner)
    return total


def claimable(stages: Sequence[str], *, scope: Scope | None = None) -> bool:
    """Whether anything of these stages waits that nobody has in hand."""
    return bool(_newest(stages, 1, timezone.now(), scope))


def waits(stages: Sequence[str], *, scope: Scope | None = None) -> bool:
    """Whether anything of these stages still waits, in whosoever's hands."""
    rows = Work.objects.filter(state=Work.State.WAITING, stage__in=list(stages))
    return (scope.of(rows) if scope else rows).exists()


# --- inside --------------------------------------------------------------------------------------------


def _lock(rows: QuerySet[Work]) -> QuerySet[Work]:
    """Lock rows where the database can, passing over those that somebody else has locked."""
    if not connection.features.has_select_for_update_skip_locked:
        return rows
    return rows.select_for_update(skip_locked=True, of=("self",))


def _newest(stages: Sequence[str], limit: int, now: datetime, scope: Scope | None) -> list[int]:
    """Ids of the newest images with free work; one walk of the index for each stage, merged."""
    heads: dict[int, int] = {}
    for stage in stages:
        rows = Work.objects.filter(Q(lease_until=None) | Q(lease_until__lt=now), state=Work.State.WAITING, stage=stage)
        rows = scope.of(rows) if scope else rows
        heads.update(rows.order_by("-newest", "-image_id").values_list("image_id", "newest")[:limit])
    return sorted(heads, key=lambda i: (heads[i], i), reverse=True)[:limit]


def _chunks(ids: Iterable[int] | Ids) -> Iterator[list[int]]:
    listed = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]


def _pages(rows: QuerySet[Work]) -> Iterator[list[int]]:
    """Image ids of the rows, in pages, with flat memory."""
    last = 0
    ids = rows.order_by("image_id").values_list("image_id", flat=True).distinct()
    while page := list(ids.filter(image_id__gt=last)[:_CHUNK]):
        last = page[-1]
        yield page


def _look_up_each() -> None:
    """Until this transaction ends PostgreSQL looks rows up by their index: what has just grown looks empty to it."""
    ways = ("seqscan", "hashjoin", "mergejoin", "material") if connection.vendor == "postgresql" else ()
    with connection.cursor() as cursor:
        for way in ways:
            cursor.execute(f"SET LOCAL enable_{way} = off")


def _insert(stage: str, images: QuerySet[Image]) -> int:
    """One waiting row for each of these images, by the database itself; returns how many."""
    sql, params = images.order_by().values_list("pk", "mtime_ns").query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {Work._meta.db_table} (image_id, newest, stage, state, attempts, lease_owner, reason) "
            f"SELECT i.*, %s, 'waiting', 0, '', '' FROM ({sql}) i",
            [stage, *params],
        )
        return cursor.rowcount


def _lacking(stage: str) -> QuerySet[Image]:
    """The images that could have the stage's result, have it not, and of which no row says so yet."""
    return Image.objects.filter(~tally.has_result(stage), ~tally.has_row(stage)).exclude(state__in=_NOT_ELIGIBLE)


_NOT_ELIGIBLE = [Image.State.UNREADABLE, Image.State.MISSING]
"""Excluded rather than the others asked for: SQLite then walks a range of ids, not all of a state for every range."""
