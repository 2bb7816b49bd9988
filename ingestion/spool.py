"""What a crawl must remember until its end, on disk, so that memory stays flat: a private SQLite file.

SQLite makes it in the system's folder for temporary files and removes it by itself, also after a crash.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple


class Newcomer(NamedTuple):
    """A file without an Image row. `path` is relative to the root."""

    path: bytes
    size: int
    mtime_ns: int
    seen_id: int = 0
    """The SeenFile row that knew this path with another size or mtime; 0 when none did."""


class Spool:
    """Newcomers that may be moved files, rows whose file was not found, seen files that are gone."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
            CREATE TABLE newcomer (path BLOB, size INTEGER, mtime_ns INTEGER, seen_id INTEGER);
            CREATE TABLE absent (id INTEGER PRIMARY KEY, size INTEGER, present INTEGER);
            CREATE TABLE gone (id INTEGER PRIMARY KEY);
            CREATE INDEX absent_by_size ON absent (size);
            BEGIN;
            """
        )

    def close(self) -> None:
        self._db.close()

    # --- filling it

    def add_newcomers(self, files: Iterable[Newcomer]) -> None:
        self._db.executemany("INSERT INTO newcomer VALUES (?, ?, ?, ?)", files)

    def add_absent(self, rows: Iterable[tuple[int, int, bool]]) -> None:
        """Rows not found: id, size, and whether they counted as there before (not missing, not removed)."""
        self._db.executemany("INSERT OR IGNORE INTO absent VALUES (?, ?, ?)", rows)

    def add_gone(self, ids: Iterable[int]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO gone VALUES (?)", ((i,) for i in ids))

    def found_after_all(self, ids: Iterable[int]) -> None:
        """These rows' files were moved: they are not absent."""
        self._db.executemany("DELETE FROM absent WHERE id = ?", ((i,) for i in ids))

    # --- asking it

    def newcomers(self) -> Iterator[list[Newcomer]]:
        """All of them, in chunks."""
        return self._newcomers("SELECT path, size, mtime_ns, seen_id FROM newcomer")

    def newcomers_of_no_absent_size(self) -> Iterator[list[Newcomer]]:
        return self._newcomers(
            "SELECT path, size, mtime_ns, seen_id FROM newcomer WHERE size NOT IN (SELECT size FROM absent)"
        )

    def shared_sizes(self) -> list[int]:
        """Sizes that both newcomers and absent rows have, ascending."""
        rows = self._db.execute("SELECT DISTINCT size FROM newcomer WHERE size IN (SELECT size FROM absent) ORDER BY 1")
        return [size for (size,) in rows]

    def newcomers_of(self, sizes: Sequence[int]) -> list[Newcomer]:
        marks = ",".join("?" * len(sizes))
        rows = self._db.execute(
            f"SELECT path, size, mtime_ns, seen_id FROM newcomer WHERE size IN ({marks}) ORDER BY size, path",
            list(sizes),
        )
        return [Newcomer(*row) for row in rows]

    def absent_of(self, sizes: Sequence[int]) -> list[int]:
        marks = ",".join("?" * len(sizes))
        rows = self._db.execute(f"SELECT id FROM absent WHERE size IN ({marks}) ORDER BY id", list(sizes))
        return [i for (i,) in rows]

    def count_absent(self) -> int:
        """How many rows that counted as there were not found."""
        return int(self._db.execute("SELECT COUNT(*) FROM absent WHERE present").fetchone()[0])

    def absent(self) -> Iterator[list[int]]:
        """Ids of the rows that counted as there and were not found, ascending, in chunks."""
        return self._ids("SELECT id FROM absent WHERE present ORDER BY id")

    def gone(self) -> Iterator[list[int]]:
        return self._ids("SELECT id FROM gone ORDER BY id")

    def _ids(self, query: str) -> Iterator[list[int]]:
        rows = self._db.execute(query)
        while chunk := list(islice(rows, 500)):
            yield [i for (i,) in chunk]

    def _newcomers(self, query: str) -> Iterator[list[Newcomer]]:
        rows = self._db.execute(query)
        while chunk := list(islice(rows, 500)):
            yield [Newcomer(*row) for row in chunk]
