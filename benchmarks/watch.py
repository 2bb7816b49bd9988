"""How long a change in a folder takes to appear: the real watcher and the real worker, on real files.

    python -m benchmarks.watch [--size 20000] [--rounds 20]

A folder of `size` files is crawled; then, one after the other, a new file is written, a file changed, one moved
to another folder, one deleted and a folder of 100 files renamed. Measured is the time from the end of the change until
the catalogue (and with it every page) shows it; for new files also until they were read and can be searched.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PER_FOLDER = 100
PATIENCE = 120.0


def measure(folder: Path, *, size: int, rounds: int) -> dict[str, Any]:
    """Seconds from a change to its appearance: {kind: {"median", "worst"}}. Needs a migrated scratch database."""
    from ingestion.register import crawl, source_for
    from ingestion.watchstate import watched_ids
    from search.models import Image

    photos = folder / "photos"
    pictures = _pictures(folder, rounds * 2 + 1)
    names = _fill(photos, pictures[0], size)
    source = source_for(photos)[0]
    crawl(source)
    _as_read(source.pk)
    images = Image.objects.filter(source=source)
    random.seed(7)
    took: dict[str, list[float]] = {}

    def until(kind: str, condition: Callable[[], bool], since: float) -> None:
        while not condition():
            if time.perf_counter() - since > PATIENCE:
                raise SystemExit(f"{kind}: nothing appeared within {PATIENCE:.0f} s")
            time.sleep(0.01)
        took.setdefault(kind, []).append(time.perf_counter() - since)

    def at(path: Path) -> Any:
        return images.filter(path=os.fsencode(path.relative_to(photos)))

    running = [_start("watch"), _start("process", "--forever", "--stage", "read")]
    try:
        until("start of the watch", lambda: source.pk in watched_ids(), time.perf_counter())
        time.sleep(10)
        for number in range(rounds):
            new = photos / f"folder{random.randrange(size // PER_FOLDER):04}" / f"new{number}.jpg"
            new.write_bytes(pictures[1 + number])
            since = time.perf_counter()
            until("new: listed", lambda new=new: at(new).exists(), since)  # type: ignore[misc]
            until("new: read", lambda new=new: at(new).filter(state="ready").exists(), since)  # type: ignore[misc]
            new.write_bytes(pictures[1 + rounds + number])
            since, length = time.perf_counter(), len(pictures[1 + rounds + number])
            until("changed", lambda new=new, length=length: at(new).filter(size=length).exists(), since)  # type: ignore[misc]
            moved = photos / f"folder{random.randrange(size // PER_FOLDER):04}" / f"moved{number}.jpg"
            pk = at(new).get().pk
            os.rename(new, moved)
            since = time.perf_counter()
            until("moved", lambda moved=moved, pk=pk: at(moved).filter(pk=pk).exists(), since)  # type: ignore[misc]
            gone = names.pop()
            os.unlink(gone)
            since = time.perf_counter()
            until("deleted", lambda gone=gone: at(gone).filter(state="missing").exists(), since)  # type: ignore[misc]
        for number in range(min(rounds, 5)):
            old, new = photos / f"folder{number:04}", photos / f"renamed{number:04}"
            inside = set(images.filter(folder=old.name).exclude(state="missing").values_list("pk", flat=True))
            os.rename(old, new)
            since = time.perf_counter()
            until(
                f"folder of {PER_FOLDER} renamed",
                lambda new=new, inside=inside: images.filter(folder=new.name, pk__in=inside).count() == len(inside),  # type: ignore[misc]
                since,
            )
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return {
        "files": size,
        "folders": size // PER_FOLDER,
        "rounds": rounds,
        "load": round(os.getloadavg()[0], 1),
        "seconds": {
            kind: {"median": round(statistics.median(some), 2), "worst": round(max(some), 2)}
            for kind, some in took.items()
        },
    }


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _pictures(folder: Path, count: int) -> list[bytes]:
    from benchmarks.pipeline import make_photos

    made = make_photos(folder / "made", count)
    found = [path.read_bytes() for path in sorted(made.iterdir())]
    shutil.rmtree(made)
    return found


def _fill(photos: Path, body: bytes, size: int) -> list[Path]:
    """Files of different lengths that lie there since long ago."""
    names = []
    long_ago = time.time() - 100_000
    for number in range(size):
        path = photos / f"folder{number // PER_FOLDER:04}" / f"photo{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body[:4000] + b"%d" % number * (number % 50))
        os.utime(path, (long_ago, long_ago))
        names.append(path)
    return names


def _as_read(source_id: int) -> None:
    from ingestion import ledger
    from search.models import Image

    images = Image.objects.filter(source=source_id)
    images.update(state=Image.State.READY, sha256=b"\x5a" * 32)
    ids = list(images.values_list("pk", flat=True))
    for start in range(0, len(ids), 5_000):
        ledger.drop(ids[start : start + 5_000])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=20_000, help="Files in the folder (default 20,000).")
    parser.add_argument("--rounds", type=int, default=20, help="Changes of each kind (default 20).")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="watch-") as scratch:
        os.environ["IMAGESEARCH_DATA"] = str(Path(scratch) / "data")
        os.environ["IMAGESEARCH_ENCODER"] = "look"
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
        sys.path.insert(0, str(ROOT))
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        print(json.dumps(measure(Path(scratch), size=options.size, rounds=options.rounds), indent=2))


if __name__ == "__main__":
    main()
