"""A re-crawl of unchanged files against a bare walk of the same tree: both in process, in the same run.

    python -m benchmarks.recrawl [--size 100000]

The bare walk is what no crawl can do without: os.scandir on every folder and stat on every file. The tree is made in
the temporary folder (TMPDIR): a folder for every 500 files, each a few bytes that begin like JPEG. It is
registered for real, through the product's own crawl, in a scratch database.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PER_FOLDER = 500
ROUNDS = 5


def measure(size: int = 100_000, *, folder: Path | None = None) -> dict[str, Any]:
    """Make `size` small files, crawl them twice, and time the second crawl against a bare walk.

    Needs Django set up on a migrated scratch database. Returns the medians of `ROUNDS` rounds in seconds, their
    ratio (the bar is 3), queries and writes of one re-crawl, and by how many MB the process grew in it at most (None
    where the system does not say).
    """
    import statistics

    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from ingestion.register import crawl, source_for

    with tempfile.TemporaryDirectory(prefix="recrawl-", dir=folder) as scratch:
        root = os.fsencode(scratch)
        _make(root, size)
        source, _ = source_for(root)
        started = time.perf_counter()
        first = crawl(source)
        register_seconds = time.perf_counter() - started
        _as_after_processing(source.pk)
        with CaptureQueriesContext(connection) as captured:
            again = crawl(source)
        most_mb = peak_of(lambda: crawl(source))
        assert (first.registered, again.unchanged, again.registered) == (size, size, 0), (first, again)
        writes = [
            q for q in captured.captured_queries if q["sql"].lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE"))
        ]
        bare, crawled = [], []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            assert _bare_walk(root) == size
            bare.append(time.perf_counter() - started)
            started = time.perf_counter()
            crawl(source)
            crawled.append(time.perf_counter() - started)
        bare_seconds, crawl_seconds = statistics.median(bare), statistics.median(crawled)
        return {
            "files": size,
            "database": connection.vendor,
            "register_seconds": round(register_seconds, 2),
            "bare_walk_seconds": round(bare_seconds, 3),
            "recrawl_seconds": round(crawl_seconds, 3),
            "ratio": round(crawl_seconds / bare_seconds, 2),
            "bar": 3.0,
            "queries": len(captured.captured_queries),
            "writes": len(writes),
            "peak_growth_mb": most_mb,
        }


def _as_after_processing(source_id: int) -> None:
    """Rows as wide as those of real photos that were read: ready, with digest, camera and EXIF."""
    from search.models import Image, ImageMetadata

    exif = {f"Tag {number}": f"a value of the usual length {number}" for number in range(40)}
    Image.objects.filter(source=source_id).update(
        state=Image.State.READY, sha256=b"\x5a" * 32, camera="Camera 5D", lens="EF 24-70mm", width=6000,
        height=4000, format="JPEG", iso=100, aperture=2.8, exposure_time=0.01, focal_length=50.0,
        colours=[["#336699", 0.4], ["#aabbcc", 0.3], ["#112233", 0.2]],
    )  # fmt: skip
    ids = list(Image.objects.filter(source=source_id).values_list("pk", flat=True))
    for start in range(0, len(ids), 5_000):
        some = ids[start : start + 5_000]
        ImageMetadata.objects.bulk_create([ImageMetadata(image_id=i, exif=exif) for i in some])


def peak_of(run: Callable[[], object]) -> float | None:
    """By how many MB the most memory that was in use while it ran lies above what was in use before. Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
        before = _kilobytes("VmRSS")
        run()
        return round((_kilobytes("VmHWM") - before) / 1024, 1)
    except OSError:
        return None


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _bare_walk(root: bytes) -> int:
    files, stack = 0, [root]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    files += 1
    return files


def _make(root: bytes, size: int) -> None:
    """Files that begin like JPEG and are cheap to make; a re-crawl never opens them."""
    for number in range(size):
        folder = root + b"/%04d" % (number // PER_FOLDER)
        if number % PER_FOLDER == 0:
            os.mkdir(folder)
        with open(folder + b"/IMG_%06d.jpg" % number, "wb") as file:
            file.write(b"\xff\xd8\xff\xe0" + b"%d" % number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=100_000, help="How many files (default 100,000).")
    size = parser.parse_args().size
    with tempfile.TemporaryDirectory(prefix="recrawl-data-") as data:
        os.environ["IMAGESEARCH_DATA"] = data
        os.environ.setdefault("IMAGESEARCH_ENCODER", "look")
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        print(json.dumps(measure(size), indent=2))


if __name__ == "__main__":
    main()
