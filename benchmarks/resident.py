"""What the whole program takes of the memory: supervisor, pages, background tasks, watcher and a worker that embeds.

    python -m benchmarks.resident --data FOLDER [--size 4000000] [--photos 300]

The folder holds a library of `benchmarks.library`, or is made into one; it keeps the rows of the photos that are added.
`manage.py start` runs on it with new photos to read, while one person searches: words, filters for the first time and
again, lists. Every second all its processes are looked at. Prints JSON in MB: *anonymous* is what belongs to the
processes alone; *file* is what they have mapped and in memory, each page counted once, which the system takes back when
it needs it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import library
from benchmarks.over_http import ROOT, Browser, Server, cookie_of
from benchmarks.pipeline import make_photos

SECONDS = 90
"""How long it is looked at, from ready on."""
BAR_MB = 8_000
_FIELDS = re.compile(r"^(Pss|Pss_Anon|Pss_File|Pss_Shmem):\s+(\d+) kB", re.MULTILINE)


def processes_of(supervisor: int) -> list[int]:
    """A process and all that came of it."""
    found, waiting = [], [supervisor]
    while waiting:
        pid = waiting.pop()
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
        found.append(pid)
    return sorted(set(found))


def memory_of(pid: int) -> tuple[str, dict[str, float]]:
    """(what it is, {field: MB}) of one process; nothing of one that has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        said = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return "", {}
    text = " ".join(os.fsdecode(word) for word in words)
    known = ("gunicorn", "qcluster", "process", "watch", "start", "lifeline", "index")
    name = next((one for one in known if one in text), text[:40])
    return name, {field: int(kilobytes) / 1000 for field, kilobytes in _FIELDS.findall(said)}


class Watching(threading.Thread):
    """Looks at all processes every second and keeps the most."""

    def __init__(self, supervisor: int) -> None:
        super().__init__(daemon=True)
        self._supervisor, self._ended = supervisor, threading.Event()
        self.most: dict[str, Any] = {"anonymous": 0.0, "file": 0.0, "processes": {}}

    def run(self) -> None:
        while not self._ended.wait(1.0):
            each = [memory_of(pid) for pid in processes_of(self._supervisor)]
            anonymous = sum(one.get("Pss_Anon", 0) + one.get("Pss_Shmem", 0) for _, one in each)
            file = sum(one.get("Pss_File", 0) for _, one in each)
            self.most["file"] = max(self.most["file"], round(file))
            if anonymous > self.most["anonymous"]:
                shares = sorted(
                    ((name, round(one.get("Pss_Anon", 0))) for name, one in each if one), key=lambda x: -x[1]
                )
                self.most |= {"anonymous": round(anonymous), "processes": [f"{name} {mb}" for name, mb in shares]}

    def end(self) -> None:
        self._ended.set()
        self.join()


class Whole(Server):
    """`manage.py start` over a library, with new photos to read, from its start until `close`."""

    def __init__(self, data: Path, photos: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = data / "bench-start.log"
        began = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "start", "--no-browser", "--no-download", "--port", str(self.port),
                 "--photos", str(photos)],
                cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **library.environment(data)},
            )  # fmt: skip
        self.watching = Watching(self.process.pid)
        self.watching.start()
        try:
            self.ready_seconds = self._wait(began)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.watching.end()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)


def measure(data: Path, photos: int) -> dict[str, Any]:
    """{anonymous, file, processes: at the moment of the most, searches, how long the longest took} of all at work."""
    with tempfile.TemporaryDirectory(prefix="imagesearch-new-") as scratch:
        program = Whole(data, make_photos(Path(scratch) / "new", photos, seed=int(time.time())))
        try:
            longest, done = _ask(Browser(program, cookie_of("owner")), time.perf_counter() + SECONDS)
        finally:
            program.close()
    found = program.watching.most
    held = "held" if found["anonymous"] <= BAR_MB else "MISSED"
    return {
        "ready_s": round(program.ready_seconds, 1), "searches": done, "longest_ms": round(1000 * longest),
        **found, "bar": f"{BAR_MB} anonymous: {held}",
    }  # fmt: skip


def _ask(browser: Browser, until: float) -> tuple[float, int]:
    """One person's searches until then: (the longest took, how many)."""
    longest, done = 0.0, 0
    words = iter(library.phrases(5_000, seed=9))
    filters = [
        "",
        "format:jpeg",
        "rating:>=3",
        'source:"Disk 3"',
        "folder:2019",
        "size:>=5MB",
        "tag:dog",
        "is:untagged",
    ]
    while time.perf_counter() < until:
        longest = max(longest, browser.get("/", q=f"{next(words)} {filters[done % len(filters)]}".strip(), min=0)[0])
        done += 1
        if done % 10 == 0:
            browser.get("/browse/", format="JPEG", rating=">=4")
        time.sleep(0.2)
    return longest, done


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=4_000_000)
    parser.add_argument("--photos", type=int, default=300)
    options = parser.parse_args()
    with library.settings_of(options.data) as data:
        library.make(options.size)
        print(json.dumps(measure(data, options.photos), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
