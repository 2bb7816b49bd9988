"""Albums: ordered images of anybody's sources, owned by one person and shared with others.

An album shows each person only those of its images that this person may see. Owners and those it is shared with
as editors change what lies in it and in which order; owners alone rename, share and delete it. Every verb is one
transaction with one `Action`. They raise NotAllowed when the album or none of the images is theirs to use, and
BadValue for what cannot be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db.models import Max
from django.utils import timezone

from search import steps
from search.arrays import Ids
from search.atomically import atomically
from search.errors import BadValue, NotAllowed, runs_the_server
from search.facets import seen_by
from search.history import Images, count_of, ids_of, record, seen
from search.models import Action, Album, AlbumEntry, AlbumShare
from search.personal import require_person
from search.personal_steps import Enter, Leave, Rearrange, standing_at
from search.row_steps import SetRow, row_of
from search.text import clean, storable

MAX_NAME = 200
MAX_DESCRIPTION = 5_000


@atomically
def create(name: str, user: Any, description: str = "") -> tuple[Album, Action]:
    """Make an empty album of this person's."""
    require_person(user)
    album = Album.objects.create(
        owner=user, name=_name(name, user.pk), description=_description(description), created_at=timezone.now()
    )
    outcome = steps.Outcome(rows=1, inverse=[SetRow("album", album.pk, before=row_of(Album, album.pk), after=None)])
    action = record(user, "create album", outcome, summary=f"Made the album “{album.name}”", skipped=0)
    assert action is not None
    return album, action


@atomically
def describe(album: Album, user: Any, *, name: str | None = None, description: str | None = None) -> Action | None:
    """Rename an album or change what is said of it."""
    album = _own(album, user)
    after: dict[str, Any] = {}
    if name is not None:
        after["name"] = _name(name, album.owner_id, besides=album.pk)
    if description is not None:
        after["description"] = _description(description)
    outcome = _set(album, after)
    summary = f"Changed what the album “{album.name}” says"
    if after.get("name", album.name) != album.name:
        summary = f"Renamed the album “{album.name}” to “{after['name']}”"
    return record(user, "edit album", outcome, summary=summary, skipped=0)


@atomically
def set_cover(album: Album, image: int | None, user: Any) -> Action | None:
    """Show this image of the album as its cover (None: its first one)."""
    album = _changeable(album, user)
    if image is not None and not AlbumEntry.objects.filter(album=album, image=image).exists():
        raise BadValue("The cover is one of the album's pictures: add it to the album first.")
    if image is not None:
        seen([image], user)
    outcome = _set(album, {"cover_id": image})
    return record(user, "set cover", outcome, summary=f"Set the cover of the album “{album.name}”", skipped=0)


@atomically
def delete(album: Album, user: Any) -> Action | None:
    """Delete an album. Its images stay where they are; undo brings it back with its order and its shares."""
    album = _own(album, user)
    inside = np.unique(np.fromiter(AlbumEntry.objects.filter(album=album).values_list("image", flat=True), np.int64))
    planned: list[steps.Step] = [
        SetRow("share", share.pk, before=row_of(AlbumShare, share.pk), after=None) for share in album.shares.all()
    ]
    if len(inside):
        planned.append(Leave(inside, album.pk))
    planned.append(SetRow("album", album.pk, before=row_of(Album, album.pk), after=None))
    outcome = steps.run(planned)
    summary = f"Deleted the album “{album.name}” of {count_of(len(inside))}"
    return record(user, "delete album", outcome, summary=summary, skipped=0)


@atomically
def add(
    album: Album, images: Images, user: Any, *, scores: npt.NDArray[np.floating[Any]] | None = None
) -> Action | None:
    """Put images at the end of an album in the order given; those that are in it stay where they are.

    `scores`, one for each image given, are kept with them (NaN: none).
    """
    require_person(user)
    album = _changeable(album, user)
    given = ids_of(images)
    visible, skipped = seen(given, user)
    ordered, first = np.unique(given, return_index=True)
    kept = np.isin(ordered, visible)
    last = AlbumEntry.objects.filter(album=album).aggregate(last=Max("position"))["last"] or 0
    ordered, first = ordered[kept], first[kept]
    place = np.empty(len(ordered), dtype=np.int64)
    place[np.argsort(first, kind="stable")] = np.arange(1, len(ordered) + 1) + last
    kept_scores = np.full(len(ordered), np.nan) if scores is None else np.asarray(scores, dtype=np.float64)[first]
    outcome = steps.run([Enter(ordered, album.pk, place, kept_scores)])
    summary = f"Added {count_of(len(outcome.changed))} to the album “{album.name}”"
    return record(user, "add to album", outcome, summary=summary, skipped=skipped, details={"album": album.pk})


