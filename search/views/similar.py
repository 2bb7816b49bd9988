"""Look-alikes: groups as cards, one of each to keep; the page, its keys and its script are those of exact copies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from search import copies, look_alike_pairs, look_alikes
from search.copy_rule import ALIKE_RULES
from search.errors import BadQuery, BadValue, NotAllowed, SearchError
from search.models import Action
from search.views.copies import preferable
from search.views.moving import next_page
from search.views.results import is_fragment

PAGE = 20
ORDERS = {look_alikes.NEWEST: "newest first", look_alikes.LARGEST: "largest groups first"}


@require_safe
def similar_page(request: HttpRequest) -> HttpResponse:
    """Groups of look-alikes that this person may clear up."""
    known = look_alike_pairs.known()
    within, wrong = _within(request.GET.get("within", ""), known), ""
    order = request.GET.get("order", "")
    order = order if order in ORDERS else look_alikes.NEWEST
    after = _after(request.GET.get("after", ""))
    try:
        prefer = copies.preferred(request.GET.get("prefer"), request.user)
    except BadQuery as error:
        prefer, wrong = None, str(error)
    found, more = look_alikes.groups(
        request.user, within=within, order=order, after=after, limit=PAGE, prefer=prefer
    )  # fmt: skip
    chosen = {"within": within, "order": order if order != look_alikes.NEWEST else None, "prefer": prefer}
    here = _address(**chosen, after=f"{after[0]}.{after[1]}" if after else None)
    context = {
        "page": "similar",
        "groups": found,
        "wrong": wrong,
        "tally": look_alikes.tally(request.user, within),
        "known": known,
        "as_of": datetime.fromtimestamp(known.made_at, UTC) if known else None,
        "behind": known is not None and look_alike_pairs.is_behind(known),
        "fewer": known is not None and known.within < known.asked,
        "rules": ALIKE_RULES,
        "orders": ORDERS,
        "order": order,
        "within": known.within if known and within is None else within,
        "distances": range(known.within + 1) if known else [],
        "prefer": prefer,
        "sources": preferable(request.user),
        "more_href": _address(**chosen, after=f"{more[0]}.{more[1]}") if more else "",
        "first_href": _address(**chosen) if after else "",
        "here": here,
        "whole_page": True,
        "selection_next": here,
    }
    return render(request, "search/similar.html", context)


@require_POST
def keep(request: HttpRequest) -> HttpResponse:
    """Keep one image of its group and hide the others that were shown."""
    given = request.POST.get("keeper", "")

    def do() -> Action | None:
        if not _is_id(given):
            raise BadValue("Choose which one to keep.")
        return look_alikes.hide_others(int(given), _members(request), request.user)

    return _done(request, do, "There is nothing left to hide: the others were hidden or changed meanwhile.")


@require_POST
def different(request: HttpRequest) -> HttpResponse:
    """Say that the images of a group are different ones."""
    return _done(request, lambda: look_alikes.tell_apart(_members(request), request.user), "Nothing was changed.")


def _done(request: HttpRequest, do: Any, nothing: str) -> HttpResponse:
    key, here = request.POST.get("group", ""), next_page(request, reverse("similar"))
    try:
        action: Action | None = do()
    except NotAllowed as error:
        raise PermissionDenied(str(error)) from error
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
        action = None
    else:
        if action is None:
            messages.info(request, nothing)
    if not is_fragment(request):
        if action is not None:
            messages.success(request, action.summary, extra_tags=f"action-{action.pk}")
        return redirect(here)
    within = _within(request.POST.get("within", ""), look_alike_pairs.known())
    context = {
        "action": action,
        "key": key if _is_id(key) else "",
        "here": here,
        "tally": look_alikes.tally(request.user, within),
        "alike": True,
        "oob": True,
        "whole_page": True,
    }
    return render(request, "search/_copies_done.html", context)


def _members(request: HttpRequest) -> list[int]:
    """The images of the group as it was shown."""
    given = request.POST.getlist("member")[: 2 * look_alikes.MOST_OF_A_GROUP]
    if not all(_is_id(one) for one in given):
        raise BadValue("The form does not say which pictures are meant. Load the page again.")
    return [int(one) for one in given]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _within(text: str, known: look_alike_pairs.Known | None) -> int | None:
    """The distance that was chosen; None for as far as was computed."""
    if known is None or not (text.isascii() and text.isdigit() and len(text) < 3):
        return None
    return int(text) if int(text) < known.within else None


def _after(text: str) -> tuple[int, int] | None:
    size, _, newest = text.partition(".")
    return (int(size), int(newest)) if _is_id(size) and _is_id(newest) else None


def _address(**parts: Any) -> str:
    given = {name: value for name, value in parts.items() if value is not None}
    return f"{reverse('similar')}?{urlencode(given)}" if given else reverse("similar")
