"""Groups of faces that are one person's each, over a graph of near neighbours. Pure.

`near` finds, for every face, its nearest others above a cosine; `whisper` makes groups of that graph; `apart` sees to
it that no group holds two faces of one picture; `grouped` does the three; `threshold` says from which cosine on two
faces are neighbours; `likely` says whose a further face may be.

The groups are made by Chinese whispers (Biemann, "Chinese Whispers - an Efficient Graph Clustering Algorithm and its
Application to Natural Language Processing Problems", TextGraphs 2006): every face begins as a group of its own and,
again and again, takes over the group that weighs most among its neighbours. It needs no number of people, and time in
proportion to the edges. `python -m benchmarks.faces_grouping` compares it with connected components, which one false
edge joins, and average linkage, which needs all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from search.arrays import Ids, Vectors

Places = npt.NDArray[np.int32]
"""Places of faces in the arrays that were given, or numbers of groups: (n,) int32."""

NEIGHBOURS = 48
"""The nearest of each face are its neighbours, so many at most."""
SAME = 0.95
"""From this cosine on a face is another frame of the same moment: it follows the first of them, and is nobody else's
neighbour. The frames of a burst would else be one another's nearest, and see nobody but themselves."""
FALSE_MATCH_RATE = 1e-4
"""How many of a small library's pairs of strangers may be neighbours by mistake; see `threshold`."""
LOWEST, HIGHEST = 0.25, 0.75
"""Between these the threshold lies, whatever the sample says."""
SEVERAL = 3
"""So many confirmed faces of a person have to be near for a face to join them unasked."""
LEAD = 0.05
"""By so much the nearest person has to be nearer than the next one."""
_ROUNDS = 30
_PARTS = 8
"""A round takes the faces in so many random parts, each seeing what the one before it decided."""
_BLOCK_SCORES = 1 << 24
_BLOCK_PAIRS = 1 << 14


@dataclass(frozen=True)
class Edges:
    """Neighbours, each pair in both directions, ordered by `source`: places (e,) int32 and cosines (e,) float32."""

    source: Places
    target: Places
    cosine: npt.NDArray[np.float32]
    follows: npt.NDArray[np.bool_]
    """(n,): the face is another frame of its one neighbour, see SAME."""

    def __len__(self) -> int:
        return len(self.source)


