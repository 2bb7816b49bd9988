"""Albums: the list, one album in its order, and what its owner and editors do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import numpy as np
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import F, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from search import albums, selection
from search.errors import BadValue, NotAllowed, SearchError
from search.facets import seen_by
from search.models import Action, Album, AlbumEntry, AlbumShare, Image
from search.views.grid import Tile, image_href
from search.views.results import is_fragment
from search.views.selecting import selection_context

PAGE = 80
ALBUMS_PAGE = 60


@require_http_methods(["GET", "HEAD", "POST"])
def album_list(request: HttpRequest) -> HttpResponse:
    """One's own albums and those shared with one; POST makes a new one."""
    if request.method == "POST":
        try:
            album, action = albums.create(request.POST.get("name", ""), request.user)
        except SearchError as error:
            messages.error(request, error.said_to(request.user))
            return redirect("albums")
        messages.success(request, action.summary, extra_tags=f"action-{action.pk}")
        return redirect("album", album.pk)
    rows = Album.objects.visible_to(request.user).select_related("owner").order_by("name", "pk")
    after = Album.objects.visible_to(request.user).filter(pk=_number(request.GET.get("after", ""))).first()
    if after is not None:
        rows = rows.filter(Q(name__gt=after.name) | Q(name=after.name, pk__gt=after.pk))
    found = list(rows[: ALBUMS_PAGE + 1])
    shown = found[:ALBUMS_PAGE]
    facets, visible = seen_by(request.user)
    inside = facets.albums(visible)
    cards = [(album, *inside.get(album.pk, (0, 0))) for album in shown]
    wanted = {pk for album, _, first in cards for pk in (album.cover_id, first) if pk}
    images = Image.objects.visible_to(request.user).listed().for_tiles().in_bulk(list(wanted))
    context = {
        "page": "albums",
        "cards": [
            (album, number, images.get(album.cover_id or 0) or images.get(first)) for album, number, first in cards
        ],
        "more_href": f"{reverse('albums')}?after={shown[-1].pk}" if len(found) > ALBUMS_PAGE else "",
        "here": request.get_full_path(),
    }
    return render(request, "search/albums.html", context)


@require_safe
def album_page(request: HttpRequest, album_id: int) -> HttpResponse:
    """One album in its order, as far as this person may see its pictures."""
    album = get_object_or_404(Album.objects.visible_to(request.user).select_related("owner"), pk=album_id)
    after, at = request.GET.get("after", "").partition(","), _number(request.GET.get("at", ""))
    inside = albums.inside(album, request.user)
    start = 0
    if after[2]:
        place, image = _number(after[0].lstrip("-")) * (-1 if after[0].startswith("-") else 1), _number(after[2])
        start = inside.after(place, image)
    ids = inside.ids[start : start + PAGE].tolist()
    images = Image.objects.visible_to(request.user).for_tiles().in_bulk(ids)
    scores = dict(AlbumEntry.objects.filter(album=album, image__in=ids).values_list("image_id", "score"))
    carried = [("in", f"album-{album.pk}")]
    tiles = [
        Tile(images[pk], image_href(pk, carried), detail=_score_then(scores.get(pk)), place=n)
        for n, pk in enumerate(ids, at + 1)
        if pk in images
    ]
    more = ""
    if len(inside.ids) > start + PAGE:
        last = f"{inside.positions[start + PAGE - 1]},{ids[-1]}"
        more = f"{reverse('album', args=[album.pk])}?{urlencode({'after': last, 'at': at + PAGE})}"
    mine = request.user.is_staff or album.owner_id == request.user.pk
    context = {
        "page": "album",
        "album": album,
        "album_owner": mine,
        "album_editable": mine or Album.objects.editable_by(request.user).filter(pk=album.pk).exists(),
        "tiles": tiles,
        "total": len(inside.ids),
        "shares": list(album.shares.select_related("user")) if mine else [],
        "roles": AlbumShare.Role.choices,
        "more_href": more,
        "first_href": reverse("album", args=[album.pk]) if after[2] else "",
        **selection_context(request, tiles),
    }
    return render(request, "search/_next.html" if is_fragment(request) and after[2] else "search/album.html", context)


