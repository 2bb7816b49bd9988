"""The approximate index beside the embedding file: as good as it says, never wrong about what may be found."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from search.arrays import Bitmap, Ids, Vectors
from search.errors import StoreFault
from search.vectors import faiss_index, index_folder, local
from search.vectors.local import LocalStore

ROOT = Path(__file__).resolve().parent.parent
DIM, ROWS = 64, 6_000
POINTS = ["index-written", "index-renamed", "index-current"]


def clustered(count: int, seed: int) -> Vectors:
    """(count, DIM) unit rows in clusters, off the centre, as embeddings lie."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((60, DIM))
    rows = centres[chance.integers(0, 60, count)] + 0.5 * chance.standard_normal((count, DIM)) + 0.6
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Home:
    """A store with an index, and what was written since it was made."""

    def __init__(self, folder: Path) -> None:
        self.written: set[int] = set()
        self.store = LocalStore(folder, DIM, news=self.news)
        self.ids = np.random.default_rng(3).permutation(ROWS * 2)[:ROWS].astype(np.int64)
        self.store.upsert(self.ids, clustered(ROWS, 1))
        self.size = self.store.file.capacity()

    def news(self, last: int) -> Ids:
        return np.array(sorted(self.written), dtype=np.int64)

    def make(self, **more: object) -> faiss_index.About:
        ids = np.flatnonzero(self.store.file.rows().any(axis=1))
        about = faiss_index.build(self.store.get, ids, self.store.file.folder, dim=DIM, **more)  # type: ignore[arg-type]
        self.written.clear()
        return about

    def exact(self, query: Vectors, k: int, among: Bitmap | None = None) -> list[int]:
        rows = self.store.file.rows()
        scores = rows @ query
        there = rows.any(axis=1) if among is None else rows.any(axis=1) & among
        ids = np.flatnonzero(there)
        return ids[np.argsort(-scores[ids], kind="stable")[:k]].tolist()

    def recall(self, k: int = 20, among: Bitmap | None = None, queries: int = 40) -> float:
        shares = []
        for query in clustered(queries, 7):
            found = self.store.search(query, k, among).ids[0]
            true = self.exact(query, k, among)
            shares.append(len(set(found.tolist()) & set(true)) / len(true))
        return float(np.mean(shares))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(local, "EXACT_UP_TO", 200)
    return Home(tmp_path / "space")


def test_it_reaches_the_recall_that_it_states_and_says_what_it_is(home: Home) -> None:
    about = home.make(last=41)
    assert about.reached and about.recall >= 0.99 and (about.rows, about.dim, about.last) == (ROWS, DIM, 41)
    index = home.store.index()
    assert index is not None and index.about == about
    assert home.recall() >= 0.98
    one = index.candidates(clustered(1, 8)[0], 300)
    assert one is not None and len(one) == 300 == len(set(one.tolist())) and set(one.tolist()) <= set(home.ids.tolist())


def test_scores_are_those_of_the_file_and_ties_go_to_the_smaller_id(home: Home) -> None:
    home.make()
    query = clustered(1, 9)[0]
    hits = home.store.search(query, 30)
    assert np.allclose(hits.scores[0], home.store.get(hits.ids[0]) @ query, atol=1e-6)
    assert (np.diff(hits.scores[0]) <= 0).all()
    twins = np.sort(home.ids)[[5, 50, 500]]
    home.store.upsert(twins, np.repeat(query[None], 3, axis=0))
    home.written.update(twins.tolist())
    assert home.store.search(query, 3).ids[0].tolist() == twins.tolist()


@pytest.mark.parametrize("share", [0.9, 0.3, 0.1, 0.01])
def test_a_filter_loses_nothing(home: Home, share: float) -> None:
    home.make()
    among = np.random.default_rng(5).random(home.size) < share
    for query in clustered(5, 11):
        assert among[home.store.search(query, 50, among).ids[0]].all()
    assert home.recall(among=among) >= 0.98


def test_a_filter_that_disagrees_with_the_query_loses_nothing(home: Home) -> None:
    home.make()
    rows = home.store.file.rows()
    for query in clustered(20, 13):
        scores = rows @ query
        among = scores < np.median(scores[home.ids])
        assert home.store.search(query, 20, among).ids[0].tolist() == home.exact(query, 20, among)


