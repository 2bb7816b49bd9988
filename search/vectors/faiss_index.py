"""The approximate index of an embedding file: FAISS's inverted lists of short codes, a cache that may go at any time.

Rows are projected on their principal components, as many as are needed for the rest to say next to nothing (see
`index_tuning.components`), assigned to the nearest of `lists` centroids (k-means) and kept in its list as one byte a
component (FAISS's scalar quantiser, of the residual). A search walks through the lists from the nearest centroid on
until it has seen enough codes *that may be found*, so that a filter makes it walk further instead of losing results,
and gives candidates; whoever asks scores these from the embedding file. Where a filter passes only what is far from
the query, so that rows by the hundred thousand are about as near as the best, `beyond` gives all that may be among
the best, by a threshold. Everything about vectors that the index does not hold, or no longer rightly, is left to the
caller: see `covers`.

FAISS is imported here only, and when an index is first used.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import threading
import time
import tokenize
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.arrays import Bitmap, Ids, Vectors
from search.errors import StoreFault
from search.faultpoints import reach
from search.vectors.centroids import Centroids
from search.vectors.index_folder import FOLDER, current, drop, flush, sweep, take, write
from search.vectors.index_tuning import CANDIDATES, STEPS, Truth, components, held_out, lists_for, tuned

VERSION = 2
_TRAIN_ROWS_A_LIST = 40
_BLOCK_ROWS = 16_384
_THREADS = max(1, min(4, os.cpu_count() or 1))
"""What looks at very much is shared by so many threads; what does not stays in one, which others disturb less."""
_MUCH = 60_000
"""Codes from which on they are."""
_SAMPLE = 1_200
"""So many of the rows that may be found say where the best of them begin, when it is a matter of all of them."""
_SURE = 2.8
"""So many standard deviations below the threshold codes are still looked at: all but one in four hundred."""
_TOO_MANY = 0.25
"""With more than this share of what may be found above the threshold, scoring all of it is as quick."""
_DISAGREES = 2.0
"""A filter disagrees with a query when so many times more passes of all lists than of those nearest to the query."""

log = logging.getLogger(__name__)

_AGAIN = "`manage.py spaces index NAME` makes it anew."
_Lists = npt.NDArray[np.int32]
_BROKEN = (
    OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, MemoryError, OverflowError,
    tokenize.TokenError,
)  # fmt: skip
"""What reading files that are not what they should be may raise."""


@dataclass(frozen=True)
class About:
    """What an index says of itself."""

    version: int
    dim: int
    components: int
    """Numbers a code is made of."""
    rows: int
    """How many vectors it holds."""
    lists: int
    codes: int
    """So many codes that may be found are looked at before the walk ends; tuned when the index was made."""
    candidates: int
    """So many of them are scored exactly at least; tuned with `codes`."""
    recall: float
    """Recall@20 against the exact scan, of held-out queries, with these two; what was asked for is `wanted`."""
    wanted: float
    last: int
    """Whatever the maker gave as the point in time that the index stands for."""
    made_at: float
    seconds: float

    @property
    def reached(self) -> bool:
        """Whether it is as good as was asked for."""
        return self.recall >= self.wanted


class FaissIndex:
    """An index that was opened: read only, thread-safe, its lists mapped from the disk and shared among processes."""

    def __init__(self, folder: Path) -> None:
        """Raises StoreFault with a sentence when it cannot be used."""
        faiss = _faiss()
        try:
            said = json.loads((folder / "about.json").read_text())
            if said.get("version") != VERSION:
                raise StoreFault(f"The index in {folder} is of another version. {_AGAIN}")
            self.about = About(**said)
            self.list_of: _Lists = np.load(folder / "lists.npy", mmap_mode="r")
            self._components: Vectors = np.load(folder / "components.npy")
            self._ivf: Any = faiss.read_index(str(folder / "lists.faiss"), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            said_so = (self.about.dim, self.about.components, self.about.rows, self.about.lists)
            self._members: Ids = np.asarray(np.load(folder / "members.npy", mmap_mode="r"))  # ids, list by list
            found = (*self._components.shape, self._ivf.ntotal, self._ivf.nlist)
            if said_so != found or self._members.shape != (self.about.rows,):
                raise StoreFault(f"The index in {folder} is not what it says of itself. {_AGAIN}")
            self._centroids = Centroids(self._ivf.quantizer.reconstruct_n(0, self._ivf.nlist))
            steps = faiss.vector_to_array(self._ivf.sq.trained).reshape(2, -1)[1] / 255
            self._code_error = steps**2 / 12  # of a number rounded to whole steps
            self._held: Bitmap = np.asarray(self.list_of) >= 0
            self._sizes = self._sizes_of_lists(folder)
        except _BROKEN as error:
            log.debug("What was wrong with %s: %s", folder, error)  # FAISS speaks of its own source files
            raise StoreFault(f"The index in {folder} is damaged or not all there. {_AGAIN}") from error
        self.folder = folder
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])

    def _sizes_of_lists(self, folder: Path) -> Ids:
        """How many codes each list holds. Raises StoreFault unless the three files that say so say the same."""
        lists, members = np.asarray(self.list_of), self._members
        sizes = np.array([self._ivf.get_list_size(one) for one in range(self.about.lists)], dtype=np.int64)
        sound = (
            len(lists) > 0
            and -1 <= int(lists.min()) <= int(lists.max()) < self.about.lists
            and 0 <= int(members.min(initial=0)) <= int(members.max(initial=0)) < len(lists)
            and np.array_equal(np.bincount(lists[self._held], minlength=self.about.lists), sizes)
            and np.array_equal(lists[members], np.repeat(np.arange(self.about.lists), sizes))
        )
        if not sound:
            raise StoreFault(f"The index in {folder} is not what it says of itself. {_AGAIN}")
        return sizes

    def covers(self, size: int) -> Bitmap:
        """`bitmap[id]` of the ids below `size` that it holds. A fresh array."""
        flags = np.zeros(size, dtype=np.bool_)
        held = self._held[:size]
        flags[: len(held)] = held
        return flags

    def fits(self, ids: Ids, rows: Vectors) -> float:
        """Share of these vectors (n, dim) that lie in the list of the nearest centroid: 1 unless it was made of others.

        Every id must be held; 1.0 for none.
        """
        if not len(ids):
            return 1.0
        return float((self._centroids.nearest(rows @ self._components) == self.list_of[ids]).mean())

    def candidates(self, query: Vectors, wanted: int, among: Bitmap | None = None, *, effort: int = 0) -> Ids | None:
        """`wanted` ids or some more, likely the nearest to one query (dim,), of those it holds and `among` lets pass.

        None where it cannot tell: `among` lets nothing pass, or little of what is near the query, and far from a
        query very many rows are about as near to it: see `beyond`. `effort`: so many codes are looked at instead of
        as many as were found to do for the first twenty.
        """
        codes = effort or self.about.codes
        turned = query @ self._components
        near = self._centroids.products(turned)
        order = self._nearest_lists(self._centroids.half - near, codes if among is None else self.about.rows)
        probes = self._probes(order, among, codes)
        if not probes:
            return None
        threads = min(_THREADS if self._sizes[order[:probes]].sum() > _MUCH else 1, probes)
        parts = [np.ascontiguousarray(order[n:probes:threads], dtype=np.int64) for n in range(threads)]
        asked = [self._asked(turned, near, part, among) for part in parts]
        return np.concatenate(_in_threads(lambda one: self._best(one, wanted), asked))

    def _best(self, asked: _Asked, wanted: int) -> Ids:
        faiss = _faiss()
        best, ids = np.empty(wanted, dtype=np.float32), np.empty(wanted, dtype=np.int64)
        # Not FAISS's own wrapper, which takes no parameters here.
        self._ivf.search_preassigned_c(
            1, asked.query, wanted, asked.lists, asked.near, faiss.swig_ptr(best), faiss.swig_ptr(ids), False,
            asked.parameters,
        )  # fmt: skip
        return ids[ids >= 0]

    def beyond(self, query: Vectors, wanted: int, among: Bitmap, get: Callable[[Ids], Vectors]) -> Ids | None:
        """All ids of those it holds and `among` lets pass that may be among the `wanted` nearest to one query (dim,).

        For filters that disagree with a query. Some rows that pass, `get(ids)`, say from which score on the best
        begin, and how far from the truth codes are; all lists are then looked through for codes above that. None
        where so many are that scoring all is as quick.
        """
        passing = np.flatnonzero(among)
        if len(passing) < 10 * _SAMPLE:
            return None
        sample = passing[np.sort(np.random.default_rng(len(passing)).integers(0, len(passing), _SAMPLE))]
        turned = query @ self._components
        unseen = query - self._components @ turned
        scores, rest = (get(sample) @ np.stack([query, unseen], axis=1)).T
        error = float(np.sqrt(rest.var() + (turned**2 * self._code_error).sum()))
        expected = wanted * _SAMPLE / len(passing)
        begin = int(expected + 3 * np.sqrt(expected) + 3)
        if begin >= _SAMPLE:
            return None
        least = float(-np.partition(-scores, begin)[begin] - rest.mean() - _SURE * error)
        if (scores - rest >= least).mean() > _TOO_MANY:
            return None
        near = self._centroids.products(turned)
        lists = np.arange(self.about.lists, dtype=np.int64)
        parts = [np.ascontiguousarray(lists[n::_THREADS]) for n in range(min(_THREADS, len(lists)))]
        asked = [self._asked(turned, near, part, among) for part in parts]
        return np.concatenate(_in_threads(lambda one: self._above(one, least), asked))

    def _above(self, asked: _Asked, least: float) -> Ids:
        faiss = _faiss()
        found = faiss.RangeSearchResult(1)
        self._ivf.range_search_preassigned_c(
            1, asked.query, least, asked.lists, asked.near, found, False, asked.parameters, None
        )
        count = int(faiss.rev_swig_ptr(found.lims, 2)[1])
        ids: Ids = faiss.rev_swig_ptr(found.labels, count).copy()
        return ids

    def _asked(self, turned: Vectors, near: Vectors, lists: Ids, among: Bitmap | None) -> _Asked:
        """What FAISS is handed: addresses, and the arrays themselves so that they stay."""
        faiss = _faiss()
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = len(lists)
        bits = None
        if among is not None:
            bits = np.packbits(among, bitorder="little")
            parameters.sel = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        row, to_them = np.ascontiguousarray(turned[None], dtype=np.float32), near[lists].astype(np.float32)
        return _Asked(
            faiss.swig_ptr(row), faiss.swig_ptr(lists), faiss.swig_ptr(to_them), parameters, (row, lists, to_them, bits)
        )

    def _nearest_lists(self, away: Vectors, codes: int) -> Ids:
        """The lists from the nearest on: as many at least as hold so many codes."""
        few = 4 * codes * self.about.lists // max(1, self.about.rows)
        if few < self.about.lists:
            order = np.argpartition(away, few)[:few]
            if self._sizes[order].sum() >= codes:
                return order[np.argsort(away[order])]
        return np.argsort(away)

    def _probes(self, order: Ids, among: Bitmap | None, codes: int) -> int:
        """How many lists to walk through, from the nearest on, to see so many codes that may be found; 0 where the
        filter disagrees with the query."""
        all_seen = np.cumsum(self._sizes[order])
        stop = min(len(order), int(np.searchsorted(all_seen, codes)) + 1)
        if among is None:
            return stop
        if len(among) < len(self._held):
            among = np.concatenate([among, np.zeros(len(self._held) - len(among), dtype=np.bool_)])
        passing = int(np.count_nonzero(among))
        seen = self._passing(order[:stop], among)
        if seen * _DISAGREES * self.about.rows < passing * all_seen[stop - 1] or not passing:
            return 0
        while seen < min(codes, passing) and stop < len(order):
            more = order[stop : stop + 1 + int(stop * min(4.0, codes / max(1, seen) - 1))]
            seen, stop = seen + self._passing(more, among), stop + len(more)
        return stop

    def _passing(self, lists: Ids, among: Bitmap) -> int:
        """How many codes of these lists may be found."""
        ids = [self._members[self._starts[one] : self._starts[one + 1]] for one in lists.tolist()]
        return int(np.count_nonzero(among[np.concatenate(ids)]))


@dataclass(frozen=True)
class _Asked:
    query: Any
    lists: Any
    near: Any
    parameters: Any
    kept: tuple[Any, ...]


def products(rows: Vectors, ids: Ids, query: Vectors) -> Vectors:
    """(n,) float32 inner products of `query` (dim,) with the rows of these ids, read where they lie, by all threads.

    `rows` (capacity, dim) float32 in C order; ids outside give minus infinity.
    """
    faiss = _faiss()
    query = np.ascontiguousarray(query, dtype=np.float32)
    ids = np.where(ids < len(rows), ids, -1).astype(np.int64)  # FAISS passes over negative ones
    found = np.full(len(ids), -np.inf, dtype=np.float32)

    def some(part: slice) -> None:
        out, named = found[part], ids[part]
        faiss.fvec_inner_products_by_idx(
            faiss.swig_ptr(out), faiss.swig_ptr(query), faiss.swig_ptr(rows), faiss.swig_ptr(named),
            rows.shape[1], 1, len(named),
        )  # fmt: skip

    edges = np.linspace(0, len(ids), _THREADS + 1).astype(int).tolist()
    _in_threads(some, [slice(a, b) for a, b in pairwise(edges) if a < b])
    return found


def _in_threads(work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    return list(_pool().map(work, parts)) if len(parts) > 1 else [work(part) for part in parts]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that all searches share; FAISS computes in each with no others, whose count OpenMP keeps by thread."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="index", initializer=lambda: _faiss().omp_set_num_threads(1))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not come along


def build(
    get: Callable[[Ids], Vectors],
    ids: Ids,
    folder: Path,
    *,
    dim: int,
    last: int = 0,
    wanted: float = 0.99,
    queries: Vectors | None = None,
    lists: int | None = None,
    go_on: Callable[[float], None] = lambda done: None,
    still_so: Callable[[], None] = lambda: None,
) -> About:
    """Make an index of the vectors of these ids in `folder`, tune it, and put it in the place of the one before.

    `get(ids)` gives (n, dim) rows; rows of zeros are left out. `queries` (m, dim): such as are asked, besides rows
    with noise; the recall that is reached is that of the worse of the two. `go_on(share)` is called between steps
    and may raise to give up, which leaves everything as it was; `still_so()` likewise, right before the index is taken:
    whether the vectors are still those that were read. Raises StoreFault when the disk cannot take it,
    ValueError when there are too few rows.
    """
    faiss = _faiss()
    began = time.time()
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise StoreFault(f"An index cannot lie in {str(folder)!r}: the path is no UTF-8. Use another folder.") from None
    ids = np.unique(ids)
    lists = lists or lists_for(len(ids))
    if len(ids) < 2 * lists:
        raise ValueError(f"{len(ids)} rows are too few for {lists} lists")
    chance = np.random.default_rng(len(ids))
    kinds = held_out(get, ids, chance, queries)
    parts = components(get, ids, kinds, chance, phrases=queries)
    ivf = _trained(get, ids, parts, lists, chance)
    go_on(0.4)
    list_of = np.full(int(ids[-1]) + 1, -1, dtype=np.int32)
    truth = Truth(kinds)
    centroids = Centroids(ivf.quantizer.reconstruct_n(0, ivf.nlist))
    for start in range(0, len(ids), _BLOCK_ROWS):
        some = ids[start : start + _BLOCK_ROWS]
        rows = np.ascontiguousarray(get(some), dtype=np.float32)
        there = rows.any(axis=1)
        some, rows = some[there], rows[there]
        if not len(some):
            continue
        truth.look_at(rows)
        turned = np.ascontiguousarray(rows @ parts)
        assigned = centroids.nearest(turned)  # a name of its own: FAISS gets the bare address
        ivf.add_core(len(some), faiss.swig_ptr(turned), faiss.swig_ptr(some), faiss.swig_ptr(assigned))
        list_of[some] = assigned
        go_on(0.4 + 0.5 * (start + len(some)) / len(ids))
    about = About(
        VERSION, dim, parts.shape[1], int(ivf.ntotal), lists, STEPS[-1], CANDIDATES[-1], 0.0, wanted, last, began, 0.0
    )
    made = folder / FOLDER / f"{uuid.uuid4().hex}.new"
    try:
        sweep(folder)
        made.parent.mkdir(exist_ok=True)  # not its parents: a space that was taken away stays away
        made.mkdir()
        faiss.write_index(ivf, str(made / "lists.faiss"))
        np.save(made / "lists.npy", list_of)
        np.save(made / "components.npy", parts)
        np.save(made / "members.npy", np.argsort(list_of, kind="stable")[-int(ivf.ntotal) :])
        write(made / "about.json", asdict(about))
        reach("index-written")
        found = tuned(FaissIndex(made), get, truth, wanted)
        about = replace(about, **found, seconds=round(time.time() - began, 1))
        write(made / "about.json", asdict(about))
        go_on(1.0)
        flush(made)
        still_so()
        take(made, folder)
    except (OSError, RuntimeError) as error:
        drop(made, folder)
        raise StoreFault(f"The index of {folder} could not be written ({error}). Free some space.") from error
    except BaseException:
        drop(made, folder)
        raise
    return about


def _trained(get: Callable[[Ids], Vectors], ids: Ids, parts: Vectors, lists: int, chance: Any) -> Any:
    faiss = _faiss()
    some = np.sort(chance.choice(ids, min(len(ids), lists * _TRAIN_ROWS_A_LIST), replace=False))
    blocks = (get(some[n : n + _BLOCK_ROWS]) for n in range(0, len(some), _BLOCK_ROWS))
    rows = np.concatenate([block[block.any(axis=1)] @ parts for block in blocks])
    if len(rows) < lists:
        raise ValueError(f"{len(rows)} rows that were written are too few for {lists} lists")
    size = parts.shape[1]
    centroids = faiss.IndexFlatL2(size)
    kind = faiss.ScalarQuantizer.QT_8bit
    ivf = faiss.IndexIVFScalarQuantizer(centroids, size, lists, kind, faiss.METRIC_INNER_PRODUCT, True)
    ivf.cp.niter = 10
    ivf.cp.min_points_per_centroid = 1
    ivf.cp.max_points_per_centroid = _TRAIN_ROWS_A_LIST
    ivf.train(np.ascontiguousarray(rows, dtype=np.float32))
    return ivf


def opened(folder: Path) -> FaissIndex | None:
    """The current index; None when there is none. Raises StoreFault when it is broken."""
    where = current(folder)
    return FaissIndex(where) if where is not None else None


_importing = threading.Lock()


@functools.cache
def _faiss() -> Any:
    """FAISS, imported by one thread at a time."""
    with _importing:
        logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells of every build that it is not
        import faiss

        return faiss
