"""The parts of a query as chips: what each says, and the address without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from search import filters
from search.models import Image
from search.query import Query
from search.views.grid import thumbnail_url

ORDER_NAMES = {"newest": "newest first", "oldest": "oldest first"}


@dataclass(frozen=True)
class Chip:
    """One removable part: `kind` says how it is meant, `text` what it is; `image` for a picture as example."""

    kind: str
    text: str
    without: str
    negative: bool = False
    image: str = ""


def pairs(query: Query) -> list[tuple[str, str]]:
    """The query as (name, value) pairs of an address or of hidden inputs."""
    flat: list[tuple[str, str]] = []
    for name, value in query.params().items():
        flat += [(name, one) for one in ([value] if isinstance(value, str) else value)]
    return flat


def address(query: Query, page: str = "search", **more: Any) -> str:
    """Address of a page of this query."""
    together = [*pairs(query), *more.items()]
    return f"{reverse(page)}?{urlencode(together)}" if together else reverse(page)


def chips(query: Query, examples: Mapping[int, Image], page: str = "search") -> list[Chip]:
    """A chip for every part, in the order people read them. `examples`: the images that like and unlike name."""
    made = []
    for phrase in query.phrases:
        rest = replace(query, phrases=tuple(one for one in query.phrases if one != phrase))
        made.append(Chip("", phrase, address(rest, page)))
    for phrase in query.negatives:
        rest = replace(query, negatives=tuple(one for one in query.negatives if one != phrase))
        made.append(Chip("not", phrase, address(rest, page), negative=True))
    if query.upload:
        own = reverse("uploaded", args=[query.upload])
        made.append(Chip("like", "your picture", address(replace(query, upload=""), page), image=own))
    for negative, ids in [(False, query.like), (True, query.unlike)]:
        for pk in ids:
            rest = query.without(unlike=pk) if negative else query.without(like=pk)
            example = examples.get(pk)
            text = (example.title or example.name) if example else f"picture {pk}"
            shown = thumbnail_url(example) if example else ""
            made.append(Chip("unlike" if negative else "like", text, address(rest, page), negative, shown))
    for term in query.filters:
        known = filters.get(term.name)
        label = known.label.lower() if known else term.name
        kind = f"not {label}" if term.negated else label
        made.append(Chip(kind, term.value, address(query.without(term=term), page), term.negated))
    if query.order in ORDER_NAMES:
        made.append(Chip("order", ORDER_NAMES[query.order], address(replace(query, order="best"), page)))
    if query.min is not None and query.ranked:
        text = f"at least {query.min}\u00a0%" if query.min else "the nearest, however far"
        made.append(Chip("match", text, address(replace(query, min=None), page)))
    return made


def example_images(query: Query, user: Any) -> dict[int, Image]:
    """The images a query names as examples, as far as this person may see them."""
    ids = [*query.like, *query.unlike]
    return Image.objects.visible_to(user).for_grid().in_bulk(ids) if ids else {}
