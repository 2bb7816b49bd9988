from __future__ import annotations

from typing import Any

from search.management.base import DomainCommand


class Command(DomainCommand):
    help = (
        "Let every worker rest until `resume`: each finishes what it has in hand, within seconds, hands the rest back "
        "and waits. Searching and curating go on. Survives restarts."
    )

    def run(self, **options: Any) -> None:
        from ingestion import pausing

        new = pausing.pause()
        rest = pausing.rest()
        assert rest is not None
        self.stdout.write(f"{rest.sentence if new else 'Nothing to do: ' + rest.sentence} `manage.py resume` ends it.")
