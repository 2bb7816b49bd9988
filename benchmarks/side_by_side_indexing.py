"""Indexing a folder of photos beside rclip, in one run, by turns: the same network of random weights, the same photos.

    python -m benchmarks.side_by_side_indexing [--count 640] [--rounds 3] [--photos FOLDER] [--json]

rclip (from `.venv-bench`, `make bench-setup`) reads, resizes and embeds in ONNX Runtime; `manage.py index` embeds with
the same weights as the program loads them, and besides reads metadata, hashes and fingerprints, makes thumbnails and
the built-in look embedding, and records all of it. Both take the processors that this process may use, and their own
defaults for everything else. Each indexes a fifth of the photos and all of them, into an empty database: all of them
by the whole process's clock is `with_start`; what the others took beyond the fifth is `without_start`, free of
start-up and loading for both alike. Photos are distinct (rclip takes a vector that it has for equal bytes) and warm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import bench_venv
from benchmarks.pipeline import make_photos

ARCHITECTURE = "ViT-B-32-256"
WEIGHTS = "ViT-B-32-256-datacomp_s34b_b86k"
"""The folder in which rclip looks for its network, under RCLIP_DATADIR."""
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
PART = 5
GOAL, BAR = 2.0, 1.8
RCLIP, OURS = "rclip", "ours"


def export_weights(folder: Path) -> None:
    """Where rclip looks: both towers as ONNX, of the weights that `random:ViT-B-32-256` has, and the vocabulary."""
    import warnings

    import open_clip
    import torch

    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)  # an operator that ONNX does not have
    model = open_clip.create_model(ARCHITECTURE).eval().requires_grad_(False)

    class Texts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: Any) -> Any:
            return self.model.encode_text(tokens)

    target = folder / WEIGHTS
    target.mkdir(parents=True)
    side = model.visual.image_size[0]
    towers: list[tuple[str, Any, Any]] = [
        ("visual.onnx", model.visual, torch.zeros(2, 3, side, side)),
        ("textual.onnx", Texts(), torch.zeros(2, model.context_length, dtype=torch.long)),
    ]
    for name, tower, example in towers:
        ends: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"]}
        free = {"input": {0: "n"}, "output": {0: "n"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter that needs no further package is called the old one
            torch.onnx.export(tower, (example,), str(target / name), dynamo=False, dynamic_axes=free, **ends)
    words = "bpe_simple_vocab_16e6.txt.gz"
    (folder / "tokenizer").mkdir()
    shutil.copyfile(Path(str(open_clip.__file__)).parent / words, folder / "tokenizer" / words)


def lay_out(folder: Path, *, photos: Path | None, count: int) -> dict[str, Path]:
    """{"part", "all"}: folders with a fifth of the photos, and with all of them, copied so that they are warm."""
    source = photos or make_photos(folder / "made", count)
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix.lower() in PICTURES)[:count]
    if len(files) < 2 * PART:
        raise SystemExit(f"{source} holds {len(files)} pictures; at least {2 * PART} are needed.")
    found = {"part": folder / "part", "all": folder / "all"}
    for place, some in zip(found.values(), (files[: len(files) // PART], files), strict=True):
        place.mkdir()
        for number, path in enumerate(some):
            shutil.copyfile(path, place / f"{number:06}{path.suffix.lower()}")
    return found


def index_with_rclip(folder: Path, scratch: Path) -> dict[str, float]:
    """One run of rclip on an empty database; its weights lie in `scratch`/weights."""
    with tempfile.TemporaryDirectory(dir=scratch) as data:
        for one in (scratch / "weights").iterdir():
            (Path(data) / one.name).symlink_to(one)
        command = [str(bench_venv.FOLDER / "bin" / "rclip"), "--top", "1", "a picture"]
        found = timed(command, cwd=folder, env={**os.environ, "RCLIP_DATADIR": data})
        with contextlib.closing(sqlite3.connect(Path(data) / "db.sqlite3")) as database:
            (found["images"],) = database.execute("SELECT count(*) FROM images WHERE deleted IS NULL").fetchone()
    return found


def index_with_ours(folder: Path, scratch: Path) -> dict[str, float]:
    """One run of `manage.py index` on an empty database, which was migrated before."""
    with tempfile.TemporaryDirectory(dir=scratch) as data:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("IMAGESEARCH_", "DATABASE_URL"))}
        env |= {
            "IMAGESEARCH_ENV_FILE": os.devnull, "IMAGESEARCH_DATA": data, "IMAGESEARCH_LOG_LEVEL": "WARNING",
            "IMAGESEARCH_ENCODER": f"random:{ARCHITECTURE}",
        }  # fmt: skip
        manage = [sys.executable, str(bench_venv.ROOT / "manage.py")]
        subprocess.run([*manage, "migrate", "--verbosity", "0"], env=env, check=True)
        found = timed([*manage, "index", str(folder)], cwd=bench_venv.ROOT, env=env)
        with contextlib.closing(sqlite3.connect(next(Path(data).glob("*.sqlite3")))) as database:
            sql = (
                "SELECT count(*) FROM search_image i JOIN search_embedding e ON e.image_id = i.id"
                " JOIN search_embeddingspace s ON s.id = e.space_id WHERE i.state = 'ready' AND s.dim = 512"
            )
            (found["images"],) = database.execute(sql).fetchone()
    return found


def timed(command: list[str], *, cwd: Path, env: Mapping[str, str]) -> dict[str, float]:
    """{"wall_s", "cpu_s"} of a process with everything it started; SystemExit with its last words when it fails."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        child = subprocess.Popen(command, cwd=cwd, env=dict(env), stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise SystemExit(f"{command[0]} failed: {said.read().decode(errors='replace').strip()[-600:]}")
    return {"wall_s": wall, "cpu_s": used.ru_utime + used.ru_stime}


