"""Who is working: one small file for each live worker, locked while it lives.

The operating system drops the lock when the process ends, however it ends, so a dead worker is known at
once and a reused process id deceives nobody. The file also holds, in fixed slots written through a memory
map, which image each thread has in hand: what a killed process was busy with stays readable, and only
those images are blamed for the death.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

_SLOTS = 512
_SLOT = struct.Struct("<q")
_SUFFIX = ".worker"


def folder() -> Path:
    """Where the workers' files lie: beside the database's data, on the host that owns it."""
    return Path(settings.IMAGESEARCH_DATA) / "workers"


class Presence:
    """This process as a worker: its name for leases, its lock, and what its threads have in hand."""

    def __init__(self) -> None:
        self.owner = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(6)}"
        folder().mkdir(parents=True, exist_ok=True)
        self._path = _file_of(self.owner)
        # Locked before it gets its name: nobody can meet it unlocked and take its owner for dead.
        fresh = self._path.with_suffix(".new")
        self._handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        os.truncate(self._handle, _SLOTS * _SLOT.size)
        self._map = mmap.mmap(self._handle, _SLOTS * _SLOT.size)
        os.rename(fresh, self._path)
        self._free = list(range(_SLOTS))
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def in_hand(self, image_id: int) -> Iterator[None]:
        """While the block runs, a death of the process is put down to this image."""
        with self._lock:
            slot = self._free.pop() if self._free else None
        if slot is None:
            yield
            return
        _SLOT.pack_into(self._map, slot * _SLOT.size, image_id)
        try:
            yield
        finally:
            _SLOT.pack_into(self._map, slot * _SLOT.size, 0)
            with self._lock:
                self._free.append(slot)

    def close(self) -> None:
        """Leave: the file goes, then the lock."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        with contextlib.suppress(BufferError, ValueError):
            self._map.close()
        with contextlib.suppress(OSError):
            os.close(self._handle)


def is_dead(owner: str) -> bool:
    """Whether the worker of this name can no longer be working.

    Known for certain from its file; without one (removed by hand, other data folder) only for a process of
    this host that is gone. In doubt the answer is no, and the lease runs out by itself.
    """
    try:
        handle = os.open(_file_of(owner), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        host, _, rest = owner.partition(":")
        pid = rest.partition(":")[0]
        return host == socket.gethostname()[:60] and pid.isdigit() and not _runs(int(pid))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(handle)


def last_in_hand(owner: str) -> set[int] | None:
    """Ids of the images a dead worker was busy with; None when its file is gone and nobody can tell."""
    try:
        data = _file_of(owner).read_bytes()
    except OSError:
        return None
    return {value for (value,) in _SLOT.iter_unpack(data[: len(data) // _SLOT.size * _SLOT.size]) if value}


def bury(owner: str) -> None:
    """Remove a dead worker's file, once its leases are released."""
    with contextlib.suppress(OSError):
        _file_of(owner).unlink()


def owners() -> list[str]:
    """The names of all workers that have a file, live or dead."""
    try:
        return sorted(path.stem.replace("~", ":") for path in folder().glob(f"*{_SUFFIX}"))
    except OSError:
        return []


def live_workers() -> list[str]:
    """The names of the workers that are running now."""
    return [owner for owner in owners() if not is_dead(owner)]


def _file_of(owner: str) -> Path:
    return folder() / (owner.replace(":", "~").replace("/", "_") + _SUFFIX)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
