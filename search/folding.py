"""Text compared without regard to case, in any script, on both databases.

SQLite's own LIKE knows ASCII letters only, and file names from macOS come decomposed (NFD): both sides are
composed and case-folded before they are compared.
"""

from __future__ import annotations

from typing import Any

from django.db.models import CharField, Expression, F, Func, Q, TextField, Value
from django.db.models.functions import Concat
from django.db.models.lookups import Contains

from search.text import fold

_SQLITE_NAME = "imagesearch_fold"


class Folded(Func):
    """`search.text.fold` of a text expression, computed by the database."""

    arity = 1
    output_field = TextField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, function=_SQLITE_NAME, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        # ICU lower-cases every script whatever the server's locale; the two letters that folding treats
        # differently are replaced by hand.
        lowered = 'LOWER(NORMALIZE((%(expressions)s)::text, NFC) COLLATE "und-x-icu")'
        template = f"REPLACE(REPLACE({lowered}, 'ß', 'ss'), 'ς', 'σ')"
        return self.as_sql(compiler, connection, template=template, **extra)


def contains(expression: str | Expression, word: str) -> Q:
    """Condition: the text (a field's name or an expression) contains this word, case folded."""
    return Q(Contains(Folded(expression), Value(fold(word))))


def path_text() -> Expression:
    """Folder and file name as one text, "/2019/italy/IMG_12.jpg": what search by name looks through."""
    return Concat(Value("/"), F("folder"), Value("/"), F("name"), output_field=TextField())


def folder_text() -> Expression:
    """The folder between slashes, "/2019/italy/", so that whole folder names can be matched."""
    return Concat(Value("/"), F("folder"), Value("/"), output_field=CharField())


def add_sqlite_function(sender: Any, connection: Any, **_: Any) -> None:
    """Receiver of `connection_created`: makes `fold` known to a new SQLite connection."""
    if connection.vendor == "sqlite":
        connection.connection.create_function(
            _SQLITE_NAME, 1, lambda text: None if text is None else fold(str(text)), deterministic=True
        )
