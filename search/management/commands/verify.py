"""`manage.py verify`: is every vector the one that was written, and the one of its picture?"""

from __future__ import annotations

import dataclasses
from typing import Any

from django.core.management.base import CommandError, CommandParser

from search.highwater import check as check_ids
from search.management.base import DomainCommand
from search.models import Image
from search.verification import SpaceVerdict, verify
from search.wording import agreeing, counted

MOST_NAMED = 20


class Command(DomainCommand):
    help = (
        "Read every embedding row against its checksum, zero rows nobody believes, embed a random sample again from "
        "the files and compare. Exit status 1 on any mismatch; the first of them are named, with --all or --json each. "
        "`manage.py repair` mends what is found."
    )
    reports = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--sample",
            type=int,
            default=20,
            metavar="N",
            help="Images per space to embed again (default: 20; 0: none).",
        )

        parser.add_argument(
            "--all", action="store_true", help=f"Name every mismatch (default: the first {MOST_NAMED} of a kind)."
        )

    def run(self, **options: Any) -> int:
        if options["sample"] < 0:
            raise CommandError(f"--sample is {options['sample']}; it accepts whole numbers from 0.")
        verdicts = verify(sample=options["sample"])
        ids = check_ids()
        ok = not ids and all(verdict.ok for verdict in verdicts)
        if options["json"]:
            self.print_json(
                {
                    "ok": ok,
                    "ids": ids,
                    "spaces": [{**dataclasses.asdict(verdict), "ok": verdict.ok} for verdict in verdicts],
                    "paths": paths_of([i for verdict in verdicts for i in verdict.bad]),
                }
            )
            return 0 if ok else 1
        for sentence in ids:
            self.stdout.write(self.style.ERROR(sentence))
        for verdict in verdicts:
            self._say(verdict, most=None if options["all"] else MOST_NAMED)
        self.stdout.write("All is as it should be." if ok else "Run `manage.py repair` to mend this.")
        return 0 if ok else 1

    def _say(self, verdict: SpaceVerdict, *, most: int | None) -> None:
        self.stdout.write(
            f"{verdict.space}: {counted(verdict.rows, 'row')} checked, {len(verdict.mismatched):,} wrong, "
            f"{counted(verdict.strays_zeroed, 'stray')} zeroed; {verdict.sampled:,} embedded again, "
            f"{len(verdict.drifted):,} {agreeing(len(verdict.drifted), 'differs', 'differ')}"
            + (f", {verdict.sample_skipped:,} could not be compared" if verdict.sample_skipped else "")
        )
        for sentence in filter(None, [verdict.fault, verdict.loss]):
            self.stdout.write(self.style.ERROR(f"  {sentence}"))
        for note in verdict.notes:
            self.stdout.write(f"  {note}")
        said = set(verdict.lost) if most is not None else set()
        self._name("wrong row", {image: "" for image in verdict.mismatched if image not in said}, most)
        self._name("not its picture", {image: f" (cosine {cosine})" for image, cosine in verdict.drifted}, most)

    def _name(self, what: str, bad: dict[int, str], most: int | None) -> None:
        """A line for each of these images, or for the first so many and one that counts the others."""
        named = list(bad)[:most]
        paths = paths_of(named)
        for image in named:
            self.stdout.write(self.style.ERROR(f"  {what}: {image}{bad[image]} {paths.get(image, '')}"))
        if more := len(bad) - len(named):
            self.stdout.write(self.style.ERROR(f"  {what}: and {more:,} more; --all or --json names each"))


def paths_of(ids: list[int]) -> dict[int, str]:
    images = Image.objects.select_related("source").in_bulk(ids)
    return {image.pk: image.absolute_path_text for image in images.values()}
