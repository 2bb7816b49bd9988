"""Exact copies: images with the very same bytes, as groups of which one is kept and the others are hidden.

Files are never deleted: hiding is a step of curation like any other, and one press takes it back. What people decided
about the hidden ones (tags, rating, title, favourites, albums, comments) goes over to the one that is kept, in the
same Action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import transaction
from django.db.models import Count, F
from django.urls import reverse

from search import copy_steps, history, steps
from search.access import editable_sources
from search.arrays import Ids
from search.bitmaps import get_library
from search.copy_rule import Copy, Facts, ordered, reason
from search.errors import BadQuery, BadValue
from search.models import Action, Album, AlbumEntry, Comment, Favourite, Image, ImageTag, Source
from search.queues import Queue, register_queue, tally_of
from search.wording import counted

SHOWN = 12
"""So many copies of a group are drawn; the others are counted."""
MOST_SHOWN = 60
"""So many are drawn on a page: with large groups it has fewer groups."""
MOST_OF_A_GROUP = 100
"""From so many copies the page proposes the one to keep; hiding asks all of them."""


@dataclass(frozen=True)
class Group:
    """Images with the same bytes, the one that is proposed first and the others in the order of the rule."""

    key: int
    """The newest image of the group: groups come by it, newest first."""
    copies: list[Copy]
    total: int
    """How many there are, when not all of them are in `copies`."""
    reason: str
    """Why the first is proposed, in a sentence."""
    hiding: int = 0
    """How many would be hidden: those that the person may change, but for the one that is kept."""

    @property
    def keeper(self) -> Copy:
        return self.copies[0]

    @property
    def shown(self) -> list[Copy]:
        return self.copies[:SHOWN]

    @property
    def unseen(self) -> int:
        return self.total - len(self.shown)


@dataclass(frozen=True)
class Tally:
    """How many groups there are, and how many images would be hidden in all of them."""

    groups: int
    hiding: int


@dataclass(frozen=True)
class _Runs:
    """Every group that a person can clear up, as arrays: `ids[starts[i]:starts[i] + counts[i]]` are one group."""

    ids: Ids
    mine: npt.NDArray[np.bool_]
    """Whether the person may change that image."""
    starts: Ids
    counts: Ids
    editable: Ids
    newest: Ids


def tally(user: Any) -> Tally:
    """The counter of the queue. No query but the few that follow the change log."""
    runs = _runs(user)
    return Tally(len(runs.starts), int((runs.editable - 1).sum()))


def count(user: Any) -> int:
    """How many groups wait for this person."""
    return tally(user).groups


def groups(
    user: Any, *, older: int | None = None, limit: int = 20, prefer: int | None = None
) -> tuple[list[Group], bool]:
    """Groups of at least two listed copies that `user` may change, the group with the newest image first: at most
    `limit`, and of large groups fewer.

    `older`: those after the group of this key. `prefer`: a source whose copies are kept before others. Second,
    whether more follow. The number of queries does not depend on how many there are.
    """
    runs = _runs(user)
    order = np.argsort(-runs.newest, kind="stable")
    if older is not None:
        order = order[runs.newest[order] < older]
    drawn = np.cumsum(np.minimum(runs.counts[order[:limit]], SHOWN))
    wanted = order[: max(1, int(np.searchsorted(drawn, MOST_SHOWN, side="right")))]
    parts = [_part(runs, int(one)) for one in wanted]
    made = _described(parts, user, prefer)
    return made, len(order) > len(wanted)


def group_of(image: Image, user: Any, *, prefer: int | None = None) -> Group | None:
    """The group in which this image is, when there is one for this person."""
    runs = _runs(user)
    at = np.flatnonzero(runs.ids == image.pk)
    if not len(at):
        return None
    place = int(np.searchsorted(runs.starts, at[0], side="right")) - 1
    found = _described([_part(runs, place)], user, prefer)
    return next((one for one in found if any(copy.image.pk == image.pk for copy in one.copies)), None)


def representatives(user: Any) -> Ids:
    """One image of every group, newest group first: what `hide_others` takes to clear up all of them."""
    runs = _runs(user)
    return runs.ids[runs.starts][np.argsort(-runs.newest, kind="stable")]


def preferred(key: Any, user: Any) -> int | None:
    """The source that a form or command names by its id; None for none. Raises BadQuery for one that is not there."""
    text = str(key or "")
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 19:
        known = Source.objects.all() if user is None or user.is_staff else editable_sources(user)
        if known.filter(pk=int(text)).exists():
            return int(text)
    raise BadQuery("The folder whose copies shall be kept first is not there any more. Choose another one.")


def _runs(user: Any) -> _Runs:
    library = get_library()
    ids, digests = library.twins()
    visible, editable = library.visible(user), library.visible(user, to_edit=True)
    known = ids < min(len(visible), len(editable))
    ids, digests = ids[known], digests[known]
    seen = visible[ids]
    ids, digests = ids[seen], digests[seen]
    mine = editable[ids]
    first = np.append(True, digests[1:] != digests[:-1]) if len(ids) else np.zeros(0, dtype=np.bool_)
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, len(ids)))
    own = np.add.reduceat(mine.astype(np.int64), starts) if len(starts) else starts
    there = own >= 2
    starts, counts, own = starts[there], counts[there], own[there]
    return _Runs(ids, mine, starts, counts, own, ids[starts + counts - 1])


@dataclass(frozen=True)
class _Part:
    key: int
    ids: Ids
    total: int
    mine: int


def _part(runs: _Runs, place: int) -> _Part:
    """One group; of a very large one those that the person may change come first."""
    whole = slice(int(runs.starts[place]), int(runs.starts[place] + runs.counts[place]))
    ids = runs.ids[whole][np.argsort(~runs.mine[whole], kind="stable")][:MOST_OF_A_GROUP]
    return _Part(int(runs.newest[place]), ids, int(runs.counts[place]), int(runs.editable[place]))


def _described(parts: Sequence[_Part], user: Any, prefer: int | None) -> list[Group]:
    everything = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(part.ids for part in parts)]))
    there = rows(user).listed().filter(pk__in=everything.tolist()).in_bulk() if len(everything) else {}
    found = {copy.image.pk: copy for copy in described(list(there.values()), user)}
    made = []
    for part in parts:
        alike: dict[bytes | None, list[Copy]] = {}
        for one in part.ids.tolist():
            if one in found:
                alike.setdefault(found[one].image.sha256, []).append(found[one])
        for digest, copies in alike.items():
            mine = sum(copy.editable for copy in copies)
            if digest is None or mine < 2:
                continue  # changed since, or digests that are folded to the same number by chance
            sorted_ = ordered(copies, prefer)
            whole = len(alike) == 1 and len(copies) == len(part.ids)
            hiding = (part.mine if whole else mine) - 1
            total = part.total if whole else len(copies)
            made.append(Group(part.key, sorted_, total, reason(sorted_, prefer), hiding))
    return made


def rows(user: Any) -> Any:
    """Images with all that a group shows, and that the rule asks for."""
    return Image.objects.visible_to(user).for_grid().only(
        "id", "source__name", "source__root", "path", "name", "folder", "state", "sha256", "width", "height",
        "shown_at", "title", "title_origin", "rating", "rating_origin", "hidden", "format", "size", "mtime_ns",
        "perceptual_hash", "camera",
    )  # fmt: skip


def described(images: Sequence[Image], user: Any) -> list[Copy]:
    """What this person may know of each: five queries, however many there are (for each 10,000).

    Favourites and albums are their own: of what others keep to themselves nothing is said, and nothing decides.
    """
    ids = np.array(sorted(one.pk for one in images), dtype=np.int64)
    albums = Album.objects.visible_to(user).values("pk")  # not by their entries: those of the images are fewer
    facts: dict[int, Facts] = {int(i): Facts() for i in ids}
    for chunk in steps.chunks(ids):
        links = ImageTag.objects.filter(image__in=chunk).order_by("tag__key")
        for pk, name in links.values_list("image_id", "tag__name"):
            facts[pk] = replace(facts[pk], tags=(*facts[pk].tags, name))
        for said, field in (
            (AlbumEntry.objects.alias(of=F("album_id") + 0).filter(of__in=albums), "albums"),
            (Comment.objects.all(), "comments"),
            (Favourite.objects.all() if user is None else Favourite.objects.filter(user=user.pk), "favourites"),
        ):
            own = said.filter(image__in=chunk).order_by()
            for pk, number in own.values_list("image_id").annotate(number=Count("pk")):
                facts[pk] = replace(facts[pk], **{field: number})
    all_mine = user is None or user.is_staff
    sources = set() if all_mine else set(editable_sources(user).values_list("pk", flat=True))
    return [Copy(one, facts[one.pk], all_mine or one.source_id in sources) for one in images]


def register_copies_queue() -> None:
    """Exact copies as one of the review queues."""
    register_queue(
        Queue(
            "copies",
            "Exact copies",
            "Files with the very same bytes: keep one of each group and hide the others.",
            lambda user: tally_of(count(user)),
            lambda: reverse("copies"),
            order=80,
        )
    )


# --- clearing up


@transaction.atomic
def hide_others(
    images: Iterable[int] | Ids, user: Any, *, chosen: bool = False, prefer: int | None = None
) -> Action | None:
    """Of every group in which one of these images is, hide all copies but one, of those that `user` may change.

    Kept is the one that the rule prefers; with `chosen` the image that was given. What people decided about the
    hidden ones goes over to it. One Action; None when there is nothing to hide. Raises NotAllowed, and BadValue
    when a chosen image is not there or not to be changed.
    """
    given = np.unique(history.ids_of(images))
    named = Image.objects.visible_to(user).filter(sha256__isnull=False)
    if chosen:
        named = named.listed()
    digests: dict[int, bytes] = {}
    for chunk in steps.chunks(given):
        digests.update((pk, bytes(one or b"")) for pk, one in named.filter(pk__in=chunk).values_list("pk", "sha256"))
    if chosen and (gone := [int(one) for one in given if int(one) not in digests]):
        raise BadValue(f"Image {gone[0]} is not among your pictures any more. Load the page again and choose another.")
    wanted = sorted(set(digests.values()))
    members: list[int] = []
    for start in range(0, len(wanted), steps.CHUNK):
        alike = Image.objects.visible_to(user).listed().filter(sha256__in=wanted[start : start + steps.CHUNK])
        members += alike.values_list("pk", flat=True)
    if not members:
        return None
    mine, _ = history.editable(members, user)
    if chosen and (theirs := [int(one) for one in given if int(one) not in set(mine.tolist())]):
        raise BadValue(f"Image {theirs[0]} lies in a folder that you may only look at: keep one of your own.")
    keeper_of = _keepers(mine, user, given if chosen else None, prefer)
    outcome = steps.run(copy_steps.planned(keeper_of))
    hidden = len(keeper_of)
    keepers = len(set(keeper_of.values()))
    return history.record(
        user, "hide copies", outcome, skipped=0,
        summary=summary(hidden, keepers), details={"tally": {"hidden": hidden, "kept": keepers}},
    )  # fmt: skip


def summary(hidden: int, kept: int) -> str:
    """What was done, in a sentence."""
    return f"Hid {counted(hidden, 'exact copy', 'exact copies')} of {history.count_of(kept)}"


history.SAID["hide copies"] = summary


def _keepers(mine: Ids, user: Any, chosen: Ids | None, prefer: int | None) -> dict[int, int]:
    """{id of an image to hide: id of the one that is kept}, of these locked images."""
    alike: dict[bytes, list[Image]] = {}
    for chunk in steps.chunks(mine):
        for image in rows(user).listed().filter(pk__in=chunk, sha256__isnull=False):
            alike.setdefault(bytes(image.sha256 or b""), []).append(image)
    several = [images for images in alike.values() if len(images) > 1]
    pick: Callable[[list[Image]], int]
    if chosen is not None:
        kept = set(chosen.tolist())

        def pick(images: list[Image]) -> int:
            return next(image.pk for image in sorted(images, key=lambda one: one.pk) if image.pk in kept)
    else:
        found = {copy.image.pk: copy for copy in described([image for images in several for image in images], user)}

        def pick(images: list[Image]) -> int:
            return int(ordered([found[image.pk] for image in images], prefer)[0].image.pk)

    keeper_of: dict[int, int] = {}
    for images in several:
        keeper = pick(images)
        keeper_of.update((image.pk, keeper) for image in images if image.pk != keeper)
    return keeper_of
