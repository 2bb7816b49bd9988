"""Who is asking just now, and from which address: for what is noted far from the view (audit, sign-in limit)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)


class Asking:
    """Middleware: the request can be asked for by whatever runs within it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        token = _request.set(request)
        try:
            return self.get_response(request)
        finally:
            _request.reset(token)


def current_request() -> HttpRequest | None:
    """The request that is being answered; None on the command line and in the background."""
    return _request.get()


def address_of(request: HttpRequest) -> str | None:
    """The client's IP address; None when nothing sound is known (a Unix socket).

    Behind IMAGESEARCH_PROXIES proxies it is the entry of X-Forwarded-For that the outermost of them wrote, counted
    from the right: what stands left of it was sent by the client and proves nothing.
    """
    proxies: int = settings.IMAGESEARCH_PROXIES
    if proxies:
        entries = [one.strip() for one in request.headers.get("X-Forwarded-For", "").split(",")]
        found = _address(entries[-proxies]) if len(entries) >= proxies else None
        if found is not None:
            return found
    return _address(request.META.get("REMOTE_ADDR", ""))


def lock_address(request: HttpRequest) -> str | None:
    """The address by which attempts are counted: of IPv6 the network, since one client commands all of a /64."""
    found = address_of(request)
    return counted_as(found) if found is not None else None


def counted_as(address: str) -> str:
    """An IPv4 address itself, of an IPv6 address the network it lies in."""
    if ":" not in address:
        return address
    return str(ipaddress.IPv6Network((address, 64), strict=False).network_address)


def _address(text: str) -> str | None:
    """The address in "192.0.2.1", "192.0.2.1:8000", "[2001:db8::1]:8000" or "2001:db8::1"."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def is_address(text: str) -> bool:
    """Whether this is an IP address, as a person types it."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def current_user() -> Any:
    """The account that is asking; None on the command line, in the background and for nobody signed in."""
    user = getattr(current_request(), "user", None)
    return user if user is not None and user.is_authenticated else None
