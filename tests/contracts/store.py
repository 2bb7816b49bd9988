"""What every VectorStore must do; one test body for all implementations."""

from __future__ import annotations

import numpy as np
import pytest

from search.arrays import Vectors
from search.vectors.base import VectorStore


def unit_vectors(count: int, dim: int, *, seed: int = 0) -> Vectors:
    """(count, dim) float32 rows of unit length."""
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class VectorStoreContract:
    """Subclasses give a fixture `store`: an empty VectorStore of 32 dimensions."""

    def test_is_a_vector_store(self, store: VectorStore) -> None:
        assert isinstance(store, VectorStore)
        assert store.dim == 32

    def test_gives_back_what_was_written(self, store: VectorStore) -> None:
        rows = unit_vectors(4, 32)
        store.upsert(np.array([7, 3, 5000, 1]), rows)
        assert np.array_equal(store.get(np.array([7, 3, 5000, 1])), rows)
        assert np.array_equal(store.get(np.array([5000, 7])), rows[[2, 0]])

    def test_gives_zeros_for_ids_without_a_vector(self, store: VectorStore) -> None:
        store.upsert(np.array([2]), unit_vectors(1, 32))
        assert not store.get(np.array([1, 3, 10**9])).any()

    def test_upsert_replaces(self, store: VectorStore) -> None:
        first, second = unit_vectors(2, 32)
        store.upsert(np.array([9]), first[None])
        store.upsert(np.array([9]), second[None])
        assert np.array_equal(store.get(np.array([9]))[0], second)

    def test_search_is_exact(self, store: VectorStore) -> None:
        rows = unit_vectors(3000, 32)
        ids = np.random.default_rng(1).permutation(9000)[:3000].astype(np.int64)
        store.upsert(ids, rows)
        queries = unit_vectors(5, 32, seed=2)
        hits = store.search(queries, 20)
        scores = queries.astype(np.float64) @ rows.T.astype(np.float64)
        for q in range(5):
            order = np.lexsort((ids, -scores[q].astype(np.float32)))[:20]
            assert hits.ids[q].tolist() == ids[order].tolist()
            assert np.allclose(hits.scores[q], scores[q][order], atol=1e-6)
        assert hits.ids.dtype == np.int64 and hits.scores.dtype == np.float32

    def test_search_finds_vectors_of_negative_cosine_and_no_unwritten_row(self, store: VectorStore) -> None:
        rows = unit_vectors(3, 32)
        store.upsert(np.array([10, 500, 900]), rows)
        hits = store.search(-rows[:1], 5)
        assert sorted(hits.ids[0][:3].tolist()) == [10, 500, 900]
        assert hits.ids[0][2] == 10 and hits.scores[0][2] == pytest.approx(-1, abs=1e-6)
        assert hits.ids[0][3:].tolist() == [-1, -1] and hits.scores[0][3:].tolist() == [0, 0]

    @pytest.mark.parametrize("share", [0.9, 0.3, 0.02])
    def test_search_among_a_bitmap_or_ids_is_the_same_and_exact(self, store: VectorStore, share: float) -> None:
        rows = unit_vectors(20_000, 32)
        store.upsert(np.arange(1, 20_001), rows)
        among = np.random.default_rng(3).random(25_000) < share
        query = unit_vectors(1, 32, seed=4)
        by_bitmap = store.search(query, 30, among=among)
        by_ids = store.search(query, 30, among=np.flatnonzero(among))
        passing = np.flatnonzero(among[1:20_001]) + 1
        scores = rows[passing - 1] @ query[0]
        expected = passing[np.argsort(-scores, kind="stable")[:30]]
        assert by_bitmap.ids[0].tolist() == by_ids.ids[0].tolist() == expected.tolist()

    def test_search_among_nothing_gives_padding(self, store: VectorStore) -> None:
        store.upsert(np.array([1]), unit_vectors(1, 32))
        for among in (np.zeros(5, dtype=np.bool_), np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.int64)):
            assert store.search(unit_vectors(1, 32), 3, among=among).ids.tolist() == [[-1, -1, -1]]

    def test_an_empty_store_finds_nothing(self, store: VectorStore) -> None:
        assert store.search(unit_vectors(2, 32), 2).ids.tolist() == [[-1, -1], [-1, -1]]

    def test_ties_go_to_the_smaller_id(self, store: VectorStore) -> None:
        row = unit_vectors(1, 32)
        ids = np.random.default_rng(5).permutation(30_000)[:200].astype(np.int64)
        store.upsert(ids, np.repeat(row, 200, axis=0))
        assert store.search(row, 50).ids[0].tolist() == sorted(ids.tolist())[:50]

    def test_deleted_ids_are_not_found(self, store: VectorStore) -> None:
        rows = unit_vectors(3, 32)
        store.upsert(np.array([1, 2, 3]), rows)
        store.delete(np.array([2, 77, 10**7]))
        assert sorted(store.search(rows[1:2], 3).ids[0].tolist()) == [-1, 1, 3]

    @pytest.mark.parametrize(
        ("ids", "rows", "message"),
        [
            ([1], np.full((1, 32), np.nan, dtype=np.float32), "not finite"),
            ([1], np.ones((1, 32), dtype=np.float32), "unit length"),
            ([1], np.zeros((1, 32), dtype=np.float32), "unit length"),
            ([1], unit_vectors(1, 31), "shape"),
            ([1, 2], unit_vectors(1, 32), "shape"),
            ([-1], unit_vectors(1, 32), "negative"),
            ([1, 1], unit_vectors(2, 32), "twice"),
        ],
    )
    def test_refuses_malformed_vectors_and_ids(self, store: VectorStore, ids, rows, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            store.upsert(np.array(ids, dtype=np.int64), rows)
        assert not store.get(np.array([1, 2])).any()

    def test_refuses_vectors_of_another_type(self, store: VectorStore) -> None:
        with pytest.raises(ValueError, match="float32"):
            store.upsert(np.array([1]), unit_vectors(1, 32).astype(np.float64))

    def test_writing_nothing_is_no_error(self, store: VectorStore) -> None:
        store.upsert(np.zeros(0, dtype=np.int64), np.zeros((0, 32), dtype=np.float32))
        assert store.get(np.zeros(0, dtype=np.int64)).shape == (0, 32)
