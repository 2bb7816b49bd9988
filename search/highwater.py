"""Ids are never reused: how high ids have been, kept in the database and beside the vectors.

Row i of an embedding file belongs to image id i for ever. When an old copy of the database is restored beside
newer files, its sequence would give out ids whose rows, thumbnails and addresses belong to other pictures.
So the highest id ever given out is kept twice: in `Counter` (moves in the transaction that inserts) and in
`highwater.json` in the spaces folder (written after the commit, hence never above the sequence). The program
refuses to start while the sequence stands below either.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, models, transaction

from search.errors import SearchError
from search.models import Counter, EmbeddingSpace, Image
from search.vectors import index_folder

PREFIX = "highwater:"
MEND = "manage.py repair --ids"
_BLOCK = 4096

_models: dict[str, type[models.Model]] = {"image": Image}


class UnsoundIds(SearchError):
    """New rows would get ids that were already given out."""


def guard_ids_of(kind: str, model: type[models.Model]) -> None:
    """Keep the mark for another kind of row that vectors are aligned with (called in `AppConfig.ready()`)."""
    _models[kind] = model


def path() -> Path:
    return Path(settings.IMAGESEARCH_SPACES) / "highwater.json"


def raise_to(kind: str, id: int) -> None:
    """Ids of this kind have been given out up to `id`; call it last in the transaction that inserts them.

    Raises TransactionManagementError outside a transaction, LookupError for an unknown kind.
    """
    if kind not in _models:
        raise LookupError(f"No model is known for ids of the kind {kind!r}.")
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("highwater.raise_to() belongs inside the inserting transaction.")
    name = PREFIX + kind
    if not Counter.objects.filter(name=name).exists():
        Counter.objects.bulk_create([Counter(name=name, value=0)], ignore_conflicts=True)
    Counter.objects.filter(name=name, value__lt=id).update(value=id)
    transaction.on_commit(lambda: _raise_file({kind: id}))


def check() -> list[str]:
    """Compare the marks with the database's sequences; one sentence for each thing that is wrong."""
    try:
        kept = _read_file()
    except ValueError:
        return [
            f"{path()} is damaged, so nobody can tell whether ids would be used twice. "
            f"Run `{MEND}`, which writes it anew."
        ]
    counters = _counters()
    sentences = []
    for kind, model in _models.items():
        stands = _sequence(model)
        highest = _highest(model)
        marks = [
            (counters.get(kind, 0), "the database's own mark"),
            (kept.get(kind, 0), str(path())),
            (highest, "the rows that are there"),
        ]
        mark, where = max(marks, key=lambda one: one[0])
        if stands < mark:
            sentences.append(
                f"The database would give the next {kind} the id {stands + 1:,}, but ids up to {mark:,} were already "
                f"given out (says {where}): it is older than the files beside it, and new pictures would take "
                f"over what belongs to others. Run `{MEND}`, which lets ids go on above {mark:,}, or restore the "
                "database that belongs to these files."
            )
    return sentences


def require_sound_ids() -> None:
    """Refuse to go on while ids could be used twice. Raises UnsoundIds; every command that writes calls it."""
    sentences = check()
    if sentences:
        raise UnsoundIds(" ".join(sentences))


def mend() -> list[str]:
    """Set each sequence above every mark, and the marks to the sequence; one sentence for each thing done."""
    try:
        kept = _read_file()
    except ValueError:
        kept, damaged = {}, True
    else:
        damaged = False
    done = [f"{path()} was damaged and is written anew."] if damaged else []
    marks: dict[str, int] = {}
    with transaction.atomic():
        counters = _counters()
        for kind, model in _models.items():
            stands = _sequence(model)
            mark = max(counters.get(kind, 0), kept.get(kind, 0), _highest(model), _highest_vector(kind))
            if stands < mark:
                _set_sequence(model, mark)
                done.append(f"The next {kind} gets the id {mark + 1:,} instead of {stands + 1:,}.")
            if mark > counters.get(kind, 0):
                Counter.objects.update_or_create(name=PREFIX + kind, defaults={"value": mark})
            marks[kind] = mark
    if done:  # the files were ahead of the database: an index beside them would take old vectors for those it knows
        for folder in path().parent.glob("*/"):
            index_folder.forget(folder)
    if damaged:
        path().unlink(missing_ok=True)
    _raise_file({kind: mark for kind, mark in marks.items() if mark})
    return done


