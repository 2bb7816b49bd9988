"""`manage.py backup FILE`: everything that cannot be made again, and the vectors, in one file, while all goes on."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from search.management.base import DomainCommand
from search.wording import counted


class Command(DomainCommand):
    help = (
        "Write a backup: the database first, as it stands at this moment, then the vectors. Searching, curating and "
        "processing go on meanwhile. FILE must not be there yet; it appears when it is whole."
    )
    reports = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("file", metavar="FILE", help="The file to write, such as /mnt/backup/photos-2026-11-21.tar")
        parser.add_argument(
            "--thumbnails",
            action="store_true",
            help="Thumbnails too (about 15 KB an image): without them a restore elsewhere reads every file again.",
        )

    def run(self, **options: Any) -> None:
        from ingestion.backup import back_up

        tell = (lambda text: self.stderr.write(f"{text} ...")) if sys.stderr.isatty() else (lambda text: None)
        began = time.monotonic()
        report = back_up(Path(options["file"]), with_thumbnails=options["thumbnails"], tell=tell)
        if options["json"]:
            self.print_json({**dataclasses.asdict(report), "seconds": round(time.monotonic() - began, 2)})
            return
        written = [f"{counted(number, 'vector')} of {name}" for name, number in report.spaces.items()]
        vectors = ", ".join(written) or "no vectors"
        kept = f" and {counted(report.thumbnails, 'thumbnail')}" if options["thumbnails"] else ""
        self.stdout.write(
            f"{report.file}: {counted(report.images, 'image')} with all that was ever done to them, {vectors}{kept}; "
            f"{report.bytes / 1e6:,.1f} MB in {time.monotonic() - began:.1f} s."
        )
        for note in report.notes:
            self.stderr.write(note)
        self.stdout.write(f"`manage.py restore --dry-run {report.file}` reads it back and compares every checksum.")
