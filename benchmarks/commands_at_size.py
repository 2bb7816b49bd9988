"""What the commands cost at size: time, processor time, memory, and how long somebody else waits to write meanwhile.

    python -m benchmarks.commands_at_size --data FOLDER [--size 1000000] [--quarter FOLDER] [--only NAME ...]

The folder holds a library of `benchmarks.library`, or is made into one. With SQLite nothing in it is changed: the
commands work on a copy of the database beside links to the vectors. The database that DATABASE_URL names is worked on
as it is. `--quarter` names a second library, by default of a quarter of the size: memory that does not grow from one to
the other is flat (SQLite only).

Each command is a process of its own, as a person runs it. `rss_mb` is the most memory it had, with what it mapped of
the database's file, `own_mb` without (as far as looking every 20 ms shows it), `waited_ms` the longest that a small
write of another process took to begin and commit meanwhile. `repair_all_lost` finds a library whose
thumbnails are all gone, `repair` one that has been repaired; `library` and `warm` are what a server loads.
Prints JSON, progress on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OTHER = "random:ViT-S-32"
"""A second space to make and take away."""
PAUSE = 0.02
"""Seconds between two small writes of the process that waits."""

COMMANDS: dict[str, list[str]] = {
    "check": ["check"],
    "verify": ["verify", "--sample", "0"],
    "stats": ["stats", "--json"],
    "spaces": ["spaces", "--json"],
    "problems": ["problems", "--json"],
    "copies": ["copies", "--json"],
    "review": ["review"],
    "review_refresh": ["review", "--refresh"],
    "backup": ["backup", "{scratch}/backup.tar"],
    "space_add": ["spaces", "build", OTHER, "--background", "--json"],
    "space_activate": ["spaces", "activate", "look", "--anyway"],
    "space_rollback": ["spaces", "rollback"],
    "space_remove": ["spaces", "remove", "{other}"],
    "repair_all_lost": ["repair", "--sample", "0", "--json"],
    "repair": ["repair", "--sample", "0", "--json"],
}
"""In the order in which they run. {other}: the name of the space that `space_add` made."""
INSIDE = ("library", "warm")


def measure(data: Path, only: list[str]) -> dict[str, Any]:
    """{name: {seconds, cpu_seconds, rss_mb, waited_ms, ...}} of one library. Raises RuntimeError with what a command
    said that failed."""
    with copied(data) as (folder, scratch):
        env = {**os.environ, **environment(folder)}
        for file in (folder / "spaces").glob("*/vectors.npy"):
            _read(file)
        found: dict[str, Any] = {}
        for name, words in COMMANDS.items():
            if only and name not in only:
                continue
            words = [one.format(scratch=scratch, other=found.get("space_add", {}).get("space", "")) for one in words]
            found[name] = _run(name, [sys.executable, "manage.py", *words], env)
        for name in INSIDE:
            if not only or name in only:
                found[name] = _run(name, [sys.executable, "-m", "benchmarks.commands_at_size", "--inside", name], env)
        return found


def _run(name: str, command: list[str], env: dict[str, str]) -> dict[str, Any]:
    """One command beside a process that writes a little now and then."""
    other = [sys.executable, "-m", "benchmarks.commands_at_size", "--inside", "waiting"]
    beside = subprocess.Popen(other, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert beside.stdout is not None
    beside.stdout.readline()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=out, stderr=err)
        own = 0.0
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            own = max(own, _anonymous_mb(process.pid))
            time.sleep(PAUSE)
        _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        beside.send_signal(signal.SIGTERM)
        waits = json.loads(beside.communicate()[0])
        out.seek(0)
        err.seek(0)
        said = out.read()
        if process.returncode or waits["errors"]:
            raise RuntimeError(f"{name}: {process.returncode} {said[-1000:]} {err.read()[-2000:]} {waits['errors']}")
    row = {
        "seconds": round(took, 2), "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "rss_mb": round(used.ru_maxrss / 1024), "own_mb": round(own), "waited_ms": waits["longest_ms"],
    }  # fmt: skip
    if name == "space_add":
        row["space"] = json.loads(said)["space"]["name"]
    if name in INSIDE or name.startswith("repair"):
        row["said"] = json.loads(said)
    print(f"  {name:16} {row}", file=sys.stderr, flush=True)
    return row


def _anonymous_mb(pid: int) -> float:
    """Memory that is the process's own, without the files it has mapped, in MB; 0 where the system does not say."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


