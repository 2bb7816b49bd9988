"""Whether the nearest of some references shows the same thing as a picture: open-set identification. Pure.

A nearest reference there always is, so the question is how near pictures of *other* things come. Three samples say so,
and the strictest of them is believed:

- *strangers*: for pictures of the library outside of the references, the cosine to the nearest reference;
- *references*: for each reference, the cosine to the nearest other one. Ten stamps are nearer to each other than to any
  holiday photo: without this an unknown eleventh stamp would be taken for one of the ten;
- *own*: this picture's cosines to all references but the nearest. A dark or blurred picture is near to everything.

A sample becomes a level: a middle (median) and a spread (of its nearer half, or of its farther half where the nearer
one holds copies, which a collection may have), each shrunk to what is expected before looking, as far as the sample is
small. Normalising a score by such cohorts is usual in speaker verification (Auckenthaler, Carey and Lloyd-Thomas,
"Score normalization for text-independent speaker verification systems", 2000); that the nearest wrong answers decide
how far to trust the nearest one is the idea of Scheirer, Rocha, Micheals and Boult, "Meta-recognition" (2011). GOOD and
EVEN were chosen on photographs: `benchmarks/identify.py` measures what comes of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

Cosines = npt.NDArray[np.floating]

GOOD = 3.0
"""Spreads above the middle at which a match is good: 90 %."""
EVEN = 2.2
"""Spreads above the middle at which it is as likely as not: 50 %."""
OWN_GOOD = 3.5
"""The same as GOOD for a picture's own cosines, which are no maxima."""
CLEAR = 0.5
"""Spreads by which the nearest has to lead the runner-up to be told from it."""
TURNED = 0.5
"""Spreads more that are asked of a picture which was turned until it matched: it had more chances."""
STRICTEST = 0.95
"""The cosine from which on a match is good whatever the samples say: they may hold copies of one another."""
SHRINKAGE = 5
"""Observations that an expectation weighs as much as..."""
SHRINKAGE_ALONE = 1
"""...and where the references are all there is: they are what the picture would be taken for."""
NARROWEST = 0.02
FEWEST_OWN = 5
GOOD_PERCENT, EVEN_PERCENT = 90, 50
_WIDTH = (GOOD - EVEN) / math.log(GOOD_PERCENT / (100 - GOOD_PERCENT))


@dataclass(frozen=True)
class Level:
    """How near pictures of other things come, in cosine."""

    middle: float
    spread: float

    @property
    def good(self) -> float:
        """The cosine from which on a match is good."""
        return self.middle + GOOD * self.spread

    def percent(self, cosine: float) -> float:
        """Match %, above 0 and below 100, growing with the cosine: 50 where it is as likely as not, 90 where good."""
        steps = (cosine - self.middle) / self.spread
        return 100 / (1 + math.exp(-max(-500.0, min((steps - EVEN) / _WIDTH, 500.0))))

    def of_turned(self) -> Level:
        """The level for a picture that was turned until it matched."""
        return Level(self.middle + TURNED * self.spread, self.spread)

    def lowered_to(self, good: float) -> Level:
        """The same spread, and a match good at this cosine at the latest."""
        return self if self.good <= good else Level(good - GOOD * self.spread, self.spread)


EXPECTED = Level(0.6, 0.13)
"""Before anything is looked at: strict, so that nothing is claimed of two references beside a near copy."""


class Finding(Enum):
    """What can be said of the nearest reference."""

    LIKELY = "likely"
    ALIKE = "alike"
    """A good match, but another reference that shows something else is as good."""
    MAYBE = "maybe"
    NONE = "none"


def level(sample: Cosines, expected: Level = EXPECTED, weight: int = SHRINKAGE) -> Level:
    """The level of a sample (n,) of cosines to the nearest wrong answer, shrunk to the expected one, which weighs as
    much as so many observations. Any n, also 0."""
    told = np.asarray(sample, dtype=np.float64)
    told = told[np.isfinite(told)]
    count = len(told)
    if not count:
        return expected
    middle = float(np.median(told))
    if count >= 10:
        low, high = np.quantile(told, [0.1587, 0.8413])
        spread = max(min(middle - float(low), float(high) - middle), NARROWEST)
    else:
        spread = max(float(told.std()), NARROWEST)
    whole = count + weight
    centre = (count * middle + weight * expected.middle) / whole
    squares = count * (spread**2 + (middle - centre) ** 2)
    squares += weight * (expected.spread**2 + (expected.middle - centre) ** 2)
    return Level(centre, math.sqrt(squares / whole))


def background(*, strangers: Cosines, references: Cosines, own: Cosines) -> Level:
    """The level that is believed: the strictest of the three samples; a match is good at STRICTEST at the latest.

    `strangers`, `references`: cosines to the nearest (other) reference, (n,); `own`: this picture's cosines to the
    references, (n,), of which the nearest is left out here.
    """
    outside = level(strangers)
    levels = [outside]
    if len(references):
        weight = SHRINKAGE if len(strangers) else SHRINKAGE_ALONE
        levels.append(level(references, outside, weight))
    others = np.sort(np.asarray(own, dtype=np.float64))[:-1]
    if len(others) >= FEWEST_OWN:
        middle = float(np.median(others))
        spread = max(middle - float(np.quantile(others, 0.1587)), NARROWEST)
        levels.append(Level(middle + (OWN_GOOD - GOOD) * spread, spread))
    if not len(strangers) and len(references):
        levels = levels[1:]  # nothing but an expectation stands behind the first
    return max(levels, key=lambda one: one.good).lowered_to(STRICTEST)


def judge(best: float, others: Iterable[float], level: Level) -> Finding:
    """What can be said of the nearest reference (cosine `best`), beside those that show something else."""
    percent = level.percent(best)
    if percent < EVEN_PERCENT:
        return Finding.NONE
    if percent < GOOD_PERCENT:
        return Finding.MAYBE
    lead = best - max(others, default=-math.inf)
    return Finding.LIKELY if lead >= CLEAR * level.spread else Finding.ALIKE