class Wide:
    """A store of 128 dimensions in which rows differ in few directions, as those of networks do, and texts that lie
    apart from all of them."""

    dim, rows = 128, 30_000

    def __init__(self, folder: Path, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.basis = np.linalg.qr(chance.standard_normal((self.dim, 26)))[0].T
        self.centres = chance.standard_normal((40, 24))
        self.store = LocalStore(folder, self.dim, news=lambda last: np.zeros(0, dtype=np.int64))
        self.ids = np.arange(1, self.rows + 1)
        self.store.upsert(self.ids, self.unit(self.drawn(self.rows, chance)))
        self.texts, self.pictures = self.asked(100, chance, text=True), self.asked(20, chance, text=False)

    def drawn(self, count: int, chance: np.random.Generator) -> Vectors:
        where = self.centres[chance.integers(0, 40, count)] + 0.6 * chance.standard_normal((count, 24))
        noise = 0.01 * chance.standard_normal((count, self.dim))
        return 0.2 * where @ self.basis[:24] + self.basis[24] + noise

    def asked(self, count: int, chance: np.random.Generator, *, text: bool) -> Vectors:
        rows = self.drawn(count, chance)
        return self.unit(rows - rows.mean(axis=0) + 1.5 * self.basis[25] if text else rows)

    @staticmethod
    def unit(rows: Vectors) -> Vectors:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_passes_of_what_is_far_from_the_query_is_found_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(local, "EXACT_UP_TO", 1_000)
    monkeypatch.setattr(local, "_MANY", 300)
    monkeypatch.setattr(faiss_index, "_SAMPLE", 300)
    wide = Wide(tmp_path / "space", seed)
    folder = wide.store.file.folder
    about = faiss_index.build(wide.store.get, wide.ids, folder, dim=128, queries=wide.texts[:80])
    assert about.reached and about.components < 128
    through, beyond = [], faiss_index.FaissIndex.beyond

    def counted(self: faiss_index.FaissIndex, *given: object, **more: object) -> Ids | None:
        found = beyond(self, *given, **more)  # type: ignore[arg-type]
        through.append(found is not None and 20 <= len(found) < wide.rows / 4)
        return found

    monkeypatch.setattr(faiss_index.FaissIndex, "beyond", counted)
    shares = []
    for query in [*wide.texts[80:], *wide.pictures]:
        scores = wide.store.file.rows() @ query
        for passing in (0.75, 0.5, 0.2):
            among = scores < np.quantile(scores[wide.ids], passing)
            among[0] = among[wide.rows + 1 :] = False
            hits = wide.store.search(query, 20, among)
            assert among[hits.ids[0]].all()
            assert np.allclose(hits.scores[0], scores[hits.ids[0]], atol=1e-5)
            true = np.argsort(np.where(among, -scores, 9), kind="stable")[:20]
            shares.append(len(np.intersect1d(hits.ids[0], true)) / 20)
    assert np.mean(shares) >= 0.99
    assert np.mean(through) > 0.9 and len(through) > len(shares) / 2


def test_what_is_beyond_is_left_to_the_exact_search_where_too_much_is(home: Home) -> None:
    home.make()
    index, query = home.store.index(), clustered(1, 33)[0]
    assert index is not None
    held = index.covers(home.size)
    assert index.beyond(query, 20, held, home.store.get) is None  # too few pass for a sample of them to tell
    assert index.beyond(query, ROWS, held, home.store.get) is None


def test_products_read_rows_where_they_lie_and_none_outside() -> None:
    rows = clustered(5_000, 35)
    ids = np.random.default_rng(2).permutation(6_000).astype(np.int64)
    found = faiss_index.products(rows, ids, rows[7])
    inside = ids < 5_000
    assert np.allclose(found[inside], rows[ids[inside]] @ rows[7], atol=1e-6) and np.isneginf(found[~inside]).all()
    assert len(faiss_index.products(rows, ids[:0], rows[7])) == 0


def test_what_is_written_or_taken_away_after_it_counts_at_once(home: Home) -> None:
    home.make()
    query = clustered(1, 17)[0]
    new, changed, gone = ROWS * 2 + 5, int(home.ids[0]), home.store.search(query, 1).ids[0][0]
    home.store.upsert(np.array([new, changed]), np.stack([query, query]))
    home.written.update([new, changed])
    home.store.delete(np.array([gone]))
    assert home.store.search(query, 2).ids[0].tolist() == sorted([changed, new])
    assert gone not in home.store.search(query, 500).ids[0]
    everything = np.ones(home.size, dtype=np.bool_)
    everything[changed] = False
    assert home.store.search(query, 2, everything).ids[0][0] == new
    assert changed not in home.store.search(query, 500, everything).ids[0]


def test_with_too_much_besides_it_everything_is_scored(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.make()
    home.written.update(home.ids[:3_000].tolist())
    monkeypatch.setattr(local, "MOST_BESIDES", 2_999 + home.size - ROWS)
    monkeypatch.setattr(faiss_index.FaissIndex, "candidates", lambda *given, **more: pytest.fail("it was asked"))
    query = clustered(1, 19)[0]
    assert home.store.search(query, 20).ids[0].tolist() == home.exact(query, 20)


def test_a_small_share_is_scored_without_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.make()
    monkeypatch.setattr(faiss_index.FaissIndex, "candidates", lambda *given, **more: pytest.fail("it was asked"))
    among = np.zeros(home.size, dtype=np.bool_)
    among[home.ids[:200]] = True
    query = clustered(1, 21)[0]
    assert home.store.search(query, 20, among).ids[0].tolist() == home.exact(query, 20, among)
    assert home.store.search(query, 3, home.ids[:10]).ids[0][0] in home.ids[:10]


def test_without_news_it_is_never_used(home: Home) -> None:
    home.make()
    plain = LocalStore(home.store.file.folder, DIM)
    query = clustered(1, 23)[0]
    home.store.upsert(home.ids[:1], query[None])
    assert plain.search(query, 1).ids[0][0] == home.ids[0]


@pytest.mark.parametrize("file", ["lists.faiss", "lists.npy", "components.npy", "members.npy", "about.json"])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "garbage"])
def test_a_broken_one_means_exact_search_and_a_sentence(home: Home, file: str, harm: str) -> None:
    home.make()
    where = index_folder.current(home.store.file.folder)
    assert where is not None
    path = where / file
    if harm == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "garbage": b"garbage" + data[7:]}[harm])
    query = clustered(1, 25)[0]
    assert home.store.search(query, 20).ids[0].tolist() == home.exact(query, 20)
    if not (file == "components.npy" and harm == "garbage"):
        assert "index" in home.store.index_fault
    home.make()
    assert home.store.index() is not None and not home.store.index_fault


