"""What images are called, kept in the process: folders, file names and titles, looked through for a word at once.

A word that nobody asked for before costs the database a look at every row. A server process therefore reads all names
in the background (`search.warmup`) and finds it here in some hundredths of a second; it follows the change log like
`search.bitmaps`. Whoever asks before that, and commands, which live too short, ask the database: see `search.naming`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db.models import QuerySet

from search.arrays import Bitmap, Ids
from search.bitmaps import Library, known_library
from search.changes import changed_images
from search.folding import Folded
from search.models import Image
from search.querysets import ImageQuerySet
from search.text import fold
from search.texts import Texts, TextsWriter

MOST_ENTRIES = 2_000
"""Entries of the change log that are followed while somebody waits; behind more of them all is read anew..."""
MOST_CHANGED = 20_000
"""...as it is when more images changed."""
MOST_BESIDES = 50_000
"""Images that were renamed or added since all was read, before it is read anew in the background."""
_PORTION = 50_000
_CHUNK = 5_000
_NEITHER = b""
_Row = tuple[int, str, str, str]
"""Id, folder, name, title."""


@dataclass(frozen=True)
class _Called:
    """One image's names, folded, in UTF-8."""

    folder: bytes
    """"/2019/italy", "/" for the root; b"" when there is no such image."""
    name: bytes
    title: bytes

    def has(self, word: bytes) -> bool:
        placed = b"%b/%b" % (self.folder, self.name) if b"/" in word else self.name
        return bool(self.folder) and (word in placed or word in self.folder or word in self.title)


_GONE = _Called(_NEITHER, _NEITHER, _NEITHER)


@dataclass(frozen=True)
class _Names:
    """All names at one moment."""

    names: Texts
    """By image id."""
    folder_of: npt.NDArray[np.int32]
    """By image id: the number of its folder; 0: there is no such image."""
    folders: Texts
    """Each once, "/2019/italy"; number 0 is none."""
    titled: Ids
    """Ids of the images that have a title, ascending."""
    titles: Texts
    """Of these, in their order."""

    def __getitem__(self, id: int) -> _Called:
        if id >= len(self.folder_of) or not self.folder_of[id]:
            return _GONE
        place = int(np.searchsorted(self.titled, id))
        there = place < len(self.titled) and self.titled[place] == id
        folder = self.folders[int(self.folder_of[id])]
        return _Called(folder, self.names[id], self.titles[place] if there else _NEITHER)

    def having(self, word: bytes) -> Bitmap:
        """`bitmap[id]`: the images in whose folder, file name or title the word stands."""
        found = self.folders.containing(word)[self.folder_of] | self.names.containing(word)
        found[self.titled[self.titles.containing(word)]] = True
        for place in (place for place in range(len(word)) if word[place : place + 1] == b"/"):
            found[self._across(word[:place], word[place + 1 :])] = True
        found[self.folder_of == 0] = False
        return found

    def _across(self, end: bytes, beginning: bytes) -> Ids:
        """Images whose folder ends, and whose name begins, with these: what "/" stands between."""
        among = np.flatnonzero(self.folders.ending(end)[self.folder_of])
        return self.names.starting(beginning, among)

    @property
    def nbytes(self) -> int:
        texts = self.names.nbytes + self.folders.nbytes + self.titles.nbytes
        return texts + self.folder_of.nbytes + self.titled.nbytes


