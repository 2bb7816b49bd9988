"""Vector search beside other programs and libraries, in one run, on the same vectors and queries.

    python -m benchmarks.side_by_side [--rows 200000] [--only NAME ...] [--limit 900] [--data FOLDER] [--json]

Made-up vectors like CLIP's (`vectors_like_clip`), pictures and texts as queries, one at a time, k = 60.
Every candidate of `rivals` builds in one process and is asked in another, so that memory is its own; each is tuned
upward until recall@20 is 0.99 for pictures and for texts alike. Then they are asked in turns, --rounds times, so that a
machine that is busy besides is so for all alike. One that takes longer than --limit seconds to build and tune is ended.
The others' packages come from `.venv-bench` (`make bench-setup`); one that is not installed is said so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bench_venv
from benchmarks.rivals import AT, CANDIDATES, RECALL
from benchmarks.vectors_like_clip import Vectors

DIM, QUERIES, TUNING = 512, 200, 200
OURS = "ours"
SAME = 1.05
"""Memory that differs by no more counts as the same."""


def write_inputs(folder: Path, rows: int) -> None:
    """vectors.npy, queries.npy (pictures and texts by turns), tuning.npy (texts for our index) and truth.npy."""
    made = Vectors(DIM)
    queries = np.empty((QUERIES, DIM), dtype=np.float32)
    queries[::2], queries[1::2] = made.queries(QUERIES // 2), made.queries(QUERIES // 2, text=True)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(rows, DIM))
    scores = np.empty((QUERIES, rows), dtype=np.float32)
    for start, block in made.blocks(rows):
        vectors[start : start + len(block)] = block
        scores[:, start : start + len(block)] = queries @ block.T
    vectors.flush()
    np.save(folder / "queries.npy", queries)
    np.save(folder / "tuning.npy", made.queries(2 * TUNING, text=True)[TUNING:])
    np.save(folder / "truth.npy", np.argpartition(-scores, AT, axis=1)[:, :AT])


def interpreter(name: str) -> tuple[Path | None, str]:
    """(the Python that can run it, "") or (None, why there is none)."""
    packages = CANDIDATES[name].packages
    own = Path(sys.executable)
    if not packages:
        return own, ""
    there = bench_venv.python()
    if there is not None and bench_venv.has(there, packages):
        return there, ""
    missing = " and ".join(packages)
    return None, f"not measured: {missing} cannot be imported" + ("" if there else "; `make bench-setup` installs it")


class Child:
    """A process of `rivals`; ended, with all that it started, when it does not answer in time."""

    def __init__(self, python: Path, name: str, folder: Path, step: str) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("IMAGESEARCH_")}
        command = [str(python), "-m", "benchmarks.rivals", name, str(folder), step]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            command, cwd=bench_venv.ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True, start_new_session=True,
        )  # fmt: skip

    def answer(self, limit: float) -> dict[str, Any]:
        """Its next line. Raises Failed with a sentence."""
        assert self.process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self.end()

        timer = threading.Timer(max(0.0, limit), end)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self.process.wait()
        if late.is_set():
            raise Failed("not finished in the time allowed")
        self.errors.seek(0)
        raise Failed(f"failed: {(self.errors.read().strip().splitlines() or ['no word'])[-1]}")

    def ask(self, limit: float) -> dict[str, Any]:
        """A round of queries."""
        assert self.process.stdin is not None
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        return self.answer(limit)

    def last_words(self, limit: float) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.answer(limit)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Failed(Exception):
    """Why a candidate has no figures."""


def measure(names: Sequence[str], folder: Path, *, limit: float, rounds: int) -> dict[str, dict[str, Any]]:
    """{candidate: its figures, or {"note": why there are none}}."""
    report: dict[str, dict[str, Any]] = {name: {} for name in names}
    running: dict[str, Child] = {}
    try:
        for name in names:
            child = _tuned(name, folder, report[name], limit=limit)
            if child is not None:
                running[name] = child
            print(f"{name}: {json.dumps(report[name])}", file=sys.stderr, flush=True)
        times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in names}
        for turn in range(rounds):
            for name in sorted(running, reverse=bool(turn % 2)):
                found = _told(running[name].ask, report[name], limit)
                for kind in times[name]:
                    times[name][kind] += found.get(kind, [])
                if not found:
                    running.pop(name).end()
        for name, child in running.items():
            report[name] |= _told(child.last_words, report[name], limit) | _percentiles(times[name])
    finally:
        for child in running.values():
            child.end()
    return report


def _tuned(name: str, folder: Path, figures: dict[str, Any], *, limit: float) -> Child | None:
    """Build it where it is not built, and start and tune its search; None when that failed, said in `figures`."""
    python, note = interpreter(name)
    if python is None:
        figures["note"] = note
        return None
    began = time.monotonic()
    kept = folder / f"{name}.json"
    for step in ("build", "search"):
        if step == "build" and kept.exists():
            figures |= json.loads(kept.read_text())
            continue
        child = Child(python, name, folder, step)
        try:
            figures |= child.answer(limit - (time.monotonic() - began))
        except Failed as error:
            figures["note"] = f"{step}: {error}" + (f" ({limit:.0f} s)" if "time" in str(error) else "")
            return None
        if step == "build":
            child.end()  # milvus-lite does not end by itself
            kept.write_text(json.dumps(figures))
    return child


def _told(what: Callable[[float], dict[str, Any]], figures: dict[str, Any], limit: float) -> dict[str, Any]:
    """What a running candidate answers; nothing when it failed, said in `figures`."""
    try:
        return what(limit)
    except (Failed, OSError) as error:
        figures["note"] = f"search: {error}"
        return {}


def _percentiles(times: Mapping[str, list[float]]) -> dict[str, float]:
    wanted = {"p50_ms": ("wall", 50), "p95_ms": ("wall", 95), "cpu_ms": ("cpu", 50)}
    found = {name: round(float(np.percentile(times[kind], at)), 2) for name, (kind, at) in wanted.items()}
    return {**found, "queries": len(times["wall"])}


COLUMNS = {
    "program": "", "build s": "build_s", "disk MB": "disk_mb", "anonymous MB": "anon_mb", "file-backed MB": "file_mb",
    "at": "setting", "recall pictures": "recall_pictures", "texts": "recall_texts", "p50 ms": "p50_ms",
    "p95 ms": "p95_ms", "processor ms": "cpu_ms",
}  # fmt: skip


def table(report: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The figures as a Markdown table; whoever missed the recall or has none has a sentence."""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---|" * len(COLUMNS)
    for name, figures in report.items():
        cells = [name, *(_cell(figures.get(key, "")) for key in list(COLUMNS.values())[1:])]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    for name, figures in report.items():
        if "note" in figures:
            yield f"- {name}: {figures['note']}."
        elif not figures["reached"]:
            yield f"- {name} does not reach recall {RECALL} at {figures['setting'] or 'what it can do'}."


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def verdict(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Who is quicker than ours (p50) at the recall: within our memory (data resident, anonymous and file-backed), and
    only with more of it."""
    if "p50_ms" not in report.get(OURS, {}):
        return ["Ours was not measured."]
    ours = report[OURS]
    if not ours["reached"]:
        return [f"Ours does not reach recall {RECALL}."]
    within: list[str] = []
    beyond: list[str] = []
    slower: list[str] = []
    for name, figures in report.items():
        if name == OURS or not figures.get("reached"):
            continue
        times = figures["p50_ms"] / ours["p50_ms"]
        more, anon = _data(figures) / max(1, _data(ours)), figures["anon_mb"] / max(1, ours["anon_mb"])
        said = f"{name} ({times:.2f} times our p50, {more:.1f} times our memory, {anon:.1f} times the anonymous part)"
        (slower if times >= 1 else within if more <= SAME else beyond).append(said)
    return [
        f"Quicker within our memory: {', '.join(within) or 'nobody'}.",
        f"Quicker with more memory: {', '.join(beyond) or 'nobody'}.",
        f"Slower: {', '.join(slower) or 'nobody'}.",
    ]


def _data(figures: Mapping[str, Any]) -> int:
    return int(figures["anon_mb"] + figures["file_mb"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), metavar="NAME")
    parser.add_argument("--limit", type=float, default=900, help="seconds for a candidate (default 900)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="keep what is built in this folder and use it again")
    parser.add_argument("--json", action="store_true", help="print only JSON")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imagesearch-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "truth.npy").exists():
            write_inputs(folder, options.rows)
        report = measure(options.only, folder, limit=options.limit, rounds=options.rounds)
    if options.json:
        print(json.dumps({"rows": options.rows, "programs": report, "verdict": verdict(report)}))
    else:
        print("\n".join([*table(report), "", *verdict(report)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
