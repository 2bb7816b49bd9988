"""The audit: who opened, downloaded, exported what, signed in, and changed what, as one list.

Lines of their own are `Event` rows, written by `record`; what people changed stands in the history (`Action`) and is
read from there. A line costs one insert. It never fails the page that writes it, and on a busy SQLite file it waits
for a moment only: what could not be written is written together with the next line.
"""

from __future__ import annotations

import atexit
import contextlib
import csv
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from search.asking import address_of, current_request
from search.errors import BadValue
from search.models import Action, Event, Image
from search.patience import briefly
from search.wording import counted

log = logging.getLogger(__name__)

Kind = Event.Kind
CHANGED = "changed"
"""The kind of the lines that come from the history."""
KINDS: dict[str, str] = {CHANGED: "Changed pictures", **dict(Kind.choices)}
PAGE = 100
MOST_PENDING = 10_000
_PRUNED_AT_ONCE = 5_000

_pending: deque[Event] = deque(maxlen=MOST_PENDING)


# --- writing ----------------------------------------------------------------------------------------


def record(
    kind: str,
    user: Any,
    *,
    text: str = "",
    image: Image | int | None = None,
    count: int | None = None,
    name: str | None = None,
) -> None:
    """Note that `user` did something: one of `Event.Kind`; None stands for the command line.

    `text` says what in a few words (a picture's path, "12 pictures as ZIP"), `image` and `count` what it was about,
    `name` who, where there is no account. The address is taken from the request that is being answered. Never
    raises on account of the database, and belongs after what it speaks of.
    """
    request = current_request()
    known = user is not None and getattr(user, "pk", None) is not None
    line = Event(
        kind=Kind(kind),
        user_id=user.pk if known else None,
        name=(name if name is not None else user.get_username() if known else "")[:150],
        image_id=image.pk if isinstance(image, Image) else image,
        count=count,
        text=_text(text or (f"{image.source.name}: {image.path_text}" if isinstance(image, Image) else "")),
        address=address_of(request) if request is not None else None,
        created_at=timezone.now(),
    )
    _pending.append(line)
    flush(patient=request is None)


def flush(*, patient: bool = False) -> bool:
    """Write the lines that wait; False when the database was busy and they go on waiting.

    `patient`: wait for the database as long as any other write does, as commands may.
    """
    if connection.in_atomic_block and connection.needs_rollback:
        return False
    lines: list[Event] = []
    while _pending:
        try:
            lines.append(_pending.popleft())
        except IndexError:  # another thread took the last one
            break
    if not lines:
        return True
    try:
        with contextlib.nullcontext() if patient else briefly(), transaction.atomic():
            Event.objects.bulk_create(lines, batch_size=500)
    except OperationalError as error:
        _pending.extendleft(reversed(lines))
        log.warning("%s of the audit to be written later: %s", counted(len(lines), "line"), error)
        return False
    except DatabaseError as error:
        said = "; ".join(f"{line.created_at:%F %T} {line.kind} {line.name}" for line in lines)
        log.error("Lines of the audit that the database does not take (%s): %s", error, said)
        return False
    return True


@atexit.register
def _flush_at_the_end() -> None:
    if _pending:
        with contextlib.suppress(Exception):  # the process ends: there is nobody left to tell
            flush(patient=True)


def prune() -> int:
    """Delete the lines older than IMAGESEARCH_AUDIT_DAYS (0: none), some at a time; returns how many went."""
    flush(patient=True)
    days: int = settings.IMAGESEARCH_AUDIT_DAYS
    if not days:
        return 0
    old = Event.objects.filter(created_at__lt=timezone.now() - timedelta(days=days)).order_by()
    count = 0
    while ids := list(old.values_list("pk", flat=True)[:_PRUNED_AT_ONCE]):
        count += Event.objects.filter(pk__in=ids).delete()[0]
    return count


def _text(text: str) -> str:
    clean = "".join(letter if letter.isprintable() else "�" for letter in text)
    return clean if len(clean) <= 300 else clean[:299] + "…"


# --- reading ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line of the audit."""

    at: datetime
    kind: str
    who: str
    text: str
    image_id: int | None
    """Only when the reader may see that image."""
    count: int | None
    address: str
    key: tuple[datetime, int, int]
    """Its place in the list."""

    @property
    def label(self) -> str:
        return KINDS[self.kind]

    @property
    def cursor(self) -> str:
        at, table, row = self.key
        return f"{at.isoformat()},{table},{row}"


@dataclass(frozen=True)
class Wanted:
    """The filters of the audit: a name, a kind of `KINDS`, first and last day (of the installation's time zone)."""

    person: str = ""
    kind: str = ""
    since: date | None = None
    until: date | None = None