INDEXERS = {RCLIP: index_with_rclip, OURS: index_with_ours}
Runs = dict[str, dict[str, list[dict[str, float]]]]


def measure(folder: Path, *, photos: Path | None, count: int, rounds: int) -> dict[str, Any]:
    """The report; see the module."""
    export = "import sys, pathlib, benchmarks.side_by_side_indexing as s; s.export_weights(pathlib.Path(sys.argv[1]))"
    in_a_process = [sys.executable, "-c", export, str(folder / "weights")]
    subprocess.run(in_a_process, cwd=bench_venv.ROOT, check=True, capture_output=True)
    places = lay_out(folder, photos=photos, count=count)
    runs: Runs = {name: {size: [] for size in places} for name in INDEXERS}
    for turn in range(rounds):
        for size, place in places.items():
            for name in sorted(INDEXERS, reverse=bool(turn % 2)):
                done = INDEXERS[name](place, folder)
                runs[name][size].append(done)
                print(f"{name}, {size}: {done}", file=sys.stderr, flush=True)
    return compared(runs)


def compared(runs: Runs) -> dict[str, Any]:
    """Medians of images a second, and processor milliseconds an image, of both, and ours over rclip's.

    Raises SystemExit when one of them left out pictures that the other took.
    """
    counts = {name: {one["images"] for one in sizes["all"]} for name, sizes in runs.items()}
    if len(set.union(*counts.values())) != 1:
        raise SystemExit(f"They did not index the same number of pictures: {counts}. Take other photos.")
    report: dict[str, Any] = {"images": counts[OURS].pop(), "threads": len(os.sched_getaffinity(0))}
    for name, sizes in runs.items():
        pairs = list(zip(sizes["all"], sizes["part"], strict=True))
        beyond = [{key: whole[key] - part[key] for key in whole} for whole, part in pairs]
        each = [one["wall_s"] / one["images"] for one in beyond]
        report[name] = {
            "with_start": _median(whole["images"] / whole["wall_s"] for whole, _ in pairs),
            "without_start": _median(1 / one for one in each),
            "cpu_ms": _median(1000 * one["cpu_s"] / one["images"] for one in beyond),
            "start_s": _median(
                part["wall_s"] - part["images"] * one for (_, part), one in zip(pairs, each, strict=True)
            ),
        }
    ours, theirs = report[OURS], report[RCLIP]
    report["ratio_with_start"] = round(ours["with_start"] / theirs["with_start"], 2)
    report["ratio_without_start"] = round(ours["without_start"] / theirs["without_start"], 2)
    report["ratio_cpu"] = round(theirs["cpu_ms"] / ours["cpu_ms"], 2)
    return report


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 2)


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as a Markdown table."""
    yield f"{report['images']} photos, {report['threads']} threads; goal {GOAL}, bar {BAR}"
    yield ""
    yield "| | images a second, with start-up | without | processor ms an image | start-up s |"
    yield "|---|---|---|---|---|"
    for name in (RCLIP, OURS):
        cells = [str(report[name][key]) for key in ("with_start", "without_start", "cpu_ms", "start_s")]
        yield f"| {name} | {' | '.join(cells)} |"
    ratios = [str(report[f"ratio_{key}"]) for key in ("with_start", "without_start", "cpu")]
    yield f"| ours over rclip | {' | '.join(ratios)} | |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=Path, help="a folder of distinct pictures instead of generated ones")
    parser.add_argument("--json", action="store_true", help="print only JSON")
    options = parser.parse_args()
    there = bench_venv.python()
    if there is None or not bench_venv.has(there, ("rclip.main", "onnxruntime")):
        note = "not measured: rclip is not installed; `make bench-setup` installs it"
        print(json.dumps({"note": note}) if options.json else note)
        return 0
    with tempfile.TemporaryDirectory(prefix="imagesearch-bench-") as scratch:
        report = measure(Path(scratch), photos=options.photos, count=options.count, rounds=options.rounds)
    print(json.dumps(report) if options.json else "\n".join(lines(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
