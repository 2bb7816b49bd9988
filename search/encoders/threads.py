"""How many processors there are to use, how encoding uses them, and what must be set before torch is imported."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from django.conf import settings

MOST_CALLERS = 4

_given: int | None = None
_seen = threading.local()


def usable_cpus() -> int:
    """Processors this process may use: its affinity, cut by the control group's quota (v2 and v1)."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, _quota(Path("/sys/fs/cgroup")) or allowed))


def _quota(root: Path) -> int | None:
    """The control group's processor quota, rounded up; None without one."""
    try:
        limit, period = (root / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            limit = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in {"max", "-1"}:
        return None
    try:
        return max(1, -(-int(limit) // int(period)))
    except (ValueError, ZeroDivisionError):
        return None


def thread_budget() -> int:
    """settings.IMAGESEARCH_THREADS; 0 there means every processor this process may use."""
    return settings.IMAGESEARCH_THREADS or usable_cpus()


def before_torch() -> None:
    """Call before the first import of torch in a process; a later call changes nothing.

    The threads of OpenMP by default spin while they wait for the next piece of work, and take the processor away
    from the threads that read and decode. The runtimes read these variables once, when torch loads them:
    OMP_WAIT_POLICY by libgomp (Linux), KMP_BLOCKTIME by libomp (macOS). What a person has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def set_threads(count: int | None) -> None:
    """From now on every thread that encodes computes with this many threads of its own; None: the default again."""
    global _given
    _given = count


def wanted_threads() -> int:
    """How many threads the thread that encodes now computes with."""
    return _given or thread_budget()


def apply_threads(torch: Any, *, most: int | None = None) -> None:
    """Called by the encoder before it computes, with at most so many threads: OpenMP counts threads for each calling
    thread by itself."""
    wanted = min(wanted_threads(), most or wanted_threads())
    if getattr(_seen, "count", None) != wanted:
        torch.set_num_threads(wanted)
        _seen.count = wanted


def encode_plan() -> tuple[int, int]:
    """(threads that call `encode_images`, threads each of them computes with).

    On a CPU several callers with one thread each beat one caller with several: measured with
    benchmarks/encode_plan.py on 2 processors (ViT-B-32-256, bf16), 98, 70 and 95 against 66, 59 and 52 images a
    second for batches of 16, 32 and 64, at the same processor time for each image: nobody waits for the slowest
    thread of every layer, and one caller's Python and copying run beside another's arithmetic. Each caller holds a
    batch of its own, so there are at most four. A graphics card is fed by one caller.
    """
    budget = thread_budget()
    torch = sys.modules.get("torch")  # the worker asks when the encoder is loaded; without torch there is no card
    if torch is not None and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        return 1, budget
    callers = min(budget, MOST_CALLERS)
    return callers, budget // callers
