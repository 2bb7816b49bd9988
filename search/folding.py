"""Text compared without regard to case, in any script, on both databases.

SQLite's own LIKE knows ASCII letters only, and file names from macOS come decomposed (NFD): both sides are
composed and case-folded before they are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import CharField, Expression, Func, Q, TextField, Value
from django.db.models.functions import Concat
from django.db.models.lookups import Contains
from django.db.models.sql import Query
from django.db.models.sql.constants import SINGLE

from search.text import fold

_SQLITE_NAME = "imagesearch_fold"
_AT_ONCE = 200
"""Texts that PostgreSQL is asked to fold in one query: a row has no more than some 1,600 columns."""


class Folded(Func):
    """`search.text.fold` of a text expression, computed by the database, for LIKE to compare with."""

    arity = 1
    output_field = TextField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        # Of ASCII, as most names are, its LIKE regards no case: no call of Python for each of a million.
        is_plain, folded = "LENGTH({0}) = LENGTH(CAST({0} AS BLOB))", f"{_SQLITE_NAME}({{0}})"
        return self._either(compiler, f"CASE WHEN {is_plain} THEN {{0}} ELSE {folded} END")

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        # ICU lower-cases every script whatever the server's locale; the two letters that folding treats
        # differently are replaced by hand. ASCII needs none of it.
        folded = "REPLACE(REPLACE(LOWER(NORMALIZE(({0})::text, NFC) COLLATE \"und-x-icu\"), 'ß', 'ss'), 'ς', 'σ')"
        plain = '(LOWER(({0})::text COLLATE "C")) COLLATE "und-x-icu"'
        is_plain = "OCTET_LENGTH(({0})::text) = LENGTH(({0})::text)"
        return self._either(compiler, f"CASE WHEN {is_plain} THEN {plain} ELSE {folded} END")

    def _either(self, compiler: Any, template: str) -> Any:
        sql, params = compiler.compile(self.get_source_expressions()[0])
        return template.format(sql), [*params] * template.count("{0}")


def contains(text: str | Expression, word: str) -> Q:
    """Condition: the text (a field's name, or an expression that is folded) contains this word, case folded."""
    return Q(Contains(Folded(text) if isinstance(text, str) else text, Value(fold(word))))


def containing(texts: Sequence[str], word: str) -> list[bool]:
    """Of each of these texts whether `contains` holds. One query where the database folds some of them its own way."""
    word = fold(word)
    odd = [text for text in texts if not text.isascii()] if connection.vendor == "postgresql" else []
    folded = dict(zip(odd, _folded_by_database(odd), strict=True))
    return [word in (folded[text] if text in folded else fold(text)) for text in texts]


def _folded_by_database(texts: Sequence[str]) -> list[str]:
    found: list[str] = []
    for start in range(0, len(texts), _AT_ONCE):
        query: Any = Query(None)
        for number, text in enumerate(texts[start : start + _AT_ONCE]):
            query.add_annotation(Folded(Value(text)), f"text{number}")
        found += query.get_compiler(connection=connection).execute_sql(SINGLE)
    return found


def path_text() -> Expression:
    """Folder and file name as one folded text, "/2019/italy/img_12.jpg": what search by name looks through."""
    return Concat(Value("/"), Folded("folder"), Value("/"), Folded("name"), output_field=TextField())


def folder_text() -> Expression:
    """The folder between slashes, folded, "/2019/italy/", so that whole folder names can be matched."""
    return Concat(Value("/"), Folded("folder"), Value("/"), output_field=CharField())


def add_sqlite_function(sender: Any, connection: Any, **_: Any) -> None:
    """Receiver of `connection_created`: makes `fold` known to a new SQLite connection."""
    if connection.vendor == "sqlite":
        connection.connection.create_function(
            _SQLITE_NAME, 1, lambda text: None if text is None else fold(str(text)), deterministic=True
        )
