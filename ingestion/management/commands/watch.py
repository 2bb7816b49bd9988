"""`manage.py watch`: what changes in the sources' folders appears within seconds."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import CommandParser

from search.management.base import DomainCommand


class Command(DomainCommand):
    help = (
        "Watch the folders of all sources until stopped: new, changed, moved and deleted files appear within seconds. "
        "`start` runs it too. With --check it only says how each source is kept up to date."
    )
    reports = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--check", action="store_true", help="Say how each source is kept up to date, and end.")

    def run(self, **options: Any) -> int | None:
        from ingestion.watcher import Watcher, only_one
        from ingestion.watchstate import kept
        from search.models import Source

        if options["check"]:
            rows = kept(Source.objects.all())
            if options["json"]:
                self.print_json([{"source": r.source.name, "watched": r.watched, "kept": r.sentence} for r in rows])
                return None
            for row in rows:
                self.stdout.write(f"{row.source.name}: {row.sentence}")
            if not rows:
                self.stdout.write("There is no source yet. Name a folder of pictures: manage.py crawl ~/Pictures")
            return None
        with only_one():
            watcher = Watcher()
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, watcher.stop)
            self.stdout.write("Watching. Ctrl-C ends it.")
            watcher.run()
        return None