class NameStore:
    """What images are called, following the change log. Thread-safe; one per process (`get_name_store()`).

    About 30 bytes an image, more for long names and titles: of a million some 30 MB, and while all is read anew twice
    that. A word takes a hundredth of a second where it is rare, six where every name has it.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._lock, self._loading = threading.RLock(), threading.Lock()
        self._number = self._loads = -1
        self._names: _Names | None = None
        self._besides: Mapping[int, _Called] = {}
        """What is called otherwise than in `_names`, or was added or is gone since."""

    @property
    def nbytes(self) -> int:
        """How many bytes the names take, without those that changed since all was read."""
        names = self._names
        return 0 if names is None else names.nbytes

    def keep_up(self) -> bool:
        """Follow the change log to its end; read all names where they are not here or too much changed since: some
        seconds for a million images, in which what is here already answers. Whether all were read."""
        with self._loading:
            # The number is read before the rows: what is committed in between is looked at twice, never missed.
            self.library.refresh()
            loads, number = self.library.stands
            if self.answers(number) and len(self._besides) <= MOST_BESIDES:
                return False
            names = _read()
            with self._lock:
                if self.library.loads == loads:
                    self._names, self._besides, self._number, self._loads = names, {}, number, loads
            return True

    def answers(self, number: int) -> bool:
        """Whether the names are here as they stand at this number of the change log, or a later one."""
        with self._lock:
            if self._names is not None and (self.library.loads != self._loads or not self._followed_to(number)):
                self._names, self._besides = None, {}
            return self._names is not None

    def having(self, word: str, number: int) -> Ids | None:
        """Ids, ascending, of the images in whose folder, file name or title the word stands, at this number of the
        change log or a later one. None: that has to be asked of the database, now."""
        with self._lock:
            if not self.answers(number):
                return None
            names, besides = self._names, self._besides
        assert names is not None
        encoded = _encoded(fold(word))
        found = names.having(encoded)
        changed = np.fromiter(besides, dtype=np.int64, count=len(besides))
        found[changed[changed < len(found)]] = False
        more = [id for id, called in besides.items() if called.has(encoded)]
        ids = np.flatnonzero(found)
        return np.sort(np.concatenate([ids, np.array(more, dtype=np.int64)])) if more else ids

    def _followed_to(self, number: int) -> bool:
        if number > self._number:
            changed = changed_images(self._number, number, most_entries=MOST_ENTRIES, most_changed=MOST_CHANGED)
            if changed is None:
                return False
            self._look_again(changed)
            self._number = number
        return True

    def _look_again(self, ids: Ids) -> None:
        if not len(ids):
            return
        assert self._names is not None
        now = dict.fromkeys(ids.tolist(), _GONE)
        for start in range(0, len(ids), _CHUNK):
            rows = Image.objects.filter(pk__in=ids[start : start + _CHUNK].tolist())
            now.update((id, _called(folder, name, title)) for id, folder, name, title in _texts_of(rows))
        besides = dict(self._besides)  # who is looking through the other one goes on with it
        for id, called in now.items():
            if called != self._names[id]:
                besides[id] = called
            else:
                besides.pop(id, None)
        self._besides = besides


class _Reading:
    """Puts `_Names` together from the rows of all images by id."""

    def __init__(self) -> None:
        self._names, self._folders, self._titles = TextsWriter(), TextsWriter(), TextsWriter()
        self._ids = [np.zeros(0, dtype=np.int64)]
        self._places = [np.zeros(0, dtype=np.int32)]
        self._titled: list[int] = []
        self._folders.add([_NEITHER])
        self._known: dict[str, int] = {}

    def add(self, rows: Sequence[_Row]) -> None:
        known, before = self._known, len(self._known)
        places = (known.setdefault(folder, len(known) + 1) for _, folder, _, _ in rows)
        self._places.append(np.fromiter(places, dtype=np.int32, count=len(rows)))
        self._folders.add([_encoded(f"/{folder}") for folder in islice(known, before, None)])
        self._ids.append(np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)))
        self._names.add([_encoded(name) for _, _, name, _ in rows])
        titled = [(id, title) for id, _, _, title in rows if title]
        self._titled += [id for id, _ in titled]
        self._titles.add([_encoded(title) for _, title in titled])

    def made(self) -> _Names:
        ids = np.concatenate(self._ids)
        folder_of = np.zeros(int(ids.max(initial=-1)) + 1, dtype=np.int32)
        folder_of[ids] = np.concatenate(self._places)
        titled = np.array(self._titled, dtype=np.int64)
        return _Names(self._names.made(ids), folder_of, self._folders.made(), titled, self._titles.made())


def _read() -> _Names:
    """All names: so many rows at once that memory stays flat, on either database."""
    reading, last = _Reading(), 0
    while rows := list(_texts_of(Image.objects.filter(pk__gt=last))[:_PORTION]):
        reading.add(rows)
        last = rows[-1][0]
    return reading.made()


def _texts_of(images: ImageQuerySet) -> QuerySet[Any, _Row]:
    # Folded by the database, so that words are found here exactly where it finds them. What is ASCII SQLite leaves as
    # it is, for its LIKE regards no case of that: it is made small here.
    return images.order_by("pk").values_list("pk", Folded("folder"), Folded("name"), Folded("title"))


def _called(folder: str, name: str, title: str) -> _Called:
    return _Called(*(_encoded(text).lower() for text in (f"/{folder}", name, title)))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_store: NameStore | None = None
_store_lock = threading.Lock()


def get_name_store() -> NameStore:
    """The `NameStore` of this process's library, whether its names were read or not."""
    global _store
    library = known_library()
    with _store_lock:
        if _store is None or _store.library is not library:
            _store = NameStore(library)
        return _store
