"""The programs and libraries that `side_by_side` compares with, each behind the same four functions.

    python -m benchmarks.rivals NAME FOLDER build|search

It runs in whichever virtual environment has the package, so nothing here needs more than numpy before a candidate is
chosen. FOLDER holds vectors.npy (rows, dim) and queries.npy (n, dim), pictures and texts by turns, with truth.npy
(n, AT), the exact first ones; each candidate keeps what it makes in a folder of its own beside them. Prints JSON
lines: `build` one; `search` one when it is tuned, then one for every line that it is sent (a round of queries), and
one with its memory at the end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

K, AT, RECALL = 60, 20, 0.99
BLOCK = 10_000
WARM, SECONDS, LEAST = 4, 6.0, 4
"""Queries before the clock counts; the most a pass over the queries may take; the least it asks all the same."""


class Candidate:
    """What one program does with the vectors; rows are numbered from 0."""

    packages: tuple[str, ...] = ()
    """Modules it needs beside numpy."""
    settings: Sequence[int] = (0,)
    """What is tuned upward until the recall is reached; (0,) where nothing is to be tuned."""
    tuned = ""
    """The name of what is tuned."""

    def ready(self) -> None:
        """Import everything; memory counts from here on."""
        for package in self.packages:
            __import__(package)

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        raise NotImplementedError

    def open(self, vectors: np.ndarray, folder: Path) -> None:
        raise NotImplementedError

    def search(self, query: np.ndarray, setting: int) -> np.ndarray:
        """Row numbers of the first K, best first."""
        raise NotImplementedError

    def close(self) -> None:
        return


def blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, rows) of the whole file, `BLOCK` at a time."""
    for start in range(0, len(vectors), BLOCK):
        yield start, np.array(vectors[start : start + BLOCK])


class Ours(Candidate):
    """The store of a space with its index, under a bitmap of what may be seen, as every search of the program.

    The index was tuned when it was made; asking for more than K makes it look at more.
    """

    settings, tuned = (60, 90, 120, 160, 240, 480, 1000), "k"

    def ready(self) -> None:
        import faiss  # noqa: F401

        import search.vectors.local  # noqa: F401

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        from search.vectors import faiss_index

        store = self._store(folder, vectors.shape[1])
        for start, block in blocks(vectors):
            store.upsert(np.arange(start + 1, start + 1 + len(block)), block)
        texts = np.load(folder.parent / "tuning.npy")
        ids = np.arange(1, len(vectors) + 1)
        faiss_index.build(store.get, ids, folder, dim=vectors.shape[1], queries=texts)
        store.close()

    def open(self, vectors: np.ndarray, folder: Path) -> None:
        self.store = self._store(folder, vectors.shape[1])
        self.among = np.zeros(self.store.file.capacity(), dtype=np.bool_)
        self.among[1 : len(vectors) + 1] = True

    def search(self, query: np.ndarray, setting: int) -> np.ndarray:
        found: np.ndarray = self.store.search(query, setting, self.among).ids[0] - 1
        return found[:K]

    def _store(self, folder: Path, dim: int) -> Any:
        from search.vectors.local import LocalStore

        return LocalStore(folder, dim, news=lambda last: np.zeros(0, dtype=np.int64))


class Numpy(Candidate):
    """The exact scan of a matrix in memory."""

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        np.save(folder / "matrix.npy", vectors)

    def open(self, vectors: np.ndarray, folder: Path) -> None:
        self.matrix = np.load(folder / "matrix.npy")

    def search(self, query: np.ndarray, setting: int) -> np.ndarray:
        scores = self.matrix @ query
        best = np.argpartition(-scores, K)[:K]
        return best[np.argsort(-scores[best])]


class Rclip(Candidate):
    """rclip's own code from its database to the sorted list; the query's vector is given instead of computed."""

    packages = ("rclip.main",)

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        from rclip.db import DB, NewImage

        database = DB(folder / "db.sqlite3")
        for start, block in blocks(vectors):
            for number, row in enumerate(block, start):
                database.upsert_image(
                    NewImage(
                        filepath=f"/photos/{number:09}.jpg", modified_at=0.0, size=1, vector=row.tobytes(), hash=None
                    ),
                    commit=False,
                )
        database.close()

    def open(self, vectors: np.ndarray, folder: Path) -> None:
        from rclip.db import DB
        from rclip.main import RClip
        from rclip.model import Model

        asked = self

        class Given(Model):  # type: ignore[misc]
            def compute_features_for_queries(self, queries: list[str]) -> Any:
                return asked.query if queries else np.zeros(Model.VECTOR_SIZE, dtype=np.float32)

        self.rclip = RClip(Given(), DB(folder / "db.sqlite3"), 8, None)

    def search(self, query: np.ndarray, setting: int) -> np.ndarray:
        self.query = query
        found = self.rclip.search("a picture", "/photos", top_k=K)
        return np.array([int(one.filepath[8:-4]) for one in found])


