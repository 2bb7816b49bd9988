"""Rows by the million into an empty table, column by column, past the ORM: SQLite's executemany, PostgreSQL's COPY."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connection, models, transaction


def put(model: type[models.Model], columns: Mapping[str, Any]) -> None:
    """Insert rows: {field name: a list of as many values as there are rows, or one value for all of them}.

    Fields that are not named get their default; those that fill themselves (`auto_now_add`) have to be named, and
    ids are named or given out by the database. Values are Python's, as the field's own Python values.
    """
    fields = [one for one in model._meta.concrete_fields if one.name in columns or one.attname in columns]
    named = {one.column for one in fields}
    rest = [one for one in model._meta.concrete_fields if one.column not in named and not one.primary_key]
    count = max((len(value) for value in columns.values() if isinstance(value, list)), default=1)
    prepared: list[Sequence[Any]] = []
    for field in [*fields, *rest]:
        value = columns.get(field.name, columns.get(field.attname)) if field.column in named else _default(field)
        prepared.append(_prepared(field, value, count))
    names = [str(one.column) for one in [*fields, *rest]]
    _insert(model._meta.db_table, names, zip(*prepared, strict=True))


@contextmanager
def hurried() -> Iterator[None]:
    """While the rows are made nothing of them needs to survive a loss of power."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous=OFF")
        cursor.execute("PRAGMA cache_size=-1500000")
        heap = cursor.execute("PRAGMA soft_heap_limit").fetchone()[0]  # the process's, not the connection's
        cursor.execute("PRAGMA soft_heap_limit=0")
        cursor.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            cursor.execute(f"PRAGMA soft_heap_limit={heap}")
        connection.close()


def analyse() -> None:
    """What the database's planner goes by."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA optimize=0x10002" if connection.vendor == "sqlite" else "ANALYZE")


def _prepared(field: Any, value: Any, count: int) -> Sequence[Any]:
    if not isinstance(value, list):
        return [field.get_db_prep_save(value, connection)] * count
    known: dict[Any, Any] = {}
    plain = isinstance(field, models.IntegerField | models.ForeignKey | models.FloatField | models.TextField)
    if plain and not hasattr(field, "from_db_value"):
        return value

    def one(item: Any) -> Any:
        key = repr(item) if isinstance(item, list | dict) else item
        if key not in known:
            known[key] = field.get_db_prep_save(item, connection)
        return known[key]

    return [one(item) for item in value]


def _default(field: Any) -> Any:
    value = field.get_default()
    return tuple(value) if isinstance(value, list) else value


def _insert(table: str, names: Sequence[str], rows: Any) -> None:
    listed = ", ".join(f'"{name}"' for name in names)
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            holes = ", ".join(["%s"] * len(names))
            cursor.executemany(f"INSERT INTO {table} ({listed}) VALUES ({holes})", rows)
            return
        with cursor.cursor.copy(f"COPY {table} ({listed}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
