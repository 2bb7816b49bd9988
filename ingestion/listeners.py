"""Who hears of changes in a source's folder: the kernel itself on Linux, the library watchfiles elsewhere.

Both fill a `Pending` from a thread of their own. Neither touches the database or decides anything: what is
heard only says where to look.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Protocol

from ingestion import inotify
from ingestion.crawler import readable
from ingestion.errors import IngestionError
from ingestion.excludes import Rules
from ingestion.pending import Pending
from search.wording import counted

log = logging.getLogger(__name__)

_ENDED = "listening to it ended; the log of the watcher says why"
_SYSTEM = "raise fs.inotify.max_user_watches to have it watched"


class NotWatched(IngestionError):
    """This folder cannot be watched; the message is the end of a sentence after "because"."""


class Budget:
    """How many folders may be watched in all; None: no limit."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self._used = 0
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            if self.most is not None and self._used >= self.most:
                return False
            self._used += 1
            return True

    def give(self, count: int = 1) -> None:
        with self._lock:
            self._used -= count


class Listener(Protocol):
    lost: str
    """Why it hears nothing any more, as in NotWatched; "" while it does."""

    @property
    def folders(self) -> int:
        """How many folders it watches; 0 where it cannot say."""

    def close(self) -> None: ...


def listen(
    root: bytes, rules: Rules, own: frozenset[tuple[int, int]], pending: Pending, budget: Budget
) -> Listener:  # fmt: skip
    """Start to listen; whatever changes from now on reaches `pending`. Raises NotWatched."""
    if inotify.available():
        return KernelListener(root, rules, own, pending, budget)
    return LibraryListener(root, rules, own, pending)


class KernelListener:
    """Every folder beneath the root that a crawl would walk is watched; links are not followed."""

    def __init__(
        self, root: bytes, rules: Rules, own: frozenset[tuple[int, int]], pending: Pending, budget: Budget
    ) -> None:
        self.lost = ""
        self._root, self._rules, self._own, self._pending, self._budget = root, rules, own, pending, budget
        self._paths: dict[int, bytes] = {}
        self._watches: dict[bytes, int] = {}
        self._leaving: tuple[int, bytes] | None = None
        """Cookie and path of what was moved away last: the place it came to follows at once, or it left the source."""
        try:
            self._queue = inotify.Inotify()
        except OSError as error:
            raise NotWatched(f"the system has no room for another watcher ({error.strerror})") from None
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC)
        self._ready = select.poll()
        self._ready.register(self._queue.fd, select.POLLIN)
        self._ready.register(self._woken, select.POLLIN)
        try:
            self._watch(b"")
            if not self._watches:
                raise NotWatched("its folder cannot be read")
        except BaseException:
            self._end()
            raise
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()

    @property
    def folders(self) -> int:
        return len(self._watches)

    def close(self) -> None:
        os.write(self._wake, b".")
        self._thread.join()
        self._end()

    def _end(self) -> None:
        self._queue.close()
        os.close(self._woken)
        os.close(self._wake)
        self._budget.give(len(self._watches))
        self._watches, self._paths = {}, {}

    def _listen(self) -> None:
        try:
            while not self.lost:
                if any(handle == self._woken for handle, _ in self._ready.poll()):
                    return
                for event in self._queue.read():
                    self._hear(event)
                    if event.mask & inotify.OVERFLOW:
                        break  # what follows is of watches that are no more
        except NotWatched as refused:
            self.lost = str(refused)
        except Exception:
            log.exception("Listening to %s ended.", readable(self._root))
            self.lost = _ENDED

    def _begin_anew(self) -> None:
        """The queue ran over: which folders came and went is not known any more, nor what changed in them."""
        ready, old = self._ready, self._queue
        ready.unregister(old.fd)
        old.close()
        self._budget.give(len(self._watches))
        self._watches, self._paths, self._leaving = {}, {}, None
        self._queue = inotify.Inotify()
        ready.register(self._queue.fd, select.POLLIN)
        self._watch(b"")
        self._pending.everything("more changed at once than the system could tell")

    # --- events

    def _hear(self, event: inotify.Event) -> None:
        mask = event.mask
        if mask & inotify.OVERFLOW:
            self._begin_anew()
            return
        folder = self._paths.get(event.watch)
        if mask & inotify.IGNORED:
            self._forget(event.watch)
        if folder is None or mask & (inotify.IGNORED | inotify.UNMOUNT):
            return  # of disks that go and come the keeper learns from the list of mounts
        if not event.name:
            if not folder and mask & (inotify.DELETE_SELF | inotify.MOVE_SELF):
                self.lost = "its folder went away"
            return
        path = folder + b"/" + event.name if folder else event.name
        if mask & inotify.FOLDER:
            self._hear_of_folder(mask, event.cookie, path)
        else:
            self._hear_of_file(mask, event.cookie, folder, event.name, path)

    def _hear_of_folder(self, mask: int, cookie: int, path: bytes) -> None:
        if mask & inotify.MOVED_FROM:
            self._unwatch(path)
            self._pending.folder(path, deep=True)
            self._leaving = (cookie, path)
        elif mask & inotify.DELETE:
            self._pending.folder(path)
        elif mask & (inotify.CREATE | inotify.MOVED_TO) or path not in self._watches:
            if mask & inotify.MOVED_TO:
                self._arrive(cookie, path)
            self._watch(path)
            self._pending.folder(path, deep=True)

    def _hear_of_file(self, mask: int, cookie: int, folder: bytes, name: bytes, path: bytes) -> None:
        left_out = self._rules.file_test(folder)
        if left_out and left_out(name):
            return
        if mask & inotify.MODIFY:
            self._pending.file(path, writing=True)
        elif mask & inotify.CREATE:
            self._pending.file(path, begun=True)
        elif mask & inotify.ATTRIB:
            self._pending.file(path)
        else:
            self._pending.file(path, said=True)
            if mask & inotify.MOVED_FROM:
                self._leaving = (cookie, path)
            elif mask & inotify.MOVED_TO:
                self._arrive(cookie, path)

    def _arrive(self, cookie: int, path: bytes) -> None:
        if self._leaving and self._leaving[0] == cookie:
            self._pending.rename(self._leaving[1], path)
            self._leaving = None

    # --- watches

    def _watch(self, top: bytes) -> None:
        """Watch a folder and all beneath it. Watched first and listed then: what comes between is heard."""
        stack = [top]
        while stack:
            path = stack.pop()
            absolute = os.path.join(self._root, path) if path else self._root
            if path and self._left_out(path, absolute):
                continue
            if not self._add(path, absolute):
                continue
            try:
                with os.scandir(absolute) as entries:
                    for entry in entries:
                        with contextlib.suppress(OSError):
                            if entry.is_dir(follow_symlinks=False):
                                stack.append(path + b"/" + entry.name if path else entry.name)
            except OSError:
                continue  # gone again, or closed to us: the crawl says so

    def _left_out(self, path: bytes, absolute: bytes) -> bool:
        above, name = os.path.split(path)
        left_out = self._rules.folder_test(above)
        if left_out and left_out(name + b"/"):
            return True
        try:
            found = os.lstat(absolute)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) in self._own

    def _add(self, path: bytes, absolute: bytes) -> bool:
        if path in self._watches:
            self._drop(path)
        if not self._budget.take():
            raise NotWatched(
                f"it has more folders than may be watched ({counted(self._budget.most or 0, 'folder')} in all): "
                f"{_SYSTEM}, or IMAGESEARCH_WATCH_FOLDERS"
            )
        try:
            watch = self._queue.add(absolute)
        except OSError as error:
            self._budget.give()
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                raise NotWatched(f"the system lets no more folders be watched: {_SYSTEM}") from None
            return False
        if before := self._paths.get(watch):
            # The same folder under another path: the old one is not there any more.
            self._watches.pop(before, None)
            self._budget.give()
        self._paths[watch], self._watches[path] = path, watch
        return True

    def _unwatch(self, top: bytes) -> None:
        """End the watches at and beneath this path."""
        prefix = top + b"/"
        for path in [path for path in self._watches if path == top or path.startswith(prefix)]:
            self._drop(path)

    def _drop(self, path: bytes) -> None:
        watch = self._watches[path]
        self._queue.remove(watch)
        self._forget(watch)

    def _forget(self, watch: int) -> None:
        path = self._paths.pop(watch, None)
        if path is not None and self._watches.get(path) == watch:
            del self._watches[path]
            self._budget.give()


