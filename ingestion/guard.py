"""When a crawl's findings look like an unplugged disk rather than like a person's work.

Pure rules, and the set of paths about which a walk could say nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from search.wording import agreeing, counted

AT_LEAST = 10
"""Fewer absent files than this are believed, unless the root itself is another folder than last time."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the guard judges by; `known` and `absent` count images that were there after the last crawl."""

    found: int
    known: int
    absent: int
    same_root: bool
    """Whether the root is the folder (device and inode) that the last whole crawl saw."""


def judge(findings: Findings, *, place: str, mass_change: float) -> str:
    """A sentence that says why nothing should be marked missing, or "" when the findings can be believed."""
    known, absent = findings.known, findings.absent
    if not absent:
        return ""
    override = "If they are really gone, crawl again with --accept-missing."
    if not findings.found:
        pictures = f"{counted(known, 'picture')} in it {agreeing(known, 'is', 'are')} known"
        return (
            f"{place} holds no files now, but {pictures}: perhaps a disk is not mounted. "
            f"Nothing was marked missing. {override}"
        )
    if absent <= mass_change * known or (findings.same_root and absent < AT_LEAST):
        return ""
    other = "" if findings.same_root else ", and the folder is not the one that was there before"
    pictures = f"{absent:,} of {counted(known, 'known picture')} in {place} {agreeing(absent, 'was', 'were')} not found"
    return f"{pictures}{other}: perhaps a disk is not mounted. Nothing was marked missing. {override}"


def judge_parts(*, absent: int, lately: int, known: int, same_root: bool, place: str, mass_change: float) -> str:
    """The same for a crawl of single folders, whose findings are weighed against the whole source.

    `lately` counts what such crawls marked missing since the last look through all of it, `known` the images of
    the source that are there, both without `absent`'s being taken off: many small steps weigh as much as one.
    """
    if not absent:
        return ""
    if not same_root:
        return f"{place} is another folder than before: perhaps a disk is not mounted. Nothing was marked missing."
    gone = absent + lately
    if gone < AT_LEAST or gone <= mass_change * (known + lately):
        return ""
    pictures = f"{gone:,} of {counted(known + lately, 'known picture')} in {place} went away in a short time"
    return f"{pictures}. Nothing more was marked missing. If they are really gone, crawl again with --accept-missing."


def lost_mounts_sentence(paths: Iterable[str]) -> str:
    """What to say about folders that were disks of their own and are not any more; "" for none."""
    listed = sorted(paths)
    if not listed:
        return ""
    if len(listed) == 1:
        text = f"{listed[0]} was a disk of its own and is not now: perhaps it is not mounted. Nothing beneath it was"
    else:
        text = (
            f"{', '.join(listed)} were disks of their own and are not now: perhaps they are not mounted. "
            "Nothing beneath them was"
        )
    return text + " marked missing. If that is how it should be, crawl again with --accept-missing."


class Untold:
    """Paths that could not be seen: what is known at or beneath them is left as it is."""

    def __init__(self) -> None:
        self._paths: set[bytes] = set()

    def add(self, paths: Iterable[bytes]) -> None:
        self._paths.update(paths)

    def covers(self, path: bytes) -> bool:
        if not self._paths:
            return False
        while path not in self._paths:
            if not path:
                return False
            path = os.path.dirname(path)
        return True


def pack_mounts(paths: Iterable[bytes]) -> list[str]:
    """Paths as `Source.mounts` holds them: percent-coded, so that any bytes fit into JSON."""
    return [quote_from_bytes(path) for path in sorted(paths)]


def unpack_mounts(packed: Iterable[str]) -> set[bytes]:
    return {unquote_to_bytes(path) for path in packed}
