"""From what an archive calls its pictures to images of the catalogue: paths in bulk, through the sources' roots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from ingestion.crawler import readable
from ingestion.errors import BadArchive
from ingestion.rowmaps import Key, RowMap
from search.access import editable_sources
from search.arrays import Ids
from search.models import Image, Source, path_digest

_BATCH = 2_000
_LISTED = 20
_LOOKS = 1_000


@dataclass
class Unknown:
    """Paths of one source that are no images of the catalogue."""

    count: int = 0
    folder: bytes = b""
    """The folder, relative to the root, in which all of them lie."""
    there: bool = False
    """At least one of them is a file."""
    looks: int = 0


@dataclass
class Found:
    """Which image each row of the archive belongs to."""

    ids: Ids
    """(rows,) int64; 0 where no image does."""
    entries: int = 0
    beyond: int = 0
    """Entries for rows that the archive has not."""
    repeated: int = 0
    """Entries for rows that an earlier entry had named already, for another image: those rows belong to none."""
    unknown: dict[int, Unknown] = field(default_factory=dict)
    """By source."""
    outside: int = 0
    """Paths in no source, or ids of no image."""
    examples: list[str] = field(default_factory=list)
    """Some of what was not found, for people."""

    @property
    def absent(self) -> int:
        return self.outside + sum(one.count for one in self.unknown.values())


class Addresses:
    """Finds images by path or id among what this user may change (None: everything).

    `base` is the folder that relative paths start from; `moved` are (old, new) beginnings of paths.
    """

    def __init__(self, user: Any, *, base: bytes | None = None, moved: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._images = Image.objects.all() if user is None else Image.objects.editable_by(user)
        sources = Source.objects.all() if user is None or user.is_staff else editable_sources(user)
        self._roots = sorted(((bytes(s.root), s.pk) for s in sources), key=lambda pair: len(pair[0]), reverse=True)
        self._names = ", ".join(sorted(source.name for source in sources)) or "none yet"
        self._base, self._moved = base, moved
        self._real = lru_cache(maxsize=100_000)(os.path.realpath)

    def find(self, row_map: RowMap, rows: int, *, offset: int = 0) -> Found:
        """Every entry of the map whose row, moved by `offset`, is one of the archive's."""
        found = Found(np.zeros(rows, dtype=np.int64))
        clash: set[int] = set()
        entries = row_map.entries()
        while batch := list(islice(entries, _BATCH)):
            found.entries += len(batch)
            inside = [(row + offset, key) for row, key in batch if 0 <= row + offset < rows]
            found.beyond += len(batch) - len(inside)
            known = self._lookup([key for _, key in inside], found)
            for row, key in inside:
                image = known.get(key, 0)
                if found.ids[row] and found.ids[row] != image:
                    found.repeated += 1
                    clash.add(row)
                elif image:
                    found.ids[row] = image
        found.ids[list(clash)] = 0
        return found

    def _lookup(self, keys: Sequence[Key], found: Found) -> dict[Key, int]:
        numbers = [key for key in keys if isinstance(key, int)]
        known: dict[Key, int] = {}
        if numbers:
            here = [number for number in numbers if 0 < number < 2**63]
            known = {pk: pk for pk in self._images.filter(pk__in=here).values_list("pk", flat=True)}
            for number in numbers:
                if number not in known:
                    self._miss(found, f"image {number}")
        by_source: dict[int, dict[bytes, tuple[bytes, list[bytes]]]] = {}
        for key in keys:
            if isinstance(key, int):
                continue
            if (placed := self._place(key)) is None:
                self._miss(found, readable(key))
                continue
            source, path = placed
            by_source.setdefault(source, {}).setdefault(path_digest(path), (path, []))[1].append(key)
        for source, wanted in by_source.items():
            rows = self._images.filter(source=source, path_digest__in=list(wanted))
            here_now = {bytes(digest): pk for pk, digest in rows.values_list("pk", "path_digest")}
            for digest, (path, spellings) in wanted.items():
                for spelling in spellings:
                    if digest in here_now:
                        known[spelling] = here_now[digest]
                    else:
                        self._note_unknown(found, source, spelling, path)
        return known

    def _note_unknown(self, found: Found, source: int, key: bytes, path: bytes) -> None:
        one = found.unknown.setdefault(source, Unknown(folder=os.path.dirname(path)))
        one.count += 1
        while one.folder and not path.startswith(one.folder + b"/"):
            one.folder = os.path.dirname(one.folder)
        if not one.there and one.looks < _LOOKS:
            one.looks += 1
            root = next(root for root, pk in self._roots if pk == source)
            one.there = os.path.lexists(os.path.join(root, path))
        if len(found.examples) < _LISTED:
            found.examples.append(readable(key))

    def _miss(self, found: Found, what: str) -> None:
        found.outside += 1
        if len(found.examples) < _LISTED:
            found.examples.append(what)

    def _place(self, key: bytes) -> tuple[int, bytes] | None:
        """(source, path relative to its root); None for a path in no source."""
        for old, new in self._moved:
            if key == old or key.startswith(old.rstrip(b"/") + b"/"):
                key = new.rstrip(b"/") + key[len(old.rstrip(b"/")) :]
                break
        if not key.startswith(b"/"):
            if self._base is None:
                raise BadArchive(
                    f"The path {readable(key)} is relative: say from where with --root FOLDER or --source NAME. "
                    f"Sources: {self._names}."
                )
            key = os.path.join(self._base, key)
        path = os.path.normpath(key)
        placed = self._inside(path)
        if placed is None:
            folder, name = os.path.split(path)
            placed = self._inside(os.path.join(self._real(folder), name))
        return placed

    def _inside(self, path: bytes) -> tuple[int, bytes] | None:
        for root, source in self._roots:
            slashed = root if root.endswith(b"/") else root + b"/"
            if path.startswith(slashed):
                return source, path[len(slashed) :]
        return None


def double_rows(ids: Ids) -> tuple[Ids, Ids]:
    """(earlier rows, later rows) of the pairs that belong to the same image, neighbours by row."""
    order = np.argsort(ids, kind="stable")
    order = order[ids[order] > 0]
    same = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
    return order[same], order[same + 1]
