"""Which disk a folder lies on, and whether its file system announces every change made to it.

Only file systems of this machine's own disks do: of what another machine changes on a network disk, the
system hears nothing. A file system that is not known is taken for one that does not announce.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LOCAL = frozenset(
    b"apfs bcachefs btrfs erofs exfat ext2 ext3 ext4 f2fs fuseblk hfs hfsplus iso9660 jfs msdos nilfs2 ntfs ntfs3 "
    b"overlay ramfs reiserfs squashfs tmpfs udf vfat xfs zfs".split()
)
"""File systems whose every change goes through this machine's kernel."""
_MOUNTINFO = "/proc/self/mountinfo"
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted file system. `identity` differs after it was mounted anew."""

    point: bytes
    kind: str
    local: bool
    identity: bytes


def parse_mountinfo(text: bytes) -> list[Disk]:
    """The lines of /proc/self/mountinfo, in order: a later one lies over an earlier one."""
    disks = []
    for line in text.splitlines():
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.split(b" ")[0]
        if len(fields) < 5 or not kind:
            continue
        point = _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), fields[4])
        disks.append(Disk(point, kind.decode("ascii", "replace"), kind in LOCAL, fields[0] + b" " + fields[2]))
    return disks


def parse_mount(text: bytes) -> list[Disk]:
    """What `mount` prints on macOS: `/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled)`."""
    disks = []
    for line in text.splitlines():
        found = re.fullmatch(rb"(.+?) on (/.*) \(([^(),]+)((?:, [^(),]+)*)\)", line)
        if found:
            local = b"local" in found[4].split(b", ")
            disks.append(Disk(found[2], found[3].decode("ascii", "replace"), local, found[1]))
    return disks


def mounted() -> list[Disk]:
    """The file systems that are mounted now; none when the system does not say."""
    try:
        if sys.platform == "darwin":
            return parse_mount(subprocess.run(["/sbin/mount"], capture_output=True, timeout=10, check=True).stdout)
        return parse_mountinfo(Path(_MOUNTINFO).read_bytes())
    except (OSError, subprocess.SubprocessError):
        return []


def of(folder: bytes, disks: list[Disk]) -> list[Disk]:
    """The disk that this folder (an absolute real path) lies on, then those mounted beneath it."""
    holding: Disk | None = None
    beneath: dict[bytes, Disk] = {}
    inside = folder.rstrip(b"/") + b"/"
    for disk in disks:
        if inside.startswith(disk.point.rstrip(b"/") + b"/"):
            if holding is None or len(disk.point) >= len(holding.point):
                holding = disk
        elif disk.point.startswith(inside):
            beneath[disk.point] = disk
    return [*([holding] if holding else []), *(beneath[point] for point in sorted(beneath))]


def objection(folder: bytes, disks: list[Disk]) -> str:
    """Why changes in this folder are not announced, the end of a sentence after "because"; "" when they are."""
    found = of(folder, disks)
    if not found:
        return "this system does not say what kind of disk it lies on"
    for disk in found:
        if not disk.local:
            where = "it" if disk is found[0] else "a folder in it"
            return f"{where} is on a file system ({disk.kind}) that does not announce what others change"
    return ""


def watchable_folders() -> int | None:
    """How many more folders this user's programs may watch, less a tenth for others; None where nothing limits it."""
    try:
        limit = int(_LIMIT.read_text())
    except (OSError, ValueError):
        return None
    return max(0, limit - limit // 10 - _watched_now())


def _watched_now() -> int:
    """Watches that this user's processes hold, as far as they can be seen."""
    count = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if process.stat().st_uid != os.getuid():
                continue
            for link in (process / "fd").iterdir():
                if os.readlink(link) == "anon_inode:inotify":
                    info = (process / "fdinfo" / link.name).read_bytes()
                    count += info.count(b"\ninotify ") + info.startswith(b"inotify ")
        except OSError:
            continue
    return count
