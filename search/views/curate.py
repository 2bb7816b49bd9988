"""What a person does to an image, each a POST through `search.curation`: a fragment for htmx, else a redirect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import Resolver404, resolve, reverse
from django.views.decorators.http import require_POST, require_safe

from search import albums, curation, errands, personal, selection, stacks
from search.errors import NotAllowed, SearchError
from search.forms import RatingForm, TagForm, TitleForm
from search.history import rows
from search.models import Action, Album, Comment, Errand, Image, Tag
from search.views.image import curation_context
from search.views.moving import next_page
from search.views.results import is_fragment
from search.views.selection import album_named
from search.views.slides import described
from search.wording import agreeing, counted

HISTORY_PAGE = 50


def _tag(request: HttpRequest, image: Image) -> Action | None:
    form = TagForm(request.POST)
    _require(form)
    return curation.tag(stacks.whole([image.pk]), form.cleaned_data["tag"], request.user)


def _untag(request: HttpRequest, image: Image) -> Action | None:
    form = TagForm({"tag": request.POST.get("tag", "").replace(",", " ")})
    if "," in request.POST.get("tag", ""):  # a tag that holds a comma came from a file
        return curation.untag(stacks.whole([image.pk]), [request.POST["tag"]], request.user)
    _require(form)
    return curation.untag(stacks.whole([image.pk]), form.cleaned_data["tag"], request.user)


def _rate(request: HttpRequest, image: Image) -> Action | None:
    form = RatingForm(request.POST)
    _require(form)
    return curation.rate(stacks.whole([image.pk]), form.cleaned_data["rating"], request.user)


def _title(request: HttpRequest, image: Image) -> Action | None:
    form = TitleForm(request.POST)
    _require(form)
    return curation.set_title(stacks.whole([image.pk]), form.cleaned_data["title"], request.user)


def _comment_of(request: HttpRequest, image: Image) -> Comment:
    number = request.POST.get("comment", "")
    pk = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
    return get_object_or_404(Comment, image=image, pk=pk)


def _album(request: HttpRequest, image: Image) -> Action | None:
    number = album_named(request)["album"]
    return albums.add(Album.objects.visible_to(request.user).get(pk=number), [image.pk], request.user)


def _select(request: HttpRequest, image: Image) -> None:
    selected = selection.change(request.user, add=[image.pk])
    messages.info(request, f"Selected: {counted(len(selected), 'picture')}.")


def _unselect(request: HttpRequest, image: Image) -> None:
    selected = selection.change(request.user, drop=[image.pk])
    number = len(selected)
    messages.info(request, f"No longer selected. {counted(number, 'picture')} still {agreeing(number, 'is', 'are')}.")


VERBS: dict[str, Callable[[HttpRequest, Image], Action | None]] = {
    "tag": _tag,
    "untag": _untag,
    "rate": _rate,
    "title": _title,
    "hide": lambda request, image: curation.hide(stacks.whole([image.pk]), request.user),
    "unhide": lambda request, image: curation.unhide(stacks.whole([image.pk]), request.user),
    "remove": lambda request, image: curation.remove(stacks.whole([image.pk]), request.user),
    "restore": lambda request, image: curation.restore(stacks.whole([image.pk]), request.user),
    "cover": lambda request, image: stacks.set_cover(image, request.user),
    "unstack": lambda request, image: stacks.unstack([image.pk], request.user),
    "flag": lambda request, image: curation.flag(stacks.whole([image.pk]), request.user),
    "unflag": lambda request, image: curation.unflag(stacks.whole([image.pk]), request.user),
    "favourite": lambda request, image: personal.favourite([image.pk], request.user),
    "unfavourite": lambda request, image: personal.unfavourite([image.pk], request.user),
    "album": _album,
    "select": _select,
    "unselect": _unselect,
    "comment": lambda request, image: personal.comment([image.pk], request.POST.get("text", ""), request.user),
    "edit_comment": lambda request, image: personal.edit_comment(
        _comment_of(request, image), request.POST.get("text", ""), request.user
    ),
    "delete_comment": lambda request, image: personal.delete_comment(_comment_of(request, image), request.user),
}


@require_POST
def curate(request: HttpRequest, image_id: int, verb: str) -> HttpResponse:
    """Do one thing to one image and offer to undo it."""
    if verb not in VERBS:
        raise Http404
    image = get_object_or_404(Image.objects.visible_to(request.user), pk=image_id)
    try:
        action = VERBS[verb](request, image)
    except NotAllowed as error:
        if not _on_a_tile(request):
            raise PermissionDenied(str(error)) from error
        messages.error(request, error.said_to(request.user))
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    else:
        if action is not None:
            messages.success(request, action.summary, extra_tags=f"action-{action.pk}")
    return _shown(request, image_id, focus=verb)


@require_POST
def undo(request: HttpRequest, action_id: int) -> HttpResponse:
    """Take back one of one's own changes (staff: anybody's)."""
    actions = Action.objects.all() if request.user.is_staff else Action.objects.filter(user=request.user.pk)
    action = get_object_or_404(actions, pk=action_id)
    try:
        undone = errands.undo(action, request.user)
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    else:
        if isinstance(undone, Errand):
            told = f"{counted(undone.total, 'picture')}: this takes a moment, and goes on by itself."
            messages.info(request, told)
        elif undone is None and action.verb == "undo":
            messages.info(request, "Nothing was done again: the pictures were changed since. Redo older changes first.")
        elif undone is None:
            messages.info(request, "That was undone already, or nothing of it is left to undo.")
        else:
            tags = f"action-{undone.pk}" if undone.details["again"] else f"action-{undone.pk} redo"
            messages.success(request, undone.summary, extra_tags=tags)
    if _on_a_tile(request):
        return _toasts(request, {"images-changed": {}})
    shown = _image_of(request.POST.get("next", ""))
    return _shown(request, shown, focus="undo") if shown else redirect(_still_there(next_page(request)))


@require_safe
def history(request: HttpRequest) -> HttpResponse:
    """One's own changes, newest first, each with the button that takes it back or does it again."""
    older = request.GET.get("older", "")
    before = int(older) if older.isascii() and older.isdigit() and len(older) < 19 else None
    shown, more = rows(request.user, before=before, limit=HISTORY_PAGE)
    context = {
        "page": "history",
        "rows": shown,
        "older_href": f"{reverse('history')}?older={shown[-1].action.pk}" if more else "",
        "here": request.get_full_path(),
        "errand": errands.newest(request.user),
        "selection_next": request.get_full_path(),
    }
    return render(request, "search/history.html", context)


