"""What has to stand before the program starts: one instance, the tables, the static files, sound settings."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
from pathlib import Path
from typing import IO

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core import checks
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.executor import MigrationExecutor

from ingestion.errors import IngestionError


class NotPrepared(IngestionError):
    """The program cannot start; the message says what mends it."""


def hold_data_folder() -> IO[str]:
    """Claim the data folder for this process; keep what is returned for as long as the claim is to stand.

    Raises NotPrepared, naming the process, when another `start` runs on it. The system lets go of the claim
    when the process ends, however it ends.
    """
    path = Path(settings.IMAGESEARCH_DATA) / "start.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115  it stays open: that is the claim
    except OSError as error:
        raise NotPrepared(
            f"The data folder {path.parent} cannot be written ({error.strerror}): "
            "make it writable, or set IMAGESEARCH_DATA to another folder."
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        pid, _, address = file.read().strip().partition(" ")
        file.close()
        raise NotPrepared(
            f"The program already runs on the data folder {path.parent}: process {pid or 'unknown'}"
            + (f", at {address}" if address else "")
            + ". Stop that one first, or set IMAGESEARCH_DATA to another folder."
        ) from None
    note(file)
    return file


def note(file: IO[str], address: str = "") -> None:
    """Write who holds the claim, and at which address, for the next one who asks."""
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()} {address}\n")
    file.flush()


def migrate() -> int:
    """Bring the tables up to this version; returns how many migrations were applied.

    Raises NotPrepared when the database was made by a newer version. Database errors pass through.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.vendor == "sqlite":
        Path(connection.settings_dict["NAME"]).parent.mkdir(parents=True, exist_ok=True)
    executor = MigrationExecutor(connection)
    ours = set(executor.loader.migrated_apps)
    newer = sorted(
        f"{app}.{name}"
        for app, name in executor.loader.applied_migrations
        if app in ours and (app, name) not in executor.loader.disk_migrations
    )
    if newer:
        raise NotPrepared(
            f"The database was made by a newer version of the program (it has {', '.join(newer)}). "
            "Install that version, or restore a backup made by this one."
        )
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
    return len(plan)


def collect_static_files() -> bool:
    """Collect the static files when they changed since the last time; True when it did."""
    digest = hashlib.sha256()
    for finder in get_finders():
        for path, storage in finder.list([]):
            full = storage.path(path)
            status = os.stat(full)
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    stamp = Path(settings.STATIC_ROOT) / ".collected"
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return False
    call_command("collectstatic", interactive=False, verbosity=0, skip_checks=True, stdout=io.StringIO())
    stamp.write_text(digest.hexdigest())
    return True


def run_checks() -> list[str]:
    """Run the system checks; returns the warnings as lines. Raises NotPrepared with the errors.

    That the model is missing is left out: the start says it in its own words, with what it does about it.
    """
    found = checks.run_checks(databases=[DEFAULT_DB_ALIAS])
    errors = [message for message in found if message.is_serious() and not message.is_silenced()]
    if errors:
        raise NotPrepared("\n".join(_line(message) for message in errors))
    warnings = [message for message in found if message.level >= checks.WARNING and not message.is_silenced()]
    return [_line(message) for message in warnings if message.id != "search.W001"]


def _line(message: checks.CheckMessage) -> str:
    return f"{message.msg} {message.hint or ''}".strip()
