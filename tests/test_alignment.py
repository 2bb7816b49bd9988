"""The statistics of an adoption: 50,000 rows with planted slides, garbage, swaps and copies, without a database."""

from __future__ import annotations

import numpy as np
import pytest

from ingestion.alignment import RIGHT, UNKNOWN, WRONG, Terms, align, sample_needed, upper_share
from ingestion.resampling import judge

ROWS = 50_000


class World:
    """Which picture each row really holds; `ask` counts."""

    def __init__(self, holds: np.ndarray, unreadable: np.ndarray | None = None) -> None:
        self.holds, self.asked = holds, 0
        self.unreadable = np.zeros(len(holds), dtype=bool) if unreadable is None else unreadable

    def ask(self, rows: np.ndarray) -> np.ndarray:
        assert (np.diff(rows) > 0).all()
        self.asked += len(rows)
        answers = np.where(self.holds[rows] == rows, RIGHT, WRONG)
        return np.where(self.unreadable[rows], UNKNOWN, answers).astype(np.int8)

    def align(self, *, seed: int = 0, askable: np.ndarray | None = None, **options):  # type: ignore[no-untyped-def]
        rows = len(self.holds)
        terms = Terms.for_rows(rows, **options)
        flags = np.ones(rows, dtype=bool) if askable is None else askable
        found = align(rows, flags, self.ask, terms, np.random.default_rng(seed))
        assert self.asked <= terms.most
        return found

    def wrongly_accepted(self, found) -> int:  # type: ignore[no-untyped-def]
        return int((found.accepted & (self.holds != np.arange(len(self.holds)))).sum())


def whole() -> np.ndarray:
    return np.arange(ROWS)


def slid(first: int, by: int, stop: int = ROWS) -> np.ndarray:
    """From row `first` on, each row holds what belongs `by` rows further on."""
    holds = whole()
    holds[first:stop] = (np.arange(first, stop) + by) % ROWS
    return holds


def test_a_right_archive_is_accepted_whole() -> None:
    world = World(whole())
    found = world.align()
    assert found.accepted.all() and found.complete
    assert len(found.ranges) == 1 and found.ranges[0].proven
    assert 0 < found.ranges[0].most_wrong <= 0.005 * ROWS
    assert world.asked < ROWS / 10


@pytest.mark.parametrize("seed", range(5))
def test_right_then_slid_by_one_then_garbage(seed: int) -> None:
    """The known accident in small: the break is found to the row, and nothing behind it is accepted."""
    holds = slid(4_411, 1)
    holds[44_000:] = -1
    world = World(holds)
    found = world.align(seed=seed)
    assert np.flatnonzero(found.accepted).tolist() == list(range(4_411))
    assert world.wrongly_accepted(found) == 0
    assert [(one.first, one.stop) for one in found.ranges if one.proven] == [(0, 4_411)]


@pytest.mark.parametrize("seed", range(5))
def test_many_slides_and_right_ranges_between(seed: int) -> None:
    chance = np.random.default_rng(seed)
    holds, right = whole(), np.ones(ROWS, dtype=bool)
    edges = np.sort(chance.choice(np.arange(1_000, ROWS - 1_000), 8, replace=False))
    for first, stop in edges.reshape(-1, 2):
        by = int(chance.integers(1, 40)) * int(chance.choice([-1, 1]))
        holds[first:stop] = (np.arange(first, stop) + by) % ROWS
        right[first:stop] = False
    world = World(holds)
    found = world.align(seed=seed)
    assert world.wrongly_accepted(found) <= sum(one.most_wrong for one in found.ranges if one.proven)
    # What is not accepted of the right rows lies in ranges too short to be worth proving.
    for one in found.ranges:
        if one.rows > 4_000:
            assert one.proven
    assert (found.accepted & right).sum() > 0.6 * right.sum()