class LibraryListener:
    """Through watchfiles, where the system's interface is another (macOS). Its kinds of change are not relied upon."""

    folders = 0

    def __init__(self, root: bytes, rules: Rules, own: frozenset[tuple[int, int]], pending: Pending) -> None:
        from watchfiles._rust_notify import RustNotify

        self.lost = ""
        self._root, self._rules, self._own, self._pending = root, rules, own, pending
        self._stopped = threading.Event()
        try:
            self._notify = RustNotify([os.fsdecode(root)], False, False, 0, True, True)
        except (OSError, RuntimeError, UnicodeError) as error:
            log.warning("%s cannot be watched: %s", readable(root), error)
            raise NotWatched("the system refused to have it watched; the log of the watcher says why") from None
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._notify.close()

    def _listen(self) -> None:
        try:
            while not self._stopped.is_set():
                changes = self._notify.watch(200, 50, 0, self._stopped)
                if isinstance(changes, set):
                    for kind, path in changes:
                        self._hear(kind, os.fsencode(path))
        except Exception:
            log.exception("Listening to %s ended.", readable(self._root))  # as names that are no text end it
            self.lost = _ENDED

    def _hear(self, kind: int, absolute: bytes) -> None:
        inside = self._root.rstrip(b"/") + b"/"
        if absolute == self._root:
            self._pending.folder(b"")
        if not absolute.startswith(inside):
            return
        path = absolute[len(inside) :]
        above, name = os.path.split(path)
        if self._rules.pruned_at(above) or self._is_own(above):
            return
        if os.path.isdir(absolute) and not os.path.islink(absolute):
            self._pending.folder(path, deep=kind != 2)  # a folder that is new, or has this name now
            return
        left_out = self._rules.file_test(above)
        if not (left_out and left_out(name)):
            self._pending.file(path, begun=True)
        if not os.path.lexists(absolute):
            self._pending.folder(path, deep=True)  # it may have been a folder

    def _is_own(self, path: bytes) -> bool:
        while path:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(self._root, path))
                if (found.st_dev, found.st_ino) in self._own:
                    return True
            path = os.path.dirname(path)
        return False


Listen = Callable[[bytes, Rules, frozenset[tuple[int, int]], Pending, Budget], Listener]
