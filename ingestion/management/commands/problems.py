from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from search.management.base import DomainCommand
from search.wording import agreeing, counted


class Command(DomainCommand):
    help = "List the files that could not be processed, each with its reason; or let them be tried again."
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--retry", nargs="*", metavar="ID", help="Let these images (all, when none is named) be tried again."
        )

    def run(self, **options: Any) -> None:
        from ingestion import problems

        if options["retry"] is not None:
            ids = _numbers(options["retry"])
            count = problems.retry(ids or None, user=self.user)
            if options["json"]:
                self.print_json({"retried": count})
            else:
                stages = counted(count, "failed stage")
                self.stdout.write(
                    f"{stages} {agreeing(count, 'waits', 'wait')} again; `manage.py process` tries "
                    f"{agreeing(count, 'it', 'them')}."
                    if count
                    else "Nothing that failed is to be tried again."
                )
            return
        listed = problems.problems(self.user)
        if options["json"]:
            self.print_json(
                [
                    {"id": p.id, "path": p.path, "stage": p.stage, "reason": p.reason, "failed_at": p.failed_at}
                    for p in listed
                ]
            )
            return
        none = True
        for problem in listed:
            none = False
            self.stdout.write(f"{problem.id}\t{problem.stage}\t{_line(problem.path)}\n\t{_line(problem.reason)}")
        if none:
            self.stdout.write("No problems.")


def _numbers(given: list[str]) -> list[int]:
    wrong = [text for text in given if not text.isdigit()]
    if wrong:
        raise CommandError(f"{wrong[0]!r} is not the id of an image; `manage.py problems` lists them.")
    return [int(text) for text in given]


def _line(text: str) -> str:
    """One line of it, whatever a file's name holds."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
