"""The guide as pages: /help/."""

from __future__ import annotations

from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from search import handbook


@require_safe
def help_page(request: HttpRequest) -> HttpResponse:
    """What can be read: the chapters of the guide, and the reference."""
    return render(request, "search/help.html", {"page": "help", **_lists()})


@require_safe
def help_chapter(request: HttpRequest, slug: str) -> HttpResponse:
    """One chapter, with the one before it and the next."""
    chapter = handbook.find(slug)
    if chapter is None:
        raise Http404
    order = handbook.contents()
    place = order.index(chapter)
    context = {
        "page": "help",
        "chapter": chapter,
        "text": handbook.rendered(chapter),
        "before": order[place - 1] if place else None,
        "after": order[place + 1] if place + 1 < len(order) else None,
    }
    return render(request, "search/help_chapter.html", context)


@require_safe
def help_picture(request: HttpRequest, name: str) -> FileResponse:
    """A picture of the guide."""
    path = handbook.picture(name)
    if path is None:
        raise Http404
    response = FileResponse(path.open("rb"), content_type="image/png")
    response["Cache-Control"] = "private, max-age=3600"
    return response


def _lists() -> dict[str, list[handbook.Chapter]]:
    chapters = handbook.guide()
    return {"guide": chapters, "reference": handbook.contents()[len(chapters) :]}
