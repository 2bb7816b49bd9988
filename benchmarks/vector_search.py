"""Vector search alone: the exact scan and the approximate index, without a filter and under filters of every kind.

    python -m benchmarks.vector_search [--rows 200000] [--queries 100] [--data FOLDER]

Made-up vectors with the structure of CLIP embeddings; pictures and texts as queries, one at a time, k = 60, everything
in the page cache. With --data the vectors and the index are kept there and used again. Prints JSON: for every filter
recall@20 against the exact search under it, and milliseconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.vectors_like_clip import Vectors
from search.arrays import Bitmap, Ids
from search.vectors import faiss_index, local
from search.vectors.base import Hits
from search.vectors.local import LocalStore

DIM, K, AT = 512, 60, 20
MANY = 1_000
"""What a search of the program asks for (IMAGESEARCH_MAX_RESULTS)."""
SHARES = (0.9, 0.5, 0.1, 0.01, 0.001, 0.00001)


def _nothing_new(last: int) -> Ids:
    return np.zeros(0, dtype=np.int64)


def measure(rows: int, queries: int, folder: Path) -> dict[str, Any]:
    """The whole report."""
    made = Vectors(DIM)
    store = LocalStore(folder, DIM, news=_nothing_new)
    report: dict[str, Any] = {"rows": rows, "dim": DIM, "k": K}
    if store.file.capacity() <= rows:
        began = time.perf_counter()
        for start, block in made.blocks(rows):
            store.upsert(np.arange(start + 1, start + 1 + len(block)), block)
        report["written_s"] = round(time.perf_counter() - began, 1)
    if store.index() is None:
        texts = made.queries(400, text=True)[200:]
        about = faiss_index.build(store.get, np.arange(1, rows + 1), folder, dim=DIM, queries=texts)
        report["index"] = {"seconds": about.seconds, "recall": about.recall, "codes": about.codes,
                           "candidates": about.candidates, "lists": about.lists}  # fmt: skip
    where = faiss_index.current(folder)
    report["index_bytes"] = sum(one.stat().st_size for one in where.iterdir()) if where else 0
    asked = np.concatenate([made.queries(queries // 2), made.queries(queries - queries // 2, text=True)])
    chance = np.random.default_rng(1)
    size = store.file.capacity()
    there = np.zeros(size, dtype=np.bool_)
    there[1 : rows + 1] = True
    report[f"first {MANY}"] = _compared(store, asked, lambda query: there, k=MANY, at=MANY)
    for share in (1.0, *SHARES):
        among = there & (chance.random(size) < share)
        report[f"passing {100 * share:g} %"] = _compared(store, asked, lambda query, among=among: among)

    def far(query: np.ndarray) -> Bitmap:
        """The half of all rows that lies further from this query."""
        scores = store.file.rows() @ query
        return there & (scores < np.median(scores[1 : rows + 1]))

    report["passing the further half"] = _compared(store, asked[:: max(1, len(asked) // 20)], far)
    store.close()
    return report


def _compared(store: LocalStore, asked: np.ndarray, filter_of: Any, k: int = K, at: int = AT) -> dict[str, Any]:
    shares, with_index, without = [], [], []
    for query in asked:
        among = filter_of(query)
        began = time.perf_counter()
        found = store.search(query, k, among)
        with_index.append(time.perf_counter() - began)
        began = time.perf_counter()
        exact = _exact(store, query, k, among)
        without.append(time.perf_counter() - began)
        true = exact.ids[0][:at]
        true = true[true >= 0]
        shares.append(len(np.intersect1d(found.ids[0][:at], true)) / max(1, len(true)))
    return {
        f"recall_at_{at}": round(float(np.mean(shares)), 4),
        "p50_ms": _ms(with_index, 50), "p95_ms": _ms(with_index, 95),
        "exact_p50_ms": _ms(without, 50), "exact_p95_ms": _ms(without, 95),
    }  # fmt: skip


def _exact(store: LocalStore, query: np.ndarray, k: int, among: Bitmap) -> Hits:
    before = local.EXACT_UP_TO
    local.EXACT_UP_TO = len(among)
    try:
        return store.search(query, k, among)
    finally:
        local.EXACT_UP_TO = before


def _ms(seconds: list[float], percentile: int) -> float:
    return round(1000 * float(np.percentile(seconds, percentile)), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--data", type=Path, help="Keep the vectors and the index in this folder.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagesearch-bench-") as scratch:
        print(json.dumps(measure(options.rows, options.queries, options.data or Path(scratch)), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
