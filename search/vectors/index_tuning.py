"""What an index is made of and how much of it is looked at, found with queries that are held out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from search.arrays import Ids, Vectors

if TYPE_CHECKING:
    from search.vectors.faiss_index import FaissIndex

AT = 20
STEPS = (
    2_000, 3_000, 4_000, 6_000, 8_000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000, 128_000, 256_000, 512_000,
)  # fmt: skip
CANDIDATES = (75, 150, 300, 600, 1_200, 2_400, 4_800)
_HELD_OUT = 200
_SAME = 1e-6
"""Cosines that differ by no more are equal, but for rounding."""
_LEFT_OUT = 0.04
"""What the components leave out of scores, as a share of how much scores differ (standard deviations)."""
_STEP = 32
_PCA_ROWS = 50_000
_LOOKED_AT = 4_000


def lists_for(rows: int) -> int:
    """How many lists suit so many rows: about four times the square root, a power of two."""
    return int(2 ** max(4, round(np.log2(4 * np.sqrt(max(1, rows))))))


def held_out(get: Callable[[Ids], Vectors], ids: Ids, chance: Any, queries: Vectors | None) -> list[Vectors]:
    """Queries to tune with, each kind (n, dim) of unit rows: rows with noise, and `queries` where there are any."""
    rows = get(np.sort(chance.choice(ids, min(len(ids), _HELD_OUT), replace=False)))
    rows = rows[rows.any(axis=1)]
    noise = chance.standard_normal(rows.shape).astype(np.float32)
    noise *= 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    kinds = [rows + noise] if queries is None else [rows + noise, queries[:_HELD_OUT]]
    return [(kind / np.linalg.norm(kind, axis=1, keepdims=True)).astype(np.float32) for kind in kinds if len(kind)]


def components(
    get: Callable[[Ids], Vectors], ids: Ids, kinds: list[Vectors], chance: Any, *, phrases: Vectors | None
) -> Vectors:
    """(dim, n) float32: the fewest principal components of the rows that leave next to nothing of the scores of any
    kind of query unsaid, as orthonormal columns. Raises ValueError when no row was written.

    The first one is the mean of `phrases` where there are any: texts lie in a narrow cone apart from pictures (Liang
    et al., "Mind the Gap", NeurIPS 2022), a direction in which pictures hardly differ, but all scores of texts do.
    """
    rows = get(np.sort(chance.choice(ids, min(len(ids), _PCA_ROWS), replace=False)))
    rows = rows[rows.any(axis=1)]
    if not len(rows):
        raise ValueError("none of the rows was written")
    dim = rows.shape[1]
    lean = rows - rows.mean(axis=0)
    lead = np.zeros((dim, 0), dtype=np.float32)
    if phrases is not None and len(phrases) and np.linalg.norm(phrases.mean(axis=0)) > _SAME:
        lead = (phrases.mean(axis=0) / np.linalg.norm(phrases.mean(axis=0)))[:, None].astype(np.float32)
    left = lean - (lean @ lead) @ lead.T
    _, found = np.linalg.eigh((left.T @ left).astype(np.float64))
    basis = np.linalg.qr(np.concatenate([lead, found[:, ::-1].astype(np.float32)], axis=1))[0][:, :dim]
    some = lean[:_LOOKED_AT] @ basis
    asked = [kind @ basis for kind in kinds]
    for count in range(_STEP, dim, _STEP):
        if all(_left_out(some, kind, count) <= _LEFT_OUT for kind in asked):
            return np.ascontiguousarray(basis[:, :count], dtype=np.float32)
    return np.ascontiguousarray(basis, dtype=np.float32)


def _left_out(rows: Vectors, queries: Vectors, count: int) -> float:
    unsaid = (rows[:, count:] @ queries[:, count:].T).std(axis=0)
    return float((unsaid / np.maximum((rows @ queries.T).std(axis=0), _SAME)).mean())


class Truth:
    """The exact best of some queries, found while rows pass by once."""

    def __init__(self, kinds: list[Vectors]) -> None:
        self.queries = np.concatenate(kinds)
        self._kinds = [len(one) for one in kinds]
        self._scores = np.full((len(self.queries), AT), -np.inf, dtype=np.float32)

    def look_at(self, rows: Vectors) -> None:
        scores = np.concatenate([self._scores, self.queries @ rows.T], axis=1)
        self._scores = -np.partition(-scores, AT - 1, axis=1)[:, :AT]

    def recall(self, found: list[Vectors]) -> float:
        """Recall@20 of the worst kind of query, from the scores of its candidates: how many are as good as the
        exact twentieth. (By ids, pictures that are equal would count as missed.) There may be fewer than twenty."""
        shares = []
        for near, true in zip(found, self._scores, strict=True):
            there = true[~np.isneginf(true)]
            good = int((near >= there.min(initial=np.inf) - _SAME).sum())
            shares.append(min(good, len(there)) / max(1, len(there)))
        starts = np.cumsum([0, *self._kinds])
        kinds = [float(np.mean(shares[a:b])) for a, b in pairwise(starts) if b > a]
        return min(kinds)


def tuned(index: FaissIndex, get: Callable[[Ids], Vectors], truth: Truth, wanted: float) -> dict[str, Any]:
    """What the index should say of itself (`codes`, `candidates`, `recall`): the least work with which the held-out
    queries reach the recall."""
    best: dict[str, Any] = {"recall": 0.0}
    for codes in STEPS:
        asked = [index.candidates(query, CANDIDATES[-1], effort=codes) for query in truth.queries]
        found = [ids for ids in asked if ids is not None]
        scores = [get(ids) @ query for ids, query in zip(found, truth.queries, strict=True)]
        for candidates in CANDIDATES:
            recall = truth.recall([near[:candidates] for near in scores])
            if recall > best["recall"]:
                best = {"codes": codes, "candidates": candidates, "recall": round(recall, 4)}
            if recall >= wanted:
                return best
        if codes >= index.about.rows:
            break
    return best
