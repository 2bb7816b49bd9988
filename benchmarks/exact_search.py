"""Exact search over the mapped embedding file: numpy in blocks (what the program does) against FAISS's flat scan.

    python -m benchmarks.exact_search [--rows 200000] [--dim 512]

Seeded random unit vectors; one query at a time, k = 60, everything in the page cache. Prints JSON with medians.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from search.vectors.local import LocalStore


def measure(rows: int = 200_000, dim: int = 512) -> dict[str, Any]:
    """Median milliseconds a query: all rows, under bitmaps that pass some, and FAISS flat over the same map."""
    import faiss

    logging.getLogger("faiss").setLevel(logging.WARNING)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="imagesearch-bench-") as folder:
        store = LocalStore(Path(folder), dim)
        write_seconds = 0.0
        for start in range(0, rows, 20_000):
            block = _unit(random, min(20_000, rows - start), dim)
            began = time.perf_counter()
            store.upsert(np.arange(start + 1, start + 1 + len(block)), block)
            write_seconds += time.perf_counter() - began
        query = _unit(random, 1, dim)
        mapped = store.file.rows()
        report: dict[str, Any] = {
            "rows": rows,
            "dim": dim,
            "written_rows_per_second": round(rows / write_seconds),
            "all_ms": _milliseconds(lambda: store.search(query, 60)),
        }
        for share in (0.9, 0.1, 0.01):
            among = random.random(rows + 1) < share
            report[f"passing_{share:g}_ms"] = _milliseconds(partial(store.search, query, 60, among))
        # Last: FAISS's threads go on spinning for a while after a scan and would slow what follows.
        flat = partial(faiss.knn, query, mapped, 60, metric=faiss.METRIC_INNER_PRODUCT)
        report["faiss_flat_ms"] = _milliseconds(flat)
        report["faiss_over_numpy"] = round(report["faiss_flat_ms"] / report["all_ms"], 2)
        store.close()
    return report


def _unit(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    rows = random.standard_normal((count, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _milliseconds(work: Callable[[], object], times: int = 15) -> float:
    work()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return round(1000 * float(np.median(taken)), 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    options = parser.parse_args()
    print(json.dumps(measure(options.rows, options.dim), indent=2))
