"""Taking back what an Action did: at once, or in portions that each are one short transaction.

A portion takes its steps out of the Action that is taken back, in the transaction that runs them: what an Action
still holds is what is still to be taken back. Whoever is stopped half way finds a history that says so, and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from django.utils import timezone

from search import steps
from search.arrays import Ids
from search.atomically import atomically
from search.compact import pack_ids, unpack_ids
from search.errors import NotAllowed
from search.history import NOT_YOUR_OWN, NOT_YOURS, PARTLY, ROW, count_of, fitting, left_out, locked, pks, record
from search.models import Action, Image

_Steps = list[steps.Step]
_IN_PORTIONS = "in_portions"
"""In the details of an action: it was taken back in portions, and gets its steps again when that is taken back."""


@atomically
def undo(action: Action, user: Any) -> Action | None:
    """Take back what an Action did, and record that as an Action of its own (which can be undone in turn).

    Images that were changed since stay as they are, and the summary says how many. Images that `user` may not
    edit stay too: whoever may edit them can undo the rest. Returns None when there is nothing (left) to undo.
    Raises NotAllowed when `user` may edit none of the action's images.
    """
    # Read again under a lock: a second click finds what the first one did.
    current, above, _ = _locked_rows(action.pk)
    current.details.pop(PARTLY, None)  # this takes all of it that is left
    if current.undone_at is not None or not current.inverse:
        return None
    wanted = [steps.unpack(packed) for packed in current.inverse]
    run = _Run(wanted, user)
    if run.empty:
        _mark(current, user)
        return None
    if run.forbidden:
        raise NotAllowed(run.forbidden)
    if _does_again(current) and not run.done:
        return None  # changed since: what was undone stays undone, and can be done again once they are as they were
    if above is not None and _IN_PORTIONS in above.details:
        _give_back(above, run.outcome, anew=above.undone_at is not None)
    if run.rest:
        _leave(current, run.rest)
    else:
        _mark(current, user)
    details = _details(current, skipped=run.skipped, changed_since=run.changed_since)
    if not run.rest:
        details |= _row_of(current, user)
    made = record(user, "undo", run.outcome, summary="", skipped=run.skipped, details=details)
    return None if made is None else _told(made, current)


@dataclass(frozen=True)
class Portion:
    """What an undo in portions has done so far."""

    made: Action | None
    """The Action that stands for all its portions; None while nothing was changed."""
    left: int
    """Images that are still to be taken back; 0: it is through."""
    message: str = ""
    """Why nothing at all could be taken back, when it is through."""


@atomically
def undo_portion(action: Action, user: Any, *, most: int, begun: Action | None = None, anew: bool = False) -> Portion:
    """Take back the next `most` images of an Action, in one transaction; called until nothing is left it does what
    `undo` does.

    `begun` is the Action that the portions before made. With `anew`, which the first portion says, the images come
    into question again that an earlier undo left half way had to leave to others.
    """
    current, above, made = _locked_rows(action.pk, begun)
    if current.undone_at is not None or not current.inverse:
        return Portion(made, 0)
    place = _Place.read(current, anew=anew)
    now, place.todo = _cut(place.todo, most)
    run = _Run(now, user)
    again = _does_again(current)
    place.others += run.rest
    if again and not run.done and not run.rest:
        place.unmoved += now
    place.skipped += run.skipped
    place.changed_since += run.changed_since
    if run.done:
        part = record(user, "undo", run.outcome, summary="", skipped=0, details=_details(current))
        assert part is not None
        made = part if made is None else _joined(made, part)
    if above is not None:
        _give_back(above, run.outcome, anew=anew and PARTLY not in current.details and above.undone_at is not None)
    if place.todo:
        place.keep(current)
    else:
        _close(current, place, made, user)
    if made is not None:
        made.details = {**made.details, "skipped": place.skipped, "changed_since": place.changed_since}
        _told(made, current)
    message = ""
    if made is None and not place.todo:
        message = NOT_YOURS if place.others else "The pictures were changed since: nothing of it was taken back."
    return Portion(made, len(_union(place.todo)), message)


def size_of(action: Action) -> int:
    """How many images there are (still) to be taken back."""
    return len(_union([steps.unpack(packed) for packed in action.inverse]))


class _Run:
    """Steps, run as far as this person may."""

    def __init__(self, wanted: _Steps, user: Any) -> None:
        by_images = [step for step in wanted if step.by_images]
        everything = _existing(_union(by_images))
        self.empty = not len(everything) and len(by_images) == len(wanted)
        mine = locked(everything, user)
        theirs = np.setdiff1d(everything, mine)
        self.skipped = len(theirs)
        refused: _Steps = []

        def allowed(step: steps.Step) -> bool:
            """Asked when the steps before it have run: whose a share is, its album says, which comes back first."""
            if step.by_images or step.permitted(user):
                return True
            refused.append(step)
            return False

        self.outcome = steps.run(step.only(mine) if step.by_images else step for step in wanted if allowed(step))
        self.done = len(self.outcome.changed) + self.outcome.rows
        self.changed_since = len(np.setdiff1d(self.outcome.left, self.outcome.changed))
        self.rest = [
            step.only(theirs) if step.by_images else step
            for step in wanted
            if (step.by_images and len(np.intersect1d(step.ids, theirs))) or step in refused
        ]
        """What this person may not take back."""
        nothing_mine = not self.empty and not len(mine) and len(refused) + len(by_images) == len(wanted)
        self.forbidden = (NOT_YOURS if by_images else NOT_YOUR_OWN) if nothing_mine else ""


@dataclass
class _Place:
    """Where an undo in portions stands. The action holds the steps in this order, and their numbers in its details."""

    todo: _Steps
    others: _Steps
    """What others have to take back."""
    unmoved: _Steps
    """What was found otherwise when it was to be done again: kept for as long as nothing at all could be."""
    total: int
    skipped: int = 0
    changed_since: int = 0

    @classmethod
    def read(cls, current: Action, *, anew: bool) -> _Place:
        everything = [steps.unpack(packed) for packed in current.inverse]
        said = current.details.get(PARTLY, {})
        total = said.get("of") or len(_union(everything))
        if anew or not said:
            return cls(everything, [], [], total)
        second = len(everything) - said["unmoved"]
        first = second - said["others"]
        counts = {key: said[key] for key in ("skipped", "changed_since")}
        return cls(everything[:first], everything[first:second], everything[second:], total, **counts)

    def keep(self, current: Action) -> None:
        """Write it down: the action says of itself that it is half undone."""
        current.inverse = [step.pack() for step in (*self.todo, *self.others, *self.unmoved)]
        current.details = {
            **current.details,
            _IN_PORTIONS: True,
            PARTLY: {
                "of": self.total, "left": len(_union(self.todo)), "others": len(self.others),
                "unmoved": len(self.unmoved), "skipped": self.skipped, "changed_since": self.changed_since,
            },
        }  # fmt: skip
        current.save(update_fields=["inverse", "details"])


def _close(current: Action, place: _Place, made: Action | None, user: Any) -> None:
    """The last portion: the action is undone, or what is left of it is for others."""
    current.details = {**current.details, _IN_PORTIONS: True}
    current.details.pop(PARTLY, None)
    if place.others:
        _leave(current, [*place.others, *place.unmoved], to_others=made is not None)
        return
    if made is None and _does_again(current):
        _leave(current, place.unmoved, to_others=False)
        return
    current.inverse = []
    current.save(update_fields=["inverse"])
    _mark(current, user)
    if made is not None:
        made.details = {**made.details, **_row_of(current, user)}


def _leave(current: Action, rest: _Steps, *, to_others: bool = True) -> None:
    current.inverse = [step.pack() for step in rest]
    if to_others:
        current.details = {**current.details, "left_to_others": True}
    current.save(update_fields=["inverse", "details"])


def _cut(everything: _Steps, most: int) -> tuple[_Steps, _Steps]:
    """The steps to run now, on at most so many images, and those that come after them.

    Steps keep their order. Between two that speak of single rows images go by their ids, so that each of them is
    taken back whole.
    """
    now: _Steps = []
    place = 0
    while place < len(everything):
        if not len(everything[place].ids):
            now.append(everything[place])
            place += 1
            continue
        if not most:
            break
        end = next((n for n in range(place, len(everything)) if not len(everything[n].ids)), len(everything))
        some = _union(everything[place:end])[:most]
        most -= len(some)
        later: _Steps = []
        for step in everything[place:end]:
            inside = int(np.searchsorted(step.ids, some[-1], side="right"))
            if inside:
                now.append(step if inside == len(step.ids) else step.only(step.ids[:inside]))
            if inside < len(step.ids):
                later.append(step.only(step.ids[inside:]) if inside else step)
        if later:
            return now, [*later, *everything[end:]]
        place = end
    return now, everything[place:]


def _locked_rows(action_id: int, begun: Action | None = None) -> tuple[Action, Action | None, Action | None]:
    """The action; the one that it had undone; and what the portions before made, unless that was taken back since.

    All that will be written are locked, in the order of their numbers: two who press at once do not wait for each
    other for ever.
    """
    chain: list[int] = []
    following: int | None = action_id
    while following is not None and following not in chain:
        chain.append(following)
        known = Action.objects.filter(pk=following).values_list("verb", "details__undoes").first()
        following = known[1] if known is not None and known[0] == "undo" else None
    wanted = chain if begun is None else [*chain, begun.pk]
    found = {row.pk: row for row in Action.objects.select_for_update().filter(pk__in=wanted).order_by("pk")}
    if action_id not in found:
        raise Action.DoesNotExist
    made = found.get(begun.pk) if begun is not None else None
    if made is not None and (made.undone_at is not None or PARTLY in made.details):
        made = None
    return found[action_id], found.get(chain[1]) if len(chain) > 1 else None, made


def _give_back(above: Action, outcome: steps.Outcome, *, anew: bool) -> None:
    """What was undone in portions and is done again can be undone once more: its action gets the steps for that."""
    above.refresh_from_db(fields=["details", "inverse"])
    kept = [] if anew else above.inverse
    above.inverse = [*(step.pack() for step in outcome.inverse), *kept]
    fields = ["inverse"]
    if said := above.details.get(PARTLY):
        left = size_of(above)
        above.details = {**above.details, PARTLY: {**said, "left": left}}
        if left >= said["of"]:
            above.details.pop(PARTLY)
        fields.append("details")
    above.save(update_fields=fields)


def _joined(made: Action, part: Action) -> Action:
    """The Action of all portions so far, with that of the last one in it."""
    made.ids = pack_ids(np.concatenate([unpack_ids(made.ids), unpack_ids(part.ids)]))
    made.count = len(unpack_ids(made.ids))
    made.inverse = [*part.inverse, *made.inverse]
    made.save(update_fields=["ids", "count", "inverse"])
    part.delete()
    return made


def _details(current: Action, *, skipped: int = 0, changed_since: int = 0) -> dict[str, Any]:
    # Undone and done again many times over, the sentence still names the one thing that was first done.
    said = current.details.get("said", current.summary)
    return {
        "undoes": current.pk, "said": said, "again": _does_again(current),
        "changed_since": changed_since, "skipped": skipped,
    }  # fmt: skip


def _told(made: Action, current: Action) -> Action:
    """The Action with the sentence that its numbers make."""
    details = made.details
    summary = f"Did again: {details['said']}" if details["again"] else f"Undid: {details['said']}"
    if made.count and made.count != current.count:
        summary += f", on {count_of(made.count)}"
    if details["changed_since"]:
        summary += f"; {details['changed_since']:,} changed since and left as they are"
    made.summary = fitting(summary, left_out(details["skipped"]))
    made.save(update_fields=["summary", "details"])
    return made


def _does_again(action: Action) -> bool:
    """Whether taking this action back does again what it had undone."""
    return action.verb == "undo" and not action.details.get("again", False)


def _row_of(action: Action, user: Any) -> dict[str, Any]:
    """Where the history shows the undoing of this action: in the row of what was done, if it is the same person's."""
    own = user is not None and action.user_id == user.pk
    return {ROW: action.details.get(ROW, action.pk)} if own else {}


def _union(parts: _Steps) -> Ids:
    return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(step.ids for step in parts)]))


def _existing(ids: Ids) -> Ids:
    parts = [pks(Image.objects.filter(pk__in=chunk)) for chunk in steps.chunks(ids)]
    return np.unique(np.concatenate([ids[:0], *parts]))


def _mark(action: Action, user: Any) -> None:
    """Note that this action is undone. What it had undone itself is in effect again, and so on down the chain."""
    undone, current = True, action
    while True:
        current.undone_at = timezone.now() if undone else None
        current.undone_by = user if undone else None
        current.save(update_fields=["undone_at", "undone_by", *(["details"] if current is action else [])])
        earlier = Action.objects.filter(pk=current.details.get("undoes")).first() if current.verb == "undo" else None
        if earlier is None:
            return
        undone, current = not undone, earlier
