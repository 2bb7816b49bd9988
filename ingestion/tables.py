"""The database's rows as lines of JSON, and back: the same for SQLite and PostgreSQL.

Django's own serializers cut times to milliseconds and would run through `save()` for each row; here every column's
value is kept exactly, and rows go in as they were, ids and times included.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.apps import apps
from django.core.management.color import no_style
from django.db import DatabaseError, connection, models
from django.utils.dateparse import parse_duration
from django.utils.duration import duration_iso_string

from ingestion.errors import IngestionError

LEFT_OUT = {
    "sessions": "people sign in again",
    "django_q": "the queue; schedules are made anew",
    "search.upload": "pictures someone searched with; gone after a day anyway",
    "search.change": "the change log: every reader loads anew after a restore",
    "ingestion.stagetick": "the pace of the last minutes",
    "ingestion.watch": "what the watcher says of the sources just now",
}
"""{app or app.model: why a backup does without it}"""
CHUNK = 5_000
_UNFIT = "\ufffd"

Row = list[Any]


class BadRows(IngestionError):
    """Rows that do not fit this program's tables; the message says which."""


def all_models() -> dict[str, type[models.Model]]:
    """{label: model} of every table that Django made, the links of many-to-many fields among them."""
    found = apps.get_models(include_auto_created=True)
    return {model._meta.label_lower: model for model in found if model._meta.managed and not model._meta.proxy}


def kept_models() -> dict[str, type[models.Model]]:
    """Those of `all_models()` that a backup holds."""
    return {
        label: model
        for label, model in all_models().items()
        if label not in LEFT_OUT and model._meta.app_label not in LEFT_OUT
    }


def columns_of(model: type[models.Model]) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields]


def lines_of(model: type[models.Model], *, using: str) -> Iterator[list[bytes]]:
    """All rows in the order of their ids, as lists of at most `CHUNK` lines of JSON (arrays in the columns' order)."""
    fields = model._meta.concrete_fields
    writers = [_writer(field) for field in fields]
    rows = model._base_manager.using(using).order_by("pk").values_list(*columns_of(model))
    chunk: list[bytes] = []
    for row in rows.iterator(chunk_size=CHUNK):
        values = [value if write is None or value is None else write(value) for write, value in zip(writers, row)]  # noqa: B905
        chunk.append(json.dumps(values, separators=(",", ":")).encode() + b"\n")
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class Table:
    """One table being filled again: reads lines of these columns and inserts the rows as they were.

    Columns that this version has and the backup has not get their default. Raises BadRows for columns that this
    version does not know.
    """

    def __init__(self, model: type[models.Model], columns: Sequence[str]) -> None:
        self.model, self.columns = model, list(columns)
        self.cut = 0
        """Texts that PostgreSQL cannot take as they were: with a NUL in them, or longer than their column."""
        fields = {field.attname: field for field in model._meta.concrete_fields}
        unknown = [name for name in columns if name not in fields]
        if unknown:
            raise BadRows(
                f"The backup was made by another version of the program: its table {model._meta.label} has the "
                f"column {unknown[0]!r}, which this version does not know. Restore it with the version that made it."
            )
        self._fields = [fields[name] for name in columns]
        self._readers = [_reader(field) for field in self._fields]
        self._added = [field for name, field in fields.items() if name not in columns]
        for field in self._added:
            if not (field.has_default() or field.null or field.empty_strings_allowed):
                raise BadRows(
                    f"The backup was made by another version of the program: it has no {field.attname!r} for the table "
                    f"{model._meta.label}. Restore it with the version that made it, then upgrade."
                )
        quote = connection.ops.quote_name
        names = ", ".join(quote(str(field.column)) for field in [*self._fields, *self._added])
        places = ", ".join(["%s"] * (len(self._fields) + len(self._added)))
        self._insert = f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({places})"

    def place(self, column: str) -> int | None:
        """Where a column's value stands in a row; None when the backup has no such column."""
        return self.columns.index(column) if column in self.columns else None

    def read(self, lines: Iterable[bytes]) -> list[Row]:
        """Lines of JSON -> rows of Python values. Raises BadRows for what is no such line."""
        rows = []
        for line in lines:
            try:
                values = json.loads(line)
                if len(values) != len(self._readers):
                    raise ValueError("another number of values than columns")
                rows.append(
                    [
                        value if read is None or value is None else read(value)
                        for read, value in zip(self._readers, values, strict=True)
                    ]
                )
            except (ValueError, TypeError, ArithmeticError) as error:
                raise BadRows(f"A row of {self.model._meta.label} in the backup cannot be read: {error}.") from None
        return rows

    def insert(self, rows: Sequence[Row]) -> None:
        """Insert these rows inside the caller's transaction. Raises BadRows when the database refuses them."""
        if not rows:
            return
        prepared = [
            [
                *(self._prepared(field, value) for field, value in zip(self._fields, row, strict=True)),
                *(self._prepared(field, field.get_default()) for field in self._added),
            ]
            for row in rows
        ]
        try:
            with connection.cursor() as cursor:
                cursor.executemany(self._insert, prepared)
        except DatabaseError as error:
            first = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise BadRows(
                f"The database does not take the rows of {self.model._meta.label} ({first}). Nothing was changed."
            ) from error

    def _prepared(self, field: models.Field[Any, Any], value: Any) -> Any:
        if connection.vendor == "postgresql":
            value = self._fit(field, value)
        if value is None and not field.null and isinstance(field, models.JSONField):
            return connection.ops.adapt_json_value(None, field.encoder)
        return field.get_db_prep_save(value, connection)

    def _fit(self, field: models.Field[Any, Any], value: Any) -> Any:
        """SQLite takes any text; PostgreSQL no NUL, and none longer than its column."""
        if isinstance(value, str):
            longest = field.max_length if isinstance(field, models.CharField) else None
            if "\0" in value or (longest and len(value) > longest):
                self.cut += 1
                value = value.replace("\0", _UNFIT)[:longest]
        elif isinstance(value, dict | list):
            fitting = _without_nul(value)
            self.cut += fitting != value
            value = fitting
        return value


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", _UNFIT)
    if isinstance(value, list):
        return [_without_nul(one) for one in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(one) for key, one in value.items()}
    return value


