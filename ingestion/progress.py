"""How far the work is: waiting, done, failed of each stage, the pace of the last minutes, and what remains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from django.utils import timezone

from ingestion import tally
from ingestion.models import StageTick
from search.models import EmbeddingSpace

WINDOW = timedelta(minutes=10)
"""The pace is that of the last ten minutes, ..."""
_FEWEST = 8
"""... or reaches back to so many samples where results come seldom, ..."""
_LONGEST = timedelta(hours=1)
"""... at most this far, ..."""
_REST_SECONDS = 60.0
"""... and never across a rest: a gap this long that is also four times the usual one."""
_LEAST_SECONDS = 5.0


@dataclass(frozen=True)
class StageProgress:
    """One stage of the work in the background."""

    stage: str
    label: str
    """For people: "Reading files", "Embedding with ViT-B-32-256, datacomp_s34b_b86k"."""
    waiting: int
    done: int
    failed: int
    per_second: float | None
    """Images a second over the last minutes; None when nothing was done in them."""
    eta_seconds: float | None
    """Seconds until nothing waits, at this pace; None when there is no pace, 0 when nothing waits."""

    @property
    def total(self) -> int:
        return self.waiting + self.done + self.failed


def report(now: datetime | None = None) -> list[StageProgress]:
    """Every stage that has any work, `read` first, then the spaces in the order they were made. Three queries."""
    now = now or timezone.now()
    numbers = tally.counts()
    labels = {tally.READ: "Reading files"}
    for space in EmbeddingSpace.objects.order_by("pk"):
        labels[space.stage] = f"Embedding with {space.label}"
    pace = _pace(now)
    names = [name for name in labels if name in numbers] + sorted(set(numbers) - set(labels))
    rows = []
    for name in names:
        waiting, done, failed = numbers[name]
        if not (waiting or done or failed):
            continue
        per_second = pace.get(name)
        eta = 0.0 if not waiting else waiting / per_second if per_second else None
        rows.append(StageProgress(name, labels.get(name, name), waiting, done, failed, per_second, eta))
    return rows


def _pace(now: datetime) -> dict[str, float]:
    """Images a second of each stage."""
    samples: dict[str, list[tuple[float, int]]] = {}
    ticks = StageTick.objects.filter(started_at__gt=now - _LONGEST, started_at__lte=now).order_by("started_at")
    for stage, started_at, done in ticks.values_list("stage", "started_at", "done"):
        samples.setdefault(stage, []).append(((now - started_at).total_seconds(), done))
    found = {stage: pace(some) for stage, some in samples.items()}
    return {stage: one for stage, one in found.items() if one is not None}


def pace(samples: Sequence[tuple[float, int]]) -> float | None:
    """Images a second, from samples (age of its beginning in seconds, done in its ten seconds), oldest first.

    What the first sample holds was worked on before it, so it only says when the counting begins; and the time since
    the last one counts only as far as a result is overdue. None without a sample in the window.
    """
    recent = [one for one in samples if one[0] < WINDOW.total_seconds()]
    if not recent:
        recent = list(samples[-1:])
        if not recent or len(samples) < 2 or recent[0][0] > 2 * (samples[-2][0] - recent[0][0]):
            return None
    if len(recent) < _FEWEST:
        recent = list(samples[-_FEWEST:])
    gaps = [older[0] - newer[0] for older, newer in pairwise(recent)]
    if gaps:
        usual = sorted(gaps)[(len(gaps) - 1) // 2]
        rests = [place for place, gap in enumerate(gaps) if gap > max(_REST_SECONDS, 4 * usual)]
        recent = recent[rests[-1] + 1 :] if rests else recent
    first, last = recent[0][0], recent[-1][0]
    if len(recent) == 1:
        return recent[0][1] / max(_LEAST_SECONDS, first)
    gap = (first - last) / (len(recent) - 1)
    seconds = first - max(float(tally.TICK_SECONDS), min(last, gap))
    return sum(done for _, done in recent[1:]) / max(_LEAST_SECONDS, seconds)
