"""What the commands share: `--json`, `--user`, domain errors as one sentence, exit statuses."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from search.errors import SearchError


class DomainCommand(BaseCommand):
    """A thin command: parse, call the domain, show. Subclasses write `run(**options) -> int | None`.

    The returned number is the exit status. A `SearchError` (or an app's own error family derived from it)
    becomes one sentence on stderr and exit status 1.
    """

    requires_system_checks = ["installation"]
    reports = False
    """Adds `--json`."""
    for_user = False
    """Adds `--user`; `self.user` is then that user or None (sees everything)."""

    def add_arguments(self, parser: CommandParser) -> None:
        if self.reports:
            parser.add_argument("--json", action="store_true", help="Print the report as one line of JSON.")
        if self.for_user:
            parser.add_argument("--user", metavar="NAME", help="Only what this user may see (default: everything).")

    def handle(self, *args: Any, **options: Any) -> None:
        self.user = None
        if self.for_user and options.get("user"):
            name = options["user"]
            self.user = get_user_model().objects.filter(username=name).first()
            if self.user is None:
                raise CommandError(f"There is no user named {name!r}.")
        try:
            status = self.run(**options)
        except SearchError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self.stderr.write("Stopped. What was finished is kept; the same command goes on from there.")
            raise SystemExit(130) from None
        if status:
            raise SystemExit(status)

    def run(self, **options: Any) -> int | None:
        raise NotImplementedError

    def print_json(self, report: Any) -> None:
        """One line of JSON on stdout; text that is not valid Unicode is escaped, never an error."""
        self.stdout.write(json.dumps(report, ensure_ascii=True, default=str))
