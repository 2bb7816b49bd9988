"""The database as it stood at one moment, readable while everybody goes on writing."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from django.db import connection, connections, transaction


@contextlib.contextmanager
def snapshot(beside: Path) -> Iterator[str]:
    """Gives the alias of a connection that sees one moment of the database until the block ends.

    SQLite is copied with its backup API to a scratch file at `beside`: a long read of the database itself would
    keep its write-ahead log from being emptied. PostgreSQL answers from one REPEATABLE READ transaction.
    """
    alias = f"snapshot-{secrets.token_hex(4)}"
    own = connection.copy(alias)
    if connection.vendor == "sqlite":
        _copy_sqlite(Path(connection.settings_dict["NAME"]), beside)
        own.settings_dict["NAME"] = str(beside)
    own.ensure_connection()
    connections.databases[alias] = own.settings_dict
    connections[alias] = own
    try:
        with transaction.atomic(using=alias):
            if connection.vendor == "postgresql":
                with connections[alias].cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield alias
    finally:
        own.close()
        del connections[alias]
        del connections.databases[alias]
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{beside}{end}")


def _copy_sqlite(database: Path, beside: Path) -> None:
    # One step for all pages: it takes a read transaction, so writers go on, and what they write is not in it.
    source, target = sqlite3.connect(database, timeout=30), None
    try:
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        target = sqlite3.connect(beside)
        target.execute("PRAGMA synchronous=OFF")
        source.backup(target, pages=-1)
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise OSError(28, "No space left on device", str(beside)) from error
        raise
    finally:
        source.close()
        if target is not None:
            target.close()
