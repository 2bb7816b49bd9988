"""Id sets as compact bytes: one Action or Change row can speak of 50,000 images."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from search.arrays import Ids


def pack_ids(ids: Iterable[int] | Ids) -> bytes:
    """Pack ids (sorted, duplicates dropped) as zlib-compressed little-endian int64 deltas."""
    array = np.unique(np.fromiter(ids, dtype=np.int64) if not isinstance(ids, np.ndarray) else ids.astype(np.int64))
    return zlib.compress(np.diff(array, prepend=np.int64(0)).astype("<i8").tobytes(), 6)


def unpack_ids(packed: bytes) -> Ids:
    """Unpack what `pack_ids` made: int64, ascending, shape (n,)."""
    return np.cumsum(np.frombuffer(zlib.decompress(bytes(packed)), dtype="<i8"), dtype=np.int64)


def pack_ordered(ids: Ids) -> bytes:
    """Pack ids in the order given, duplicates and all, as zlib-compressed little-endian int64."""
    return zlib.compress(ids.astype("<i8").tobytes(), 3)


def unpack_ordered(packed: bytes) -> Ids:
    """Unpack what `pack_ordered` made: int64, shape (n,)."""
    return np.frombuffer(zlib.decompress(bytes(packed)), dtype="<i8").astype(np.int64)
