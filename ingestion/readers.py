"""Reading bytes: each file once, bounded in memory, never waiting for ever on a disk that does not answer."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ingestion.inspection import clamp_mtime
from ingestion.pictures import Picture
from ingestion.sidecars import read_beside
from ingestion.tally import READ
from search.decoding import Limits
from search.errors import TooSlow, Unreadable

log = logging.getLogger(__name__)

MOST_STUCK = 8
"""So many reads may hang at once before the worker says that the disk is gone."""


class ChangedWhileRead(Exception):
    """Somebody was writing the file while it was read."""


class Vanished(Exception):
    """The file is not there any more."""


class DiskStuck(Exception):
    """Too many reads hang: the message says what to look at."""


def read_file(path: str, reserve: Callable[[int], None]) -> tuple[bytes, int, int]:
    """(bytes, size, mtime in ns) of a regular file that stood still while it was read.

    `reserve(size)` is called before the bytes are taken and may wait for room. Raises Vanished,
    ChangedWhileRead, Unreadable.
    """
    limit = Limits.from_settings().max_bytes
    try:
        # Not blocking: what was a file may be a FIFO by now.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise Vanished from None
    except OSError as error:
        raise Unreadable(f"The file cannot be opened: {error.strerror or error}.") from error
    try:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise Unreadable("This is not a regular file any more.")
        if before.st_size > limit:
            raise Unreadable(
                f"The file has {before.st_size / 1e6:,.0f} MB, more than any accepted picture needs; "
                f"{limit / 1e6:,.0f} MB are read at most (see IMAGESEARCH_MAX_MEGAPIXELS)."
            )
        reserve(before.st_size)
        with open(handle, "rb", buffering=0, closefd=False) as file:
            data = file.read(before.st_size + 1)
            while data and len(data) <= before.st_size and (more := file.read(before.st_size + 1 - len(data))):
                data += more
        after = os.fstat(handle)
    except OSError as error:
        raise Unreadable(f"The file cannot be read: {error.strerror or error}.") from error
    finally:
        os.close(handle)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != before.st_size:
        raise ChangedWhileRead
    return data, before.st_size, clamp_mtime(before.st_mtime_ns)


@dataclass
class _Ticket:
    """One thread's current read: when it went to the disk, and whether it was given up."""

    picture: Picture
    since: float | None
    given_up: bool = False
    reserved: int = 0


class Readers:
    """A few threads that read what `take` gives and hand it on; `watch()` gives up on reads that hang.

    `take()` answers the next picture (or None: stop), `give(picture)` gets it with its bytes,
    `failed(picture, error)` gets what could not be read. At most `max_bytes` of bytes are held at once
    (one larger file alone is let through); `free(picture)` returns its share.
    """

    def __init__(
        self,
        take: Callable[[], Picture | None],
        give: Callable[[Picture], None],
        failed: Callable[[Picture, Exception], None],
        *,
        threads: int,
        max_bytes: int,
        seconds: float,
    ) -> None:
        self._take, self._give, self._failed = take, give, failed
        self._seconds, self._max_bytes = seconds, max_bytes
        self._room = threading.Condition()
        self._held = 0
        self._stopped = False
        self._tickets: list[_Ticket] = []
        self._stuck = 0
        self._threads = [self._start() for _ in range(threads)]

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="reader", daemon=True)
        thread.start()
        return thread

    def free(self, size: int) -> None:
        """Bytes of a picture are no longer held."""
        with self._room:
            self._held -= size
            self._room.notify_all()

    def stop(self) -> None:
        """No further reads; threads that hang are left behind (they are daemons)."""
        with self._room:
            self._stopped = True
            self._room.notify_all()

    def watch(self) -> None:
        """Give up on every read that hangs for too long. Raises DiskStuck when too many do."""
        now = time.monotonic()
        late: list[_Ticket] = []
        with self._room:
            for ticket in self._tickets:
                if not ticket.given_up and ticket.since is not None and now - ticket.since > self._seconds:
                    ticket.given_up = True
                    late.append(ticket)
                    self._stuck += 1
        for ticket in late:
            log.warning("Reading %s hangs; it is given up.", ticket.picture.image.absolute_path_text)
            reason = f"Reading the file took longer than {self._seconds:g} seconds; is its disk there?"
            self._failed(ticket.picture, TooSlow(reason))
            self._threads.append(self._start())
        if self._stuck >= MOST_STUCK:
            raise DiskStuck(
                f"{self._stuck} files could not be read because their disk does not answer. "
                "Look whether it is connected, then start again; nothing is lost."
            )

    def _run(self) -> None:
        while not self._stopped and (picture := self._take()) is not None:
            if not picture.needs_file:
                self._give(picture)
                continue
            ticket = _Ticket(picture, time.monotonic())
            with self._room:
                self._tickets.append(ticket)
            error: Exception | None = None
            try:
                path = picture.image.absolute_path
                found = read_file(path, lambda size, ticket=ticket: self._reserve(ticket, size))  # type: ignore[misc]
                picture.sidecars = read_beside(os.fsencode(path)) if READ in picture.claimed.stages else []
            except (Vanished, ChangedWhileRead, Unreadable) as raised:
                error = raised
            except MemoryError:
                error = Unreadable("There is not enough memory to read the file.")
            with self._room:
                self._tickets.remove(ticket)
                if ticket.given_up:  # another thread took this one's place
                    self._stuck -= 1
                    self._held -= ticket.reserved
                    self._room.notify_all()
                    return
            if error is not None:
                self.free(ticket.reserved)
                self._failed(picture, error)
                continue
            picture.data, picture.size, picture.mtime_ns = found
            self._give(picture)

    def _reserve(self, ticket: _Ticket, size: int) -> None:
        """Wait until there is room for `size` more bytes; waiting is not the disk's fault."""
        with self._room:
            ticket.since = None
            while self._held and self._held + size > self._max_bytes and not self._stopped:
                self._room.wait()
            self._held += size
            ticket.reserved = size
            ticket.since = time.monotonic()