class Hnswlib(Candidate):
    packages = ("hnswlib",)
    settings, tuned = (60, 100, 150, 200, 300, 400, 600, 800, 1200, 2000, 4000), "ef"

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        import hnswlib

        graph = hnswlib.Index(space="ip", dim=vectors.shape[1])
        graph.init_index(max_elements=len(vectors), M=16, ef_construction=200)
        for start, block in blocks(vectors):
            graph.add_items(block, np.arange(start, start + len(block)))
        graph.save_index(str(folder / "hnswlib.bin"))

    def open(self, vectors: np.ndarray, folder: Path) -> None:
        import hnswlib

        self.graph = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self.graph.load_index(str(folder / "hnswlib.bin"))

    def search(self, query: np.ndarray, setting: int) -> np.ndarray:
        self.graph.set_ef(setting)
        found: np.ndarray = self.graph.knn_query(query, k=K, num_threads=1)[0][0].astype(np.int64)
        return found


class Usearch(Candidate):
    """usearch's graph, mapped from the disk and not read into memory."""

    packages = ("usearch.index",)
    settings, tuned = Hnswlib.settings, "expansion"
    kept_as = "f32"

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        from usearch.index import Index

        graph = Index(ndim=vectors.shape[1], metric="ip", dtype=self.kept_as, connectivity=16, expansion_add=200)
        for start, block in blocks(vectors):
            graph.add(np.arange(start, start + len(block)), block, threads=0)
        graph.save(str(folder / "usearch.bin"))

    def open(self, vectors: np.ndarray, folder: Path) -> None:
        from usearch.index import Index

        self.graph = Index.restore(str(folder / "usearch.bin"), view=True)

    def search(self, query: np.ndarray, setting: int) -> np.ndarray:
        self.graph.expansion_search = setting
        found: np.ndarray = self.graph.search(query, K, threads=1).keys.astype(np.int64)
        return found


class UsearchHalf(Usearch):
    kept_as = "bf16"


class UsearchBytes(Usearch):
    kept_as = "i8"


class Milvus(Candidate):
    """milvus-lite through pymilvus: since version 3 a Python server in the same process over FAISS's indexes."""

    packages = ("pymilvus", "milvus_lite")
    settings: Sequence[int] = (60, 100, 200, 400, 800, 1600)
    tuned = "ef"
    kind, making = "HNSW", {"M": 16, "efConstruction": 200}

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        from pymilvus import DataType, MilvusClient

        client = MilvusClient(str(folder / "milvus.db"))
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        index = client.prepare_index_params()
        index.add_index("vector", index_type=self.kind, metric_type="IP", params=self.making)
        client.create_collection("images", schema=schema, index_params=index)
        for start, block in blocks(vectors):
            client.insert("images", [{"id": start + n, "vector": row} for n, row in enumerate(block)])
        client.flush("images")
        client.load_collection("images")
        client.close()

    def open(self, vectors: np.ndarray, folder: Path) -> None:
        from pymilvus import MilvusClient

        self.client = MilvusClient(str(folder / "milvus.db"))
        self.client.load_collection("images")

    def search(self, query: np.ndarray, setting: int) -> np.ndarray:
        params = {"metric_type": "IP", "params": {self.tuned: setting}}
        found = self.client.search("images", data=[query], limit=K, search_params=params)
        return np.array([one["id"] for one in found[0]])

    def close(self) -> None:
        self.client.close()


class MilvusLists(Milvus):
    settings: Sequence[int] = (4, 8, 16, 32, 64, 128, 256, 512)
    tuned = "nprobe"
    kind, making = "IVF_FLAT", {"nlist": 1024}


class SqliteVec(Candidate):
    """sqlite-vec's exact scan inside SQLite."""

    packages = ("apsw", "sqlite_vec")
    columns, values = "embedding float[{dim}]", "?2"

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        database = self._database(folder)
        columns = self.columns.format(dim=vectors.shape[1])
        database.execute(f"CREATE VIRTUAL TABLE images USING vec0(id INTEGER PRIMARY KEY, {columns})")
        with database:
            for start, block in blocks(vectors):
                rows = ((number, row.tobytes()) for number, row in enumerate(block, start))
                database.executemany(f"INSERT INTO images VALUES (?1, {self.values})", rows)
        database.close()

    def open(self, vectors: np.ndarray, folder: Path) -> None:
        self.database = self._database(folder)

    def search(self, query: np.ndarray, setting: int) -> np.ndarray:
        sql = "SELECT id FROM images WHERE embedding MATCH ?1 AND k = ?2 ORDER BY distance"
        return np.array([one for (one,) in self.database.execute(sql, (query.tobytes(), K))])

    def _database(self, folder: Path) -> Any:
        import apsw  # many a Python's own sqlite3 cannot load extensions
        import sqlite_vec

        database = apsw.Connection(str(folder / "images.sqlite3"))
        database.enable_load_extension(True)
        database.load_extension(sqlite_vec.loadable_path())
        return database


