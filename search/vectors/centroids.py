"""The centroids of an index: which list is near to what."""

from __future__ import annotations

import numpy as np

from search.arrays import Ids, Vectors


class Centroids:
    """The centroids (lists, components) of an index; rows (n, components) float32 are projected ones."""

    def __init__(self, rows: Vectors) -> None:
        self._rows = rows
        self.half: Vectors = (rows.astype(np.float64) ** 2).sum(axis=1).astype(np.float32) / 2

    def products(self, row: Vectors) -> Vectors:
        """(lists,): the inner products of one row (components,). Half the squared distance is `half` less this, but
        for what is the same for all."""
        found: Vectors = self._rows @ row
        return found

    def nearest(self, rows: Vectors) -> Ids:
        """The number of the nearest centroid of each row, exactly; (n,) int64."""
        parts = [(rows[n : n + 2_048] @ self._rows.T - self.half).argmax(axis=1) for n in range(0, len(rows), 2_048)]
        return np.concatenate(parts).astype(np.int64, copy=False)
