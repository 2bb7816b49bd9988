"""The history of curation: every verb writes one Action, which `search.undoing` can take back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from django.db.models import QuerySet

from search import (  # noqa: F401  (each kind of steps adds itself)
    changes,
    copy_steps,
    difference_steps,
    personal_steps,
    review_steps,
    row_steps,
    steps,
)
from search.arrays import Ids
from search.compact import pack_ids, unpack_ids
from search.errors import NotAllowed
from search.models import Action, Change, Image
from search.wording import counted

Images = QuerySet[Image] | Iterable[int] | Ids
"""What a verb is applied to: a queryset of images, or ids."""

NOT_YOURS = "You may not change these pictures: ask an owner of their source to make you an editor."
NOT_YOUR_OWN = "This is not yours to take back: whoever it belongs to can."

SAID: dict[str, Callable[..., str]] = {}
"""How a verb that keeps a `tally` in its details says what it did, by the verb: `said(**tally) -> sentence`."""

ROW = "row"
"""In the details of an undoing: the action in whose row of the history it is shown."""
PARTLY = "partly"
"""In the details of an action that is half undone: of how many images, and how many are left."""


def count_of(number: int) -> str:
    """ "1 picture", "3 pictures", "50,000 pictures"."""
    return counted(number, "picture")


def editable(images: Images, user: Any) -> tuple[Ids, int]:
    """The ids among `images` that `user` may edit, ascending and locked until the transaction ends; how many others.

    Raises NotAllowed when there are images but none of them may be edited.
    """
    asked = np.unique(ids_of(images))
    found = locked(asked, user)
    if len(asked) and not len(found):
        raise NotAllowed(NOT_YOURS)
    return found, len(asked) - len(found)


def seen(images: Images, user: Any) -> tuple[Ids, int]:
    """The ids among `images` that `user` may see, ascending; how many others there are.

    Raises NotAllowed when there are images but none of them may be seen.
    """
    asked = np.unique(ids_of(images))
    found = np.concatenate(
        [
            asked[:0],
            *(pks(Image.objects.visible_to(user).filter(pk__in=chunk)) for chunk in steps.chunks(asked)),
        ]
    )
    if len(asked) and not len(found):
        raise NotAllowed("None of these pictures is there for you to see any more.")
    return np.unique(found), len(asked) - len(found)


def ids_of(images: Images) -> Ids:
    """The ids of what a verb is given, int64, in the order given."""
    wanted = images.values_list("pk", flat=True) if isinstance(images, QuerySet) else images
    array = wanted if isinstance(wanted, np.ndarray) else np.fromiter(wanted, dtype=np.int64)
    return array.astype(np.int64)


def locked(asked: Ids, user: Any) -> Ids:
    """The editable ones of these ascending ids, locked."""
    rows = Image.objects.editable_by(user).order_by("pk").select_for_update(no_key=True)
    return np.concatenate([asked[:0], *(pks(rows.filter(pk__in=chunk)) for chunk in steps.chunks(asked))])


def pks(rows: QuerySet[Image]) -> Ids:
    return np.fromiter(rows.values_list("pk", flat=True), dtype=np.int64)


def record(
    user: Any, verb: str, outcome: steps.Outcome, *, summary: str, skipped: int, details: dict[str, Any] | None = None
) -> Action | None:
    """Write the Action and the change log for what was done; None when nothing changed.

    `summary` says what was done; how many were skipped is added to it.
    """
    if not len(outcome.changed) and not outcome.rows:
        return None
    if len(outcome.listed):
        changes.record(Change.Kind.IMAGES, outcome.listed)
    if len(facts := np.setdiff1d(outcome.changed, outcome.listed)):
        changes.record(Change.Kind.FACTS, facts)
    for kind in sorted(outcome.kinds):
        changes.record(kind)
    said = left_out(skipped)
    return Action.objects.create(
        user=user,
        verb=verb,
        summary=fitting(summary, said),
        details={**(details or {}), "skipped": skipped},
        ids=pack_ids(outcome.changed),
        count=len(outcome.changed),
        inverse=[step.pack() for step in outcome.inverse],
    )


def joined(first: Action | None, second: Action) -> Action:
    """Two Actions of one verb, done to different images one after the other, as one: the first, which takes all."""
    if first is not None:
        first = Action.objects.select_for_update().filter(pk=first.pk, undone_at=None).first()
    if first is None or PARTLY in first.details:
        return second
    count = first.count + second.count
    skipped = first.details.get("skipped", 0) + second.details.get("skipped", 0)
    said = second.summary.removesuffix(left_out(second.details.get("skipped", 0)))
    details = {**first.details, "skipped": skipped}
    if "tally" in first.details:  # what the verb counts besides the images that changed
        tally = {name: first.details["tally"][name] + n for name, n in second.details["tally"].items()}
        details["tally"] = tally
        said = SAID[first.verb](**tally)
    else:
        said = said.replace(count_of(second.count), count_of(count), 1)
    first.summary = fitting(said, left_out(skipped))
    first.ids = pack_ids(np.concatenate([unpack_ids(first.ids), unpack_ids(second.ids)]))
    first.inverse = [*second.inverse, *first.inverse]
    first.details = details
    first.count = count
    first.save(update_fields=["summary", "ids", "inverse", "details", "count"])
    second.delete()
    return first


def left_out(skipped: int) -> str:
    return f"; {count_of(skipped)} left out, not yours to change" if skipped else ""


@dataclass(frozen=True)
class Row:
    """One line of somebody's history: something done, together with its undoing and doing again."""

    action: Action
    press: int | None
    """The action that the row's button undoes; None: no button."""
    redo: bool
    """What the button does: do it again, or take it back."""
    latest: bool = False
    """The newest row that can be undone: pressing from here down takes back one change after the other."""
    partly: dict[str, int] | None = None
    """Of what the button does half is done: of how many images (`of`), and how many are `left`."""

    @property
    def undone(self) -> bool:
        return self.action.undone_at is not None