def test_swapped_halves_garbage_and_one_vector_for_all_are_refused() -> None:
    for holds in (np.roll(whole(), ROWS // 2), np.full(ROWS, -1), np.zeros(ROWS, dtype=int)):
        world = World(holds)
        found = world.align()
        assert world.wrongly_accepted(found) == 0
        assert found.accepted.sum() <= 1
        assert world.asked <= 4_100  # nothing is worth looking for


def test_single_wrong_rows_are_bounded_and_too_many_of_them_refuse_the_range() -> None:
    chance = np.random.default_rng(3)
    few, many = whole(), whole()
    few[chance.choice(ROWS, 20, replace=False)] = -1
    many[chance.choice(ROWS, 1_000, replace=False)] = -1
    world = World(few)
    found = world.align()
    assert found.accepted.sum() > 0.99 * ROWS
    assert world.wrongly_accepted(found) <= sum(one.most_wrong for one in found.ranges)
    world = World(many)
    found = world.align()
    assert world.wrongly_accepted(found) == 0
    assert found.accepted.sum() < 13_000 and not any(one.proven for one in found.ranges if one.rows > 2_000)


def test_every_second_row_wrong_accepts_only_what_was_asked() -> None:
    holds = whole()
    holds[::2] = -1
    world = World(holds)
    found = world.align()
    assert world.wrongly_accepted(found) == 0
    assert world.asked < 8_000


def test_the_bound_holds_as_often_as_it_says() -> None:
    """200 archives, each with wrong rows just about at the limit: at most 1 % of the accepted ones break the bound."""
    broken = accepted = 0
    for seed in range(200):
        chance = np.random.default_rng(seed)
        holds = np.arange(10_000)
        holds[chance.choice(10_000, int(chance.integers(0, 120)), replace=False)] = -1
        world = World(holds)
        found = world.align(seed=seed)
        for one in found.ranges:
            if one.proven:
                accepted += 1
                inside = holds[one.first : one.stop] == np.arange(one.first, one.stop)
                asked = [
                    row for row, answer in found.answers.items() if answer == WRONG and one.first <= row < one.stop
                ]
                broken += (~inside).sum() - len(asked) > one.most_wrong
    assert accepted > 30 and broken <= max(2, 0.02 * accepted)


def test_a_stretch_longer_than_the_bridge_never_passes() -> None:
    chance = np.random.default_rng(5)
    for seed in range(20):
        first = int(chance.integers(1_000, ROWS - 2_000))
        length = 2 * (ROWS // 4_000) + 2
        holds = slid(first, 1, first + length)
        world = World(holds)
        found = world.align(seed=seed)
        assert not found.accepted[first : first + length].all()
        assert world.wrongly_accepted(found) == 0, seed


def test_files_that_are_gone_are_proven_by_their_neighbours_but_not_in_long_stretches() -> None:
    unreadable = np.zeros(ROWS, dtype=bool)
    unreadable[np.random.default_rng(1).choice(ROWS, 2_000, replace=False)] = True
    unreadable[20_000:26_000] = True
    world = World(whole(), unreadable)
    found = world.align()
    assert not found.accepted[20_030:25_970].any()
    assert found.accepted[:20_000].mean() > 0.99 and found.accepted[26_000:].mean() > 0.99
    assert found.accepted[:19_000][unreadable[:19_000]].mean() > 0.95


def test_an_archive_of_which_nothing_can_be_read_is_refused() -> None:
    world = World(whole(), np.ones(ROWS, dtype=bool))
    assert not world.align().accepted.any()


def test_rows_without_a_picture_are_never_accepted() -> None:
    askable = np.random.default_rng(2).random(ROWS) < 0.3
    askable[10_000:20_000] = False
    world = World(slid(30_000, 2))
    found = world.align(askable=askable)
    assert not found.accepted[~askable].any()
    assert found.accepted[:30_000].sum() == askable[:30_000].sum() and not found.accepted[30_000:].any()
    assert not World(whole()).align(askable=np.zeros(ROWS, dtype=bool)).accepted.any()


@pytest.mark.parametrize("rows", [1, 2, 3, 20, 999])
def test_small_archives_are_asked_row_by_row(rows: int) -> None:
    holds = np.arange(rows)
    world = World(holds)
    assert world.align().accepted.all() and world.asked == rows
    holds = holds.copy()
    holds[rows // 2] = -1
    world = World(holds)
    found = world.align()
    assert world.wrongly_accepted(found) == 0 and found.accepted.sum() == rows - 1


def test_exhaustive_accepts_exactly_the_right_rows() -> None:
    holds = np.arange(3_000)
    holds[np.random.default_rng(0).choice(3_000, 700, replace=False)] = -1
    unreadable = np.arange(3_000) % 50 == 7
    world = World(holds, unreadable)
    found = world.align(exhaustive=True)
    assert np.array_equal(found.accepted, (holds == np.arange(3_000)) & ~unreadable)


def test_the_same_seed_asks_the_same_rows() -> None:
    first, again = World(slid(12_345, 3)).align(seed=4), World(slid(12_345, 3)).align(seed=4)
    assert first.answers == again.answers and np.array_equal(first.accepted, again.accepted)


def test_the_upper_limit_is_that_of_clopper_and_pearson() -> None:
    assert upper_share(0, 459, 0.99) == pytest.approx(1 - 0.01 ** (1 / 459))
    assert upper_share(5, 100, 0.975) == pytest.approx(0.1128, abs=1e-4)  # the textbook's 95 % interval, two-sided
    assert upper_share(3, 3, 0.99) == 1
    assert sample_needed(0, 0.005, 0.99) == 919
    assert upper_share(0, 919, 0.99) <= 0.005 < upper_share(0, 918, 0.99)


def unit(*values: float) -> np.ndarray:
    row = np.zeros(8, dtype=np.float32)
    row[: len(values)] = values
    return row / np.linalg.norm(row)


def test_judge_tells_a_slide_within_a_series_from_noise() -> None:
    fresh = unit(1)
    burst = unit(1, 0.1)  # cosine 0.995: the next picture of the series
    assert judge(fresh, np.stack([unit(0, 0, 1), fresh, burst]), 1).answer == RIGHT
    slid_by_one = np.stack([fresh, burst, unit(1, 0.2)])
    assert judge(fresh, slid_by_one, 1).answer == WRONG
    # Another decoder: its own row is no nearer than its neighbour of the series, but not far either.
    found = judge(fresh, np.stack([unit(1, 0.09), unit(1, 0.1), unit(0, 1)]), 1)
    assert found.answer == RIGHT and found.alike
    copies = judge(fresh, np.stack([fresh, fresh]), 1)
    assert copies.answer == RIGHT and copies.alike
    assert judge(fresh, np.stack([unit(0, 1), unit(0, 0, 1)]), 0).answer == WRONG
    # A zero row (unusable) beside it is nobody's neighbour.
    assert not judge(fresh, np.stack([np.zeros(8, dtype=np.float32), fresh]), 1).alike
