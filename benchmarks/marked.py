"""Measurements that are tests as well: runs them and gives what they print.

    python -m benchmarks.marked adoption|switching

Adoption of 50,000 synthetic rows with planted slides, of all captioned photographs (where ../shared is there) and the
alignment of 3.4 million rows; twenty switches of the space under searches every 50 ms. A figure counts only when the
test that prints it passes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {"adoption": "tests/test_adoption_size.py", "switching": "tests/test_switch_under_load.py"}


def measure(name: str, *narrowed: str) -> dict[str, object]:
    """Run the tests of that name: how many seconds they took, whether they passed, and the lines they printed."""
    command = [sys.executable, "-m", "pytest", "-m", "slow", "-q", "-s", "-p", "no:cacheprovider", "--no-header"]
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "DATABASE_URL": ""}
    started = time.perf_counter()
    done = subprocess.run(
        [*command, TESTS[name], *narrowed],
        cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    took = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{TESTS[name]} failed:\n{done.stdout[-5000:]}")
    figures = (" rows", " photos:", " switches")
    said = [line.strip(" .") for line in done.stdout.splitlines() if any(sign in line for sign in figures)]
    return {"seconds": round(took, 1), "passed": True, "said": {str(n): line for n, line in enumerate(said, 1)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=sorted(TESTS))
    parser.add_argument("narrowed", nargs="*", help="Further arguments for pytest, after --.")
    given = parser.parse_args()
    print(json.dumps(measure(given.name, *given.narrowed), indent=2))


if __name__ == "__main__":
    main()
