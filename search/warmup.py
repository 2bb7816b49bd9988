"""Load what the first search needs before somebody searches, and what the next one needs after a switch of spaces."""

from __future__ import annotations

import logging
import threading
import time

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection

from search import serving
from search.errors import SearchError
from search.spaces import active_space

log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 5.0
_LEAST_SECONDS = 0.5
"""Between two tries, however often searches ask."""


def warm() -> int:
    """Load everything a search in the active space uses; returns the space's id. Raises what searching would."""
    space = active_space()
    serving.load(space)
    return int(space.pk)


def keep_warm() -> threading.Thread:
    """Load in a thread of its own, now and whenever another space becomes active; ends with the process."""
    serving.here.follow()
    thread = threading.Thread(target=_follow, name="warmup", daemon=True)
    thread.start()
    return thread


def _follow() -> None:
    served = 0
    while True:
        try:
            started = time.monotonic()
            now = serving.here.catch_up()
            if now != served:
                log.info("Ready to search; loading took %.1f s.", time.monotonic() - started)
                served = now
        except (SearchError, DatabaseError, ImproperlyConfigured) as error:
            log.info("Not ready to search yet: %s", error)
        finally:
            connection.close()
        time.sleep(_LEAST_SECONDS)
        serving.here.noticed.wait(_LOOK_AGAIN_SECONDS)
