"""Dates as people write them in a search, and the pictures taken within them."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from django.db.models import DurationField, ExpressionWrapper, F, IntegerField, Q, Value
from django.db.models.functions import Cast
from django.utils import timezone

from search.errors import BadQuery

if TYPE_CHECKING:
    from search.querysets import ImageQuerySet

_DATE = re.compile(r"^(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?$", re.ASCII)
_WIDEST_OFFSET = dt.timedelta(hours=26)
"""Wall clocks on Earth lie between UTC-12 and UTC+14; cameras are set wrong by more at times, files say up to a day."""
_ACCEPTS = "a year, month or day such as 2019, 2019-05 or 2019-05-17"


def parse_date(name: str, value: str) -> str:
    """A date -> its canonical form (padded). Raises BadQuery."""
    _span(name, value)
    return "-".join(part if len(part) == 4 else part.zfill(2) for part in value.strip().split("-"))


def parse_range(value: str) -> str:
    """`2019`, `2019-05..2020-01`, `2019..`, `..2019` -> canonical. Raises BadQuery."""
    start, dots, end = (part.strip() for part in value.strip().partition(".."))
    if not dots:
        return parse_date("date", start)
    if not start and not end:
        raise BadQuery(f"date: takes {_ACCEPTS}, or two of them with .. between, not {value[:40]!r}.")
    start, end = start and parse_date("date", start), end and parse_date("date", end)
    if start and end and _span("date", start)[0] >= _span("date", end)[1]:
        raise BadQuery(f"date:{start}..{end} ends before it starts. Write the earlier date first.")
    return f"{start}..{end}"


def within(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    """Images taken in a canonical range, by the wall clock of where they were taken."""
    start, dots, end = value.partition("..")
    if not dots:
        end = start
    return queryset.filter(_taken(_span("date", start)[0] if start else None, _span("date", end)[1] if end else None))


def before(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    """Images taken before a canonical date begins."""
    return queryset.filter(_taken(None, _span("before", value)[0]))


def after(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    """Images taken after a canonical date has ended."""
    return queryset.filter(_taken(_span("after", value)[1], None))


def _span(name: str, value: str) -> tuple[dt.datetime, dt.datetime]:
    """First moment of a date and first moment after it, as naive wall-clock times. Raises BadQuery."""
    match = _DATE.match(value.strip())
    try:
        if match is None:
            raise ValueError
        year, month, day = (int(part) if part else None for part in match.groups())
        if year is None or not 1000 <= year <= 9000:
            raise ValueError
        start = dt.datetime(year, month or 1, day or 1)
        days = 1 if day else calendar.monthrange(year, month)[1] if month else 366 if calendar.isleap(year) else 365
        return start, start + dt.timedelta(days=days)
    except (ValueError, OverflowError):
        raise BadQuery(f"{name}: takes {_ACCEPTS}, not {value[:40]!r}.") from None


def _taken(start: dt.datetime | None, end: dt.datetime | None) -> Q:
    """Condition: the wall clock showed a time from `start` (included) to `end` (excluded).

    With a known offset the clock is the instant plus the offset; without one the capture time is the clock,
    kept as if UTC; a file without a capture date has its modification time in the program's own time zone.
    """
    local = F("captured_at") + ExpressionWrapper(
        Cast("captured_offset", IntegerField()) * Value(dt.timedelta(minutes=1), output_field=DurationField()),
        output_field=DurationField(),
    )
    condition = Q()
    for bound, compare in [(start, "gte"), (end, "lt")]:
        if bound is None:
            continue
        as_utc = bound.replace(tzinfo=dt.UTC)
        here = timezone.make_aware(bound, timezone.get_default_timezone())
        offset_known = Q(captured_offset__isnull=False) & _compared(local, compare, as_utc)
        clock_only = Q(captured_at__isnull=False, captured_offset__isnull=True, **{f"captured_at__{compare}": as_utc})
        file_time = Q(captured_at__isnull=True, **{f"shown_at__{compare}": here})
        # The first part is what the index on shown_at can answer; the second what no clock makes different, before
        # anything is computed.
        ahead = _WIDEST_OFFSET if compare == "gte" else -_WIDEST_OFFSET
        surely = Q(**{f"shown_at__{compare}": as_utc + ahead})
        condition &= Q(**{f"shown_at__{compare}": as_utc - ahead}) & (surely | offset_known | clock_only | file_time)
    return condition


def _compared(expression: Any, compare: str, moment: dt.datetime) -> Q:
    from django.db.models import DateTimeField
    from django.db.models.lookups import GreaterThanOrEqual, LessThan

    lookup = GreaterThanOrEqual if compare == "gte" else LessThan
    return Q(lookup(ExpressionWrapper(expression, output_field=DateTimeField()), Value(moment)))
