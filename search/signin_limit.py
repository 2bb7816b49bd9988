"""The sign-in limit: wrong passwords are counted by django-axes, and too many of them make a person wait.

Counted is each name from each address, so that nobody elsewhere can lock the owner out; and each address alone, with
ten times the patience, so that a guesser does not go on with the next name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Q, QuerySet, Sum
from django.utils import timezone

from search.asking import counted_as

ADDRESS_FACTOR = 10


@dataclass(frozen=True)
class Waiting:
    """Somebody who has to wait; an empty name stands for everybody at that address."""

    name: str
    address: str
    seconds: int


class Handler(AxesDatabaseHandler):
    """Axes' own handler, which counts the address alone as well."""

    def get_failures(self, request: Any, credentials: dict[str, Any] | None = None) -> int:
        failures: int = super().get_failures(request, credentials)
        return max(failures, _sum(_recent().filter(ip_address=request.axes_ip_address)) // ADDRESS_FACTOR)


def waiting_seconds(username: str, address: str | None) -> int:
    """How long signing in with this name from this address still has to wait; 0: it need not."""
    from_there = _recent().filter(ip_address=address)
    limit: int = settings.AXES_FAILURE_LIMIT
    ends = [_end(from_there.filter(username=username), limit), _end(from_there, limit * ADDRESS_FACTOR)]
    last = max((end for end in ends if end is not None), default=None)
    return max(1, round((last - timezone.now()).total_seconds())) if last is not None else 0


def locked(most: int = 100) -> list[Waiting]:
    """Who has to wait just now: each name at each address, and the addresses that wait whatever the name."""
    limit: int = settings.AXES_FAILURE_LIMIT
    attempts = _recent().order_by()
    names = attempts.values("username", "ip_address").annotate(failures=Sum("failures_since_start"))
    pairs = [
        (one["username"] or "", one["ip_address"])
        for one in names.filter(failures__gte=limit).order_by("username", "ip_address")[:most]
    ]
    places = attempts.values("ip_address").annotate(failures=Sum("failures_since_start"))
    pairs += [
        ("", one["ip_address"])
        for one in places.filter(failures__gte=limit * ADDRESS_FACTOR).order_by("ip_address")[:most]
    ]
    found = (Waiting(name, place or "", waiting_seconds(name, place)) for name, place in pairs)
    return [one for one in found if one.seconds]


def unlock(*, username: str = "", address: str = "") -> int:
    """Let this name, or this address, try again at once; both empty: everybody. Returns how many notes went.

    Unlocking a name also forgets what else came from the addresses that it was tried from: otherwise the person
    would go on waiting where the whole address does.
    """
    attempts = AccessAttempt.objects.all()
    if username:
        places = AccessAttempt.objects.filter(username=username).values("ip_address")
        attempts = attempts.filter(Q(username=username) | Q(ip_address__in=places))
    if address:
        attempts = attempts.filter(ip_address=counted_as(address))
    ids = list(attempts.values_list("pk", flat=True))
    for start in range(0, len(ids), 5_000):
        AccessAttempt.objects.filter(pk__in=ids[start : start + 5_000]).delete()
    return len(ids)


def prune() -> int:
    """Delete the attempts that count no more."""
    return AccessAttempt.objects.filter(attempt_time__lt=_threshold()).delete()[0]


def _threshold() -> datetime:
    wait: timedelta = settings.AXES_COOLOFF_TIME
    return timezone.now() - wait


def _recent() -> QuerySet[AccessAttempt]:
    return AccessAttempt.objects.filter(attempt_time__gte=_threshold())


def _sum(attempts: QuerySet[AccessAttempt]) -> int:
    return attempts.aggregate(number=Sum("failures_since_start"))["number"] or 0


def _end(attempts: QuerySet[AccessAttempt], limit: int) -> datetime | None:
    """When so many of these attempts will have expired that fewer than `limit` remain; None when they are fewer."""
    left = _sum(attempts)
    if left < limit:
        return None
    for at, number in attempts.order_by("attempt_time").values_list("attempt_time", "failures_since_start"):
        left -= number
        if left < limit:
            return at + settings.AXES_COOLOFF_TIME
    return None
