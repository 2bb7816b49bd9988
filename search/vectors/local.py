"""The vector store of one machine: the id-aligned file, searched exactly, or through an index where one was made."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.arrays import Bitmap, Ids, Vectors
from search.errors import StoreFault
from search.vectors.base import Hits
from search.vectors.disk import Disk
from search.vectors.embedding_file import EmbeddingFile

if TYPE_CHECKING:
    from search.vectors.faiss_index import FaissIndex

log = logging.getLogger(__name__)

EXACT_UP_TO = 20_000
"""Where no more than so many may be found they are all scored: quicker than any index, and nothing is lost."""
MOST_BESIDES = 250_000
"""Vectors that the index does not hold are scored exactly beside it; with more of them everything is."""
_CANDIDATES_A_HIT = 2
"""So many more are scored for each that is wanted: the thousandth shall be as likely to be right as the first."""
_A_PAGE = 60
"""Asked for more than so many, the index looks at more as well, by the square root."""
_MANY = 4_000
"""Candidates beyond so many are scored by several threads first."""
_TRY_AGAIN_SECONDS = 60.0
MOST_THROUGH_INDEX = 10_000
"""Who wants more than so many gets an exact scan: the index is tuned to the first of them."""
_MOST_SHARE = 0.1
"""What is looked at beyond what the first twenty need, for the sake of the thousandth, is no more than this of all."""
_CHUNK_ROWS = 8_192
_SCATTERED = 0.25
"""Below this share of rows it is quicker to gather the rows that pass than to score all and mask."""
_SPARE = 32
"""Candidates beyond k that are scored again in float64, so that the order does not hang on BLAS's blocking."""


