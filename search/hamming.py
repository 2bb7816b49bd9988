"""All pairs of 64-bit hashes within a Hamming distance, exactly, and groups of them without chaining. Pure.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012):
bits are dealt out to blocks, and of k blocks two hashes within distance d agree in k - d at least, so that sorting by
each choice of k - d blocks brings every pair together (Manku, Jain and Das Sarma, "Detecting Near-Duplicates for Web
Crawling", WWW 2007). How many blocks is decided by the hashes themselves, from a seeded sample of them. What agrees in
one choice and is still many is joined in the same way by the bits that are left, and only what no choice of blocks
parts any more is compared one with another, in tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.signedinteger]
Distances = npt.NDArray[np.uint8]

BITS = 64
MOST_WITHIN = 10
"""The largest distance that is asked for: beyond it the pairs of unrelated pictures outnumber all others."""
MOST_PAIRS = 32_000_000
"""Pairs that are kept: 9 bytes each, and up to 25 while they are found."""
_TILE = 1 << 21
"""Pairs compared in one step."""
_LONG = 32
"""Hashes that agree in a choice of blocks and are more than this are joined by themselves."""
_FEW = 6_000
"""Up to here comparing all takes less than finding out what takes less."""
_SAMPLE = 8_192
_SORTED_NS, _MET_NS, _TILED_NS = 150.0, 15.0, 2.0
"""What a hash costs in one sorting, and a pair where it meets in one or in a tile."""


@dataclass(frozen=True)
class Pairs:
    """All pairs of different hashes within a distance."""

    values: Hashes
    """The different hashes, (u,) uint64, ascending."""
    inverse: Places
    """Which of them each given hash is, (n,) int64."""
    pairs: Places
    """Places in `values`, (m, 2) int32, the lower one first, ascending; every pair once."""
    distances: Distances
    """(m,) uint8, 1 to `within`."""
    within: int
    """The distance up to which there are all: smaller than what was asked where those were too many to keep."""


def signed(hashes: npt.NDArray[np.int64]) -> Hashes:
    """Hashes as the database keeps them (signed) as they are taken here: (n,) int64 -> (n,) uint64."""
    return np.ascontiguousarray(hashes, dtype=np.int64).view(np.uint64)


def pairs(hashes: Hashes, within: int = 5, *, most: int = MOST_PAIRS) -> Pairs:
    """Exactly all pairs of different hashes (n,) uint64 within `within` bits, 0 to 10; identical ones are one value.

    Memory is bounded by n and `most`: where there are more pairs than that, it is begun again with the next smaller
    distance, and `Pairs.within` says up to which one there are all. The same hashes give the same answer in whatever
    order. Raises ValueError for another distance or another type.
    """
    values, inverse = np.unique(_checked(hashes, within), return_inverse=True)
    while (packed := _packed(values, within, most)) is None:
        within -= 1
    distances = (packed & 15).astype(np.uint8)
    packed >>= 4
    places = np.empty((len(packed), 2), dtype=np.int32)
    places[:, 0] = packed // max(len(values), 1)
    places[:, 1] = packed % max(len(values), 1)
    return Pairs(values, inverse.reshape(-1), places, distances, within)


def _packed(values: Hashes, within: int, most: int) -> npt.NDArray[np.int64] | None:
    """All pairs in ascending order, each with its distance as one number; None when there are more than `most`."""
    found, count = [np.zeros(0, dtype=np.int64)], 0
    for one, other, distances in join(values, within):
        found.append((np.minimum(one, other) * len(values) + np.maximum(one, other)) << 4 | distances)
        count += len(one)
        if count > most:
            return None
    packed = np.concatenate(found)
    packed.sort()
    return packed


def join(values: Hashes, within: int = 5) -> Iterator[tuple[Places, Places, Distances]]:
    """The same as a stream, for as many pairs as there may be: places (c,), places (c,), distances (c,) of different
    `values` (u,) uint64, every pair once, in portions of a few million at most and in no order."""
    values = _checked(values, within)
    yield from _join(values, list(range(BITS)), within)


def _checked(hashes: Hashes, within: int) -> Hashes:
    if hashes.dtype != np.uint64 or hashes.ndim != 1:
        raise ValueError(f"Hashes are an array (n,) of uint64, not {hashes.shape} of {hashes.dtype}.")
    if not 0 <= within <= MOST_WITHIN:
        raise ValueError(f"The distance is 0 to {MOST_WITHIN} bits, not {within}.")
    return hashes


def _join(values: Hashes, free: list[int], within: int) -> Iterator[tuple[Places, Places, Distances]]:
    """Pairs of values that differ in no bit but the `free` ones."""
    blocks = _blocks(values, free, within)
    if not blocks:
        yield from _tiles(values, within)
        return
    masks = np.array([sum(1 << bit for bit in block) for block in blocks], dtype=np.uint64)
    for chosen in combinations(range(len(blocks)), len(blocks) - within):
        mask = np.bitwise_or.reduce(masks[list(chosen)])
        others = [masks[n] for n in range(chosen[-1]) if n not in chosen]
        left = [bit for n, block in enumerate(blocks) if n not in chosen for bit in block]
        for one, other, distances in _meetings(values, mask, left, within):
            # A pair that agrees in more blocks meets several times: it counts where it meets in the first of them.
            differs = values[one] ^ values[other]
            first = np.ones(len(differs), dtype=np.bool_)
            for before in others:
                first &= (differs & before) != 0
            yield one[first], other[first], distances[first]


def _meetings(
    values: Hashes, mask: np.uint64, left: list[int], within: int
) -> Iterator[tuple[Places, Places, Distances]]:
    """Pairs within the distance among those that agree in all bits of the mask."""
    keys = values & mask
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    counts = np.diff(np.append(starts, len(keys)))
    several = counts > 1
    starts, counts = starts[several], counts[several]
    short = counts <= _LONG
    there = _spread(starts[short], counts[short])
    ends = np.repeat(starts[short] + counts[short], counts[short])
    there_values, parts, waiting = values[order], [], 0
    for shift in range(1, _LONG):
        kept = there + shift < ends
        there, ends = there[kept], ends[kept]
        if not len(there):
            break
        for begin in range(0, len(there), _TILE):
            some = there[begin : begin + _TILE]
            distances = np.bitwise_count(there_values[some] ^ there_values[some + shift])
            near = np.flatnonzero(distances <= within)
            parts.append((order[some[near]], order[some[near] + shift], distances[near]))
            waiting += len(near)
        if waiting > _TILE:
            yield _joined(parts)
            parts, waiting = [], 0
    if parts:
        yield _joined(parts)
    for start, count in zip(starts[~short].tolist(), counts[~short].tolist(), strict=True):
        places = order[start : start + count]
        for one, other, distances in _join(values[places], left, within):
            yield places[one], places[other], distances


def _tiles(values: Hashes, within: int) -> Iterator[tuple[Places, Places, Distances]]:
    """Every pair compared, a bounded number at a time."""
    begin = 0
    while begin < len(values) - 1:
        rows = max(1, _TILE // (len(values) - begin))
        distances = np.bitwise_count(values[begin : begin + rows, None] ^ values[None, begin:])
        near = np.flatnonzero(distances <= within)
        one, other = np.divmod(near, distances.shape[1])
        upper = other > one
        yield one[upper] + begin, other[upper] + begin, distances.ravel()[near[upper]]
        begin += rows


def _blocks(values: Hashes, free: list[int], within: int) -> list[list[int]]:
    """The bits dealt out to blocks so that joining is expected to be quickest; none where comparing all is.

    How many pairs meet in a choice of blocks is estimated without bias from the pairs of a sample.
    """
    count = len(values)
    best, cheapest = [], count * count / 2 * _TILED_NS
    if count < _FEW or len(free) <= within:
        return []
    some = values
    if count > _SAMPLE:
        some = values[np.random.default_rng(0).choice(count, _SAMPLE, replace=False)]
    # Bits that part the hashes best are dealt out first, one to each block.
    share = {bit: float(((some >> np.uint64(bit)) & np.uint64(1)).mean()) for bit in free}
    bits = sorted(free, key=lambda bit: (abs(share[bit] - 0.5), bit))
    for number in range(within + 1, min(within + 5, len(bits)) + 1):
        blocks = [bits[n::number] for n in range(number)]
        choices = list(combinations(blocks, number - within))
        cost = len(choices) * count * _SORTED_NS
        if cost >= cheapest:
            break
        drawn = choices[:: max(1, len(choices) // 16)]
        meeting = sum(_meeting(some, chosen) for chosen in drawn) / len(drawn) * len(choices)
        cost += meeting * count * (count - 1) / 2 * _MET_NS
        if cost < cheapest:
            best, cheapest = blocks, cost
    return best


def _meeting(some: Hashes, chosen: Sequence[list[int]]) -> float:
    """The share of all pairs that agree in these blocks."""
    mask = np.uint64(sum(1 << bit for block in chosen for bit in block))
    counts = np.unique(some & mask, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1)).sum() / (len(some) * (len(some) - 1)))


def _spread(starts: Places, counts: Places) -> Places:
    """The places of runs, one after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def _joined(parts: list[tuple[Places, Places, Distances]]) -> tuple[Places, Places, Distances]:
    return (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
    )


