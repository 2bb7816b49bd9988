"""Which picture of a source, album or tag this is: the page."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from search import references, uploads
from search.errors import BadQuery, SearchError
from search.forms import IdentifyForm
from search.identification import Identification, identify
from search.models import EmbeddingSpace, Image
from search.views.grid import Tile, image_href, thumbnail_url

log = logging.getLogger(__name__)

SHOWN = 24


@require_http_methods(["GET", "HEAD", "POST"])
def identify_page(request: HttpRequest) -> HttpResponse:
    """Choose a picture and where to look (POST keeps the picture and leads to an address); GET shows the verdict."""
    if request.method == "POST":
        return _keep(request)
    given = {name: request.GET.get(name, "")[:100] for name in ("among", "space", "upload", "like")}
    groups = references.choices(request.user)
    context: dict[str, Any] = {
        "page": "identify",
        "groups": groups,
        "spaces": EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE).order_by("id"),
        "given": given,
    }
    status = 200
    try:
        context["shown"] = _shown(given, request.user)
        if context["shown"] and given["among"]:
            found = _identified(given, request.user)
            context |= {"found": found, "tiles": _tiles(found), "best": _tiles(found)[0]}
            context["compared"] = f"{found.references:,} of {found.of:,}" if found.references < found.of else ""
    except SearchError as error:
        context["problem"], status = error.said_to(request.user), 422
    response = render(request, "search/identify.html", context, status=status)
    response["Cache-Control"] = "private, no-cache"
    return response


def _keep(request: HttpRequest) -> HttpResponse:
    form = IdentifyForm(request.POST, request.FILES)
    wanted = {name: request.POST.get(name, "")[:100] for name in ("among", "space", "upload", "like")}
    if not form.is_valid():
        messages.error(request, str(next(iter(form.errors.values()))[0]))
        return redirect(_address(wanted))
    picture = form.cleaned_data["picture"]
    if picture is not None:
        try:
            wanted |= {"upload": uploads.keep(picture, request.user).token, "like": ""}
        except SearchError as error:
            messages.error(request, error.said_to(request.user))
        except OSError as error:
            log.error("An uploaded picture could not be kept: %s", error)
            messages.error(request, f"The picture could not be kept ({error.strerror}). Free some space on the server.")
    elif not (wanted["upload"] or wanted["like"]):
        messages.error(request, "Choose, drop or paste a picture first.")
    return redirect(_address(wanted))


def _address(wanted: dict[str, str]) -> str:
    said = urlencode({name: value for name, value in wanted.items() if value})
    return f"{reverse('identify')}?{said}" if said else reverse("identify")


def _shown(given: dict[str, str], user: Any) -> tuple[str, str] | None:
    """(address, name) of the picture that is to be identified. Raises BadQuery for one that is not there."""
    if given["upload"]:
        uploads.content(given["upload"], user)
        return reverse("uploaded", args=[given["upload"]]), "Your picture"
    if not given["like"]:
        return None
    image = Image.objects.visible_to(user).filter(pk=_number(given["like"])).for_grid().first()
    if image is None:
        raise BadQuery("There is no such picture that you may see. Choose another one.")
    return thumbnail_url(image), image.title or image.name


def _identified(given: dict[str, str], user: Any) -> Identification:
    space = None
    if given["space"]:
        space = EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE, name=given["space"]).first()
        if space is None:
            raise BadQuery("That space is no longer there. Choose another one.")
    upload = given["upload"]
    return identify(
        references.by_key(given["among"], user),
        user,
        picture=uploads.pixels(upload, user) if upload else None,
        like=None if upload else _number(given["like"]),
        space=space,
        limit=SHOWN,
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _tiles(found: Identification) -> list[Tile]:
    return [Tile(match.image, image_href(match.image.pk), match.percent_text) for match in found.matches]
