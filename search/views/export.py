"""The export page, and what it sends: JSON, CSV, originals or sidecars, while they are being read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify
from django.views.decorators.http import require_GET, require_safe

from search import archives, exports
from search.errors import BadQuery, SearchError
from search.exports import Chosen
from search.forms import ExportForm
from search.models import Album, Image
from search.query import Query, from_params
from search.views.chips import address, chips, example_images, pairs
from search.views.mistakes import what_is_wrong

AT_ONCE = 4
"""Downloads that read originals, each of which keeps one of the server's threads for as long as it lasts."""
KINDS = {"json": "JSON", "csv": "a table", "zip": "originals", "xmp": "sidecars"}
_reading = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True)
class _Asked:
    """What the address names: a query, one's selection (`of=selection`) or an album (`of=album-12`)."""

    query: Query
    chosen: Chosen
    carried: list[tuple[str, str]]
    """The names and values that say it in an address."""
    back: str
    back_text: str

    @property
    def here(self) -> str:
        return f"{reverse('export')}?{urlencode(self.carried)}"


@require_safe
def export(request: HttpRequest) -> HttpResponse:
    """What would be exported, and how."""
    try:
        asked = _asked(request)
    except SearchError as error:
        context = {"query": Query(), **what_is_wrong(request, error)}
        return render(request, "search/export.html", context, status=422)
    query, chosen = asked.query, asked.chosen
    context = {
        "asked": asked,
        "query": query,
        "box_text": query.text(),
        "chips": chips(query, example_images(query, request.user)),
        "chosen": chosen,
        "bytes": _bytes(chosen),
        "formats": ExportForm.FORMATS,
        "namings": ExportForm.NAMINGS,
        "ranked": query.ranked,
        "nearest_href": "" if len(chosen) or not query.ranked else address(replace(query, min=0), "export"),
    }
    return render(request, "search/export.html", context)


@require_GET
def download(request: HttpRequest) -> HttpResponseBase:
    """The export itself. What is asked wrongly leads back to the page with a sentence."""
    form = ExportForm(request.GET)
    here = reverse("export")
    try:
        asked = _asked(request)
        here = asked.here
        if not form.is_valid():
            raise BadQuery(str(next(iter(form.errors.values()))[0]))
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
        return redirect(here)
    chosen = asked.chosen
    if form.cleaned_data["best"]:
        chosen = chosen.best(form.cleaned_data["best"])
    return _sent(request, chosen, form.cleaned_data["as"], form.cleaned_data["naming"], here)


def _asked(request: HttpRequest) -> _Asked:
    """Raises SearchError with a sentence."""
    of = request.GET.get("of", "")
    if of == "selection":
        chosen = exports.of_selection(request.user)
        return _Asked(Query(), chosen, [("of", of)], reverse("selection"), "Back to the selection")
    kind, _, number = of.partition("-")
    if kind == "album" and number.isascii() and number.isdigit() and len(number) < 19:
        album = Album.objects.visible_to(request.user).filter(pk=int(number)).first()
        if album is None:
            raise BadQuery("That album is not there any more.")
        back = reverse("album", args=[album.pk])
        return _Asked(Query(), exports.of_album(album, request.user), [("of", of)], back, "Back to the album")
    query = from_params(request.GET)
    chosen = exports.of_query(query, request.user)
    return _Asked(query, chosen, pairs(query), address(query), "Back to the results")


def _sent(request: HttpRequest, chosen: Chosen, kind: str, naming: str, back: str) -> HttpResponseBase:
    name = f"{slugify(chosen.name) or 'pictures'}-{timezone.now():%Y-%m-%d}"
    content: Iterator[bytes]
    if kind == "json":
        content, media = exports.as_json(chosen), "application/json"
    elif kind == "csv":
        content, media = exports.as_csv(chosen), "text/csv; charset=utf-8"
    elif kind == "xmp":
        content, media, name = archives.of_sidecars(chosen, naming), "application/zip", f"{name}-sidecars"
    else:
        if not _reading.acquire(blocking=False):
            messages.error(request, f"{AT_ONCE} downloads of originals are under way. Try again when one has ended.")
            return redirect(back)
        content, media = _Turn(archives.originals(chosen)), "application/zip"
    exports.note(chosen, KINDS[kind])
    response = StreamingHttpResponse(content, content_type=media)
    ending = "zip" if kind == "xmp" else kind
    response["Content-Disposition"] = f'attachment; filename="{name}.{ending}"'
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    response["X-Accel-Buffering"] = "no"  # a proxy need not keep it whole before it sends
    return response


class _Turn:
    """A stream that gives its turn back when it ends, fails, is closed early, or was never begun."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream, self._open = stream, True

    def __iter__(self) -> _Turn:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._stream)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._open:
            self._open = False
            _reading.release()
        close: Any = getattr(self._stream, "close", None)
        if close:
            close()


def _bytes(chosen: Chosen) -> int:
    """How large the originals are together, with the films of live photos."""
    total = 0
    for start in range(0, len(chosen.ids), 10_000):
        some = Image.objects.filter(pk__in=chosen.ids[start : start + 10_000].tolist())
        total += some.aggregate(n=Sum("size"))["n"] or 0
        if settings.IMAGESEARCH_STACKS:
            total += some.aggregate(n=Sum("movie__size"))["n"] or 0
    return int(total)