class SqliteVecBits(SqliteVec):
    """The same over one bit a number, the candidates scored exactly, as its guide shows."""

    settings: Sequence[int] = (120, 240, 480, 960, 1920, 4096)
    tuned = "candidates"
    columns, values = "embedding float[{dim}], coarse bit[{dim}]", "?2, vec_quantize_binary(?2)"

    def search(self, query: np.ndarray, setting: int) -> np.ndarray:
        sql = (
            "WITH near AS (SELECT id, embedding FROM images WHERE coarse MATCH vec_quantize_binary(?1) AND k = ?2)"
            " SELECT id FROM near ORDER BY vec_distance_cosine(embedding, ?1) LIMIT ?3"
        )
        return np.array([one for (one,) in self.database.execute(sql, (query.tobytes(), setting, K))])


CANDIDATES: dict[str, type[Candidate]] = {
    "ours": Ours,
    "numpy": Numpy,
    "rclip": Rclip,
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "usearch-bf16": UsearchHalf,
    "usearch-i8": UsearchBytes,
    "milvus-lite": Milvus,
    "milvus-lite-ivf": MilvusLists,
    "sqlite-vec": SqliteVec,
    "sqlite-vec-bits": SqliteVecBits,
}


def build(candidate: Candidate, folder: Path, own: Path) -> dict[str, Any]:
    """Make it anew; seconds, the most memory meanwhile, what lies on the disk then."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    candidate.ready()
    own.mkdir(parents=True)
    began = time.perf_counter()
    candidate.build(vectors, own)
    seconds = time.perf_counter() - began
    disk = sum(one.stat().st_size for one in own.rglob("*") if one.is_file())
    return {"build_s": round(seconds, 1), "build_peak_mb": memory()["VmHWM"], "disk_mb": round(disk / 1e6)}


def search(candidate: Candidate, folder: Path, own: Path) -> Iterator[dict[str, Any]]:
    """Tune it upward until pictures and texts both reach the recall; then a round of queries for each line of stdin."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    candidate.ready()
    before = memory()
    candidate.open(vectors, own)
    for setting in candidate.settings:
        one_pass(candidate, queries[:WARM], truth, setting)
        found = one_pass(candidate, queries, truth, setting)
        if min(found["recalls"]) >= RECALL:
            break
    pictures, texts = found["recalls"]
    yield {
        "setting": f"{candidate.tuned} {setting}" if candidate.tuned else "",
        "recall_pictures": round(pictures, 4), "recall_texts": round(texts, 4),
        "reached": min(pictures, texts) >= RECALL,
    }  # fmt: skip
    for _ in sys.stdin:
        one_pass(candidate, queries[:WARM], truth, setting)
        yield one_pass(candidate, queries, truth, setting)
    after = memory()
    yield {"anon_mb": after["RssAnon"] - before["RssAnon"], "file_mb": after["RssFile"] - before["RssFile"]}
    candidate.close()


def one_pass(candidate: Candidate, queries: np.ndarray, truth: np.ndarray, setting: int) -> dict[str, list[float]]:
    """The recalls of pictures and of texts, the milliseconds of each query and its milliseconds of processor time."""
    shares: list[float] = []
    wall: list[float] = []
    cpu: list[float] = []
    for query, right in zip(queries, truth, strict=False):
        began, used = time.perf_counter(), time.process_time()
        found = candidate.search(query, setting)
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - used))
        shares.append(len(np.intersect1d(found[:AT], right)) / AT)
        if len(wall) >= LEAST and sum(wall) > 1000 * SECONDS:
            break
    return {"recalls": [float(np.mean(shares[::2])), float(np.mean(shares[1::2]))], "wall": wall, "cpu": cpu}


def memory() -> dict[str, int]:
    """RssAnon, RssFile and VmHWM (the most ever resident) of this process, in MB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    wanted = ("RssAnon:", "RssFile:", "VmHWM:")
    return {line[0][:-1]: round(int(line[1]) * 1024 / 1e6) for line in lines if line and line[0] in wanted}


def main() -> int:
    name, given, step = sys.argv[1:]
    folder = Path(given)
    candidate = CANDIDATES[name]()
    made = (
        iter([build(candidate, folder, folder / name)]) if step == "build" else search(candidate, folder, folder / name)
    )
    for line in made:
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
