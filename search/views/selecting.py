"""What a page needs whose grid can be selected from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings
from django.http import HttpRequest, QueryDict

from search import errands, panels, review, selection
from search.access import editable_sources
from search.models import Album, Favourite
from search.selection import Selected
from search.views.grid import Tile

MOST_ALBUMS = 200


def selection_context(
    request: HttpRequest, tiles: Sequence[Tile] = (), *, selected: Selected | None = None, **more: Any
) -> dict[str, Any]:
    """What a page needs whose grid can be selected from: `tiles` are those that it shows; `selected` is what the person
    has selected, where the page asked for it already. Five queries at most."""
    selected = selection.of(request.user) if selected is None else selected
    shown = [tile.image.pk for tile in tiles]
    return {
        "selecting": True,
        "selected": selected,
        "selected_count": len(selected),
        "selected_ids": selected.among(shown),
        "favourite_ids": favourites_among(request.user, shown),
        "shown_ids": ",".join(map(str, shown)),
        **_choices(request),
        **more,
    }


def favourites_among(user: Any, ids: Iterable[int]) -> set[int]:
    """Those of `ids` that are this person's favourites. One query, or none."""
    wanted = list(ids)
    if not wanted:
        return set()
    return set(Favourite.objects.filter(user=user.pk, image__in=wanted).order_by().values_list("image", flat=True))


def review_queue_at(address: str) -> str:
    """The review queue whose pictures are shown at an address; "" where they are not those of exactly one."""
    named = QueryDict(address.partition("?")[2][:20_000]).getlist("review")
    return named[0] if len(named) == 1 and named[0] in review.NAMES else ""


def _choices(request: HttpRequest) -> dict[str, Any]:
    return {
        "may_change": request.user.is_staff or editable_sources(request.user).exists(),
        "bar_albums": list(
            Album.objects.editable_by(request.user).order_by("name").values_list("pk", "name")[:MOST_ALBUMS]
        ),
        "chores": panels.chores(),
        "stacking": settings.IMAGESEARCH_STACKS,
        "errand": errands.newest(request.user),
        "stars": range(1, 6),
        "review_queue": review_queue_at(request.get_full_path()),
        "selection_next": request.get_full_path(),
        "here": request.get_full_path(),
    }