def wanted(params: Any) -> Wanted:
    """The filters of a query string. Raises BadValue with a sentence."""
    kind = params.get("kind", "").strip()
    if kind and kind not in KINDS:
        raise BadValue(f"There is nothing of the kind “{kind[:40]}”: choose one of the list.")
    return Wanted(
        person=params.get("person", "").replace("\0", "").strip()[:150],
        kind=kind,
        since=_day(params.get("since", "")),
        until=_day(params.get("until", "")),
    )


def parse_cursor(text: str) -> tuple[datetime, int, int] | None:
    """What `Line.cursor` wrote; None for anything else."""
    parts = text.split(",")
    if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit() and parts[2].isascii() and parts[2].isdigit()):
        return None
    try:
        at = datetime.fromisoformat(parts[0].replace(" ", "+"))
    except ValueError:
        return None
    row = int(parts[2])
    return (at, int(parts[1]), row) if at.tzinfo and row < 2**63 else None


def lines(
    user: Any, wanted: Wanted, *, before: tuple[datetime, int, int] | None = None, limit: int = PAGE
) -> tuple[list[Line], bool]:
    """A page of the audit, newest first, below the line `before`; and whether older ones follow.

    Staff (and None, the command line) read everybody's, others their own. Three queries.
    """
    everything = user is None or user.is_staff
    found: list[tuple[tuple[datetime, int, int], Event | Action]] = []
    if wanted.kind != CHANGED:
        events = Event.objects.all() if everything else Event.objects.filter(user=user.pk)
        if wanted.kind:
            events = events.filter(kind=wanted.kind)
        if wanted.person:
            events = events.filter(name=wanted.person)
        rows = _page(events, wanted, before, _EVENTS)[: limit + 1]
        found += [((event.created_at, _EVENTS, event.pk), event) for event in rows]
    if wanted.kind in ("", CHANGED):
        actions = Action.objects.all() if everything else Action.objects.filter(user=user.pk)
        if wanted.person:
            actions = actions.filter(user__username=wanted.person)
        changed = _page(actions.select_related("user").defer("ids", "inverse"), wanted, before, _ACTIONS)[: limit + 1]
        found += [((action.created_at, _ACTIONS, action.pk), action) for action in changed]
    found.sort(key=lambda one: one[0], reverse=True)
    shown = found[:limit]
    ids = {row.image_id for _, row in shown if isinstance(row, Event) and row.image_id is not None}
    visible = set(Image.objects.visible_to(user).filter(pk__in=ids).values_list("pk", flat=True)) if ids else set()
    return [_line(key, row, visible, everything) for key, row in shown], len(found) > limit


def csv_rows(user: Any, wanted: Wanted) -> Iterator[str]:
    """The whole list as lines of CSV, newest first, a thousand rows in memory at a time."""
    writer = csv.writer(_Echo())
    yield "\ufeff" + writer.writerow(["when", "kind", "who", "what", "image", "count", "address"])
    before, more = None, True
    while more:
        page, more = lines(user, wanted, before=before, limit=1_000)
        for line in page:
            cells = [line.at.isoformat(), line.label, line.who, line.text, line.image_id, line.count, line.address]
            yield writer.writerow([_cell(cell) for cell in cells])
        before = page[-1].key if page else None


_ACTIONS, _EVENTS = 0, 1


def _page(rows: QuerySet[Any], wanted: Wanted, before: tuple[datetime, int, int] | None, table: int) -> QuerySet[Any]:
    if wanted.since:
        rows = rows.filter(created_at__gte=_start_of(wanted.since))
    if wanted.until and wanted.until < date.max:
        rows = rows.filter(created_at__lt=_start_of(wanted.until + timedelta(days=1)))
    if before is not None:
        at, of, row = before
        same = Q(created_at=at, pk__lt=row) if table == of else Q(created_at=at) if table < of else Q(pk__in=[])
        rows = rows.filter(Q(created_at__lt=at) | same)
    return rows.order_by("-created_at", "-id")


def _line(key: tuple[datetime, int, int], row: Event | Action, visible: set[int], everything: bool) -> Line:
    if isinstance(row, Action):
        who = row.user.get_username() if row.user else ""
        return Line(row.created_at, CHANGED, who, row.summary, None, row.count, "", key)
    seen = row.image_id in visible
    # Of an image that may no longer be seen its name is kept back as well.
    text = row.text if seen or everything or row.image_id is None else f"Image {row.image_id}"
    image = row.image_id if seen else None
    return Line(row.created_at, row.kind, row.name, text, image, row.count, row.address or "", key)


def _day(text: str) -> date | None:
    text = text.strip()
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadValue(f"“{text[:40]}” is no date: write it as 2024-05-31.") from None


def _start_of(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _cell(value: Any) -> str:
    """A cell that a spreadsheet takes as text: what begins like a formula is led by an apostrophe."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


class _Echo:
    """A file for `csv.writer` that gives back what is written."""

    def write(self, text: str) -> str:
        return text


__all__ = ["CHANGED", "KINDS", "Kind", "Line", "Wanted", "csv_rows", "flush", "lines", "prune", "record", "wanted"]