def near(vectors: Vectors, least: float, *, most: int = NEIGHBOURS) -> Edges:
    """The neighbours among faces (n, dim) of unit length: for each the nearest `most` of those before it that have
    cosine `least` and more and are no frames of a moment that is there already; such a frame has the first one only.

    All pairs are compared. Memory: a block of scores (64 MB), and 50 bytes for each edge while they are put in order.
    """
    count = len(vectors)
    follows = np.zeros(count, dtype=np.bool_)
    number, targets, cosines = np.zeros(count, dtype=np.int64), [], []
    step = max(1, _BLOCK_SCORES // max(1, count))
    for start in range(0, count, step):
        end = min(count, start + step)
        for place, row in enumerate(vectors[start:end] @ vectors[:end].T, start):
            scores = np.where(follows[:place], np.float32(-2), row[:place])
            found = np.flatnonzero(scores >= least)
            if len(found) and scores[best := found[scores[found].argmax()]] >= SAME:
                found = np.array([best])
                follows[place] = True
            elif len(found) > most:
                found = found[np.argpartition(-scores[found], most)[:most]]
            number[place] = len(found)
            targets.append(found.astype(np.int32))
            cosines.append(scores[found])
    if not count:
        nothing = np.zeros(0, dtype=np.int32)
        return Edges(nothing, nothing, np.zeros(0, dtype=np.float32), follows)
    source = np.repeat(np.arange(count, dtype=np.int32), number)
    return both_ways(source, np.concatenate(targets), np.concatenate(cosines), follows)


def both_ways(source: Places, target: Places, cosine: npt.NDArray[np.float32], follows: npt.NDArray[np.bool_]) -> Edges:
    """Edges in both directions and once each, whichever of them were given."""
    count = len(follows)
    pairs = np.concatenate([source.astype(np.int64) * count + target, target.astype(np.int64) * count + source])
    pairs, first = np.unique(pairs, return_index=True)
    start = (pairs // max(1, count)).astype(np.int32)
    end = (pairs % max(1, count)).astype(np.int32)
    return Edges(start, end, cosine[first % max(1, len(cosine))].astype(np.float32), follows)


def grouped(
    vectors: Vectors, images: Ids, *, least: float, seeds: npt.NDArray[np.bool_] | None = None, seed: int = 0
) -> Places:
    """The group of each face (n, dim): `near`, `whisper` and `apart`, good faces first, so that frames follow these."""
    seeds = np.ones(len(vectors), dtype=np.bool_) if seeds is None else seeds
    order = np.argsort(~seeds, kind="stable")
    some = vectors[order]
    groups = whisper(near(some, least), len(some), seeds=seeds[order], seed=seed)
    found = np.empty_like(groups)
    found[order] = apart(groups, images[order], some)
    return numbered(found)


def whisper(edges: Edges, count: int, *, seeds: npt.NDArray[np.bool_] | None = None, seed: int = 0) -> Places:
    """The group of each of `count` faces, numbered from 0 in the order of their first faces.

    Only faces of `seeds` speak: the others (small, blurred, turned away) take over the group that weighs most among
    the seeds near them, and join no groups to each other; what follows another face goes where that one goes. The same
    edges always give the same groups.
    """
    groups = np.arange(count, dtype=np.int32)
    if not len(edges):
        return groups
    speaks = ~edges.follows if seeds is None else seeds & ~edges.follows
    heard = speaks[edges.target]
    among = heard & speaks[edges.source]
    chance = np.random.default_rng(seed)
    for _ in range(_ROUNDS):
        part = chance.integers(0, _PARTS, count)
        changed = sum(_take_over(groups, edges, among & (part[edges.source] == n)) for n in range(_PARTS))
        if not changed:
            break
    frames = edges.follows[edges.source]
    _take_over(groups, edges, heard & ~speaks[edges.source] & ~frames)
    first = edges.target  # of a face that joined nobody its frames make no group either
    _take_over(groups, edges, frames & ~edges.follows[first] & (speaks[first] | (groups[first] != first)))
    return numbered(groups)


def apart(groups: Places, images: Ids, vectors: Vectors) -> Places:
    """The groups with at most one face of each image: the nearest to the group's middle stays, others stand alone.

    `images` (n,) int64: the image of each face.
    """
    groups = numbered(groups)
    order = np.lexsort((images, groups))
    same = (groups[order[1:]] == groups[order[:-1]]) & (images[order[1:]] == images[order[:-1]])
    if not same.any():
        return groups
    crowded, by_group = np.unique(groups[order[1:][same]]), groups[order]
    closeness = np.zeros(len(groups), dtype=np.float32)
    for begin, end in np.searchsorted(by_group, np.stack([crowded, crowded + 1])).T:
        members = order[begin:end]
        closeness[members] = vectors[members] @ vectors[members].sum(axis=0)
    order = np.lexsort((-closeness, images, groups))
    second = np.zeros(len(groups), dtype=np.bool_)
    same = (groups[order[1:]] == groups[order[:-1]]) & (images[order[1:]] == images[order[:-1]])
    second[order[1:]] = same
    found = groups.copy()
    found[second] = len(groups) + np.arange(int(second.sum()), dtype=np.int32)
    return numbered(found)


def numbered(groups: Places) -> Places:
    """The same groups, numbered from 0 in the order of their first faces."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    found: Places = rank[inverse]
    return found


def threshold(vectors: Vectors, *, faces: int | None = None, seed: int = 0) -> float:
    """From which cosine on two faces are neighbours, told by the library itself: nobody has to know who is who.

    Of pairs of faces drawn by chance from a library most are strangers', unless two people own it; these make the lower
    part of all cosines, and what lies far above it is people's own. So the middle (median) and the spread (median
    absolute deviation) are taken of the pairs below middle + 2.5 spreads, again until they stay (sigma clipping), from
    the lower tail on. The threshold is where a normal distribution of these leaves FALSE_MATCH_RATE of the pairs, and
    of a library with more than 1 / FALSE_MATCH_RATE faces one stranger for each face. `faces`: how many there are in
    all, where `vectors` are a sample.
    """
    faces = len(vectors) if faces is None else faces
    if len(vectors) < 2:
        return HIGHEST
    chance = np.random.default_rng(seed)
    pairs = chance.integers(0, len(vectors), (2, min(200_000, 50 * len(vectors))))
    pairs = pairs[:, pairs[0] != pairs[1]]
    if not pairs.size:
        return HIGHEST
    cosines = np.concatenate(
        [
            np.einsum("ij,ij->i", vectors[one], vectors[other])
            for one, other in zip(
                np.array_split(pairs[0], -(-pairs.shape[1] // _BLOCK_PAIRS)),
                np.array_split(pairs[1], -(-pairs.shape[1] // _BLOCK_PAIRS)),
                strict=True,
            )
        ]
    )
    middle, spread = _of_strangers(cosines)
    rate = min(FALSE_MATCH_RATE, 1 / max(2, faces))
    return float(np.clip(middle + NormalDist().inv_cdf(1 - rate) * spread, LOWEST, HIGHEST))


def _of_strangers(cosines: npt.NDArray[np.float32]) -> tuple[float, float]:
    """(middle, spread) of the lower of the heaps that these cosines make."""
    low, lower = np.quantile(cosines, [0.05, 0.2])
    normal = NormalDist()
    spread = max(1e-3, float(lower - low) / (normal.inv_cdf(0.2) - normal.inv_cdf(0.05)))
    middle = float(lower) - normal.inv_cdf(0.2) * spread
    for _ in range(20):
        kept = cosines[cosines <= middle + 2.5 * spread]
        now = float(np.median(kept))
        deviation = max(1e-3, 1.4826 * float(np.median(np.abs(kept - now))))
        if abs(now - middle) + abs(deviation - spread) < 1e-4:
            break
        middle, spread = now, deviation
    return middle, spread


@dataclass(frozen=True)
class Likely:
    """Who a face may be: the person (-1: nobody), the cosine to the nearest of their confirmed faces, and whether that
    is enough for joining them unasked."""

    person: Ids
    cosine: npt.NDArray[np.float32]
    sure: npt.NDArray[np.bool_]


def likely(vectors: Vectors, confirmed: Vectors, people: Ids, *, least: float) -> Likely:
    """For each face (n, dim) the person whose confirmed faces (m, dim) are nearest; `people` (m,) int64 says whose.

    A face is a person's surely where SEVERAL of their faces (both, of a person with two)
    are `least` or nearer, and no other person's face comes within LEAD of the nearest.
    """
    count = len(vectors)
    person, best = np.full(count, -1, dtype=np.int64), np.full(count, -1.0, dtype=np.float32)
    sure = np.zeros(count, dtype=np.bool_)
    if not len(confirmed):
        return Likely(person, best, sure)
    order = np.argsort(people, kind="stable")
    people, confirmed = people[order], confirmed[order]
    names, begin, number = np.unique(people, return_index=True, return_counts=True)
    wanted = np.minimum(number, SEVERAL)
    step = max(1, _BLOCK_SCORES // len(confirmed))
    for start in range(0, count, step):
        scores = vectors[start : start + step] @ confirmed.T
        nearest = np.maximum.reduceat(scores, begin, axis=1)
        close = np.add.reduceat(scores >= least, begin, axis=1)
        rows = np.arange(len(scores))
        first = nearest.argmax(axis=1)
        here = slice(start, start + len(scores))
        best[here] = nearest[rows, first]
        person[here] = np.where(best[here] >= least, names[first], -1)
        nearest[rows, first] = -2.0
        enough = (close[rows, first] >= wanted[first]) & (number[first] > 1)
        sure[here] = (person[here] >= 0) & enough & (best[here] - nearest.max(axis=1) >= LEAD)
    return Likely(person, best, sure)


def _take_over(groups: Places, edges: Edges, which: npt.NDArray[np.bool_]) -> int:
    """The sources of these edges take over the group that weighs most among their targets; how many changed theirs."""
    source, cosine = edges.source[which], edges.cosine[which]
    if not len(source):
        return 0
    theirs = groups[edges.target[which]]
    order = np.lexsort((theirs, source))
    source, theirs, cosine = source[order], theirs[order], cosine[order]
    begin = np.flatnonzero(np.concatenate([[True], (source[1:] != source[:-1]) | (theirs[1:] != theirs[:-1])]))
    weight = np.add.reduceat(cosine, begin)
    source, theirs = source[begin], theirs[begin]
    # The group that one has already stays where another weighs no more, so that it comes to an end.
    stays = theirs == groups[source]
    best = np.lexsort((theirs, ~stays, -weight, source))
    first = best[np.concatenate([[True], source[best][1:] != source[best][:-1]])]
    changed = groups[source[first]] != theirs[first]
    groups[source[first]] = theirs[first]
    return int(changed.sum())
