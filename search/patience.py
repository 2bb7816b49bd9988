"""How long a write may wait for its turn: what is noted beside a page must not hold the page up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

BRIEF_MS = 250


@contextmanager
def briefly() -> Iterator[None]:
    """Within it, a write on a SQLite file that another process is writing gives up after a quarter of a second.

    It raises OperationalError then, as it does after 30 seconds elsewhere. PostgreSQL's inserts wait for nobody.
    """
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    handle = connection.connection
    before = int(handle.execute("PRAGMA busy_timeout").fetchone()[0])
    handle.execute(f"PRAGMA busy_timeout = {BRIEF_MS}")
    setattr(connection, "in_a_hurry", True)  # noqa: B010 - the backend of imagesearch.sqlite3 knows it
    try:
        yield
    finally:
        setattr(connection, "in_a_hurry", False)  # noqa: B010
        if connection.connection is handle:
            handle.execute(f"PRAGMA busy_timeout = {before}")