def _require(form: TagForm | RatingForm | TitleForm) -> None:
    if not form.is_valid():
        raise SearchError(str(next(iter(form.errors.values()))[0]))


def _shown(request: HttpRequest, image_id: int, focus: str) -> HttpResponse:
    """The image after a change: the curation fragment for htmx, else its page again."""
    if not is_fragment(request):
        return redirect(next_page(request, reverse("image", args=[image_id])))
    if _on_a_tile(request):
        return _toasts(request, _changed(request, image_id))
    image = get_object_or_404(Image.objects.visible_to(request.user).select_related("source"), pk=image_id)
    context = curation_context(request, image)
    context |= {"focus": focus, "oob": True, "here": next_page(request, reverse("image", args=[image_id]))}
    context["carried"] = context["here"].partition("?")[2]
    response = render(request, "search/_curation_swap.html", context)
    response["HX-Trigger"] = json.dumps(_changed(request, image_id))
    return response


def _on_a_tile(request: HttpRequest) -> bool:
    """Whether it was done on a grid or in the lightbox, which hear what became of the image and show it themselves."""
    return is_fragment(request) and request.POST.get("shown") == "tile"


def _changed(request: HttpRequest, image_id: int) -> dict[str, Any]:
    """The event that tells the script how an image stands now."""
    images = Image.objects.visible_to(request.user).for_grid().filter(pk=image_id)
    return {"image-changed": described(list(images), request.user)[0]} if images else {}


def _toasts(request: HttpRequest, events: dict[str, Any]) -> HttpResponse:
    """What was done, with its undo, and the events for the script."""
    response = render(request, "_toasts.html", {"on_tiles": True, "here": next_page(request, "/")})
    response["HX-Trigger"] = json.dumps(events)
    return response


def _still_there(address: str) -> str:
    """This address, or the list where it stood: an album or tag may be gone with what was undone."""
    try:
        match = resolve(address.partition("?")[0])
    except Resolver404:
        return address
    if match.url_name == "album" and not Album.objects.filter(pk=match.kwargs["album_id"]).exists():
        return reverse("albums")
    if match.url_name == "tag" and not Tag.objects.filter(pk=match.kwargs["tag_id"]).exists():
        return reverse("tags")
    return address


def _image_of(address: str) -> int | None:
    """The image whose page this is."""
    try:
        match = resolve(address.partition("?")[0])
    except Resolver404:
        return None
    return match.kwargs.get("image_id") if match.url_name == "image" else None
