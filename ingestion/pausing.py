"""Rest for the machine: work that a person paused, and quiet hours. Workers on every host look here each second.

A pause is a number in the database, so it outlives restarts and holds for workers on other hosts. Searching,
curating and everything a person asks for by name go on meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.utils import timezone

from search.models import Counter

PAUSED = "work:paused"
"""Seconds since 1970 at which a person paused the work."""
AWAKE = "work:awake"
"""Until when (seconds since 1970) a person lets the work go on in spite of quiet hours."""


@dataclass(frozen=True)
class Rest:
    """Why no work is done just now; the sentence is for pages, commands and logs."""

    sentence: str
    by_person: bool


def pause(now: datetime | None = None) -> bool:
    """Let the workers rest until `resume`; False when they did already because somebody said so."""
    if Counter.objects.filter(name=PAUSED).exists():
        return False
    seconds = int((now or timezone.now()).timestamp())
    Counter.objects.bulk_create([Counter(name=PAUSED, value=seconds)], ignore_conflicts=True)
    Counter.objects.filter(name=AWAKE).delete()
    return True


def resume(now: datetime | None = None) -> bool:
    """Let the workers go on, also through the quiet hours that are now; False when nothing kept them."""
    now = now or timezone.now()
    kept = rest(now) is not None
    Counter.objects.filter(name=PAUSED).delete()
    until = quiet_until(now)
    if until is not None:
        Counter.objects.update_or_create(name=AWAKE, defaults={"value": int(until.timestamp())})
    return kept


def rest(now: datetime | None = None) -> Rest | None:
    """Why no work is to be done now; None when it is. One small query."""
    now = now or timezone.now()
    said = dict(Counter.objects.filter(name__in=[PAUSED, AWAKE]).values_list("name", "value"))
    if PAUSED in said:
        since = timezone.localtime(datetime.fromtimestamp(said[PAUSED], tz=UTC))
        return Rest(f"The work is paused since {since:%Y-%m-%d %H:%M}.", by_person=True)
    until = quiet_until(now)
    if until is None or said.get(AWAKE, 0) > now.timestamp():
        return None
    return Rest(f"Quiet hours: the work rests until {timezone.localtime(until):%H:%M}.", by_person=False)


def quiet_until(now: datetime) -> datetime | None:
    """When the quiet hours that are now end; None outside of them. Wall clock of IMAGESEARCH_TIME_ZONE."""
    local = timezone.localtime(now)
    minute = local.hour * 60 + local.minute
    ends = []
    for first, last in settings.IMAGESEARCH_QUIET_HOURS:
        if first <= minute < last if first < last else minute >= first or minute < last:
            left = (last - minute) % (24 * 60)
            ends.append(local.replace(second=0, microsecond=0) + timedelta(minutes=left))
    return max(ends, default=None)
