"""Runs the tests on SQLite and, where a server answers, on PostgreSQL; says aloud what it could not test.

`make test` and `make test-slow` run it, with the environment's Python. `TESTS="-k word path"` narrows the run.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POSTGRES = f"postgres://postgres@127.0.0.1:5432/imagesearch_{os.getpid()}"

WITHOUT_DATABASE = [
    "alignment",
    "calibration",
    "capture",
    "colour",
    "crawler",
    "decoding",
    "embedding_file",
    "encoders",
    "faiss_index",
    "fingerprints",
    "formats",
    "guarded",
    "likeness",
    "local_store",
    "look",
    "metadata_blocks",
    "query",
    "sidecars",
]
"""Test modules that touch no database."""
ONCE = [*WITHOUT_DATABASE, "fidelity", "image_only", "matches", "watcher", "weights"]
"""Test modules to which it does not matter: they run once, with the first database."""
ONCE_SLOW = [*ONCE, "adoption_size", "crawl_properties", "exports"]
"""Of the slow tests those that are long and about files, memory or statistics; `--all` runs them on both."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow", action="store_true", help="The kill, fault and size tests instead.")
    parser.add_argument("--all", action="store_true", help="Every test on both databases.")
    parser.add_argument(
        "--until", type=float, default=0, metavar="SECONDS",
        help="After so many seconds no other test is begun; those left out are counted at the end.",
    )  # fmt: skip
    options = parser.parse_args()
    until = time.time() + options.until if options.until else 0
    left_out = Path(tempfile.mkdtemp(prefix="imagesearch-left-out-"))
    atexit.register(shutil.rmtree, left_out, ignore_errors=True)
    not_tested = []
    databases = {"SQLite": ""}
    url = os.environ.get("TEST_DATABASE_URL", "")
    problem = postgres_problem(url or POSTGRES)
    if problem and url:
        print(f"TEST_DATABASE_URL is set, but PostgreSQL does not answer there: {problem}", file=sys.stderr)
        return 1
    if problem:
        not_tested.append(f"PostgreSQL: {problem} (set TEST_DATABASE_URL to a server that may create databases)")
    else:
        databases["PostgreSQL"] = url or POSTGRES
    if not any(Path(path).exists() for path in browsers()):
        not_tested.append("pages in a browser: no Chromium (Debian: sudo apt install chromium)")
    shared = Path(os.environ.get("IMAGESEARCH_SHARED", ROOT.parent / "shared"))
    if not (shared / "photos").is_dir():
        not_tested.append(f"real photos and a real model: nothing at {shared} (set IMAGESEARCH_SHARED)")

    failed, whole = [], True
    for name, database in databases.items():
        started = time.monotonic()
        print(f"== {name} ==", flush=True)
        note = left_out / name
        status = run(
            database, slow=options.slow, again=name != "SQLite", everything=options.all, until=until, note=note
        )
        count, ran = (int(one) for one in note.read_text().split()) if note.exists() else (0, 1)
        if count:
            whole = False
            not_tested.append(f"{count} tests on {name}: no time was left for them (--until)")
            if not ran and name == "SQLite":
                status = status or 1
        print(f"== {name}: {'passed' if not status else 'FAILED'} in {time.monotonic() - started:.0f} s ==", flush=True)
        if status:
            failed.append(name)
    if len(databases) > 1 and not options.all:
        print("(What is the same on both databases, and the tests in a browser, ran once: --all runs them on both.)")
    for line in not_tested:
        print(f"NOT TESTED HERE: {line}")
    passed = "All tests passed on " if whole else "What there was time for passed on "
    print("FAILED on " + " and ".join(failed) if failed else passed + " and ".join(databases))
    return 1 if failed else 0


def run(
    database: str, *, slow: bool, again: bool = False, everything: bool = False, until: float = 0, note: Path
) -> int:
    """The tests on one database; returns pytest's status. `note`: where the number of tests that were left out for
    want of time is written, and of those that ran."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("IMAGESEARCH_")}
    for key in ("IMAGESEARCH_SHARED",):
        if key in os.environ:
            env[key] = os.environ[key]
    env.pop("REDIS_URL", None)
    env["DATABASE_URL"] = database
    env.setdefault("OMP_NUM_THREADS", "1")
    # No test kills the database server: a transaction need not wait for the disk.
    env.setdefault("PGOPTIONS", "-c synchronous_commit=off")
    # In a browser the tests are about pages, and take long: on the second database only `--all` runs them.
    marks = "slow" if slow else "not slow"
    if not everything:
        marks += " and not rare"
    if again and not everything:
        marks += " and not browser and not once"
    command = [sys.executable, "-m", "pytest", "-m", marks]
    command += ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile"]
    if slow:
        command.append("--no-loadscope-reorder")  # the longest files first: tests/conftest.py
    if again and not everything:
        command += [f"--ignore=tests/test_{name}.py" for name in (ONCE_SLOW if slow else ONCE)]
    if until:
        command += ["--until", str(until), "--left-out", str(note)]
    command += shlex.split(os.environ.get("TESTS", ""))
    return subprocess.call(command, cwd=ROOT, env=env)


def postgres_problem(url: str) -> str:
    """Why PostgreSQL cannot be used at this address, or "" when it can."""
    import psycopg

    try:
        with psycopg.connect(url.rsplit("/", 1)[0] + "/postgres", connect_timeout=3) as connection:
            row = connection.execute("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user").fetchone()
            return "" if row and row[0] else "its user may not create databases"
    except psycopg.Error as error:
        return str(error).strip().splitlines()[0]


def browsers() -> list[str]:
    return ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]


if __name__ == "__main__":
    sys.exit(main())
