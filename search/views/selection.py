"""Selecting pictures on any grid, and doing something to all of them: forms first, with a script as one types."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from search import albums, errands, history, panels, retrieval, selection, stacks
from search.errors import BadValue, NotAllowed, SearchError
from search.forms import RatingForm, TagForm
from search.models import Action, Album, Errand, Image
from search.query import from_params
from search.selection import Selected
from search.views.grid import Tile, image_href
from search.views.moving import next_page
from search.views.results import is_fragment
from search.views.selecting import review_queue_at, selection_context
from search.wording import counted

PAGE = 200
CHANGES_THE_GRID = {"hide", "unhide", "remove", "restore", "out", "keep", "stack", "unstack"}
"""After these other pictures are to be seen than before: the page is loaded again."""
EMPTIES = {"hide", "remove", "out", "keep", "stack", "unstack"}


@require_http_methods(["GET", "HEAD", "POST"])
def selected_page(request: HttpRequest) -> HttpResponse:
    """What is selected, as a page; POST: select more and fewer."""
    if request.method == "POST":
        _take_ticks(request)
        if is_fragment(request):
            return _bar(request, "search/_selection_count.html")
        return redirect(next_page(request, reverse("selection")))
    given = request.GET.get("start", "")
    start = int(given) if given.isascii() and given.isdigit() and len(given) < 8 else 0
    selected = selection.of(request.user)
    ids = selected.ids[start : start + PAGE]
    images = Image.objects.visible_to(request.user).for_tiles().in_order_of(ids) if len(ids) else []
    places = {int(pk): start + place for place, pk in enumerate(ids)}
    tiles = [Tile(image, image_href(image.pk, [("in", "selection")], at=places[image.pk])) for image in images]
    context = {
        "page": "selection",
        "tiles": tiles,
        "more_href": f"{reverse('selection')}?start={start + PAGE}" if start + PAGE < len(selected) else "",
        "newer_href": f"{reverse('selection')}?start={max(0, start - PAGE)}" if start else "",
        **selection_context(request, tiles, selected=selected),
    }
    return render(request, "search/_next.html" if is_fragment(request) and start else "search/selection.html", context)


@require_POST
def select_all(request: HttpRequest) -> HttpResponse:
    """Select everything that a query finds, as it is at this moment; or, with `none`, nothing."""
    if "none" in request.POST:
        selection.clear(request.user)
        return _after(request, "none")
    try:
        selection.replace(request.user, *_all_of(request))
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    return _after(request, "all")


def _all_of(request: HttpRequest) -> tuple[Any, Any]:
    album = request.POST.get("album", "")
    if album.isascii() and album.isdigit() and len(album) < 19:
        found = Album.objects.visible_to(request.user).filter(pk=int(album)).first()
        if found is None:
            raise BadValue("That album is not there any more.")
        return albums.listed_ids(found, request.user), None
    query = from_params(QueryDict(request.POST.get("query", "")[:20_000]))
    if request.POST.get("page") == "browse":
        images = stacks.folded(query.filters, request.user).newest_first()
        return history.ids_of(images), None
    everything = retrieval.everything(query, request.user)
    return everything.ids, everything.scores


@require_POST
def do(request: HttpRequest) -> HttpResponse:
    """Do one thing to everything selected, and offer to undo it."""
    selected = _take_ticks(request)
    verb = request.POST.get("verb", "")
    try:
        if not len(selected):
            raise BadValue("Nothing is selected: tick some pictures first.")
        if verb == "typed":
            verb = _typed(request)
        if verb == "export":
            return _to(request, f"{reverse('export')}?of=selection")
        chore = next((one for one in panels.chores() if one.name == verb), None)
        if chore is not None:
            messages.success(request, chore.run(selected.ids, request.user))
        elif verb not in ARGUMENTS:
            raise Http404
        else:
            _told(request, errands.do(verb, selected, ARGUMENTS[verb](request), request.user))
            if verb in EMPTIES:
                selection.clear(request.user)
    except NotAllowed as error:
        if not is_fragment(request):
            raise PermissionDenied(str(error)) from error
        messages.error(request, error.said_to(request.user))
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    return _after(request, "done", reload=verb in CHANGES_THE_GRID)


@require_http_methods(["GET", "HEAD", "POST"])
def errand(request: HttpRequest) -> HttpResponse:
    """How far the newest errand is; POST: stop it, or let it go on."""
    found = errands.newest(request.user) or Errand.objects.filter(user=request.user.pk).first()
    if request.method == "POST":
        if found is None:
            raise Http404
        if request.POST.get("what") == "stop":
            errands.stop(found)
        else:
            errands.go_on(found)
        found.refresh_from_db(fields=["state", "done", "beat_at", "message"])
    if not is_fragment(request):
        return redirect("selection")
    origin = next_page(request, "/")
    if origin.partition("?")[0] == reverse("history") and (found is None or found.state != Errand.State.RUNNING):
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})  # its lines and buttons are others now
    return render(request, "search/_errand.html", {"errand": found, "selection_next": origin})


def _take_ticks(request: HttpRequest) -> Selected:
    """Bring the selection up to what the form says: its ticks (without a script), or what was changed (with one)."""
    shown = set(_numbers(request.POST.getlist("shown")))
    ticked = _numbers(request.POST.getlist("ids"))
    add = [*ticked, *_numbers(request.POST.getlist("add"))]
    drop = [*(shown - set(ticked)), *_numbers(request.POST.getlist("drop"))]
    if not add and not drop:
        return selection.of(request.user)
    return selection.change(request.user, add=add, drop=drop)


def _numbers(values: Iterable[str]) -> list[int]:
    parts = [part for value in values for part in value.split(",")]
    return [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 19]


def _typed(request: HttpRequest) -> str:
    """Which verb is meant when Enter was pressed in one of the form's fields."""
    fields = {"tag": "tag", "text": "comment", "title": "title", "album_name": "album"}
    filled = [verb for name, verb in fields.items() if request.POST.get(name, "").strip()]
    if len(filled) != 1:
        raise BadValue("Type what shall be done, and press the button beside it.")
    return filled[0]


