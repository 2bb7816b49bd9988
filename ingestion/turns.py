"""One crawl of a source at a time: a lock on the data folder, and a Crawl row that other hosts can see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from ingestion.errors import CrawlBusy
from ingestion.models import Crawl
from search.models import Source

BEAT_SECONDS = 2
_SILENT = timedelta(minutes=2)
"""After this long without a beat a crawl on another host is taken for dead."""


@contextlib.contextmanager
def turn(source: Source, wait_seconds: float = 0) -> Iterator[Crawl]:
    """Hold this source's turn; yields the new Crawl row, which is finished or failed when the block ends.

    Raises CrawlBusy, naming who is crawling, when that one is not done after `wait_seconds`.
    """
    folder = Path(settings.IMAGESEARCH_DATA) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    me = f"{socket.gethostname()[:60]}:{os.getpid()}"
    handle = os.open(folder / f"crawl-{source.pk}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _locked(handle):
            if time.monotonic() >= deadline:
                owner = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
                raise CrawlBusy(_busy(source, owner))
            time.sleep(0.2)
        os.ftruncate(handle, 0)
        os.pwrite(handle, me.encode(), 0)
        crawl = _begin(source, me)
        try:
            yield crawl
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            end(crawl, Crawl.State.FAILED, "It was stopped before its end." if stopped else str(error)[:2000])
            raise
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def beat(crawl: Crawl, counts: dict[str, int]) -> None:
    """Say that the crawl lives, and how far it is."""
    Crawl.objects.filter(pk=crawl.pk).update(beat_at=timezone.now(), counts=counts)


def end(crawl: Crawl, state: Crawl.State, message: str, counts: dict[str, int] | None = None) -> None:
    now = timezone.now()
    crawl.state, crawl.message, crawl.finished_at, crawl.beat_at = state, message.replace("\0", " "), now, now
    if counts is not None:
        crawl.counts = counts
    crawl.save(update_fields=["state", "message", "finished_at", "beat_at", "counts"])


def _begin(source: Source, me: str) -> Crawl:
    host = me.partition(":")[0]
    now = timezone.now()
    with transaction.atomic():
        Source.objects.select_for_update(no_key=True).get(pk=source.pk)
        running = Crawl.objects.filter(source=source, state=Crawl.State.RUNNING)
        for other in running:
            # This host's crawls hold the lock while they live, so what is left of them here is dead.
            if other.owner.partition(":")[0] != host and other.beat_at and other.beat_at > now - _SILENT:
                raise CrawlBusy(_busy(source, other.owner))
        running.update(state=Crawl.State.FAILED, message="It was stopped before its end.", finished_at=now)
        return Crawl.objects.create(source=source, owner=me, beat_at=now)


def _busy(source: Source, owner: str) -> str:
    return f"The source {source.name} is being crawled by {owner} just now; wait until that has finished."
