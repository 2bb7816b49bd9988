"""The walk: pure, folder by folder, over bytes. Opens nothing but folders, writes nothing, knows no database."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from ingestion.excludes import Rules

File = tuple[bytes, int, int]
"""Name, size in bytes, modification time in nanoseconds."""

_KIND, _FILE, _FOLDER, _LINK = 0o170000, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK


@dataclass(slots=True)
class Folder:
    """What one folder holds. Paths are relative to the root, b"" for the root itself."""

    path: bytes
    files: list[File] = field(default_factory=list)
    """Regular files that are not left out (with `follow_symlinks` also links to such files)."""
    excluded: int = 0
    """Files left out by the rules, links that are not followed, and what is no file at all (FIFO, socket, device)."""
    vanished: list[bytes] = field(default_factory=list)
    """Names of files that went away between listing and looking."""
    held: list[bytes] = field(default_factory=list)
    """Names of files that are still being written: left for the next look."""
    blocked: list[bytes] = field(default_factory=list)
    """Paths that could not be seen: whatever is known at or beneath them may still be there."""
    errors: list[str] = field(default_factory=list)
    """One sentence for each thing that could not be seen."""
    mount: bool = False
    """Another device than its parent: a disk mounted here, or a link to one."""


@dataclass(slots=True)
class _Next:
    path: bytes
    device: int
    mtime_ns: int
    mount: bool
    outside: bool


def walk(
    root: bytes,
    rules: Rules,
    *,
    start: bytes = b"",
    deep: bool = True,
    follow_symlinks: bool = False,
    own: frozenset[tuple[int, int]] = frozenset(),
) -> Iterator[Folder]:
    """Walk the folder `start` (relative to `root`, an absolute real path) and, if `deep`, all beneath it.

    Recently changed folders come first. Folders whose (device, inode) is in `own` are pruned, as are those
    that the rules leave out; `start` itself is always walked. Followed links come after everything else; one
    that points into the root is left out (the folder itself is walked), and one to a folder that was walked
    already ends there, so that loops end. Raises OSError when `start` itself cannot be read.
    """
    top = os.stat(_join(root, start))
    above = os.stat(os.path.dirname(_join(root, start))).st_dev if start else top.st_dev
    whole = os.stat(root)
    outside_seen = {(whole.st_dev, whole.st_ino)}
    stack = [_Next(start, top.st_dev, 0, top.st_dev != above, False)]
    linked: list[_Next] = []
    while stack or linked:
        here = stack.pop() if stack else linked.pop(0)
        folder = Folder(path=here.path, mount=here.mount)
        beneath: list[_Next] = []
        try:
            _look(root, here, folder, rules, own, beneath, linked if follow_symlinks else None, outside_seen)
        except OSError as error:
            if here.path == start:
                raise
            folder.blocked.append(here.path)
            folder.errors.append(_trouble("folder", here.path, error))
        beneath.sort(key=lambda one: (one.mtime_ns, one.path))
        stack.extend(beneath)
        yield folder
        if not deep:
            return


def readable(path: bytes) -> str:
    """A path for people: valid text on one line."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _look(
    root: bytes,
    here: _Next,
    folder: Folder,
    rules: Rules,
    own: frozenset[tuple[int, int]],
    beneath: list[_Next],
    linked: list[_Next] | None,
    outside_seen: set[tuple[int, int]],
) -> None:
    """Fill `folder` and list the folders beneath it. One loop, few calls: it runs for every file there is."""
    file_out, folder_out = rules.file_test(here.path), rules.folder_test(here.path)
    prefix = here.path + b"/" if here.path else b""
    files = folder.files
    regular, mask = _FILE, _KIND
    with os.scandir(_join(root, here.path)) as entries:
        for entry in entries:
            name = entry.name
            try:
                found = entry.stat(follow_symlinks=False)
                kind = found.st_mode & mask
                if kind == regular and not (file_out and file_out(name)):
                    files.append((name, found.st_size, found.st_mtime_ns))
                    continue
                outside = here.outside
                if kind == _LINK and linked is not None:
                    followed = _follow(root, entry.path, prefix + name, folder)
                    if followed is None:
                        folder.excluded += 1
                        continue
                    found, outside = followed, True
                    kind = found.st_mode & _KIND
            except OSError as error:
                if file_out and file_out(name):
                    folder.excluded += 1
                elif isinstance(error, FileNotFoundError):
                    folder.vanished.append(name)
                else:
                    folder.blocked.append(prefix + name)
                    folder.errors.append(_trouble("file", prefix + name, error))
                continue
            if kind == _FILE:
                if file_out and file_out(name):
                    folder.excluded += 1
                else:
                    files.append((name, found.st_size, found.st_mtime_ns))
            elif kind == _FOLDER:
                identity = (found.st_dev, found.st_ino)
                if identity in own or (folder_out and folder_out(name + b"/")):
                    continue
                if outside:
                    if identity in outside_seen:
                        folder.excluded += 1
                        continue
                    outside_seen.add(identity)
                one = _Next(
                    prefix + name, found.st_dev, found.st_mtime_ns, found.st_dev != here.device, outside
                )  # fmt: skip
                (linked if outside and not here.outside and linked is not None else beneath).append(one)
            else:
                folder.excluded += 1


def _follow(root: bytes, path: bytes, relative: bytes, folder: Folder) -> os.stat_result | None:
    """What a link leads to; None when it is to be left out: into the root, to nothing, round in a circle."""
    target = os.path.realpath(path)
    if target == root or target.startswith(root.rstrip(b"/") + b"/"):
        return None
    try:
        return os.stat(path)
    except OSError as error:
        # The disk it leads to may be unplugged: what is known beneath stays.
        folder.blocked.append(relative)
        folder.errors.append(
            f"The link {readable(relative)} leads to {readable(target)}, which cannot be reached ({error.strerror})."
        )
        return None


def _trouble(what: str, path: bytes, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"The {what} {readable(path)} went away while it was being read; the next crawl looks again."
    reason = error.strerror or str(error)
    return f"The {what} {readable(path)} cannot be read ({reason}); what is known there is left as it is."


def _join(root: bytes, path: bytes) -> bytes:
    return os.path.join(root, path) if path else root
