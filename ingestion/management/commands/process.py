from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from search.management.base import DomainCommand

_STEPS_BACK = 10


class Command(DomainCommand):
    help = (
        "Process what waits: read the files, make thumbnails, embed. Ends when nothing is left (exit status 0; 1 when "
        "something had to be left waiting); stopped and started again, it goes on where it was."
    )
    reports = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--stage", metavar="NAME", help='Only this stage: "read", "embed" or "embed:SPACE".')
        parser.add_argument("--limit", type=int, metavar="N", help="End after N images.")
        parser.add_argument(
            "--workers",
            type=int,
            metavar="N",
            help="Worker processes that share the work (default: IMAGESEARCH_WORKERS).",
        )
        parser.add_argument("--forever", action="store_true", help="Wait for new work until stopped, at low priority.")

    def run(self, **options: Any) -> int | None:
        from ingestion.bars import Bars
        from ingestion.crew import Crew, Worker, stopping, threads_each
        from search.highwater import require_sound_ids

        for name in ("limit", "workers"):
            if options[name] is not None and options[name] < 1:
                raise CommandError(f"--{name} is {options[name]}; it accepts whole numbers from 1.")
        require_sound_ids()
        if options["forever"]:
            os.nice(_STEPS_BACK)  # pages that somebody waits for come first; with --workers all of them
        count = 1 if options["limit"] else options["workers"] or settings.IMAGESEARCH_WORKERS
        arguments = [f"--stage={options['stage']}"] if options["stage"] else []
        arguments += ["--forever"] if options["forever"] else []
        bars = Bars(quiet=options["forever"])
        worker = Worker(
            only=options["stage"], limit=options["limit"], forever=options["forever"],
            threads=threads_each(count), tell=bars.show,
        )  # fmt: skip
        with Crew(count, arguments) as crew, stopping(worker.stop, crew.stop) as stopped:
            try:
                summary = worker.run()
                finished = (crew.wait() if not stopped else True) and summary.finished
            finally:
                bars.close()
        if options["json"]:
            self.print_json(
                {"finished": finished, "done": summary.done, "failed": summary.failed, "waiting": summary.waiting}
            )
        else:
            self._say(summary.done, summary.failed, summary.waiting)
        return 0 if finished or stopped else 1

    def _say(self, done: dict[str, int], failed: dict[str, int], waiting: list[str]) -> None:
        for stage in sorted(set(done) | set(failed), key=lambda name: (name != "read", name)):
            trouble = f", {failed[stage]:,} failed (see `manage.py problems`)" if stage in failed else ""
            self.stdout.write(f"{stage}: {done.get(stage, 0):,} done{trouble}")
        if not done and not failed:
            self.stdout.write("There was nothing to do.")
        for sentence in waiting:
            self.stderr.write(sentence)