def _describe(request: HttpRequest, album: Album) -> Action | None:
    return albums.describe(
        album, request.user, name=request.POST.get("name", ""), description=request.POST.get("description", "")
    )


def _share(request: HttpRequest, album: Album) -> Action | None:
    name = request.POST.get("person", "").strip()
    person = get_user_model().objects.filter(username=name, is_active=True).first()
    if person is None:
        raise BadValue(
            f"There is nobody named {name[:60]!r} here." if name else "Type the name of somebody with an account."
        )
    return albums.share(album, person, request.POST.get("role", ""), request.user)


def _selected_in(request: HttpRequest, album: Album) -> list[int]:
    inside = albums.standing_at(album.pk, np.unique(selection.of(request.user).ids))[0]
    if not len(inside):
        raise BadValue("Select pictures of this album first: tick them, then choose where they go.")
    return inside.tolist()


def _cover(request: HttpRequest, album: Album) -> Action | None:
    inside = set(_selected_in(request, album))
    first = next(pk for pk in selection.of(request.user).ids.tolist() if pk in inside)
    return albums.set_cover(album, first, request.user)


def _move(request: HttpRequest, album: Album) -> Action | None:
    moving = _selected_in(request, album)
    given = request.POST.get("to", "").strip()
    if not given.isascii() or not given.isdigit() or not int(given[:10]) > 0 or len(given) > 9:
        raise BadValue("Say which number the first of them shall have: 1 is the front.")
    rest = [pk for pk in albums.listed_ids(album, request.user).tolist() if pk not in set(moving)]
    before = rest[int(given) - 1] if int(given) <= len(rest) else None
    return albums.move(album, moving, request.user, before=before)


ORDERS: dict[str, tuple[Any, ...]] = {
    "oldest": ("image__shown_at", "image"),
    "newest": ("-image__shown_at", "-image"),
    "name": ("image__name", "image"),
    "rating": ("-image__rating", "position", "image"),
    "score": (F("score").desc(nulls_last=True), "position", "image"),
}


def _sort(request: HttpRequest, album: Album) -> Action | None:
    order = ORDERS.get(request.POST.get("by", ""))
    if order is None:
        raise BadValue(f"An album is put in order by one of {', '.join(ORDERS)}.")
    entries = AlbumEntry.objects.filter(album=album).order_by(*order)
    return albums.reorder(album, list(entries.values_list("image", flat=True)), request.user)


VERBS: dict[str, Callable[[HttpRequest, Album], Action | None]] = {
    "describe": _describe,
    "share": _share,
    "cover": _cover,
    "move": _move,
    "sort": _sort,
    "delete": lambda request, album: albums.delete(album, request.user),
}


@require_POST
def change_album(request: HttpRequest, album_id: int, verb: str) -> HttpResponse:
    """Do one thing to an album and offer to undo it."""
    if verb not in VERBS:
        raise Http404
    album = get_object_or_404(Album.objects.visible_to(request.user), pk=album_id)
    try:
        action = VERBS[verb](request, album)
    except NotAllowed as error:
        raise PermissionDenied(str(error)) from error
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    else:
        if action is None:
            messages.info(request, "That is so already: nothing had to be changed.")
        else:
            messages.success(request, action.summary, extra_tags=f"action-{action.pk}")
            if verb == "delete":
                return redirect("albums")
    return redirect("album", album_id)


def _score_then(score: float | None) -> str:
    return "" if score is None else f"cosine similarity when added: {score:.2f}"


def album_of(request: HttpRequest) -> Album | None:
    """The album in which an image is looked at, as its address says."""
    number = _number(request.GET.get("in", "").removeprefix("album-")) if "album-" in request.GET.get("in", "") else 0
    return Album.objects.visible_to(request.user).filter(pk=number).first() if number else None


def neighbours_in(album: Album, image: Image, user: Any) -> tuple[int | None, int | None]:
    """The ids of the pictures before and after this one in an album."""
    inside = albums.inside(album, user, besides=image.pk)
    at = inside.place_of(image.pk)
    if at is None:
        return None, None
    before, after = inside.ids[max(at - 1, 0) : at].tolist(), inside.ids[at + 1 : at + 2].tolist()
    return next(iter(before), None), next(iter(after), None)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
