"""Who may see and change the pictures of a folder, as its owners (and staff) say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import Case, Count, Q, Value, When
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from search import access
from search.errors import BadValue, SearchError
from search.models import Source, SourceAccess

MOST_ROWS = 500
MOST_NAMES = 200
RANK = Case(When(role="owner", then=Value(0)), When(role="editor", then=Value(1)), default=Value(2))
ROLES = [
    ("viewer", "Viewer", "sees the pictures"),
    ("editor", "Editor", "also tags, rates, hides and removes them"),
    ("owner", "Owner", "also says who may see them"),
]


@require_safe
def access_list(request: HttpRequest) -> HttpResponse:
    """The folders one may see, what one may do there, and the way to those one owns."""
    owned = access.owned_sources(request.user)
    shown = Source.objects.all() if request.user.is_staff else access.readable_sources(request.user)
    sources = list(shown.annotate(given=Count("access", distinct=True)).order_by("name")[:MOST_ROWS])
    mine = set(owned.filter(pk__in=[one.pk for one in sources]).values_list("pk", flat=True))
    context = {
        "page": "access",
        "rows": [(source, source.pk in mine, role) for source, role in _with_roles(sources, request.user)],
    }
    return render(request, "search/access.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def source_access(request: HttpRequest, source_id: int) -> HttpResponse:
    """Who may see one folder; giving and taking it."""
    source = get_object_or_404(access.owned_sources(request.user), pk=source_id)
    if request.method == "POST":
        try:
            _change(request, source)
        except SearchError as error:
            messages.error(request, error.said_to(request.user))
        still = access.owned_sources(request.user).filter(pk=source.pk).exists()
        return redirect("source_access", source_id=source.pk) if still else redirect("access")
    rows = source.access.select_related("user", "group").order_by(RANK, "group__name", "user__username")
    context: dict[str, Any] = {
        "page": "access",
        "source": source,
        "rows": rows[:MOST_ROWS],
        "roles": ROLES,
        "names": [],
    }
    if request.user.is_staff:  # others type a name that they know: who else has an account is not theirs to read
        people = get_user_model().objects.filter(is_active=True).order_by("username")
        context["names"] = [
            *people.values_list("username", flat=True)[:MOST_NAMES],
            *Group.objects.order_by("name").values_list("name", flat=True)[:MOST_NAMES],
        ]
    return render(request, "search/source_access.html", context)


def _change(request: HttpRequest, source: Source) -> None:
    verb, posted = request.POST.get("verb"), request.POST
    if verb == "give":
        role = _role(posted.get("role", ""))
        whom = _whom(posted.get("name", ""), group=posted.get("whom") == "group")
        access.grant(source, role, by=request.user, **whom)
        messages.success(request, f"{next(iter(whom.values()))} is {_role_name(role)} of {source} now.")
    elif verb in ("role", "take"):
        row = source.access.filter(pk=_number(posted.get("access", ""))).select_related("user", "group").first()
        if row is None:
            raise BadValue("That was taken away already.")
        who = f"{row.user or row.group}"
        if verb == "take":
            access.revoke(row, by=request.user)
            messages.success(request, f"{who} sees {source} no longer.")
        else:
            role = _role(posted.get("role", ""))
            access.grant(source, role, by=request.user, user=row.user, group=row.group)
            messages.success(request, f"{who} is {_role_name(role)} of {source} now.")
    else:
        raise Http404


def _whom(name: str, *, group: bool) -> dict[str, Any]:
    name = name.replace("\0", "").strip()
    if not name:
        raise BadValue("Type the name of the person or group first.")
    if group:
        found = Group.objects.filter(name__iexact=name).first()
        if found is None:
            raise BadValue(f"There is no group “{name[:60]}”. Whoever runs this installation can make one.")
        return {"group": found}
    people = get_user_model().objects.filter(is_active=True)
    person = people.filter(username=name).first() or people.filter(username__iexact=name).first()
    if person is None:
        raise BadValue(f"Nobody signs in as “{name[:60]}”. Whoever runs this installation can make an account.")
    return {"user": person}


def _role(text: str) -> str:
    if text not in SourceAccess.Role.values:
        raise BadValue("Choose one of the roles: viewer, editor or owner.")
    return text


def _role_name(role: str) -> str:
    return f"{'a' if role == 'viewer' else 'an'} {role}"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _with_roles(sources: Sequence[Source], user: Any) -> list[tuple[Source, str]]:
    """Each source with the highest role this person has there, "" for none (staff)."""
    rank = {"viewer": 0, "editor": 1, "owner": 2}
    best: dict[int, str] = {}
    rows = SourceAccess.objects.filter(
        Q(user=user.pk) | Q(group__in=user.groups.values("pk")), source__in=[one.pk for one in sources]
    )
    for source, role in rows.values_list("source_id", "role"):
        if rank[role] > rank.get(best.get(source, ""), -1):
            best[source] = role
    return [(source, SourceAccess.Role(best[source.pk]).label if source.pk in best else "") for source in sources]