@atomically
def take_out(album: Album, images: Images, user: Any) -> Action | None:
    """Take images out of an album; they stay in the catalogue."""
    album = _changeable(album, user)
    ids = np.unique(ids_of(images))
    there, _, _ = standing_at(album.pk, ids)
    outcome = steps.run([Leave(there, album.pk)])
    summary = f"Took {count_of(len(outcome.changed))} out of the album “{album.name}”"
    return record(user, "take out of album", outcome, summary=summary, skipped=0, details={"album": album.pk})


@atomically
def reorder(album: Album, order: Sequence[int] | Ids, user: Any) -> Action | None:
    """Bring images of an album into this order among themselves, in the places that they hold together."""
    album = _changeable(album, user)
    wanted = ids_of(order)
    ids, positions, _ = standing_at(album.pk, np.unique(wanted))
    _, first = np.unique(wanted, return_index=True)
    ordered = wanted[np.sort(first)]
    ordered = ordered[np.isin(ordered, ids)]
    places = np.sort(positions)
    if len(np.unique(places)) < len(places):  # two in one place: whoever undid something meanwhile
        return _renumbered(album, ordered, user)
    after = np.empty_like(positions)
    after[np.searchsorted(ids, ordered)] = places
    moved = after != positions
    outcome = steps.run([Rearrange(ids[moved], album.pk, positions[moved], after[moved])])
    return _record_order(album, outcome, user)


@atomically
def move(album: Album, images: Images, user: Any, *, before: int | None) -> Action | None:
    """Move images of an album, as they follow each other, to before another one (None: to the end)."""
    album = _changeable(album, user)
    everything = list(AlbumEntry.objects.filter(album=album).values_list("image", flat=True))
    moving = set(ids_of(images).tolist())
    rest = [one for one in everything if one not in moving]
    if before is not None and before not in rest:
        raise BadValue("Choose a picture of this album that is not being moved itself.")
    at = len(rest) if before is None else rest.index(before)
    order = rest[:at] + [one for one in everything if one in moving] + rest[at:]
    first = next((n for n, (one, two) in enumerate(zip(order, everything, strict=True)) if one != two), len(order))
    return reorder(album, order[first:], user)


def _renumbered(album: Album, ordered: Ids, user: Any) -> Action | None:
    rank = {int(image): n for n, image in enumerate(ordered)}
    everything = list(AlbumEntry.objects.filter(album=album).values_list("image", flat=True))
    inside = iter(sorted((one for one in everything if one in rank), key=rank.__getitem__))
    order = [next(inside) if one in rank else one for one in everything]
    ids, positions, _ = standing_at(album.pk, np.unique(np.array(everything, dtype=np.int64)))
    after = np.empty_like(positions)
    after[np.searchsorted(ids, np.array(order, dtype=np.int64))] = np.arange(1, len(order) + 1)
    moved = after != positions
    outcome = steps.run([Rearrange(ids[moved], album.pk, positions[moved], after[moved])])
    return _record_order(album, outcome, user)


def _record_order(album: Album, outcome: steps.Outcome, user: Any) -> Action | None:
    summary = f"Changed the order of the album “{album.name}”"
    return record(user, "reorder album", outcome, summary=summary, skipped=0, details={"album": album.pk})


