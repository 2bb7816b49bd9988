"""`manage.py repair`: queue exactly what `verify` finds wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ingestion.repair import Repairs, repair
from search import highwater
from search.management.base import DomainCommand
from search.verification import verify
from search.wording import counted


class Command(DomainCommand):
    help = (
        "Verify, then queue exactly what is wrong: rows that are not what was written are forgotten and computed "
        "again, lost work is queued again, counters are put right. `manage.py process` then does the work."
    )
    reports = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--ids", action="store_true", help="Only set the id sequence above the high-water mark, after a restore."
        )
        parser.add_argument(
            "--sample",
            type=int,
            default=20,
            metavar="N",
            help="Images per space to embed again (default: 20; 0: none).",
        )

    def run(self, **options: Any) -> int | None:
        if options["sample"] < 0:
            raise CommandError(f"--sample is {options['sample']}; it accepts whole numbers from 0.")
        if options["ids"]:
            before = highwater.check()
            highwater.mend()
            report: dict[str, Any] = {"mended": before}
            text = [f"Mended: {sentence}" for sentence in before] or ["The id sequence was sound."]
        else:
            done = repair(verify(sample=options["sample"]))
            report = dataclasses.asdict(done)
            text = _sentences(done)
        if options["json"]:
            self.print_json(report)
        else:
            self.stdout.write("\n".join(text))
        return None


def _sentences(done: Repairs) -> list[str]:
    """What was mended, without what did not have to be."""
    queued = [
        (done.wrong_rows, "wrong vector", " forgotten and queued"),
        (done.never_embedded, "image", " without a vector queued"),
        (done.never_read, "image", " without work queued"),
        (done.no_thumbnail, "thumbnail", " queued"),
    ]
    other = [(done.counters, "counter", " put right"), (done.cut_off, "cut-off file", " mended")]
    parts = [f"{counted(number, noun)}{what}" for number, noun, what in [*queued, *other] if number]
    if not parts:
        return ["Nothing was wrong."]
    work = any(number for number, _, _ in queued)
    return [", ".join(parts) + ".", *(["Run `manage.py process` to do the queued work."] if work else [])]
