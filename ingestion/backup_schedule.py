"""Backups every so many hours into a folder, and the oldest of them pruned: for django-q2, and for `/health`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings

from ingestion import backup_file
from ingestion.backup import BackupFailed, back_up, installation
from search.panels import Health

log = logging.getLogger(__name__)

_NAME = re.compile(r"imagesearch-(\d{8}-\d{6})\.tar")
_TIME = "%Y%m%d-%H%M%S"
_PATIENCE = 2
"""A backup is said to be overdue after so many times its hours."""


@dataclass(frozen=True)
class Kept:
    """One scheduled backup of this installation."""

    path: Path
    made: datetime


def folder() -> Path | None:
    """Where scheduled backups go; None where none are wished."""
    return settings.IMAGESEARCH_BACKUPS


def run(now: datetime | None = None) -> Path | None:
    """Make a backup when one is due, then prune; None when none was due. Raises BackupFailed."""
    home, now = folder(), now or datetime.now(UTC)
    if home is None:
        return None
    found = kept(home)
    if found and found[-1].made + timedelta(hours=settings.IMAGESEARCH_BACKUP_HOURS) > now:
        return None
    if not home.is_dir():
        raise BackupFailed(
            f"The folder for backups {home} is not there: make it, or mount its disk. It is not made by itself, lest "
            "backups fill the disk beneath a mount point."
        )
    file = home / f"imagesearch-{now.strftime(_TIME)}.tar"
    report = back_up(file, scheduled=True)
    log.info("Backup %s: %.1f MB", file, report.bytes / 1e6)
    prune(home)
    return file


def kept(home: Path) -> list[Kept]:
    """This installation's scheduled backups in a folder, oldest first.

    A file counts only when its name and its first member both say so: whatever else lies there is never touched.
    """
    found = []
    names = [path for path in home.glob("imagesearch-*.tar") if _NAME.fullmatch(path.name)] if home.is_dir() else []
    for path in names:
        with contextlib.suppress(backup_file.BadArchive, OSError, ValueError):
            about = backup_file.read_about(path)
            if about.get("scheduled") is True and about.get("installation") == installation():
                match = _NAME.fullmatch(path.name)
                assert match is not None
                found.append(Kept(path, datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)))
    return sorted(found, key=lambda one: one.made)


def prune(home: Path) -> list[Path]:
    """Delete all but the newest scheduled backups; returns those that went."""
    gone = []
    for old in kept(home)[: -settings.IMAGESEARCH_BACKUP_KEEP]:
        try:
            old.path.unlink()
        except OSError as error:
            log.warning("The old backup %s could not be deleted (%s)", old.path, error.strerror)
            continue
        gone.append(old.path)
    return gone


def health() -> Health:
    """Whether scheduled backups are made: the newest is not older than twice the hours between two."""
    home = folder()
    if home is None:
        return Health("ok", details={"scheduled": False})
    details: dict[str, Any] = {"scheduled": True, "folder": str(home)}
    if not home.is_dir():
        return Health("degraded", f"The folder for backups {home} is not there: make it, or mount its disk.", details)
    found = kept(home)
    details["kept"] = len(found)
    details["free_bytes"] = shutil.disk_usage(home).free
    if not found:
        sentence = f"No backup was made in {home} yet: the background tasks make the first within ten minutes."
        return Health("degraded", sentence, details)
    newest = found[-1]
    details["newest"], details["bytes"] = newest.made.isoformat(), os.stat(newest.path).st_size
    if newest.made + timedelta(hours=_PATIENCE * settings.IMAGESEARCH_BACKUP_HOURS) < datetime.now(UTC):
        return Health(
            "degraded",
            f"The newest backup in {home} is of {newest.made:%Y-%m-%d %H:%M} UTC: the log of the background tasks says "
            "why there is no newer one.",
            details,
        )
    return Health("ok", details=details)
