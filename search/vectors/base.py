"""The vector store protocol: only ids, arrays and scores cross it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from search.arrays import Bitmap, Ids, Vectors


@dataclass(frozen=True)
class Hits:
    """Best first. `ids` (q, k) int64 and `scores` (q, k) float32, cosine; -1 and 0.0 pad where fewer were found."""

    ids: Ids
    scores: Vectors


@runtime_checkable
class VectorStore(Protocol):
    """The vectors of one space, by id."""

    dim: int

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """Write vectors (n, dim) float32 of unit length at these ids; durable when it returns.

        Raises ValueError on a wrong shape, dtype, id or a row that is not finite or not of unit length;
        StoreFault when the disk cannot take them (nothing is then promised about these rows).
        """
        ...

    def delete(self, ids: Ids) -> None:
        """Forget these ids; unknown ids are ignored."""
        ...

    def get(self, ids: Ids) -> Vectors:
        """(n, dim) float32 in the order of `ids`; a row of zeros for an id that has no vector."""
        ...

    def search(self, queries: Vectors, k: int, among: Bitmap | Ids | None = None) -> Hits:
        """The k best by cosine for each query (q, dim), among the ids of a bitmap or an id array, or all.

        Ties go to the smaller id. An empty `among` gives padding only.
        """
        ...