def test_another_one_is_taken_by_open_stores_and_the_old_files_go(home: Home) -> None:
    first = home.make()
    other = LocalStore(home.store.file.folder, DIM, news=home.news)
    before = other.index()
    assert before is not None and before.about.made_at == first.made_at
    second = home.make()
    after = other.index()
    assert after is not None and after.about.made_at == second.made_at != first.made_at
    assert before.candidates(clustered(1, 27)[0], 10) is not None  # whoever is at it still finishes
    folders = [one for one in (home.store.file.folder / "index").iterdir() if one.is_dir()]
    assert folders == [index_folder.current(home.store.file.folder)]
    index_folder.forget(home.store.file.folder)
    assert other.index() is None and not other.index_fault


def test_searches_go_on_while_it_is_made_and_taken(home: Home) -> None:
    home.make()
    query = clustered(1, 29)[0]
    true, wrong, stop = home.exact(query, 5), [], threading.Event()

    def search() -> None:
        while not stop.is_set():
            found = home.store.search(query, 5).ids[0].tolist()
            if found != true:
                wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        home.make()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_giving_up_and_a_full_disk_leave_what_was_there(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = home.make()

    class GivenUp(Exception):
        pass

    def give_up(share: float) -> None:
        if share > 0.5:
            raise GivenUp

    with pytest.raises(GivenUp):
        home.make(go_on=give_up)

    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(faiss_index, "flush", full)
    with pytest.raises(StoreFault, match="Free some space"):
        home.make()
    index = home.store.index()
    assert index is not None and index.about.made_at == first.made_at
    assert len([one for one in (home.store.file.folder / "index").iterdir() if one.is_dir()]) == 1


def test_too_few_rows_are_refused(home: Home) -> None:
    with pytest.raises(ValueError, match="too few"):
        faiss_index.build(home.store.get, home.ids[:40], home.store.file.folder, dim=DIM, lists=64)


MAKE = """
import sys, numpy as np
from pathlib import Path
from search.vectors import faiss_index, index_folder
from search.vectors.local import LocalStore
store = LocalStore(Path(sys.argv[1]), 64)
ids = np.flatnonzero(store.file.rows().any(axis=1))
faiss_index.build(store.get, ids, store.file.folder, dim=64, last=int(sys.argv[2]), lists=32)
"""


@pytest.mark.parametrize("point", POINTS)
def test_killed_while_it_is_made_there_is_the_old_one_or_the_new_one(home: Home, point: str) -> None:
    home.make(last=1)
    command = [sys.executable, "-c", MAKE, str(home.store.file.folder), "2"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": "/usr/bin", "IMAGESEARCH_FAULT": point}, check=False)
    assert done.returncode == -signal.SIGKILL
    index = home.store.index()
    assert index is not None and index.about.last == (2 if point == "index-current" else 1)
    assert home.recall(queries=10) >= 0.95
    assert home.make(last=3).last == 3
    folders = [one for one in (home.store.file.folder / "index").iterdir() if one.is_dir()]
    assert len(folders) == 1 and json.loads((folders[0] / "about.json").read_text())["last"] == 3


def test_equal_rows_count_as_found_and_pairs_of_ids_are_no_trap(home: Home) -> None:
    home.store.upsert(home.ids[:900], np.repeat(clustered(1, 31), 900, axis=0))
    home.written.update(home.ids[:900].tolist())
    assert home.make().reached
    for rest in (0, 1):
        assert home.recall(among=np.arange(home.size) % 2 == rest) >= 0.98


def test_a_passing_trouble_with_a_broken_one_is_tried_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.make()
    real = faiss_index.opened
    monkeypatch.setattr(faiss_index, "opened", lambda folder: (_ for _ in ()).throw(StoreFault("Too many open files.")))
    assert home.store.index() is None and home.store.index_fault
    monkeypatch.setattr(faiss_index, "opened", real)
    assert home.store.index() is None  # not with every search
    monkeypatch.setattr(local, "_TRY_AGAIN_SECONDS", 0.0)
    assert home.store.index() is not None and not home.store.index_fault


def test_what_killed_makers_left_goes_when_an_index_is_made_again(tmp_path):
    rows = clustered(600, 1)
    made = faiss_index.build(lambda ids: rows[ids], np.arange(600), tmp_path, dim=64)
    for name in ("a", "b.new"):
        (tmp_path / "index" / name).mkdir()
        (tmp_path / "index" / name / "lists.faiss").write_bytes(b"x" * 1000)
    again = faiss_index.build(lambda ids: rows[ids], np.arange(600), tmp_path, dim=64)
    assert made.rows == again.rows
    assert len([one for one in (tmp_path / "index").iterdir() if one.is_dir()]) == 1


@pytest.mark.parametrize("name", ["members.npy", "lists.npy"])
def test_an_index_whose_files_disagree_is_said_to_be_broken(tmp_path, name):
    rows = clustered(600, 1)
    faiss_index.build(lambda ids: rows[ids], np.arange(600), tmp_path, dim=64)
    where = index_folder.current(tmp_path) / name
    for place in (5, 300):
        kept = np.load(where)
        kept[place] ^= 1 << 30
        np.save(where, kept)
        with pytest.raises(StoreFault, match="makes it anew"):
            faiss_index.opened(tmp_path)
        kept[place] ^= 1 << 30
        np.save(where, kept)
    assert faiss_index.opened(tmp_path) is not None
