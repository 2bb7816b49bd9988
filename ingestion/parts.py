"""Which part of a source a crawl looks at: all of it, what lies beneath one folder, or single folders.

And which files it leaves for the next look, because they are still being written.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ingestion.crawler import Folder, readable, walk
from ingestion.excludes import Rules

FRESH_SECONDS = 1.5
"""A file that was written so shortly ago may still be being written."""


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One folder, relative to the root (b"": the root itself); `deep`: with all beneath it."""

    path: bytes
    deep: bool = False


@dataclass(slots=True)
class Hold:
    """Files that are left for the next look. Known images among them stay as they are meanwhile."""

    unfinished: Mapping[bytes, Collection[bytes]] = field(default_factory=dict)
    """Folder -> names of files that somebody writes."""
    finished: Collection[bytes] = frozenset()
    """Paths of files that are known to be complete, however new they are."""
    fresh_seconds: float = FRESH_SECONDS

    def sift(self, folder: Folder) -> bool:
        """Move what is still being written from `folder.files` to `folder.held`.

        True when only its newness speaks against some of it: nobody will say when that is over.
        """
        busy = self.unfinished.get(folder.path, ())
        now, span = time.time_ns(), int(self.fresh_seconds * 1e9)
        prefix = folder.path + b"/" if folder.path else b""
        kept, again = [], False
        for file in folder.files:
            fresh = -span < now - file[2] < span and prefix + file[0] not in self.finished
            if fresh or file[0] in busy:
                folder.held.append(file[0])
                again = again or file[0] not in busy
            else:
                kept.append(file)
        folder.files = kept
        return again


class Region:
    """The parts of a crawl. Deep ones swallow what lies beneath them."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._deep: set[bytes] = set()
        self._shallow: set[bytes] = set()
        for part in sorted(set(parts), key=lambda one: (not one.deep, one.path)):
            if not self.covers(part.path):
                (self._deep if part.deep else self._shallow).add(part.path)

    @property
    def whole(self) -> bool:
        return b"" in self._deep

    def __iter__(self) -> Iterator[Part]:
        """Deep ones first: a folder that came is met before the one that it left."""
        yield from (Part(path, deep=True) for path in sorted(self._deep))
        yield from (Part(path) for path in sorted(self._shallow))

    def covers(self, path: bytes) -> bool:
        """Whether this folder itself is looked at."""
        return path in self._shallow or self._within(path)

    def _within(self, path: bytes) -> bool:
        while path not in self._deep:
            if not path:
                return False
            path = os.path.dirname(path)
        return True

    def text(self) -> str:
        """For people: "2024/May and 2 more folders"; "" for the whole source."""
        if self.whole:
            return ""
        names = [readable(part.path) or "the top folder" for part in self]
        more = len(names) - 1
        return names[0] + (f" and {more:,} more {'folder' if more == 1 else 'folders'}" if more else "")


@dataclass(slots=True)
class Stand:
    """What stands where a part should be."""

    there: bool = False
    blocked: str = ""
    """Nothing can be said about the part; the sentence says why."""
    lost_mount: bytes | None = None
    """The folder on the way that was a disk of its own and is not now."""
    foreign: bool = False
    """Beneath the program's own folders: no business of a crawl."""


def look_at(
    root: bytes, path: bytes, *, own: frozenset[tuple[int, int]], mounts: Collection[bytes], links: bool
) -> Stand:
    """Go down from the root to this folder, without following links.

    With `links` (the source follows them) a link on the way says nothing; without, it leads nowhere.
    """
    above = os.stat(root)
    here = b""
    for name in filter(None, path.split(b"/")):
        here = here + b"/" + name if here else name
        try:
            found = os.lstat(os.path.join(root, here))
        except (FileNotFoundError, NotADirectoryError):
            return Stand(lost_mount=here if here in mounts else None)
        except OSError as error:
            return Stand(blocked=f"The folder {readable(here)} cannot be reached ({error.strerror}).")
        if stat.S_ISLNK(found.st_mode) and links:
            return Stand(blocked=f"{readable(here)} is a link, which only a crawl of the whole source follows.")
        if not stat.S_ISDIR(found.st_mode):
            return Stand()
        if here in mounts and found.st_dev == above.st_dev:
            return Stand(lost_mount=here)
        if (found.st_dev, found.st_ino) in own:
            return Stand(foreign=True)
        above = found
    return Stand(there=True)


def walk_parts(
    root: bytes,
    rules: Rules,
    region: Region,
    *,
    follow_symlinks: bool,
    own: frozenset[tuple[int, int]],
    mounts: Collection[bytes],
    lose: Callable[[bytes], None],
    leave: Callable[[bytes], None],
) -> Iterator[Folder]:
    """Walk every part that is there. One that is not yields nothing: what is known in it is then absent.

    `lose(path)` is told of folders that were disks and are none now, `leave(path)` of parts that are left out.
    """
    for part in region:
        if rules.pruned_at(part.path):
            leave(part.path)
            continue
        stand = look_at(root, part.path, own=own, mounts=mounts, links=follow_symlinks)
        if stand.foreign:
            leave(part.path)
        elif stand.lost_mount is not None:
            lose(stand.lost_mount)
        elif stand.blocked:
            yield Folder(path=part.path, blocked=[part.path], errors=[stand.blocked])
        elif stand.there:
            try:
                yield from walk(
                    root, rules, start=part.path, deep=part.deep, follow_symlinks=follow_symlinks, own=own
                )  # fmt: skip
            except (FileNotFoundError, NotADirectoryError):
                continue  # it went away between two looks
            except OSError as error:
                sentence = f"The folder {readable(part.path)} cannot be read ({error.strerror})."
                yield Folder(path=part.path, blocked=[part.path], errors=[sentence])
