"""The newest results of this process, kept for a while."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any, Generic, Protocol, TypeVar


class Made(Protocol):
    """What says when it was made, on the clock of `time.monotonic`."""

    @property
    def made(self) -> float: ...


T = TypeVar("T", bound=Made)


class Kept(Generic[T]):
    """At most `most` results by key, none older than `seconds`; thread-safe."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._lock = threading.Lock()
        self._results: OrderedDict[Any, T] = OrderedDict()

    def get(self, key: Any) -> T | None:
        with self._lock:
            found = self._results.get(key)
            if found is None or time.monotonic() - found.made > self._seconds:
                return None
            self._results.move_to_end(key)
            return found

    def put(self, key: Any, result: T, *, keep: bool) -> None:
        if not keep:
            return
        with self._lock:
            self._results[key] = result
            self._results.move_to_end(key)
            while len(self._results) > self._most:
                self._results.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._results.clear()
