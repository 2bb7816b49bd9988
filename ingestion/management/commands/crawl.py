"""`manage.py crawl`: find new, changed, moved and missing files; register them and queue their work."""

from __future__ import annotations

import sys
from math import inf
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser

from search.management.base import DomainCommand
from search.wording import counted

if TYPE_CHECKING:
    from ingestion.crawlreport import CrawlReport


class Command(DomainCommand):
    help = (
        "Walk a folder, or all sources, and bring the catalogue up to date: new files are registered, changed ones "
        "wait to be read again, moved ones keep everything, absent ones are marked missing. Processing is left to "
        "`process` (or use `index`, which does both). Exit status 0 when every walk was finished, 1 when one was not."
    )
    reports = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("path", nargs="?", help="A folder; a new one becomes a source. Without it: all sources.")
        parser.add_argument("--name", help="What a new source is called (default: the folder's name).")
        parser.add_argument("--user", metavar="NAME", help="Who owns the source (default: the first owner).")
        parser.add_argument(
            "--exclude", action="append", default=[], metavar="GLOB",
            help="Leave out what fits, from now on; gitignore syntax, relative to the source. Can be repeated.",
        )  # fmt: skip
        parser.add_argument("--follow-symlinks", action="store_true", help="Follow links that lead out of the folder.")
        parser.add_argument(
            "--rehash", action="store_true", help="Compare contents too, not only sizes and modification times."
        )
        parser.add_argument(
            "--accept-missing", action="store_true", help="Believe it when much or all of a source is gone."
        )
        parser.add_argument(
            "--wait", action="store_true", help="Wait while somebody else crawls the source, instead of giving up."
        )

    def run(self, **options: Any) -> int | None:
        from ingestion.errors import CrawlError
        from ingestion.register import crawl, source_for
        from search.models import Source

        owner = self._owner(options["user"])
        if options["path"] is not None:
            chosen = [
                source_for(
                    options["path"], name=options["name"], owner=owner, globs=options["exclude"],
                    follow_symlinks=options["follow_symlinks"],
                )
            ]  # fmt: skip
        elif owner or options["name"] or options["exclude"] or options["follow_symlinks"]:
            raise CommandError("--name, --user, --exclude and --follow-symlinks belong to one folder: name its path.")
        else:
            chosen = [(source, b"") for source in Source.objects.all()]
            if not chosen and not options["json"]:
                self.stdout.write("There is no source yet. Name a folder of pictures: manage.py crawl ~/Pictures")
        reports: list[CrawlReport] = []
        failed = False
        line = _Line()
        for source, subpath in chosen:
            try:
                report = crawl(
                    source, subpath=subpath, rehash=options["rehash"], accept_missing=options["accept_missing"],
                    progress=line.show, wait_seconds=inf if options["wait"] else 0,
                )  # fmt: skip
            except CrawlError as error:
                if len(chosen) == 1:
                    raise
                line.clear()
                self.stderr.write(str(error))
                failed = True
                continue
            line.clear()
            reports.append(report)
            self._tell(report, quiet=options["json"])
        if options["json"]:
            self.print_json(_sum(reports))
        return 1 if failed else None

    def _owner(self, name: str | None) -> Any:
        if not name:
            return None
        user = get_user_model().objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"There is no user named {name!r}.")
        return user

    def _tell(self, report: CrawlReport, *, quiet: bool) -> None:
        for sentence in report.problems:
            self.stderr.write(sentence)
        if report.errors > len(report.problems):
            self.stderr.write(f"{report.errors - len(report.problems):,} more could not be seen.")
        if report.message:
            self.stderr.write(report.message)
        if not quiet:
            self.stdout.write(summary(report))


def summary(report: CrawlReport) -> str:
    """A crawl in one line for people; counts of nothing are left out."""
    counts = report.counts()
    found = counts.pop("found")
    parts = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count]
    if report.missing:
        parts.append(f"{report.missing:,} now missing")
    return f"{report.source}: {counted(found, 'file')} found{': ' if parts else ''}{', '.join(parts)}."


def _sum(reports: list[CrawlReport]) -> dict[str, Any]:
    from ingestion.crawlreport import CrawlReport

    if len(reports) == 1:
        return reports[0].as_dict()
    whole = CrawlReport(source_id=0, source="")
    total: dict[str, Any] = whole.as_dict()
    for report in reports:
        for name, count in report.stored().items():
            total[name] += count
    total["guarded"] = any(report.guarded for report in reports)
    total["message"] = " ".join(report.message for report in reports if report.message)
    return total


class _Line:
    """Where the walk is, on one line of the terminal."""

    def __init__(self) -> None:
        from ingestion.console import Console

        self._console = Console(sys.stderr)

    def show(self, report: CrawlReport) -> None:
        self._console.status(
            f"{report.source}: {counted(report.found, 'file')} found, {report.registered:,} new  {report.folder}"
        )

    def clear(self) -> None:
        self._console.clear()