def empty(labels: Iterable[str]) -> None:
    """Delete every row of these tables inside the caller's transaction; the numbering of ids goes on."""
    tables = [connection.ops.quote_name(all_models()[label]._meta.db_table) for label in labels]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # DELETE would queue a check of foreign keys for every row
            cursor.execute(f"TRUNCATE {', '.join(tables)}")
            return
        for table in tables:
            cursor.execute(f"DELETE FROM {table}")


def raise_sequences(labels: Iterable[str]) -> None:
    """Let the numbering of ids go on above the rows that are there; it is never set back. For after the inserts."""
    if connection.vendor != "postgresql":  # SQLite's AUTOINCREMENT follows by itself
        return
    with connection.cursor() as cursor:
        for label in labels:
            model = all_models()[label]
            if not connection.ops.sequence_reset_sql(no_style(), [model]):
                continue
            table, key = model._meta.db_table, str(model._meta.pk.column)
            cursor.execute("SELECT pg_get_serial_sequence(%s, %s)", [f'"{table}"', key])
            sequence = cursor.fetchone()[0]
            if sequence is None:
                continue
            quoted = connection.ops.quote_name(table), connection.ops.quote_name(key)
            cursor.execute(
                f"SELECT setval(%s::regclass, GREATEST((SELECT MAX({quoted[1]}) FROM {quoted[0]}), last_value)) "
                f"FROM {sequence} WHERE EXISTS (SELECT 1 FROM {quoted[0]})",
                [sequence],
            )


def _kind(field: models.Field[Any, Any]) -> str:
    while field.remote_field is not None and isinstance(field, models.ForeignKey):
        field = field.target_field
    return field.get_internal_type()


def _writer(field: models.Field[Any, Any]) -> Callable[[Any], Any] | None:
    return _WRITERS.get(_kind(field))


def _reader(field: models.Field[Any, Any]) -> Callable[[Any], Any] | None:
    return _READERS.get(_kind(field))


_WRITERS: dict[str, Callable[[Any], Any]] = {
    "BinaryField": lambda value: base64.b64encode(bytes(value)).decode(),
    "DateTimeField": datetime.isoformat,
    "DateField": date.isoformat,
    "TimeField": time.isoformat,
    "DecimalField": str,
    "DurationField": duration_iso_string,
    "UUIDField": str,
    "GenericIPAddressField": str,
    "FileField": str,
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "BinaryField": lambda value: base64.b64decode(value, validate=True),
    "DateTimeField": datetime.fromisoformat,
    "DateField": date.fromisoformat,
    "TimeField": time.fromisoformat,
    "DecimalField": Decimal,
    "DurationField": parse_duration,
    "UUIDField": UUID,
}