def _tags_of(request: HttpRequest) -> dict[str, Any]:
    form = TagForm(request.POST)
    if not form.is_valid():
        raise BadValue(str(next(iter(form.errors.values()))[0]))
    return {"names": form.cleaned_data["tag"]}


def _rating_of(request: HttpRequest) -> dict[str, Any]:
    form = RatingForm(request.POST)
    if not form.is_valid():
        raise BadValue("Choose a rating from 0 to 5.")
    return {"rating": form.cleaned_data["rating"]}


def album_named(request: HttpRequest) -> dict[str, Any]:
    """The album that a form chose, or made by the name it gives. Raises BadValue."""
    if name := request.POST.get("album_name", "").strip():
        return {"album": albums.create(name, request.user)[0].pk}
    (number,) = _numbers([request.POST.get("album", "")])[:1] or [0]
    if not Album.objects.editable_by(request.user).filter(pk=number).exists():
        raise BadValue("Choose an album, or type the name of a new one.")
    return {"album": number}


def _nothing(request: HttpRequest) -> dict[str, Any]:
    return {}


ARGUMENTS: dict[str, Callable[[HttpRequest], dict[str, Any]]] = {
    "tag": _tags_of, "untag": _tags_of, "rate": _rating_of, "album": album_named, "out": album_named,
    "title": lambda request: {"title": request.POST.get("title", "")},
    "keep": lambda request: {"queue": request.POST.get("queue", "")},
    "comment": lambda request: {"text": request.POST.get("text", "")},
    **dict.fromkeys(["hide", "unhide", "remove", "restore", "favourite", "unfavourite", "stack", "unstack"], _nothing),
    **dict.fromkeys(["flag", "unflag", "again"], _nothing),
}  # fmt: skip


def _told(request: HttpRequest, made: Action | Errand | None) -> None:
    if isinstance(made, Action):
        messages.success(request, made.summary, extra_tags=f"action-{made.pk}")
    elif made is None:
        messages.info(request, "That is so already: nothing had to be changed.")
    else:
        messages.info(request, f"{counted(made.total, 'picture')}: this takes a moment, and goes on by itself.")


def _after(request: HttpRequest, what: str, *, reload: bool = False) -> HttpResponse:
    """The page again; for htmx the bar, with an event that tells the script what became of the ticks."""
    if not is_fragment(request):
        return redirect(next_page(request, reverse("selection")))
    if reload:
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    response = _bar(request, "search/_selection_swap.html")
    response["HX-Trigger-After-Swap"] = f"selection-{what}"
    return response


def _to(request: HttpRequest, address: str) -> HttpResponse:
    """Go to another page."""
    if is_fragment(request):
        return HttpResponse(status=204, headers={"HX-Redirect": address})
    return redirect(address)


def _bar(request: HttpRequest, template: str) -> HttpResponse:
    context = selection_context(request)
    context |= {"selection_next": next_page(request, reverse("selection")), "whole_page": True, "oob": True}
    context["here"] = context["selection_next"]
    context["review_queue"] = review_queue_at(context["selection_next"])
    return render(request, template, context)
