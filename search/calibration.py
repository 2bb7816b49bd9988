"""From a cosine to a match %: how far it stands out from what this query finds in the library's background. Pure.

The cosines of an encoder say little by themselves: pictures that have nothing to do with each other stand at 0.0 in
one space and at 0.5 in another, and words stand at another height than pictures. Three steps give them one meaning.

1. *Steps above the background.* A score is normalised as in speaker verification (Auckenthaler, Carey and
   Lloyd-Thomas, "Score normalization for text-independent speaker verification systems", Digital Signal Processing 10,
   2000): its location comes from this query's own cosines to a sample of the library (zero normalisation), its scale
   from a cohort of other queries of the same make against the same sample (test normalisation). Median and median
   absolute deviation take the place of mean and deviation, so that what does match hardly raises the bar for itself.
2. *How often a picture so many steps up is right*: a logistic curve (Platt, "Probabilistic outputs for support vector
   machines", 1999), fitted to captioned photographs (MIDDLE and WIDTH).
3. *Whether this query has an answer here at all*: nonsense has a nearest picture too, the nearer the larger the
   library. How high chance reaches among so many is known from extreme value theory (Fisher and Tippett, 1928: for
   normal tails about the quantile that one in N exceeds); a query whose best does not get above it is doubted as a
   whole (ABOVE_CHANCE and DOUBT, fitted to queries that no photograph answers).

The match % is the product of 2 and 3. `benchmarks/calibration.py` measures what comes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Cosines = npt.NDArray[np.floating]
Percents = npt.NDArray[np.float64]

MIDDLE, WIDTH = 3.1, 0.75
"""Steps at which every second picture is right, and over how many steps the odds grow by a factor e."""
ABOVE_CHANCE, DOUBT = 0.7, 0.25
"""How many steps above the best that chance brings every second query has an answer, and the width of that doubt."""
SHRINKAGE = 10
"""Images worth of belief in the cohort, beside the sample: what holds a library of ten images steady."""
REACH = 1.5
"""How far from the cohort's middle a query's own location is believed, in spreads of the cohort's locations. In a
library of nothing but cats the word cat is near to everything, and would else match nothing."""
IDENTICAL = 5.0
"""An identical picture (cosine 1) stands at least so many steps up..."""
CERTAIN = 1.5
"""...and so many above what is still doubted as chance."""
NARROWEST, WIDEST = 0.01, 0.25
"""A step is no smaller and no larger than this, in cosine."""
UNKNOWN = (0.3, 0.14)
"""Location and spread assumed where there is nothing to compare with: a library of one picture."""
_NORMAL = 1.4826
"""Median absolute deviation -> standard deviation, for a normal distribution."""


@dataclass(frozen=True)
class Cohort:
    """What queries of one make have in common in one library: the middle of their locations, how much these vary,
    how wide the cosines of one query spread, and how wide those of all together."""

    location: float
    varies: float
    within: float
    total: float


@dataclass(frozen=True)
class Scale:
    """Where the background of a query lies and how wide a step is, both in cosine."""

    location: float
    spread: float

    def steps(self, cosines: Cosines) -> Percents:
        """How many steps above the background each cosine stands; NaN stays NaN."""
        return (np.asarray(cosines, dtype=np.float64) - self.location) / self.spread


@dataclass(frozen=True)
class Calibration:
    """What turns the cosines of one query into match per cents. `answered`: 0 to 1, whether it has an answer."""

    scale: Scale
    answered: float

    def percents(self, cosines: Cosines) -> Percents:
        """Match % of each cosine, 0 to 100, never falling as the cosine grows; NaN stays NaN."""
        return 100 * self.answered * _logistic((self.scale.steps(cosines) - MIDDLE) / WIDTH)


def cohort(cosines: Cosines) -> Cohort | None:
    """What the cosines (queries, images) of a cohort have in common; NaN where an image is part of the query itself.

    None where nothing is to be compared.
    """
    told = np.asarray(cosines, dtype=np.float64)
    told = told[~np.isnan(told).all(axis=1)] if told.size else told.reshape(0, 0)
    if not told.size:
        return None
    locations = np.nanmedian(told, axis=1)
    location = float(np.median(locations))
    return Cohort(
        location=location,
        varies=_NORMAL * float(np.median(np.abs(locations - location))),
        within=_NORMAL * float(np.nanmedian(np.abs(told - locations[:, None]))),
        total=_NORMAL * float(np.nanmedian(np.abs(told - location))),
    )


def scale(background: Cosines, others: Cohort | None) -> Scale:
    """The scale of a query with these cosines (n,) to the sample, beside the cohort of its make. Any n, also 0."""
    own = np.asarray(background, dtype=np.float64)
    own = own[~np.isnan(own)]
    if others is None:
        return _within_reach(*UNKNOWN)
    weight = len(own) / (len(own) + SHRINKAGE)
    location = others.location
    if len(own):
        location = weight * float(np.median(own)) + (1 - weight) * others.location
        reach = REACH * others.varies
        location = float(np.clip(location, others.location - reach, others.location + reach))
    return _within_reach(location, float(np.sqrt(weight * others.within**2 + (1 - weight) * others.total**2)))


def calibration(scale: Scale, *, best: float | None, among: int) -> Calibration:
    """The calibration of a query whose best cosine among so many images is `best` (None: there is none)."""
    if best is None:
        return Calibration(scale, 0.0)
    reached, identical = scale.steps(np.array([best, 1.0])).tolist()
    doubtful = min(chance(among) + ABOVE_CHANCE, identical - CERTAIN)
    return Calibration(scale, float(_logistic((reached - doubtful) / DOUBT)))


def chance(among: int) -> float:
    """Steps that the best of so many images reaches by chance; the few of a small library count as some more."""
    return NormalDist().inv_cdf(1 - 1 / (max(among, 0) + 9))


def _within_reach(location: float, spread: float) -> Scale:
    spread = min(max(spread, NARROWEST), WIDEST)
    return Scale(min(location, 1 - IDENTICAL * spread), spread)


def _logistic(value: npt.ArrayLike) -> Percents:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -700, 700))), dtype=np.float64)
