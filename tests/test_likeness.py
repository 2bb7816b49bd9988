"""How sure one may be of the nearest reference: properties that hold for any sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.likeness import EXPECTED, STRICTEST, Finding, Level, background, judge, level

cosines = st.floats(-1, 1, width=32)
samples = st.lists(cosines, max_size=80).map(np.array)
levels = st.builds(lambda a, b, c: background(strangers=a, references=b, own=c), samples, samples, samples)


@given(levels, st.lists(cosines, min_size=2, max_size=20))
def test_the_match_is_defined_bounded_and_grows_with_the_cosine(believed: Level, some: list[float]) -> None:
    percents = [believed.percent(cosine) for cosine in sorted(some)]
    assert all(0 <= one <= 100 and math.isfinite(one) for one in percents)
    assert percents == sorted(percents)
    assert believed.percent(believed.good) == pytest.approx(90) and believed.good <= STRICTEST + 1e-9


@given(levels)
def test_the_very_same_picture_is_always_a_good_match(believed: Level) -> None:
    assert believed.percent(1.0) >= 90


@given(samples, samples, samples)
def test_each_sample_can_only_make_it_stricter(strangers, references, own) -> None:
    whole = background(strangers=strangers, references=references, own=own)
    assert whole.good >= background(strangers=strangers, references=references, own=own[:0]).good - 1e-9
    if len(strangers):
        assert whole.good >= level(strangers).lowered_to(STRICTEST).good - 1e-9


def test_nothing_is_claimed_of_two_references_beside_a_near_copy() -> None:
    none = np.zeros(0)
    assert background(strangers=none, references=none, own=none).good == pytest.approx(STRICTEST)
    for alike in (0.1, 0.9):
        believed = background(strangers=none, references=np.array([alike, alike]), own=np.array([0.5, alike]))
        assert judge(0.6, [0.1], believed) is not Finding.LIKELY
        assert judge(0.97, [0.3], believed) is Finding.LIKELY


def test_references_that_are_alike_ask_for_more_than_strangers_do() -> None:
    """Ten stamps in a library of holiday photos: an eleventh stamp is none of the ten."""
    draw = np.random.default_rng(0)
    strangers, stamps = draw.normal(0.2, 0.05, 64), draw.normal(0.8, 0.03, 10)
    believed = background(strangers=strangers, references=stamps, own=np.array([0.82, *draw.normal(0.7, 0.03, 9)]))
    assert judge(0.82, [0.78], believed) in {Finding.NONE, Finding.MAYBE}
    assert judge(0.82, [0.3], background(strangers=strangers, references=stamps[:0], own=stamps[:0])) is Finding.LIKELY


def test_a_picture_that_is_near_to_everything_matches_nothing() -> None:
    draw = np.random.default_rng(0)
    strangers, references = draw.normal(0.3, 0.05, 64), draw.normal(0.35, 0.05, 50)
    own = draw.normal(0.5, 0.06, 50)
    assert judge(0.62, [0.58], background(strangers=strangers, references=references, own=own)) is Finding.NONE


def test_copies_within_the_collection_do_not_hide_what_is_in_it() -> None:
    draw = np.random.default_rng(0)
    references = np.concatenate([draw.normal(0.4, 0.05, 45), np.full(15, 0.99)])
    assert background(strangers=references[:0], references=references, own=references[:0]).good < 0.7


def test_a_large_sample_is_believed_and_an_empty_one_changes_nothing() -> None:
    sample = np.random.default_rng(0).normal(0.3, 0.05, 5_000)
    assert level(sample).good == pytest.approx(0.45, abs=0.01)
    assert level(sample[:0]) == EXPECTED and level(np.array([np.nan])) == EXPECTED


def test_a_runner_up_that_is_as_near_is_not_left_out() -> None:
    believed = Level(0.3, 0.1)
    assert judge(0.8, [0.5, 0.2], believed) is Finding.LIKELY
    assert judge(0.8, [0.79], believed) is Finding.ALIKE
    assert judge(0.8, [], believed) is Finding.LIKELY
    assert judge(0.55, [0.1], believed) is Finding.MAYBE
    assert judge(0.4, [0.1], believed) is Finding.NONE
    assert judge(0.62, [0.1], believed) is Finding.LIKELY and judge(0.62, [0.1], believed.of_turned()) is Finding.MAYBE
