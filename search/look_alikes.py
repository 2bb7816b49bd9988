"""Look-alikes: resized, recompressed and slightly edited versions of a picture, as groups of which one is kept.

What lies beneath the cover of a stack is no look-alike of it: a stack counts as its cover, and is hidden as a whole.
Groups are made for each person out of what they may see and nothing else: neither a count nor the picture in whose
middle the others stand tells of what they may not. Two pictures of which somebody said that they are different are
never in one group.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from django.conf import settings
from django.db import transaction
from django.db.models import Count, Max
from django.urls import reverse

from search import copies, copy_steps, hamming, history, look_alike_pairs, stacks, steps
from search.arrays import Ids
from search.bitmaps import Library, get_library
from search.copies import Group, Tally
from search.copy_rule import ALIKE_RULES, ordered, reason
from search.difference_steps import TellApart
from search.errors import BadValue
from search.hamming import Hashes, Places
from search.kept import Kept
from search.look_alike_pairs import Known
from search.models import Action, Difference, Image
from search.queues import Queue, register_queue, tally_of
from search.wording import counted

NEWEST, LARGEST = "newest", "largest"
MOST_OF_A_GROUP = copies.SHOWN
"""Only what is shown is hidden or told apart; of a larger group the rest is shown when that is done."""


@dataclass(frozen=True)
class _Made:
    """Every group that a person can clear up: `ids[starts[i]:starts[i] + counts[i]]` are one."""

    ids: Ids
    mine: npt.NDArray[np.bool_]
    hashes: Hashes
    starts: Ids
    counts: Ids
    editable: Ids
    newest: Ids
    made: float


_NONE: Ids = np.zeros(0, dtype=np.int64)
_results: Kept[_Made] = Kept(8, 3_600)


def tally(user: Any, within: int | None = None) -> Tally:
    """How many groups there are, and how many images would be hidden in all of them. Two small queries, and those
    that follow the change log."""
    made = _made(user, within)
    return Tally(len(made.starts), int((made.editable - 1).sum()))


def groups(
    user: Any, *, within: int | None = None, order: str = NEWEST, after: tuple[int, int] | None = None,
    limit: int = 20, prefer: int | None = None,
) -> tuple[list[Group], tuple[int, int] | None]:  # fmt: skip
    """Groups of at least two listed images that `user` may change, those with the newest image or the largest first.

    `within`: bits in which an image and the middle of its group differ at most (None: as far as was computed). `after`:
    go on after this place, which a call before gave. `prefer`: a source whose images are kept before others. Second,
    the place to go on from, None at the end. The number of queries does not depend on how many there are.
    """
    made = _made(user, within)
    first = made.counts if order == LARGEST else np.zeros(len(made.counts), dtype=np.int64)
    places = np.lexsort((-made.newest, -first))
    if after is not None:
        behind = (first[places] < after[0]) | (first[places] == after[0]) & (made.newest[places] < after[1])
        places = places[behind]
    wanted = places[:limit]
    found = _described(made, wanted, user, prefer)
    if len(places) <= limit:
        return found, None
    return found, (int(first[wanted[-1]]), int(made.newest[wanted[-1]]))


def _made(user: Any, within: int | None) -> _Made:
    known, library = look_alike_pairs.known(), get_library()
    if known is None:
        return _Made(_NONE, _NONE > 0, np.zeros(0, np.uint64), _NONE, _NONE, _NONE, _NONE, 0.0)
    within = known.within if within is None else min(within, known.within)
    visible, editable = library.visible(user), library.visible(user, to_edit=True)
    decided = Difference.objects.aggregate(last=Max("pk"), number=Count("pk"))
    there = known.ids < min(len(visible), len(editable))
    if settings.IMAGESEARCH_STACKS:
        there &= library.covers(known.ids) == known.ids
    ids, node = known.ids[there], known.node[there]
    seen, mine = visible[ids], editable[ids]
    rights = ids.tobytes(), seen.tobytes(), mine.tobytes()
    key = known.key, library.loads, within, decided["last"], decided["number"], rights
    found = _results.get(key)
    if found is None:
        found = _grouped(known, ids[seen], node[seen], mine[seen], within, library)
        _results.put(key, found, keep=True)
    return found


def _grouped(known: Known, ids: Ids, node: Places, mine: npt.NDArray[np.bool_], within: int, library: Library) -> _Made:
    """Groups of these images, which is all that the person may see."""
    marks = _marks()
    hashes = known.values[node]
    near = known.distances <= within
    pairs, distances = known.pairs[near], known.distances[near]
    # An image of which somebody decided something is a node of its own; the others of one hash are one together.
    own = np.isin(ids, np.fromiter(marks, dtype=np.int64, count=len(marks)))
    values = len(known.values)
    place = np.where(own, values + np.cumsum(own) - 1, node)
    image_of = dict(zip(place[own].tolist(), ids[own].tolist(), strict=True))
    crowd = np.bincount(place, minlength=values + len(image_of))
    pairs, distances = _with_own(pairs, distances, node[own], crowd, image_of, marks)
    kept = (crowd[pairs[:, 0]] > 0) & (crowd[pairs[:, 1]] > 0)
    pairs, distances = pairs[kept], distances[kept]
    # In the middle is what most pictures are near to.
    near_to = np.bincount(pairs[:, 0], weights=crowd[pairs[:, 1]], minlength=len(crowd))
    near_to += np.bincount(pairs[:, 1], weights=crowd[pairs[:, 0]], minlength=len(crowd)) + crowd
    rank = np.empty(len(crowd), dtype=np.int64)
    rank[np.argsort(-near_to, kind="stable")] = np.arange(len(crowd))
    centre = hamming.groups(pairs, distances, rank)[place]
    clear = _without_conflicts(ids, centre, place, own, marks)
    ids, centre, mine, hashes = ids[clear], centre[clear], mine[clear], hashes[clear]
    order = np.lexsort((ids, centre))
    ids, centre, mine, hashes = ids[order], centre[order], mine[order], hashes[order]
    starts = np.flatnonzero(np.append(True, centre[1:] != centre[:-1])) if len(ids) else _NONE
    counts = np.diff(np.append(starts, len(ids)))
    editable = np.add.reduceat(mine.astype(np.int64), starts) if len(starts) else starts
    wanted = (editable >= 2) & ~_only_copies(ids, starts, library)
    starts, counts, editable = starts[wanted], counts[wanted], editable[wanted]
    return _Made(ids, mine, hashes, starts, counts, editable, ids[starts + counts - 1], time.monotonic())


def _marks() -> dict[int, set[str]]:
    """Of which decisions each image is a part."""
    marks: dict[int, set[str]] = {}
    for image, mark in Difference.objects.values_list("image_id", "mark").order_by().iterator(10_000):
        marks.setdefault(image, set()).add(mark)
    return marks


def _with_own(
    pairs: Places, distances: npt.NDArray[np.uint8], hashes: Places, crowd: Places, image_of: dict[int, int],
    marks: dict[int, set[str]],
) -> tuple[Places, npt.NDArray[np.uint8]]:  # fmt: skip
    """The pairs, and those of the nodes that are one image each (of these `hashes`), but for those told apart."""
    if not image_of:
        return pairs, distances
    nodes_of: dict[int, list[int]] = {}
    for node, value in zip(image_of, hashes.tolist(), strict=True):
        nodes_of.setdefault(value, [value] if crowd[value] else []).append(node)
    touching = np.zeros(len(crowd), dtype=np.bool_)
    touching[list(nodes_of)] = True
    touched = touching[pairs].any(axis=1)
    more: list[tuple[int, int, int]] = []
    for (one, other), far in zip(pairs[touched].tolist(), distances[touched].tolist(), strict=True):
        for a in nodes_of.get(one, [one]):
            more += [(a, b, far) for b in nodes_of.get(other, [other])]
    for nodes in nodes_of.values():
        more += [(a, b, 0) for n, a in enumerate(nodes) for b in nodes[n + 1 :]]
    nothing: set[str] = set()
    more = [
        (a, b, far)
        for a, b, far in more
        if marks.get(image_of.get(a, 0), nothing).isdisjoint(marks.get(image_of.get(b, 0), nothing))
    ]
    added = np.array(more, dtype=np.int64).reshape(-1, 3)
    return (
        np.concatenate([pairs[~touched], added[:, :2]]),
        np.concatenate([distances[~touched], added[:, 2].astype(np.uint8)]),
    )


def _without_conflicts(
    ids: Ids, centre: Places, place: Places, own: npt.NDArray[np.bool_], marks: dict[int, set[str]]
) -> npt.NDArray[np.bool_]:
    """Which images stay: of two that are near to the middle of a group, but told apart, the first one."""
    stays = np.ones(len(ids), dtype=np.bool_)
    taken: dict[int, set[str]] = {}
    decided = np.flatnonzero(own)
    for n in decided[np.argsort(place[decided] != centre[decided], kind="stable")].tolist():
        there = taken.setdefault(int(centre[n]), set())
        of = marks[int(ids[n])]
        if there.isdisjoint(of):
            there |= of
        else:
            stays[n] = False
    return stays


def _only_copies(ids: Ids, starts: Ids, library: Library) -> npt.NDArray[np.bool_]:
    """Which groups are the very same bytes: those are the page of exact copies'."""
    if not len(starts):
        return starts > 0
    twins, digests = library.twins()
    order = np.argsort(twins)
    place = np.minimum(np.searchsorted(twins[order], ids), max(len(twins) - 1, 0))
    key = ids.astype(np.uint64)
    if len(twins):
        known = twins[order][place] == ids
        key = np.where(known, digests[order][place], key)
    same: npt.NDArray[np.bool_] = np.minimum.reduceat(key, starts) == np.maximum.reduceat(key, starts)
    return same


