"""Which codes an index should be made of: FAISS's kinds over one set of lists, by recall, milliseconds and bytes.

    python -m benchmarks.vector_codes [--rows 100000]

Made-up vectors with the structure of CLIP embeddings, half of the queries pictures, half texts. Each kind walks through
the same share of the lists (IVF over 512 numbers, or over the principal components) and gives candidates, which are
scored exactly. Milliseconds are those of one thread's processor time, so that other work on the machine disturbs them
less; so are the seconds in which the codes are made. Prints a line of JSON for each kind and number of candidates, and
at last one with what it takes to find the nearest lists: by all products with the centroids, and through a graph of
them (HNSW).
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import faiss
import numpy as np

from benchmarks.vectors_like_clip import Vectors
from search.vectors.index_tuning import components, held_out, lists_for

DIM, AT = 512, 20
SHARE = 0.06
KINDS = ("RaBitQ", "RaBitQ2", "RaBitQ4", "PQ64", "SQ8", "SQ4", "SQ8 of components")
CANDIDATES = (150, 600, 2_400)


def measure(rows: int, kind: str, made: Vectors, data: np.ndarray, asked: np.ndarray, true: list[set[int]]) -> None:
    """One kind of code; prints what it found."""
    parts = np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))[0].astype(np.float32)
    if kind.endswith("components"):
        texts, chance = made.queries(400, text=True)[200:], np.random.default_rng(2)
        ids = np.arange(rows)
        kinds = held_out(lambda some: data[some], ids, chance, texts)
        parts = components(lambda some: data[some], ids, kinds, chance, phrases=texts)
    turned, size = np.ascontiguousarray(data @ parts), parts.shape[1]
    metric = faiss.METRIC_INNER_PRODUCT if kind.endswith("components") else faiss.METRIC_L2
    ivf: Any = faiss.index_factory(size, f"IVF{lists_for(rows)},{kind.split()[0]}", metric)
    centroids = faiss.IndexFlatL2(size)  # lists by distance, whatever the codes are compared by
    ivf.quantizer, ivf.cp.niter, ivf.cp.max_points_per_centroid = centroids, 6, 40
    if metric == faiss.METRIC_INNER_PRODUCT:
        ivf.by_residual = False  # its own search would take distances to centroids for inner products with them
    ivf.train(turned)
    began = time.process_time()
    ivf.add(turned)
    seconds = time.process_time() - began
    ivf.nprobe = max(1, int(SHARE * ivf.nlist))
    for candidates in CANDIDATES:
        shares, walked, scored = [], [], []
        for query, best in zip(asked, true, strict=True):
            began = time.thread_time()
            row = (query @ parts)[None]
            found = ivf.search(row, candidates)[1][0]
            found = found[found >= 0]
            walked.append(time.thread_time() - began)
            scores = data[found] @ query
            scored.append(time.thread_time() - began - walked[-1])
            shares.append(len(best & set(found[np.argsort(-scores)[:AT]].tolist())) / AT)
        half = len(asked) // 2
        said = {
            "kind": kind, "numbers": size, "bytes": ivf.code_size + 8, "codes_made_s": round(seconds, 1),
            "candidates": candidates, "recall_pictures": round(float(np.mean(shares[:half])), 4),
            "recall_texts": round(float(np.mean(shares[half:])), 4),
            "walk_p50_ms": round(1000 * float(np.median(walked)), 2),
            "walk_p95_ms": round(1000 * float(np.percentile(walked, 95)), 2),
            "exact_p50_ms": round(1000 * float(np.median(scored)), 2),
        }  # fmt: skip
        print(json.dumps(said), flush=True)


def nearest_lists(made: Vectors, lists: int = 4_096, numbers: int = 128, wanted: int = 256) -> dict[str, Any]:
    """Milliseconds of finding the nearest `wanted` of so many centroids, by all products and through HNSW (M 32), and
    the share of them that HNSW finds with efSearch `wanted`."""
    chance = np.random.default_rng(3)
    turn = np.linalg.qr(chance.standard_normal((DIM, DIM)))[0][:, :numbers].astype(np.float32)
    centroids = np.ascontiguousarray(next(block for _, block in made.blocks(lists)) @ turn)
    asked = np.ascontiguousarray(made.queries(200) @ turn)
    graph = faiss.IndexHNSWFlat(numbers, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = 200, wanted
    graph.add(centroids)
    products, walked, shares = [], [], []
    for query in asked:
        began = time.thread_time()
        scores = centroids @ query
        best = np.argpartition(-scores, wanted)[:wanted]
        products.append(time.thread_time() - began)
        began = time.thread_time()
        found = graph.search(query[None], wanted)[1][0]
        walked.append(time.thread_time() - began)
        shares.append(len(np.intersect1d(best, found)) / wanted)
    return {
        "centroids": lists, "numbers": numbers, "nearest": wanted,
        "products_p50_ms": round(1000 * float(np.median(products)), 3),
        "hnsw_p50_ms": round(1000 * float(np.median(walked)), 3), "hnsw_finds": round(float(np.mean(shares)), 3),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    made = Vectors(DIM)
    data = np.concatenate([block for _, block in made.blocks(options.rows)])
    asked = np.concatenate([made.queries(100), made.queries(100, text=True)])
    true = [set(np.argpartition(-(data @ query), AT)[:AT].tolist()) for query in asked]
    for kind in KINDS:
        measure(options.rows, kind, made, data, asked, true)
    print(json.dumps(nearest_lists(made)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
