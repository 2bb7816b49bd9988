"""The audit: who opened, took along, tried and changed what; one's own for everybody, everything for staff."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from search import audit
from search.errors import BadValue

MOST_NAMES = 200
FILTERS = ("person", "kind", "since", "until")


@require_safe
def audit_page(request: HttpRequest) -> HttpResponse:
    """A page of the audit, with its filters and the way to the export."""
    filters = {name: request.GET[name] for name in FILTERS if request.GET.get(name)}
    staff = request.user.is_staff
    context = {
        "page": "audit",
        "everybody": staff,
        "filters": filters,
        "kinds": audit.KINDS,
        "names": get_user_model().objects.order_by("username").values_list("username", flat=True)[:MOST_NAMES]
        if staff
        else [],
        "export_href": f"{reverse('audit_export')}?{urlencode(filters)}",
    }
    try:
        wanted = audit.wanted(request.GET)
    except BadValue as error:
        return render(request, "search/audit.html", {**context, "wrong": str(error)}, status=422)
    before = audit.parse_cursor(request.GET.get("older", ""))
    lines, more = audit.lines(request.user, wanted, before=before)
    older = f"{reverse('audit')}?{urlencode({**filters, 'older': lines[-1].cursor})}" if more else ""
    context |= {"lines": lines, "older_href": older, "later": before is not None}
    return render(request, "search/audit.html", context)


@require_safe
def audit_export(request: HttpRequest) -> HttpResponseBase:
    """The same list, whole, as CSV."""
    try:
        wanted = audit.wanted(request.GET)
    except BadValue as error:
        return HttpResponse(str(error), status=422, content_type="text/plain; charset=utf-8")
    if request.method == "GET":
        audit.record(audit.Kind.EXPORTED, request.user, text="The audit as CSV")
    name = f"audit-{timezone.localdate():%Y-%m-%d}.csv"
    return StreamingHttpResponse(
        audit.csv_rows(request.user, wanted) if request.method == "GET" else (),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"},
    )
