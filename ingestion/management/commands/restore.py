"""`manage.py restore FILE`: bring a backup back, on this machine or another."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from search.management.base import DomainCommand
from search.wording import counted


class Command(DomainCommand):
    help = (
        "Restore a backup: every human decision comes back, every vector is compared with its checksum, what is wrong "
        "is dropped and queued. Nothing is touched before all of FILE was read and compared. Stop the program first."
    )
    reports = True
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("file", metavar="FILE", help="What `manage.py backup` wrote.")
        parser.add_argument(
            "--data",
            metavar="FOLDER",
            help="Restore into this data folder instead of IMAGESEARCH_DATA (the database too, if it is SQLite there).",
        )
        parser.add_argument(
            "--map",
            metavar="OLD=NEW",
            action="append",
            default=[],
            help="The photos that lay beneath OLD lie beneath NEW now; may be given several times.",
        )
        parser.add_argument("--replace", action="store_true", help="Replace a database that holds images.")
        parser.add_argument(
            "--partial",
            action="store_true",
            help="Accept a backup whose vectors or thumbnails are cut off or damaged: they are made again.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Compare and report; change nothing.")

    def run(self, **options: Any) -> None:
        maps = [_pair(text) for text in options["map"]]
        if options["data"]:
            _run_there(Path(options["data"]), options)
        from ingestion.restoring import restore

        tell = (lambda text: self.stderr.write(f"{text} ...")) if sys.stderr.isatty() else (lambda text: None)
        report = restore(
            Path(options["file"]), maps=maps, replace=options["replace"], partial=options["partial"],
            dry_run=options["dry_run"], tell=tell,
        )  # fmt: skip
        if options["json"]:
            self.print_json(dataclasses.asdict(report))
            return
        for line in _sentences(report):
            self.stdout.write(line)


def _pair(text: str) -> tuple[bytes, bytes]:
    old, equals, new = text.partition("=")
    if not equals or not os.path.isabs(old) or not os.path.isabs(os.path.expanduser(new)):
        raise CommandError(f"--map is {text!r}; it accepts OLD=NEW, two absolute paths: --map /mnt/old=/media/photos")
    return os.fsencode(os.path.normpath(old)), os.fsencode(os.path.realpath(os.path.expanduser(new)))


def _run_there(folder: Path, options: dict[str, Any]) -> None:
    """Run the same command with another data folder: settings are read once, when a process starts."""
    folder = folder.expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"--data is {str(folder)!r}, which is a file; name a folder.")
    environment = {
        **os.environ,
        "IMAGESEARCH_DATA": str(folder),
        "IMAGESEARCH_SPACES": str(folder / "spaces"),
        "IMAGESEARCH_THUMBNAILS": str(folder / "thumbnails"),
    }
    arguments = [os.path.abspath(os.path.expanduser(options["file"])), *(f"--map={text}" for text in options["map"])]
    arguments += [f"--{name.replace('_', '-')}" for name in ("replace", "partial", "dry_run", "json") if options[name]]
    manage = str(Path(settings.BASE_DIR) / "manage.py")
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, manage, "restore", *arguments], environment)


def _sentences(report: Any) -> list[str]:
    images = counted(report.rows.get("search.image", 0), "image")
    lines = [f"The backup of {report.created_at} by {report.made_by}: {images}, checksums compared."]
    for old, new in report.mapped.items():
        lines.append(f"{old} is {new} now.")
    if report.dry_run:
        return [*lines, *report.notes, "Nothing was changed (--dry-run)."]
    for name, number in report.vectors.items():
        dropped = report.dropped.get(name, 0)
        lost = f"; {counted(dropped, 'vector')} did not match and were dropped" if dropped else ""
        lines.append(f"{name}: {counted(number, 'vector')} compared and right{lost}.")
    if report.queued:
        lines.append(f"{counted(report.queued, 'image')} queued to be embedded again.")
    if report.thumbnails or report.thumbnails_kept:
        brought = counted(report.thumbnails, "thumbnail")
        lines.append(f"{brought} from the backup, {report.thumbnails_kept:,} kept that were here.")
    if report.leases_cleared:
        lines.append(f"{counted(report.leases_cleared, 'claim')} of workers of that time ended.")
    if report.repairs.get("no_thumbnail"):
        lines.append(f"{counted(report.repairs['no_thumbnail'], 'image')} queued to be read again for a thumbnail.")
    if report.repairs.get("never_embedded"):
        lines.append(f"{counted(report.repairs['never_embedded'], 'image')} without a vector queued.")
    return [*lines, *report.notes, "Restored. People sign in again; their passwords are those of the backup."]