def rows(user: Any, *, before: int | None = None, limit: int = 50) -> tuple[list[Row], bool]:
    """A page of one's own history, newest first, below the action numbered `before`; and whether older ones follow.

    Undoing something of one's own adds no line: the line of what was undone is struck and offers to do it again.
    Two queries.
    """
    own = Action.objects.filter(user=user).exclude(details__has_key=ROW)
    if before is not None:
        own = own.filter(pk__lt=before)
    found = list(own.select_related("undone_by").defer("ids", "inverse").order_by("-pk")[: limit + 1])
    shown = found[:limit]
    standing: _Standing = {}
    if shown:
        turns = Action.objects.filter(
            user=user, undone_at=None, pk__gt=shown[-1].pk, **{f"details__{ROW}__in": [one.pk for one in shown]}
        )
        columns = ("pk", f"details__{ROW}", "details__again", f"details__{PARTLY}")
        for pk, row, again, partly in turns.order_by("pk").values_list(*columns):
            standing[row, again] = pk, partly
    made = [_row(action, standing) for action in shown]
    top = next((n for n, row in enumerate(made) if _takes_back(row)), None) if before is None else None
    return [replace(row, latest=n == top) for n, row in enumerate(made)], len(found) > limit


_Standing = dict[tuple[int, bool], tuple[int, dict[str, int] | None]]


def _row(action: Action, standing: _Standing) -> Row:
    reversal = action.verb == "undo" and not action.details.get("again", False)
    if action.undone_at is None:
        # Done again, the newest doing is what to take back.
        press, partly = standing.get((action.pk, not reversal), (action.pk, action.details.get(PARTLY)))
        return Row(action, press, redo=reversal, partly=partly)
    press, partly = standing.get((action.pk, reversal), (None, None))
    return Row(action, press, redo=not reversal, partly=partly)


def _takes_back(row: Row) -> bool:
    return row.press is not None and not row.redo and not row.undone and "left_to_others" not in row.action.details


def fitting(summary: str, said: str) -> str:
    room = 300 - len(said)
    return (summary if len(summary) <= room else summary[: room - 1] + "…") + said
