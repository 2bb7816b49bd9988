"""Rows first, then the database: "the database says embedded" is true after anything."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search import embeddings
from search.bitmaps import get_library
from search.errors import StoreFault
from search.models import Change, Embedding, EmbeddingSpace, Image
from search.vectors import get_store
from search.vectors.disk import Disk
from search.vectors.embedding_file import row_crcs
from tests.contracts.store import unit_vectors
from tests.factories import make_image, make_source

pytestmark = pytest.mark.django_db

DIM = 16


@pytest.fixture
def space() -> EmbeddingSpace:
    return EmbeddingSpace.objects.create(name="test", encoder="look", key="test-1", label="Test", dim=DIM, text=False)


@pytest.fixture
def ids() -> np.ndarray:
    source = make_source()
    return np.array([make_image(source).pk for _ in range(5)], dtype=np.int64)


def believed(space: EmbeddingSpace) -> list[int]:
    """Ids that the database believes; asserts that each row on disk is what the database says."""
    pairs = list(Embedding.objects.filter(space=space).order_by("image_id").values_list("image_id", "crc32"))
    rows = np.load(get_store(space).file.path, mmap_mode="r") if pairs else np.zeros((0, DIM), dtype=np.float32)
    for image_id, crc in pairs:
        assert int(row_crcs(np.array(rows[[image_id]]))[0]) == crc
    return [image_id for image_id, _ in pairs]


def test_record_keeps_rows_and_believes_them(space, ids) -> None:
    vectors = unit_vectors(5, DIM)
    library = get_library()
    assert not library.embedded(space.pk).any()
    kept = embeddings.record(space, ids[::-1], vectors[::-1])
    assert kept.tolist() == ids.tolist() == believed(space)
    assert np.array_equal(np.load(get_store(space).file.path)[ids], vectors)
    assert np.flatnonzero(get_library().embedded(space.pk)).tolist() == ids.tolist()


def test_record_again_replaces(space, ids) -> None:
    embeddings.record(space, ids, unit_vectors(5, DIM))
    again = unit_vectors(2, DIM, seed=1)
    embeddings.record(space, ids[:2], again)
    assert believed(space) == ids.tolist()
    assert np.array_equal(get_store(space).get(ids[:2]), again)


def test_the_callers_writes_share_the_transaction(space, ids) -> None:
    def fail(kept: np.ndarray) -> None:
        Image.objects.filter(pk__in=kept.tolist()).update(title="seen")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        embeddings.record(space, ids, unit_vectors(5, DIM), within=fail)
    assert believed(space) == [] and not Image.objects.filter(title="seen").exists()
    assert not Change.objects.filter(kind=Change.Kind.EMBEDDINGS).exists()


def test_a_lapsed_claim_writes_nothing_over_what_others_committed(space, ids) -> None:
    theirs = unit_vectors(5, DIM, seed=7)
    embeddings.record(space, ids, theirs)
    kept = embeddings.record(space, ids, unit_vectors(5, DIM), still_mine=lambda given: given[:2])
    assert kept.tolist() == ids[:2].tolist()
    assert believed(space) == ids.tolist()
    assert np.array_equal(get_store(space).get(ids[2:]), theirs[2:])


def test_a_claim_that_lapses_while_writing_is_not_believed(space, ids) -> None:
    answers = iter([ids, ids[:1]])
    embeddings.record(space, ids, unit_vectors(5, DIM), still_mine=lambda _: next(answers))
    assert believed(space) == ids[:1].tolist()


def test_images_purged_meanwhile_are_left_out(space, ids) -> None:
    gone = int(ids[0])

    def purge(given: np.ndarray) -> np.ndarray:
        Image.objects.filter(pk=gone).delete()
        return given

    assert embeddings.record(space, ids, unit_vectors(5, DIM), still_mine=purge).tolist() == ids[1:].tolist()
    assert believed(space) == ids[1:].tolist()


def test_forgotten_rows_are_not_believed_and_zero(space, ids) -> None:
    embeddings.record(space, ids, unit_vectors(5, DIM))
    assert embeddings.forget(space, ids[1:3]) == 2
    assert believed(space) == ids[[0, 3, 4]].tolist()
    assert not get_store(space).get(ids[1:3]).any()
    embeddings.forget_images(ids.tolist())
    assert believed(space) == []


def test_malformed_vectors_are_refused_before_anything_is_touched(space, ids) -> None:
    embeddings.record(space, ids, unit_vectors(5, DIM))
    bad = unit_vectors(5, DIM)
    bad[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        embeddings.record(space, ids, bad)
    with pytest.raises(ValueError, match="twice"):
        embeddings.record(space, ids[[0, 0, 1, 2, 3]], unit_vectors(5, DIM))
    assert believed(space) == ids.tolist()


class FailingDisk(Disk):
    """Fails at one of its steps, the way a disk that is full or dying does."""

    def __init__(self, step: int, code: int) -> None:
        self.left, self.code = step, code

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.code, os.strerror(self.code))

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        self._step()
        super().write(fd, data, offset)

    def allocate(self, fd: int, size: int) -> None:
        self._step()
        super().allocate(fd, size)

    def flush(self, fd: int) -> None:
        self._step()
        super().flush(fd)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(1, 12), code=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EDQUOT]))
def test_disk_errors_at_any_step_lose_nothing_that_was_committed(space, step: int, code: int) -> None:
    source = make_source()
    images = np.array([make_image(source).pk for _ in range(6)], dtype=np.int64)
    store = get_store(space)
    store.file._disk = Disk()
    first = unit_vectors(3, DIM)
    embeddings.record(space, images[:3], first)
    store.file._disk = FailingDisk(step, code)
    try:
        embeddings.record(space, images[[2, 3]], unit_vectors(2, DIM, seed=1))
        embeddings.record(space, images[4:], unit_vectors(2, DIM, seed=2))
    except StoreFault as fault:
        assert os.strerror(code) in str(fault) and "start again" in str(fault)
    store.file._disk = Disk()
    kept = believed(space)
    assert set(images[:2].tolist()) <= set(kept)
    assert np.array_equal(store.get(images[:2]), first[:2])
    embeddings.record(space, images[2:], unit_vectors(4, DIM, seed=3))
    assert set(images.tolist()) <= set(believed(space))


def test_a_disk_that_is_away_is_not_taken_for_an_empty_one(space, ids) -> None:
    vectors = unit_vectors(5, DIM)
    embeddings.record(space, ids[:3], vectors[:3])
    path = get_store(space).file.path
    away = path.rename(path.with_name("away"))
    with pytest.raises(StoreFault, match="is not there"):
        embeddings.record(space, ids[3:], vectors[3:])
    assert not path.exists()
    away.rename(path)
    embeddings.record(space, ids[3:], vectors[3:])
    assert believed(space) == ids.tolist()
