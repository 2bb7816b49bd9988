"""The spaces page, for staff: building a space beside the one that serves, comparing the two, switching, removing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from ingestion import building, presence, removal
from ingestion.models import StageCount
from search import switching
from search.comparison import compare
from search.errors import NoSuchSpace, SearchError
from search.models import EmbeddingSpace
from search.query import from_params
from search.spaces import active_space, image_spaces, named
from search.views.grid import Tile, image_href, score_detail, score_text
from search.views.staff import staff_only

AT_ONCE = 20_000
"""Vectors that are removed while the page waits; more are left to the background tasks."""

deciding_staff = staff_only("Which model searches is decided by those who run this installation.")


@require_safe
@deciding_staff
def spaces_page(request: HttpRequest) -> HttpResponse:
    """Every space with its coverage, pace and size; htmx asks for the fragment again every few seconds."""
    rows = building.buildings()
    before = switching.before()
    context = {
        "page": "spaces",
        "rows": rows,
        "before": before,
        "busy": any(row.going_on for row in rows),
        "workers": len(presence.live_workers()),
        "least": f"{switching.LEAST_PERCENT:.0f}",
    }
    fragment = request.headers.get("HX-Request") and not request.headers.get("HX-History-Restore-Request")
    response = render(request, "ingestion/_spaces.html" if fragment else "ingestion/spaces.html", context)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "private, no-store"
    return response


@require_POST
@deciding_staff
def space_add(request: HttpRequest) -> HttpResponse:
    """Add the space of an encoder; the workers fill it."""
    spec = request.POST.get("encoder", "").strip()[:500]
    if not spec:
        messages.error(request, "Say which model: what IMAGESEARCH_ENCODER accepts.")
        return redirect("spaces")
    there = set(image_spaces().values_list("pk", flat=True))
    try:
        space = building.add(spec, from_thumbnails=request.POST.get("from") == "thumbnails")
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
        return redirect("spaces")
    said = f"{space.label} is {'there already, as ' + space.name if space.pk in there else 'added'}."
    if presence.live_workers():
        messages.success(request, f"{said} Workers fill it while {active_space().label} serves.")
    else:
        messages.warning(request, f"{said} No worker is running: manage.py start or manage.py process fills it.")
    return redirect("spaces")


def _build(space: EmbeddingSpace) -> str:
    building.want(space)
    building.resume(space)
    return f"Workers fill {space.name}."


def _pause(space: EmbeddingSpace) -> str:
    building.pause(space)
    return f"{space.name} is paused; what waits for it stays."


def _resume(space: EmbeddingSpace) -> str:
    building.resume(space)
    return f"{space.name} goes on."


_VERBS: dict[str, Callable[[EmbeddingSpace], str]] = {"build": _build, "pause": _pause, "resume": _resume}


@require_POST
@deciding_staff
def space_verb(request: HttpRequest, name: str, verb: str) -> HttpResponse:
    """What is done to one space: build, pause, resume, activate."""
    space = _space(name)
    try:
        if verb == "activate":
            notes = switching.switch_to(space, anyway=bool(request.POST.get("anyway")))
            messages.success(request, " ".join([f"{space.label} serves searches now.", *notes]))
        elif verb in _VERBS:
            messages.success(request, _VERBS[verb](space))
        else:
            raise Http404(f"There is nothing called {verb!r} to do to a space.")
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    return redirect("spaces")


@require_POST
@deciding_staff
def space_rollback(request: HttpRequest) -> HttpResponse:
    """Let the space serve again that served before."""
    try:
        space, notes = switching.roll_back()
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    else:
        messages.success(request, " ".join([f"{space.label} serves searches again.", *notes]))
    return redirect("spaces")


@require_http_methods(["GET", "HEAD", "POST"])
@deciding_staff
def space_remove(request: HttpRequest, name: str) -> HttpResponse:
    """Ask first; then take the space away, a large one in the background."""
    space = _space(name)
    counted = StageCount.objects.filter(stage=space.stage).first()
    vectors = counted.done if counted else 0
    if request.method != "POST":
        return render(request, "ingestion/space_remove.html", {"page": "spaces", "space": space, "vectors": vectors})
    try:
        if not space.removing:
            removal.begin(space)
        if vectors > AT_ONCE:
            messages.success(request, f"{space.name} is being removed; the background tasks finish it.")
        else:
            removal.finish(space)
            messages.success(request, f"{space.name} is gone. No picture, tag or rating was touched.")
    except SearchError as error:
        messages.error(request, error.said_to(request.user))
    return redirect("spaces")


@require_safe
@deciding_staff
def space_compare(request: HttpRequest) -> HttpResponse:
    """The same query in the space that serves and in another one, side by side."""
    there = list(image_spaces().filter(removing=False))
    serving = active_space()
    first = _chosen(there, request.GET.get("space", "")) or serving
    second = _chosen(there, request.GET.get("with", "")) or next((one for one in there if one.pk != first.pk), None)
    text = request.GET.get("q", "")[:4000]
    context: dict[str, Any] = {
        "page": "spaces", "spaces": there, "first": first, "second": second, "text": text, "sides": [],
        "serving": serving,
    }  # fmt: skip
    status = 200
    try:
        query = from_params({"q": text, "like": request.GET.getlist("like")})
        if query.ranked and second is not None and second.pk != first.pk:
            found = compare(query, request.user, first, second)
            carried = [("q", text)]
            context["found"] = found
            context["percent"] = round(100 * found.overlap)
            context["longest"] = max(len(page.hits) for page, _ in found.sides())
            context["sides"] = [
                (
                    page,
                    [
                        (
                            rank,
                            Tile(
                                hit.image, image_href(hit.id, carried), score_text(hit.match), score_detail(hit.score)
                            ),
                            other,
                        )
                        for rank, hit, other in hits
                    ],
                )
                for page, hits in found.sides()
            ]
        elif second is not None and second.pk == first.pk:
            context["error"] = "Choose two different spaces."
        elif text:
            context["error"] = "Say in words what to find: only what is ranked can be compared."
    except SearchError as error:
        context["error"], status = error.said_to(request.user), 422
    response = render(request, "ingestion/space_compare.html", context, status=status)
    response["Cache-Control"] = "private, no-store"
    return response


def _chosen(there: list[EmbeddingSpace], name: str) -> EmbeddingSpace | None:
    return next((space for space in there if space.name == name), None)


def _space(name: str) -> EmbeddingSpace:
    try:
        return named(name)
    except NoSuchSpace as error:
        raise Http404(str(error)) from error
