"""Browsing: newest first with month headings, by keyset, so that the millionth picture is as near as the first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_safe

from search import filters, stacks
from search.bitmaps import get_library
from search.errors import BadQuery, SearchError
from search.models import Image
from search.query import Query, from_params
from search.querysets import ImageQuerySet
from search.views.chips import address, chips, pairs
from search.views.grid import by_month
from search.views.mistakes import what_is_wrong
from search.views.results import is_fragment
from search.views.selecting import selection_context

PAGE = 80
MOST_COUNTED = 10_000

Place = tuple[datetime, int]
"""Where an image stands in "newest first": its `shown_at` and id."""


@require_safe
def browse(request: HttpRequest) -> HttpResponse:
    """One page of the pictures that pass the query's filters, newest first."""
    fragment = is_fragment(request)
    context: dict[str, Any] = {"page": "browse", "narrow_page": "browse"}
    try:
        asked = from_params(request.GET)
        query = Query(filters=asked.filters)
        older, newer = place_of(request.GET.get("older")), place_of(request.GET.get("newer"))
        images, has_newer, has_older = page_of(stacks.folded(query.filters, request.user), older=older, newer=newer)
    except SearchError as error:
        context |= {"query": Query(), **what_is_wrong(request, error, "browse")}
        return render(request, "search/browse.html", context, status=422)
    tiles = by_month(images, query=[*pairs(query), ("in", "browse")], last=older[0] if older and fragment else None)
    total = None if fragment else count_of(query, request.user)
    context |= {
        "query": query,
        "heading": "Pictures that pass the filters" if query.filters else "All pictures",
        "total": total,
        "query_string": urlencode(pairs(query)),
        "tiles": tiles,
        "chips": chips(query, {}, "browse"),
        "more_href": address(query, "browse", older=written(images[-1])) if has_older else "",
        "newer_href": address(query, "browse", newer=written(images[0])) if has_newer else "",
        "first_href": address(query, "browse"),
        "end_text": "" if has_older or len(images) < 12 else "The oldest picture.",
        "fragment": fragment,
        **selection_context(request, tiles),
    }
    template = "search/_next.html" if fragment and older else "search/browse.html"
    response = render(request, template, context)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "private, no-cache"
    return response


def count_of(query: Query, user: Any) -> int | None:
    """How many tiles a query's filters let through; None where they ask for images that are otherwise not listed and
    there are more than MOST_COUNTED of them."""
    if not filters.shows_unlisted(query.filters):
        return stacks.count(get_library(), user, query.filters)
    number = stacks.folded(query.filters, user).order_by()[: MOST_COUNTED + 1].count()
    return number if number <= MOST_COUNTED else None


def page_of(
    images: ImageQuerySet, *, older: Place | None = None, newer: Place | None = None, limit: int = PAGE
) -> tuple[list[Image], bool, bool]:
    """One page, newest first, and whether there are newer and older ones: two queries at most."""
    rows = images.for_tiles()
    if newer is not None:
        taken = list(_before(rows, newer).order_by("shown_at", "id")[: limit + 1])
        page = taken[:limit][::-1]
        return page, len(taken) > limit, bool(page)
    if older is not None:
        taken = list(rows.after(shown_at=older[0], id=older[1]).newest_first()[: limit + 1])
        return taken[:limit], True, len(taken) > limit
    taken = list(rows.newest_first()[: limit + 1])
    return taken[:limit], False, len(taken) > limit


def neighbours(images: ImageQuerySet, image: Image) -> tuple[Image | None, Image | None]:
    """The next newer and the next older image of this set."""
    rows = images.for_tiles()
    newer = _before(rows, (image.shown_at, image.pk)).order_by("shown_at", "id").first()
    older = rows.after(shown_at=image.shown_at, id=image.pk).newest_first().first()
    return newer, older


def written(image: Image) -> str:
    """An image's place as an address carries it."""
    return f"{image.shown_at.astimezone(UTC).isoformat().removesuffix('+00:00')}Z,{image.pk}"


def place_of(text: str | None) -> Place | None:
    """The place that an address carries. Raises BadQuery for anything else."""
    if not text:
        return None
    moment, _, pk = text.partition(",")
    try:
        shown_at = parse_datetime(moment)
    except ValueError:
        shown_at = None
    if shown_at is None or shown_at.tzinfo is None or not (pk.isascii() and pk.isdigit() and len(pk) < 19):
        raise BadQuery("That place in the pictures cannot be understood. Start again from the newest.")
    return shown_at, int(pk)


def _before(images: ImageQuerySet, place: Place) -> ImageQuerySet:
    return images.filter(Q(shown_at__gte=place[0]), Q(shown_at__gt=place[0]) | Q(id__gt=place[1]))
