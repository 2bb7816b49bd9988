"""What django-q2 runs now and then: a few coarse tasks that take ids or nothing, and that may run twice or never.

The long work is done by `manage.py process`; losing this queue costs nothing but punctuality.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

if TYPE_CHECKING:
    from search.models import EmbeddingSpace

log = logging.getLogger(__name__)

_SCHEDULES = {
    "crawl due sources": ("ingestion.tasks.crawl_due", 1),
    "finish removals": ("ingestion.tasks.finish_removals", 1),
    "expire uploads": ("ingestion.tasks.expire_uploads", 60),
    "sort review queues": ("ingestion.tasks.sort_review_queues", 2),
    "keep indexes": ("ingestion.tasks.keep_indexes", 10),
    "keep look-alikes": ("ingestion.tasks.keep_look_alikes", 5),
    "back up": ("ingestion.tasks.back_up_due", 10),
    "prune": ("ingestion.tasks.prune", 24 * 60),
}
"""{name: (function, minutes between two runs)}"""

_MOST_INDEX_SECONDS = 3_000
"""Below the time after which django-q2 gives a task up (Q_CLUSTER)."""
_KEEP_CRAWLS = timedelta(days=90)
_KEEP_PARTS = timedelta(days=3)
"""Crawls of single folders come by the thousand."""


def ensure_schedules() -> None:
    """Make the schedules that are not there, and set right those that differ; running it again changes nothing."""
    from django_q.models import Schedule

    for name, (function, minutes) in _SCHEDULES.items():
        wanted = {"func": function, "schedule_type": Schedule.MINUTES, "minutes": minutes, "repeats": -1}
        found = list(Schedule.objects.filter(name=name).order_by("pk"))
        for twin in found[1:]:
            twin.delete()
        if not found:
            Schedule.objects.create(name=name, **wanted)
        elif any(getattr(found[0], field) != value for field, value in wanted.items()):
            Schedule.objects.filter(pk=found[0].pk).update(**wanted)


def crawl_due() -> int:
    """Crawl every source whose time has come and that no watcher keeps; returns how many were crawled."""
    from ingestion import pausing, watchstate
    from search.models import Source

    if pausing.rest():
        return 0
    now, count = timezone.now(), 0
    unwatched = Source.objects.exclude(pk__in=watchstate.watched_ids())
    for source in unwatched.filter(recrawl_minutes__gt=0).order_by("crawled_at"):
        due = source.crawled_at is None or source.crawled_at + timedelta(minutes=source.recrawl_minutes) <= now
        if due and crawl_source(source.pk):
            count += 1
    return count


def crawl_source(source_id: int) -> bool:
    """Crawl one source; False when it is gone, being crawled, or not there just now."""
    from ingestion.errors import IngestionError
    from ingestion.register import crawl
    from search.models import Source

    source = Source.objects.filter(pk=source_id).first()
    if source is None:
        return False
    try:
        crawl(source)
    except IngestionError as error:
        log.info("Not crawled: %s", error)
        return False
    return True


def finish_removals() -> int:
    """Take away the spaces whose removal was begun and not finished; returns how many."""
    from ingestion.removal import finish
    from search.spaces import image_spaces

    some = list(image_spaces().filter(removing=True))
    for space in some:
        finish(space)
    return len(some)


def sort_review_queues() -> int:
    """Sort the images into the review queues anew where the settings were changed; returns how many changed."""
    from search import review

    return review.refresh() if review.is_stale() else 0


def keep_indexes() -> list[str]:
    """Make the approximate index of the space that serves where it is due; returns the names of those made.

    In a process of its own, at low priority, whose memory is given back with it; searches go on with what there was.
    After a failure it is tried again after a pause that doubles each time.
    """
    from ingestion import pausing, tally
    from search import indexing
    from search.spaces import active_space

    space = active_space()
    done_there = tally.counts().get(space.stage, (0, 0, 0))[1]  # spares a small library all that follows
    if done_there < indexing.KEPT_FROM or pausing.rest() or indexing.rests(space) or not indexing.due(space):
        return []
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "spaces", "index", space.name, "--json"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MOST_INDEX_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return _not_made(space, f"It took more than {_MOST_INDEX_SECONDS // 60} minutes and was stopped.")
    if done.returncode < 0:
        return _not_made(space, f"Its process was ended by signal {-done.returncode}, as when memory runs out.")
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"Its process ended with status {done.returncode}."]
        return _not_made(space, said[0].removeprefix("CommandError: "))
    log.info("The index of %s was made anew.", space.name)
    return [space.name]


def _not_made(space: EmbeddingSpace, why: str) -> list[str]:
    from search import index_failures
    from search.vectors import get_store

    try:
        failure = index_failures.note(get_store(space).file.folder, why)
    except OSError as error:
        log.error("The index of %s was not made: %s It cannot be kept that it failed: %s", space.name, why, error)
        return []
    again = datetime.fromtimestamp(failure.again_at).astimezone().strftime("%d %b %H:%M")
    log.error("The index of %s was not made: %s It is tried again from %s on.", space.name, why, again)
    return []


def keep_look_alikes() -> bool:
    """Look for pictures that look alike where something changed; whether it was done.

    In a process of its own, at low priority, whose memory is given back with it; pages go on with what was found last.
    """
    from ingestion import pausing
    from search import look_alike_pairs

    if pausing.rest() or not look_alike_pairs.due():
        return False
    command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "similar", "--refresh", "--no-list"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MOST_INDEX_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        log.error("Looking for look-alikes took too long and was stopped; the last ones stay.")
        return False
    if done.returncode:
        log.error("Look-alikes were not looked for: %s", done.stderr.strip()[-500:])
        return False
    return True


def expire_uploads() -> None:
    """Delete the pictures people searched with, once their time is over."""
    from search.uploads import expire

    expire()


def verify_space(space_id: int) -> bool:
    """Verify one space because somebody asked for it; False when it is gone."""
    from ingestion import checking

    return checking.run(space_id)


def retry_failed() -> int:
    """Let everything that failed wait again; returns how many steps do."""
    from ingestion import ledger

    return ledger.retry()


def back_up_due() -> str:
    """Make the scheduled backup when its time has come; returns its path, or "" when none was due or possible."""
    from ingestion import backup_schedule
    from ingestion.errors import IngestionError

    try:
        return str(backup_schedule.run() or "")
    except IngestionError as error:  # tried again at the next turn; /health says it too
        log.error("No backup was made: %s", error)
        return ""


def prune() -> dict[str, int]:
    """Delete what only the recent past needs: rate samples, old entries of the change log, old crawls, old sessions,
    lines of the audit whose days are over."""
    from ingestion import ledger
    from ingestion.models import Crawl
    from search import audit, changes, sessions, signin_limit

    now = timezone.now()
    old = Crawl.objects.exclude(state=Crawl.State.RUNNING).filter(
        Q(started_at__lt=now - _KEEP_CRAWLS) | Q(started_at__lt=now - _KEEP_PARTS) & ~Q(parts="")
    )
    return {
        "ticks": ledger.prune_ticks(),
        "changes": changes.prune(),
        "crawls": old.delete()[0],
        "events": audit.prune(),
        "sessions": sessions.prune(),
        "attempts": signin_limit.prune(),
    }
