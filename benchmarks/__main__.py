"""`make bench`: every measurement of the program's speed, as a table, and as JSON beside it.

    python -m benchmarks [--photos FOLDER] [--count 1000] [--files 100000] [--json FILE]

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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "test-results"
KEPT = {"IMAGESEARCH_THREADS", "IMAGESEARCH_PRECISION", "IMAGESEARCH_BATCH_SIZE", "IMAGESEARCH_SHARED"}
"""Settings that a measurement may be run under; the others would point at the installation's own data."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", metavar="FOLDER", help="Measure on these pictures instead of generated ones.")
    parser.add_argument("--count", type=int, default=1_000, help="How many pictures to generate (default 1,000).")
    parser.add_argument("--files", type=int, default=100_000, help="Files of the re-crawl (default 100,000; 0: none).")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"Where the report goes (default {RESULTS}).")
    options = parser.parse_args()
    pipeline = ["--count", str(options.count)]
    if options.photos:
        folder = Path(options.photos).expanduser().resolve()
        if not folder.is_dir():
            parser.error(f"there is no folder {folder}")
        pipeline = ["--photos", str(folder)]
    report: dict[str, Any] = {"machine": machine(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
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
    ]
    plan += [("adoption", "marked", ["adoption"]), ("switching", "marked", ["switching"])]
    plan.append(("administration", "admin_at_size", ["--size", "200000", "--json"]))
    for name, module, arguments in plan:
        print(f"Measuring {name} ...", flush=True)
        found = run(module, arguments)
        if found is None:
            return 1
        report[name] = found
        for key, value in rows(found):
            print(f"  {key:44} {value}", flush=True)
    target = options.json or RESULTS / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"Written to {target}")
    return 0


def run(name: str, arguments: list[str]) -> dict[str, Any] | None:
    """The JSON that a measurement prints; None, with its words on stderr, when it failed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("IMAGESEARCH_") or key in KEPT}
    env.pop("DATABASE_URL", None)
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
