"""Whether an archive's row r holds the vector of the picture that stands r-th in its list: sampled, bisected, bounded.

Pure: rows go out to be asked, answers come in, and what they prove comes out. The archive's list and its vectors have
slid against each other when somebody left a row out of one of them; everything behind that place is then wrong. So

1. the rows are cut into equal strata and one row of each, drawn at random, is asked (its picture is embedded again);
2. between neighbouring answers that differ, the place where right becomes wrong is found by bisection;
3. a range between such places is proven when the share of wrong rows in it is small with high confidence (the upper
   limit of Clopper and Pearson, Biometrika 26, 1934, over the rows drawn at random in it; stratifying only narrows
   it); where too few rows were drawn for that, more are.

Inside a proven range, rows are accepted between two right answers that lie at most `Terms.bridge` strata apart with no
wrong one between: a stretch of wrong rows longer than that cannot pass unseen. Shorter ones, and single wrong rows,
can: the bound says how many at most. A row that was itself asked and found right is proven by that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from search.arrays import Bitmap, Ids

RIGHT: Final = 1
WRONG: Final = 0
UNKNOWN: Final = -1
"""The picture cannot be read: says nothing."""

Answers = npt.NDArray[np.int8]
Ask = Callable[[Ids], Answers]
"""Rows (n,), ascending and distinct -> RIGHT, WRONG or UNKNOWN for each."""

_REDRAWS = 3
_TRIES = 4
_WORTH = 4
"""Right answers in a row that make it worth finding where they end: in a mixture of right and wrong nothing is."""


@dataclass(frozen=True)
class Terms:
    """How much is asked, and what counts as proof."""

    sample: int
    """Strata: rows asked in the first round."""
    most: int
    """Rows asked in all, at most."""
    limit: float = 0.005
    """Share of wrong rows in a range that must be ruled out."""
    confidence: float = 0.99
    bridge: int = 2
    exhaustive: bool = False
    """Accept only rows that were themselves asked."""

    @classmethod
    def for_rows(cls, rows: int, *, sample: int | None = None, exhaustive: bool = False) -> Terms:
        """What fits an archive of so many rows: a tenth of them, but 1,000 to 4,000 rows; `sample` overrides that."""
        if exhaustive:
            return cls(sample=rows, most=rows, exhaustive=True)
        first = sample if sample is not None else min(4_000, max(1_000, rows // 10))
        first = max(1, min(first, rows))
        return cls(sample=first, most=min(rows, 3 * first + 64))


@dataclass(frozen=True)
class Range:
    """Rows `first` to `stop - 1`: what was asked of them at random, and what that proves."""

    first: int
    stop: int
    rows: int
    """Rows in it that could be asked (those with a picture of ours)."""
    sampled: int
    wrong: int
    most_wrong: int
    """At most so many of its rows are wrong, at the confidence of the terms."""
    proven: bool
    whole: bool = False
    """Every readable row of it was asked."""


@dataclass
class Alignment:
    """What the answers prove."""

    accepted: Bitmap
    """One flag for each row of the archive."""
    ranges: list[Range] = field(default_factory=list)
    """Where right rows stand, ascending; nothing is claimed of the rows between them."""
    answers: dict[int, int] = field(default_factory=dict)
    """{row: answer} of all that were asked."""
    step: int = 1
    """Rows in a stratum."""
    complete: bool = True
    """False when the terms' `most` was reached before everything was settled."""


