"""A crawl: the walk against what the catalogue knows, folder by folder, with flat memory.

Files that are known and unchanged cost two lookups in a table and nothing else. New ones are registered as
they are met, except where their size is that of a known image: those may be moved files, and wait for the
end of the walk, when it is known which images' files are absent.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from django.conf import settings
from django.utils import timezone

from ingestion import excludes, guard, known, rows, turns
from ingestion.arrivals import ROWS, Arrivals, Renamed
from ingestion.crawler import Folder, readable, walk
from ingestion.crawlreport import CrawlReport
from ingestion.errors import CrawlError, SourceGone
from ingestion.inspection import Readers, clamp_mtime, sha256_of
from ingestion.known import ImageRow, chunks
from ingestion.models import Crawl
from ingestion.movies import is_film, match_films
from ingestion.parts import Hold, Part, Region, walk_parts
from ingestion.roots import gone_sentence, own_folders, source_for
from ingestion.sidecars import images_beside, is_sidecar
from ingestion.spool import Newcomer, Spool
from ingestion.stacking import Touched, restack
from search import highwater
from search.models import Image, Source, path_digest

__all__ = ["CrawlReport", "crawl", "source_for"]

Progress = Callable[[CrawlReport], None]

_FILES, _FOLDERS, _SECONDS = 2_000, 64, 1.0
"""A batch of folders is compared when it holds so many files or folders, or took so long to walk."""


def crawl(
    source: Source,
    *,
    subpath: bytes = b"",
    parts: Sequence[Part] = (),
    hold: Hold | None = None,
    renamed: Renamed | None = None,
    rehash: bool = False,
    accept_missing: bool = False,
    wait_seconds: float = 0,
    progress: Progress | None = None,
) -> CrawlReport:
    """Bring the catalogue up to date with the source's folder, or with the part at `subpath` (relative).

    `parts` are single folders instead, looked at in one crawl so that what moved between them is paired; they may
    be gone. `hold` leaves files for later that are still being written; their folders are in the report's `held`.
    `renamed` answers where a path was before, when the system said so: such files are not compared by content.
    `wait_seconds`: how long to wait for another crawl of the source. `rehash` also compares the contents of files
    whose size and mtime are unchanged, and looks anew at what was no candidate. `accept_missing` believes that
    everything not found is gone. `progress` is called a few times a second with the report so far. Raises
    SourceGone, CrawlBusy, CrawlError, UnsoundIds; whatever was registered before stays.
    """
    highwater.require_sound_ids()
    with turns.turn(source, wait_seconds) as row:
        run = _Run(
            source, row, subpath=subpath, parts=parts, hold=hold, renamed=renamed, rehash=rehash,
            accept_missing=accept_missing, progress=progress,
        )  # fmt: skip
        try:
            return run.go()
        finally:
            run.close()


class _Run:
    """One crawl under way."""

    def __init__(
        self,
        source: Source,
        row: Crawl,
        *,
        subpath: bytes,
        parts: Sequence[Part],
        hold: Hold | None,
        renamed: Renamed | None,
        rehash: bool,
        accept_missing: bool,
        progress: Progress | None,
    ) -> None:
        self.source, self.row, self.subpath = source, row, subpath
        self.region, self.hold = Region(parts or [Part(subpath, deep=True)]), hold
        self.single = bool(parts) and not self.region.whole
        self.rehash, self.accept_missing, self.progress = rehash, accept_missing, progress
        self.root = bytes(source.root)
        globs = [*map(excludes.literal, settings.IMAGESEARCH_EXCLUDES), *excludes.lines(source.excludes)]
        self.rules = excludes.Rules(globs)
        self.report = CrawlReport(source_id=source.pk, source=source.name, crawl_id=row.pk)
        self.spool, self.readers, self.untold = Spool(), Readers(), guard.Untold()
        self.mark = known.last_image_id(source.pk)
        """Images with ids up to this were known before this crawl."""
        self.seen_any = known.has_seen(source.pk)
        self.walked: set[bytes] = set()
        """Digests of the folders that were compared: 16 bytes each."""
        self.trusted = sys.maxsize if source.doubted_after is None else source.doubted_after
        """Images with ids up to this speak for the root being what it was (see `Source.doubted_after`)."""
        self.present = 0
        """Those of them that were found where they were."""
        self.mended = False
        """Stacks were made anew after a crawl that was cut off: the next one need not do so again."""
        self.held = 0
        """Files that are there and left for the next look."""
        self.mounts: set[bytes] = set()
        self.mounts_before = {
            path
            for path in guard.unpack_mounts(source.mounts)
            if self._in_scope(path) and not self.rules.pruned_at(path)
        }
        self.lost_mounts: set[bytes] = set()
        self.touched = Touched(source)
        """Folders in which files came or went: their stacks are looked at again."""
        self._told = self._beaten = time.monotonic()
        self.arrivals = Arrivals(
            source, self.report, self.spool, self.readers, self.untold,
            mark=self.mark, trusted=self.trusted, whole=self.region.whole, tell=self._tell, touched=self.touched,
            renamed=renamed,
        )  # fmt: skip

    def close(self) -> None:
        self.readers.close()
        self.spool.close()

    def go(self) -> CrawlReport:
        root = self._stand()
        if self.single:
            self.row.parts = self.region.text() or "everything that changed"
            self.row.save(update_fields=["parts"])
        if pruned := self.rules.pruned_at(self.subpath):
            raise CrawlError(
                f"{readable(self.subpath)} is left out: the excludes of {self.source.name} or of IMAGESEARCH_EXCLUDES "
                f"match {readable(pruned)}. Change the excludes to crawl it."
            )
        for batch in self._batches():
            self._compare(batch)
            self._tell()
        self._miss_unwalked()
        self.present += self.arrivals.place()
        self._conclude(same_root=self._is_same(root), root=root)
        return self.report

    # --- the walk

    def _stand(self) -> os.stat_result:
        try:
            root = os.stat(self.root)
        except OSError:
            raise SourceGone(gone_sentence(self.source)) from None
        if not stat.S_ISDIR(root.st_mode):
            raise SourceGone(
                f"{readable(self.root)} of the source {self.source.name} is a folder no more; nothing was changed."
            )
        return root

    def _batches(self) -> Iterator[list[Folder]]:
        batch: list[Folder] = []
        files, since = 0, time.monotonic()
        try:
            for folder in self._walk():
                if self.hold is not None and self.hold.sift(folder):
                    self.report.held.add(folder.path)
                batch.append(folder)
                files += len(folder.files)
                if files >= _FILES or len(batch) >= _FOLDERS or time.monotonic() - since > _SECONDS:
                    yield batch
                    batch, files, since = [], 0, time.monotonic()
        except OSError as error:
            where = os.path.join(self.root, self.subpath)
            raise CrawlError(
                f"The folder {readable(where)} cannot be read ({error.strerror}); nothing was changed."
            ) from None
        if batch:
            yield batch

    def _walk(self) -> Iterator[Folder]:
        links, own = self.source.follow_symlinks, own_folders()
        if not self.single:
            return walk(self.root, self.rules, start=self.subpath, follow_symlinks=links, own=own)
        return walk_parts(
            self.root, self.rules, self.region, follow_symlinks=links, own=own,
            mounts=guard.unpack_mounts(self.source.mounts), lose=self._lose_mount,
            leave=lambda path: self.untold.add([path]),
        )  # fmt: skip

    def _compare(self, batch: list[Folder]) -> None:
        """The files of these folders against the rows of these folders."""
        self._note(batch)
        directories = [path_digest(folder.path) for folder in batch]
        self.walked.update(directories)
        images = known.images_in(self.source.pk, directories) if self.mark else {}
        seen = {row[0]: row for row in known.seen_in(self.source.pk, directories)} if self.seen_any else {}
        new: list[Newcomer] = []
        changed: list[tuple[ImageRow, rows.Touched]] = []
        back: list[tuple[ImageRow, rows.Touched]] = []
        same: list[ImageRow] = []
        absent: list[ImageRow] = []
        unchanged = untrusted = 0
        trusted = self.trusted
        settled = None if self.rehash else "ready"
        for folder, directory in zip(batch, directories, strict=True):
            prefix = folder.path + b"/" if folder.path else b""
            mine = images.get(directory, {})
            for name, size, mtime_ns in folder.files:
                found = mine.pop(name, None)
                if found is None:
                    self._meet(Newcomer(prefix + name, size, clamp_mtime(mtime_ns)), seen, new)
                elif found[5] == settled and found[3] == size and found[4] == mtime_ns:
                    unchanged += 1
                    untrusted += found[2] > trusted
                else:
                    row = (prefix + name, *found[2:])
                    touched = (row[1], size, clamp_mtime(mtime_ns))
                    if row[4] == "missing":
                        back.append((row, touched))
                    elif row[2:4] == touched[1:]:
                        same.append(row)
                    else:
                        changed.append((row, touched))
            for name in (*folder.vanished, *folder.held):
                if (found := mine.pop(name, None)) and found[2] <= trusted:
                    self.present += 1
                seen.pop(prefix + name, None)
            absent.extend((prefix + name, *found[2:]) for name, found in mine.items())
        self.report.unchanged += unchanged
        self.present += unchanged - untrusted
        self._count_same(same, changed)
        self._mark_changed(changed)
        self._take_back(back)
        self._miss(absent)
        self.spool.add_gone(row[1] for row in seen.values() if not self.untold.covers(row[0]))
        self.arrivals.admit(new)
        self._note_sidecars(new)

    def _note_sidecars(self, new: list[Newcomer]) -> None:
        """Images that were known before this crawl are read again when a sidecar of theirs came or changed.

        Those that this crawl registers are read later than the sidecar was met.
        """
        paths = [file.path for file in new if is_sidecar(file.path)] if self.mark else []
        if paths:
            for ids in chunks(images_beside(self.source.pk, paths), ROWS):
                rows.read_again(ids)
                self._tell()

    def _note(self, batch: list[Folder]) -> None:
        for folder in batch:
            self.report.excluded += folder.excluded
            self.report.vanished += len(folder.vanished)
            self.held += len(folder.held)
            self.report.trouble(folder.errors)
            self.untold.add(folder.blocked)
            if folder.mount:
                self.mounts.add(folder.path)
            elif folder.path in self.mounts_before:
                self._lose_mount(folder.path)
        self.report.folder = readable(batch[-1].path)

    def _lose_mount(self, path: bytes) -> None:
        if not self.accept_missing:
            self.lost_mounts.add(path)
            self.untold.add([path])

    def _meet(self, file: Newcomer, seen: dict[bytes, known.SeenRow], new: list[Newcomer]) -> None:
        row = seen.pop(file.path, None)
        if row is None:
            new.append(file)
        elif self.rehash or row[2] != file.size or row[3] != file.mtime_ns:
            new.append(file._replace(seen_id=row[1]))
        elif row[4] == "too_small":
            self.report.too_small += 1
        else:
            self.report.unsupported += 1

    # --- known images

    def _count_same(self, same: list[ImageRow], changed: list[tuple[ImageRow, rows.Touched]]) -> None:
        """Rows with the size and mtime they had; `rehash` finds those whose contents differ all the same."""
        differing = self._differing(same) if self.rehash else frozenset()
        waiting: list[int] = []
        for row in same:
            if row[1] in differing:
                changed.append((row, (row[1], row[2], row[3])))
                continue
            if row[4] == "unreadable":
                self.report.unreadable += 1
            else:
                self.report.unchanged += 1
                if row[4] == "waiting":
                    waiting.append(row[1])
            self.present += self._speaks(row)
        self.report.pending.add(waiting)
        for chunk in chunks(waiting, ROWS):
            if known.without_work(chunk):
                rows.resume_forgotten(chunk)

    def _differing(self, same: list[ImageRow]) -> set[int]:
        found: set[int] = set()
        for chunk in chunks(same, ROWS):
            digests = Image.objects.filter(pk__in=[row[1] for row in chunk], sha256__isnull=False)
            read = dict(digests.values_list("pk", "sha256"))
            asked = [row for row in chunk if row[1] in read]
            for row, digest in zip(asked, self.readers.map(self._hash_row, asked), strict=True):
                if digest is not None and digest != read[row[1]]:
                    found.add(row[1])
            self._tell()
        return found

    def _hash_row(self, row: ImageRow) -> bytes | None:
        return sha256_of(self._absolute(row[0]), size=row[2], mtime_ns=row[3])

    def _mark_changed(self, changed: list[tuple[ImageRow, rows.Touched]]) -> None:
        for chunk in chunks(changed, ROWS):
            rows.mark_changed([touched for _, touched in chunk])
            self.report.queued.add(sorted(row[1] for row, _ in chunk))
            self.report.registered += len(chunk)
            self.present += sum(self._speaks(row) for row, _ in chunk)

    def _take_back(self, back: list[tuple[ImageRow, rows.Touched]]) -> None:
        """Missing images whose path holds a file again: ready at once when it is the one that was read."""
        for chunk in chunks(back, ROWS):
            ids = [row[1] for row, _ in chunk]
            read = dict(Image.objects.filter(pk__in=ids, sha256__isnull=False, reason="").values_list("pk", "sha256"))
            returned, changed = [], []
            for row, touched in chunk:
                unmoved = row[2:4] == touched[1:] and not self.rehash
                if row[1] in read and (unmoved or self._is_as_read(row, touched, read[row[1]])):
                    returned.append(touched)
                else:
                    changed.append((row, touched))
            self.touched.by_path(row[0] for row, _ in chunk)
            if returned:
                rows.mark_returned(returned)
                self.report.unchanged += len(returned)
                self.present += sum(touched[0] <= self.trusted for touched in returned)
            self._mark_changed(changed)

    def _speaks(self, row: ImageRow) -> bool:
        return row[4] != "removed" and row[1] <= self.trusted

    def _is_as_read(self, row: ImageRow, touched: rows.Touched, sha256: bytes | None) -> bool:
        return row[2] == touched[1] and sha256 == sha256_of(
            self._absolute(row[0]), size=touched[1], mtime_ns=touched[2]
        )  # fmt: skip

    # --- the end of the walk

    def _miss(self, absent: Iterable[ImageRow]) -> None:
        """Rows whose file the walk did not meet, unless nobody could have met it there."""
        self.spool.add_absent(
            (row[1], row[2], row[4] not in ("missing", "removed")) for row in absent if not self.untold.covers(row[0])
        )

    def _miss_unwalked(self) -> None:
        """Rows in folders that the walk did not come to."""
        for path in self.mounts_before - self.mounts - self.lost_mounts:
            if not self.untold.covers(path):
                self._lose_mount(path)
        for directories, rows_in, miss in (
            (known.image_directories, known.images_of, self._miss),
            (known.seen_directories, known.seen_in, self._miss_seen),
        ):
            unwalked = [one for one in self._known(directories) if one not in self.walked]
            for chunk in chunks(unwalked, _FOLDERS):
                miss(rows_in(self.source.pk, chunk))
                self._tell()

    def _known(self, directories: Callable[[int, bytes], list[bytes]]) -> Iterator[bytes]:
        for part in self.region:
            yield from directories(self.source.pk, part.path) if part.deep else [path_digest(part.path)]

    def _miss_seen(self, gone: Iterable[known.SeenRow]) -> None:
        self.spool.add_gone(row[1] for row in gone if not self.untold.covers(row[0]))

    def _conclude(self, *, same_root: bool, root: os.stat_result) -> None:
        report = self.report
        absent = self.spool.count_absent()
        place = readable(os.path.join(self.root, self.subpath).rstrip(b"/") or b"/")
        if self.single:
            verdict = self._judge_parts(absent, place, same_root=same_root)
        else:
            verdict = guard.judge(
                guard.Findings(
                    found=report.found + self.held, known=self.present + absent, absent=absent, same_root=same_root
                ),
                place=place,
                mass_change=settings.IMAGESEARCH_MASS_CHANGE,
            )
        if self.accept_missing:
            verdict = ""
        if not verdict:
            for ids in self.spool.absent():
                report.missing += rows.mark_missing(ids)
                self.touched.by_image(ids)
                self._tell()
            for ids in self.spool.gone():
                self.touched.by_path(path for path in rows.forget_seen(ids) if is_film(path))
        self._restack()
        lost = guard.lost_mounts_sentence(readable(os.path.join(self.root, path)) for path in self.lost_mounts)
        report.message = " ".join(filter(None, [verdict, lost]))
        report.guarded = bool(report.message)
        if not verdict:
            self._remember(root)
        elif self.source.doubted_after is None:
            Source.objects.filter(pk=self.source.pk, doubted_after=None).update(doubted_after=self.mark)
        state = Crawl.State.GUARDED if report.guarded else Crawl.State.FINISHED
        turns.end(self.row, state, report.message, report.stored())
        news = report.message or report.errors or report.registered or report.moved or report.missing
        if self.single and not news and not self.mended:
            self.row.delete()  # a look at folders in which nothing had happened is no news
        if self.progress:
            self.progress(report)

    def _judge_parts(self, absent: int, place: str, *, same_root: bool) -> str:
        if not absent:
            return ""
        with contextlib.suppress(OSError):
            same_root = same_root and self._is_same(os.stat(self.root))
        return guard.judge_parts(
            absent=absent, lately=known.lately_missing(self.source), known=known.present(self.source.pk),
            same_root=same_root, place=place, mass_change=settings.IMAGESEARCH_MASS_CHANGE,
        )  # fmt: skip

    def _restack(self) -> None:
        """What belongs together as one picture: in the whole source with `rehash`, or after one that was cut off."""
        if not settings.IMAGESEARCH_STACKS:
            return
        before = Crawl.objects.filter(source=self.source, pk__lt=self.row.pk).order_by("-pk").first()
        if self.rehash or (before is not None and before.state == Crawl.State.FAILED):
            self.touched.directories.update(known.image_directories(self.source.pk))
            self.mended = True
        for some in chunks(sorted(self.touched.directories), 1_000):
            restack(self.source, some)
            match_films(self.source, some)
            self._tell()

    def _remember(self, root: os.stat_result) -> None:
        """What a believed crawl saw: the root's identity, and which folders are disks of their own."""
        beyond = {path for path in guard.unpack_mounts(self.source.mounts) if not self._in_scope(path)}
        fields: dict[str, Any] = {"mounts": guard.pack_mounts(self.mounts | self.lost_mounts | beyond)}
        if self.region.whole:
            fields.update(
                root_device=root.st_dev, root_inode=root.st_ino, crawled_at=timezone.now(), doubted_after=None
            )
        Source.objects.filter(pk=self.source.pk).update(**fields)

    def _is_same(self, root: os.stat_result) -> bool:
        device, inode = self.source.root_device, self.source.root_inode
        return device is None or (device == root.st_dev and inode is not None and int(inode) == root.st_ino)

    def _in_scope(self, path: bytes) -> bool:
        return self.region.covers(path)

    def _absolute(self, path: bytes) -> bytes:
        return os.path.join(self.root, path)

    def _tell(self) -> None:
        now = time.monotonic()
        if self.progress and now - self._told > 0.2:
            self._told = now
            self.progress(self.report)
        if now - self._beaten > turns.BEAT_SECONDS:
            self._beaten = now
            turns.beat(self.row, self.report.stored())