def groups(pairs: Places, distances: Distances, rank: Places) -> Places:
    """The centre of each node's group, (u,) int64: itself for centres and for nodes by themselves.

    A group is a centre and its neighbours, so that any two of it are within twice the distance of the pairs: what is
    near to a neighbour only does not chain on. Centres are chosen greedily: the node of the smallest `rank` ((u,)
    int64, all different) becomes one, its neighbours do not, and so on; then each other node goes to its nearest
    centre, of equally near ones to that of the smaller rank. pairs (m, 2) int64, every pair once; distances (m,).
    """
    count, rank = len(rank), rank.astype(np.int32)
    is_centre, is_open = np.zeros(count, dtype=np.bool_), np.ones(count, dtype=np.bool_)
    one, other = np.concatenate([pairs[:, 0], pairs[:, 1]]), np.concatenate([pairs[:, 1], pairs[:, 0]])
    a, b = one, other
    while len(a):
        beaten = np.zeros(count, dtype=np.bool_)
        beaten[a[rank[b] < rank[a]]] = True
        new = is_open & ~beaten
        is_centre |= new
        is_open &= beaten
        is_open[b[new[a]]] = False
        kept = is_open[a] & is_open[b]
        a, b = a[kept], b[kept]
    is_centre |= is_open
    centre = np.arange(count)
    to = is_centre[other] & ~is_centre[one]
    one, other, far = one[to], other[to], np.concatenate([distances, distances])[to].astype(np.int64)
    order = np.lexsort((rank[other], far, one))
    one, other = one[order], other[order]
    first = np.append(True, one[1:] != one[:-1]) if len(one) else np.zeros(0, dtype=np.bool_)
    centre[one[first]] = other[first]
    return centre
