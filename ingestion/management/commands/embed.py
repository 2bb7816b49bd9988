from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from search.management.base import DomainCommand


class Command(DomainCommand):
    help = (
        "Compute the vectors that are lacking, of the configured model and the built-in one or of one space. "
        "Idempotent; stopped and started again, it goes on. Exit status 1 when something had to be left waiting."
    )
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--space", metavar="NAME", help="Only this space (see `manage.py spaces`).")
        parser.add_argument(
            "--batch-size", type=int, metavar="N", help="Images a batch (default: IMAGESEARCH_BATCH_SIZE)."
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="List the images that lack a vector; change nothing."
        )
        parser.add_argument("--retry-failed", action="store_true", help="Try again what failed before.")

    def run(self, **options: Any) -> int | None:
        from ingestion import embedding, ledger
        from ingestion.bars import Bars
        from ingestion.crew import Worker, stopping
        from search.highwater import require_sound_ids

        if options["batch_size"] is not None and options["batch_size"] < 1:
            raise CommandError(f"--batch-size is {options['batch_size']}; it accepts whole numbers from 1.")
        require_sound_ids()
        spaces = embedding.spaces_to_fill(options["space"])
        if options["dry_run"]:
            self._list(spaces, **options)
            return 0
        images = embedding.images_of(self.user)
        for space in spaces:
            if options["retry_failed"]:
                ledger.retry(stage=space.stage, images=images)
            ledger.queue_all(space.stage)
        bars = Bars(quiet=options["json"])
        worker = Worker(
            only=f"embed:{options['space']}" if options["space"] else "embed", batch_size=options["batch_size"],
            sources=embedding.sources_of(self.user), tell=bars.show,
        )  # fmt: skip
        with stopping(worker.stop) as stopped:
            try:
                summary = worker.run()
            finally:
                bars.close()
        if options["json"]:
            self.print_json({"finished": summary.finished, "done": summary.done, "failed": summary.failed})
        else:
            for stage, number in sorted(summary.done.items()):
                self.stdout.write(f"{stage}: {number:,} done")
            if not summary.done:
                self.stdout.write("There was nothing to embed.")
        for sentence in summary.waiting:
            self.stderr.write(sentence)
        return 0 if stopped or (summary.finished and not summary.waiting) else 1

    def _list(self, spaces: Any, **options: Any) -> None:
        from ingestion import embedding

        rows = embedding.lacking(spaces, self.user, retry_failed=options["retry_failed"])
        if options["json"]:
            listed = [{"id": image.pk, "path": image.absolute_path_text} for image in rows]
            self.print_json({"count": len(listed), "images": listed})
            return
        for image in rows:
            self.stdout.write(f"{image.pk}\t{image.absolute_path_text}")
