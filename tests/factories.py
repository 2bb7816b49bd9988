"""Rows for tests, with the fewest fields."""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model

from search.models import Image, ImageMetadata, Source, SourceAccess, path_digest

_numbers = itertools.count(1)


def make_user(username: str | None = None, *, staff: bool = False, **fields: Any) -> Any:
    return get_user_model().objects.create_user(
        username=username or f"user{next(_numbers)}",
        password="pass-word-1",
        **{"is_staff": staff, "is_superuser": staff, **fields},
    )


def make_source(root: Path | str | None = None, *, owner: Any = None, viewer: Any = None, **fields: Any) -> Source:
    number = next(_numbers)
    source = Source.objects.create(
        name=fields.pop("name", f"source{number}"), root=os.fsencode(root or f"/nowhere/{number}"), **fields
    )
    for user, role in [(owner, SourceAccess.Role.OWNER), (viewer, SourceAccess.Role.VIEWER)]:
        if user is not None:
            SourceAccess.objects.create(source=source, user=user, role=role)
    return source


def make_image(source: Source | None = None, path: str | bytes | None = None, **fields: Any) -> Image:
    """A READY image row (no file, no embedding); fields override."""
    source = source or make_source()
    raw = os.fsencode(path) if path is not None else b"photo%d.jpg" % next(_numbers)
    directory, _, name = raw.rpartition(b"/")
    defaults: dict[str, Any] = {
        "name": name.decode("utf-8", "backslashreplace"),
        "folder": directory.decode("utf-8", "backslashreplace"),
        "directory": path_digest(directory),
        "size": 1000,
        "mtime_ns": 1_700_000_000_000_000_000,
        "state": Image.State.READY,
        "shown_at": datetime(2024, 1, 1, tzinfo=UTC),
        "format": "JPEG",
        "width": 640,
        "height": 480,
    }
    exif = fields.pop("exif", None)
    image = Image.objects.create(source=source, path=raw, path_digest=path_digest(raw), **{**defaults, **fields})
    if exif is not None:
        ImageMetadata.objects.create(image=image, exif=exif)
    return image
