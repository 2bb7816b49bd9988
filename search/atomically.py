"""A transaction that is run again when PostgreSQL chose it to end a deadlock: nothing of it was kept."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from django.db import OperationalError, connection, transaction

P = ParamSpec("P")
T = TypeVar("T")

_PAUSES = (0.05, 0.2, 0.8)
_ENDED = ("40P01", "40001")
"""deadlock_detected, serialization_failure."""


def atomically(verb: Callable[P, T]) -> Callable[P, T]:
    """Like `transaction.atomic` around a function; outside of a transaction it is tried up to four times."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if connection.in_atomic_block:
            with transaction.atomic():
                return verb(*args, **kwargs)
        given: Any = [list(one) if isinstance(one, Iterator) else one for one in args]  # read once, needed again
        for pause in _PAUSES:
            try:
                with transaction.atomic():
                    return verb(*given, **kwargs)
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", None) not in _ENDED:
                    raise
            time.sleep(pause)
        with transaction.atomic():
            return verb(*given, **kwargs)

    return run
