"""The id-aligned file: a plain .npy, grown in place, durable row by row, honest about broken files."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.errors import StoreFault
from search.vectors.disk import Disk
from search.vectors.embedding_file import HEADER_BYTES, EmbeddingFile, header, parse_header, row_crc, row_crcs
from tests.contracts.store import unit_vectors

DIM = 8


def test_is_what_numpy_calls_a_npy_file(tmp_path: Path) -> None:
    file = EmbeddingFile(tmp_path, DIM)
    rows = unit_vectors(3, DIM)
    file.write(np.array([5, 0, 2]), rows)
    loaded = np.load(file.path, mmap_mode="r")
    assert loaded.dtype == np.dtype("<f4") and loaded.shape[1] == DIM and loaded.flags.c_contiguous
    assert np.array_equal(loaded[[5, 0, 2]], rows)
    assert not loaded[[1, 3, 4]].any() and not loaded[6:].any()


@pytest.mark.parametrize("capacity", [0, 1, 1024, 4_000_000, 10**12])
def test_header_has_a_fixed_length_for_any_capacity(capacity: int) -> None:
    assert len(header(capacity, 512)) == HEADER_BYTES
    assert parse_header(header(capacity, 512)) == (capacity, 512)


def test_grows_in_place_and_keeps_every_row(tmp_path: Path) -> None:
    file = EmbeddingFile(tmp_path, DIM)
    rows = unit_vectors(6, DIM)
    ids = np.array([0, 1023, 1024, 5000, 5001, 70_000])
    inode = None
    for i in range(len(ids)):
        file.write(ids[i : i + 1], rows[i : i + 1])
        inode = inode or os.stat(file.path).st_ino
    assert os.stat(file.path).st_ino == inode
    assert np.array_equal(np.load(file.path)[ids], rows)
    assert os.stat(file.path).st_size == HEADER_BYTES + file.capacity() * DIM * 4


def test_crc_of_many_rows_is_the_crc_of_each(tmp_path: Path) -> None:
    rows = unit_vectors(10, DIM)
    assert row_crcs(rows).tolist() == [row_crc(row) for row in rows]
    assert row_crcs(rows[:0]).tolist() == []


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_bytes(b"not a npy file" * 100), "is not an embedding file"),
        (lambda path: path.write_bytes(b""), "is not an embedding file"),
        (lambda path: np.save(path, np.zeros((4, DIM), dtype=np.float64)), "is not an embedding file"),
        (lambda path: path.write_bytes(header(10, DIM + 1)), f"holds vectors of {DIM + 1} dimensions"),
        (lambda path: os.truncate(path, HEADER_BYTES + 40), "it was cut off"),
    ],
)
def test_a_broken_file_is_named_and_never_written(tmp_path: Path, damage, sentence: str) -> None:
    file = EmbeddingFile(tmp_path, DIM)
    file.write(np.array([1]), unit_vectors(1, DIM))
    damage(file.path)
    before = file.path.read_bytes()
    with pytest.raises(StoreFault, match=sentence):
        file.write(np.array([2]), unit_vectors(1, DIM))
    file.close()
    with pytest.raises(StoreFault, match=sentence):
        file.rows()
    assert file.path.read_bytes() == before


def test_blocks_are_read_as_they_are_on_the_disk_now(tmp_path: Path) -> None:
    file, into = EmbeddingFile(tmp_path, DIM), np.ones((700, DIM), dtype="<f4")
    assert file.read(0, into).shape == (0, DIM)
    rows = unit_vectors(1000, DIM)
    file.write(np.arange(1000), rows)
    assert np.array_equal(file.read(0, into), rows[:700]) and np.shares_memory(file.read(0, into), into)
    file.write(np.array([800]), rows[:1])
    found = file.read(700, into)
    assert len(found) == 1024 - 700 and np.array_equal(found[100], rows[0]) and not found[300:].any()
    assert file.read(1024, into).shape == file.read(9_999, into).shape == file.read(0, into[:0]).shape == (0, DIM)
    os.truncate(file.path, HEADER_BYTES + 40)
    with pytest.raises(StoreFault, match="it was cut off"):
        file.read(0, into)
    file.path.unlink()
    file.path.mkdir()
    with pytest.raises(StoreFault, match="cannot be read: Is a directory"):
        file.read(0, into)


def test_mend_length_keeps_the_whole_rows_of_a_cut_off_file(tmp_path: Path) -> None:
    file = EmbeddingFile(tmp_path, DIM)
    rows = unit_vectors(10, DIM)
    file.write(np.arange(10), rows)
    os.truncate(file.path, HEADER_BYTES + 5 * DIM * 4 + 3)
    assert file.mend_length() == 5
    assert np.array_equal(file.get(np.arange(5)), rows[:5])
    file.write(np.arange(10), rows)
    assert np.array_equal(np.load(file.path)[:10], rows)


class FullDisk(Disk):
    """A disk with room for so many bytes of allocation."""

    def __init__(self, room: int) -> None:
        self.room = room

    def allocate(self, fd: int, size: int) -> None:
        if size > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(fd, size)


def test_a_full_disk_is_a_sentence_and_the_file_stays_sound(tmp_path: Path) -> None:
    file = EmbeddingFile(tmp_path, DIM, disk=FullDisk(100_000))
    rows = unit_vectors(2, DIM)
    file.write(np.array([10]), rows[:1])
    with pytest.raises(StoreFault, match=r"No space left on device\. Make room"):
        file.write(np.array([50_000]), rows[1:])
    assert np.array_equal(np.load(file.path)[10], rows[0])
    file.write(np.array([11]), rows[1:])
    assert np.array_equal(file.get(np.array([10, 11])), rows)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with room for two megabytes."""
    mount = tmp_path / "mount"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no right to mount a small file system: a really full disk is not tested")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_really_full_disk_is_never_a_sigbus(small_disk: Path) -> None:
    file = EmbeddingFile(small_disk / "space", 256)
    rows = unit_vectors(3000, 256)
    written = 0
    with pytest.raises(StoreFault, match="No space left"):
        for start in range(0, 3000, 100):
            file.write(np.arange(start, start + 100), rows[start : start + 100])
            written = start + 100
    assert 0 < written < 3000
    assert np.array_equal(file.get(np.arange(written)), rows[:written])
    assert np.load(file.path, mmap_mode="r").shape[1] == 256


