"""The local store keeps the VectorStore contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.vectors.local import LocalStore
from tests.contracts.store import VectorStoreContract, unit_vectors


class TestLocalStore(VectorStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "space", 32)


def test_a_reader_sees_what_another_process_wrote_past_its_map(tmp_path: Path) -> None:
    writer, reader = LocalStore(tmp_path, 32), LocalStore(tmp_path, 32)
    rows = unit_vectors(2, 32)
    writer.upsert(np.array([1]), rows[:1])
    assert reader.search(rows[:1], 1).ids.tolist() == [[1]]
    writer.upsert(np.array([100_000]), rows[1:])
    assert reader.search(rows[1:], 1).ids.tolist() == [[100_000]]
    assert np.array_equal(reader.get(np.array([100_000])), rows[1:])


def test_a_file_put_in_place_of_the_old_one_is_mapped_anew(tmp_path: Path) -> None:
    rows = unit_vectors(2, 32)
    store, other = LocalStore(tmp_path / "a", 32), LocalStore(tmp_path / "b", 32)
    store.upsert(np.array([1]), rows[:1])
    other.upsert(np.array([1]), rows[1:])
    assert np.array_equal(store.get(np.array([1])), rows[:1])
    (tmp_path / "b" / "vectors.npy").rename(tmp_path / "a" / "vectors.npy")
    assert np.array_equal(store.get(np.array([1])), rows[1:])
