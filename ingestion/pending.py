"""What was heard of a source's folder and not yet looked at: pure, shared by the thread that listens and the one
that crawls.

A file is looked at once it is quiet: closed by whoever wrote it, where the system says so, else unchanged for a while.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ingestion.parts import Hold, Part

QUIET_SECONDS = 0.4
"""So long nothing may happen before a batch is taken ..."""
LONGEST_SECONDS = 3.0
"""... unless the first of it waits this long."""
UNSAID_SECONDS = 1.5
"""How long a file must be quiet where nobody says that it was closed."""
STALLED_SECONDS = 600.0
"""A file that stays open for writing and is not written to for so long is looked at all the same."""
MOST = 20_000
"""More single paths than this are one look through the whole source."""


@dataclass(slots=True)
class _Touch:
    first: float
    last: float
    writing: bool = False
    said: bool = False
    """Whether the file is known to be closed, moved or gone."""


@dataclass(slots=True)
class Batch:
    """What is to be looked at now. `whole`: why it is everything; "" when it is `parts`."""

    parts: list[Part] = field(default_factory=list)
    whole: str = ""
    hold: Hold = field(default_factory=Hold)
    renamed: dict[bytes, bytes] = field(default_factory=dict)
    """Path now -> path before, of files and folders."""

    def before(self, path: bytes) -> bytes | None:
        """Where this path was before the renames of this batch; None when it was not renamed."""
        return _resolve(self.renamed, path)


class Pending:
    """All methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._files: dict[bytes, _Touch] = {}
        self._writing: dict[bytes, float] = {}
        """Open for writing -> when it was last written to. Kept also when all the rest becomes one whole look."""
        self._parts: dict[bytes, bool] = {}
        self._renamed: dict[bytes, bytes] = {}
        self._whole = ""
        self._first: float | None = None
        self._last = 0.0

    def file(self, path: bytes, *, begun: bool = False, writing: bool = False, said: bool = False) -> None:
        """A file changed. `begun`: it is a new one; `writing`: somebody writes it; `said`: it is complete, or gone."""
        with self._lock:
            now = self._note()
            if writing:
                self._writing[path] = now
            elif said:
                self._writing.pop(path, None)
            if self._whole:
                return
            touch = self._files.get(path)
            if touch is None:
                touch = self._files[path] = _Touch(now, now)
            touch.last = now
            if begun or writing or said:
                touch.writing, touch.said = writing, said
            self._bound()

    def folder(self, path: bytes, *, deep: bool = False) -> None:
        """A folder is to be looked at, with `deep` all beneath it."""
        with self._lock:
            self._note()
            if not self._whole:
                self._parts[path] = deep or self._parts.get(path, False)
                self._bound()

    def rename(self, old: bytes, new: bytes) -> None:
        """The system said that `old` (file or folder) is `new` now."""
        with self._lock:
            origin = _resolve(self._renamed, old) or old
            prefix = old + b"/"
            moved = {new + one[len(old) :]: was for one, was in self._renamed.items() if one.startswith(prefix)}
            self._renamed = {
                one: was for one, was in self._renamed.items() if one != old and not one.startswith(prefix)
            }  # fmt: skip
            self._renamed.update(moved)
            self._renamed[new] = origin
            self._bound()

    def everything(self, why: str) -> None:
        """The whole source is to be looked through; `why` is for logs."""
        with self._lock:
            self._note()
            self._all(why)

    def take(self) -> Batch | None:
        """What is quiet by now, taken out; None when it is too early or there is nothing."""
        with self._lock:
            if self._first is None:
                return None
            now = self._clock()
            if now - self._last < QUIET_SECONDS and now - self._first < LONGEST_SECONDS:
                return None
            self._writing = {path: last for path, last in self._writing.items() if now - last < STALLED_SECONDS}
            busy = {path for path, touch in self._files.items() if not self._quiet(path, touch, now)}
            done = [path for path in self._files if path not in busy]
            if not (self._whole or self._parts or done):
                return None
            finished = frozenset(path for path in done if self._files[path].said)
            hold = Hold(_by_folder(busy | set(self._writing)), finished)
            batch = Batch(whole=self._whole, renamed=self._renamed, hold=hold)
            if not self._whole:
                folders = {os.path.dirname(path) for path in done}
                batch.parts = [Part(path, deep) for path, deep in self._parts.items()]
                batch.parts += [Part(path) for path in sorted(folders) if path not in self._parts]
            for path in done:
                del self._files[path]
            self._parts, self._renamed, self._whole = {}, {}, ""
            self._first = now if self._files else None
            return batch

    def give_back(self, batch: Batch) -> None:
        """What was taken could not be looked at: it waits again."""
        with self._lock:
            self._note()
            if batch.whole:
                self._all(batch.whole)
            elif not self._whole:
                for part in batch.parts:
                    self._parts[part.path] = part.deep or self._parts.get(part.path, False)
                # What was renamed since begins where this batch ended.
                later = {new: _resolve(batch.renamed, old) or old for new, old in self._renamed.items()}
                self._renamed = {**batch.renamed, **later}

    def __len__(self) -> int:
        with self._lock:
            return len(self._files) + len(self._parts) + bool(self._whole)

    def _quiet(self, path: bytes, touch: _Touch, now: float) -> bool:
        if touch.writing:
            return path not in self._writing
        return touch.said or now - touch.last >= UNSAID_SECONDS

    def _note(self) -> float:
        now = self._last = self._clock()
        if self._first is None:
            self._first = now
        return now

    def _bound(self) -> None:
        if len(self._files) + len(self._parts) + len(self._renamed) > MOST:
            self._renamed = {}
            self._all("very much changed at once")

    def _all(self, why: str) -> None:
        self._whole = self._whole or why
        self._files, self._parts = {}, {}


def _resolve(renamed: dict[bytes, bytes], path: bytes) -> bytes | None:
    """By the path itself, else by the nearest folder above it that was renamed."""
    if not renamed:
        return None
    here, rest = path, b""
    while here:
        if here in renamed:
            return renamed[here] + rest
        above = os.path.dirname(here)
        rest = path[len(above) :] if above else b"/" + path
        here = above
    return None


def _by_folder(paths: set[bytes]) -> dict[bytes, set[bytes]]:
    folders: dict[bytes, set[bytes]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        folders.setdefault(folder, set()).add(name)
    return folders
