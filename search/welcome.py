"""The one-time link that creates the owner: printed at the first start, good once, only while nobody has an account."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.urls import reverse

from search import changes
from search.errors import NotAllowed
from search.models import Change, Source, SourceAccess

SPENT = (
    "This one-time link is no longer good: it was used, or a newer one was printed. "
    "Sign in, or stop the program and start it again for a new link while nobody has an account."
)


def is_needed() -> bool:
    """True while nobody has an account."""
    return not get_user_model().objects.exists()


def issue() -> str | None:
    """Make a new one-time token and return the path of its page; earlier links stop working.

    None when somebody already has an account. Only the token's SHA-256 is stored.
    """
    if not is_needed():
        return None
    token = secrets.token_urlsafe(32)
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}.tmp")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(_digest(token))
    os.replace(fresh, file)
    return reverse("welcome", args=[token])


def is_good(token: str) -> bool:
    """Whether this token would create the owner right now."""
    try:
        stored = _file().read_text().strip()
    except OSError:
        return False
    return hmac.compare_digest(stored, _digest(token)) and is_needed()


def redeem(token: str, *, username: str, password: str) -> Any:
    """Create the owner (a superuser), give them every source without an owner, and spend the link.

    Raises NotAllowed when the link is not good. Of two simultaneous calls exactly one succeeds.
    """
    if not is_good(token):
        raise NotAllowed(SPENT)
    claimed = _file().with_suffix(".claimed")
    try:
        os.rename(_file(), claimed)
    except FileNotFoundError:
        raise NotAllowed(SPENT) from None
    try:
        with transaction.atomic():
            if not is_needed():
                raise NotAllowed(SPENT)
            owner = get_user_model().objects.create_superuser(username=username, password=password)
            adopt_sources(owner)
    except BaseException:
        if is_needed():
            os.rename(claimed, _file())
        raise
    with suppress(FileNotFoundError):
        claimed.unlink()
    return owner


def adopt_sources(owner: Any) -> int:
    """Make this person the owner of every source that has none; returns how many."""
    with transaction.atomic():
        owned = SourceAccess.objects.filter(role=SourceAccess.Role.OWNER).values("source")
        ownerless = list(Source.objects.exclude(pk__in=owned))
        for source in ownerless:
            SourceAccess.objects.update_or_create(source=source, user=owner, defaults={"role": SourceAccess.Role.OWNER})
        if ownerless:
            changes.record(Change.Kind.ACCESS, [source.pk for source in ownerless])
    return len(ownerless)


def _file() -> Path:
    return Path(settings.IMAGESEARCH_DATA) / "welcome"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
