"""Named points where a test can kill the process, to prove that a crash there loses nothing.

Armed by the environment variable IMAGESEARCH_FAULT="name:count": the process is killed with SIGKILL
(no handlers, no flushing, as a power cut would) the count-th time it reaches that point. Unset, as it
always is outside tests, a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading

_name, _, _count = os.environ.get("IMAGESEARCH_FAULT", "").partition(":")
_left = int(_count or 1)
_lock = threading.Lock()


def reach(name: str) -> None:
    """The process got to the point `name`; dies here when armed for it."""
    if name != _name:
        return
    global _left
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
