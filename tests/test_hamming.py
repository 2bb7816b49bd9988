"""Pairs within a Hamming distance, against comparing every pair, and groups that do not chain."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import hamming
from search.hamming import Hashes

EXTREMES = [0, 2**64 - 1, 1 << 63, 1, (1 << 63) - 1, 0xAAAAAAAAAAAAAAAA, 0x5555555555555555]
WITHIN = st.integers(0, hamming.MOST_WITHIN)


def hashes_of(values: Any) -> Hashes:
    return np.array(list(values), dtype=np.uint64)


def compared(values: Hashes, within: int) -> np.ndarray:
    """All pairs by comparing every two."""
    near = np.bitwise_count(values[:, None] ^ values[None, :]) <= within
    return np.argwhere(np.triu(near, 1))


@st.composite
def related(draw: st.DrawFn) -> Hashes:
    """Few hashes, and others a few flipped bits away; some twice."""
    bases = draw(st.lists(st.one_of(st.sampled_from(EXTREMES), st.integers(0, 2**64 - 1)), max_size=6))
    bits = st.lists(st.integers(0, 63), max_size=12)
    made = list(bases)
    for base in bases:
        for flips in draw(st.lists(bits, max_size=8)):
            made.append(base ^ sum({1 << bit for bit in flips}))
    return hashes_of(draw(st.permutations(made)))


def many(seed: int, count: int, *, bases: int, flips: int, low: int = 64) -> Hashes:
    """`count` hashes around `bases` random ones, up to `flips` of the lower `low` bits flipped in each."""
    random = np.random.default_rng(seed)
    made = random.integers(0, 2**64, bases, dtype=np.uint64)[random.integers(0, bases, count)]
    for _ in range(flips):
        made ^= np.uint64(1) << random.integers(0, low, count).astype(np.uint64)
    return made


@given(related(), WITHIN)
@settings(deadline=None, max_examples=150)
def test_pairs_are_all_pairs(hashes: Hashes, within: int) -> None:
    found = hamming.pairs(hashes, within)
    assert found.within == within
    assert (found.values[found.inverse] == hashes).all()
    assert found.values.tolist() == sorted(set(hashes.tolist()))
    assert found.pairs.tolist() == compared(found.values, within).tolist()
    one, other = found.values[found.pairs].T
    assert (np.bitwise_count(one ^ other) == found.distances).all()


@pytest.mark.parametrize(
    ("count", "bases", "flips", "low"),
    [
        (9_000, 9_000, 0, 64),  # random
        (9_000, 900, 4, 64),  # families
        (12_000, 1, 12, 64),  # one mass
        (12_000, 3, 16, 24),  # three, that differ in few bits only: no choice of blocks parts them
        (12_000, 2, 9, 14),
    ],
)
@pytest.mark.parametrize("within", [1, 3, 5])
def test_many_hashes_of_any_structure_give_all_pairs(count: int, bases: int, flips: int, low: int, within: int) -> None:
    hashes = many(count + bases, count, bases=bases, flips=flips, low=low)
    found = hamming.pairs(hashes, within)
    wanted = 0
    for begin in range(0, len(found.values), 1_000):
        rows = np.bitwise_count(found.values[begin : begin + 1_000, None] ^ found.values[None, :]) <= within
        wanted += int(rows.sum()) - len(rows)
    assert len(found.pairs) == wanted // 2
    one, other = found.values[found.pairs].T
    assert (np.bitwise_count(one ^ other) <= within).all()
    key = found.pairs[:, 0].astype(np.int64) * len(found.values) + found.pairs[:, 1]
    assert (np.diff(key) > 0).all()  # each once, in order


@pytest.mark.parametrize("within", [1, 5, 8])
def test_hashes_are_parted_by_blocks_where_that_is_quicker(within: int) -> None:
    hashes = np.unique(many(3, 30_000, bases=20_000, flips=3))
    assert len(hamming._blocks(hashes, list(range(64)), within)) > within
    planted = np.unique(np.concatenate([hashes[:300] ^ np.uint64(0b10110), hashes]))
    near = set()
    for one, other, distances in hamming.join(planted, within):
        assert (distances == np.bitwise_count(planted[one] ^ planted[other])).all()
        pairs = list(zip(np.minimum(one, other).tolist(), np.maximum(one, other).tolist(), strict=True))
        assert near.isdisjoint(pairs) and len(set(pairs)) == len(pairs)
        near.update(pairs)
    rows = np.random.default_rng(0).choice(len(planted), 400, replace=False)
    for row in rows.tolist():
        wanted = set(np.flatnonzero(np.bitwise_count(planted ^ planted[row]) <= within).tolist()) - {row}
        assert {a + b - row for a, b in near if row in (a, b)} == wanted


def test_the_order_of_the_hashes_changes_nothing() -> None:
    hashes = many(5, 9_000, bases=300, flips=5)
    one = hamming.pairs(hashes)
    other = hamming.pairs(np.random.default_rng(1).permutation(hashes))
    assert (one.values == other.values).all()
    assert (one.pairs == other.pairs).all() and (one.distances == other.distances).all()


def test_too_many_pairs_are_given_up_from_the_farthest_on() -> None:
    hashes = many(6, 6_500, bases=1, flips=4)
    hashes[::2] ^= np.uint64(1) << np.uint64(40)  # odd distances, too
    everything = hamming.pairs(hashes, 5)
    counts = np.bincount(everything.distances, minlength=6).cumsum()
    found = hamming.pairs(hashes, 5, most=int(counts[3]))
    assert found.within == 3
    assert (found.pairs == everything.pairs[everything.distances <= 3]).all()
    assert hamming.pairs(hashes, 5, most=0).within == 0
    assert hamming.pairs(hashes, 5, most=int(counts[5])).within == 5


def test_memory_does_not_grow_with_the_pairs_of_a_mass() -> None:
    hashes = np.unique(many(7, 40_000, bases=1, flips=3))
    tracemalloc.start()
    try:
        streamed = sum(len(one) for one, _, _ in hamming.join(hashes, 5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert streamed > 40_000_000
    assert peak < 400_000_000


def test_a_signed_hash_keeps_its_bits() -> None:
    kept = np.array([-1, -(2**63), 0, 2**63 - 1], dtype=np.int64)
    assert hamming.signed(kept).tolist() == [2**64 - 1, 2**63, 0, 2**63 - 1]
    assert hamming.pairs(hamming.signed(kept), 1).pairs.tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize("within", [-1, 11])
def test_another_distance_is_refused(within: int) -> None:
    with pytest.raises(ValueError, match="0 to 10 bits"):
        hamming.pairs(hashes_of([1, 2]), within)


def test_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="uint64"):
        hamming.pairs(np.array([1, 2]))  # type: ignore[arg-type]


@given(related(), WITHIN, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_groups_have_a_centre_and_do_not_chain(hashes: Hashes, within: int, random: Any) -> None:
    found = hamming.pairs(hashes, within)
    count = len(found.values)
    order = list(range(count))
    random.shuffle(order)
    rank = np.array(order, dtype=np.int64)
    centre = hamming.groups(found.pairs, found.distances, rank)
    apart = np.bitwise_count(found.values[:, None] ^ found.values[None, :]).astype(int)
    assert (centre[centre] == centre).all()
    for node in range(count):
        assert apart[node, centre[node]] <= within
        members = np.flatnonzero(centre == centre[node])
        assert apart[np.ix_(members, members)].max() <= 2 * within
    # Greedily: a centre has no neighbour of a smaller rank that is one; who is none has such a neighbour.
    centres = {node for node in range(count) if centre[node] == node}
    for node in range(count):
        better = {other for other in centres if other != node and apart[node, other] <= within}
        assert better.isdisjoint(centres) if node in centres else any(rank[other] < rank[node] for other in better)
        if node not in centres:
            nearest = min(better, key=lambda other: (apart[node, other], rank[other]))
            assert centre[node] == nearest


def test_a_chain_is_not_one_group() -> None:
    chain = hashes_of((1 << n) - 1 for n in range(0, 64, 4))
    found = hamming.pairs(chain, 5)
    assert len(found.pairs) == 15
    centre = hamming.groups(found.pairs, found.distances, np.arange(16))
    assert centre.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14]


def test_nothing_makes_no_group() -> None:
    found = hamming.pairs(hashes_of([]))
    assert found.pairs.shape == (0, 2)
    assert hamming.groups(found.pairs, found.distances, np.zeros(0, dtype=np.int64)).tolist() == []
