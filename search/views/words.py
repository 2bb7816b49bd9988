"""The tags' own pages, and the searches a person has saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from search import personal, tagging, tagtree
from search.errors import BadValue, NotAllowed, SearchError
from search.models import Action, SavedSearch, Tag
from search.query import Query, from_params
from search.views.chips import address
from search.views.moving import next_page


@require_safe
def tag_list(request: HttpRequest) -> HttpResponse:
    """Every tag this person may know of, under its parent, with the number of pictures they see."""
    part = " ".join(request.GET.get("part", "").split())[:200]
    after = request.GET.get("after", "")
    tree = tagtree.tree(request.user, part, after=_number(after))
    more = urlencode({"part": part, "after": tree.after} if part else {"after": tree.after})
    context = {
        "page": "tags",
        "branches": tree.branches,
        "touchable": tagtree.touchable([branch.tag.pk for branch in tree.branches], request.user),
        "more_href": f"{reverse('tags')}?{more}" if tree.after else "",
        "first_href": reverse("tags") if tree.later and not part else "",
        "cut": tree.cut,
        "part": part,
        "here": request.get_full_path(),
    }
    return render(request, "search/tags.html", context)


@require_safe
def tag_page(request: HttpRequest, tag_id: int) -> HttpResponse:
    """One tag: its name, colour and parent, and what can be done to it."""
    known = tagtree.visible_tags(request.user)
    tag = get_object_or_404(known.select_related("parent"), pk=tag_id)
    context = {
        "page": "tags",
        "tag": tag,
        "parent": tag.parent if tag.parent and known.filter(pk=tag.parent.pk).exists() else None,
        "children": list(known.filter(parent=tag).order_by("key")[:100]),
        "count": tagtree.counts(request.user).get(tag.pk, 0),
        "touchable": bool(tagtree.touchable([tag.pk], request.user)),
        "changeable": tagtree.changeable(tag, request.user),
        "colours": Tag.Colour.choices,
        "here": request.get_full_path(),
    }
    return render(request, "search/tag.html", context)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _merge(request: HttpRequest, tag: Tag) -> Action | None:
    return tagging.merge([tag], request.POST.get("into", ""), request.user)


TAG_VERBS: dict[str, Callable[[HttpRequest, Tag], Action | None]] = {
    "rename": lambda request, tag: tagging.rename(tag, request.POST.get("name", ""), request.user),
    "merge": _merge,
    "colour": lambda request, tag: tagging.set_colour(tag, request.POST.get("colour", ""), request.user),
    "parent": lambda request, tag: tagging.set_parent(tag, request.POST.get("parent", ""), request.user),
    "delete": lambda request, tag: tagging.delete(tag, request.user),
}


@require_POST
def change_tag(request: HttpRequest, tag_id: int, verb: str) -> HttpResponse:
    """Do one thing to a tag and offer to undo it."""
    if verb not in TAG_VERBS:
        raise Http404
    tag = get_object_or_404(tagtree.visible_tags(request.user), pk=tag_id)
    try:
        action = TAG_VERBS[verb](request, tag)
    except NotAllowed as error:
        raise PermissionDenied(str(error)) from error
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    else:
        _told(request, action)
    still = tagtree.visible_tags(request.user).filter(pk=tag_id).exists()
    return redirect("tag", tag_id) if still else redirect("tags")


@require_http_methods(["GET", "HEAD", "POST"])
def saved_searches(request: HttpRequest) -> HttpResponse:
    """One's saved searches; POST saves one, or deletes one."""
    if request.method == "POST":
        try:
            _told(request, _changed_searches(request))
        except SearchError as error:
            messages.error(request, error.said_to(request.user))
        return redirect(next_page(request, reverse("searches")))
    found = list(SavedSearch.objects.filter(user=request.user.pk)[:1_000])
    context = {
        "page": "searches",
        "searches": [(one, f"{reverse(one.page)}?{one.query}" if one.query else reverse(one.page)) for one in found],
        "here": request.get_full_path(),
    }
    return render(request, "search/searches.html", context)


def _changed_searches(request: HttpRequest) -> Action | None:
    if "delete" in request.POST:
        number = request.POST["delete"]
        pk = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
        return personal.delete_search(get_object_or_404(SavedSearch, pk=pk, user=request.user.pk), request.user)
    page = "browse" if request.POST.get("page") == "browse" else "search"
    query = from_params(QueryDict(request.POST.get("query", "")[:20_000]))
    if query.upload:
        raise BadValue("A search with a picture of yours cannot be saved: the picture is deleted after a while.")
    if query == Query():
        raise BadValue("There is nothing to save yet: search for something, or set a filter.")
    written = address(query, page).partition("?")[2]
    return personal.save_search(request.POST.get("name", "") or query.text(), written, page, request.user)


def _told(request: HttpRequest, action: Any) -> None:
    if action is None:
        messages.info(request, "That is so already: nothing had to be changed.")
    else:
        messages.success(request, action.summary, extra_tags=f"action-{action.pk}")
