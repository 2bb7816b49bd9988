"""The newest results of this process, kept for a while."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar


class Made(Protocol):
    """What says when it was made, on the clock of `time.monotonic`."""

    @property
    def made(self) -> float: ...


T = TypeVar("T", bound=Made)


class Kept(Generic[T]):
    """At most `most` results by key, none older than `seconds`; thread-safe.

    With `weigh` at most `heaviest` of what it says together, and the newest in any case.
    """

    def __init__(
        self, most: int, seconds: float, *, weigh: Callable[[T], int] | None = None, heaviest: int = 0
    ) -> None:
        self._most, self._seconds, self._weigh, self._heaviest = most, seconds, weigh, heaviest
        self._weight = 0
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
            self._drop(self._results.pop(key, None))
            self._results[key] = result
            self._weight += self._weigh(result) if self._weigh else 0
            while len(self._results) > self._most or (self._weight > self._heaviest and len(self._results) > 1):
                self._drop(self._results.popitem(last=False)[1])

    def _drop(self, result: T | None) -> None:
        if result is not None and self._weigh:
            self._weight -= self._weigh(result)

    def clear(self) -> None:
        with self._lock:
            self._results.clear()
            self._weight = 0
