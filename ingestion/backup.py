"""Backups: the database first, as it stood at one moment, then the vectors, while everybody goes on working.

A vector that is written between the two is not the one whose checksum the database holds: the restore drops such a
row and queues its work. So nobody has to wait for a backup, and none can hold a wrong row.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import django
from django.conf import settings
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.utils.crypto import salted_hmac

from ingestion import backup_file, tables
from ingestion.errors import IngestionError
from ingestion.snapshot import snapshot
from search import thumbnails
from search.faultpoints import reach
from search.models import Embedding, EmbeddingSpace, Image, Source
from search.vectors.embedding_file import HEADER_BYTES, parse_header
from search.wording import counted

Tell = Callable[[str], None]
_PART = ".part"


class BackupFailed(IngestionError):
    """The backup could not be made; nothing was left behind, and the message says what mends it."""


@dataclass
class BackupReport:
    """What was written."""

    file: str
    bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    """{table: rows}"""
    spaces: dict[str, int] = field(default_factory=dict)
    """{space: vectors that the database knew when the backup began}"""
    thumbnails: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def images(self) -> int:
        return self.rows.get("search.image", 0)


def back_up(
    file: Path, *, with_thumbnails: bool = False, scheduled: bool = False, tell: Tell = lambda sentence: None
) -> BackupReport:
    """Write a backup to a file that is not there yet; it appears under its name only when it is whole and on disk.

    Raises BackupFailed: the file is there, its folder is not, the disk is full.
    """
    file = Path(os.path.abspath(file.expanduser()))
    _require_free(file)
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}{_PART}")
    try:
        _sweep(file.parent)
        with _exclusive(part) as out:
            report = _write(out, file, part, with_thumbnails=with_thumbnails, scheduled=scheduled, tell=tell)
            out.flush()
            os.fsync(out.fileno())
            report.bytes = os.fstat(out.fileno()).st_size
            reach("backup-written")
            _name(part, file)
        reach("backup-named")
    except OSError as error:
        raise BackupFailed(_sentence(error, file)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return report


def _require_free(file: Path) -> None:
    if file.is_dir():
        raise BackupFailed(
            f"{file} is a folder: name a file in it, such as {file / f'imagesearch-{datetime.now():%Y-%m-%d}.tar'}."
        )
    if os.path.lexists(file):
        raise BackupFailed(f"{file} is there already; a backup overwrites nothing. Choose another name.")
    if not file.parent.is_dir():
        raise BackupFailed(
            f"The folder {file.parent} is not there: make it, or mount its disk, or choose another place."
        )


def _sentence(error: OSError, file: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"There is no room for the backup in {file.parent}: make room, or choose another disk. Nothing was left."
    if isinstance(error, FileExistsError):
        return f"{file} was made by somebody else meanwhile; a backup overwrites nothing. Choose another name."
    return f"The backup {file} could not be written ({error.strerror or error}). Nothing was left of it."


@contextlib.contextmanager
def _exclusive(part: Path) -> Iterator[IO[bytes]]:
    """The unfinished file, readable for its owner alone, locked for as long as somebody writes it."""
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w+b") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        yield out


def _sweep(folder: Path) -> None:
    """Remove what killed backups left in this folder."""
    for left in folder.glob(f".*{_PART}"):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for end in ("", ".sqlite3", ".sqlite3-wal", ".sqlite3-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{left}{end}")
            finally:
                os.close(handle)


def _name(part: Path, file: Path) -> None:
    """Give the finished file its name, over nothing that came meanwhile, and make the name durable."""
    try:
        os.link(part, file)
    except FileExistsError:
        raise
    except OSError:  # no hard links here (FAT, some network shares)
        if os.path.lexists(file):
            raise FileExistsError(errno.EEXIST, "File exists", str(file)) from None
        os.rename(part, file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network shares cannot flush a folder
            os.fsync(folder)
    finally:
        os.close(folder)


def _write(
    out: IO[bytes], file: Path, part: Path, *, with_thumbnails: bool, scheduled: bool, tell: Tell
) -> BackupReport:
    writer, report = backup_file.Writer(out), BackupReport(str(file))
    about = {
        "program": backup_file.PROGRAM,
        "format": backup_file.FORMAT,
        "what": "A backup of an image search. docs/backup.md explains it; `manage.py restore FILE` brings it back.",
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "scheduled": scheduled,
        "installation": installation(),
        "host": socket.gethostname(),
        "data": str(settings.IMAGESEARCH_DATA),
    }
    writer.add_json(backup_file.ABOUT, about)
    tell("Looking at the database as it stands now")
    with snapshot(part.with_name(part.name + ".sqlite3")) as alias:
        reach("backup-snapshot")
        described = _write_tables(writer, alias, report, tell)
        spaces = list(EmbeddingSpace.objects.using(alias).order_by("pk"))
        embedded = {space.pk: Embedding.objects.using(alias).filter(space=space.pk).count() for space in spaces}
        sources = Source.objects.using(alias).order_by("name")
        manifest = {
            "created_at": about["created_at"],
            "vendor": connection.vendor,
            "django": django.get_version(),
            "migrations": sorted(
                f"{app}.{name}" for app, name in MigrationRecorder(connections[alias]).applied_migrations()
            ),
            "tables": described,
            "spaces": [{"name": space.name, "kind": space.kind, "dim": space.dim} for space in spaces],
            "sources": [{"name": source.name, "root": source.root_text} for source in sources],
            "members": writer.turn_page(),
        }
        writer.add_json(backup_file.MANIFEST, manifest)
        reach("backup-database-written")
        for space in spaces:
            _write_space(writer, space, embedded[space.pk], report, tell)
        if with_thumbnails:
            tell("Thumbnails")
            _write_thumbnails(writer, alias)
    report.thumbnails = writer.thumbnails
    writer.end()
    return report


def installation() -> str:
    """Whose backups are whose, for pruning: it follows from the secret key, also where host names come and go."""
    return salted_hmac("imagesearch.backup", "installation").hexdigest()[:16]


def _write_tables(writer: backup_file.Writer, alias: str, report: BackupReport, tell: Tell) -> dict[str, Any]:
    described = {}
    for label, model in tables.kept_models().items():
        tell(f"Table {label}")
        names, rows = [], 0
        for number, lines in enumerate(tables.lines_of(model, using=alias)):
            names.append(f"database/{label}/{number:06d}.jsonl.gz")
            writer.add_lines(names[-1], lines)
            rows += len(lines)
            reach("backup-in-the-database")
        described[label] = {"columns": tables.columns_of(model), "rows": rows, "members": names}
        report.rows[label] = rows
    return described


def _write_space(
    writer: backup_file.Writer, space: EmbeddingSpace, embedded: int, report: BackupReport, tell: Tell
) -> None:
    folder = Path(settings.IMAGESEARCH_SPACES) / space.name
    with contextlib.suppress(FileNotFoundError):
        said = (folder / "space.json").read_bytes()
        json.loads(said)
        writer.add(f"spaces/{space.name}/space.json", said)
    try:
        handle = open(folder / "vectors.npy", "rb", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        return
    with handle:
        try:
            capacity, dim = parse_header(handle.read(HEADER_BYTES))
            size = HEADER_BYTES + capacity * dim * 4
            if dim != space.dim or os.fstat(handle.fileno()).st_size < size:
                raise ValueError("it is not as long or as wide as it should be")
        except (ValueError, SyntaxError) as error:
            report.notes.append(
                f"{folder / 'vectors.npy'} is broken ({error}): it is not in the backup, and a restore computes its "
                "vectors again. Run `manage.py verify` to see what it says here."
            )
            return
        tell(f"{counted(embedded, 'vector')} of {space.name}")
        handle.seek(0)
        reach("backup-before-vectors")
        writer.add_stream(f"spaces/{space.name}/vectors.npy", handle, size)
        report.spaces[space.name] = embedded
        reach("backup-after-vectors")


def _write_thumbnails(writer: backup_file.Writer, alias: str) -> None:
    ids = Image.objects.using(alias).order_by("pk").values_list("pk", flat=True)
    for image_id in ids.iterator(chunk_size=tables.CHUNK):
        data = thumbnails.read(image_id)
        if data is not None:
            path = thumbnails.path_of(image_id)
            writer.add_thumbnail(f"thumbnails/{path.parent.name}/{path.name}", data)
