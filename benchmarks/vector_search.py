"""Vector search alone: the exact scan and the approximate index, without a filter and under filters of every kind.

    python -m benchmarks.vector_search [--rows 200000] [--queries 100] [--delta 50000] [--data FOLDER]

Made-up vectors with the structure of CLIP embeddings; pictures and texts as queries, one at a time, k = 60, everything
in the page cache. With --data the vectors and the index are kept there and used again. Prints JSON: for every filter
recall@20 against the exact search under it, and milliseconds, by the clock and of processor time (of all threads: on a
machine that does other work as well, compare these); then the same with `--delta` vectors that the index does not hold,
and while another process makes the index anew (niced; its work is thrown away).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.vectors_like_clip import BLOCK, Vectors
from search.arrays import Bitmap, Ids
from search.vectors import faiss_index, index_folder, local
from search.vectors.base import Hits
from search.vectors.local import LocalStore

DIM, K, AT = 512, 60, 20
MANY = 1_000
"""What a search of the program asks for (IMAGESEARCH_MAX_RESULTS)."""
SHARES = (0.9, 0.5, 0.1, 0.01, 0.001, 0.00001)


def _nothing_new(last: int) -> Ids:
    return np.zeros(0, dtype=np.int64)


def measure(rows: int, queries: int, folder: Path, delta: int) -> dict[str, Any]:
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
        named = ("seconds", "recall", "codes", "candidates", "lists", "components")
        report["index"] = {name: getattr(about, name) for name in named}
    where = index_folder.current(folder)
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

    report["passing the further half"] = _compared(store, asked[:: max(1, len(asked) // 40)], far)
    report["while another is made"] = _while_made(store, asked, there, rows)
    first = -(-rows // BLOCK) * BLOCK
    for start, block in made.blocks(first + delta, first=first):
        store.upsert(np.arange(start + 1, start + 1 + len(block)), block)
    beside = np.zeros(store.file.capacity(), dtype=np.bool_)
    beside[1 : rows + 1] = beside[first + 1 : first + delta + 1] = True
    report[f"with {delta} beside it"] = _compared(store, asked, lambda query: beside)
    store.close()
    return report


MAKE = """
import os, sys, numpy as np
from pathlib import Path
from search.vectors import faiss_index, index_folder
from search.vectors.local import LocalStore
os.nice(10)
store = LocalStore(Path(sys.argv[1]), int(sys.argv[2]))
while True:
    faiss_index.build(store.get, np.arange(1, int(sys.argv[3]) + 1), Path(sys.argv[4]), dim=store.dim)
"""


def _while_made(store: LocalStore, asked: np.ndarray, there: Bitmap, rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="imagesearch-bench-") as away:
        command = [sys.executable, "-c", MAKE, str(store.file.folder), str(DIM), str(rows), away]
        maker = subprocess.Popen(command, cwd=Path(__file__).resolve().parent.parent)
        try:
            time.sleep(5)
            found = _compared(store, np.concatenate([asked] * 3), lambda query: there)
            if maker.poll() is not None:
                raise RuntimeError("the index could not be made meanwhile")
        finally:
            maker.kill()
            maker.wait()
    return found


def _compared(store: LocalStore, asked: np.ndarray, filter_of: Any, k: int = K, at: int = AT) -> dict[str, Any]:
    shares: list[float] = []
    with_index: list[float] = []
    without: list[float] = []
    worked: list[float] = []
    worked_without: list[float] = []
    for query in asked:
        among = filter_of(query)
        began, work = time.perf_counter(), time.process_time()
        found = store.search(query, k, among)
        with_index.append(time.perf_counter() - began)
        worked.append(time.process_time() - work)
        began, work = time.perf_counter(), time.process_time()
        exact = _exact(store, query, k, among)
        without.append(time.perf_counter() - began)
        worked_without.append(time.process_time() - work)
        true = exact.ids[0][:at]
        true = true[true >= 0]
        shares.append(len(np.intersect1d(found.ids[0][:at], true)) / max(1, len(true)))
    return {
        f"recall_at_{at}": round(float(np.mean(shares)), 4),
        "p50_ms": _ms(with_index, 50), "p95_ms": _ms(with_index, 95),
        "exact_p50_ms": _ms(without, 50), "exact_p95_ms": _ms(without, 95),
        "processor_p50_ms": _ms(worked, 50), "exact_processor_p50_ms": _ms(worked_without, 50),
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
    parser.add_argument("--delta", type=int, default=50_000, help="Vectors that the index does not hold.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagesearch-bench-") as scratch:
        print(
            json.dumps(measure(options.rows, options.queries, options.data or Path(scratch), options.delta), indent=1)
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
