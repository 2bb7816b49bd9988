"""The bytes of pictures: thumbnails, the large view, the original file. Nothing else of a file is ever sent."""

from __future__ import annotations

import os
from typing import TypeVar

from django.contrib.auth.decorators import login_not_required
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.templatetags.static import static
from django.views.decorators.http import require_safe

from search import audit, thumbnails
from search.errors import Unreadable
from search.models import Image
from search.originals import open_original, safe_name

Response = TypeVar("Response", bound=HttpResponseBase)

BROWSERS_SHOW = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
}
LARGE_SIDE = 2560
SIDES = (1280, 2048, 4096)
"""The sizes in which the lightbox asks for a picture, by the window and the zoom."""
SMALL_ENOUGH = 400_000  # bytes; no rendition is worth its work
LARGEST_SENT_AS_IT_IS = 24_000_000  # bytes; a bigger file is sent as a rendition
MOST_PIXELS_SENT_AS_THEY_ARE = 60_000_000
A_YEAR = "private, max-age=31536000, immutable"
A_MOMENT = "private, no-store"

PLACEHOLDER = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 64" width="96" height="64">'
    b'<rect width="96" height="64" fill="#808080" fill-opacity=".12"/>'
    b'<path d="M24 46l16-18 12 13 7-7 13 12z" fill="#808080" fill-opacity=".35"/>'
    b'<circle cx="62" cy="22" r="5" fill="#808080" fill-opacity=".35"/></svg>'
)


@require_safe
def thumbnail(request: HttpRequest, image_id: int) -> HttpResponse:
    """The stored thumbnail, or a quiet placeholder (404 with `?strict`) while there is none."""
    image = _visible(request, image_id)
    tag = _tag("t", image)
    if tag and request.headers.get("If-None-Match") == tag:
        return _kept(HttpResponseNotModified(), request, image, tag)
    data = thumbnails.read(image.pk)
    if data is None:
        if "strict" in request.GET:
            raise Http404
        return _plain(HttpResponse(PLACEHOLDER, content_type="image/svg+xml"), A_MOMENT)
    return _kept(HttpResponse(data, content_type="image/jpeg"), request, image, tag)


@require_safe
def picture(request: HttpRequest, image_id: int) -> HttpResponse | FileResponse:
    """The large view: the file itself where browsers show it, else a JPEG of at most 2,560 pixels a side.

    With `side` (one of SIDES) a JPEG of at most so many pixels a side, where the file is larger than that. What cannot
    be read is answered with its thumbnail, or with `strict` by 404 and a sentence.
    """
    image = _visible(request, image_id)
    side = _side(request)
    tag = _tag(f"p{side or ''}-" if side else "p", image)
    if tag and request.headers.get("If-None-Match") == tag:
        return _kept(HttpResponseNotModified(), request, image, tag)
    try:
        file = open_original(image)
    except OSError:
        return _instead(request, image, "The file is not where it was.")
    size = os.fstat(file.fileno()).st_size
    if request.method == "GET":
        audit.record(audit.Kind.OPENED, request.user, image=image)
    if sent_as_it_is(image, size) and not (side and _much_larger(image, size, side)):
        return _kept(FileResponse(file, content_type=BROWSERS_SHOW[image.format]), request, image, tag)
    file.close()
    try:
        data = thumbnails.rendition(image, side or LARGE_SIDE)
    except Unreadable as error:
        return _instead(request, image, error.said_to(request.user))
    except OSError:
        return _instead(request, image, "The file cannot be read just now.")
    return _kept(HttpResponse(data, content_type="image/jpeg"), request, image, tag)


@require_safe
def original(request: HttpRequest, image_id: int) -> HttpResponse | FileResponse:
    """The file as it lies on disk, as a download and never as a page."""
    image = _visible(request, image_id)
    try:
        file = open_original(image)
    except OSError as error:
        raise Http404("The file is not there any more.") from error
    if request.method == "GET":
        audit.record(audit.Kind.DOWNLOADED, request.user, image=image)
    kind = BROWSERS_SHOW.get(image.format, "application/octet-stream")
    response = FileResponse(file, as_attachment=True, filename=safe_name(image.name), content_type=kind)
    return _plain(response, A_MOMENT)


@login_not_required
@require_safe
def favicon(request: HttpRequest) -> HttpResponse:
    """Where browsers look for the icon of pages that name none, such as a picture opened alone."""
    return redirect(static("favicon.svg"))


def _visible(request: HttpRequest, image_id: int) -> Image:
    source = ["source__name", "source__root", "source__follow_symlinks"]
    columns = ["id", *source, "path", "name", "format", "sha256", "width", "height"]
    return get_object_or_404(
        Image.objects.visible_to(request.user).select_related("source").only(*columns), pk=image_id
    )


def sent_as_it_is(image: Image, size: int) -> bool:
    """Whether browsers get the file itself as the large view. `size`: its bytes."""
    pixels = (image.width or 0) * (image.height or 0)
    return image.format in BROWSERS_SHOW and size <= LARGEST_SENT_AS_IT_IS and pixels <= MOST_PIXELS_SENT_AS_THEY_ARE


def _much_larger(image: Image, size: int, side: int) -> bool:
    """Whether a rendition of this side spares the way of a larger file. What may move is never made a still one."""
    moves = image.format in {"GIF", "WEBP", "AVIF"}
    return not moves and size > SMALL_ENOUGH and max(image.width or 0, image.height or 0) > side * 1.15


def _side(request: HttpRequest) -> int:
    given = request.GET.get("side", "")
    return int(given) if given in {str(side) for side in SIDES} else 0


def _instead(request: HttpRequest, image: Image, sentence: str) -> HttpResponse:
    """What the large view shows when the file cannot be read: its thumbnail, else the placeholder."""
    if "strict" in request.GET:
        return _plain(HttpResponse(sentence, status=404, content_type="text/plain; charset=utf-8"), A_MOMENT)
    data = thumbnails.read(image.pk)
    if data is None:
        return _plain(HttpResponse(PLACEHOLDER, content_type="image/svg+xml"), A_MOMENT)
    return _plain(HttpResponse(data, content_type="image/jpeg"), A_MOMENT)


def _tag(kind: str, image: Image) -> str:
    return f'"{kind}{image.sha256.hex()}"' if image.sha256 else ""


def _kept(response: Response, request: HttpRequest, image: Image, tag: str) -> Response:
    """May be kept for a year when the address names these very contents, else must be asked for again."""
    if tag:
        response["ETag"] = tag
    current = image.sha256 is not None and request.GET.get("v") == image.sha256.hex()[:16]
    return _plain(response, A_YEAR if current else "private, no-cache")


def _plain(response: Response, keep: str) -> Response:
    response["Cache-Control"] = keep
    response["X-Content-Type-Options"] = "nosniff"
    return response
