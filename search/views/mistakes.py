"""A search that cannot be understood: what is wrong, what would be accepted, and where to go from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.http import HttpRequest

from search import filters
from search.errors import BadQuery, SearchError
from search.filters import Choice, Filter, Term
from search.query import Query, parse, without_wrong_filters
from search.views.chips import address

MOST_OFFERED = 8
TOO_DEAR_TO_COUNT = {"date"}


@dataclass(frozen=True)
class Offer:
    """A value that the filter takes, and the address of the search with it."""

    text: str
    href: str
    count: int | None = None


@dataclass(frozen=True)
class Mistake:
    """One wrong filter: what was typed, why it is wrong, and what would be right."""

    typed: str
    sentence: str
    filter: Filter
    example: Offer | None
    offers: list[Offer]


def what_is_wrong(request: HttpRequest, error: SearchError, page: str = "search") -> dict[str, Any]:
    """What the page says instead of results: the sentence, each wrong filter, and the search without them."""
    rest, wrong = _taken_apart(request, error)
    if page == "browse":
        rest = Query(filters=rest.filters)
    return {
        "error": error.said_to(request.user),
        "mistakes": [_mistake(one, rest, request.user, page, parsed=one is not error) for one in wrong],
        "rest_text": rest.text(),
        "without_href": address(rest, page),
    }


def _taken_apart(request: HttpRequest, error: SearchError) -> tuple[Query, Sequence[BadQuery]]:
    """The query without what is wrong, and the wrong filters; (nothing, nothing) when it is no filter that is wrong."""
    try:
        rest, wrong = without_wrong_filters(request.GET)
    except SearchError:
        return Query(), []
    if not wrong and isinstance(error, BadQuery) and error.part is not None:
        # It could be read, but speaks of something that is not there.
        return rest.without(term=error.part), [error]
    return rest, wrong


def _mistake(error: BadQuery, rest: Query, user: Any, page: str, *, parsed: bool) -> Mistake:
    term: Term = error.part
    known = filters.get(term.name)
    assert known is not None, "a term is made by its filter"
    negated = term.negated and known.negatable

    def offered(text: str, value: str, count: int | None = None) -> Offer:
        right = Term(known.name, value, negated)
        return Offer(text, address(replace(rest, filters=(*rest.filters, right)), page), count)

    choices: list[Choice] = []
    if known.choices is not None and known.name not in TOO_DEAR_TO_COUNT:
        choices = [one for one in known.choices(user) if one.count != 0][:MOST_OFFERED]
    written = Query(filters=(term,)).text() if term.value else f"{'-' if term.negated else ''}{term.name}:"
    return Mistake(
        typed=written,
        sentence=str(error),
        filter=known,
        example=offered(known.example, parse(known.example).filters[0].value) if parsed and known.example else None,
        offers=[offered(one.label, one.value, one.count) for one in choices],
    )
