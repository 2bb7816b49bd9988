"""Groups of faces on real photographs, with the people known, and how long they take at size.

    python -m benchmarks.faces_grouping [--pack FOLDER] [--people FOLDER] [--others FOLDER] [--count 100000 500000]
        [--json]

--people holds a folder of photos for each person (`../shared/photos/people/lfw`), --others photos of anybody
(`../shared/photos/captioned`): all their faces are grouped together, with no name given. The face of a person in their
photo is the one nearest to its middle. Told for every threshold, and for the one that the program takes by itself,
which is told by pairs drawn by chance from the faces of --others (`faces.clustering.threshold`): it never looks at the
people whom it is measured on. Connected components and average linkage are beside it, at the same threshold.

B-cubed precision and recall (Bagga and Baldwin, "Entity-Based Cross-Document Coreferencing Using the Vector Space
Model", 1998), pairwise ones, and how many unlabelled faces lie in the groups of the people (contamination). Then one
face of each person is named, 20 times another one: how many of the rest are suggested rightly.

--count: made-up faces, whose cosines within and between people are spread as those of the real ones; people with two to
thousands of faces, one of them with a tenth of all, three in ten of nobody who comes back, several on a picture, a
quarter of low quality. Seconds, memory (each number in a process of its own), and B-cubed of the groups.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.recrawl import peak_of  # noqa: E402
from faces import clustering  # noqa: E402

SHARED = Path(os.environ.get("IMAGESEARCH_SHARED", ROOT.parent / "shared"))
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
CHOICES = 20
BAR_F1, BAR_SUGGESTED = 0.97, 0.97
SUFFIXES = {".jpg", ".jpeg", ".png"}
NOBODY = -1


@dataclass(frozen=True)
class Faces:
    """All faces: vectors (n, dim), the image of each, whose it is (NOBODY: not known), whether it may seed a group."""

    vectors: npt.NDArray[np.float32]
    images: npt.NDArray[np.int64]
    who: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.bool_]


def found(pack: Path, people: Path, others: Path) -> tuple[Faces, float]:
    """The faces of all photos, and how many photos a second were looked through."""
    import PIL.Image

    from faces.insightface_pack import InsightFacePack

    detector = InsightFacePack(pack)
    names = sorted(one.name for one in people.iterdir() if one.is_dir())
    files = [(file, names.index(folder)) for folder in names for file in _pictures(people / folder)]
    files += [(file, NOBODY) for file in _pictures(others)]
    vectors, images, who, seeds = [], [], [], []
    began = time.perf_counter()
    for number, (file, person) in enumerate(files):
        try:
            picture = PIL.Image.open(file).convert("RGB")
        except OSError:
            continue
        faces = detector.find(picture)
        if not faces:
            continue
        away = [
            np.hypot(one.box.left + one.box.width / 2 - 0.5, one.box.top + one.box.height / 2 - 0.5) for one in faces
        ]
        for place, face in enumerate(faces):
            vectors.append(face.vector)
            images.append(number)
            who.append(person if place == int(np.argmin(away)) else NOBODY)
            seeds.append(not face.low_quality)
    pace = len(files) / (time.perf_counter() - began)
    return Faces(np.stack(vectors), np.array(images), np.array(who), np.array(seeds)), pace


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def others_ways(faces: Faces, least: float) -> dict[str, dict[str, Any]]:
    """What else makes groups of the same faces at the same threshold."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import squareform

    scores = faces.vectors @ faces.vectors.T
    far = np.clip(1 - scores, 0, 2)
    np.fill_diagonal(far, 0)
    tree = linkage(squareform(far, checks=False), "average")
    return {
        "connected_components": quality(connected_components(csr_array(scores >= least))[1], faces.who),
        "average_linkage": quality(fcluster(tree, 1 - least, "distance"), faces.who),
    }


def grouped(faces: Faces, least: float) -> clustering.Places:
    """As the program does it, with its threshold."""
    return clustering.grouped(faces.vectors, faces.images, least=least, seeds=faces.seeds)


def quality(groups: clustering.Places, who: npt.NDArray[np.int64]) -> dict[str, Any]:
    """B-cubed and pairwise precision and recall on the faces whose person is known, and the contamination."""
    known = np.flatnonzero(who >= 0)
    mine, theirs = groups[known], who[known]
    _, cell, both = np.unique(np.stack([mine, theirs]), axis=1, return_inverse=True, return_counts=True)
    _, at_group, in_group = np.unique(mine, return_inverse=True, return_counts=True)
    _, at_person, of_person = np.unique(theirs, return_inverse=True, return_counts=True)
    together = both[cell.ravel()]
    precision, recall = float(np.mean(together / in_group[at_group])), float(np.mean(together / of_person[at_person]))
    pairs = float(np.sum(both * (both - 1.0)))
    pair_precision = pairs / max(1.0, float(np.sum(in_group * (in_group - 1.0))))
    pair_recall = pairs / max(1.0, float(np.sum(of_person * (of_person - 1.0))))
    strange = np.isin(groups, np.unique(mine)) & (who < 0)
    return {
        "b_cubed_precision": round(precision, 4), "b_cubed_recall": round(recall, 4),
        "b_cubed_f1": round(2 * precision * recall / (precision + recall), 4),
        "pairwise_precision": round(pair_precision, 4), "pairwise_recall": round(pair_recall, 4),
        "groups_of_known": len(np.unique(mine)), "contamination": int(strange.sum()),
    }  # fmt: skip


