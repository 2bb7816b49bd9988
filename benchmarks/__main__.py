"""`make bench`: every measurement of the program's speed, as a table, and as JSON beside it.

    python -m benchmarks [--photos FOLDER] [--count 1000] [--files 100000] [--size 0] [--json FILE]

With --size (`make bench SIZE=1000000`) a library of so many images is made, and the program measured on it: vector
search, pages and people over HTTP, commands, a re-crawl, look-alikes; --database URL names an empty PostgreSQL
database for it (`make bench SIZE=1000000 DATABASE=postgres://...`).

Each measurement runs in a process of its own, so that one's memory and caches are not the other's, on generated,
seeded pictures unless --photos names a folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import bench_venv

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "test-results"
OF_A_LIBRARY = {"library", "over_http", "commands_at_size", "admin_at_size"}
KEPT = {"IMAGESEARCH_THREADS", "IMAGESEARCH_PRECISION", "IMAGESEARCH_BATCH_SIZE", "IMAGESEARCH_SHARED"}
"""Settings that a measurement may be run under; the others would point at the installation's own data."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", metavar="FOLDER", help="Measure on these pictures instead of generated ones.")
    parser.add_argument("--count", type=int, default=1_000, help="How many pictures to generate (default 1,000).")
    parser.add_argument("--files", type=int, default=100_000, help="Files of the re-crawl (default 100,000; 0: none).")
    parser.add_argument("--size", type=int, default=0, help="Measure at size instead, with so many images.")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="Keep the library of --size there, or use it again."
    )
    parser.add_argument("--database", metavar="URL", help="The empty database of --size (default: SQLite).")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"Where the report goes (default {RESULTS}).")
    options = parser.parse_args()
    pipeline = ["--count", str(options.count)]
    if options.photos:
        folder = Path(options.photos).expanduser().resolve()
        if not folder.is_dir():
            parser.error(f"there is no folder {folder}")
        pipeline = ["--photos", str(folder)]
    report: dict[str, Any] = {"machine": machine(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    if options.size:
        with tempfile.TemporaryDirectory(prefix="imagesearch-bench-") as scratch:
            plan = at_size(options.size, options.data or Path(scratch))
            done = measured(plan, report, options.database)
            return written(report, options.json) if done else 1
    plan = [("pipeline", "pipeline", pipeline), ("pipeline_onnx", "pipeline", [*pipeline, "--encoder", "onnx"])]
    if options.files:
        plan.append(("recrawl", "recrawl", ["--size", str(options.files)]))
    if options.photos:
        plan.append(("identify", "identify", ["--photos", pipeline[1]]))
    plan += [
        ("exact_search", "exact_search", []),
        ("vector_search", "vector_search", []),
        ("curation", "curation", []),
        ("calibration", "calibration", []),
        ("look_alikes", "look_alikes", []),
    ]
    plan.append(("faces_grouping", "faces_grouping", ["--json"]))
    plan += [("adoption", "marked", ["adoption"]), ("switching", "marked", ["switching"])]
    plan.append(("administration", "admin_at_size", ["--size", "200000", "--json"]))
    plan += beside_others()
    return written(report, options.json) if measured(plan, report) else 1


def at_size(size: int, data: Path) -> list[tuple[str, str, list[str]]]:
    """What is measured on a library of `size` images, which is kept in `data`."""
    library = ["--size", str(size), "--data", str(data / "library")]
    return [
        ("vector_search", "vector_search", ["--rows", str(size), "--data", str(data / "vectors")]),
        ("library", "library", library),
        ("over_http", "over_http", library),
        ("commands", "commands_at_size", library),
        ("administration", "admin_at_size", [*library, "--json"]),
        ("recrawl", "recrawl", ["--size", str(size)]),
        ("look_alikes", "look_alikes", ["--size", str(size)]),
        *beside_others("--rows", str(size), "--limit", "1800"),
    ]


def beside_others(*of_vectors: str) -> list[tuple[str, str, list[str]]]:
    """The other programs, where `make bench-setup` has brought them; graphs of a million rows take half an hour."""
    if not bench_venv.python():
        return []
    return [
        ("side_by_side", "side_by_side", [*of_vectors, "--json"]),
        ("side_by_side_indexing", "side_by_side_indexing", ["--json"]),
    ]


def measured(plan: list[tuple[str, str, list[str]]], report: dict[str, Any], database: str | None = None) -> bool:
    """Run every (name, module, arguments) and add what it finds to the report; False when one failed."""
    for name, module, arguments in plan:
        print(f"Measuring {name} ...", flush=True)
        before = processor_ticks()
        found = run(module, arguments, database)
        if found is None:
            return False
        report[name] = found | stolen(before, processor_ticks())
        for key, value in rows(found):
            print(f"  {key:44} {value}", flush=True)
    return True


def processor_ticks() -> list[int]:
    """What /proc/stat says of all processors since the system started; empty where there is none."""
    try:
        return [int(one) for one in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return []


def stolen(before: list[int], after: list[int]) -> dict[str, Any]:
    """{"stolen %": how much of the processors' time other virtual machines had meanwhile}: with more than a few per
    cent the clock's figures say little. Empty where the system does not say."""
    if len(before) < 8 or len(after) < 8:
        return {}
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return {"stolen %": round(100 * spent[7] / max(1, sum(spent)), 1)}


def written(report: dict[str, Any], target: Path | None) -> int:
    """Keep the report as JSON."""
    target = target or RESULTS / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"Written to {target}")
    return 0


def run(name: str, arguments: list[str], database: str | None = None) -> dict[str, Any] | None:
    """The JSON that a measurement prints; None, with its words on stderr, when it failed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("IMAGESEARCH_") or key in KEPT}
    env.pop("DATABASE_URL", None)
    if database and name in OF_A_LIBRARY:
        env["DATABASE_URL"] = database
    env["IMAGESEARCH_ENV_FILE"] = os.devnull
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )
    start = done.stdout.find("{")
    if done.returncode or start < 0:
        print(f"{name} failed with status {done.returncode}: {done.stdout.strip()}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout[start:])
    return found


def rows(report: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested report as lines of a table."""
    for key, value in report.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            yield from rows(value, f"{name}: ")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            yield name, str(value)
        else:
            yield name, f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    name = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
