"""The films of live photos, in the parts that players ask for."""

from __future__ import annotations

import os

from django.conf import settings
from django.core.cache import cache
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from search import audit, live, ranges
from search.models import Image, Movie
from search.originals import open_movie, safe_name

GONE = "The movie is not where it was. The next crawl looks for it."
_ONE_LOOK = 600
"""Seconds within which the many requests of one player are one line of the audit."""


@require_safe
def movie(request: HttpRequest, image_id: int) -> HttpResponseBase:
    """The film of a live photo, whole or the part that is asked for; with `download` to be kept."""
    if not settings.IMAGESEARCH_STACKS:
        raise Http404
    visible = Image.objects.visible_to(request.user)
    found = get_object_or_404(Movie.objects.select_related("image__source").filter(image__in=visible), pk=image_id)
    keep = "download" in request.GET
    try:
        file = open_movie(found)
    except OSError:
        return _headed(HttpResponse(GONE, status=404, content_type="text/plain; charset=utf-8"))
    stands = os.fstat(file.fileno())
    size, tag = stands.st_size, f'"m{stands.st_size:x}-{stands.st_mtime_ns:x}"'
    if request.headers.get("If-None-Match") == tag:
        file.close()
        return _headed(HttpResponseNotModified(), tag)
    wanted = None
    if request.headers.get("If-Range", tag) == tag:
        try:
            wanted = ranges.asked(request.headers.get("Range", ""), size)
        except ranges.NotThere:
            file.close()
            return _headed(HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"}), tag)
    if request.method == "GET":
        _note(request, found, keep=keep)
    kind = live.content_type(found)
    name = safe_name(found.name_text)
    if wanted is None:
        response = FileResponse(file, as_attachment=keep, filename=name, content_type=kind)
    else:
        first, length = wanted
        response = FileResponse(ranges.Part(file, first, length), as_attachment=keep, filename=name, content_type=kind)
        response.status_code = 206
        response["Content-Length"] = str(length)
        response["Content-Range"] = f"bytes {first}-{first + length - 1}/{size}"
    return _headed(response, tag)


def _note(request: HttpRequest, found: Movie, *, keep: bool) -> None:
    """A line of the audit, as of a picture that is opened or downloaded."""
    if keep or cache.add(f"movie-{request.user.pk}-{found.pk}", 1, _ONE_LOOK):
        place = os.path.join(os.path.dirname(found.image.path_text), found.name_text)
        kind = audit.Kind.DOWNLOADED if keep else audit.Kind.OPENED
        audit.record(kind, request.user, image=found.image, text=f"{found.image.source.name}: {place}")


def _headed(response: HttpResponseBase, tag: str = "") -> HttpResponseBase:
    if tag:
        response["ETag"] = tag
        response["Accept-Ranges"] = "bytes"
    response["Cache-Control"] = "private, no-cache" if tag else "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    return response
