"""How each source is kept up to date, in a sentence: for the pages, `stats` and /health."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from ingestion import pausing
from ingestion.models import Watch
from search.models import Source
from search.panels import Health
from search.wording import counted

_SILENT = timedelta(seconds=90)
"""After this long without a beat the watcher is taken for dead."""


@dataclass(frozen=True)
class Kept:
    """One source and how it is kept up to date."""

    source: Source
    watched: bool
    sentence: str


def kept(sources: Iterable[Source], *, resting: bool | None = None) -> list[Kept]:
    """One query besides those of `sources`; one more where nobody says whether the work rests."""
    watches = {row.source_id: row for row in _alive()}
    resting = pausing.rest() is not None if resting is None else resting
    found = []
    for source in sources:
        watch = watches.get(source.pk)
        watched = watch is not None and watch.watched and source.recrawl_minutes > 0
        if watched:
            sentence = (
                "Watched: changes are noted, and appear when the work goes on."
                if resting
                else "Watched: changes appear within seconds."
            )
        elif not source.recrawl_minutes:
            sentence = "Looked through only when somebody asks for it."
        else:
            why = watch.why if watch is not None else "no watcher runs"
            sentence = f"Looked through {every(source.recrawl_minutes)}, because {why}."
        found.append(Kept(source, watched, sentence))
    return found


def watched_ids() -> set[int]:
    """Sources that a watcher keeps, also by looking through them when it is time."""
    return {row.source_id for row in _alive() if row.watched}


def every(minutes: int) -> str:
    """How often, for people: "every 15 minutes", "every hour", "every 2 days"."""
    for length, unit in ((24 * 60, "day"), (60, "hour")):
        if minutes % length == 0:
            return f"every {unit}" if minutes == length else f"every {counted(minutes // length, unit)}"
    return "every minute" if minutes == 1 else f"every {counted(minutes, 'minute')}"


def health() -> Health:
    """How many sources are watched. None being watched is no fault: they are looked through by time."""
    rows = kept(Source.objects.all(), resting=False)
    watched = sum(row.watched for row in rows)
    details = {"watched": watched, "by_time": len(rows) - watched}
    others = [f"{row.source.name}: {row.sentence}" for row in rows if not row.watched]
    return Health("ok", " ".join(others[:20]), details)


def _alive() -> list[Watch]:
    return list(Watch.objects.filter(beat_at__gt=timezone.now() - _SILENT))