def marks() -> dict[str, int]:
    """{kind: the highest id that anything here says was given out}: sequence, both marks, and the rows themselves.

    A damaged file says nothing.
    """
    try:
        kept = _read_file()
    except ValueError:
        kept = {}
    counters = _counters()
    return {
        kind: max(counters.get(kind, 0), kept.get(kind, 0), _highest(model), _sequence(model))
        for kind, model in _models.items()
    }


def stand_above(earlier: dict[str, int]) -> dict[str, int]:
    """For a restore, inside its transaction: let ids go on above these marks as well as above all that is here now.

    Returns the marks, which the caller puts beside the vectors (in `highwater.json`) once the transaction is committed.
    """
    raised = {kind: max(mark, earlier.get(kind, 0)) for kind, mark in marks().items()}
    for kind, mark in raised.items():
        if mark > _sequence(_models[kind]):
            _set_sequence(_models[kind], mark)
        Counter.objects.update_or_create(name=PREFIX + kind, defaults={"value": mark})
    return {kind: mark for kind, mark in raised.items() if mark}


# --- the database ------------------------------------------------------------------------------------


def _counters() -> dict[str, int]:
    rows = Counter.objects.filter(name__startswith=PREFIX).values_list("name", "value")
    return {name.removeprefix(PREFIX): value for name, value in rows}


def _highest(model: type[models.Model]) -> int:
    return model._default_manager.order_by("-pk").values_list("pk", flat=True).first() or 0


def _sequence(model: type[models.Model]) -> int:
    """The last id that the database gave out; 0 when none."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
            row = cursor.fetchone()
            return int(row[0]) if row else 0
        cursor.execute(f"SELECT last_value, is_called FROM {_sequence_name(cursor, table)}")
        value, called = cursor.fetchone()
        return int(value) if called else int(value) - 1


def _set_sequence(model: type[models.Model], value: int) -> None:
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, value])
        else:
            cursor.execute("SELECT setval(%s::regclass, %s)", [_sequence_name(cursor, table), value])


def _sequence_name(cursor: Any, table: str) -> str:
    cursor.execute("SELECT pg_get_serial_sequence(%s, 'id')", [f'"{table}"'])
    return str(cursor.fetchone()[0])


def _highest_vector(kind: str) -> int:
    """The highest id with a vector in any space of this kind, whatever the database believes; 0 for none."""
    import numpy as np

    highest = 0
    for name in EmbeddingSpace.objects.filter(kind=kind).values_list("name", flat=True):
        try:
            rows = np.load(Path(settings.IMAGESEARCH_SPACES) / name / "vectors.npy", mmap_mode="r")
        except (OSError, ValueError):
            continue
        for end in range(len(rows), highest + 1, -_BLOCK):
            start = max(end - _BLOCK, highest + 1)
            written = np.flatnonzero(np.any(rows[start:end], axis=1))
            if len(written):
                highest = start + int(written[-1])
                break
    return highest


# --- the file ----------------------------------------------------------------------------------------


def _read_file() -> dict[str, int]:
    """{kind: mark}; {} without a file. Raises ValueError when it is damaged."""
    try:
        kept = json.loads(path().read_text())
    except FileNotFoundError:
        return {}
    if not isinstance(kept, dict) or not all(type(value) is int and value >= 0 for value in kept.values()):
        raise ValueError("not a mapping of kinds to ids")
    return kept


def _raise_file(marks: dict[str, int]) -> None:
    """Raise the file's marks, never lower them: a new file, flushed, takes the old one's place."""
    with _locked():
        kept = _read_file()
        raised = {**kept, **{kind: mark for kind, mark in marks.items() if mark > kept.get(kind, 0)}}
        if raised == kept:
            return
        fresh = path().with_suffix(".new")
        with open(fresh, "w") as file:
            json.dump(raised, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path())
        folder = os.open(path().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _locked() -> Iterator[None]:
    path().parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path().with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
