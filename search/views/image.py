"""The page of one image: the large view, everything known about it, its neighbours, and similar images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe

from search import live, panels, retrieval, selection, stacks, tagtree
from search.errors import SearchError
from search.models import Album, Comment, Embedding, Favourite, Image, ImageTag
from search.query import Query, from_params
from search.views.albums import album_of, neighbours_in
from search.views.browse import neighbours
from search.views.chips import address, pairs
from search.views.files import sent_as_it_is
from search.views.grid import Tile, image_href, nearness_text, picture_url, score_detail
from search.views.results import is_fragment, kept_beside_text
from search.views.selecting import MOST_ALBUMS, favourites_among

SIMILAR = 18
SMALL = 900  # pixels of the longer side
MOST_SUGGESTIONS = 12
LIGHTBOX = "lightbox-"


@dataclass(frozen=True)
class Way:
    """Where the image was come from, and what lies before and after it there."""

    back_href: str
    back_text: str
    previous: str = ""
    next: str = ""


@require_safe
def image_page(request: HttpRequest, image_id: int) -> HttpResponse:
    """One image. What one may not see and what does not exist are the same 404."""
    image = get_object_or_404(
        Image.objects.visible_to(request.user).select_related("source", "metadata", "movie"), pk=image_id
    )
    context = curation_context(request, image)
    if is_fragment(request):
        return _varied(render(request, "search/_curation.html", context))
    context |= {
        "picture": picture_url(image),
        "whole": sent_as_it_is(image, image.size),
        "shown_size": shown_size(image),
        "way": way(request, image),
        "similar": similar(image, request.user),
        "spaces": Embedding.objects.filter(image=image).select_related("space").order_by("space__name"),
        "copies": copies(image, request.user),
        "movie": live.movie_of(image),
        "stack": stacks.members(image, request.user),
        "panels": panels.image_panels(image, request.user),
        "exif": sorted(flat(image.exif)),
        "swatches": swatches(image),
        **box_context(request),
    }
    context["favourite_ids"] = favourites_among(request.user, [tile.image.pk for tile in context["similar"]])
    return _varied(render(request, "search/image.html", context))


@require_safe
def image_panel(request: HttpRequest, image_id: int) -> HttpResponse:
    """What is known of an image and what people say of it: the side of the lightbox."""
    image = get_object_or_404(
        Image.objects.visible_to(request.user).select_related("source", "metadata", "movie"), pk=image_id
    )
    context = curation_context(request, image)
    context |= {
        "prefix": LIGHTBOX,
        "movie": live.movie_of(image),
        "here": f"{reverse('image', args=[image_id])}?{request.GET.urlencode()}",
        "spaces": Embedding.objects.filter(image=image).select_related("space").order_by("space__name"),
        "exif": sorted(flat(image.exif)),
        "swatches": swatches(image),
    }
    return _varied(render(request, "search/_panel.html", context))


def _varied(response: HttpResponse) -> HttpResponse:
    """The page and its part have one address: browsers must not take the one for the other."""
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "private, no-cache"
    return response


def box_context(request: HttpRequest) -> dict[str, Any]:
    """The search box filled with the query the image was found with, to go on from it."""
    try:
        query = from_params(request.GET)
    except SearchError:
        query = Query()
    return {"box_text": query.text(), "kept": kept_beside_text(query), "query_string": urlencode(pairs(query))}


def curation_context(request: HttpRequest, image: Image) -> dict[str, Any]:
    """What the curation fragment shows."""
    links = ImageTag.objects.filter(image=image).select_related("tag").order_by("tag__key")
    return {
        "image": image,
        "tag_links": links,
        "may_edit": Image.objects.editable_by(request.user).filter(pk=image.pk).exists(),
        "favourite": Favourite.objects.filter(image=image, user=request.user.pk).exists(),
        "comments": Comment.objects.filter(image=image).select_related("author"),
        "in_albums": Album.objects.visible_to(request.user).filter(entries__image=image),
        "albums_to_fill": Album.objects.editable_by(request.user).order_by("name")[:MOST_ALBUMS],
        "selected": image.pk in selection.of(request.user).among([image.pk]),
        "prefix": prefix_of(request),
        "stars": range(1, 6),
        "carried": request.GET.urlencode(),
        "here": request.get_full_path(),
    }


def prefix_of(request: HttpRequest) -> str:
    """What the ids of the curation begin with: it may stand on the page and in the lightbox above it."""
    target = getattr(getattr(request, "htmx", None), "target", None) or ""
    return LIGHTBOX if target.startswith(LIGHTBOX) else ""


@require_safe
def tag_suggestions(request: HttpRequest) -> HttpResponse:
    """Tags that begin with what was typed, of images this person may see, as the options of a list."""
    from search.models import tag_key

    typed = tag_key(request.GET.get("tag", "").rpartition(",")[2])[:200]
    names = tagtree.named(request.user, typed, MOST_SUGGESTIONS) if typed else []
    before = request.GET.get("tag", "").rpartition(",")[0]
    options = [f"{before}, {name}" if before else name for name in names]
    return render(request, "search/_tag_options.html", {"options": options})


def way(request: HttpRequest, image: Image) -> Way:
    """Back, previous and next: within the ranked results, the browsed set, or all pictures."""
    params = request.GET
    if (album := album_of(request)) is not None:
        before, after = neighbours_in(album, image, request.user)
        place = [("in", f"album-{album.pk}")]
        return Way(
            reverse("album", args=[album.pk]),
            f"Back to “{album.name}”",
            image_href(before, place) if before else "",
            image_href(after, place) if after else "",
        )
    if params.get("in") == "selection":
        return _within_selection(request, image)
    try:
        query = from_params(params)
        if query.ranked or (query.order != "best" and not query.empty) or params.get("at", "").isdigit():
            return _within_results(request, query, image)
        narrowed = stacks.folded(query.filters, request.user)
    except SearchError:
        return Way(reverse("search"), "All pictures")
    newer, older = neighbours(narrowed, image)
    carried = [*pairs(query), ("in", "browse")] if params.get("in") == "browse" else pairs(query)
    page = "browse" if params.get("in") == "browse" else "search"
    return Way(
        address(query, page),
        "Back to the pictures" if query.filters else "All pictures",
        image_href(newer.pk, carried) if newer else "",
        image_href(older.pk, carried) if older else "",
    )


def _within_results(request: HttpRequest, query: Query, image: Image) -> Way:
    given = request.GET.get("at", "")
    at = int(given) if given.isascii() and given.isdigit() and len(given) < 7 else 0
    start, hits = max(at - 1, 0), _found(query, request.user, max(at - 1, 0), 3)
    if image.pk not in hits[1 if start else 0 :]:  # something before it has gone or come since the address was made
        start, hits = max(at - 30, 0), _found(query, request.user, max(at - 30, 0), 61)
    back = address(query, offset=at // 60 * 60) if at >= 60 else address(query)
    if image.pk not in hits:
        return Way(back, "Back to the results")
    place = hits.index(image.pk)
    carried = pairs(query)
    return Way(
        back,
        "Back to the results",
        image_href(hits[place - 1], carried, at=start + place - 1) if place else "",
        image_href(hits[place + 1], carried, at=start + place + 1) if place + 1 < len(hits) else "",
    )


def _within_selection(request: HttpRequest, image: Image) -> Way:
    ids = selection.of(request.user).ids.tolist()
    back = Way(reverse("selection"), "Back to what is selected")
    if image.pk not in ids:
        return back
    place = ids.index(image.pk)
    before = image_href(ids[place - 1], [("in", "selection")], at=place - 1) if place else ""
    after = image_href(ids[place + 1], [("in", "selection")], at=place + 1) if place + 1 < len(ids) else ""
    return replace(back, previous=before, next=after)


def _found(query: Query, user: Any, offset: int, limit: int) -> list[int]:
    return [hit.id for hit in retrieval.find(query, user, offset=offset, limit=limit).hits]


def similar(image: Image, user: Any) -> list[Tile]:
    """The pictures that look most like this one; none while it has no vector."""
    try:
        hits = retrieval.find(Query(like=(image.pk,)), user, limit=SIMILAR).hits
    except SearchError:
        return []
    carried = [("like", image.pk)]
    return [
        Tile(
            hit.image,
            image_href(hit.id, carried, at=hit.place),
            nearness_text(hit.match, hit.place),
            score_detail(hit.score),
        )
        for hit in hits
        if hit.score is not None
    ]


def copies(image: Image, user: Any) -> list[Image]:
    """Other files with the very same bytes."""
    if image.sha256 is None:
        return []
    same = Image.objects.visible_to(user).listed().for_grid().filter(sha256=image.sha256)
    return list(same.exclude(pk=image.pk).order_by("id")[:20])


def shown_size(image: Image) -> tuple[int, int] | None:
    """Pixels to show the picture at, at most: small ones twice as large; the window limits the others."""
    if not image.width or not image.height:
        return None
    factor = 2 if max(image.width, image.height) < SMALL else 1
    return image.width * factor, image.height * factor


def flat(exif: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested metadata as (name, value) lines."""
    if isinstance(exif, dict):
        return [line for key, value in exif.items() for line in flat(value, f"{name} {key}".strip())]
    text = ", ".join(map(str, exif)) if isinstance(exif, list) else str(exif)
    return [(name, text if len(text) <= 300 else f"{text[:300]}… ({len(text):,} characters)")]


def swatches(image: Image) -> list[tuple[str, float, float]]:
    """The main colours as (colour, start, width) of a bar that is 100 wide."""
    bars, at = [], 0.0
    whole = sum(float(part) for _, part in image.colours) or 1.0
    for colour, part in image.colours:
        width = 100 * float(part) / whole
        bars.append((str(colour), round(at, 2), round(width, 2)))
        at += width
    return bars
