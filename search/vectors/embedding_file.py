"""The id-aligned embedding file: a plain `.npy` whose row i belongs to id i, for ever.

`numpy.load(path, mmap_mode="r")[image_id]` is the public contract: little-endian float32, C order,
shape (capacity, dim), rows that were never written are zero. The file grows in place: extend, flush,
then one write of the fixed-length header. Rows are written with positioned writes into allocated
blocks; the map is for reading only.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import os
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from search.arrays import Ids, Vectors
from search.errors import StoreFault
from search.faultpoints import reach
from search.vectors.disk import Disk

HEADER_BYTES = 128
_MAGIC = b"\x93NUMPY\x01\x00"
_GROWTH_ROWS = 1024
_LOCK_SECONDS = 300.0


def header(capacity: int, dim: int) -> bytes:
    """The file's first 128 bytes: a version 1.0 `.npy` header of fixed length (NEP 1)."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({capacity}, {dim}), }}".encode()
    body = HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + struct.pack("<H", body) + text.ljust(body - 1) + b"\n"


def parse_header(data: bytes) -> tuple[int, int]:
    """(capacity, dim) of a header that `header()` could have made; raises ValueError for any other."""
    if len(data) < HEADER_BYTES or data[:8] != _MAGIC:
        raise ValueError("it does not begin with the header of a .npy file")
    fields = ast.literal_eval(data[10:HEADER_BYTES].decode("latin-1").strip())
    shape = fields.get("shape")
    if fields.get("descr") != "<f4" or fields.get("fortran_order") is not False or len(shape) != 2:
        raise ValueError(f"its header says {fields}, not little-endian float32 rows")
    if data[:HEADER_BYTES] != header(*shape):
        raise ValueError("its header has not the fixed length of 128 bytes")
    return int(shape[0]), int(shape[1])


def row_crc(row: Vectors) -> int:
    """CRC-32 of a row's little-endian float32 bytes, 0 to 2**32 - 1."""
    return zlib.crc32(np.ascontiguousarray(row, dtype="<f4").tobytes())


def row_crcs(rows: Vectors) -> Ids:
    """CRC-32 of each row: (n, dim) float32 -> (n,) int64."""
    if not rows.size:
        return np.zeros(len(rows), dtype=np.int64)
    data = np.ascontiguousarray(rows, dtype="<f4").data.cast("B")
    step, crc = rows.shape[1] * 4, zlib.crc32
    return np.fromiter(
        (crc(data[start : start + step]) for start in range(0, len(data), step)), dtype=np.int64, count=len(rows)
    )


