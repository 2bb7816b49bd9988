"""Columns of whole numbers read from the database at once: millions of ids as one value, not as a row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from django.core.exceptions import EmptyResultSet
from django.db import connection

from search.arrays import Ids


def ids_of(rows: Any, column: str = "id") -> Ids:
    """The values of a column of a queryset, (n,) int64, in no order; of images their ids. One query."""
    try:
        sql, params = rows.order_by().values_list(column).query.sql_with_params()
    except EmptyResultSet:
        return np.zeros(0, dtype=np.int64)
    return columns(sql, params, [column])[0]


def columns(sql: str, params: Sequence[Any], names: Sequence[str]) -> list[Ids]:
    """These columns of a SELECT, each (n,) int64: whole numbers without NULL. One query.

    The database puts the numbers together itself: SQLite as text, PostgreSQL as their eight bytes, big end first.
    """
    quoted = [connection.ops.quote_name(name) for name in names]
    if connection.vendor == "postgresql":
        joined = ", ".join(f"string_agg(int8send(q.{name}::bigint), ''::bytea)" for name in quoted)
    else:
        joined = ", ".join(f"group_concat(q.{name})" for name in quoted)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {joined} FROM ({sql}) AS q", params)
        values = cursor.fetchone()
    return [_numbers(value) for value in values]


def grouped(sql: str, params: Sequence[Any], name: str, id: str = "id") -> list[tuple[Any, Ids]]:
    """Each value of the column `name` of a SELECT, and the ids of its rows, (n,) int64, in no order. One query."""
    value, number = connection.ops.quote_name(name), f"q.{connection.ops.quote_name(id)}"
    joined = (
        f"string_agg(int8send({number}::bigint), ''::bytea)"
        if connection.vendor == "postgresql"
        else f"group_concat({number})"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT q.{value}, {joined} FROM ({sql}) AS q GROUP BY q.{value}", params)
        return [(value, _numbers(ids)) for value, ids in cursor.fetchall()]


def _numbers(value: Any) -> Ids:
    if value is None:
        return np.zeros(0, dtype=np.int64)
    if isinstance(value, str):
        return np.fromstring(value, dtype=np.int64, sep=",")
    if isinstance(value, int):  # SQLite, of one row
        return np.array([value], dtype=np.int64)
    return np.frombuffer(value, dtype=">i8").astype(np.int64)