def test_writers_exclude_each_other(tmp_path: Path) -> None:
    files = [EmbeddingFile(tmp_path, DIM) for _ in range(4)]
    rows = unit_vectors(4000, DIM)
    faults: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for start in range(number * 10, 4000, 40):
                files[number].write(np.arange(start, start + 10), rows[start : start + 10])
        except BaseException as fault:  # carried to the main thread
            faults.append(fault)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert np.array_equal(np.load(tmp_path / "vectors.npy")[:4000], rows)


class LossyDisk(Disk):
    """A disk whose unflushed writes are lost, in whole or in part, when the power goes.

    Writes and allocations wait in order and reach the file when it is flushed. `cut_power` lets an arbitrary
    subset of what waits through, torn at arbitrary bytes, and forgets the rest: what a real disk may do.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[str, bytes, int]] = []
        self.flushes = 0
        self.die_at: int | None = None
        self.steps = 0

    def _step(self) -> None:
        self.steps += 1
        if self.die_at is not None and self.steps >= self.die_at:
            raise PowerCut

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        self._step()
        self.waiting.append(("write", bytes(data), offset))

    def allocate(self, fd: int, size: int) -> None:
        self._step()
        self.waiting.append(("allocate", b"", size))

    def flush(self, fd: int) -> None:
        self._step()
        for what, data, offset in self.waiting:
            if what == "allocate":
                Disk.allocate(self, fd, offset)
            else:
                Disk.write(self, fd, data, offset)
        self.waiting.clear()
        self.flushes += 1

    def cut_power(self, path: Path, draw: st.DataObject) -> None:
        if path.exists():
            fd = os.open(path, os.O_RDWR)
            for what, data, offset in self.waiting:
                if not draw.draw(st.booleans(), label="reaches the disk"):
                    continue
                if what == "allocate":
                    Disk.allocate(self, fd, offset)
                elif len(data) == HEADER_BYTES:
                    Disk.write(self, fd, data, offset)  # one sector: written whole or not at all
                else:
                    keep = draw.draw(st.integers(0, len(data)), label="bytes of it")
                    Disk.write(self, fd, data[:keep], offset)
            os.close(fd)
        self.waiting.clear()


class PowerCut(BaseException):
    pass


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_power_cuts_never_lose_a_row_that_write_returned_from(tmp_path_factory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("lossy")
    believed: dict[int, np.ndarray] = {}
    for round_number in range(data.draw(st.integers(1, 4), label="power cuts")):
        disk = LossyDisk()
        disk.die_at = data.draw(st.integers(1, 25), label="dies at step")
        file = EmbeddingFile(folder, DIM, disk=disk)
        try:
            for batch in range(6):
                ids = np.array(
                    data.draw(st.lists(st.integers(0, 3000), min_size=1, max_size=6, unique=True)), dtype=np.int64
                )
                rows = unit_vectors(len(ids), DIM, seed=round_number * 100 + batch)
                for i in ids.tolist():
                    believed.pop(i, None)  # re-embedding takes the old row back first
                file.write(ids, rows)
                believed.update(zip(ids.tolist(), rows, strict=True))
        except PowerCut:
            disk.cut_power(file.path, data)
        sound = EmbeddingFile(folder, DIM)
        ids = np.array(sorted(believed), dtype=np.int64)
        if len(ids):
            assert np.array_equal(sound.get(ids), np.array([believed[i] for i in ids.tolist()]))
        assert sound.capacity() >= (ids.max() + 1 if len(ids) else 0)
