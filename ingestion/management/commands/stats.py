from __future__ import annotations

from typing import Any

from ingestion.console import duration
from search.management.base import DomainCommand
from search.wording import counted


class Command(DomainCommand):
    help = "How many images there are, how many are read and embedded, and what failed."
    reports = True
    for_user = True

    def run(self, **options: Any) -> None:
        from ingestion.coverage import stats
        from ingestion.progress import report

        numbers = stats(self.user)
        if options["json"]:
            self.print_json(numbers)
            return
        self.stdout.write(f"{counted(numbers['total'], 'image')}, {numbers['readable']:,} of them readable")
        for name, embedded in numbers["embedded"].items():
            serving = " (serves searches)" if name == numbers["active"] else ""
            share = numbers["coverage_percent"][name]
            self.stdout.write(f"  space {name}: {embedded:,} embedded, {share:g} %{serving}")
        for stage, failed in sorted(numbers["failed"].items()):
            self.stdout.write(f"  {stage}: {failed:,} failed (see `manage.py problems`)")
        for source in numbers["sources"]:
            self.stdout.write(f"  {source['source']}: {source['kept']}")
        if self.user is None:
            for row in report():
                if row.waiting:
                    self.stdout.write(f"  {row.stage}: {row.waiting:,} waiting{_pace(row.per_second, row.eta_seconds)}")


def _pace(per_second: float | None, eta: float | None) -> str:
    if not per_second or eta is None:
        return ""
    return f", {per_second:.1f} a second, about {duration(eta)} left"
