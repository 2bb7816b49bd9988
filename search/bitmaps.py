"""What each process knows of every image id: who may see it, whether it is listed, where it is embedded.

Kept as flat arrays by image id and brought up to date from the change log, so that a search never
carries id lists through SQL.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import connection

from search.access import editable_sources, readable_sources
from search.arrays import Bitmap, Ids
from search.changes import last_number
from search.columns import columns, ids_of
from search.compact import unpack_ids
from search.models import Change, Embedding, Image

_CHUNK = 50_000
_LOG_PAGE = 500
FOLD = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], dtype=np.uint64)
"""A SHA-256 as one number: its four words, each times one of these, added modulo 2**64."""
_FEW_BITS = 2**20 - 1
_LISTED = {Image.State.WAITING.value, Image.State.READY.value}


class Library:
    """Flags of every image id, following the change log. Thread-safe; one per process (`get_library()`)."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._number = -1
        self.loads = 0
        """How often all was read anew: what was kept beside it counts no longer then."""
        self._source = np.zeros(0, dtype=np.int32)
        self._listed = np.zeros(0, dtype=np.bool_)
        self._cover = np.zeros(0, dtype=np.int64)
        self._embedded: dict[int, Bitmap] = {}
        self._written: dict[int, tuple[int, Bitmap]] = {}
        self._digests: npt.NDArray[np.uint64] | None = None
        self._twins: Ids | None = None

    @property
    def number(self) -> int:
        """The change-log number these flags stand at."""
        return self._number

    @property
    def stands(self) -> tuple[int, int]:
        """What is the same for as long as nothing was changed."""
        with self._lock:
            return self.loads, self._number

    @property
    def size(self) -> int:
        """One more than the largest image id known."""
        return len(self._source)

    def refresh(self) -> int:
        """Follow the change log to its end; returns the number reached. One small query when nothing is new."""
        with self._lock:
            last = last_number()
            if last < self._number or self._number < 0:
                self._load(last)
            while self._number < last:
                entries = list(
                    Change.objects.filter(number__gt=self._number)
                    .order_by("number")
                    .values_list("number", "kind", "space", "ids")[:_LOG_PAGE]
                )
                if not entries or entries[0][0] != self._number + 1:  # pruned past us
                    self._load(last)
                    break
                self._follow(entries)
            return self._number

    def visible(self, user: Any, *, to_edit: bool = False, listed: bool = True) -> Bitmap:
        """`bitmap[id]`: this person may see the image and it is listed (not hidden, removed, missing, unreadable).

        With `to_edit` only what they may change; without `listed` also what is not. `None` stands for the command line
        and sees every source. A fresh array each time: the caller may change it.
        """
        with self._lock:
            among = self._listed if listed else np.ones(self.size, dtype=np.bool_)
            if user is None or (user.is_active and user.is_staff):
                return among & (self._source > 0)
            if not user.is_active:
                return np.zeros(self.size, dtype=np.bool_)
            sources = editable_sources(user) if to_edit else readable_sources(user)
            allowed = np.fromiter(sources.values_list("pk", flat=True), dtype=np.int64)
            table = np.zeros(max(int(self._source.max(initial=0)), int(allowed.max(initial=0))) + 1, dtype=np.bool_)
            table[allowed] = True
            table[0] = False
            return among & table[self._source]

    def by_source(self, among: Bitmap) -> dict[int, int]:
        """{id of a source: number of its images in this bitmap}."""
        with self._lock:
            size = min(len(among), self.size)
            counted = np.bincount(self._source[:size][among[:size]])
        return {int(source): int(counted[source]) for source in np.flatnonzero(counted) if source}

    def of_sources(self, sources: Collection[int]) -> Bitmap:
        """`bitmap[id]`: the image is one of these sources'. A fresh array."""
        with self._lock:
            wanted = np.zeros(max(int(self._source.max(initial=0)), *sources, 0) + 1, dtype=np.bool_)
            wanted[list(sources)] = True
            return wanted[self._source]

    def embedded(self, space_id: int) -> Bitmap:
        """`bitmap[id]`: the database says this image has a vector in the space. A fresh array each time."""
        with self._lock:
            if space_id not in self._embedded:
                self._embedded[space_id] = self._load_embedded(space_id)
            return self._sized(self._embedded[space_id]).copy()

    def written_since(self, space_id: int, last: int) -> Ids:
        """Ids whose vector in the space was written or taken away after the Embedding row `last` was its newest.

        Asked of the database once, by the rows' own numbers, which only grow; followed in the change log from then
        on. Some that were not may be among them, none is missing.
        """
        with self._lock:
            known = self._written.get(space_id)
            if known is None or known[0] != last:
                rows = Embedding.objects.filter(space_id=space_id, pk__gt=last)
                known = self._written[space_id] = (last, self.bitmap(ids_of(rows, "image_id"), longer=True))
            return np.flatnonzero(known[1])

    def covers(self, ids: Ids) -> Ids:
        """The cover of the stack in which each of these images lies; the image itself where it lies in none, or is
        the cover, or the cover is not listed (a cover that nobody sees covers nothing)."""
        with self._lock:
            known = np.where(ids < self.size, ids, 0)
            cover = self._cover[known] if self.size else known
            there = (cover > 0) & (cover < self.size)
            there[there] = self._listed[cover[there]]
            return np.where(there, cover, ids)

    def stacked(self, ids: Ids) -> Bitmap:
        """Of each of these images whether it lies in a stack, as its cover or beneath it."""
        with self._lock:
            taking_part = self._cover > 0
            covers = self._cover[taking_part]
            taking_part[covers[covers < self.size]] = True
            known = np.where(ids < self.size, ids, 0)
            return taking_part[known] if self.size else np.zeros(len(ids), dtype=np.bool_)

    def twins(self) -> tuple[Ids, npt.NDArray[np.uint64]]:
        """Ids of the images whose bytes another image has too, whoever may see them, and what their bytes are called.

        The second array holds each SHA-256 folded to eight bytes, as a number. Ordered by that, then by id. These may
        agree by chance: look at the whole digest of the few images that are shown or changed.
        """
        with self._lock:
            if self._digests is None:
                self._digests = self._load_digests()
            digests = self._digests
            if self._twins is None:
                self._twins = _shared(digests)
            return self._twins, digests[self._twins]

    def bitmap(self, ids: Iterable[int] | Ids, *, longer: bool = False) -> Bitmap:
        """A bitmap of this library's size with these ids set; ids beyond it are dropped, or make it `longer`."""
        array = ids if isinstance(ids, np.ndarray) else np.fromiter(ids, dtype=np.int64)
        flags = np.zeros(self.size, dtype=np.bool_)
        if longer:
            return _with(flags, array)
        flags[array[(array >= 0) & (array < self.size)]] = True
        return flags

    def _sized(self, flags: Bitmap) -> Bitmap:
        if len(flags) < self.size:
            return np.concatenate([flags, np.zeros(self.size - len(flags), dtype=flags.dtype)])
        return flags[: self.size]

    def _load(self, number: int) -> None:
        # The number is read before the tables: what is committed in between is looked at twice, never missed.
        self._source = np.zeros(0, dtype=np.int32)
        self._listed = np.zeros(0, dtype=np.bool_)
        self._cover = np.zeros(0, dtype=np.int64)
        self._embedded, self._written = {}, {}
        self._digests = self._twins = None
        # Three that are each answered by an index alone, instead of one that reads every row.
        listed = ", ".join(f"'{state}'" for state in sorted(_LISTED))
        code = f"source_id * 2 + CASE WHEN state IN ({listed}) THEN 1 ELSE 0 END"
        ids, codes = columns(f"SELECT id, {code} AS code FROM search_image", [], ["id", "code"])
        hidden = ids_of(Image.objects.filter(hidden=True))
        sql = "SELECT id, stack_of_id FROM search_image WHERE stack_of_id IS NOT NULL"
        beneath, covers = columns(sql, [], ["id", "stack_of_id"])
        self._grow(int(ids.max(initial=-1)) + 1)
        self._source[ids] = codes >> 1
        self._listed[ids] = codes & 1
        self._listed[hidden[hidden < self.size]] = False
        inside = beneath < self.size
        self._cover[beneath[inside]] = covers[inside]
        self._number = number
        self.loads += 1

    def _load_embedded(self, space_id: int) -> Bitmap:
        found = ids_of(Embedding.objects.filter(space_id=space_id), "image_id")
        return self.bitmap(found, longer=True)

    def _load_digests(self) -> npt.NDArray[np.uint64]:
        digests = np.zeros(self.size, dtype=np.uint64)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT id, sha256 FROM {Image._meta.db_table} WHERE sha256 IS NOT NULL")
            while rows := cursor.fetchmany(_CHUNK):
                digests = _with_digests(digests, rows)
        return digests

    def _look_again_digests(self, ids: Ids) -> None:
        if self._digests is None:
            return
        known = ids[ids < len(self._digests)]
        before = self._digests[known].copy()
        self._digests[known] = 0
        rows = Image.objects.filter(pk__in=ids.tolist(), sha256__isnull=False).values_list("pk", "sha256")
        self._digests = _with_digests(self._digests, list(rows))
        if len(known) < len(ids) or (before != self._digests[known]).any():
            self._twins = None

    def _follow(self, entries: list[tuple[int, str, int | None, bytes]]) -> None:
        images: list[Ids] = []
        embeddings: dict[int, list[Ids]] = {}
        for _, kind, space, packed in entries:
            if kind == Change.Kind.IMAGES:
                images.append(unpack_ids(packed))
            elif kind == Change.Kind.EMBEDDINGS and space is not None:
                embeddings.setdefault(space, []).append(unpack_ids(packed))
        if images:
            self._look_again(np.unique(np.concatenate(images)))
        for space, parts in embeddings.items():
            changed = np.unique(np.concatenate(parts))
            if space in self._embedded:
                self._look_again_embedded(space, changed)
            if space in self._written:
                last, before = self._written[space]
                self._written[space] = (last, _with(before, changed))
        self._number = entries[-1][0]

    def _look_again(self, ids: Ids) -> None:
        for start in range(0, len(ids), 5_000):
            chunk = ids[start : start + 5_000]
            known = chunk[chunk < self.size]
            self._source[known] = 0
            self._listed[known] = False
            self._cover[known] = 0
            columns = ("id", "source_id", "state", "hidden", "stack_of_id")
            self._put(list(Image.objects.filter(pk__in=chunk.tolist()).values_list(*columns)))
            self._look_again_digests(chunk)

    def _look_again_embedded(self, space: int, ids: Ids) -> None:
        flags = self._embedded[space]
        need = int(ids.max(initial=-1)) + 1
        if need > len(flags):
            flags = np.concatenate([flags, np.zeros(max(need, self.size) - len(flags), dtype=np.bool_)])
        for start in range(0, len(ids), 5_000):
            chunk = ids[start : start + 5_000]
            flags[chunk] = False
            found = Embedding.objects.filter(space_id=space, image_id__in=chunk.tolist()).values_list(
                "image_id", flat=True
            )
            flags[np.fromiter(found, dtype=np.int64)] = True
        self._embedded[space] = flags

    def _grow(self, top: int) -> None:
        if top > self.size:
            room = max(top, self.size + self.size // 8) if self.size else top
            self._source = np.concatenate([self._source, np.zeros(room - self.size, dtype=np.int32)])
            self._listed = np.concatenate([self._listed, np.zeros(room - len(self._listed), dtype=np.bool_)])
            self._cover = np.concatenate([self._cover, np.zeros(room - len(self._cover), dtype=np.int64)])

    def _put(self, rows: list[Any]) -> None:
        if not rows:
            return
        self._grow(max(row[0] for row in rows) + 1)
        ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        self._source[ids] = np.fromiter((row[1] for row in rows), dtype=np.int32, count=len(rows))
        self._listed[ids] = np.fromiter(
            (row[2] in _LISTED and not row[3] for row in rows), dtype=np.bool_, count=len(rows)
        )
        self._cover[ids] = np.fromiter((row[4] or 0 for row in rows), dtype=np.int64, count=len(rows))


def _with(flags: Bitmap, ids: Ids) -> Bitmap:
    """`flags` with these ids set; longer where an id lies beyond its end."""
    need = int(ids.max(initial=-1)) + 1
    if need > len(flags):
        flags = np.concatenate([flags, np.zeros(need + need // 8 - len(flags), dtype=np.bool_)])
    flags[ids] = True
    return flags


def _shared(digests: npt.NDArray[np.uint64]) -> Ids:
    """The places of what stands at several places, ordered by it, then by place; 0 is nothing."""
    ordered = np.sort(digests)
    several = np.unique(ordered[1:][(ordered[1:] == ordered[:-1]) & (ordered[1:] > 0)])
    # A few bits rule out nearly all of a million, which are not put in order with their places then.
    maybe = np.zeros(_FEW_BITS + 1, dtype=np.bool_)
    maybe[(several & np.uint64(_FEW_BITS)).astype(np.int64)] = True
    places = np.flatnonzero(maybe[(digests & np.uint64(_FEW_BITS)).astype(np.int64)])
    places = places[np.isin(digests[places], several)]
    return places[np.argsort(digests[places], kind="stable")]


def _with_digests(digests: npt.NDArray[np.uint64], rows: list[Any]) -> npt.NDArray[np.uint64]:
    """`digests` with those of these (id, SHA-256); longer where an id lies beyond its end."""
    if not rows:
        return digests
    ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
    need = int(ids.max()) + 1
    if need > len(digests):
        digests = np.concatenate([digests, np.zeros(need + need // 8 - len(digests), dtype=np.uint64)])
    # All of it, not the first bytes alone: groups that agree in these would be drawn and counted as one.
    words = np.frombuffer(b"".join(bytes(row[1]).ljust(32, b"\0")[:32] for row in rows), dtype=">u8").reshape(-1, 4)
    digests[ids] = words.astype(np.uint64) @ FOLD
    return digests


_library: Library | None = None
_library_lock = threading.Lock()


def get_library() -> Library:
    """This process's `Library`, brought up to date."""
    library = known_library()
    library.refresh()
    return library


def known_library() -> Library:
    """This process's `Library` as it stands: what asks it has brought it up to date before."""
    global _library
    with _library_lock:
        if _library is None:
            _library = Library()
        return _library


def reset_library() -> None:
    """Forget everything: the next `get_library()` loads anew."""
    global _library
    with _library_lock:
        _library = None
