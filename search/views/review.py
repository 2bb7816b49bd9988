"""Reviewing: the overview of the queues, and going through one of them picture by picture with one key each.

A page carries where it is in the queue (`at`: the place of the picture shown) and what was done last (`trail`: the
actions, newest last, each with its image), so that it works by links and forms alone, and a reload loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from search import curation, personal, queues, review
from search.errors import BadValue, NotAllowed, SearchError
from search.forms import TagForm
from search.models import Action, Favourite, Image, ImageTag
from search.querysets import ImageQuerySet
from search.views.browse import Place, place_of, written
from search.views.grid import image_href, picture_url
from search.views.image import shown_size
from search.views.results import is_fragment

MOST = 10_000
"""So far the counter of the page counts: it should be seen going down."""
TRAIL = 50
"""So many changes can be taken back one after the other."""

Trail = list[tuple[int, int]]
"""(action, image) of what was done on this page, oldest first."""


@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """Every queue with its counter."""
    rows = [
        {"queue": one, "tally": one.counter(request.user), "href": one.url(), "grid": one.grid() if one.grid else ""}
        for one in queues.all_queues()
    ]
    context = {"page": "review", "rows": rows, "stale": review.is_stale(), "waiting": any(row["tally"] for row in rows)}
    return render(request, "search/review.html", context)


@require_safe
def queue_page(request: HttpRequest, queue: str) -> HttpResponse:
    """One picture of a queue, with everything that can be done with it."""
    _require(queue)
    try:
        place = place_of(request.GET.get("at"))
    except SearchError:
        place = None
    return _shown(request, queue, place, trail_of(request.GET.get("trail", "")))


@require_POST
def do(request: HttpRequest, queue: str) -> HttpResponse:
    """Do one thing to the picture that is shown; what leaves the queue makes room for the next."""
    _require(queue)
    trail = trail_of(request.POST.get("trail", ""))
    try:
        place = place_of(request.POST.get("at"))
        verb, _, argument = request.POST.get("verb", "").partition(":")
        if verb == "undo":
            place = _undo(request, trail) or place
        else:
            pk = _number(request.POST.get("image", ""))
            if verb not in VERBS:
                raise Http404
            if not Image.objects.visible_to(request.user).filter(pk=pk).exists():
                raise BadValue("That picture is not there any more. Here is the next one.")
            action = VERBS[verb](_Asked(request, queue, pk, argument))
            if action is not None:
                trail = [*trail, (action.pk, pk)][-TRAIL:]
    except NotAllowed as error:
        raise PermissionDenied(str(error)) from error
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    if not is_fragment(request):
        return redirect(_address(queue, place, trail))
    return _shown(request, queue, place, trail)


@dataclass(frozen=True)
class _Asked:
    request: HttpRequest
    queue: str
    image: int
    argument: str


def _rate(asked: _Asked) -> Action | None:
    if asked.argument not in {"0", "1", "2", "3", "4", "5"}:
        raise BadValue("Choose a rating from 0 to 5.")
    return curation.rate([asked.image], int(asked.argument), asked.request.user)


def _tag(asked: _Asked) -> Action | None:
    form = TagForm(asked.request.POST)
    if not form.is_valid():
        raise BadValue(str(next(iter(form.errors.values()))[0]))
    return curation.tag([asked.image], form.cleaned_data["tag"], asked.request.user)


def _favourite(asked: _Asked) -> Action | None:
    """On, or off where it is one."""
    user = asked.request.user
    if Favourite.objects.filter(user=user.pk, image=asked.image).exists():
        return personal.unfavourite([asked.image], user)
    return personal.favourite([asked.image], user)


VERBS: dict[str, Callable[[_Asked], Action | None]] = {
    "keep": lambda asked: curation.keep([asked.image], asked.queue, asked.request.user),
    "hide": lambda asked: curation.hide([asked.image], asked.request.user),
    "remove": lambda asked: curation.remove([asked.image], asked.request.user),
    "rate": _rate,
    "tag": _tag,
    "favourite": _favourite,
}


def _undo(request: HttpRequest, trail: Trail) -> Place | None:
    """Take back the newest change of the trail; where its picture stands."""
    if not trail:
        raise BadValue("There is nothing to undo here. Older changes are among “Your changes”.")
    number, pk = trail.pop()
    action = Action.objects.filter(pk=number, user=request.user.pk).first()
    if action is None or curation.undo(action, request.user) is None:
        raise BadValue("That was undone already, or the picture was changed since.")
    image = Image.objects.visible_to(request.user).filter(pk=pk).only("pk", "shown_at").first()
    return (image.shown_at, image.pk) if image else None


def _require(queue: str) -> None:
    if queue not in review.NAMES:
        raise Http404


def _shown(request: HttpRequest, queue: str, place: Place | None, trail: Trail) -> HttpResponse:
    images = review.waiting(queue, request.user)
    here = list(_from(images, place).newest_first().select_related("source")[:2])
    image = here[0] if here else None
    tally = review.count(queue, request.user, MOST)
    at: Place | None = (image.shown_at, image.pk) if image else place
    before = _before(images, at).order_by("shown_at", "id").only("pk", "shown_at").first() if at else None
    label, said = review.LABELS[queue]
    context: dict[str, Any] = {
        "page": "review",
        "queue": queue,
        "label": label,
        "said": said,
        "tally": tally,
        "image": image,
        "at": written(image) if image else _written(place),
        "trail": ",".join(f"{action}.{pk}" for action, pk in trail),
        "done": _done(request, trail),
        "back_href": _address(queue, (before.shown_at, before.pk), trail) if before else "",
        "skip_href": _address(queue, (here[1].shown_at, here[1].pk), trail) if len(here) > 1 else "",
        "first_href": _address(queue, None, trail),
        "grid_href": f"{reverse('browse')}?{urlencode({NAME: queue})}",
        "stale": review.is_stale(),
    }
    if image is not None:
        if not context["skip_href"]:
            context["skip_href"] = _address(queue, _after(image), trail)
        context |= {
            "picture": picture_url(image),
            "shown_size": shown_size(image),
            "image_href": image_href(image.pk, [(NAME, queue), ("in", "browse")]),
            "preload": picture_url(here[1]) if len(here) > 1 else "",
            "why": reason(queue, image),
            "tags": list(ImageTag.objects.filter(image=image).select_related("tag").order_by("tag__key")[:30]),
            "favourite": Favourite.objects.filter(user=request.user.pk, image=image).exists(),
            "stars": range(1, 6),
        }
    if not is_fragment(request):
        return render(request, "search/review_queue.html", context)
    context["oob"] = True
    response = render(request, "search/_review_swap.html", context)
    response["HX-Replace-Url"] = _address(queue, at, trail)
    return response


NAME = "review"
"""The filter that names a queue: see `search.builtin_filters`."""


def reason(queue: str, image: Image) -> str:
    """Why the picture waits in this queue, in numbers."""
    width, height = image.width or 1, image.height or 1
    ratio = max(width, height) / max(1, min(width, height))
    if queue == "wide":
        return f"{ratio:.1f} to 1; usual is up to {settings.IMAGESEARCH_REVIEW_RATIO:g} to 1"
    if queue == "small":
        return f"{width:,} × {height:,} pixels; the shorter side has fewer than {settings.IMAGESEARCH_REVIEW_SMALL:,}"
    if queue == "blurred":
        return f"Sharpness {image.sharpness or 0:.1f}; usual is {settings.IMAGESEARCH_REVIEW_BLUR:g} or more"
    if queue == "plain":
        return f"{100 * (image.uniformity or 0):.0f} % of the picture is one colour"
    return ""


def _from(images: ImageQuerySet, place: Place | None) -> ImageQuerySet:
    """The one at this place and all older ones; said so that the index is entered at the place."""
    if place is None:
        return images
    return images.filter(Q(shown_at__lt=place[0]) | Q(pk__lte=place[1]), shown_at__lte=place[0])


def _before(images: ImageQuerySet, place: Place) -> ImageQuerySet:
    return images.filter(Q(shown_at__gt=place[0]) | Q(pk__gt=place[1]), shown_at__gte=place[0])


def _after(image: Image) -> Place:
    """The place right after this image."""
    return image.shown_at, image.pk - 1


def _written(place: Place | None) -> str:
    return written(Image(pk=place[1], shown_at=place[0])) if place else ""


def _address(queue: str, place: Place | None, trail: Trail) -> str:
    pairs = {}
    if place is not None:
        pairs["at"] = _written(place)
    if trail:
        pairs["trail"] = ",".join(f"{action}.{pk}" for action, pk in trail)
    address = reverse("review_queue", args=[queue])
    return f"{address}?{urlencode(pairs, safe=',:')}" if pairs else address


def trail_of(text: str) -> Trail:
    """The trail that an address or a form carries; what cannot be understood is left out."""
    found: Trail = []
    for part in text.split(",")[-TRAIL:]:
        action, _, image = part.partition(".")
        if _number(action) and _number(image):
            found.append((_number(action), _number(image)))
    return found


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _done(request: HttpRequest, trail: Trail) -> str:
    """What was done last, to be read and taken back."""
    if not trail:
        return ""
    found = Action.objects.filter(pk=trail[-1][0], user=request.user.pk, undone_at=None)
    return found.values_list("summary", flat=True).first() or ""
