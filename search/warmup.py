"""Load what the first search needs before somebody searches, and what the next one needs after a switch of spaces."""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
import time
from importlib import import_module

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, QueryDict
from django.template.loader import get_template
from django.urls import reverse

from search import retrieval, serving
from search.errors import SearchError
from search.facets import get_facets
from search.name_store import get_name_store
from search.query import parse
from search.spaces import active_space

log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 5.0
_LEAST_SECONDS = 0.5
"""Between two tries, however often searches ask."""
_REST = 10
"""Times as long as following what images are called took, before that is done again: a crawl of very many files has
all names read anew again and again."""

_looked = threading.Event()
_looked.set()


def warm() -> int:
    """Load everything a search in the active space uses; returns the space's id. Raises what searching would."""
    space = active_space()
    serving.load(space)
    return int(space.pk)


def is_ready() -> bool:
    """Whether this process has loaded what searches need, or has found that it cannot be loaded now. True in processes
    that load with their first search."""
    return _looked.is_set()


def practise() -> None:
    """Search once as a page does, and show nobody a page: whatever the first search would still have loaded."""
    retrieval.find(parse("red", {}), None, limit=60)
    try:
        _show_nobody()
    except Exception:  # the next page that is asked for says the same to somebody
        log.warning("The search page cannot be shown.", exc_info=True)


def _show_nobody() -> None:
    get_template("search/_tiles.jinja", using="jinja2")
    reverse("admin:index")  # names in a namespace are looked up in another table
    request = HttpRequest()
    request.method, request.path = "GET", reverse("search")
    request.GET = QueryDict("q=red&min=0")
    request.user = AnonymousUser()  # sees nothing
    import_module("search.views.results").search(request)


def settle() -> None:
    """Give back the memory that loading took, and have the collector of garbage pass over what stays.

    It would look through half a million objects of the libraries again and again: a quarter of a second each time, in
    somebody's search.
    """
    gc.collect()
    gc.freeze()
    trim()


def trim() -> None:
    """Give back memory that was freed."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        log.debug("This C library keeps the memory it was given back.")


def keep_warm() -> threading.Thread:
    """Load in a thread of its own, now and whenever another space becomes active; ends with the process."""
    serving.here.follow()
    _looked.clear()
    thread = threading.Thread(target=_follow, name="warmup", daemon=True)
    thread.start()
    return thread


def _follow() -> None:
    served = counted = 0
    rested = 0.0
    while True:
        try:
            started = time.monotonic()
            now = serving.here.catch_up()
            if now != served:
                practise()
                settle()
                log.info("Ready to search; loading took %.1f s.", time.monotonic() - started)
                served = now
        except (SearchError, DatabaseError, ImproperlyConfigured) as error:
            log.info("Not ready to search yet: %s", error)
        finally:
            _looked.set()
            connection.close()
        if counted != served:
            _load_facets()
            settle()
            counted = served
        if served and (began := time.monotonic()) >= rested:
            if _keep_up():
                trim()
            rested = time.monotonic() + _REST * (time.monotonic() - began)
        time.sleep(_LEAST_SECONDS)
        serving.here.noticed.wait(_LOOK_AGAIN_SECONDS)


def _load_facets() -> None:
    """What pages count, last: no search waits for it, and a page that comes sooner loads it itself."""
    try:
        get_facets().load()
    except DatabaseError as error:
        log.info("What pages count is not loaded yet: %s", error)
    finally:
        connection.close()


def _keep_up() -> bool:
    """Follow what pages count, so that no search has much to follow; and read or follow what images are called: until
    that was read, words that nobody searched for before take longer. Whether it was read now."""
    try:
        get_facets().load()
        return get_name_store().keep_up()
    except DatabaseError as error:
        log.info("What images are called is not read yet: %s", error)
        return False
    finally:
        connection.close()