@atomically
def share(album: Album, person: Any, role: str, user: Any) -> Action | None:
    """Let somebody find an album among theirs, to look or to change too; "" ends that."""
    album = _own(album, user)
    if role and role not in AlbumShare.Role.values:
        raise BadValue(f"An album is shared to look (viewer) or to change (editor), not as {role[:40]!r}.")
    if person.pk == album.owner_id:
        raise BadValue("The album is theirs already.")
    there = AlbumShare.objects.filter(album=album, user=person).first()
    if not role:
        if there is None:
            return None
        summary = f"The album “{album.name}” is no longer shared with {person.get_username()}"
        outcome = steps.run([SetRow("share", there.pk, before=row_of(AlbumShare, there.pk), after=None)])
    elif there is not None:
        summary = f"{person.get_username()} {AlbumShare.Role(role).label} in the album “{album.name}”"
        if there.role == role:
            return None
        outcome = steps.run([SetRow("share", there.pk, before={"role": there.role}, after={"role": role})])
    else:
        made = AlbumShare.objects.create(album=album, user=person, role=role)
        summary = f"Shared the album “{album.name}” with {person.get_username()}, who {AlbumShare.Role(role).label}"
        outcome = steps.Outcome(
            rows=1, inverse=[SetRow("share", made.pk, before=row_of(AlbumShare, made.pk), after=None)]
        )
    return record(user, "share album", outcome, summary=summary, skipped=0, details={"album": album.pk})


def _set(album: Album, after: dict[str, Any]) -> steps.Outcome:
    before = row_of(Album, album.pk, list(after)) if after else {}
    if not after or before == after:
        return steps.Outcome()
    return steps.run([SetRow("album", album.pk, before=before, after=after)])


def _own(album: Album, user: Any) -> Album:
    """The album, locked. Raises NotAllowed to all but its owner and staff."""
    found = Album.objects.select_for_update(no_key=True).filter(pk=album.pk).first()
    if found is None or not (runs_the_server(user) or found.owner_id == user.pk):
        raise NotAllowed("Only the owner of an album can do that.")
    return found


def _changeable(album: Album, user: Any) -> Album:
    found = Album.objects.select_for_update(no_key=True).filter(pk=album.pk).first()
    if found is None or not (runs_the_server(user) or Album.objects.editable_by(user).filter(pk=album.pk).exists()):
        raise NotAllowed(
            "You may look at this album but not change it: ask its owner to share it with you as an editor."
        )
    return found


def _name(name: str, owner: int, *, besides: int | None = None) -> str:
    name = clean(name)
    if not name:
        raise BadValue("An album needs a name of at least one character.")
    if len(name) > MAX_NAME:
        raise BadValue(f"The name of an album has at most {MAX_NAME} characters; this one has {len(name):,}.")
    if Album.objects.filter(owner=owner, name=name).exclude(pk=besides or 0).exists():
        raise BadValue(f"There is an album “{name}” already. Choose another name, or add to that one.")
    return name


def _description(text: str) -> str:
    kept = "\n".join(storable(line).rstrip() for line in text.splitlines()).strip()
    if len(kept) > MAX_DESCRIPTION:
        raise BadValue(f"What is said of an album has at most {MAX_DESCRIPTION:,} characters; this has {len(kept):,}.")
    return kept


@dataclass(frozen=True)
class Inside:
    """The images of an album that a person sees in it, in its order."""

    ids: Ids
    positions: Ids
    """The same shape, ascending; of images in one position the lower id comes first."""

    def after(self, position: int, image: int) -> int:
        """How many stand before this place or in it."""
        low, high = np.searchsorted(self.positions, position), np.searchsorted(self.positions, position, side="right")
        return int(low + np.searchsorted(self.ids[low:high], image, side="right"))

    def place_of(self, image: int) -> int | None:
        """Where it stands, from 0; None when it does not."""
        return next(iter(np.flatnonzero(self.ids == image).tolist()), None)


def inside(album: Album, user: Any, *, besides: int | None = None) -> Inside:
    """What this person sees in an album, and one image `besides` that may not be listed. Counted in this process."""
    facets, visible = seen_by(user)
    if besides is not None and besides < len(visible):
        visible[besides] = True
    return Inside(*facets.album(album.pk, visible))


def listed_ids(album: Album, user: Any) -> Ids:
    """The images of an album that this person sees in it, in its order."""
    return inside(album, user).ids
