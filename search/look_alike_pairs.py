"""Which pictures look alike by their perceptual hashes, for the whole library: computed in the background, kept as one
file in the data folder that can be deleted and is made anew at any time.

A picture without structure has a hash that means nothing: left out is whatever is one colour to the share FLAT, and
every hash with fewer than FEWEST_BITS bits (a photograph's has 32: half of its 64 coefficients lie above their median;
fewer only where many are equal).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.db import connection

from search import hamming
from search.arrays import Ids
from search.changes import last_number
from search.errors import IndexNotMade, StoreFault
from search.hamming import Distances, Hashes, Places
from search.models import Change, Image

FLAT = 0.95
FEWEST_BITS = 24
MOST_PAIRS = 8_000_000
"""Nine bytes each, in every process that shows groups."""
LEAST_SECONDS = 240
SHARE = 20
"""Made anew at the earliest after so many times as long as the last making took."""
FORMAT = 1
_CHUNK = 50_000


@dataclass(frozen=True)
class Known:
    """The pictures that look like another one, and which pairs of hashes are near."""

    ids: Ids
    """(n,), ascending."""
    node: Places
    """Which of `values` each has, (n,)."""
    values: Hashes
    pairs: Places
    """(m, 2) places in `values`, every pair once, those of the smallest distance first."""
    distances: Distances
    number: int
    """Of the change log, when the hashes were read."""
    asked: int
    within: int
    """The distance up to which there are all pairs: `asked`, or less where those were too many."""
    hashed: int
    flat: int
    """Pictures that were left out because they have no structure."""
    seconds: float
    made_at: float
    key: tuple[int, int, int] = (0, 0, 0)
    """Which file it was read from."""


def asked() -> int:
    """The distance that the settings ask for."""
    return int(settings.IMAGESEARCH_LOOK_ALIKES)


def path() -> Path:
    return Path(settings.IMAGESEARCH_DATA) / "look-alikes.npz"


def known() -> Known | None:
    """What was found last; None when nothing was computed yet, or the file is not to be read. Kept by this process
    until there is another one."""
    global _known
    try:
        stands = path().stat()
        key = stands.st_ino, stands.st_mtime_ns, stands.st_size
        with _lock:
            if _known is None or _known.key != key:
                _known = _read(key)
            return _known
    except _BROKEN:
        return None


def due() -> bool:
    """Whether it should be computed now: something changed, and the last time is long enough ago."""
    found = known()
    if found is None:
        return Image.objects.filter(perceptual_hash__isnull=False).exists()
    if found.asked != asked():
        return True
    waited = time.time() - found.made_at
    long_enough = waited < 0 or waited >= max(LEAST_SECONDS, SHARE * found.seconds)
    return long_enough and is_behind(found)


def is_behind(found: Known) -> bool:
    """Whether images came, went or changed since: stars, tags and the like do not count."""
    last = last_number()
    if found.number == last:
        return False
    later = Change.objects.filter(number__gt=found.number)
    pruned = found.number > last or later.count() < last - found.number
    return pruned or later.filter(kind=Change.Kind.IMAGES).exists()


def refresh() -> Known:
    """Compute all pairs anew and keep them; what pages show changes in one step.

    About 20 s of one core for a million pictures, and up to 1 GB of memory (`benchmarks/look_alikes.py`): the
    background does it in a process of its own. Raises IndexNotMade while another one is at it, StoreFault when the
    file cannot be written.
    """
    with _alone():
        started = time.monotonic()
        number, within = last_number(), asked()
        ids, hashes, flat = _hashes()
        found = hamming.pairs(hashes, within, most=MOST_PAIRS)
        counts = np.bincount(found.inverse, minlength=len(found.values))
        alike = counts > 1
        alike[found.pairs.ravel()] = True
        place = np.cumsum(alike) - 1
        there = alike[found.inverse]
        order = np.argsort(found.distances, kind="stable")
        arrays: dict[str, Any] = {
            "ids": ids[there],
            "node": place[found.inverse[there]].astype(np.int32),
            "values": found.values[alike],
            "pairs": place[found.pairs[order]].astype(np.int32),
            "distances": found.distances[order],
        }
        about = {
            "format": FORMAT, "number": number, "asked": within, "within": found.within, "hashed": len(ids),
            "flat": flat, "seconds": time.monotonic() - started, "made_at": time.time(),
        }  # fmt: skip
        _write(arrays, about)
    made = known()
    if made is None:
        raise StoreFault(f"{path()} cannot be read after it was written. Look at the disk it lies on.")
    return made


def forget() -> None:
    """Delete what was computed: there are no look-alikes until it is made anew."""
    path().unlink(missing_ok=True)


_BROKEN = (
    OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip
"""What reading a file that is not what it should be may raise."""
_known: Known | None = None
_lock = threading.Lock()


def _hashes() -> tuple[Ids, Hashes, int]:
    """The pictures whose hashes mean something, by id; and how many were left out."""
    columns: list[tuple[Ids, Ids]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    flat = 0
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, perceptual_hash, uniformity FROM {Image._meta.db_table} "
            "WHERE perceptual_hash IS NOT NULL ORDER BY id"
        )
        while rows := cursor.fetchmany(_CHUNK):
            ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            hashes = np.fromiter((row[1] for row in rows), np.int64, len(rows))
            uniform = np.fromiter((row[2] or 0.0 for row in rows), np.float64, len(rows))
            told = (uniform < FLAT) & (np.bitwise_count(hamming.signed(hashes)) >= FEWEST_BITS)
            flat += int((~told).sum())
            columns.append((ids[told], hashes[told]))
    ids, hashes = (np.concatenate([part[n] for part in columns]) for n in (0, 1))
    return ids, hamming.signed(hashes), flat


def _write(arrays: dict[str, Any], about: dict[str, Any]) -> None:
    target = path()
    beside = target.with_name(f"{target.name}.new")  # one maker at a time: see `_alone`
    try:
        with open(beside, "wb") as file:
            np.savez(file, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except OSError as error:
        raise StoreFault(
            f"The look-alikes cannot be kept in {target} ({error.strerror}). Make room there, or let it be written."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _read(key: tuple[int, int, int]) -> Known:
    with np.load(path(), allow_pickle=False) as kept:
        about = json.loads(bytes(kept["about"]))
        if about.pop("format") != FORMAT:
            raise ValueError("made by another version")
        arrays = {name: kept[name] for name in ("ids", "node", "values", "pairs", "distances")}
    return Known(**arrays, **about, key=key)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One at a time; raises IndexNotMade while another is at it."""
    lock = path().with_suffix(".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreFault(f"{lock} cannot be written ({error.strerror}). Run this as who owns the data.") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexNotMade("The look-alikes are being computed already. Try again in a minute.") from None
        yield
    finally:
        os.close(fd)
