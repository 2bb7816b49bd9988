"""The pictures of a grid one after the other, as the lightbox turns them: a slice of the same set, and their states.

The set is what the address of an image's page carries (`search.views.image.way`): ranked results by their place
(`at`), an album, the selection, or what is browsed by keyset. A slice is asked for from one picture on, so that the
browser holds a window of the set only, however long it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from search import albums, retrieval, selection, stacks
from search.bitmaps import get_library
from search.errors import SearchError
from search.models import Image
from search.query import Query, from_params
from search.views.albums import album_of
from search.views.browse import page_of
from search.views.chips import pairs
from search.views.files import sent_as_it_is
from search.views.grid import image_href, picture_url, thumbnail_url
from search.views.selecting import favourites_among

SLICE = 60
MOST_STATES = 400
WORDS = {
    "waiting": "This picture waits to be read.",
    "unreadable": "This file cannot be shown.",
    "missing": "The file is not where it was.",
    "removed": "",
    "ready": "",
}


@dataclass(frozen=True)
class Slice:
    """A stretch of a set in its order. `number`: the first one's place in the whole set, from 1, where that is known;
    `total`: how many the set has, where that is known at no cost."""

    images: Sequence[Image]
    hrefs: Sequence[str]
    before: bool
    after: bool
    number: int | None = None
    total: int | None = None


@require_safe
def slides(request: HttpRequest) -> HttpResponse:
    """The slice of a set before, after or around one picture (`from`, `way`), or the states of some (`ids`)."""
    if "ids" in request.GET:
        ids = [int(one) for one in request.GET["ids"].split(",") if one.isascii() and one.isdigit() and len(one) < 19]
        found = Image.objects.visible_to(request.user).for_tiles().in_order_of(ids[:MOST_STATES])
        return _answer({"slides": described(found, request.user)})
    number = _number(request.GET.get("from", ""))
    way = request.GET.get("way", "around")
    anchor = get_object_or_404(Image.objects.visible_to(request.user).for_grid(), pk=number)
    try:
        found_slice = _slice(request, anchor, way)
    except SearchError as error:
        return _answer({"error": error.said_to(request.user)}, status=422)
    return _answer(
        {
            "slides": described(found_slice.images, request.user, found_slice.hrefs),
            "before": found_slice.before,
            "after": found_slice.after,
            "number": found_slice.number,
            "total": found_slice.total,
        }
    )


def described(images: Sequence[Image], user: Any, hrefs: Iterable[str] = ()) -> list[dict[str, Any]]:
    """What a slide and a tile have to know of each image. Three queries, however many."""
    ids = [image.pk for image in images]
    favourites = favourites_among(user, ids)
    editable = set(Image.objects.editable_by(user).filter(pk__in=ids).order_by().values_list("pk", flat=True))
    selected = selection.of(user).among(ids)
    carried = list(hrefs)
    return [
        {
            "id": image.pk,
            "name": image.title or image.name,
            "w": image.width or 0,
            "h": image.height or 0,
            "thumb": thumbnail_url(image),
            "src": picture_url(image),
            "whole": sent_as_it_is(image, image.size),
            "rating": image.rating,
            "favourite": image.pk in favourites,
            "selected": image.pk in selected,
            "hidden": image.hidden,
            "removed": image.state == Image.State.REMOVED,
            "editable": image.pk in editable,
            "problem": WORDS.get(image.state, ""),
            "live": bool(getattr(image, "live", False)),
            **({"href": carried[place]} if carried else {}),
        }
        for place, image in enumerate(images)
    ]


def _slice(request: HttpRequest, anchor: Image, way: str) -> Slice:
    if request.GET.get("in") == "selection":
        return _of_selection(request, way)
    if (album := album_of(request)) is not None:
        return _of_album(request, album, anchor, way)
    query = from_params(request.GET)
    if query.ranked or (query.order != "best" and not query.empty) or request.GET.get("at", "").isdigit():
        return _of_results(request, query, anchor, way)
    return _of_browsing(request, query, anchor, way)


def _of_results(request: HttpRequest, query: Query, anchor: Image, way: str) -> Slice:
    at = _place_now(query, request.user, anchor.pk, _number(request.GET.get("at", "")))
    start, limit = _stretch(at, way)
    if not limit:
        return Slice([], [], before=False, after=True)
    found = retrieval.find(query, request.user, offset=start, limit=limit)
    carried = pairs(query)
    return Slice(
        [hit.image for hit in found.hits],
        [image_href(hit.id, carried, at=hit.place) for hit in found.hits],
        before=start > 0,
        after=start + limit < found.total,
        number=found.hits[0].place + 1 if found.hits else None,
        total=None if found.capped and not query.ranked else found.total,
    )


def _place_now(query: Query, user: Any, image_id: int, at: int) -> int:
    """The place of an image in the results: where it was, unless something before it has gone or come since."""
    for start, limit in [(at, 1), (max(0, at - SLICE), 2 * SLICE + 1)]:
        for hit in retrieval.find(query, user, offset=start, limit=limit).hits:
            if hit.id == image_id:
                return hit.place
    return at


def _of_selection(request: HttpRequest, way: str) -> Slice:
    start, limit = _stretch(_number(request.GET.get("at", "")), way)
    ids = selection.of(request.user).ids
    images = Image.objects.visible_to(request.user).for_tiles().in_order_of(ids[start : start + limit])
    places = {int(pk): start + place for place, pk in enumerate(ids[start : start + limit])}
    hrefs = [image_href(image.pk, [("in", "selection")], at=places[image.pk]) for image in images]
    return Slice(images, hrefs, before=start > 0, after=start + limit < len(ids), number=start + 1, total=len(ids))


def _of_album(request: HttpRequest, album: Any, anchor: Image, way: str) -> Slice:
    inside = albums.inside(album, request.user, besides=anchor.pk)
    at = inside.place_of(anchor.pk)
    if at is None:
        return Slice([anchor], [image_href(anchor.pk)], before=False, after=False)
    start, limit = _stretch(at, way)
    ids = inside.ids[start : start + limit].tolist()
    images = Image.objects.visible_to(request.user).for_tiles().in_order_of(ids)
    return Slice(
        images,
        [image_href(image.pk, [("in", f"album-{album.pk}")]) for image in images],
        before=start > 0,
        after=start + limit < len(inside.ids),
        number=start + 1 if way == "around" else None,
        total=len(inside.ids) if way == "around" else None,
    )


def _of_browsing(request: HttpRequest, query: Query, anchor: Image, way: str) -> Slice:
    images = stacks.folded(query.filters, request.user)
    place = (anchor.shown_at, anchor.pk)
    newer: list[Image] = []
    older: list[Image] = []
    more_newer = more_older = False
    if way != "after":
        newer, more_newer, _ = page_of(images, newer=place, limit=SLICE)
    if way != "before":
        older, _, more_older = page_of(images, older=place, limit=SLICE)
    found = [*newer, *([anchor] if way == "around" else []), *older]
    browsed = request.GET.get("in") == "browse"
    carried = [*pairs(query), ("in", "browse")] if browsed else pairs(query)
    first = way != "after" and not more_newer
    whole = way == "around" and not query.filters
    return Slice(
        found,
        [image_href(image.pk, carried) for image in found],
        before=more_newer,
        after=more_older,
        number=1 if first else None,
        total=stacks.count(get_library(), request.user) if whole else None,
    )


def _stretch(at: int, way: str) -> tuple[int, int]:
    """(first place, how many) of the slice before, after or around a place."""
    if way == "after":
        return at + 1, SLICE
    start = max(0, at - SLICE)
    return start, at - start if way == "before" else at - start + 1 + SLICE


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _answer(data: dict[str, Any], status: int = 200) -> HttpResponse:
    response = JsonResponse(data, status=status)
    response["Cache-Control"] = "private, no-store"
    return response
