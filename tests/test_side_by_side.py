"""The comparisons with other programs, as far as they run without these programs."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_venv, rivals, side_by_side, side_by_side_indexing

ROOT = Path(__file__).resolve().parent.parent
OURS = {
    "build_s": 20.0, "disk_mb": 446, "anon_mb": 20, "file_mb": 400, "setting": "k 60", "recall_pictures": 0.993,
    "recall_texts": 0.991, "reached": True, "p50_ms": 2.0, "p95_ms": 3.0, "cpu_ms": 2.5,
}  # fmt: skip


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_venv, "FOLDER", tmp_path / "none")


def test_the_modules_import_nothing_of_the_others_until_a_candidate_is_chosen():
    for name in ("rivals", "side_by_side", "side_by_side_indexing", "bench_venv"):
        tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text())
        for node in tree.body:
            for one in node.names if isinstance(node, ast.Import) else []:
                assert one.name.partition(".")[0] in {*sys.stdlib_module_names, "numpy"}, (name, one.name)
            if isinstance(node, ast.ImportFrom):
                assert str(node.module).partition(".")[0] in {*sys.stdlib_module_names, "benchmarks"}, name
    for candidate in rivals.CANDIDATES.values():
        assert candidate().settings


def test_every_package_that_a_candidate_needs_is_asked_for_with_a_reason():
    text = bench_venv.REQUIREMENTS.read_text()
    asked = {one.partition("==")[0].replace("-", "_") for one in bench_venv.wanted(text)}
    for candidate in rivals.CANDIDATES.values():
        assert {one.partition(".")[0] for one in candidate.packages} <= asked
    for line in text.partition(bench_venv.REST)[0].splitlines():
        assert not line or "#" in line, line


def test_a_missing_package_is_said(nothing_installed, tmp_path):
    report = side_by_side.measure(["hnswlib"], tmp_path, limit=5, rounds=1)
    assert "hnswlib cannot be imported; `make bench-setup` installs it" in report["hnswlib"]["note"]
    lines = list(side_by_side.table({"ours": OURS, **report}))
    assert "- hnswlib: not measured: hnswlib cannot be imported; `make bench-setup` installs it." in lines


def test_a_missing_rclip_is_said(nothing_installed, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["side_by_side_indexing"])
    assert side_by_side_indexing.main() == 0
    assert "rclip is not installed; `make bench-setup` installs it" in capsys.readouterr().out


def test_the_exact_scan_is_measured(tmp_path):
    side_by_side.write_inputs(tmp_path, 2_000)
    found = side_by_side.measure(["numpy"], tmp_path, limit=120, rounds=2)["numpy"]
    assert "note" not in found, found
    assert (found["recall_pictures"], found["recall_texts"], found["reached"]) == (1, 1, True)
    assert found["queries"] == 2 * side_by_side.QUERIES and found["disk_mb"] == 4
    assert 0 < found["p50_ms"] <= found["p95_ms"]
    again = side_by_side.measure(["numpy"], tmp_path, limit=120, rounds=1)["numpy"]
    assert again["build_s"] == found["build_s"], "what was built is used again"


def test_the_truth_is_the_exact_scan(tmp_path):
    side_by_side.write_inputs(tmp_path, 2_000)
    vectors, queries = np.load(tmp_path / "vectors.npy"), np.load(tmp_path / "queries.npy")
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    best = np.argsort(-scores, axis=1)[:, : rivals.AT]
    assert (np.sort(best, axis=1) == np.sort(np.load(tmp_path / "truth.npy"), axis=1)).mean() > 0.999


def test_one_that_takes_too_long_is_ended_and_said(tmp_path):
    side_by_side.write_inputs(tmp_path, 2_000)
    child = side_by_side.Child(Path(sys.executable), "ours", tmp_path, "build")
    with pytest.raises(side_by_side.Failed, match="not finished in the time allowed"):
        child.answer(0.01)
    assert child.process.wait(timeout=30) < 0


def test_one_that_fails_says_its_last_words(tmp_path):
    side_by_side.write_inputs(tmp_path, 2_000)
    child = side_by_side.Child(Path(sys.executable), "hnswlib", tmp_path, "build")
    with pytest.raises(side_by_side.Failed, match="No module named 'hnswlib'"):
        child.answer(120)


def test_the_table_and_the_verdict_say_who_is_quicker_and_with_which_memory():
    report = {
        "ours": OURS,
        "graph": {**OURS, "anon_mb": 840, "file_mb": 0, "p50_ms": 0.5},
        "mapped": {**OURS, "anon_mb": 0, "file_mb": 420, "p50_ms": 1.0},
        "exact": {**OURS, "anon_mb": 420, "file_mb": 0, "p50_ms": 20.0},
        "rough": {**OURS, "recall_texts": 0.9, "reached": False, "p50_ms": 0.1, "setting": "ef 4000"},
    }
    lines = list(side_by_side.table(report))
    assert "| ours | 20.0 | 446 | 20 | 400 | k 60 | 0.993 | 0.991 | 2.0 | 3.0 | 2.5 |" in lines
    assert "- rough does not reach recall 0.99 at ef 4000." in lines
    within, beyond, slower = side_by_side.verdict(report)
    assert within == (
        "Quicker within our memory: mapped (0.50 times our p50, 1.0 times our memory, 0.0 times the anonymous part)."
    )
    assert "graph (0.25 times our p50, 2.0 times our memory, 42.0 times" in beyond and "rough" not in beyond
    assert "exact (10.00 times" in slower


def test_indexing_is_compared_with_and_without_the_start():
    def run(wall: float, cpu: float, images: int) -> list[dict[str, float]]:
        return [{"wall_s": wall, "cpu_s": cpu, "images": images}]

    runs = {
        "rclip": {"part": run(12, 20, 100), "all": run(42, 80, 500)},
        "ours": {"part": run(14, 18, 100), "all": run(34, 58, 500)},
    }
    report = side_by_side_indexing.compared(runs)
    assert report["rclip"] == {"with_start": 11.9, "without_start": 13.33, "cpu_ms": 150, "start_s": 4.5}
    assert report["ours"] == {"with_start": 14.71, "without_start": 20, "cpu_ms": 100, "start_s": 9}
    assert (report["ratio_with_start"], report["ratio_without_start"], report["ratio_cpu"]) == (1.24, 1.5, 1.5)
    assert "| ours over rclip | 1.24 | 1.5 | 1.5 | |" in list(side_by_side_indexing.lines(report))


def test_indexing_of_different_pictures_is_no_comparison():
    runs = {
        name: {"part": [{"wall_s": 2, "cpu_s": 2, "images": 10}], "all": [{"wall_s": 9, "cpu_s": 9, "images": images}]}
        for name, images in (("rclip", 50), ("ours", 49))
    }
    with pytest.raises(SystemExit, match="did not index the same number"):
        side_by_side_indexing.compared(runs)


def test_photos_are_laid_out_in_two_folders(tmp_path):
    from benchmarks.pipeline import make_photos

    made = make_photos(tmp_path / "mine", 12)
    places = side_by_side_indexing.lay_out(tmp_path, photos=made, count=10)
    assert [len(list(place.iterdir())) for place in places.values()] == [2, 10]
    assert len({path.read_bytes() for path in places["all"].iterdir()}) == 10
    with pytest.raises(SystemExit, match="at least 10 are needed"):
        side_by_side_indexing.lay_out(tmp_path, photos=places["part"], count=10)
