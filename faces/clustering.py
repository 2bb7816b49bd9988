"""Groups of faces that are one person's each, over a graph of near neighbours. Pure.

`near` finds, for every face, its nearest others above a cosine; `whisper` makes groups of that graph; `apart` sees to
it that no group holds two faces of one picture; `threshold` says from which cosine on two faces are neighbours;
`likely` says whose a further face may be.

The groups are made by Chinese whispers (Biemann, "Chinese Whispers - an Efficient Graph Clustering Algorithm and its
Application to Natural Language Processing Problems", TextGraphs 2006): every face begins as a group of its own and,
again and again, takes over the group that weighs most among its neighbours. It needs no number of people and time in
proportion to the edges. Against connected components, which one false edge joins, and average linkage, which needs all
pairs, it was chosen by measurement: `python -m benchmarks.faces_grouping`.
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


@dataclass(frozen=True)
class Edges:
    """Neighbours, each pair in both directions, ordered by `source`: places (e,) int32 and cosines (e,) float32."""

    source: Places
    target: Places
    cosine: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.source)


def near(vectors: Vectors, least: float, *, most: int = NEIGHBOURS) -> Edges:
    """The neighbours among faces (n, dim) of unit length: cosine `least` and more, the nearest `most` of each.

    Exact. A pair is kept where either counts the other among its nearest. Memory: a block of scores, and the edges.
    """
    count = len(vectors)
    sources: list[Places] = []
    targets: list[Places] = []
    cosines: list[npt.NDArray[np.float32]] = []
    step = max(1, _BLOCK_SCORES // max(1, count))
    for start in range(0, count, step):
        scores = vectors[start : start + step] @ vectors.T
        rows = np.arange(len(scores))
        scores[rows, start + rows] = -2.0
        source, target = np.nonzero(scores >= least)
        found = scores[source, target]
        keep = _nearest_of_each(source, found, most)
        sources.append((source[keep] + start).astype(np.int32))
        targets.append(target[keep].astype(np.int32))
        cosines.append(found[keep])
    if not sources:
        nothing = np.zeros(0, dtype=np.int32)
        return Edges(nothing, nothing, np.zeros(0, dtype=np.float32))
    return both_ways(np.concatenate(sources), np.concatenate(targets), np.concatenate(cosines), count)


def both_ways(source: Places, target: Places, cosine: npt.NDArray[np.float32], count: int) -> Edges:
    """Edges of `count` faces in both directions and once each, whichever of them were given."""
    one, other = np.minimum(source, target).astype(np.int64), np.maximum(source, target).astype(np.int64)
    _, first = np.unique(one * count + other, return_index=True)
    one, other, cosine = one[first], other[first], cosine[first]
    start, end = np.concatenate([one, other]), np.concatenate([other, one])
    order = np.lexsort((end, start))
    return Edges(
        start[order].astype(np.int32),
        end[order].astype(np.int32),
        np.concatenate([cosine, cosine])[order].astype(np.float32),
    )


def whisper(edges: Edges, count: int, *, seeds: npt.NDArray[np.bool_] | None = None, seed: int = 0) -> Places:
    """The group of each of `count` faces, numbered from 0 in the order of their first faces.

    Only faces of `seeds` speak: the others (small, blurred, turned away) take over the group that weighs most among
    the seeds near them, and join no groups to each other. The same edges always give the same groups.
    """
    groups = np.arange(count, dtype=np.int32)
    if not len(edges):
        return groups
    speaks = np.ones(count, dtype=np.bool_) if seeds is None else seeds
    heard = speaks[edges.target]
    among = heard & speaks[edges.source]
    chance = np.random.default_rng(seed)
    for _ in range(_ROUNDS):
        part = chance.integers(0, _PARTS, count)
        changed = sum(_take_over(groups, edges, among & (part[edges.source] == n)) for n in range(_PARTS))
        if not changed:
            break
    _take_over(groups, edges, heard & ~speaks[edges.source])
    return numbered(groups)


def apart(groups: Places, images: Ids, vectors: Vectors) -> Places:
    """The groups with at most one face of each image: the nearest to the group's middle stays, others stand alone.

    `images` (n,) int64: the image of each face.
    """
    groups = numbered(groups)
    sums = np.zeros((int(groups.max(initial=-1)) + 1, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, groups, vectors)
    closeness = np.einsum("ij,ij->i", vectors, sums[groups])
    order = np.lexsort((-closeness, images, groups))
    second = np.zeros(len(groups), dtype=np.bool_)
    same = (groups[order[1:]] == groups[order[:-1]]) & (images[order[1:]] == images[order[:-1]])
    second[order[1:]] = same
    found = groups.copy()
    found[second] = len(sums) + np.arange(int(second.sum()), dtype=np.int32)
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

    Two faces drawn by chance from a library are nearly always two people's, so that the middle (median) and the spread
    (median absolute deviation) of such pairs are those of strangers. The threshold is where a normal distribution of
    these leaves FALSE_MATCH_RATE of the pairs, and of a library with more than 1 / FALSE_MATCH_RATE faces one stranger
    for each face. `faces`: how many there are in all, where `vectors` are a sample.
    """
    faces = len(vectors) if faces is None else faces
    if len(vectors) < 2:
        return HIGHEST
    chance = np.random.default_rng(seed)
    pairs = chance.integers(0, len(vectors), (2, min(200_000, 50 * len(vectors))))
    pairs = pairs[:, pairs[0] != pairs[1]]
    cosines = np.einsum("ij,ij->i", vectors[pairs[0]], vectors[pairs[1]])
    middle = float(np.median(cosines))
    spread = 1.4826 * float(np.median(np.abs(cosines - middle)))
    rate = min(FALSE_MATCH_RATE, 1 / max(2, faces))
    return float(np.clip(middle + NormalDist().inv_cdf(1 - rate) * spread, LOWEST, HIGHEST))


@dataclass(frozen=True)
class Likely:
    """Who a face may be: the person (-1: nobody), the cosine to the nearest of their confirmed faces, and whether that
    is enough for joining them unasked."""

    person: Ids
    cosine: npt.NDArray[np.float32]
    sure: npt.NDArray[np.bool_]


def likely(vectors: Vectors, confirmed: Vectors, people: Ids, *, least: float) -> Likely:
    """For each face (n, dim) the person whose confirmed faces (m, dim) are nearest; `people` (m,) int64 says whose.

    A face is a person's surely where SEVERAL of their faces (all, of a person with fewer than twice as many; at least
    two) are `least` or nearer, and no other person's face comes within LEAD of the nearest.
    """
    count = len(vectors)
    person, best = np.full(count, -1, dtype=np.int64), np.full(count, -1.0, dtype=np.float32)
    sure = np.zeros(count, dtype=np.bool_)
    if not len(confirmed):
        return Likely(person, best, sure)
    order = np.argsort(people, kind="stable")
    people, confirmed = people[order], confirmed[order]
    names, begin, number = np.unique(people, return_index=True, return_counts=True)
    wanted = np.where(number < 2 * SEVERAL, np.minimum(number, SEVERAL), SEVERAL)
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


def _nearest_of_each(source: npt.NDArray[np.intp], cosines: npt.NDArray[np.float32], most: int) -> Ids:
    """Places of the `most` nearest of every source; `source` ascends."""
    number = np.bincount(source, minlength=1)
    if number.max(initial=0) <= most:
        return np.arange(len(source))
    order = np.lexsort((-cosines, source))
    begins = np.repeat(np.concatenate([[0], np.cumsum(number)[:-1]]), number)
    return np.sort(order[np.arange(len(source)) - begins < most])


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
