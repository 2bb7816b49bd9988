"""Which new file is which absent image: pure, one to one."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from ingestion.spool import Newcomer


@dataclass(frozen=True, slots=True)
class Absent:
    """An image whose file was not found. `sha256` is None when the file, as it was last seen, was never read."""

    id: int
    path: bytes
    size: int
    mtime_ns: int
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Arrived:
    """A newcomer with the SHA-256 of its bytes."""

    file: Newcomer
    sha256: bytes


def pair(absent: Sequence[Absent], arrived: Sequence[Arrived]) -> list[tuple[Absent, Arrived]]:
    """Pair each absent image with at most one file, and each file with at most one image.

    Equal bytes pair: the same file name first, then the lowest id with the first path. Images that were
    never read pair with what is left by name, size and modification time.
    """
    pairs: list[tuple[Absent, Arrived]] = []
    images = sorted(absent, key=lambda one: one.id)
    files = sorted(arrived, key=lambda one: one.file.path)

    def match(of_image: Callable[[Absent], Hashable | None], of_file: Callable[[Arrived], Hashable]) -> None:
        nonlocal images, files
        waiting = _grouped(images, of_image)
        left: list[Arrived] = []
        taken: set[int] = set()
        for file in files:
            queue = waiting.get(of_file(file))
            if queue:
                image = queue.pop()
                taken.add(image.id)
                pairs.append((image, file))
            else:
                left.append(file)
        images = [one for one in images if one.id not in taken]
        files = left

    match(
        lambda one: one.sha256 and (one.sha256, _name(one.path)),
        lambda one: (one.sha256, _name(one.file.path)),
    )
    match(lambda one: one.sha256, lambda one: one.sha256)
    match(
        lambda one: None if one.sha256 else (_name(one.path), one.size, one.mtime_ns),
        lambda one: (_name(one.file.path), one.file.size, one.file.mtime_ns),
    )
    return pairs


def _grouped(images: Iterable[Absent], key: Callable[[Absent], Hashable | None]) -> dict[Hashable, list[Absent]]:
    """Images by key, those without one left out; `pop()` gives the lowest id of a key."""
    groups: dict[Hashable, list[Absent]] = {}
    for image in images:
        value = key(image)
        if value is not None:
            groups.setdefault(value, []).append(image)
    for group in groups.values():
        group.reverse()
    return groups


def _name(path: bytes) -> bytes:
    return os.path.basename(path)
