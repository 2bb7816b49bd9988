"""Which space this process answers from: the active one, or while that is being loaded here, the one before it.

The switch itself is one write in the database. Each server process notices it with its next search (or within a few
seconds), loads the new space's encoder, flags and vectors in the background, answers from the old space meanwhile,
and then goes over at once. An answer takes its space from here once and uses nothing of another: encoder, vectors,
coverage and label belong together. Processes that do not `follow()` (commands, tests) take the active space as it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from search.models import EmbeddingSpace
from search.spaces import active_space
from search.vectors import forget_stores

log = logging.getLogger(__name__)

MOST_SECONDS = 120.0
"""So long a process may go on answering from the space that served before; then it takes the active one as it is."""


class Serving:
    """The space that one process answers from; thread-safe. `load(space)` makes it ready in the calling thread."""

    def __init__(self, load: Callable[[EmbeddingSpace], None]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._current: EmbeddingSpace | None = None
        self._ready: set[int] = set()
        """Ids of the spaces that were loaded here: going back to one of them takes no time."""
        self._awaited = 0
        self._since = 0.0
        self._following = False
        self.noticed = threading.Event()
        """Set when a search saw that there is something to load."""

    def follow(self) -> None:
        """From now on another thread calls `catch_up` again and again, so that searches need not wait."""
        self._following = True

    def space(self) -> EmbeddingSpace:
        """The space to answer from now. One query; two while another space is being loaded."""
        active = active_space()
        if not self._following:
            return active
        with self._lock:
            before = self._current
            if before is None or before.pk == active.pk or active.pk in self._ready:
                self._take(active)
                return active
            if self._awaited != active.pk:
                self._awaited, self._since = active.pk, time.monotonic()
            late = time.monotonic() - self._since > MOST_SECONDS
        self.noticed.set()
        if late or not EmbeddingSpace.objects.filter(pk=before.pk, removing=False).exists():
            with self._lock:
                self._take(active)
            return active
        return before

    def catch_up(self) -> int:
        """Load the active space if it is not loaded yet and go over to it; returns its id. Raises what loading does."""
        self.noticed.clear()
        active = active_space()
        with self._lock:
            known = active.pk in self._ready
        if not known:
            self._load(active)
        with self._lock:
            self._ready.add(active.pk)
            self._take(active)
        self._let_go()
        return int(active.pk)

    def reset(self) -> None:
        """Forget what was loaded and stop following."""
        with self._lock:
            self._current, self._ready, self._following = None, set(), False

    def _take(self, space: EmbeddingSpace) -> None:
        if self._current is not None and self._current.pk != space.pk:
            log.info("Searches are answered by %s now.", space.label)
        self._current, self._awaited = space, 0

    def _let_go(self) -> None:
        """Close the files of spaces that were removed, so that their room on the disk comes free."""
        there = set(EmbeddingSpace.objects.values_list("pk", flat=True))
        forget_stores(keep=there)
        with self._lock:
            self._ready &= there


def load(space: EmbeddingSpace) -> None:
    """Load everything that a search in this space uses. Raises what searching would."""
    import numpy as np

    from search.background import reference
    from search.bitmaps import get_library
    from search.spaces import encoder_of
    from search.vectors import get_store
    from search.words import space_for_words

    library = get_library()
    encoder = encoder_of(space)
    words = space if encoder.text else space_for_words(space, library)
    encoder_of(words).encode_texts(["red"])
    reference(encoder_of(words), words)
    query = np.zeros((1, space.dim), dtype=np.float32)
    query[0, 0] = 1
    get_store(space).search(query, 1, among=library.embedded(space.pk))


here = Serving(load)
"""This process's own."""


def serving_space() -> EmbeddingSpace:
    """The space that this process answers searches from now."""
    return here.space()
