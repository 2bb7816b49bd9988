"""The approximate index of an embedding file: FAISS's inverted lists of short codes, a cache that may go at any time.

Rows are assigned to the nearest of `lists` centroids (k-means) and kept in its list as a RaBitQ code of one bit for
each dimension (Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for
Approximate Nearest Neighbor Search", SIGMOD 2024), after a random rotation. A search walks through the lists from the
nearest centroid on until it has seen enough codes *that may be found*, so that a filter makes it walk further instead
of losing results, and gives candidates; whoever asks scores these from the embedding file. Everything about vectors
that the index does not hold, or no longer rightly, is left to the caller: see `covers`.

FAISS is imported here only, and when an index is first used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.arrays import Bitmap, Ids, Vectors
from search.errors import StoreFault
from search.faultpoints import reach

VERSION = 1
FOLDER = "index"
_CURRENT = "current.json"
_TRAIN_ROWS_A_LIST = 40
_BLOCK_ROWS = 16_384
_HELD_OUT = 200
_RECALL_AT = 20
_STEPS = (2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000)
_CANDIDATES = (150, 300, 600, 1_200, 2_400, 4_800)
_QUERY_BITS = 8
_SAME = 1e-6
"""Cosines that differ by no more are equal, but for rounding."""
_DISAGREES = 2.0
"""A filter disagrees with a query when so many times more passes of all lists than of those nearest to the query."""

log = logging.getLogger(__name__)

_AGAIN = "`manage.py spaces index NAME` makes it anew."
_Lists = npt.NDArray[np.int32]
_BROKEN = (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, MemoryError)
"""What reading files that are not what they should be may raise."""


@dataclass(frozen=True)
class About:
    """What an index says of itself."""

    version: int
    dim: int
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
            self._rotation = np.load(folder / "rotation.npy")
            self._ivf: Any = faiss.read_index(str(folder / "lists.faiss"), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            if (self._ivf.ntotal, self._ivf.d, self._ivf.nlist) != (self.about.rows, self.about.dim, self.about.lists):
                raise StoreFault(f"The index in {folder} is not what it says of itself. {_AGAIN}")
            self._centroids = _Centroids(self._ivf)
        except _BROKEN as error:
            log.debug("What was wrong with %s: %s", folder, error)  # FAISS speaks of its own source files
            raise StoreFault(f"The index in {folder} is damaged or not all there. {_AGAIN}") from error
        self.folder = folder
        self._held: Bitmap = self.list_of >= 0
        self._sizes = np.bincount(self.list_of[self._held], minlength=self.about.lists)

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
        return float((self._centroids.nearest(rows @ self._rotation) == self.list_of[ids]).mean())

    def candidates(self, query: Vectors, wanted: int, among: Bitmap | None = None, *, effort: int = 0) -> Ids | None:
        """At most `wanted` ids, likely the nearest to one query (dim,), of those it holds and `among` lets pass.

        None where it cannot tell: `among` lets nothing pass, or little of what is near the query, and far from a
        query very many rows are about as near to it. `effort`: so many codes are looked at instead of as many as
        were found to do.
        """
        faiss = _faiss()
        turned = np.ascontiguousarray((query @ self._rotation)[None], dtype=np.float32)
        near = self._centroids.nearness(turned)[0]
        order = np.argsort(-near)
        probes = self._probes(order, among, effort or self.about.codes)
        if not probes:
            return None
        chosen = np.ascontiguousarray(order[:probes], dtype=np.int64)
        parameters = faiss.IVFRaBitQSearchParameters()
        parameters.nprobe, parameters.qb = probes, _QUERY_BITS
        if among is not None:
            bits = np.packbits(among, bitorder="little")
            parameters.sel = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        distances = (np.float32((turned[0] ** 2).sum()) - 2 * near[chosen]).astype(np.float32)[None]
        scores, ids = np.empty(wanted, dtype=np.float32), np.empty(wanted, dtype=np.int64)
        pointers = [faiss.swig_ptr(array) for array in (turned, chosen, distances, scores, ids)]
        x, lists, near_them, scores_at, ids_at = pointers
        # Not FAISS's own wrapper, which takes no parameters here.
        self._ivf.search_preassigned_c(1, x, wanted, lists, near_them, scores_at, ids_at, False, parameters)
        return ids[ids >= 0]

    def _probes(self, order: Ids, among: Bitmap | None, codes: int) -> int:
        """How many lists to walk through, from the nearest on, to see so many codes that may be found; 0 where the
        filter disagrees with the query."""
        all_seen = np.cumsum(self._sizes[order])
        if among is None:
            return min(len(order), int(np.searchsorted(all_seen, codes)) + 1)
        seen = np.cumsum(self._passing(among)[order])
        near = min(len(order) - 1, int(np.searchsorted(all_seen, codes)))
        if seen[near] * all_seen[-1] * _DISAGREES < seen[-1] * all_seen[near] or not seen[-1]:
            return 0
        return min(len(order), int(np.searchsorted(seen, codes)) + 1)

    def _passing(self, among: Bitmap) -> Ids:
        """How many codes of each list may be found, estimated from every seventh id."""
        size = min(len(among), len(self.list_of))
        step = 7 if size > 200_000 else 1  # no power of two: files come in pairs, and so do their ids
        lists = self.list_of[:size:step][among[:size:step]]
        return step * np.bincount(lists[lists >= 0], minlength=self.about.lists)


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
    rotation = np.linalg.qr(chance.standard_normal((dim, dim)))[0].astype(np.float32)
    ivf = _trained(get, ids, rotation, lists, chance)
    go_on(0.4)
    list_of = np.full(int(ids[-1]) + 1, -1, dtype=np.int32)
    held_out = _questions(get, ids, chance, queries)
    truth = _Truth(held_out)
    centroids = _Centroids(ivf)
    for start in range(0, len(ids), _BLOCK_ROWS):
        some = ids[start : start + _BLOCK_ROWS]
        rows = np.ascontiguousarray(get(some), dtype=np.float32)
        there = rows.any(axis=1)
        some, rows = some[there], rows[there]
        if not len(some):
            continue
        truth.look_at(rows)
        turned = np.ascontiguousarray(rows @ rotation)
        assigned = centroids.nearest(turned)  # a name of its own: FAISS gets the bare address
        ivf.add_core(len(some), faiss.swig_ptr(turned), faiss.swig_ptr(some), faiss.swig_ptr(assigned))
        list_of[some] = assigned
        go_on(0.4 + 0.5 * (start + len(some)) / len(ids))
    about = About(VERSION, dim, int(ivf.ntotal), lists, _STEPS[-1], _CANDIDATES[-1], 0.0, wanted, last, began, 0.0)
    made = folder / FOLDER / f"{uuid.uuid4().hex}.new"
    try:
        made.parent.mkdir(exist_ok=True)  # not its parents: a space that was taken away stays away
        made.mkdir()
        faiss.write_index(ivf, str(made / "lists.faiss"))
        np.save(made / "lists.npy", list_of)
        np.save(made / "rotation.npy", rotation)
        _write(made / "about.json", asdict(about))
        reach("index-written")
        about = replace(tuned(FaissIndex(made), get, truth, wanted), seconds=round(time.time() - began, 1))
        _write(made / "about.json", asdict(about))
        go_on(1.0)
        _flush(made)
        still_so()
        _take(made, folder)
    except (OSError, RuntimeError) as error:
        _drop(made, folder)
        raise StoreFault(f"The index of {folder} could not be written ({error}). Free some space.") from error
    except BaseException:
        _drop(made, folder)
        raise
    return about


def lists_for(rows: int) -> int:
    """How many lists suit so many rows: about four times the square root, a power of two."""
    return int(2 ** max(4, round(np.log2(4 * np.sqrt(max(1, rows))))))


def tuned(index: FaissIndex, get: Callable[[Ids], Vectors], truth: _Truth, wanted: float) -> About:
    """What the index should say of itself: the least work with which the held-out queries reach the recall."""
    best = replace(index.about, recall=0.0)
    for codes in _STEPS:
        asked = [index.candidates(query, _CANDIDATES[-1], effort=codes) for query in truth.queries]
        found = [ids for ids in asked if ids is not None]
        scores = [get(ids) @ query for ids, query in zip(found, truth.queries, strict=True)]
        for candidates in _CANDIDATES:
            recall = truth.recall([near[:candidates] for near in scores])
            if recall > best.recall:
                best = replace(best, codes=codes, candidates=candidates, recall=round(recall, 4))
            if recall >= wanted:
                return best
        if codes >= index.about.rows:
            break
    return best


class _Truth:
    """The exact best of some queries, found while rows pass by once."""

    def __init__(self, kinds: list[Vectors]) -> None:
        self.queries = np.concatenate(kinds)
        self._kinds = [len(one) for one in kinds]
        self._scores = np.full((len(self.queries), _RECALL_AT), -np.inf, dtype=np.float32)

    def look_at(self, rows: Vectors) -> None:
        scores = np.concatenate([self._scores, self.queries @ rows.T], axis=1)
        self._scores = -np.partition(-scores, _RECALL_AT - 1, axis=1)[:, :_RECALL_AT]

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


def _trained(get: Callable[[Ids], Vectors], ids: Ids, rotation: Vectors, lists: int, chance: Any) -> Any:
    faiss = _faiss()
    some = np.sort(chance.choice(ids, min(len(ids), lists * _TRAIN_ROWS_A_LIST), replace=False))
    rows = np.concatenate([get(some[n : n + _BLOCK_ROWS]) for n in range(0, len(some), _BLOCK_ROWS)])
    rows = np.ascontiguousarray(rows[rows.any(axis=1)] @ rotation, dtype=np.float32)
    if len(rows) < lists:
        raise ValueError(f"{len(rows)} rows that were written are too few for {lists} lists")
    dim = rotation.shape[0]
    ivf = faiss.index_factory(dim, f"IVF{lists},RaBitQ", faiss.METRIC_L2)
    ivf.cp.niter = 10
    ivf.cp.min_points_per_centroid = 1
    ivf.cp.max_points_per_centroid = _TRAIN_ROWS_A_LIST
    ivf.train(rows)
    return ivf


class _Centroids:
    """The centroids of an index; rows (n, dim) float32 are rotated ones."""

    def __init__(self, ivf: Any) -> None:
        self._rows: Vectors = ivf.quantizer.reconstruct_n(0, ivf.nlist)
        self._half = (self._rows.astype(np.float64) ** 2).sum(axis=1).astype(np.float32) / 2

    def nearness(self, rows: Vectors) -> Vectors:
        """(n, lists): greater is nearer. The squared distance is |row|^2 less twice this."""
        near: Vectors = rows @ self._rows.T - self._half
        return near

    def nearest(self, rows: Vectors) -> Ids:
        """The number of the nearest centroid of each row, exactly; (n,) int64."""
        parts = [self.nearness(rows[n : n + 2_048]).argmax(axis=1) for n in range(0, len(rows), 2_048)]
        return np.concatenate(parts).astype(np.int64, copy=False)


def _questions(get: Callable[[Ids], Vectors], ids: Ids, chance: Any, queries: Vectors | None) -> list[Vectors]:
    rows = get(np.sort(chance.choice(ids, min(len(ids), _HELD_OUT), replace=False)))
    rows = rows[rows.any(axis=1)]
    noise = chance.standard_normal(rows.shape).astype(np.float32)
    noise *= 0.5 / np.linalg.norm(noise, axis=1, keepdims=True)
    kinds = [rows + noise] if queries is None else [rows + noise, queries[:_HELD_OUT]]
    return [(kind / np.linalg.norm(kind, axis=1, keepdims=True)).astype(np.float32) for kind in kinds if len(kind)]


# --- the folder: one index is the current one; the others go when nobody makes or reads them ---------


def current_file(folder: Path) -> Path:
    """The file that names the index to be used: replaced whenever another one is."""
    return folder / FOLDER / _CURRENT


def current(folder: Path) -> Path | None:
    """The folder of the index that is to be used now; None when there is none."""
    try:
        name = json.loads(current_file(folder).read_text())["index"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder / FOLDER / str(name)


def opened(folder: Path) -> FaissIndex | None:
    """The current index; None when there is none. Raises StoreFault when it is broken."""
    where = current(folder)
    return FaissIndex(where) if where is not None else None


def forget(folder: Path) -> None:
    """Delete every index of this folder: searches are exact from then on."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(current_file(folder))
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _take(made: Path, folder: Path) -> None:
    """Make this the current index, in one step; what was current before is deleted (open maps of it go on)."""
    ready = made.with_suffix("")
    os.rename(made, ready)
    reach("index-renamed")
    _write(current_file(folder), {"index": ready.name})
    reach("index-current")
    for other in (folder / FOLDER).iterdir():
        if other.is_dir() and other != ready:
            shutil.rmtree(other, ignore_errors=True)


def _drop(made: Path, folder: Path) -> None:
    """Take away what was made and did not become the current index."""
    shutil.rmtree(made, ignore_errors=True)
    if current(folder) != made.with_suffix(""):
        shutil.rmtree(made.with_suffix(""), ignore_errors=True)


def _write(path: Path, said: dict[str, Any]) -> None:
    """A small JSON file, whole or not at all, on stable storage."""
    beside = path.with_name(path.name + ".new")
    with beside.open("w") as file:
        json.dump(said, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    _flush(path.parent, only_itself=True)


def _flush(folder: Path, *, only_itself: bool = False) -> None:
    for path in [*([] if only_itself else sorted(folder.iterdir())), folder]:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


_importing = threading.Lock()


def _faiss() -> Any:
    """FAISS, imported by one thread at a time."""
    with _importing:
        logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells of every build that it is not
        import faiss

        return faiss
