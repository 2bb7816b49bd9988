"""SQLite in which nobody who wants to write waits for ever.

SQLite itself has no queue: who finds the file locked looks again after a while, and whoever writes one transaction
after the other (a crawl, a worker) takes the lock anew before the sleepers look. With enough of them a person's click
waits until its time is over: "database is locked". Here a writer first takes the turn, a lock beside the database
that is held only until the transaction has begun: who has just written has to stand in line behind who waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.sqlite3 import base

LONGEST = 30.0
"""Seconds to wait for the turn, as for the database itself; then without it."""
_PAUSES = (0.001, 0.002, 0.004, 0.008)
_PAUSE = 0.015


class DatabaseWrapper(base.DatabaseWrapper):
    """See the module's text; copies of the database have no line.

    `in_a_hurry` is set where a write shall rather fail than wait: it takes no turn.
    """

    in_a_hurry = False

    def _start_transaction_under_autocommit(self) -> None:
        if self.in_a_hurry or self.alias != DEFAULT_DB_ALIAS or self.is_in_memory_db():
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
            return
        with _turn(f"{self.settings_dict['NAME']}-turn"):
            super()._start_transaction_under_autocommit()  # type: ignore[misc]


@contextlib.contextmanager
def _turn(path: str) -> Iterator[None]:
    handle = None
    with contextlib.suppress(OSError):  # a folder that cannot be written: SQLite says so in its own words
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if handle is not None:
            _wait(handle)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _wait(handle: int) -> None:
    end: float | None = None
    tries = 0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            now = time.monotonic()
            end = now + LONGEST if end is None else end
            if now > end:
                return
            time.sleep(_PAUSES[tries] if tries < len(_PAUSES) else _PAUSE)
            tries += 1


def __getattr__(name: str) -> Any:
    """Everything else as Django's module has it."""
    return getattr(base, name)