class LocalStore:
    """A `VectorStore` over `vectors.npy` in a folder; thread-safe, any number of processes on one host.

    Search is an exact scan of the mapped file in blocks (memory stays flat): numpy's matrix product
    uses all threads for a single query, where FAISS's flat index parallelises over queries only.

    Where an index lies beside the file (see `faiss_index`), its candidates are scored from the file instead, together
    with every vector that the index does not hold or that was written anew since. `news(last)`: the ids written or
    deleted after the time that the index calls `last`; without it an index is never used.
    """

    def __init__(
        self, folder: Path, dim: int, *, disk: Disk | None = None, news: Callable[[int], Ids] | None = None
    ) -> None:
        self.dim = dim
        self.file = EmbeddingFile(folder, dim, disk=disk)
        self.index_fault = ""
        """Why the index that lies there is not used, in a sentence."""
        self._news = news
        self._index: FaissIndex | None = None
        self._index_seen: tuple[int, int] | None = None
        self._index_tried = 0.0
        self._index_lock = threading.Lock()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the space's write lock around a check, the rows and the commit (see `search.embeddings`)."""
        with self.file.writing():
            yield

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        ids = checked_ids(ids)
        vectors = checked_vectors(vectors, len(ids), self.dim)
        if len(np.unique(ids)) != len(ids):
            raise ValueError("an id stands twice in one upsert")
        self.file.write(ids, vectors)

    def delete(self, ids: Ids) -> None:
        self.file.zero(checked_ids(ids))

    def get(self, ids: Ids) -> Vectors:
        return self.file.get(checked_ids(ids))

    def search(self, queries: Vectors, k: int, among: Bitmap | Ids | None = None) -> Hits:
        queries = np.atleast_2d(np.ascontiguousarray(queries, dtype=np.float32))
        if queries.shape[1] != self.dim or not np.isfinite(queries).all():
            raise ValueError(f"queries must be finite and have {self.dim} dimensions, not shape {queries.shape}")
        if k < 1:
            raise ValueError("k must be at least 1")
        if among is None or among.dtype == np.bool_:
            found = self._through_index(queries, k, None if among is None else among.astype(np.bool_, copy=False))
            if found is not None:
                return found
        return self._scored_again(queries, self._scanned(queries, k, among).ids, k)

    def index(self) -> FaissIndex | None:
        """The index that is to be used now, opened again when another one was made; None when there is none.

        One look at the disk. A broken one counts as none, and `index_fault` says why.
        """
        from search.vectors import faiss_index, index_folder

        try:
            stands = os.stat(index_folder.current_file(self.file.folder))
            seen = (stands.st_ino, stands.st_mtime_ns)
        except OSError:
            seen = None
        if seen == self._index_seen and not self._index_again():
            return self._index
        with self._index_lock:
            if seen != self._index_seen or self._index_again():
                self._index_tried = time.monotonic()
                try:
                    self._index = faiss_index.opened(self.file.folder) if seen else None
                    self.index_fault = ""
                    if self._index is not None and self._index.about.dim != self.dim:
                        raise StoreFault(f"The index of {self.file.folder} is of another dimension; make it anew.")
                except StoreFault as error:
                    log.warning("Searches are exact, and slower, until it is mended: %s", error)
                    self._index, self.index_fault = None, str(error)
                self._index_seen = seen
            return self._index

    def _index_again(self) -> bool:
        """Whether to try a broken one again: what broke it may have passed (too many open files, say)."""
        return bool(self.index_fault) and time.monotonic() - self._index_tried > _TRY_AGAIN_SECONDS

    def _through_index(self, queries: Vectors, k: int, among: Bitmap | None) -> Hits | None:
        """What `search` gives, with the help of the index; None where that does not pay or there is none."""
        size = self.file.capacity() if among is None else len(among)
        passing = size if among is None else int(np.count_nonzero(among))
        if passing <= EXACT_UP_TO or self._news is None:
            return None
        index = self.index()
        if index is None:
            return None
        held = index.covers(size)
        written = self._news(index.about.last)
        held[written[written < size]] = False
        if among is not None:
            held &= among
        through = int(np.count_nonzero(held))
        if passing - through > MOST_BESIDES:
            return None
        besides = np.zeros(0, dtype=np.int64)
        if passing > through:
            besides = np.flatnonzero(~held if among is None else among ^ held)
        filtered = None if through == index.about.rows else held
        if k > MOST_THROUGH_INDEX:
            return None
        wanted = index.about.candidates + _CANDIDATES_A_HIT * k
        effort = max(index.about.codes, 2 * wanted)
        effort = max(effort, int(min(index.about.codes * np.sqrt(k / _A_PAGE), _MOST_SHARE * index.about.rows)))
        near = []
        for query in queries:
            found = index.candidates(query, wanted, filtered, effort=effort)
            if found is None and through:
                found = index.beyond(query, k, held, self.file.get)
                if found is None:
                    return None
            near.append(besides if found is None else np.concatenate([found, besides]))
        return self._scored_again(queries, [self._narrowed(*one, k) for one in zip(queries, near, strict=True)], k)

    def _narrowed(self, query: Vectors, ids: Ids, k: int) -> Ids:
        """The best of these by float32 scores: enough of them for the first `k` to be among them, as they are scored
        in float64."""
        if len(ids) <= _MANY:
            return ids
        from search.vectors import faiss_index

        rows = self.file.rows(past=int(ids.max()))
        scores = faiss_index.products(rows, ids, query)
        suspects = np.flatnonzero(scores == 0)
        scores[suspects[~rows[ids[suspects]].any(axis=1)]] = -np.inf  # never written
        kept = np.argpartition(-scores, k + _SPARE - 1)[: k + _SPARE] if k + _SPARE < len(ids) else np.arange(len(ids))
        best: Ids = ids[kept[~np.isneginf(scores[kept])]]
        return best

    def _scanned(self, queries: Vectors, k: int, among: Bitmap | Ids | None) -> _Best:
        rows = self.file.rows(past=_last(among) if among is not None else self.file.capacity() - 1)
        best = _Best(len(queries), k + _SPARE)
        for ids, block, kept in _blocks(rows, among):
            scores = queries @ block.T
            _drop_unwritten(scores, block)
            best.add(ids, scores if kept is None else scores[:, kept])
        return best

    def _scored_again(self, queries: Vectors, candidates: Iterable[Ids], k: int) -> Hits:
        ids = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.zeros((len(queries), k), dtype=np.float32)
        for q, named in enumerate(candidates):
            found = named[named >= 0]
            rows = self.file.get(found)
            if len(found) > k + _SPARE:
                rough = rows @ queries[q]
                suspects = np.flatnonzero(rough == 0)
                rough[suspects[~rows[suspects].any(axis=1)]] = -np.inf  # taken away since the index was made
                kept = np.argpartition(-rough, k + _SPARE - 1)[: k + _SPARE]
                kept = kept[~np.isneginf(rough[kept])]
                found, rows = found[kept], rows[kept]
            exact = (rows.astype(np.float64) @ queries[q].astype(np.float64)).astype(np.float32)
            order = np.lexsort((found, -exact))[:k]
            ids[q, : len(order)] = found[order]
            scores[q, : len(order)] = exact[order]
        return Hits(ids, scores)

    def close(self) -> None:
        self.file.close()