def suggested(faces: Faces, least: float) -> float:
    """The share of the other faces of people that are suggested rightly when one face of each is named: those of its
    group, and the nearest named one's otherwise. Mean over CHOICES choices of that face."""
    groups = grouped(faces, least)
    people = np.unique(faces.who[faces.who >= 0])
    chance = np.random.default_rng(0)
    shares = []
    for _ in range(CHOICES):
        named = np.array([chance.choice(np.flatnonzero(faces.who == one)) for one in people])
        rest = np.setdiff1d(np.flatnonzero(faces.who >= 0), named)
        likely = clustering.likely(faces.vectors[rest], faces.vectors[named], people, least=least)
        of_group = {int(groups[face]): int(person) for face, person in zip(named, people, strict=True)}
        said = [of_group.get(int(groups[face]), int(person)) for face, person in zip(rest, likely.person, strict=True)]
        shares.append(np.mean(np.array(said) == faces.who[rest]))
    return float(np.mean(shares))


def structure(real: Faces) -> dict[str, float]:
    """How the cosines of known people are spread: the middle within people, middle and spread between them."""
    known = real.vectors[real.who >= 0], real.who[real.who >= 0]
    scores = known[0] @ known[0].T
    same = np.equal.outer(known[1], known[1])
    within = float(np.median(scores[same & ~np.eye(len(scores), dtype=np.bool_)]))
    between = scores[~same]
    return {
        "dim": real.vectors.shape[1], "within": within, "between": float(np.mean(between)),
        "spread": float(np.std(between)),
    }  # fmt: skip


def made_up(count: int, like: dict[str, float], *, seed: int = 0) -> Faces:
    """Faces whose cosines are spread as `structure` says; see the module's text."""
    chance = np.random.default_rng(seed)
    # Random directions of d numbers have cosines spread by 1 / sqrt(d), about the square of what all have in common.
    common = np.sqrt(max(0.0, like["between"]))
    few = max(8, min(int(like["dim"]) - 1, round(((1 - common**2) / like["spread"]) ** 2)))
    sizes = [count // 10]
    while sum(sizes) < 0.7 * count:
        sizes.append(int(min(count // 50, 2 + chance.pareto(1.1) * 4)))
    strangers = max(0, count - sum(sizes))
    who = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.arange(len(sizes), len(sizes) + strangers)])
    who = chance.permutation(who[:count])
    middles = chance.standard_normal((int(who.max()) + 1, few)).astype(np.float32)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    vectors = np.zeros((count, int(like["dim"])), dtype=np.float32)
    noise = np.sqrt((1 - common**2) / max(1e-3, like["within"] - common**2) - 1)
    for start in range(0, count, 50_000):
        some = slice(start, min(count, start + 50_000))
        own = chance.standard_normal((some.stop - start, few)).astype(np.float32)
        own = middles[who[some]] + noise * own / np.linalg.norm(own, axis=1, keepdims=True)
        vectors[some, 1 : few + 1] = own / np.linalg.norm(own, axis=1, keepdims=True) * np.sqrt(1 - common**2)
        vectors[some, 0] = common
    images = np.sort(chance.integers(0, max(1, count // 2), count))
    return Faces(vectors, images, who.astype(np.int64), chance.random(count) < 0.75)


def at_size(count: int, like: dict[str, float]) -> dict[str, Any]:
    """Made-up faces, grouped as the program does it, in this process."""
    faces = made_up(count, like)
    least = clustering.threshold(faces.vectors[:: max(1, count // 20_000)], faces=count)
    found: list[clustering.Places] = []
    began = time.perf_counter()
    memory = peak_of(lambda: found.append(grouped(faces, least)))
    seconds = time.perf_counter() - began
    return {
        "threshold": round(least, 3), "seconds": round(seconds, 1), "memory_beyond_the_vectors_mb": memory,
        **quality(found[0], faces.who),
    }  # fmt: skip


def in_a_process(count: int, like: dict[str, float]) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.faces_grouping",
        "--inside",
        json.dumps({"count": count, "like": like}),
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pack", type=Path, default=SHARED / "models" / "faces")
    parser.add_argument("--people", type=Path, default=SHARED / "photos" / "people" / "lfw")
    parser.add_argument("--others", type=Path, default=SHARED / "photos" / "captioned")
    parser.add_argument("--count", type=int, nargs="*", default=[100_000])
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        print(json.dumps(at_size(**json.loads(options.inside))))
        return 0
    if any(count < 1_000 for count in options.count):
        parser.error("--count takes 1000 and more")
    missing = [str(one) for one in (options.pack, options.people, options.others) if not one.is_dir()]
    if missing:
        print(json.dumps({"left_out": f"not here: {', '.join(missing)} (set IMAGESEARCH_SHARED)"}))
        return 0
    real, pace = found(options.pack, options.people, options.others)
    others = real.vectors[(real.who < 0) & real.seeds]
    least = clustering.threshold(others, faces=len(real.vectors))
    report: dict[str, Any] = {
        "photos_a_second": round(pace, 1), "faces": len(real.vectors), "labelled": int((real.who >= 0).sum()),
        "curve": {str(one): quality(grouped(real, one), real.who) for one in THRESHOLDS},
        "default": {"threshold": round(least, 3), **quality(grouped(real, least), real.who)},
        "suggested_rightly": round(suggested(real, least), 4),
        "other_ways": others_ways(real, least),
        "at_size": {f"{count:,}": in_a_process(count, structure(real)) for count in options.count},
    }  # fmt: skip
    report["bars"] = {
        "b_cubed_f1": f"{'held' if report['default']['b_cubed_f1'] >= BAR_F1 else 'MISSED'} ({BAR_F1})",
        "suggested": f"{'held' if report['suggested_rightly'] >= BAR_SUGGESTED else 'MISSED'} ({BAR_SUGGESTED})",
    }
    print(json.dumps(report, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
