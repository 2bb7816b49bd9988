"""Text looked for among the images of the admin: what is exact at once, parts of names for as long as one waits."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from django.contrib import messages
from django.db.models import Max, Q
from django.http import HttpRequest
from django.utils.html import format_html

from search.admin.paging import FURTHER
from search.folding import contains, path_text
from search.models import Image, ImageTag, Source, path_digest, tag_key
from search.wording import counted

MOST = 1_000
"""More images than that are not gathered: whoever looks for a common word narrows it."""
WINDOW = 50_000
PATIENCE = 1.0
"""Seconds after which the look through names stops and says how far it came."""


@dataclass
class Found:
    """The ids of what was found, and how far the look went."""

    ids: list[int] = field(default_factory=list)
    capped: bool = False
    """There are more than were gathered."""
    below: int = 0
    """Images with this number or a lower one were not looked at; 0 when all were."""


def find(term: str, *, start: int | None = None, patience: float = PATIENCE) -> Found:
    """The images whose id, path, folder or tag this is, and those with it in their name, folder or title, newest
    registered first; names from the id `start` down. Images of every source: the caller's list narrows them."""
    return look(_part(term), start=start, patience=patience, found=_exact(term))


def look(
    condition: Q, *, start: int | None = None, patience: float = PATIENCE, found: list[int] | None = None
) -> Found:
    """The images that a condition holds for which no index helps, from the id `start` down, added to `found`.

    Stretch by stretch of ids for as long as `patience` says, at least one.
    """
    gathered = Found(found or [])
    top = start if start is not None else Image.objects.aggregate(last=Max("pk"))["last"] or 0
    deadline = time.monotonic() + patience
    first = True
    while top > 0:
        if not first and time.monotonic() > deadline:
            gathered.below = top
            break
        rows = Image.objects.filter(condition, pk__gt=top - WINDOW, pk__lte=top).order_by("-pk")
        room = max(0, MOST - len(gathered.ids))
        new = list(rows.values_list("pk", flat=True)[: room + 1])
        gathered.ids += new[:room]
        if len(new) > room:
            gathered.capped, gathered.below = True, new[room]
            break
        top, first = top - WINDOW, False
    return gathered


def start_of(request: HttpRequest) -> int | None:
    """From which id down an address asks to look; None: from the top."""
    given = request.GET.get(FURTHER, "")
    return int(given) if given.isdecimal() and len(given) < 19 else None


def say_how_far(request: HttpRequest, found: Found) -> None:
    """A list that does not look at every image must say so, and offer to look on."""
    if request.method != "GET":
        return
    if not found.below:
        return
    asked = request.GET.copy()
    asked.pop("p", None)
    asked[FURTHER] = str(found.below)
    if found.capped:
        said = f"There are more than the {counted(MOST, 'picture')} listed here: narrow it, or"
    else:
        said = f"Pictures down to number {found.below + 1:,} were looked at, which took long enough:"
    messages.warning(request, format_html('{} <a href="?{}">look on from there</a>.', said, asked.urlencode()))


def _exact(term: str) -> list[int]:
    """By id, by tag, and by path: of a file, or of everything right in a folder; each of these is an index."""
    ids = [int(term)] if term.isdecimal() and len(term) < 19 else []
    ids += ImageTag.objects.filter(tag__key=tag_key(term)).order_by("-image").values_list("image", flat=True)[:MOST]
    if "/" in term or "." in term:
        ids += Image.objects.filter(_by_path(os.fsencode(term))).order_by("-pk").values_list("pk", flat=True)[:MOST]
    return list(dict.fromkeys(ids))[:MOST]


def _by_path(path: bytes) -> Q:
    wanted = Q()
    for source, root in Source.objects.values_list("pk", "root"):
        inside = path[len(root) :] if path.startswith(root.rstrip(b"/") + b"/") else path
        digest = path_digest(inside.strip(b"/"))
        wanted |= Q(source=source, path_digest=digest) | Q(source=source, directory=digest)
    return wanted if wanted else Q(pk__in=[])


def _part(term: str) -> Q:
    """Condition: part of the name, the folder or the title; of the whole path where the term has a slash."""
    if "/" in term:
        return contains(path_text(), term)
    if term.isascii():  # the database compares ASCII without regard to case by itself, many times quicker
        return Q(name__icontains=term) | Q(folder__icontains=term) | (~Q(title="") & Q(title__icontains=term))
    return contains("name", term) | contains("folder", term) | (~Q(title="") & contains("title", term))
