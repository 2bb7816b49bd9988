"""System checks: what is wrong with this installation, each with the line that mends it. Imports nothing heavy."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import DatabaseError

INSTALLATION = "installation"
"""Tag of what every command checks before it starts; the rest is for `check`, `start` and `migrate`."""

OLDEST_SQLITE = (3, 35, 0)
"""RETURNING, and window functions over what it returns."""


@register(INSTALLATION)
def check_folders(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The folders the program writes can be written, or made."""
    messages: list[CheckMessage] = []
    for name in ("DATA", "SPACES", "THUMBNAILS", "MODELS", "LOGS"):
        setting = f"IMAGESEARCH_{name}"
        folder = Path(getattr(settings, setting))
        problem = _problem_of_writing(folder)
        if problem:
            messages.append(
                Error(
                    f"{setting} is {str(folder)!r}, which cannot be written: {problem}.",
                    hint=f"Make it writable for this user (sudo chown {_user()} {_existing(folder)}), "
                    f"or set {setting} to another folder.",
                    id="search.E001",
                )
            )
    return messages


@register
def check_encoder(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The encoder setting can be understood, and its model is here."""
    from search.encoders import availability

    try:
        found = availability()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="docs/settings.md lists what it accepts.", id="search.E002")]
    if found.ready:
        return []
    return [
        Warning(
            f"The model {found.label} is not ready: searching by meaning waits for it.",
            hint=found.sentence,
            id="search.W001",
        )
    ]


@register(INSTALLATION)
def check_names(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """No IMAGESEARCH_ variable is set that the program does not read."""
    return [
        Warning(sentence, hint="Correct or remove it.", id="search.W002")
        for sentence in settings.IMAGESEARCH_UNKNOWN_SETTINGS
    ]


@register(Tags.security, deploy=True)
def check_proxies(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Behind a proxy the addresses of visitors are known."""
    if not settings.SECURE_SSL_REDIRECT or settings.IMAGESEARCH_PROXIES:
        return []
    return [
        Warning(
            "IMAGESEARCH_HTTPS says that a proxy stands before the program, but IMAGESEARCH_PROXIES is 0: everybody "
            "seems to come from the proxy's address, and waits together after too many wrong passwords.",
            hint="Let the proxy set X-Forwarded-For, and set IMAGESEARCH_PROXIES=1.",
            id="search.W003",
        )
    ]


@register(INSTALLATION)
def check_sqlite(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """SQLite is new enough."""
    if connections[DEFAULT_DB_ALIAS].vendor != "sqlite" or sqlite3.sqlite_version_info >= OLDEST_SQLITE:
        return []
    oldest = ".".join(map(str, OLDEST_SQLITE))
    return [
        Error(
            f"SQLite is {sqlite3.sqlite_version}; the program needs {oldest} or newer.",
            hint="Use a newer Python (make setup PYTHON=...), or PostgreSQL through DATABASE_URL.",
            id="search.E003",
        )
    ]


@register(Tags.database)
def check_ids(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """No id will be given out twice: the sequence stands above the high-water marks."""
    from search import highwater
    from search.models import Counter

    if DEFAULT_DB_ALIAS not in (databases or []):
        return []
    try:
        if Counter._meta.db_table not in connections[DEFAULT_DB_ALIAS].introspection.table_names():
            return []
        sentences = highwater.check()
    except (DatabaseError, OSError) as error:
        return [
            Error(
                f"The database cannot be asked: {str(error).splitlines()[0]}.",
                hint="See that it runs and that DATABASE_URL is right; then: python manage.py migrate",
                id="search.E004",
            )
        ]
    return [Error(sentence, hint=f"Run: python {highwater.MEND}", id="search.E005") for sentence in sentences]


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _problem_of_writing(folder: Path) -> str:
    """Why nothing can be written there, or ""."""
    nearest = _existing(folder)
    if not nearest.is_dir():
        return f"{nearest} is not a folder"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return "permission denied" if nearest == folder else f"it is not there and {nearest} may not be written"
    return ""


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())