class EmbeddingFile:
    """`vectors.npy` of one space: open, grow, write and read rows by id."""

    def __init__(self, folder: Path, dim: int, *, disk: Disk | None = None) -> None:
        self.folder = folder
        self.path = folder / "vectors.npy"
        self.dim = dim
        self._disk = disk or Disk()
        self._map: Vectors | None = None
        self._map_identity: tuple[int, int] | None = None
        self._map_lock = threading.Lock()
        self._held = threading.local()

    # --- writing -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the space's write lock: no other thread or process on this host writes, grows or zeroes meanwhile.

        Re-entrant within a thread. Raises StoreFault when another writer holds it for five minutes.
        """
        if getattr(self._held, "depth", 0):
            self._held.depth += 1
            try:
                yield
            finally:
                self._held.depth -= 1
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.folder / "write.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._fault("cannot be locked for writing", error) from error
        try:
            self._lock(fd)
            self._held.depth = 1
            try:
                yield
            finally:
                self._held.depth = 0
        finally:
            os.close(fd)

    def _lock(self, fd: int) -> None:
        give_up = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise StoreFault(
                        f"Another process has been writing {self.path} for {_LOCK_SECONDS:.0f} seconds. "
                        "Look for a worker that hangs, stop it, and start again."
                    ) from None
                time.sleep(0.005)

    def write(self, ids: Ids, rows: Vectors) -> None:
        """Write rows (n, dim) float32 at these ids and flush them; what it returns from is on stable storage.

        Raises StoreFault when the disk cannot take them: nothing is then promised about these rows.
        """
        if not len(ids):
            return
        order = np.argsort(ids, kind="stable")
        ids, rows = ids[order], np.ascontiguousarray(rows[order], dtype="<f4")
        with self.writing():
            try:
                fd = self._open_for_writing()
                try:
                    self._grow(fd, int(ids[-1]) + 1)
                    starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 2) != 1)
                    for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
                        self._disk.write(fd, rows[start:stop].data.cast("B"), self._offset(int(ids[start])))
                        reach("rows-partly-written")
                    reach("rows-written")
                    self._disk.flush(fd)
                    reach("rows-flushed")
                finally:
                    os.close(fd)
            except OSError as error:
                raise self._fault("cannot take new rows", error) from error

    def zero(self, ids: Ids) -> None:
        """Overwrite these rows with zeros and flush; ids past the end are ignored."""
        if not self.path.exists():
            return
        inside = np.unique(ids[(ids >= 0) & (ids < self.capacity())])
        if len(inside):
            for start in range(0, len(inside), 4096):
                chunk = inside[start : start + 4096]
                self.write(chunk, np.zeros((len(chunk), self.dim), dtype=np.float32))

    def _open_for_writing(self) -> int:
        if not self.path.exists():
            self._create()
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._capacity_of(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _create(self) -> None:
        handle, temporary = tempfile.mkstemp(prefix="vectors-", suffix=".new", dir=self.folder)
        try:
            self._disk.write(handle, header(0, self.dim), 0)
            self._disk.flush(handle)
        finally:
            os.close(handle)
        os.chmod(temporary, 0o644)
        os.rename(temporary, self.path)
        self._disk.flush_folder(str(self.folder))
        reach("file-created")

    def _grow(self, fd: int, rows: int) -> None:
        capacity = self._capacity_of(fd)
        if rows <= capacity:
            return
        wanted = max(rows, capacity + capacity // 16)
        wanted = -(-wanted // _GROWTH_ROWS) * _GROWTH_ROWS
        reach("before-growth")
        self._disk.allocate(fd, self._offset(wanted))
        self._disk.flush(fd)
        reach("grown-before-header")
        self._disk.write(fd, header(wanted, self.dim), 0)
        self._disk.flush(fd)
        reach("grown")

    def _offset(self, row: int) -> int:
        return HEADER_BYTES + row * self.dim * 4

    def _capacity_of(self, fd: int) -> int:
        try:
            capacity, dim = parse_header(os.pread(fd, HEADER_BYTES, 0))
        except (ValueError, SyntaxError) as error:
            raise StoreFault(
                f"{self.path} is not an embedding file: {error}. Put it back from a backup, or move it away and run "
                "`manage.py repair` to compute its rows again."
            ) from error
        if dim != self.dim:
            raise StoreFault(f"{self.path} holds vectors of {dim} dimensions, but its space has {self.dim}.")
        if os.fstat(fd).st_size < self._offset(capacity):
            raise StoreFault(
                f"{self.path} is shorter than its header says: it was cut off. Put it back from a backup, or run "
                "`manage.py repair` to keep its whole rows and compute the others again."
            )
        return capacity

    def mend_length(self) -> int:
        """Write a header for the whole rows that are there when the file was cut off; returns the capacity."""
        with self.writing():
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                stored, whole = self._rows_there(fd)
                if whole < stored:
                    self._disk.write(fd, header(whole, self.dim), 0)
                    self._disk.flush(fd)
                return whole
            finally:
                os.close(fd)

    def whole_rows(self) -> int:
        """Rows that are there entirely, also when the file was cut off. Raises OSError, ValueError or SyntaxError
        for what is no embedding file."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._rows_there(fd)[1]
        finally:
            os.close(fd)

    def _rows_there(self, fd: int) -> tuple[int, int]:
        stored, dim = parse_header(os.pread(fd, HEADER_BYTES, 0))
        if dim != self.dim:
            raise ValueError(f"its rows have {dim} dimensions, not {self.dim}")
        return stored, min(stored, (os.fstat(fd).st_size - HEADER_BYTES) // (self.dim * 4))

    def _fault(self, what: str, error: OSError) -> StoreFault:
        return StoreFault(
            f"{self.path} {what}: {error.strerror or error}. Make room or mend the disk, then start again; "
            "nothing that was finished is lost."
        )

    # --- reading -------------------------------------------------------------------------------

    def capacity(self) -> int:
        """Rows the file has room for now; 0 when there is no file yet. Raises StoreFault for a broken file."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            return self._capacity_of(fd)
        finally:
            os.close(fd)

    def require(self) -> None:
        """Raise StoreFault when there is no file: for those who know that rows were written."""
        if not self.path.exists():
            raise StoreFault(
                f"The embedding file {self.path} is not there. If its disk is not mounted, mount it; if the file is "
                "lost, run `manage.py repair`, and everything is computed again."
            )

    def rows(self, past: int = 0) -> Vectors:
        """All rows as a read-only map (capacity, dim), mapped anew when `past` lies beyond the last map."""
        with self._map_lock:
            if self._map is None or past >= len(self._map) or self._replaced():
                self._map = self._open_map()
            return self._map

    def _replaced(self) -> bool:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return self._map_identity is not None
        return (found.st_dev, found.st_ino) != self._map_identity

    def _open_map(self) -> Vectors:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._map_identity = None
            return np.zeros((0, self.dim), dtype=np.float32)
        try:
            capacity = self._capacity_of(fd)
            found = os.fstat(fd)
            self._map_identity = (found.st_dev, found.st_ino)
            if not capacity:
                return np.zeros((0, self.dim), dtype=np.float32)
            with os.fdopen(os.dup(fd), "rb") as file:
                mapped = np.memmap(file, dtype="<f4", mode="r", offset=HEADER_BYTES, shape=(capacity, self.dim))
            return mapped.view(np.ndarray)
        finally:
            os.close(fd)

    def get(self, ids: Ids) -> Vectors:
        """(n, dim) float32 copies in the order of `ids`; zeros for ids the file has no row for."""
        if not len(ids):
            return np.zeros((0, self.dim), dtype=np.float32)
        rows = self.rows(past=int(ids.max()))
        inside = (ids >= 0) & (ids < len(rows))
        if inside.all():
            return np.asarray(rows[ids], dtype=np.float32)
        found = np.zeros((len(ids), self.dim), dtype=np.float32)
        found[inside] = rows[ids[inside]]
        return found

    def read(self, start: int, into: Vectors) -> Vectors:
        """The rows from `start` on, as they are on the disk now, read into `into` (n, dim): as many of them as the file
        holds whole, a view of it. Unlike `rows` it maps nothing, so that reading all of the file takes the memory of
        one block. Raises StoreFault for a broken file."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return into[:0]
        try:
            wanted = max(0, min(len(into), self._capacity_of(fd) - start))
            view, offset, done = into[:wanted].data.cast("B") if wanted else memoryview(b""), self._offset(start), 0
            while done < len(view) and (got := os.preadv(fd, [view[done:]], offset + done)):
                done += got
            return into[: done // (self.dim * 4)]
        except OSError as error:
            raise StoreFault(f"{self.path} cannot be read: {error.strerror or error}. Look at the disk.") from error
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of the map."""
        with self._map_lock:
            self._map = None
            self._map_identity = None
