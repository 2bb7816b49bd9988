"""The review queues: what waits for a person to look at it, with a counter and a door each.

`register_queue` is how a room adds one of its own (in `AppConfig.ready()`): the overview at `/review/`, the command
line and the admin show every registered queue. Registering under a name that is taken replaces what was there, so
`ready()` may run twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

_NAME = re.compile(r"[a-z]+(-[a-z]+)*")
MOST = 1_000
"""Counters count up to here; beyond it they say "1,000+", so that no page counts a million rows."""


@dataclass(frozen=True)
class Tally:
    """How many wait; with `capped` there are more than `number`."""

    number: int
    capped: bool = False

    def __str__(self) -> str:
        return f"{self.number:,}+" if self.capped else f"{self.number:,}"

    def __bool__(self) -> bool:
        return self.number > 0


@dataclass(frozen=True)
class Queue:
    """One review queue."""

    name: str
    """Lower-case letters and hyphens: what addresses and the command line call it."""
    label: str
    """Its name for people: "Blurred"."""
    help: str
    """One sentence: what lies in it, and what to do with it."""
    counter: Callable[[Any], Tally]
    """How many wait for this user (None: the command line, all). Quick at a million images: see `tally`."""
    url: Callable[[], str]
    """The address of its page (a callable, because addresses are not known yet when it is registered)."""
    order: int = 100
    """Where it stands in the overview; lower comes first."""
    grid: Callable[[], str] | None = None
    """The address where all that waits is shown at once, to select from."""


_queues: dict[str, Queue] = {}


def register_queue(queue: Queue) -> None:
    """Add a queue. Raises ValueError for a name that cannot stand in an address."""
    if not _NAME.fullmatch(queue.name):
        raise ValueError(f"{queue.name!r} cannot be a queue's name: lower-case letters and hyphens.")
    _queues[queue.name] = queue


def all_queues() -> list[Queue]:
    """Every queue, by its `order`, then in the order of registration."""
    return sorted(_queues.values(), key=lambda one: one.order)


def queue_named(name: str) -> Queue | None:
    """The queue of this name; None when there is none."""
    return _queues.get(name)


def tally(rows: QuerySet[Any], most: int = MOST) -> Tally:
    """How many rows there are, counted no further than `most`: one query, which stops there."""
    found = rows.order_by()[: most + 1].count()
    return Tally(min(found, most), capped=found > most)


def tally_of(number: int, most: int = MOST) -> Tally:
    """A number that is known anyway, said as the other counters say theirs."""
    return Tally(min(number, most), capped=number > most)
