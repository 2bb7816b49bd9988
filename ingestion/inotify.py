"""Linux's inotify, as the kernel offers it: folders watched by number, events as they come.

Used directly because the library that watches elsewhere keeps three things to itself that must not be lost here:
that the queue of events ran over, names that are no valid text, and which files are still open for writing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from typing import NamedTuple

MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF = 0x400, 0x800
UNMOUNT, OVERFLOW, IGNORED, FOLDER = 0x2000, 0x4000, 0x8000, 0x40000000
_ONLY_FOLDERS, _NO_LINKS, _NOT_UNLINKED = 0x1000000, 0x2000000, 0x4000000
_WANTED = (
    MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
    | _ONLY_FOLDERS | _NO_LINKS | _NOT_UNLINKED
)  # fmt: skip
_HEAD = struct.Struct("iIII")
_BUFFER = 1 << 18


class Event(NamedTuple):
    """One event: of which watch, what, which two belong together, the name in the folder (b"": the folder itself)."""

    watch: int
    mask: int
    cookie: int
    name: bytes


class Inotify:
    """One queue of events. Raises OSError: EMFILE when the system has no more queues, ENOSPC no more watches."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._call(self._libc.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)

    def add(self, path: bytes) -> int:
        """Watch a folder; returns the number of the watch (the same one for the same folder)."""
        return self._call(self._libc.inotify_add_watch, self.fd, ctypes.c_char_p(path), ctypes.c_uint32(_WANTED))

    def remove(self, watch: int) -> None:
        """End a watch; one that ended already is no matter."""
        with contextlib.suppress(OSError):
            self._call(self._libc.inotify_rm_watch, self.fd, watch)

    def read(self) -> list[Event]:
        """The events that are here; none when there are none."""
        try:
            data = os.read(self.fd, _BUFFER)
        except BlockingIOError:
            return []
        events, at = [], 0
        while at < len(data):
            watch, mask, cookie, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size + length
            events.append(Event(watch, mask, cookie, data[at - length : at].rstrip(b"\0")))
        return events

    def close(self) -> None:
        os.close(self.fd)

    @staticmethod
    def _call(function: ctypes._CFuncPtr, *arguments: object) -> int:  # type: ignore[name-defined]
        while True:
            result: int = function(*arguments)
            if result >= 0:
                return result
            number = ctypes.get_errno()
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number))


def available() -> bool:
    return sys.platform == "linux"
