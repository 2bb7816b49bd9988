from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from search.management.base import DomainCommand
from search.wording import counted


class Command(DomainCommand):
    help = "Say how many pictures wait in each review queue, or list those of one; --refresh sorts them all anew."
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("queue", nargs="?", metavar="QUEUE", help="List the pictures of this queue, newest first.")
        parser.add_argument(
            "--refresh", action="store_true", help="Sort every picture anew after the settings. No file is read."
        )

    def run(self, **options: Any) -> None:
        from search import queues, review

        if options["refresh"]:
            changed = review.refresh()
            if options["json"]:
                self.print_json({"changed": changed})
            else:
                self.stdout.write(f"{counted(changed, 'picture')} changed queues.")
            return
        name = options["queue"]
        if name is None:
            self._overview(queues.all_queues(), json=options["json"])
            return
        if name not in review.NAMES:
            listed = ", ".join(review.NAMES)
            raise CommandError(f"There is no review queue {name!r} to list. These can be listed: {listed}.")
        rows = review.waiting(name, self.user).select_related("source").newest_first().iterator(chunk_size=1_000)
        if options["json"]:
            self.print_json([{"id": image.pk, "path": image.absolute_path_text} for image in rows])
            return
        none = True
        for image in rows:
            none = False
            self.stdout.write(f"{image.pk}\t{_line(image.absolute_path_text)}")
        if none:
            self.stdout.write("Nothing waits in this queue.")

    def _overview(self, rows: list[Any], *, json: bool) -> None:
        tallies = [(one, one.counter(self.user)) for one in rows]
        if json:
            self.print_json(
                [
                    {"queue": one.name, "label": one.label, "count": tally.number, "more": tally.capped}
                    for one, tally in tallies
                ]
            )
            return
        for one, tally in tallies:
            self.stdout.write(f"{one.name:<12}{tally!s:>8}  {one.label}")


def _line(text: str) -> str:
    """One line of it, whatever a file's name holds."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
