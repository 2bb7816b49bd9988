"""Stacks: several files of one picture (a raw file and its JPEG, an edited one and its original) as one tile.

Which files belong together a crawl finds by their names (`ingestion.stacking`); a person's word stands above that. In
grids and results a stack is there once: its cover where that passes the filters, else the best of the others. A
cover that is not listed covers nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from search import curation, filter_bitmaps, filters, history, steps
from search.arrays import Bitmap, Ids
from search.bitmaps import Library, get_library
from search.errors import BadValue
from search.filters import Term
from search.models import Action, Image
from search.querysets import ImageQuerySet

FEW = 10_000
"""So few that pass filters are named to the database, which would else walk through all images to find them."""
MOST = 100
"""So many files one stack may have."""
_FIELDS = ("stack_of_id", "stack_origin")
_PERSON = Image.Origin.PERSON.value


def folded(terms: Iterable[Term], user: Any) -> ImageQuerySet:
    """`filters.filtered`, every stack once: its cover where that passes, else the first of those that do."""
    terms = list(terms)
    images = filters.filtered(terms, user)
    if terms:
        found = np.flatnonzero(filter_bitmaps.allowed(terms, user, get_library()))
        if len(found) <= FEW:
            images = images.filter(pk__in=found.tolist())
    if not settings.IMAGESEARCH_STACKS:
        return images
    passing = filters.filtered(terms, user).order_by()
    covered = Exists(passing.filter(pk=OuterRef("stack_of")))
    earlier = Exists(passing.filter(stack_of=OuterRef("stack_of"), pk__lt=OuterRef("pk")))
    listed = Exists(Image.objects.listed().filter(pk=OuterRef("stack_of")))
    return images.filter(Q(stack_of__isnull=True) | (~covered & ~(listed & earlier)))


def fold(ids: Ids, library: Library, allowed: Bitmap) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Of ranked images, best first: which to show, every stack once at its best place, and which of `ids` stay.

    A stack is shown by its cover where `allowed[cover]`, else by the best of it.
    """
    if not settings.IMAGESEARCH_STACKS or not len(ids):
        return ids, np.ones(len(ids), dtype=np.bool_)
    covers = library.covers(ids)
    kept = np.zeros(len(ids), dtype=np.bool_)
    kept[np.unique(covers, return_index=True)[1]] = True
    cover, best = covers[kept], ids[kept]
    inside = cover < len(allowed)
    inside[inside] = allowed[cover[inside]]
    return np.where(inside, cover, best), kept


def mates(ids: Sequence[int], library: Library) -> Ids:
    """These images and all that lie in their stacks."""
    given = np.array(ids, dtype=np.int64)
    if not settings.IMAGESEARCH_STACKS or not len(given):
        return given
    covers = library.covers(given)
    return np.unique(np.concatenate([given, covers, beneath(covers)]))


def beneath(covers: Ids) -> Ids:
    """What lies beneath these covers, ascending."""
    parts = [
        np.fromiter(Image.objects.filter(stack_of__in=chunk).values_list("pk", flat=True), dtype=np.int64)
        for chunk in steps.chunks(covers)
    ]
    return np.unique(np.concatenate([covers[:0], *parts]))


def whole(images: history.Images) -> Ids:
    """Ids of images and of what lies beneath those that are covers: what is done to a stack's tile is done to all."""
    ids = history.ids_of(images)
    if not settings.IMAGESEARCH_STACKS:
        return ids
    more = beneath(np.unique(ids))
    return np.concatenate([ids, more[~np.isin(more, ids)]])


