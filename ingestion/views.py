"""How far the work is, and what could not be done: the progress page and the problems page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from ingestion import ledger, pausing, presence, progress, watchstate
from ingestion import problems as failures
from ingestion.models import Crawl, SeenFile
from search.access import readable_sources
from search.encoders import availability
from search.models import Image, Source
from search.queues import tally
from search.spaces import active_space
from search.views.staff import staff_only

PAGE = 50
MOST_SOURCES = 100
MOST_COUNTED = 10_000
"""No further than that is counted on a page: it says "10,000+" then."""


@dataclass(frozen=True)
class Bar:
    """One stage as a bar of the progress page."""

    row: progress.StageProgress

    @property
    def finished(self) -> int:
        return self.row.done + self.row.failed

    @property
    def percent(self) -> int:
        """Rounded down, so that 100 means all."""
        return 100 * self.finished // self.row.total if self.row.total else 100


@require_safe
def progress_page(request: HttpRequest) -> HttpResponse:
    """What the workers and crawls are doing; htmx asks for the fragment again every few seconds."""
    sources = _sources(request.user)
    readable = sources.count()
    bars = [Bar(row) for row in progress.report()] if readable or request.user.is_staff else []
    crawls = Crawl.objects.filter(source__in=sources).select_related("source").order_by("-id")
    model = availability()
    rest = pausing.rest()
    context = {
        "page": "progress",
        "bars": bars,
        # The counters are of all sources together: only who may see them all sees the numbers.
        "numbers": readable == Source.objects.count(),
        "busy": any(bar.row.waiting for bar in bars),
        "crawls": crawls[:6],
        "upkeep": watchstate.kept(sources.order_by("name")[:MOST_SOURCES], resting=rest is not None),
        "more_sources": max(0, readable - MOST_SOURCES),
        "workers": len(presence.live_workers()),
        "rest": rest,
        "model": model,
        "model_waits_for": model.said_to(request.user),
        "serving": active_space(),
        "sources": readable,
        "problems": tally(failures.failed(request.user), MOST_COUNTED),
    }
    fragment = request.headers.get("HX-Request") and not request.headers.get("HX-History-Restore-Request")
    response = render(request, "ingestion/_progress.html" if fragment else "ingestion/progress.html", context)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "private, no-store"
    return response


pausing_staff = staff_only("Pausing the work and letting it go on is up to those who run this installation.")


@require_POST
@pausing_staff
def work_pause(request: HttpRequest) -> HttpResponse:
    """Staff let the workers rest."""
    pausing.pause()
    messages.success(request, "The work is paused: workers finish what they have in hand, then wait.")
    return redirect("progress")


@require_POST
@pausing_staff
def work_resume(request: HttpRequest) -> HttpResponse:
    """Staff let the workers go on."""
    pausing.resume()
    messages.success(request, "The work goes on.")
    return redirect("progress")


@require_safe
def problems(request: HttpRequest) -> HttpResponse:
    """Failed files with their reason, and the kinds of files that are no pictures."""
    kind, why = request.GET.get("kind", ""), request.GET.get("why", "")
    if kind or why:
        return _seen_files(request, kind=kind, why=why)
    failed = failures.failed(request.user).select_related("image__source").order_by("-id")
    stage = request.GET.get("stage", "")
    if stage:
        failed = failed.filter(stage=stage)
    rows, older_href = _page(request, failed, stage=stage)
    labels = {row.stage: row.label for row in progress.report()}
    editable = set(
        Image.objects.editable_by(request.user)
        .filter(pk__in=[row.image_id for row in rows])
        .values_list("pk", flat=True)
    )
    seen = _seen(request.user)
    changeable = failures.failed(request.user, to_edit=True)
    if stage:
        changeable = changeable.filter(stage=stage)
    context = {
        "page": "problems",
        "may_retry": bool(editable) or changeable.exists(),
        "problems": [(row, labels.get(row.stage, row.stage), row.image_id in editable) for row in rows],
        "total": tally(failed, MOST_COUNTED),
        "older_href": older_href,
        "kinds": list(
            seen.exclude(why=SeenFile.Why.TOO_SMALL)
            .values("why", "kind")
            .annotate(number=Count("id"))
            .order_by("-number", "kind")[:200]
        ),
        "too_small": tally(seen.filter(why=SeenFile.Why.TOO_SMALL), MOST_COUNTED),
        "min_side": settings.IMAGESEARCH_MIN_SIDE,
        "here": request.get_full_path(),
    }
    return render(request, "ingestion/problems.html", context)


@require_POST
def problem_retry(request: HttpRequest) -> HttpResponse:
    """Failed work waits again: of one image, or of all that this person may change."""
    images = Image.objects.editable_by(request.user)
    given = request.POST.get("image", "")
    if given:
        images = images.filter(pk=int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0)
    again = ledger.retry(images=images)
    if again:
        messages.success(request, f"{again:,} {'file waits' if again == 1 else 'files wait'} to be tried again.")
    else:
        messages.error(request, "There is nothing to try again that you may change.")
    wanted = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return redirect(wanted if wanted and safe else reverse("problems"))


def _seen_files(request: HttpRequest, *, kind: str, why: str) -> HttpResponse:
    files = _seen(request.user)
    if kind:
        files = files.filter(kind=kind)
    if why:
        files = files.filter(why=why)
    rows, older_href = _page(request, files.select_related("source").order_by("-id"), kind=kind, why=why)
    context = {
        "page": "problems",
        "files": rows,
        "kind": kind or dict(SeenFile.Why.choices).get(why, why),
        "total": tally(files, MOST_COUNTED),
        "older_href": older_href,
    }
    return render(request, "ingestion/seen_files.html", context)


def _page(request: HttpRequest, rows: QuerySet[Any], **kept: str) -> tuple[list[Any], str]:
    """One page of rows that come with the highest id first, and the address of the next."""
    older = request.GET.get("older", "")
    if older.isascii() and older.isdigit() and len(older) < 19:
        rows = rows.filter(pk__lt=int(older))
    taken = list(rows[: PAGE + 1])
    if len(taken) <= PAGE:
        return taken, ""
    pairs = {name: value for name, value in kept.items() if value} | {"older": taken[PAGE - 1].pk}
    return taken[:PAGE], f"{reverse('problems')}?{urlencode(pairs)}"


def _seen(user: Any) -> QuerySet[SeenFile]:
    files = SeenFile.objects.all()
    return (
        files if user.is_staff else files.filter(source__in=list(readable_sources(user).values_list("pk", flat=True)))
    )


def _sources(user: Any) -> QuerySet[Source]:
    return Source.objects.all() if user.is_staff else readable_sources(user)
