"""Vectors with the structure of CLIP embeddings, by the million, and queries that are not copies of them.

CLIP's image embeddings are not spread evenly over the sphere: they lie in a narrow cone around a common mean (the
modality gap of Liang et al., "Mind the Gap", NeurIPS 2022), in clusters of very different sizes, and in far fewer
directions than they have numbers. `Vectors` makes such rows: a common mean, clusters whose sizes follow Zipf's law
around centres with a falling spectrum, and within each cluster a spread of low rank with a little noise in all
directions. Any row can be made by itself: the same seed gives the same row, however many are asked for.

Given the embeddings of texts, the clusters lie where these point to, apart from their common mean, and the mean of the
rows is at right angles to it: a text that resembles some of them finds pictures, as CLIP's do, though the encoder of
texts was never trained.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

BLOCK = 10_000
CLUSTERS = 3_000
RANK = 96
"""Directions in which rows differ, apart from a little noise."""


class Vectors:
    """Seeded unit rows of `dim` numbers; row n is the same whatever else is made."""

    def __init__(self, dim: int = 512, seed: int = 20_261, texts: Rows | None = None) -> None:
        """`texts` (n, dim), more than `RANK` of them: what the clusters lie around."""
        chance = np.random.default_rng(seed)
        self.dim, self.seed = dim, seed
        basis, _ = np.linalg.qr(chance.standard_normal((dim, RANK + 2)))
        self._mean, self._text = basis[:, 0], basis[:, 1]
        fall = (1 + np.arange(RANK)) ** -0.35
        self._basis = (basis[:, 2:] * (fall / np.linalg.norm(fall))).T.astype(np.float32)
        self._centres = chance.standard_normal((CLUSTERS, RANK)).astype(np.float32) * np.float32(np.sqrt(RANK / 96))
        weights = (1 + np.arange(CLUSTERS)) ** -0.8
        self._bounds = np.cumsum(weights / weights.sum())
        self._widths = chance.uniform(0.35, 0.75, CLUSTERS).astype(np.float32)
        if texts is not None:
            self._around(texts, chance)

    def _around(self, texts: Rows, chance: np.random.Generator) -> None:
        apart = texts.mean(axis=0)
        self._text = apart / np.linalg.norm(apart)
        lean = texts - apart
        lean -= np.outer(lean @ self._text, self._text)
        _, widths, directions = np.linalg.svd(lean, full_matrices=False)
        away = (
            self._mean - directions[:RANK].T @ (directions[:RANK] @ self._mean) - self._text * (self._text @ self._mean)
        )
        self._mean = away / np.linalg.norm(away)
        fall = widths[:RANK] / np.linalg.norm(widths[:RANK])
        self._basis = (directions[:RANK] * fall[:, None]).astype(np.float32)
        lean = lean[chance.integers(0, len(lean), CLUSTERS)] if len(lean) < CLUSTERS else lean[:CLUSTERS]
        lean = lean / np.linalg.norm(lean, axis=1, keepdims=True)
        self._centres = (lean @ directions[:RANK].T / fall).astype(np.float32)

    def blocks(self, count: int, *, first: int = 0) -> Iterator[tuple[int, Rows]]:
        """(number of the first row, rows) up to row `count`, `BLOCK` at a time, from the block of `first` on."""
        for start in range(first // BLOCK * BLOCK, count, BLOCK):
            yield start, self._block(start // BLOCK)[: count - start]

    def queries(self, count: int, *, text: bool = False) -> Rows:
        """(count, dim): drawn like rows, but none of them; with `text` as texts lie, far from all pictures."""
        chance = np.random.default_rng([self.seed, 7 if text else 5])
        rows = self._drawn(chance, count)
        if not text:
            return rows
        lean = rows - rows.mean(axis=0)
        lean /= np.linalg.norm(lean, axis=1, keepdims=True)
        away = chance.standard_normal((count, self.dim)).astype(np.float32)
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        return _unit(0.8 * self._text.astype(np.float32) + 0.45 * lean + 0.25 * away)

    def _block(self, number: int) -> Rows:
        return self._drawn(np.random.default_rng([self.seed, 3, number]), BLOCK)

    def _drawn(self, chance: np.random.Generator, count: int) -> Rows:
        cluster = np.minimum(np.searchsorted(self._bounds, chance.random(count)), CLUSTERS - 1)
        spread = chance.standard_normal((count, RANK), dtype=np.float32) * self._widths[cluster, None]
        rows = (self._centres[cluster] + spread) @ self._basis
        rows += chance.standard_normal((count, self.dim), dtype=np.float32) * np.float32(0.25 / np.sqrt(self.dim))
        rows += np.float32(1.1) * self._mean.astype(np.float32)
        return _unit(rows)


def _unit(rows: Rows) -> Rows:
    made: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made
