"""The search page, its filter panel, and the picture someone searches with."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_POST, require_safe

from search import retrieval, thumbnails, uploads
from search.errors import SearchError
from search.forms import UploadForm
from search.models import Image
from search.query import Query, from_params
from search.views.chips import address, chips, example_images, pairs
from search.views.grid import Tile, image_href, nearness_text, score_detail, score_text
from search.views.meaning import meaning
from search.views.mistakes import what_is_wrong
from search.views.selecting import selection_context

log = logging.getLogger(__name__)

PAGE = 60


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """Ranked pictures of a query, or the newest ones when nothing was asked."""
    fragment = is_fragment(request)
    try:
        query = from_params(request.GET)
        offset = _offset(request)
        found = retrieval.find(query, request.user, offset=offset, limit=PAGE)
    except SearchError as error:
        context = {
            "page": "search", "box_text": request.GET.get("q", ""), "query": Query(), "query_string": "",
            "fragment": fragment, "kept": [], **what_is_wrong(request, error),
        }  # fmt: skip
        return _answer(request, "search/_search.html" if fragment else "search/search.html", context, status=422)
    tiles = result_tiles(query, found)
    more = found.next_offset if found.hits else None
    context = {
        "page": "search",
        "query": query,
        "box_text": query.text(),
        "kept": kept_beside_text(query),
        "query_string": urlencode(pairs(query)),
        "tiles": tiles,
        "found": found,
        "start": offset,
        "more_href": address(query, offset=more) if more else "",
        "newer_href": (address(query, offset=max(0, offset - PAGE)) if offset > PAGE else address(query))
        if offset
        else "",
        "without_min": pairs(replace(query, min=None)),
        "nearest_href": address(replace(query, min=0)) if found.below else "",
        "end_text": "" if more or not found.hits else end_text(query, found),
        "end_href": address(query, "browse") if found.capped and not query.ranked and query.order == "best" else "",
    }
    context |= selection_context(request, tiles)
    if fragment and offset:
        return _answer(request, "search/_next.html", context)
    context |= {
        "chips": chips(query, example_images(query, request.user)),
        "meaning": meaning(found.space, found.covered, found.of, request.user),
        "focus_box": query.empty,
        "fragment": fragment,
        "narrow_page": "search",
        "any_pictures": bool(tiles) or not query.empty or Image.objects.visible_to(request.user).exists(),
    }
    return _answer(request, "search/_search.html" if fragment else "search/search.html", context)


@require_safe
def passing(request: HttpRequest) -> HttpResponse:
    """How many pictures match at least so well: what the sensitivity says while it is moved. Without htmx the page."""
    if not is_fragment(request):
        return redirect(f"{reverse('search')}?{request.GET.urlencode()}")
    try:
        found = retrieval.passing(from_params(request.GET), request.user)
    except SearchError as error:
        return _answer(request, "search/_passing_wrong.html", {"sentence": error.said_to(request.user)}, status=422)
    return _answer(request, "search/_passing.html", {"passing": found})


@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    """Keep a dropped, pasted or chosen picture and go to the query it joins."""
    form = UploadForm(request.POST, request.FILES)
    try:
        query = from_params(QueryDict(request.POST.get("query", "")[:8000]))
    except SearchError:
        query = Query()
    if not form.is_valid():
        problem = next(iter(form.errors.values()))[0]
        messages.error(request, str(problem))
        return redirect(address(query))
    try:
        kept = uploads.keep(form.cleaned_data["picture"], request.user)
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
        return redirect(address(query))
    except OSError as error:
        log.error("An uploaded picture could not be kept: %s", error)
        messages.error(request, f"The picture could not be kept ({error.strerror}). Free some space on the server.")
        return redirect(address(query))
    return redirect(address(replace(query, upload=kept.token)))


@require_safe
def uploaded(request: HttpRequest, token: str) -> HttpResponse:
    """The picture someone searches with, small, for its owner only."""
    try:
        pixels = uploads.pixels(token, request.user)
    except SearchError as error:
        raise Http404 from error
    response = HttpResponse(thumbnails.encode(thumbnails.make(pixels)), content_type="image/jpeg")
    response["Cache-Control"] = "private, max-age=3600"
    return response


def result_tiles(query: Query, found: retrieval.Page) -> list[Tile]:
    """The hits as tiles; each links to its image with the query and its place in the results."""
    carried = pairs(query)
    return [
        Tile(
            hit.image,
            image_href(hit.id, carried, **({"at": hit.place} if carried else {})),
            _said_of(hit, query),
            score_detail(hit.score),
        )
        for hit in found.hits
    ]


def _said_of(hit: retrieval.Hit, query: Query) -> str:
    if not query.ranked:
        return ""
    return nearness_text(hit.match, hit.place) if query.by_picture_alone else score_text(hit.match)


def kept_beside_text(query: Query) -> list[tuple[str, str]]:
    """What the search box does not show but a new search from it keeps: example pictures, a match asked for.

    That the nearest are shown however far they are is for one search only.
    """
    kept = {"like", "unlike", "upload", "min"} if query.min else {"like", "unlike", "upload"}
    return [(name, value) for name, value in pairs(query) if name in kept]


def end_text(query: Query, found: retrieval.Page) -> str:
    """What stands at the end of the results."""
    if found.below:
        return f"The end of what matches at least {found.min_match}\u00a0%."
    if found.capped and query.ranked:
        return f"The end: the {found.total:,} best. Add a word or a filter to find what is further down."
    if found.capped:
        return f"These are the first {found.total:,}."
    return "The end." if found.total > 12 else ""


def is_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of the page (not for the whole, as it does on going back)."""
    htmx = getattr(request, "htmx", None)
    return htmx is not None and bool(htmx) and not htmx.history_restore_request and not htmx.boosted


def _offset(request: HttpRequest) -> int:
    value = request.GET.get("offset", "0")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 8 else 0


def _answer(request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    response = render(request, template, context, status=status)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "private, no-cache"
    return response
