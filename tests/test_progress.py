"""Progress that does not lie: counts, pace, what remains."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from ingestion import ledger, progress
from ingestion.models import StageCount, StageTick
from search import panels
from search.models import EmbeddingSpace
from tests.factories import make_image

pytestmark = pytest.mark.django_db


def tick(stage: str, seconds_ago: float, done: int) -> None:
    StageTick.objects.create(stage=stage, started_at=timezone.now() - timedelta(seconds=seconds_ago), done=done)


def test_nothing_to_do_is_an_empty_report() -> None:
    assert progress.report() == []


def test_pace_and_eta_come_from_the_last_minutes_only() -> None:
    StageCount.objects.create(stage="read", waiting=600, done=400, failed=3)
    tick("read", 3600, 100_000)
    tick("read", 100, 100)
    tick("read", 50, 100)
    (row,) = progress.report()
    assert (row.waiting, row.done, row.failed, row.total) == (600, 400, 3, 1003)
    assert row.per_second == pytest.approx(2.0, rel=0.05)
    assert row.eta_seconds == pytest.approx(300, rel=0.05)
    assert row.label == "Reading files"


def test_without_a_pace_there_is_no_eta_and_without_work_it_is_zero() -> None:
    StageCount.objects.create(stage="read", waiting=5)
    StageCount.objects.create(stage="other", done=5)
    rows = {row.stage: row for row in progress.report()}
    assert (rows["read"].per_second, rows["read"].eta_seconds) == (None, None)
    assert rows["other"].eta_seconds == 0


def test_reading_comes_first_then_the_spaces_as_they_were_made() -> None:
    for name in ("zebra", "ant"):
        EmbeddingSpace.objects.create(name=name, encoder=name, key=name, label=name.title(), dim=4, text=False)
    image = make_image(state="waiting")
    ledger.queue([image.pk], ["embed:ant", "embed:zebra", "read"])
    StageCount.objects.create(stage="faces", waiting=1)
    rows = progress.report()
    assert [row.stage for row in rows] == ["read", "embed:zebra", "embed:ant", "faces"]
    assert rows[1].label == "Embedding with Zebra"


def test_the_report_costs_three_queries_however_much_there_is() -> None:
    for number in range(20):
        StageCount.objects.create(stage=f"stage{number}", waiting=1)
        tick(f"stage{number}", 20, 5)
    with CaptureQueriesContext(connection) as queries:
        assert len(progress.report()) == 20
    assert len(queries) == 3


def test_search_pages_show_it_through_their_panels() -> None:
    StageCount.objects.create(stage="read", waiting=5)
    assert [row.stage for row in panels.progress_rows()] == ["read"]


def looks_of(commits: list[float], batch: int, *, until: float, step: float = 7.3) -> list[tuple[float, float | None]]:
    """(moment, pace) from ten minutes on, when a batch was recorded at each of these moments."""
    looks = []
    now = 600.0
    while now < until:
        ticks: dict[float, int] = {}
        for moment in commits:
            if moment <= now:
                ticks[moment // 10 * 10] = ticks.get(moment // 10 * 10, 0) + batch
        looks.append((now, progress.pace([(now - at, done) for at, done in sorted(ticks.items()) if now - at < 3600])))
        now += step
    return looks


@pytest.mark.parametrize("every", [0.5, 3, 12, 32, 60, 100, 150, 280])
@pytest.mark.parametrize("phase", [0.0, 4.0, 9.9])
def test_after_ten_minutes_the_eta_of_uniform_work_is_right_at_any_moment(every: float, phase: float) -> None:
    """Batches of 32 each so many seconds: from a quick machine to one that needs nine seconds for an image."""
    commits = [phase + every * n for n in range(1, int(1800 / every) + 1)]
    for now, pace in looks_of(commits, 32, until=1780):
        assert pace == pytest.approx(32 / every, rel=0.05), f"after {now:.0f} s"


def test_a_rest_is_not_counted_as_slowness() -> None:
    worked = [(age, 100) for age in (2400.0, 2390.0, 2380.0, 2370.0)]
    again = [(age, 100) for age in (55.0, 45.0, 35.0, 25.0, 15.0)] + [(5.0, 50)]
    assert progress.pace(worked + again) == pytest.approx(10, rel=0.1)


def test_a_pace_that_stopped_fades() -> None:
    ages = [300.0 - 10 * n for n in range(20)]
    assert progress.pace([(age, 100) for age in ages]) == pytest.approx(10 * 190 / 280, rel=0.05), "late results count"
    assert progress.pace([(age + 1000, 100) for age in ages]) is None
    assert progress.pace([]) is None
