"""Which picture each row of an archive is said to belong to: lists and tables, read one entry at a time.

Every reader yields (row, key); the key is a path as bytes, or an image id. Bytes that are not UTF-8 survive: text
formats are read with surrogateescape, SQLite as it is.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ingestion.errors import BadArchive

Key = bytes | int
Entries = Iterator[tuple[int, Key]]

ROWS = ("row", "idx", "index", "row_index", "vector_row", "vector_id", "embedding_id", "faiss_id", "position")
PATHS = ("path", "file_path", "filepath", "image_path", "file", "filename", "file_name")
IDS = ("image_id", "id")


@dataclass(frozen=True)
class RowMap:
    """A list or table, and how to read it. `entries()` may be called again: it reads the file anew."""

    path: Path
    entries: Callable[[], Entries]
    note: str = ""
    """How it was understood, where that was a guess."""


def lines(path: Path) -> RowMap:
    """A list of paths: line n is row n, from 0. Lines end with a line feed, or with NUL where the file holds one."""
    with _opened(path, "rb") as file:
        head = file.read(1 << 16)
    end = b"\0" if b"\0" in head else b"\n"
    carriage = end == b"\n" and head.split(b"\n", 1)[0].endswith(b"\r")

    def entries() -> Entries:
        with _opened(path, "rb") as file:
            for row, line in enumerate(_split(file, end)):
                name = line.removesuffix(b"\r") if carriage else line
                if name:
                    yield row, name

    return RowMap(path, entries)


def count_lines(path: Path) -> int:
    """Lines (rows) of a list of paths."""
    with _opened(path, "rb") as file:
        head = file.read(1 << 16)
        end = b"\0" if b"\0" in head else b"\n"
        file.seek(0)
        return sum(1 for _ in _split(file, end))


def table(
    path: Path,
    *,
    name: str | None = None,
    row: str | None = None,
    path_column: str | None = None,
    id_column: str | None = None,
) -> RowMap:
    """A CSV with a header, a JSON file or a SQLite database, told by its content; columns by name where given."""
    with _opened(path, "rb") as file:
        head = file.read(4096)
    columns = _Columns(path, row, path_column, id_column)
    if head.startswith(b"SQLite format 3\0"):
        return _sqlite(path, name, columns)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return RowMap(path, lambda: _json(path, columns))
    return _csv(path, columns)


@dataclass(frozen=True)
class _Columns:
    path: Path
    row: str | None
    name: str | None
    id: str | None

    def choose(self, there: Iterable[str]) -> tuple[str, str, bool, str]:
        """(row column, key column, whether the key is a path, how that was guessed). Raises BadArchive."""
        by_fold = {column.casefold().strip(): column for column in there}
        for wanted in (self.row, self.name, self.id):
            if wanted is not None and wanted.casefold() not in by_fold:
                raise BadArchive(f"{self.path} has no column {wanted!r}. Its columns: {', '.join(by_fold.values())}.")

        def first(given: str | None, names: Iterable[str]) -> str | None:
            if given is not None:
                return by_fold[given.casefold()]
            return next((by_fold[name] for name in names if name in by_fold), None)

        key = None if self.id else first(self.name, PATHS)
        is_path = key is not None
        key = key or first(self.id, IDS)
        row, note = first(self.row, ROWS), ""
        if row is None and is_path and "id" in by_fold:
            row = by_fold["id"]
            note = f"{self.path} names no row: its column {row!r} is taken for it. If that counts from 1: --offset -1."
        if row is None or key is None or row == key:
            raise BadArchive(
                f"{self.path} does not say which row is whose: columns {', '.join(by_fold.values()) or 'none'}. It "
                "needs one named row and one named path or id; or name them with --row-column and --path-column or "
                "--id-column."
            )
        return row, key, is_path, note


def _csv(path: Path, columns: _Columns) -> RowMap:
    def opened() -> IO[str]:
        return _opened(path, "r", encoding="utf-8-sig", errors="surrogateescape", newline="")

    with opened() as file:
        row, key, is_path, note = columns.choose(next(csv.reader(file), []))

    def entries() -> Entries:
        with opened() as file:
            reader = csv.DictReader(file)
            try:
                for one in reader:
                    yield _entry(one[row], one[key], is_path, f"line {reader.line_num} of {path}")
            except csv.Error as error:
                raise BadArchive(f"Line {reader.line_num} of {path} cannot be read: {error}.") from None

    return RowMap(path, entries, note)


def _json(path: Path, columns: _Columns) -> Entries:
    """{"path": row}, {"row": "path"}, {"row": id}, ["path of row 0", ...] or [{"row":, "path": or "id":}, ...]."""
    with _opened(path, "rb") as file:
        try:
            found = json.loads(file.read().decode("utf-8-sig", "surrogateescape"))
        except ValueError as error:
            raise BadArchive(f"{path} is no JSON: {error}.") from None
    if isinstance(found, dict) and isinstance(found.get("paths"), list):
        found = found["paths"]
    if isinstance(found, dict):
        for number, (name, value) in enumerate(found.items()):
            where = f"entry {number + 1} of {path}"
            if isinstance(value, str):
                yield _entry(name, value, True, where)
            elif columns.id is not None:
                yield _entry(value, name, False, where)
            else:
                yield _entry(value, name, True, where)
        return
    if not isinstance(found, list):
        raise BadArchive(f"{path} holds neither an object nor a list.")
    chosen: tuple[str, str, bool, str] | None = None
    for number, one in enumerate(found):
        where = f"entry {number + 1} of {path}"
        if isinstance(one, str):
            if one:
                yield number, os.fsencode(one)
        elif isinstance(one, dict):
            chosen = chosen or columns.choose(one)
            row, key, is_path, _ = chosen
            yield _entry(one.get(row), one.get(key), is_path, where)
        elif one is not None:
            raise BadArchive(f"{where[0].upper()}{where[1:]} is neither a path nor an object.")


def _sqlite(path: Path, name: str | None, columns: _Columns) -> RowMap:
    def connect() -> sqlite3.Connection:
        found = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True)
        found.text_factory = bytes
        return found

    try:
        with connect() as database:
            tables = [row[0].decode() for row in database.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            if name is not None and name not in tables:
                raise BadArchive(f"{path} has no table {name!r}. Its tables: {', '.join(tables)}.")
            fitting: list[tuple[str, tuple[str, str, bool, str]]] = []
            refusal: BadArchive | None = None
            for one in [name] if name else tables:
                info = database.execute(f"PRAGMA table_info({_identifier(one)})")
                try:
                    fitting.append((one, columns.choose(row[1].decode() for row in info)))
                except BadArchive as error:
                    refusal = error
        database.close()
    except sqlite3.Error as error:
        raise BadArchive(f"{path} cannot be read as a SQLite database: {error}.") from None
    if len(fitting) > 1:
        certain = [one for one in fitting if not one[1][3]]
        fitting = certain if len(certain) == 1 else fitting
    if len(fitting) != 1:
        listed = ", ".join(tables) or "none"
        if len(tables) == 1 and refusal:
            raise refusal
        raise BadArchive(f"Say with --table which table of {path} it is: {listed}.")
    table_name, (row, key, is_path, note) = fitting[0]
    statement = f"SELECT {_identifier(row)}, {_identifier(key)} FROM {_identifier(table_name)}"

    def entries() -> Entries:
        database = connect()
        try:
            for number, (one, what) in enumerate(database.execute(statement)):
                yield _entry(one, what, is_path, f"entry {number + 1} of {table_name} in {path}")
        finally:
            database.close()

    return RowMap(path, entries, note)


def _entry(row: Any, key: Any, is_path: bool, where: str) -> tuple[int, Key]:
    try:
        number = int(row)
        return number, (key if isinstance(key, bytes) else os.fsencode(key)) if is_path else int(key)
    except (TypeError, ValueError):
        said = f"{row!r} and {key!r}"[:200]
        raise BadArchive(
            f"A row number and a {'path' if is_path else 'number'} belong in {where}, not {said}."
        ) from None


def _split(file: IO[bytes], end: bytes) -> Iterator[bytes]:
    if end == b"\n":
        for line in file:
            yield line.removesuffix(b"\n")
        return
    rest = b""
    while block := file.read(1 << 20):
        *whole, rest = (rest + block).split(end)
        yield from whole
    if rest:
        yield rest


def _opened(path: Path, mode: str, **options: Any) -> Any:
    try:
        return open(path, mode, **options)
    except OSError as error:
        raise BadArchive(f"{path} cannot be opened: {error.strerror or error}.") from None


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path.resolve()))
