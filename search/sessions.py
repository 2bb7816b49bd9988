"""Where people are signed in: noted at each sign-in, seen every few minutes, listed and ended.

Django keeps the sessions themselves and does not say whose they are; django-user-sessions would, but replaces Django's
session store and is not kept up, and allauth brings a whole way of signing in. So a row stands beside each session.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.contrib.sessions.models import Session
from django.db import DatabaseError, transaction
from django.db.models import Exists, OuterRef
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone

from search import audit
from search.asking import address_of
from search.models import SignedIn
from search.patience import briefly
from search.wording import counted

SEEN_EVERY = 300
"""Seconds between two notes that a session was used."""
_REMEMBERED = 10_000
_noted: dict[str, float] = {}

BROWSERS = [
    ("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("FxiOS", "Firefox"),
    ("SamsungBrowser", "Samsung Internet"), ("CriOS", "Chrome"), ("Chrome", "Chrome"), ("Safari", "Safari"),
    ("curl", "curl"), ("python", "Python"),
]  # fmt: skip
SYSTEMS = [
    ("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("CrOS", "ChromeOS"), ("Windows", "Windows"),
    ("Mac OS X", "Mac"), ("Linux", "Linux"),
]  # fmt: skip
"""What marks them in a User-Agent, and their names; the first that is found counts."""


@dataclass(frozen=True)
class Place:
    """One place where somebody is signed in."""

    pk: int
    browser: str
    address: str
    since: datetime
    seen: datetime
    current: bool


class Seen:
    """Middleware: notes now and then that a session is in use."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        user = getattr(request, "user", None)
        key = request.session.session_key if user is not None and user.is_authenticated else None
        if key and time.monotonic() - _noted.get(key, -SEEN_EVERY) >= SEEN_EVERY:
            note(request, user)
        return response


def note(request: HttpRequest, user: Any) -> None:
    """Note that this session is in use; it may fail on a busy database, and is then noted some minutes later."""
    key = request.session.session_key
    if not key:
        return
    if len(_noted) >= _REMEMBERED:
        _noted.clear()
    _noted[key] = time.monotonic()
    now, address = timezone.now(), address_of(request)
    browser = request.headers.get("User-Agent", "")[:300]
    try:
        with briefly(), transaction.atomic():
            rows = SignedIn.objects.filter(session_key=key, user=user.pk)
            if not rows.update(seen_at=now, address=address, browser=browser):
                SignedIn.objects.filter(session_key=key).delete()
                SignedIn.objects.create(
                    session_key=key, user_id=user.pk, browser=browser, address=address, created_at=now, seen_at=now
                )
    except DatabaseError:
        pass


def places(user: Any, current: str | None = None) -> list[Place]:
    """Where this person is signed in, the session with the key `current` first, then the one used last."""
    rows = _alive(SignedIn.objects.filter(user=user.pk))[:200]
    found = [
        Place(
            pk=row.pk,
            browser=browser_name(row.browser),
            address=row.address or "",
            since=row.created_at,
            seen=row.seen_at,
            current=row.session_key == current,
        )
        for row in rows
    ]
    return sorted(found, key=lambda place: not place.current)


def end(user: Any, *, pk: int | None = None, besides: str | None = None) -> int:
    """End one of this person's sessions, or all besides the one with that key; returns how many ended."""
    rows = SignedIn.objects.filter(user=user.pk)
    rows = rows.filter(pk=pk) if pk is not None else rows
    rows = rows.exclude(session_key=besides) if besides else rows
    with transaction.atomic():
        keys = list(rows.values_list("session_key", flat=True))
        ended = 0
        for start in range(0, len(keys), 5_000):
            ended += Session.objects.filter(session_key__in=keys[start : start + 5_000]).delete()[0]
            SignedIn.objects.filter(session_key__in=keys[start : start + 5_000]).delete()
    return ended


def is_open(key: str | None) -> bool:
    """Whether there is a session with this key."""
    return bool(key) and Session.objects.filter(session_key=key, expire_date__gt=timezone.now()).exists()


def prune() -> int:
    """Delete sessions whose time is over, and the notes of those that are gone; returns how many notes went."""
    Session.objects.filter(expire_date__lt=timezone.now()).delete()
    gone = SignedIn.objects.filter(~Exists(Session.objects.filter(session_key=OuterRef("session_key"))))
    return gone.delete()[0]


def browser_name(said: str) -> str:
    """ "Firefox on Linux", from what the browser says of itself; its own words where they are none of the known."""
    browser = next((name for mark, name in BROWSERS if re.search(rf"\b{mark}[-/]", said)), "")
    system = next((name for mark, name in SYSTEMS if mark in said), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or said[:60] or "Unknown browser"


def _alive(rows: Any) -> Any:
    session = Session.objects.filter(session_key=OuterRef("session_key"), expire_date__gt=timezone.now())
    return rows.filter(Exists(session))


# --- what signing in and out leaves in the audit ----------------------------------------------------


def follow_sign_ins() -> None:
    """Let every sign-in, sign-out and failed sign-in be noted, whichever page it comes from."""
    from axes.signals import user_locked_out  # its models have to be loaded first

    user_locked_out.connect(_locked_out, dispatch_uid="search.sessions.locked")
    user_logged_in.connect(_signed_in, dispatch_uid="search.sessions.in")
    user_logged_out.connect(_signed_out, dispatch_uid="search.sessions.out")
    user_login_failed.connect(_failed, dispatch_uid="search.sessions.failed")


def _signed_in(sender: Any, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    if request is None:
        return
    if request.session.session_key is None:
        request.session.save()
    note(request, user)
    audit.record(audit.Kind.SIGNED_IN, user, text=browser_name(request.headers.get("User-Agent", "")))


def _signed_out(sender: Any, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    if request is None or user is None:
        return
    SignedIn.objects.filter(session_key=request.session.session_key or "").delete()
    audit.record(audit.Kind.SIGNED_OUT, user)


def _failed(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    name = str(credentials.get("username") or "")
    if not _refused(request):
        audit.record(audit.Kind.SIGN_IN_FAILED, _of_that_name(name), name=name)


def _locked_out(sender: Any, request: HttpRequest, username: str | None, **kwargs: Any) -> None:
    name = username or ""
    if not _refused(request):
        tried = counted(request.axes_failures_since_start, "wrong password")  # type: ignore[attr-defined]
        audit.record(audit.Kind.LOCKED_OUT, _of_that_name(name), name=name, text=f"After {tried}")


def _refused(request: HttpRequest | None) -> bool:
    """Whether nothing was tried, because somebody has to wait: that is not written down, it could be endless."""
    return getattr(request, "axes_locked_out", False) and getattr(request, "axes_failures_since_start", None) is None


def _of_that_name(name: str) -> Any:
    return get_user_model().objects.filter(username=name).first() if name else None