def unfolded(
    ids: Ids, scores: npt.NDArray[np.float32], images: ImageQuerySet, *, of_covers: bool = False
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Every one of these followed by the others of its stack that are among `images`, with the same score.

    With `of_covers` only by what lies beneath it.
    """
    if not settings.IMAGESEARCH_STACKS:
        return ids, scores
    alone = ids[~get_library().stacked(ids)]
    if len(alone) == len(ids):
        return ids, scores
    there, some = set(ids.tolist()), np.setdiff1d(ids, alone)
    cover_of: dict[int, int] = {}
    others: dict[int, list[int]] = {}
    for chunk in steps.chunks(some) if not of_covers else ():
        rows = Image.objects.filter(pk__in=chunk, stack_of__isnull=False)
        cover_of.update((pk, cover) for pk, cover in rows.values_list("pk", "stack_of") if cover)
    keys = np.unique(np.array([cover_of.get(one, one) for one in some.tolist()], dtype=np.int64))
    for chunk in steps.chunks(keys):
        for field in ("stack_of",) if of_covers else ("stack_of", "pk"):
            for pk, cover in images.filter(**{f"{field}__in": chunk}).order_by("pk").values_list("pk", "stack_of"):
                if pk not in there:
                    others.setdefault(cover or pk, []).append(pk)
    if not others:
        return ids, scores
    made: list[tuple[int, float]] = []
    for one, score in zip(ids.tolist(), scores.tolist(), strict=True):
        made.append((one, score))
        made += [(other, score) for other in others.pop(cover_of.get(one, one), ())]
    return np.array([one for one, _ in made], dtype=np.int64), np.array([n for _, n in made], dtype=np.float32)


def count(library: Library, user: Any, terms: Iterable[Term] = ()) -> int:
    """How many tiles `folded(terms, user)` makes, counted in this process. Terms that ask for images which are not
    listed (`filters.shows_unlisted`) are for the database to count. Raises BadQuery."""
    passing = filter_bitmaps.allowed(list(terms), user, library)
    if not settings.IMAGESEARCH_STACKS:
        return int(passing.sum())
    covers = library.covers(np.flatnonzero(passing))
    tiles = np.zeros(max(len(passing), library.size), dtype=np.bool_)
    tiles[covers] = True
    return int(tiles.sum())


def members(image: Image, user: Any) -> list[Image]:
    """All files of this image's stack that the person sees, the cover first; [] when it is in none. One query."""
    if not settings.IMAGESEARCH_STACKS:
        return []
    cover = image.stack_of_id or image.pk
    found = list(
        Image.objects.visible_to(user).for_grid().filter(Q(pk=cover) | Q(stack_of=cover))
        .exclude(state__in=["removed", "missing"]).order_by("name", "pk")
    )  # fmt: skip
    found.sort(key=lambda one: one.pk != cover)
    return found if len(found) > 1 else []


# --- what a person says of stacks


@transaction.atomic
def stack(images: history.Images, user: Any, *, cover: int | None = None) -> Action | None:
    """Put images of one source into one stack, with all that lies beneath them; the cover is the one given, else the
    first that is no raw file. A crawl leaves them alone from now on. Raises NotAllowed, BadValue."""
    given = history.ids_of(images)
    ids, skipped = history.editable(whole(given), user)
    if not 2 <= len(ids) <= MOST:
        raise BadValue(f"A stack has 2 to {MOST} pictures; select as many, of which you may change each.")
    rows = {pk: (source, format) for pk, source, format in _rows(ids).values_list("pk", "source", "format")}
    if len({source for source, _ in rows.values()}) > 1:
        raise BadValue("The pictures of a stack lie in one source. Select pictures of one source.")
    chosen = [int(one) for one in given if int(one) in rows] or sorted(rows)
    top = cover if cover in rows else next((one for one in chosen if rows[one][1] != "RAW"), chosen[0])
    return _put(ids, top, user, verb="stack", summary="Stacked {}", skipped=skipped)


@transaction.atomic
def set_cover(image: Image, user: Any) -> Action | None:
    """Let this image stand for its stack. Raises NotAllowed, BadValue when it is in none."""
    cover = Image.objects.filter(pk=image.pk).values_list("stack_of", flat=True).first()
    if cover is None:
        raise BadValue("This picture is the cover of its stack already, or in none.")
    ids, _ = history.editable(np.append(beneath(np.array([cover], dtype=np.int64)), cover), user)
    summary = "Chose another cover for a stack of {}"
    return _put(ids, image.pk, user, verb="stack cover", summary=summary, skipped=0)


@transaction.atomic
def unstack(images: history.Images, user: Any) -> Action | None:
    """Take stacks apart, of which the covers are given, and take out single images; a crawl leaves that so."""
    ids, skipped = history.editable(whole(images), user)
    return _alone(np.array(_stacked(ids), dtype=np.int64), user, skipped)


def _stacked(ids: Ids) -> list[int]:
    """Those of `ids` that lie in a stack or are the cover of one."""
    found: set[int] = set()
    for chunk in steps.chunks(ids):
        found.update(Image.objects.filter(pk__in=chunk, stack_of__isnull=False).values_list("pk", flat=True))
        covers = Image.objects.filter(stack_of__in=chunk).values_list("stack_of", flat=True)
        found.update(cover for cover in covers if cover)
    return sorted(found)


def _alone(ids: Ids, user: Any, skipped: int) -> Action | None:
    outcome = curation.set_fields(ids, _FIELDS, lambda row: (None, _PERSON))
    summary = f"Took {history.count_of(len(outcome.changed))} out of stacks"
    return history.record(user, "unstack", outcome, summary=summary, skipped=skipped)


def _put(ids: Ids, cover: int, user: Any, *, verb: str, summary: str, skipped: int) -> Action | None:
    rest = ids[ids != cover]
    first = curation.set_fields(np.array([cover], dtype=np.int64), _FIELDS, lambda row: (None, _PERSON))
    others = curation.set_fields(rest, _FIELDS, lambda row: (cover, _PERSON))
    outcome = steps.Outcome(
        changed=np.union1d(first.changed, others.changed), left=np.union1d(first.left, others.left),
        inverse=[*others.inverse, *first.inverse], listed=np.union1d(first.listed, others.listed),
    )  # fmt: skip
    return history.record(user, verb, outcome, summary=summary.format(history.count_of(len(ids))), skipped=skipped)


def _rows(ids: Ids) -> ImageQuerySet:
    return Image.objects.filter(pk__in=ids.tolist())
