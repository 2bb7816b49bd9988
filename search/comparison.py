"""The same query in two spaces, side by side: what a switch would change, before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import PIL.Image

from search.models import EmbeddingSpace
from search.query import Query
from search.retrieval import Hit, Page, find

SHOWN = 20


@dataclass(frozen=True)
class Comparison:
    """The first `k` results of one query in two spaces, each list best first."""

    first: Page
    second: Page
    k: int

    @cached_property
    def shared(self) -> frozenset[int]:
        """Ids that are in both lists."""
        return frozenset(hit.id for hit in self.first.hits) & frozenset(hit.id for hit in self.second.hits)

    @property
    def overlap(self) -> float:
        """Share of the longer list that is in the other one too, 0 to 1; 1 when both are empty."""
        longest = max(len(self.first.hits), len(self.second.hits))
        return len(self.shared) / longest if longest else 1.0

    def sides(self) -> list[tuple[Page, list[tuple[int, Hit, int | None]]]]:
        """Both pages, each with (rank from 1, hit, its rank in the other list or None)."""
        pages = (self.first, self.second)
        ranks = [{hit.id: rank for rank, hit in enumerate(page.hits, 1)} for page in pages]
        return [
            (page, [(rank, hit, other.get(hit.id)) for rank, hit in enumerate(page.hits, 1)])
            for page, other in zip(pages, reversed(ranks), strict=True)
        ]


def compare(
    query: Query,
    user: Any,
    first: EmbeddingSpace,
    second: EmbeddingSpace,
    *,
    k: int = SHOWN,
    pictures: Sequence[PIL.Image.Image] = (),
) -> Comparison:
    """Search both spaces, for this user; `k` results of each. Raises what searching raises (see `retrieval.find`)."""
    whole = query if query.min is not None else replace(query, min=0)
    pages = [find(whole, user, limit=k, pictures=pictures, space=space) for space in (first, second)]
    return Comparison(pages[0], pages[1], k)
