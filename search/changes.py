"""The change log: what search must notice, numbered so that no late commit is missed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import post_delete, post_save

from search.arrays import Ids
from search.compact import pack_ids, unpack_ids
from search.models import Album, AlbumShare, Change, Counter, Source, Tag

COUNTER = "changes"


def record(kind: Change.Kind, ids: Iterable[int] | Ids = (), *, space: int | None = None) -> int:
    """Write one entry of the log inside the caller's transaction and return its number.

    The counter's row stays locked until the transaction ends, so numbers become visible in order and
    without gaps (a rolled back transaction gives its number back). Raises TransactionManagementError
    outside a transaction.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("changes.record() belongs inside the writing transaction.")
    number = move_counter(COUNTER, 1)
    packed = pack_ids(np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), dtype=np.int64))
    Change.objects.create(number=number, kind=kind, space=space, ids=packed)
    return number


def last_number() -> int:
    """The newest number that is committed; 0 when nothing was ever recorded."""
    return Counter.objects.filter(name=COUNTER).values_list("value", flat=True).first() or 0


def changed_images(after: int, upto: int, *, most_entries: int, most_changed: int) -> Ids | None:
    """Ids, ascending, of the images that the entries after one number, up to another, speak of. One query.

    None when that is more than asked for, or cannot be told: the log was pruned, or an entry speaks of any image.
    """
    if upto - after > most_entries:
        return None
    log = Change.objects.filter(number__gt=after, number__lte=upto)
    entries = list(log.values_list("kind", "ids"))
    parts = [unpack_ids(packed) for kind, packed in entries if kind in (Change.Kind.IMAGES, Change.Kind.FACTS)]
    if len(entries) < upto - after or any(not len(part) for part in parts):
        return None
    changed = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))
    return changed if len(changed) <= most_changed else None


def move_counter(name: str, by: int) -> int:
    """Add to a named counter inside the caller's transaction and return its new value."""
    if not Counter.objects.filter(name=name).update(value=F("value") + by):
        Counter.objects.bulk_create([Counter(name=name, value=0)], ignore_conflicts=True)
        Counter.objects.filter(name=name).update(value=F("value") + by)
    return Counter.objects.values_list("value", flat=True).get(name=name)


def note_changes_of_names() -> None:
    """Let what is called otherwise take a number too, wherever it is saved: tags, albums, whom these are shared with,
    sources; and the end of an account, with which all goes that was that person's."""
    for model in (Tag, Album, AlbumShare, Source):
        post_save.connect(_saved, sender=model, dispatch_uid="search.changes")
    post_delete.connect(_account_ended, sender=get_user_model(), dispatch_uid="search.changes")


def _saved(sender: Any, update_fields: Any = None, **kwargs: Any) -> None:
    if sender is Source and update_fields is not None and "name" not in update_fields:
        return
    kinds = {Tag: Change.Kind.TAGS, Source: Change.Kind.ACCESS}
    with transaction.atomic():
        record(kinds.get(sender, Change.Kind.ALBUMS))


def _account_ended(**kwargs: Any) -> None:
    with transaction.atomic():
        record(Change.Kind.FACTS)


def prune(keep: int = 10_000) -> int:
    """Delete all but the newest `keep` entries; a reader that is further behind loads everything anew."""
    return Change.objects.filter(number__lte=last_number() - keep).delete()[0]