def upper_share(wrong: int, sampled: int, confidence: float) -> float:
    """Clopper and Pearson's upper limit of the share of wrong rows, when `wrong` of `sampled` rows were."""
    if wrong >= sampled:
        return 1.0
    low, high = wrong / sampled, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(wrong, sampled, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def sample_needed(wrong: int, limit: float, confidence: float) -> int:
    """Rows to draw until `wrong` wrong ones among them still keep the share's upper limit at `limit` or below."""
    low, high = wrong, 64
    while upper_share(wrong, high, confidence) > limit:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper_share(wrong, middle, confidence) <= limit else (middle, high)
    return high


def _at_most(wrong: int, sampled: int, share: float) -> float:
    """P(at most `wrong` of `sampled`) under a binomial distribution."""
    if share >= 1:
        return 0.0
    logs = [
        math.lgamma(sampled + 1) - math.lgamma(i + 1) - math.lgamma(sampled - i + 1)
        + i * math.log(share) + (sampled - i) * math.log1p(-share)
        for i in range(wrong + 1)
        if share > 0 or i == 0
    ]  # fmt: skip
    return math.fsum(map(math.exp, logs))


def align(rows: int, askable: Bitmap, ask: Ask, terms: Terms, random: np.random.Generator) -> Alignment:
    """Prove what can be proven of an archive of `rows` rows; only `askable` ones are asked or accepted.

    The same generator and the same answers ask the same rows again: what was asked may be kept and replayed.
    """
    places = np.flatnonzero(askable).astype(np.int64)
    search = _Search(places, ask, terms, random)
    if len(places):
        search.first_round()
        search.settle()
    accepted = np.zeros(rows, dtype=np.bool_)
    ranges = search.conclude(accepted)
    answers = {int(places[place]): answer for place, answer in search.answers.items()}
    return Alignment(accepted, ranges, answers, search.step, search.complete)


class _Search:
    """Works on places: positions among the askable rows, so that rows without a picture do not count."""

    def __init__(self, rows: Ids, ask: Ask, terms: Terms, random: np.random.Generator) -> None:
        self.rows, self.terms, self.random, self._ask = rows, terms, random, ask
        self.answers: dict[int, int] = {}
        self.drawn: set[int] = set()
        """Places asked because chance chose them: only these may be counted."""
        strata = max(1, min(terms.sample, len(rows)))
        self.step = max(1, math.ceil(len(rows) / strata))
        self.edges = np.linspace(0, len(rows), strata + 1).astype(np.int64)
        self.complete = True

    # --- asking

    def ask(self, places: list[int]) -> None:
        """Ask what was not asked before, as far as the terms allow."""
        new = [place for place in dict.fromkeys(places) if place not in self.answers]
        room = self.terms.most - len(self.answers)
        if len(new) > room:
            self.complete = False
            new = new[: max(room, 0)]
        new.sort()
        if new:
            found = self._ask(self.rows[np.array(new, dtype=np.int64)])
            self.answers.update(zip(new, map(int, found), strict=True))

    def first_round(self) -> None:
        """One row of each stratum at random, others in its place where that cannot be read; then both ends."""
        open_strata = list(range(len(self.edges) - 1))
        for _ in range(1 + _REDRAWS):
            chosen: dict[int, int] = {}
            for stratum in open_strata:
                low, high = int(self.edges[stratum]), int(self.edges[stratum + 1])
                place = int(self.random.integers(low, high))
                if place in self.answers and high - low < 64:
                    left = [one for one in range(low, high) if one not in self.answers]
                    if not left:
                        continue
                    place = left[int(self.random.integers(len(left)))]
                chosen[stratum] = place
            self.ask(list(chosen.values()))
            self.drawn.update(place for place in chosen.values() if place in self.answers)
            open_strata = [s for s, place in chosen.items() if self.answers.get(place, UNKNOWN) == UNKNOWN]
        last = len(self.rows) - 1
        self.ask([place for place in (0, 1, 2, last - 2, last - 1, last) if 0 <= place <= last])

    def settle(self) -> None:
        """Find the breaks, draw more where a range is not proven yet; what that finds may be a break again."""
        for _ in range(3):
            self._bisect()
            wanted: list[int] = []
            for low, high in self._spans():
                wanted += self._more_draws(low, high)
            before = len(self.answers)
            self.ask(wanted)
            self.drawn.update(place for place in wanted if place in self.answers)
            if len(self.answers) == before:
                return
        self._bisect()

    def _bisect(self) -> None:
        tries: dict[tuple[int, int], int] = {}
        while True:
            middles: list[int] = []
            known = self._known()
            for (low, before), (high, after) in itertools.pairwise(known):
                if before == after or high - low < 2 or tries.get((low, high), 0) >= _TRIES:
                    continue
                if not self._worth(known, low if before == RIGHT else high):
                    continue
                middle = self._unasked(low, high, tries.get((low, high), 0))
                tries[low, high] = tries.get((low, high), 0) + 1
                if middle is not None:
                    middles.append(middle)
            before_count = len(self.answers)
            self.ask(middles)
            if len(self.answers) == before_count:
                return

    def _unasked(self, low: int, high: int, tried: int) -> int | None:
        """The middle between two places, or one at random when that was asked and could not be read."""
        middle = (low + high) // 2
        if not tried and middle not in self.answers:
            return middle
        left = [place for place in range(low + 1, high) if place not in self.answers]
        return left[int(self.random.integers(len(left)))] if left else None

    def _worth(self, known: list[tuple[int, int]], right: int) -> bool:
        """Whether this right answer stands in a row of them."""
        index = self._index[right]
        first = last = index
        while first > 0 and known[first - 1][1] == RIGHT and index - first < _WORTH:
            first -= 1
        while last + 1 < len(known) and known[last + 1][1] == RIGHT and last - index < _WORTH:
            last += 1
        return last - first + 1 >= min(_WORTH, len(known))

    def _known(self) -> list[tuple[int, int]]:
        known = sorted((place, answer) for place, answer in self.answers.items() if answer != UNKNOWN)
        self._index = {place: index for index, (place, _) in enumerate(known)}
        return known

    # --- concluding

    def _spans(self) -> list[tuple[int, int]]:
        """[first, last] places of right answers between breaks: single wrong answers between do not part them,
        two drawn ones in a row do, and so does a long stretch of which nothing is known."""
        spans: list[tuple[int, int]] = []
        first = last = -1
        wrong_drawn = 0
        for place, answer in self._known():
            if answer == WRONG:
                wrong_drawn += place in self.drawn
                continue
            if first >= 0 and (wrong_drawn > 1 or (not wrong_drawn and place - last > self._bridge)):
                spans.append((first, last))
                first = -1
            if first < 0:
                first = place
            last, wrong_drawn = place, 0
        if first >= 0:
            spans.append((first, last))
        return spans

    @property
    def _bridge(self) -> int:
        return max(self.terms.bridge * self.step, 8)

    def _counts(self, low: int, high: int) -> tuple[int, int]:
        """(drawn, wrong) answers between these places."""
        inside = [self.answers[p] for p in self.drawn if low <= p <= high and self.answers[p] != UNKNOWN]
        return len(inside), inside.count(WRONG)

    def _is_whole(self, low: int, high: int) -> bool:
        return sum(low <= place <= high for place in self.answers) == high - low + 1

    def _more_draws(self, low: int, high: int) -> list[int]:
        """Places to draw so that this span can be proven; none where that is done, hopeless or not worth it."""
        sampled, wrong = self._counts(low, high)
        limit, confidence = self.terms.limit, self.terms.confidence
        if self._is_whole(low, high) or (sampled and wrong / sampled > limit):
            return []
        need = sample_needed(wrong, limit, confidence) - sampled
        if need <= 0 or 2 * need > high - low + 1 - sampled:
            return []
        left = np.array([p for p in range(low, high + 1) if p not in self.answers], dtype=np.int64)
        return [int(place) for place in self.random.choice(left, size=min(len(left), need + need // 20), replace=False)]

    def conclude(self, accepted: Bitmap) -> list[Range]:
        """Flag the accepted rows; the ranges."""
        right = [place for place, answer in self.answers.items() if answer == RIGHT]
        accepted[self.rows[np.array(right, dtype=np.int64)]] = True
        ranges = [self._judge(low, high) for low, high in self._spans()]
        if self.terms.exhaustive:
            return ranges
        proven = [(one.first, one.stop) for one in ranges if one.proven]
        known = self._known()
        for (low, before), (high, after) in itertools.pairwise(known):
            if before == after == RIGHT and high - low <= self._bridge:
                first, last = int(self.rows[low]), int(self.rows[high])
                if any(start <= first and last < stop for start, stop in _around(proven, first)):
                    accepted[self.rows[low : high + 1]] = True
        return ranges

    def _judge(self, low: int, high: int) -> Range:
        sampled, wrong = self._counts(low, high)
        rows, whole = high - low + 1, self._is_whole(low, high)
        share = upper_share(wrong, sampled, self.terms.confidence) if sampled else 1.0
        unasked = rows - sum(low <= place <= high for place in self.answers)
        known_wrong = sum(low <= place <= high and answer == WRONG for place, answer in self.answers.items())
        most_wrong = 0 if whole else min(unasked, max(0, math.floor(share * rows) - known_wrong))
        return Range(
            first=int(self.rows[low]), stop=int(self.rows[high]) + 1, rows=rows, sampled=sampled, wrong=wrong,
            most_wrong=most_wrong, proven=whole or share <= self.terms.limit, whole=whole,
        )  # fmt: skip


def _around(ranges: list[tuple[int, int]], row: int) -> list[tuple[int, int]]:
    """The ranges (ascending, apart) that may hold this row: one at most."""
    low, high = 0, len(ranges)
    while low < high:
        middle = (low + high) // 2
        if ranges[middle][1] <= row:
            low = middle + 1
        else:
            high = middle
    return ranges[low : low + 1]
