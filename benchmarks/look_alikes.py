"""All pairs of look-alikes among a million perceptual hashes, and the groups of them.

    python -m benchmarks.look_alikes [--size 1000000] [--within 5] [--rows 2000]

Seeded hashes as a library has them: random ones, a fifth in families of one picture (resized, recompressed, slightly
edited: up to six bits flipped), up to 100,000 in a skewed mass (screenshots of two hundred layouts, and frames that
differ in a few bits of one corner), some identical. A sample of hashes is compared with every other one, and has to
have exactly the pairs that were found; with --rows 0 that is left out. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from search import hamming
from search.hamming import Hashes, Pairs

LAYOUTS, MASS = 200, 100_000
BAR_SECONDS = 60
"""For a million."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--within", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2_000)
    options = parser.parse_args()
    hashes = library(options.size)
    before = _peak()
    report: dict[str, Any] = {"hashes": len(hashes), "within": options.within}
    found, report["pairs"] = timed(lambda: hamming.pairs(hashes, options.within))
    report |= {"distinct": len(found.values), "count": len(found.pairs), "complete_within": found.within}
    paired = _peak()
    centre, report["groups"] = timed(lambda: _centres(found))
    report["groups"]["count"] = int((np.bincount(centre) > 1).sum())
    report["memory_mb"] = {"hashes": before, "with_pairs": paired, "with_groups": _peak()}
    bar = BAR_SECONDS * max(1.0, len(hashes) / 1e6)
    report["bar"] = {"seconds": bar, "held": report["pairs"]["seconds"] <= bar}
    wrong = 0
    if options.rows:
        wrong = differing(found, options.rows)
        report["checked"] = {"rows": min(options.rows, len(found.values)), "differing": wrong}
    json.dump(report, sys.stdout, indent=2)
    print()
    return 1 if wrong else 0


def library(size: int, seed: int = 1) -> Hashes:
    """`size` hashes, (size,) uint64."""
    random = np.random.default_rng(seed)
    families, mass = size // 5, min(size // 10, MASS)
    alone = random.integers(0, 2**64, size - families - mass, dtype=np.uint64)
    alike = flipped(alone[random.integers(0, max(1, families // 4), families)], 6, 64, random)
    screens = flipped(
        random.integers(0, 2**64, LAYOUTS, dtype=np.uint64)[random.integers(0, LAYOUTS, mass // 2)], 8, 64, random
    )
    frames = flipped(np.full(mass - mass // 2, 0x80808080, dtype=np.uint64), 10, 20, random)
    return random.permutation(np.concatenate([alone, alike, screens, frames]))


def flipped(hashes: Hashes, most: int, low: int, random: np.random.Generator) -> Hashes:
    """Each with 0 to `most` of its lower `low` bits flipped."""
    flips = random.integers(0, most + 1, len(hashes))
    for turn in range(most):
        bits = np.uint64(1) << random.integers(0, low, len(hashes)).astype(np.uint64)
        hashes = np.where(turn < flips, hashes ^ bits, hashes)
    return hashes


def _centres(found: Pairs) -> Any:
    degree = np.bincount(found.pairs.ravel(), minlength=len(found.values))
    rank = np.empty(len(degree), dtype=np.int64)
    rank[np.argsort(-degree, kind="stable")] = np.arange(len(degree))
    return hamming.groups(found.pairs, found.distances, rank)


def differing(found: Pairs, rows: int) -> int:
    """How many of a sample of hashes have other pairs than comparing them with every hash finds: half of the sample
    from those that have pairs."""
    random = np.random.default_rng(2)
    with_pairs = np.unique(found.pairs)
    half = min(rows // 2, len(with_pairs))
    drawn = np.concatenate(
        [random.choice(with_pairs, half, replace=False), random.choice(len(found.values), rows - half)]
    )
    sample = np.unique(drawn)
    near: dict[int, set[int]] = {one: set() for one in sample.tolist()}
    for column in (0, 1):
        for pair in found.pairs[np.isin(found.pairs[:, column], sample)].tolist():
            near[pair[column]].add(pair[1 - column])
    wrong = 0
    for row, others in near.items():
        distance = np.bitwise_count(found.values ^ found.values[row])
        wrong += set(np.flatnonzero(distance <= found.within).tolist()) - {row} != others
    return wrong


def timed(doing: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    started, processor = time.perf_counter(), time.process_time()
    found = doing()
    return found, {
        "seconds": round(time.perf_counter() - started, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
    }


def _peak() -> int:
    """The largest this process has been, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