def checked_ids(ids: Ids) -> Ids:
    """Ids as (n,) int64; raises ValueError for another shape or kind, or a negative id."""
    array = np.asarray(ids)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"ids must be one row of integers, not {array.dtype} of shape {array.shape}")
    if int(array.min()) < 0:
        raise ValueError("ids must not be negative")
    return array.astype(np.int64, copy=False)


def checked_vectors(vectors: Vectors, count: int, dim: int) -> Vectors:
    """Vectors as (count, dim) float32; raises ValueError when they are not finite rows of unit length."""
    array = np.asarray(vectors)
    if array.shape != (count, dim) or array.dtype != np.float32:
        raise ValueError(f"vectors must be float32 of shape ({count}, {dim}), not {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("a vector holds a value that is not finite")
    lengths = np.linalg.norm(array, axis=1)
    if count and np.abs(lengths - 1).max() > 1e-3:
        raise ValueError(f"vectors must have unit length; one has {lengths[np.abs(lengths - 1).argmax()]:.4f}")
    return array


def _last(among: Bitmap | Ids) -> int:
    """The largest id that may be found, -1 when there is none."""
    if among.dtype == np.bool_:
        return len(among) - 1 - int(among[::-1].argmax()) if among.any() else -1
    return int(among.max(initial=-1))


def _blocks(rows: Vectors, among: Bitmap | Ids | None) -> Iterator[tuple[Ids, Vectors, Ids | None]]:
    """(ids, rows, which of the rows; None for all) of what may be found, block by block, ids ascending."""
    if among is None:
        for start in range(0, len(rows), _CHUNK_ROWS):
            block = rows[start : start + _CHUNK_ROWS]
            yield np.arange(start, start + len(block), dtype=np.int64), block, None
        return
    ids = np.flatnonzero(among) if among.dtype == np.bool_ else np.unique(among).astype(np.int64)
    ids = ids[(ids >= 0) & (ids < len(rows))]
    if not len(ids):
        return
    for start in range(int(ids[0]) // _CHUNK_ROWS * _CHUNK_ROWS, int(ids[-1]) + 1, _CHUNK_ROWS):
        inside = ids[np.searchsorted(ids, start) : np.searchsorted(ids, start + _CHUNK_ROWS)]
        if len(inside) >= _SCATTERED * _CHUNK_ROWS:
            yield inside, rows[start : start + _CHUNK_ROWS], inside - start
        elif len(inside):
            yield inside, rows[inside], None


def _drop_unwritten(scores: Vectors, block: Vectors) -> None:
    """Rows that were never written are all zero and score exactly 0: they are not hits."""
    suspects = np.flatnonzero((scores == 0).all(axis=0))
    if len(suspects):
        scores[:, suspects[~block[suspects].any(axis=1)]] = -np.inf


class _Best:
    """The best so far for each query: ties go to the smaller id because ids come in ascending order."""

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.ids = np.full((queries, k), -1, dtype=np.int64)
        self.scores = np.full((queries, k), -np.inf, dtype=np.float32)

    def add(self, ids: Ids, scores: Vectors) -> None:
        for q in range(len(scores)):
            row = scores[q]
            worst = self.scores[q].min()
            better = np.flatnonzero(row > worst)
            if len(better) > self.k:
                limit = np.partition(row[better], len(better) - self.k)[len(better) - self.k]
                above = better[row[better] > limit]
                equal = better[row[better] == limit][: self.k - len(above)]
                better = np.concatenate([above, equal])
            if not len(better):
                continue
            all_ids = np.concatenate([self.ids[q], ids[better]])
            all_scores = np.concatenate([self.scores[q], row[better]])
            order = np.lexsort((all_ids, -all_scores))[: self.k]
            self.ids[q], self.scores[q] = all_ids[order], all_scores[order]
            self.ids[q][np.isneginf(self.scores[q])] = -1
