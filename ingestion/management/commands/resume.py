from __future__ import annotations

from typing import Any

from search.management.base import DomainCommand


class Command(DomainCommand):
    help = "Let the workers go on after `pause`, or through the quiet hours that are now."

    def run(self, **options: Any) -> None:
        from ingestion import pausing

        self.stdout.write("The work goes on." if pausing.resume() else "Nothing to do: the work was not paused.")
