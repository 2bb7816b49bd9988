"""The filter panel, built from the registry of filters, and the query its form makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe

from search import filters
from search.errors import SearchError
from search.filters import Choice, Filter, Term
from search.query import Query, from_params
from search.views.chips import address, pairs

LEFT_TO_TYPING = {"id", "before", "after"}
TYPED_WITH_SUGGESTIONS = {"tag", "camera", "lens", "folder"}
PAGES = {"search", "browse"}


@dataclass(frozen=True)
class Field:
    """One filter in the form, with what is set now."""

    filter: Filter
    value: str
    choices: list[Choice]

    @property
    def kind(self) -> str:
        if self.filter.name == "date":
            return "dates"
        if self.filter.name in TYPED_WITH_SUGGESTIONS or not self.choices:
            return "text"
        return "select"

    @property
    def start(self) -> str:
        return self.value.partition("..")[0]

    @property
    def end(self) -> str:
        return self.value.partition("..")[2] if ".." in self.value else self.value

    @property
    def unlisted_value(self) -> bool:
        """Whether the set value is not among the choices (typed by hand)."""
        return bool(self.value) and self.value not in {choice.value for choice in self.choices}


@require_safe
def panel(request: HttpRequest) -> HttpResponse:
    """The filter form of a query: a fragment for htmx, a page of its own without a script."""
    page = _page(request)
    try:
        query = from_params(request.GET)
    except SearchError:
        query = Query()
    fields, rest = _fields(query, request.user)
    context = {
        "fields": fields, "kept": pairs(rest), "narrow_page": page, "page": page,
        "clear_href": address(replace(query, filters=()), page),
    }  # fmt: skip
    response = render(
        request, "search/_filters.html" if request.headers.get("HX-Request") else "search/filters.html", context
    )
    patch_vary_headers(response, ["HX-Request"])
    return response


@require_safe
def narrow(request: HttpRequest) -> HttpResponse:
    """Take the filter form and go to the address of the query that it makes."""
    page = _page(request)
    params = request.GET.copy()
    start, end = params.get("date-from", "").strip(), params.get("date-to", "").strip()
    if start or end:
        params["date"] = start if start == end else f"{start}..{end}"
    try:
        query = from_params(params)
    except SearchError as error:
        fields, rest = _fields(Query(), request.user)
        context = {"fields": fields, "kept": pairs(rest), "narrow_page": page, "page": page}
        context["error"] = error.said_to(request.user)
        return render(request, "search/filters.html", context, status=422)
    return redirect(address(query, page))


def _fields(query: Query, user: Any) -> tuple[list[Field], Query]:
    """The form's fields, and the query without what they show."""
    shown: list[Term] = []
    fields = []
    for one in filters.all_filters():
        if one.name in LEFT_TO_TYPING:
            continue
        term = next((term for term in query.filters if term.name == one.name and not term.negated), None)
        if term:
            shown.append(term)
        fields.append(Field(one, term.value if term else "", one.choices(user) if one.choices else []))
    return fields, replace(query, filters=tuple(term for term in query.filters if term not in shown))


def _page(request: HttpRequest) -> str:
    page = request.GET.get("page", "search")
    return page if page in PAGES else "search"
