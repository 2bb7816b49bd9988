from __future__ import annotations

import threading
from typing import Any

from django.core.management.base import CommandParser
from django.db import connection

from search.management.base import DomainCommand
from search.wording import counted


class Command(DomainCommand):
    help = (
        "Make a folder searchable: look for its files and process them, in the foreground. Exit status 0 when "
        "finished, even where files had problems (1 with --strict); 1 when not finished. The same command goes on."
    )
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("path", help="The folder.")
        parser.add_argument("--strict", action="store_true", help="Exit status 1 when a file had a problem.")
        parser.add_argument("--name", help="Name of the source, when it is new (default: the folder's name).")
        parser.add_argument("--rehash", action="store_true", help="Compare contents, not only sizes and times.")
        parser.add_argument(
            "--accept-missing", action="store_true", help="Believe that files that are not found are gone."
        )
        parser.add_argument(
            "--exclude", action="append", default=[], metavar="GLOB", help="Leave these out as well (repeatable)."
        )
        parser.add_argument("--follow-symlinks", action="store_true", help="Follow links to files and folders.")

    def run(self, **options: Any) -> int | None:
        from ingestion.bars import Bars
        from ingestion.crawler import readable
        from ingestion.crew import Worker, stopping
        from ingestion.problems import count_in
        from ingestion.register import crawl
        from ingestion.roots import source_for
        from search.highwater import require_sound_ids

        require_sound_ids()
        source, subpath = source_for(
            options["path"], name=options["name"], owner=self.user, globs=options["exclude"],
            follow_symlinks=options["follow_symlinks"],
        )  # fmt: skip
        bars = Bars(quiet=options["json"])
        found: list[Any] = []
        faults: list[BaseException] = []

        def walk() -> None:
            try:
                found.append(
                    crawl(
                        source, subpath=subpath, rehash=options["rehash"], accept_missing=options["accept_missing"],
                        progress=lambda report: bars.crawled(report.counts()),
                    )
                )  # fmt: skip
            except BaseException as error:  # noqa: BLE001 - raised again below, in the command's own thread
                faults.append(error)
                worker.stop()
            finally:
                connection.close()

        walker = threading.Thread(target=walk, name="crawl", daemon=True)
        worker = Worker(sources=[source.pk], more=walker.is_alive, tell=bars.show)
        with stopping(worker.stop) as stopped:
            walker.start()
            try:
                summary = worker.run()
            finally:
                bars.close()
            if not stopped:
                walker.join()
        if faults:
            raise faults[0]
        if stopped or not found:
            self.stderr.write("Stopped. What was finished is kept; the same command goes on from there.")
            return 1
        counts = found[0].settled_counts()
        if options["json"]:
            self.print_json(
                {**counts, "process": {"done": summary.done, "failed": summary.failed, "waiting": summary.waiting}}
            )
        else:
            self._say(counts, found[0], folder=readable(subpath))
        for sentence in [found[0].message, *summary.waiting]:
            if sentence:
                self.stderr.write(sentence)
        if not summary.finished:
            return 1
        problems = counts["unreadable"] + found[0].errors + count_in(source)
        return 1 if options["strict"] and problems else 0

    def _say(self, counts: dict[str, int], report: Any, *, folder: str) -> None:
        where = f"{report.source}, folder {folder}: " if folder else f"{report.source}: "
        self.stdout.write(f"{where}{counted(counts['found'], 'file')} found{':' if counts['found'] else '.'}")
        for name, number in counts.items():
            if number and name != "found":
                self.stdout.write(f"  {number:,} {name.replace('_', ' ')}")
        for sentence in report.problems[:20]:
            self.stdout.write(f"  {sentence}")
        if counts["unreadable"]:
            self.stdout.write("`manage.py problems` lists what could not be read, and why.")