def _described(made: _Made, places: Places, user: Any, prefer: int | None) -> list[Group]:
    parts = []
    for one in places.tolist():
        whole = slice(int(made.starts[one]), int(made.starts[one] + made.counts[one]))
        first = np.argsort(~made.mine[whole], kind="stable")[:MOST_OF_A_GROUP]
        parts.append((int(made.newest[one]), made.ids[whole][first], made.hashes[whole][first], int(made.counts[one])))
    everything = np.unique(np.concatenate([_NONE, *(part[1] for part in parts)]))
    rows = copies.rows(user).listed().filter(pk__in=everything.tolist()).in_bulk() if len(everything) else {}
    found = {copy.image.pk: copy for copy in copies.described(list(rows.values()), user)}
    groups_ = []
    for key, ids, hashes, total in parts:
        # Whoever was read anew since has another hash, and waits for the next time.
        alike = [
            found[pk]
            for pk, value in zip(ids.tolist(), hashes.view(np.int64).tolist(), strict=True)
            if pk in found and found[pk].image.perceptual_hash == value
        ]
        mine = sum(copy.editable for copy in alike)
        if mine < 2:
            continue
        sorted_ = ordered(alike, prefer, ALIKE_RULES)
        total -= len(ids) - len(alike)
        groups_.append(Group(key, sorted_, total, reason(sorted_, prefer, ALIKE_RULES), mine - 1))
    return groups_


