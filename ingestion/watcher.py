"""The watcher: one keeper for each source, which hears of changes and has the folders that changed crawled.

It never registers anything itself: everything goes through `register.crawl`. Where changes are not announced the
source is looked through by time (`tasks.crawl_due`), and the reason is kept for the pages (`watchstate.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from ingestion import disks, excludes, pausing
from ingestion.crawlreport import CrawlReport
from ingestion.errors import CrawlBusy, IngestionError, SourceGone
from ingestion.listeners import Budget, Listen, Listener, NotWatched, listen
from ingestion.models import Crawl, Watch
from ingestion.parts import FRESH_SECONDS
from ingestion.pending import Batch, Pending
from ingestion.register import crawl
from ingestion.roots import own_folders
from search.errors import SearchError
from search.models import Source
from search.wording import counted

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
LOOK_SECONDS = 2.0
"""How often the root, the mounts, the sources and the pauses are looked at."""
BEAT_SECONDS = 20.0
AGAIN_SECONDS = 600.0
"""After what a refusal (too many folders) is tried again."""
GRACE = timedelta(seconds=60)
"""A source that was just made is first crawled by whoever made it."""
_STARTED = "what happened while nobody watched"


class AlreadyWatching(IngestionError):
    """Another watcher runs on this data folder."""


class _Stopped(IngestionError):
    pass


@dataclass(frozen=True)
class State:
    """How a source is kept up to date; `why` is the end of a sentence after "because", "" when it is watched."""

    watched: bool
    why: str
    folders: int


class Keeper(threading.Thread):
    """Keeps one source up to date until it is stopped."""

    def __init__(self, source: Source, budget: Budget, *, listen: Listen = listen) -> None:
        super().__init__(name=f"keeper-{source.pk}", daemon=True)
        self.source, self.resting = source, False
        """The row as the watcher saw it last, and whether the work rests."""
        self.pending = Pending()
        self._budget, self._listen = budget, listen
        self._listener: Listener | None = None
        self._why = "its watch is only beginning"
        self._identity: object = None
        self._since = timezone.now()
        self._again: dict[bytes, float] = {}
        self._look_at = self._try_at = self._crawl_at = 0.0
        self._pause = 1.0
        self._asked: datetime | None = None
        """When the whole source was last looked through, or tried to be."""
        self._ending = threading.Event()
        self._busy = False

    @property
    def idle(self) -> bool:
        """Whether it listens, and all that it heard has been looked at."""
        return not self._busy and self._listener is not None and not self.pending and not self._again

    @property
    def state(self) -> State:
        listener = self._listener
        if listener is None or listener.lost:
            return State(False, listener.lost if listener else self._why, 0)
        return State(True, "", listener.folders)

    def stop(self) -> None:
        self._ending.set()

    def run(self) -> None:
        try:
            while not self._ending.wait(TICK_SECONDS):
                self._turn()
        except Exception:
            log.exception("The watch of %s failed; it begins again in a minute.", self.source.name)
            self._why = "its watch failed; the log of the watcher says how"
        finally:
            self._leave("" if self._ending.is_set() else self._why)
            connection.close()

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._look(now)
        self._busy = True
        for folder in [folder for folder, at in self._again.items() if now >= at]:
            del self._again[folder]
            self.pending.folder(folder)
        may = self._listener is not None and not self.resting and now >= self._crawl_at and not self._is_new()
        batch = self.pending.take() if may else None
        if batch is not None:
            self._crawl(batch)
        self._busy = False

    def _is_new(self) -> bool:
        return self.source.crawled_at is None and timezone.now() - self.source.created_at < GRACE

    # --- listening

    def _look(self, now: float) -> None:
        """Whether the folder is still the one that is watched, and whether it is time for a look through all of it."""
        root = bytes(self.source.root)
        try:
            found = os.stat(root)
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError
        except OSError:
            self._leave("its folder is not there just now; it is watched again soon after it came back")
            self._try_at = now
            return
        mounts = disks.of(root, disks.mounted())
        identity = (found.st_dev, found.st_ino, mounts)
        listener = self._listener
        if listener is not None and (listener.lost or identity != self._identity):
            # A disk came or went, or the system has no more room: begin anew, or later.
            self._try_at = now + AGAIN_SECONDS if listener.lost and identity == self._identity else now
            self._leave(listener.lost or "a disk in it came or went")
        if self._listener is None and now >= self._try_at:
            self._begin(root, mounts, identity, now)
        if self._listener is not None and self._is_due():
            self._asked = timezone.now()
            self.pending.everything("it is time for a look at everything")

    def _begin(self, root: bytes, mounts: list[disks.Disk], identity: object, now: float) -> None:
        self._try_at = now + AGAIN_SECONDS
        try:
            if self.source.follow_symlinks:
                raise NotWatched("it follows links, and changes where they lead to are not announced")
            if settings.IMAGESEARCH_WATCH_FOLDERS == 0:
                raise NotWatched("IMAGESEARCH_WATCH_FOLDERS is 0")
            if objection := disks.objection(root, [*mounts]):
                raise NotWatched(objection)
            globs = [*map(excludes.literal, settings.IMAGESEARCH_EXCLUDES), *excludes.lines(self.source.excludes)]
            self._since = self._asked = timezone.now()
            self._listener = self._listen(root, excludes.Rules(globs), own_folders(), self.pending, self._budget)
        except (NotWatched, excludes.BadPattern) as refused:
            self._leave(str(refused).rstrip("."))
            return
        self._identity = identity
        self.pending.everything(_STARTED)
        log.info("%s is watched.", self.source.name)

    def _leave(self, why: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        if why and why != self._why:
            log.info("%s is not watched, because %s.", self.source.name, why)
        self._why = why

    def _is_due(self) -> bool:
        """Now and then also a watched source is looked through as a whole: the net beneath the wire."""
        last = max(filter(None, (self.source.crawled_at, self._asked)), default=None)
        return last is not None and timezone.now() - last >= timedelta(minutes=self.source.recrawl_minutes)

    # --- crawling

    def _crawl(self, batch: Batch) -> None:
        now = time.monotonic()
        try:
            source = Source.objects.get(pk=self.source.pk)
            if batch.whole == _STARTED and self._was_crawled():
                return
            report = crawl(
                source, parts=batch.parts, hold=batch.hold, renamed=batch.before if batch.renamed else None,
                progress=self._go_on,
            )  # fmt: skip
        except (_Stopped, Source.DoesNotExist):
            return
        except CrawlBusy:
            self.pending.give_back(batch)
            self._crawl_at = now + 1
        except SourceGone:
            self.pending.give_back(batch)
            self._look_at = 0
        except (SearchError, DatabaseError, OSError) as error:
            log.warning("%s could not be crawled, tried again in %.0f s: %s", self.source.name, self._pause, error)
            self.pending.give_back(batch)
            self._crawl_at = now + self._pause
            self._pause = min(60.0, self._pause * 2)
        else:
            self._pause = 1.0
            self._again.update(dict.fromkeys(report.held, time.monotonic() + FRESH_SECONDS))
            log.info(
                "%s, %s: looked at%s.", source.name, batch.whole or counted(len(batch.parts), "folder"), _found(report)
            )
        finally:
            connection.close()

    def _was_crawled(self) -> bool:
        """Whether somebody began a look through the whole source after the watch stood, and finished it."""
        crawls = Crawl.objects.filter(source=self.source.pk, parts="", started_at__gte=self._since)
        return crawls.filter(state=Crawl.State.FINISHED).exists()

    def _go_on(self, report: CrawlReport) -> None:
        if self._ending.is_set():
            raise _Stopped("The watcher was stopped before the end.")


def _found(report: CrawlReport) -> str:
    counts = {"new or changed": report.registered, "moved": report.moved, "missing": report.missing}
    said = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)
    return f": {said}" if said else ""


class Watcher:
    """All sources' keepers, and what the pages are told of them."""

    def __init__(self, *, budget: Budget | None = None, listen: Listen = listen) -> None:
        self._budget = budget or Budget(most_folders())
        self._listen = listen
        self.keepers: dict[int, Keeper] = {}
        self._keys: dict[int, tuple[object, ...]] = {}
        self._failed: dict[int, float] = {}
        self._told: dict[int, State] = {}
        self._beaten = 0.0
        self._ending = threading.Event()
        self.owner = f"{socket.gethostname()[:60]}:{os.getpid()}"

    def stop(self, *_: object) -> None:
        self._ending.set()

    def run(self) -> None:
        """Until `stop`."""
        try:
            while not self._ending.is_set():
                try:
                    self.look()
                except DatabaseError as error:
                    log.warning("The database does not answer, tried again in a moment: %s", error)
                finally:
                    connection.close()
                self._ending.wait(LOOK_SECONDS)
        finally:
            self.close()

    def look(self) -> None:
        """Follow the table of sources: begin, end and renew watches, and write down how each source is kept."""
        sources = {source.pk: source for source in Source.objects.filter(recrawl_minutes__gt=0)}
        resting = pausing.rest() is not None
        for pk in [pk for pk in self.keepers if pk not in sources or _key(sources[pk]) != self._keys[pk]]:
            self._end(self.keepers.pop(pk))
        for pk, source in sources.items():
            keeper = self.keepers.get(pk)
            if keeper is not None and not keeper.is_alive():
                if time.monotonic() < self._failed.setdefault(pk, time.monotonic() + 60):
                    continue
                keeper = None
            if keeper is None:
                self._failed.pop(pk, None)
                keeper = self.keepers[pk] = Keeper(source, self._budget, listen=self._listen)
                self._keys[pk] = _key(source)
                keeper.resting = resting
                keeper.start()
            keeper.source, keeper.resting = source, resting
        self._write()

    def close(self) -> None:
        for keeper in self.keepers.values():
            keeper.stop()
        for keeper in self.keepers.values():
            self._end(keeper)
        self.keepers = {}
        with contextlib.suppress(DatabaseError):
            Watch.objects.filter(owner=self.owner).delete()
        connection.close()

    def _end(self, keeper: Keeper) -> None:
        keeper.stop()
        keeper.join(timeout=6)

    def _write(self) -> None:
        states = {pk: keeper.state for pk, keeper in self.keepers.items()}
        due = time.monotonic() - self._beaten >= BEAT_SECONDS
        if not due and states == self._told:
            return
        now = timezone.now()
        rows = [
            Watch(source_id=pk, watched=one.watched, why=one.why, folders=one.folders, owner=self.owner, beat_at=now)
            for pk, one in sorted(states.items())
        ]
        Watch.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["source"],
            update_fields=["watched", "why", "folders", "owner", "beat_at"],
        )  # fmt: skip
        Watch.objects.exclude(source__in=states).delete()
        self._told, self._beaten = states, time.monotonic()


def most_folders() -> int | None:
    """How many folders may be watched: what the system lets, and no more than IMAGESEARCH_WATCH_FOLDERS."""
    limits = [settings.IMAGESEARCH_WATCH_FOLDERS, disks.watchable_folders()]
    return min((limit for limit in limits if limit is not None), default=None)


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Hold the right to watch on this data folder. Raises AlreadyWatching, naming who does."""
    path = Path(settings.IMAGESEARCH_DATA) / "locks" / "watch.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(handle, 40, 0).decode("ascii", "replace").strip()
            raise AlreadyWatching(
                f"A watcher runs on this data folder already (process {pid or 'unknown'}); `manage.py start` runs one."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _key(source: Source) -> tuple[object, ...]:
    return (bytes(source.root), source.excludes, source.follow_symlinks)
