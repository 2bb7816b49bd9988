"""The change log: what search must notice, numbered so that no late commit is missed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from django.db import connection, transaction
from django.db.models import F

from search.arrays import Ids
from search.compact import pack_ids
from search.models import Change, Counter

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


def move_counter(name: str, by: int) -> int:
    """Add to a named counter inside the caller's transaction and return its new value."""
    if not Counter.objects.filter(name=name).update(value=F("value") + by):
        Counter.objects.bulk_create([Counter(name=name, value=0)], ignore_conflicts=True)
        Counter.objects.filter(name=name).update(value=F("value") + by)
    return Counter.objects.values_list("value", flat=True).get(name=name)


def prune(keep: int = 10_000) -> int:
    """Delete all but the newest `keep` entries; a reader that is further behind loads everything anew."""
    return Change.objects.filter(number__lte=last_number() - keep).delete()[0]
