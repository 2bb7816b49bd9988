"""Files that the catalogue does not know: registered as they are met, or recognised as images that moved."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ingestion import known, rows
from ingestion.crawlreport import CrawlReport
from ingestion.guard import Untold
from ingestion.inspection import Finding, Readers, What, inspect, sha256_of
from ingestion.known import chunks
from ingestion.moves import Absent, Arrived, pair
from ingestion.movies import is_film
from ingestion.spool import Newcomer, Spool
from ingestion.stacking import Touched
from search.models import Image, Source

ROWS = 500
"""Rows written in one transaction."""
_SIZES = 100

Seen = tuple[Newcomer, Finding]

Renamed = Callable[[bytes], bytes | None]
"""Where a path (relative) was before, when the file system itself said that it was renamed; else None."""


class Arrivals:
    """The new files of one crawl. `mark`: images with ids up to it were known before the crawl, and those with ids up
    to `trusted` before any doubt (see `Source.doubted_after`)."""

    def __init__(
        self,
        source: Source,
        report: CrawlReport,
        spool: Spool,
        readers: Readers,
        untold: Untold,
        *,
        mark: int,
        trusted: int,
        whole: bool,
        tell: Callable[[], None],
        touched: Touched,
        renamed: Renamed | None = None,
    ) -> None:
        self.touched, self.renamed = touched, renamed
        self.source, self.report, self.spool, self.readers, self.untold = source, report, spool, readers, untold
        self.root, self.mark, self.whole, self.tell = bytes(source.root), mark, whole, tell
        self.trusted = trusted

    def admit(self, files: Sequence[Newcomer]) -> None:
        """Register what cannot be a moved file; the rest waits on disk for `place()`."""
        for chunk in chunks(files, ROWS):
            sizes: set[int] = set()
            if self.mark:
                sizes = known.sizes_known(self.source.pk, (file.size for file in chunk), up_to=self.mark)
                self.spool.add_newcomers(file for file in chunk if file.size in sizes)
            self._register([file for file in chunk if file.size not in sizes])
            self.tell()

    def place(self) -> int:
        """Once all absent images are in the spool: pair those with files of their size, register the others.

        Returns how many of the images up to `trusted` were found to have moved.
        """
        for chunk in self.spool.newcomers():
            self._find_moved_meanwhile(chunk)
        for chunk in self.spool.newcomers_of_no_absent_size():
            self._register(chunk)
            self.tell()
        return sum(self._pair(sizes) for sizes in chunks(self.spool.shared_sizes(), _SIZES))

    def _find_moved_meanwhile(self, files: Sequence[Newcomer]) -> None:
        """Images that the walk met, or that lie beyond the part it walked, and whose file is there no more."""
        like = Image.objects.filter(source=self.source, pk__lte=self.mark, size__in={file.size for file in files})
        asked = [like.exclude(state=Image.State.MISSING).filter(mtime_ns__in={file.mtime_ns for file in files})]
        if not self.whole:
            asked.append(like.filter(state=Image.State.MISSING))
        for images in asked:
            self.spool.add_absent(
                (i, size, False)
                for i, path, size in images.values_list("pk", "path", "size").iterator()
                if not self.untold.covers(path) and not os.path.lexists(self._absolute(path))
            )

    def _pair(self, sizes: Sequence[int]) -> int:
        candidates, seen = self._sort(self.spool.newcomers_of(sizes))
        absent = [
            Absent(*values)
            for ids in chunks(self.spool.absent_of(sizes), ROWS)
            for values in Image.objects.filter(pk__in=ids).values_list("pk", "path", "size", "mtime_ns", "sha256")
        ]
        told, absent, candidates = self._told(absent, candidates)
        arrived: list[Arrived] = []
        for chunk in chunks(candidates, ROWS):
            for file, digest in zip(chunk, self.readers.map(self._hash, chunk), strict=True):
                if digest is None:
                    self.report.vanished += 1
                else:
                    arrived.append(Arrived(file, digest))
            self.tell()
        pairs = told + pair(absent, arrived)
        for some in chunks(pairs, ROWS):
            rows.move(self.source, some)
            self.touched.by_path(path for image, found in some for path in (image.path, found.file.path))
            self.report.moved += len(some)
        self.spool.found_after_all(image.id for image, _ in pairs)
        placed = {found.file.path for _, found in pairs}
        self._write([found.file for found in arrived if found.file.path not in placed], seen)
        return sum(image.id <= self.trusted for image, _ in pairs)

    def _told(
        self, absent: list[Absent], files: list[Newcomer]
    ) -> tuple[list[tuple[Absent, Arrived]], list[Absent], list[Newcomer]]:
        """Pairs that the file system named itself, of the same size and mtime; and what is left of both."""
        if self.renamed is None:
            return [], absent, files
        by_path = {bytes(one.path): one for one in absent}
        pairs: list[tuple[Absent, Arrived]] = []
        left: list[Newcomer] = []
        for file in files:
            before = self.renamed(file.path)
            image = by_path.get(before) if before is not None else None
            if image is not None and (image.size, image.mtime_ns) == (file.size, file.mtime_ns):
                pairs.append((by_path.pop(bytes(image.path)), Arrived(file, image.sha256 or b"")))
            else:
                left.append(file)
        paired = {image.id for image, _ in pairs}
        return pairs, [one for one in absent if one.id not in paired], left

    def _register(self, files: Sequence[Newcomer]) -> None:
        self._write(*self._sort(files))

    def _sort(self, files: Sequence[Newcomer]) -> tuple[list[Newcomer], list[Seen]]:
        """Look into these files: candidates, and what is to be remembered as none."""
        candidates: list[Newcomer] = []
        seen: list[Seen] = []
        report = self.report
        for chunk in chunks(files, ROWS):
            answers = self.readers.map(inspect, [self._absolute(file.path) for file in chunk])
            for file, finding in zip(chunk, answers, strict=True):
                if finding.what is What.CANDIDATE:
                    candidates.append(file)
                elif finding.what is What.VANISHED:
                    report.vanished += 1
                elif finding.what is What.TOO_SMALL:
                    report.too_small += 1
                    seen.append((file, finding))
                elif finding.what is What.CLOSED:
                    report.unsupported += 1
                    report.trouble([finding.error])
                else:
                    report.unsupported += 1
                    seen.append((file, finding))
        return candidates, seen

    def _write(self, candidates: Sequence[Newcomer], seen: Sequence[Seen]) -> None:
        for chunk in chunks(candidates, ROWS):
            ids = rows.register(self.source, chunk, ())
            self.touched.by_path(file.path for file in chunk)
            self.report.queued.add(ids)
            self.report.registered += len(ids)
        for some in chunks(seen, ROWS):
            rows.register(self.source, (), some)
            self.touched.by_path(file.path for file, _ in some if is_film(file.path))

    def _hash(self, file: Newcomer) -> bytes | None:
        return sha256_of(self._absolute(file.path), size=file.size, mtime_ns=file.mtime_ns)

    def _absolute(self, path: bytes) -> bytes:
        return os.path.join(self.root, path)
