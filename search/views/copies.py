"""Exact copies: groups as cards, one of each to keep; by mouse, by key, and without a script by forms."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import numpy as np
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from search import copies, errands
from search.access import editable_sources
from search.copy_rule import RULES
from search.errors import BadQuery, BadValue, NotAllowed, SearchError
from search.models import Action, Source
from search.selection import Selected
from search.views.moving import next_page
from search.views.results import is_fragment
from search.wording import counted

PAGE = 20
MOST_SOURCES = 200
AT_ONCE = 2_000
"""More groups than that are cleared up in portions, with progress."""


@require_safe
def copies_page(request: HttpRequest) -> HttpResponse:
    """Groups of exact copies, the one with the newest picture first."""
    older = request.GET.get("older", "")
    before = int(older) if older.isascii() and older.isdigit() and len(older) < 19 else None
    try:
        prefer, wrong = copies.preferred(request.GET.get("prefer"), request.user), ""
    except BadQuery as error:
        prefer, wrong = None, str(error)
    found, more = copies.groups(request.user, older=before, limit=PAGE, prefer=prefer)
    context = {
        "page": "copies",
        "groups": found,
        "wrong": wrong,
        "tally": copies.tally(request.user),
        "rules": RULES,
        "prefer": prefer,
        "sources": preferable(request.user),
        "more_href": _address(older=found[-1].key, prefer=prefer) if more and found else "",
        "first_href": _address(prefer=prefer) if before is not None else "",
        "here": _address(older=before, prefer=prefer),
        "whole_page": True,
        "errand": errands.newest(request.user),
        "selection_next": _address(older=before, prefer=prefer),
    }
    return render(request, "search/copies.html", context)


@require_POST
def keep(request: HttpRequest) -> HttpResponse:
    """Keep one image of its group and hide the others."""
    given = request.POST.get("keeper", "")
    key = request.POST.get("group", "")
    try:
        if not (given.isascii() and given.isdigit() and len(given) < 19):
            raise BadValue("Choose which one to keep.")
        action = copies.hide_others([int(given)], request.user, chosen=True)
    except NotAllowed as error:
        raise PermissionDenied(str(error)) from error
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
        action = None
    else:
        if action is None:
            messages.info(request, "There is nothing left to hide: the copies were hidden or changed meanwhile.")
    here = next_page(request, reverse("copies"))
    if not is_fragment(request):
        if action is not None:
            messages.success(request, action.summary, extra_tags=f"action-{action.pk}")
        return redirect(here)
    context: dict[str, Any] = {"action": action, "key": key if key.isascii() and key.isdigit() else "", "here": here}
    context |= {"tally": copies.tally(request.user), "oob": True, "whole_page": True}
    return render(request, "search/_copies_done.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def everything(request: HttpRequest) -> HttpResponse:
    """All groups at once: first what it would do, then (POST) do it."""
    given = request.POST if request.method == "POST" else request.GET
    try:
        prefer = copies.preferred(given.get("prefer"), request.user)
    except BadQuery as error:
        messages.error(request, str(error))
        return redirect("copies")
    if request.method != "POST":
        context = {
            "page": "copies",
            "tally": copies.tally(request.user),
            "rules": RULES,
            "prefer": prefer,
            "preferred": Source.objects.filter(pk=prefer).first() if prefer else None,
            "back_href": _address(prefer=prefer),
        }
        return render(request, "search/copies_all.html", context)
    ids = copies.representatives(request.user)
    chosen = Selected(ids, np.full(len(ids), np.nan, dtype=np.float32))
    try:
        made = errands.do("copies", chosen, {"prefer": prefer}, request.user, at_once=AT_ONCE)
    except NotAllowed as error:
        raise PermissionDenied(str(error)) from error
    if isinstance(made, Action):
        messages.success(request, made.summary, extra_tags=f"action-{made.pk}")
    elif made is None:
        messages.info(request, "There are no copies to hide.")
    else:
        messages.info(request, f"{counted(made.total, 'group')}: this takes a moment, and goes on by itself.")
    return redirect(_address(prefer=prefer))


def preferable(user: Any) -> list[Source]:
    """Whose copies may be preferred."""
    found = Source.objects.all() if user.is_staff else editable_sources(user)
    return list(found.order_by("name")[:MOST_SOURCES])


def _address(**parts: Any) -> str:
    given = {name: value for name, value in parts.items() if value is not None}
    return f"{reverse('copies')}?{urlencode(given)}" if given else reverse("copies")