@contextmanager
def copied(data: Path) -> Iterator[tuple[Path, Path]]:
    """A data folder that may be written, and a scratch folder, both beside the library; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="commands-", dir=data.parent) as scratch:
        if "DATABASE_URL" in os.environ:
            yield data, Path(scratch)
            return
        folder = Path(scratch) / "data"
        for space in (data / "spaces").iterdir():
            if not space.is_dir():
                (folder / "spaces").mkdir(parents=True, exist_ok=True)
                shutil.copy(space, folder / "spaces")
                continue
            (folder / "spaces" / space.name).mkdir(parents=True)
            for file in space.iterdir():
                (folder / "spaces" / space.name / file.name).symlink_to(file.resolve())
        shutil.copy(data / "imagesearch.sqlite3", folder)
        yield folder, Path(scratch)


def environment(folder: Path) -> dict[str, str]:
    from benchmarks import library

    return library.environment(folder.resolve())


def _read(file: Path) -> None:
    with file.open("rb") as source:
        while source.read(1 << 22):
            pass


def _inside(what: str) -> dict[str, Any]:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
    import django

    django.setup()
    return {"waiting": _wait, "library": _load, "warm": _warm}[what]()


def _wait() -> dict[str, Any]:
    """Write a little every 20 ms until SIGTERM."""
    from django.db import DatabaseError, transaction

    from search.models import Counter

    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    longest, writes, errors = 0.0, 0, []
    Counter.objects.update_or_create(name="benchmark", defaults={"value": 0})
    print("ready", flush=True)
    while not stopped:
        began = time.perf_counter()
        try:
            with transaction.atomic():
                Counter.objects.filter(name="benchmark").update(value=writes)
        except DatabaseError as error:
            errors.append(str(error))
        longest = max(longest, time.perf_counter() - began)
        writes += 1
        time.sleep(PAUSE)
    return {"longest_ms": round(1_000 * longest), "writes": writes, "errors": errors[:5]}


def _load() -> dict[str, Any]:
    """Seconds until the flags of every image are there, and those of the vectors of the space that serves."""
    from search.bitmaps import get_library
    from search.spaces import active_space

    space = active_space()
    began = time.perf_counter()
    library = get_library()
    flags = time.perf_counter() - began
    began = time.perf_counter()
    embedded = int(library.embedded(space.pk).sum())
    vectors = time.perf_counter() - began
    began = time.perf_counter()
    twins = len(library.twins()[0])
    return {
        "flags_seconds": round(flags, 2), "embedded_seconds": round(vectors, 2), "size": library.size,
        "embedded": embedded, "twins_seconds": round(time.perf_counter() - began, 2), "twins": twins,
    }  # fmt: skip


def _warm() -> dict[str, Any]:
    from search.warmup import warm

    began = time.perf_counter()
    warm()
    return {"warm_seconds": round(time.perf_counter() - began, 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="A library's data folder, or where one is to be made; kept.")
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--quarter", type=Path, help="A smaller one, to compare memory with; made too, and kept.")
    parser.add_argument("--only", nargs="+", default=[], choices=[*COMMANDS, *INSIDE])
    parser.add_argument("--inside", choices=[*INSIDE, "waiting"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(_inside(options.inside)))
        return 0
    if options.data is None:
        parser.error("--data names the library's folder")
    report: dict[str, Any] = {"images": options.size}
    for name, folder, size in (("quarter", options.quarter, options.size // 4), ("whole", options.data, options.size)):
        if folder is None:
            continue
        print(f"{folder}:", file=sys.stderr, flush=True)
        make = [sys.executable, "-m", "benchmarks.library", "--data", str(folder), "--size", str(size), "--no-index"]
        subprocess.run(make, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        report[name] = measure(folder, options.only)
    if "quarter" in report:
        report["own_growth_mb"] = {
            name: report["whole"][name]["own_mb"] - row["own_mb"] for name, row in report["quarter"].items()
        }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
