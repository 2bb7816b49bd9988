"""For those who run the installation: accounts, groups, and who has to wait at the sign-in page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from search import accounts, audit, sessions, signin_limit
from search.asking import is_address
from search.errors import NotAllowed, SearchError
from search.models import SourceAccess
from search.views.staff import staff_only
from search.wording import counted

PAGE = 50
MOST_GROUPS = 500
INVITATION = "invitation"
"""Where the session keeps a link until it was shown, once."""


for_staff = staff_only("People and groups are looked after by those who run this installation.")


@require_http_methods(["GET", "HEAD", "POST"])
@for_staff
def accounts_page(request: HttpRequest) -> HttpResponse:
    """Everybody who has an account, the groups, and who is locked out."""
    if request.method == "POST":
        return _do(request, _VERBS, None)
    after = request.GET.get("after", "").replace("\0", "")
    people = get_user_model().objects.order_by("username").prefetch_related("groups")
    shown = list((people.filter(username__gt=after) if after else people)[: PAGE + 1])
    more = f"{reverse('accounts')}?{urlencode({'after': shown[PAGE - 1].username})}" if len(shown) > PAGE else ""
    context = {
        "page": "accounts",
        "people": shown[:PAGE],
        "more_href": more,
        "later": bool(after),
        "groups": Group.objects.annotate(members=Count("user")).order_by("name")[:MOST_GROUPS],
        "locked": signin_limit.locked(most=20),
    }
    return render(request, "search/accounts.html", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@for_staff
def account_page(request: HttpRequest, person_id: int) -> HttpResponse:
    """One account: its groups, folders and sessions, and what can be done to it."""
    person = get_object_or_404(get_user_model(), pk=person_id)
    if request.method == "POST":
        return _do(request, _VERBS_OF_ONE, person)
    invitation = request.session.get(INVITATION)
    if invitation and request.method == "GET":
        del request.session[INVITATION]
    own = {group.pk for group in person.groups.all()}
    grants = SourceAccess.objects.filter(user=person) | SourceAccess.objects.filter(group__in=own)
    context = {
        "page": "accounts",
        "person": person,
        "manageable": accounts.may_manage(request.user, person),
        "oneself": person.pk == request.user.pk,
        "link": invitation["link"] if invitation and invitation["of"] == person.pk else "",
        "groups": [(group, group.pk in own) for group in Group.objects.order_by("name")[:MOST_GROUPS]],
        "grants": grants.select_related("source", "group").order_by("source__name")[:MOST_GROUPS],
        "places": sessions.places(person) if accounts.may_manage(request.user, person) else [],
    }
    return render(request, "search/account_of.html", context)


def _do(
    request: HttpRequest, verbs: dict[str, Callable[[HttpRequest, Any], HttpResponse]], person: Any
) -> HttpResponse:
    verb = verbs.get(request.POST.get("verb", ""))
    if verb is None:
        raise Http404
    try:
        return verb(request, person)
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    return _back(person)


def _back(person: Any) -> HttpResponse:
    return redirect("account_of", person_id=person.pk) if person is not None else redirect("accounts")


def _make(request: HttpRequest, _: Any) -> HttpResponse:
    person = accounts.make_person(request.POST.get("username", ""), by=request.user, runs="runs" in request.POST)
    return _link(request, person)


def _make_group(request: HttpRequest, _: Any) -> HttpResponse:
    group = accounts.make_group(request.POST.get("name", ""), by=request.user)
    messages.success(request, f"The group {group} is there. Put people into it on their pages.")
    return _back(None)


def _unlock(request: HttpRequest, _: Any) -> HttpResponse:
    name, address = (request.POST.get(part, "").replace("\0", "") for part in ("username", "address"))
    whom = name or f"everybody at {address}"
    if (name or is_address(address)) and signin_limit.unlock(username=name, address="" if name else address):
        audit.record(audit.Kind.UNLOCKED, request.user, text=f"Let {whom} sign in again")
        messages.success(request, f"{name or 'Everybody at ' + address} can sign in again.")
    else:
        messages.info(request, "They need not wait any more.")
    return _back(None)


def _link(request: HttpRequest, person: Any) -> HttpResponse:
    link = request.build_absolute_uri(accounts.invitation(person, by=request.user))
    request.session[INVITATION] = {"of": person.pk, "link": link}
    return _back(person)


def _switch(on: bool) -> Callable[[HttpRequest, Any], HttpResponse]:
    def switch(request: HttpRequest, person: Any) -> HttpResponse:
        accounts.switch(person, on=on, by=request.user)
        messages.success(request, f"The account {person} is {'on again' if on else 'off; nothing of it was deleted'}.")
        return _back(person)

    return switch


def _end(request: HttpRequest, person: Any) -> HttpResponse:
    count = accounts.end_sessions(person, by=request.user)
    messages.success(request, f"Ended {counted(count, 'session')} of {person}.")
    return redirect("signin") if person.pk == request.user.pk else _back(person)


def _member(member: bool) -> Callable[[HttpRequest, Any], HttpResponse]:
    def put(request: HttpRequest, person: Any) -> HttpResponse:
        text = request.POST.get("group", "")
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        group = Group.objects.filter(pk=number).first()
        if group is None:
            raise NotAllowed("That group is gone.")
        accounts.set_member(person, group, member=member, by=request.user)
        messages.success(request, f"{person} {'is in' if member else 'left'} the group {group}{' now' * member}.")
        return _back(person)

    return put


_VERBS: dict[str, Callable[[HttpRequest, Any], HttpResponse]] = {
    "make": _make,
    "group": _make_group,
    "unlock": _unlock,
}
_VERBS_OF_ONE: dict[str, Callable[[HttpRequest, Any], HttpResponse]] = {
    "link": _link,
    "on": _switch(True),
    "off": _switch(False),
    "end": _end,
    "join": _member(True),
    "leave": _member(False),
}
