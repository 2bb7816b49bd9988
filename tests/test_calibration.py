"""Match %: bounded, never falling as the cosine grows, defined for any library, and the sample it is measured by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import calibration
from search.background import SAMPLE, Make, _cohort_cosines, _hash, sample_ids
from search.reference_phrases import PHRASES

cosine = st.floats(-1, 1, width=32)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[float], np.ndarray, float, int]:
    """Own cosines to 1 to 10 images, those of a cohort of 0 to 6 queries, the best, and the size of the library."""
    images = draw(st.integers(1, 10))
    row = st.lists(st.one_of(cosine, st.just(float("nan"))), min_size=images, max_size=images)
    cohort = draw(st.lists(row, max_size=6))
    own = draw(st.lists(cosine, min_size=images, max_size=images))
    among = draw(st.one_of(st.just(images), st.integers(images, 10_000_000)))
    return own, np.array(cohort, dtype=np.float64).reshape(len(cohort), images), max(own), among


def calibrated(situation: tuple[list[float], np.ndarray, float, int]) -> calibration.Calibration:
    own, cohort, best, among = situation
    scale = calibration.scale(np.array(own), calibration.cohort(cohort))
    return calibration.calibration(scale, best=best, among=among)


@settings(max_examples=150, deadline=None)
@given(situations(), st.lists(cosine, min_size=2, max_size=20))
def test_match_is_defined_bounded_and_monotone_for_libraries_of_one_to_ten(situation, asked) -> None:
    ordered = np.sort(np.array(asked, dtype=np.float32))
    percents = calibrated(situation).percents(ordered)
    assert np.isfinite(percents).all() and percents.min() >= 0 and percents.max() <= 100
    assert (np.diff(percents) >= 0).all()


@settings(max_examples=200, deadline=None)
@given(situations())
def test_an_identical_picture_matches_in_every_library(situation) -> None:
    own, cohort, _, among = situation
    assert calibrated((own, cohort, 1.0, among)).percents(np.array([1.0]))[0] > 90


@settings(max_examples=200, deadline=None)
@given(situations(), st.floats(-1, 1), st.floats(0.3, 3))
def test_match_has_the_same_meaning_in_a_space_that_lies_elsewhere_and_is_wider(situation, shift, stretch) -> None:
    """As long as the limits of a step and an identical picture at 1 do not come in between."""
    own, cohort, best, _ = situation
    here = calibration.cohort(cohort)
    there = calibration.cohort(cohort * stretch + shift)
    assert (here is None) == (there is None)
    if here is None or there is None:
        return
    scales = [calibration.scale(np.array(own), here), calibration.scale(np.array(own) * stretch + shift, there)]
    if any(not 0.011 < one.spread < 0.249 or one.location > 0.999 - 5 * one.spread for one in scales):
        return
    there_and_here = scales[1].steps(np.array([best * stretch + shift])), scales[0].steps(np.array([best]))
    assert there_and_here[0] == pytest.approx(there_and_here[1], abs=1e-6)


def test_what_has_no_score_has_no_match_and_an_empty_library_no_calibration() -> None:
    scale = calibration.scale(np.zeros(0), None)
    found = calibration.calibration(scale, best=None, among=0)
    assert np.isnan(found.percents(np.array([np.nan])))[0] and found.percents(np.array([0.9]))[0] == 0
    assert calibration.cohort(np.full((3, 4), np.nan)) is None
    assert calibration.scale(np.array([np.nan]), calibration.cohort(np.array([[0.1]]))).spread > 0


def test_chance_reaches_higher_in_a_larger_library() -> None:
    reached = [calibration.chance(count) for count in (0, 1, 10, 1_000, 1_000_000, 100_000_000)]
    assert reached == sorted(reached) and reached[0] > 0 and reached[-1] < 6


def test_a_query_that_stands_out_from_no_background_is_doubted_as_a_whole() -> None:
    random = np.random.default_rng(0)
    cohort = calibration.cohort(random.normal(0.2, 0.03, (80, 1000)))
    noise = random.normal(0.2, 0.03, 1000)
    scale = calibration.scale(noise, cohort)
    assert scale.location == pytest.approx(0.2, abs=0.005) and scale.spread == pytest.approx(0.03, rel=0.1)
    nothing = calibration.calibration(scale, best=float(noise.max()), among=1000)
    assert nothing.percents(noise).max() < 40
    found = calibration.calibration(scale, best=0.40, among=1000)
    assert found.answered > 0.99 and found.percents(np.array([0.40]))[0] > 90
    assert found.percents(noise).max() > nothing.percents(noise).max()


# --- the sample ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5_000), st.floats(0, 1), st.integers(0, 2**31))
def test_the_sample_is_drawn_from_what_may_be_seen_and_stays_put(size, share, seed) -> None:
    among = np.random.default_rng(seed).random(size) < share
    drawn = sample_ids(among, 100)
    assert len(drawn) == min(100, among.sum()) and among[drawn].all() and (np.diff(drawn) > 0).all()
    assert (sample_ids(among, 100) == drawn).all()
    longer = np.concatenate([among, np.zeros(777, dtype=np.bool_)])  # room for more ids changes nothing
    assert (sample_ids(longer, 100) == drawn).all()
    if size and not among.all():
        among[int(np.flatnonzero(~among)[0])] = True
        assert len(np.setdiff1d(drawn, sample_ids(among, 100))) <= 1  # one image more takes the place of one at most


@pytest.mark.parametrize("length", [0, 1, 999, 65_536, 65_537, 300_000])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.01, 0.0005, 0.0])
def test_a_sample_is_the_images_with_the_smallest_hashes_however_many_there_are(length: int, share: float) -> None:
    among = np.random.default_rng(5).random(length) < share
    ids = np.flatnonzero(among)
    assert sample_ids(among).tolist() == sorted(ids[np.argsort(_hash(ids))][:SAMPLE].tolist())


def test_the_sample_is_spread_evenly() -> None:
    drawn = sample_ids(np.ones(100_000, dtype=np.bool_), SAMPLE)
    assert len(drawn) == SAMPLE
    assert np.histogram(drawn, bins=10, range=(0, 100_000))[0].min() > 60


def test_the_cohort_is_of_the_querys_own_make() -> None:
    random = np.random.default_rng(1)
    rows = random.standard_normal((40, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    phrases = rows[:8]
    words = _cohort_cosines(Make(texts=1), phrases, rows)
    assert words.shape == (len(PHRASES), 40) and not np.isnan(words).any()
    assert words[3] == pytest.approx((rows @ phrases[3]).astype(np.float64), abs=1e-6)
    pictures = _cohort_cosines(Make(pictures=1), phrases[:0], rows)
    assert pictures.shape == (40, 40) and np.isnan(np.diag(pictures)).all()  # a picture is no background of itself
    mixed = _cohort_cosines(Make(texts=1, pictures=2, unwanted_texts=1), phrases, rows)
    assert (np.isnan(mixed).sum(axis=1) == 2).all()
    assert _cohort_cosines(Make(texts=1), phrases[:0], rows).shape == (0, 40)  # an encoder that knows none of them
    assert calibration.cohort(_cohort_cosines(Make(pictures=1), phrases[:0], rows[:1])) is None  # the only picture
