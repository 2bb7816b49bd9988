"""Sources, and disks within them, that are not there just now: a disk that is not mounted makes no file missing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from ingestion.crawler import readable
from ingestion.guard import unpack_mounts
from ingestion.scope import Scope
from search.models import Image, Source

_SECONDS = 15.0
"""A look at a source's folder holds for so long."""


class Offline:
    """Which sources' folders, and disks mounted within them, are gone; their work waits until they are back.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._away: dict[int, str] = {}
        self._disks: dict[tuple[int, bytes], bytes] = {}
        """{(source, path of the mount within it): the source's root}"""
        self._seen: dict[int, float] = {}

    def scope(self, sources: tuple[int, ...] | None = None) -> Scope:
        """The work that can be done now, of these sources or of all."""
        with self._lock:
            return Scope(sources, tuple(sorted(self._away)), tuple(sorted(self._disks)))

    def sentences(self) -> list[str]:
        """One sentence for each source or disk that is away."""
        with self._lock:
            folders = [f"The folder {root} is not there; its files wait." for root in self._away.values()]
            disks = sorted(readable(os.path.join(root, path)) for (_, path), root in self._disks.items())
        return folders + [
            f"{disk} was a disk of its own and is not now; its files wait until it is there again. "
            "If that is how it should be, crawl with --accept-missing."
            for disk in disks
        ]

    def lies_away(self, image: Image) -> bool:
        """A file was not found: look whether that is because its source, or the disk within it, is not there."""
        source = image.source
        if not self.is_there(source):
            return True
        lost = [
            path
            for path in unpack_mounts(source.mounts)
            if image.path.startswith(path + b"/") and not _is_a_disk(source.root, path)
        ]
        with self._lock:
            self._disks.update(((source.pk, path), source.root) for path in lost)
        return bool(lost)

    def is_there(self, source: Source) -> bool:
        """Look now: the folder exists and is the one that was crawled."""
        there = _is_there(source)
        with self._lock:
            self._seen[source.pk] = time.monotonic()
            if there:
                self._away.pop(source.pk, None)
            else:
                self._away[source.pk] = source.root_text
        return there

    def sort_out(self, images: Sequence[Image]) -> set[int]:
        """Ids of the images' sources that are there; looks again at those not looked at for a while."""
        for source in {image.source_id: image.source for image in images}.values():
            if time.monotonic() - self._seen.get(source.pk, -_SECONDS) >= _SECONDS:
                self.is_there(source)
        with self._lock:
            return {image.source_id for image in images} - set(self._away)

    def look(self) -> None:
        """Look again at what was away."""
        now = time.monotonic()
        with self._lock:
            due = [pk for pk in self._away if now - self._seen.get(pk, 0.0) >= _SECONDS]
            disks = list(self._disks.items())
        for source in Source.objects.filter(pk__in=due) if due else []:
            self.is_there(source)
        back = [key for key, root in disks if _is_a_disk(root, key[1])]
        with self._lock:
            for key in back:
                self._disks.pop(key, None)


def _is_there(source: Source) -> bool:
    try:
        found = os.stat(source.root)
    except OSError:
        return False
    if source.root_inode is not None and source.root_device is not None:
        same = (found.st_dev, found.st_ino) == (source.root_device, int(source.root_inode))
        if not same:  # another disk, or the bare mount point: only an empty one speaks for an unmounted disk
            return bool(_any_entry(source.root))
    return True


def _is_a_disk(root: bytes, path: bytes) -> bool:
    """As the walk tells it: on another device than the folder it lies in."""
    folder = os.path.join(root, path)
    try:
        return os.stat(folder).st_dev != os.stat(os.path.dirname(folder)).st_dev
    except OSError:
        return False


def _any_entry(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