def reset() -> None:
    """Forget every group that this process made."""
    _results.clear()


def register_look_alikes_queue() -> None:
    """Look-alikes as one of the review queues."""
    register_queue(
        Queue(
            "look-alikes",
            "Look-alikes",
            "Resized, recompressed and slightly edited versions of a picture: keep one of each group, hide the others.",
            lambda user: tally_of(tally(user).groups),
            lambda: reverse("similar"),
            order=85,
        )
    )


# --- clearing up


@transaction.atomic
def hide_others(keeper: int, others: Iterable[int], user: Any) -> Action | None:
    """Keep one image and hide these others, which look like it; what people decided about them goes over to it.

    Only those that `user` may change are hidden. One Action; None when there is nothing to hide. Raises BadValue when
    the keeper is not there, not to be changed, or one of the others does not look like it; NotAllowed when none may be
    changed.
    """
    given = np.unique(np.array([keeper, *others], dtype=np.int64))
    # Everything that may change is locked at once, in order, before anything is read of it.
    history.locked(np.union1d(given, stacks.whole(given)), user)
    rows = _listed(given, user)
    if keeper not in rows:
        raise BadValue(f"Image {keeper} is not among your pictures any more. Load the page again and choose another.")
    kept = rows[keeper]
    strange = [pk for pk, value in rows.items() if not _alike(kept, value)]
    if strange:
        raise BadValue(f"Image {strange[0]} does not look like the one to keep (any more). Load the page again.")
    mine, _ = history.editable(sorted(rows), user)
    if keeper not in mine:
        raise BadValue(f"Image {keeper} lies in a folder that you may only look at: keep one of your own.")
    hidden = [pk for pk in mine.tolist() if pk != keeper]
    if not hidden:
        return None
    whole, _ = history.editable(stacks.whole(hidden), user)
    outcome = steps.run(copy_steps.planned({pk: keeper for pk in whole.tolist() if pk != keeper}))
    return history.record(
        user, "hide look-alikes", outcome, skipped=0,
        summary=f"Hid {counted(len(hidden), 'look-alike')} of {history.count_of(1)}",
    )  # fmt: skip


@transaction.atomic
def tell_apart(images: Sequence[int], user: Any) -> Action | None:
    """Say of these images, as far as `user` may change them, that they are different ones: no two of them are shown
    as look-alikes again. One Action. Raises NotAllowed, and BadValue for fewer than two."""
    given = np.unique(np.array(images, dtype=np.int64))
    history.locked(given, user)
    rows = _listed(given, user)
    mine, skipped = history.editable(sorted(rows), user)
    if len(mine) < 2:
        raise BadValue("Two pictures at least are told apart, which are yours to change. Load the page again.")
    by = None if user is None else user.pk
    outcome = steps.run([TellApart(mine, secrets.token_hex(8), by, on=True)])
    return history.record(
        user,
        "different",
        outcome,
        skipped=skipped,
        summary=f"Said that {history.count_of(len(mine))} are different ones",
    )


def _listed(ids: Ids, user: Any) -> dict[int, int | None]:
    """The perceptual hashes of those that this person may see and that are listed."""
    if len(ids) > steps.CHUNK:
        raise BadValue(f"That are more than {steps.CHUNK:,} pictures at once: choose fewer.")
    rows = Image.objects.visible_to(user).listed().filter(pk__in=ids.tolist())
    return dict(rows.values_list("pk", "perceptual_hash"))


def _alike(one: int | None, other: int | None) -> bool:
    """Whether two hashes can stand in one group: its middle lies between them."""
    if one is None or other is None:
        return False
    return int((one ^ other) & (2**64 - 1)).bit_count() <= 2 * look_alike_pairs.asked()
