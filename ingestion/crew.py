"""Several workers at once: this process and, beside it, `manage.py process` children that share the ledger."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from django.conf import settings

from ingestion.worker import Worker
from search.encoders.threads import usable_cpus

_STOP_SECONDS = 30.0


class Crew:
    """`count - 1` child processes that run `manage.py process` with these arguments; ended with the block."""

    def __init__(self, count: int, arguments: Sequence[str]) -> None:
        self._count, self._arguments = count, list(arguments)
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Crew:
        share = max(1, (settings.IMAGESEARCH_THREADS or usable_cpus()) // self._count)
        environment = {**os.environ, "IMAGESEARCH_THREADS": str(share)}
        manage = str(Path(settings.BASE_DIR) / "manage.py")
        for _ in range(self._count - 1):
            command = [sys.executable, manage, "process", "--workers", "1", *self._arguments]
            # A child outlives Ctrl-C on the terminal long enough to hand its batch back: it is told by us.
            self._children.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
            )
        return self

    def stop(self) -> None:
        """Ask the children to finish what they have in hand."""
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    def wait(self) -> bool:
        """Wait for the children to end by themselves; False when one of them was not through."""
        statuses = [child.wait() for child in self._children]
        return not any(statuses)

    def __exit__(self, *_: object) -> None:
        self.stop()
        for child in self._children:
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextlib.contextmanager
def stopping(*stops: Callable[[], None]) -> Iterator[list[int]]:
    """SIGTERM and SIGINT call these (a second one ends at once); gives the list of the signals that came.

    Does nothing outside the main thread, where no handlers can be set.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if came:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        came.append(number)
        for stop in stops:
            stop()

    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def threads_each(count: int) -> int:
    """Compute threads of one of `count` workers."""
    return max(1, (settings.IMAGESEARCH_THREADS or usable_cpus()) // count)


__all__ = ["Crew", "Worker", "stopping", "threads_each"]
