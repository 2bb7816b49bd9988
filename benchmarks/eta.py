"""How true the remaining time is: the real worker over a uniform folder, its ETA against the time that it then took.

    python -m benchmarks.eta [--seconds 900] [--warm 600] [--encoder look]

The pictures are as many as the first half minute says the machine does in `--seconds`; each is a copy, with other
last bytes, of one of 64 generated 640-pixel photos. After the warm-up the ETA of every stage is noted each two
seconds, and compared with the seconds until that stage was finished. The last 30 seconds are left away: there a
batch is more than a quarter of what remains.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TRIAL_SECONDS = 30
LOOK_SECONDS = 2.0
LEFT_AWAY = 30.0


def measure(scratch: Path, *, seconds: float, warm: float) -> dict[str, Any]:
    """Errors of the ETA in percent of the true remaining time. Needs a migrated scratch database."""
    from benchmarks.pipeline import make_photos
    from ingestion.models import StageTick
    from ingestion.register import crawl, source_for
    from search.encoders.threads import before_torch
    from search.models import Image

    before_torch()
    bodies = [path.read_bytes() for path in sorted(make_photos(scratch / "made", 64).iterdir())]
    photos = scratch / "photos"
    photos.mkdir()
    source = source_for(photos)[0]
    _copy(bodies, photos, 0, 4_000)
    crawl(source)
    done = _work(TRIAL_SECONDS)[0]
    count = max(200, round(done / TRIAL_SECONDS * seconds))
    waiting = Image.objects.filter(state=Image.State.WAITING).count()
    _copy(bodies, photos, 4_000, 4_000 + max(0, count - waiting))
    crawl(source)
    StageTick.objects.all().delete()
    _, looks, took = _work(None)
    errors = [
        100 * (eta / (finished[stage] - at) - 1)
        for finished in [_finished(looks)]
        for at, stage, eta in looks
        if eta and warm <= at < finished[stage] - LEFT_AWAY
    ]
    return {
        "images": count,
        "seconds": round(took),
        "warm_up_seconds": warm,
        "load": round(os.getloadavg()[0], 1),
        "looks": len(errors),
        "median_error_percent": round(statistics.median(map(abs, errors)), 1) if errors else None,
        "largest_error_percent": round(max(map(abs, errors)), 1) if errors else None,
        "bar_percent": 25,
    }


def _work(seconds: float | None) -> tuple[int, list[tuple[float, str, float | None]], float]:
    """Let a worker run for so long (None: to the end); returns images done, the looks, seconds."""
    from django.db import connection

    from ingestion import progress
    from ingestion.worker import Worker

    worker = Worker()
    looks: list[tuple[float, str, float | None]] = []
    started, ended = time.perf_counter(), threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            rows = progress.report()
            now = time.perf_counter() - started
            looks.extend((now, row.stage, row.eta_seconds) for row in rows)
            if seconds is not None and now >= seconds:
                worker.stop()
        connection.close()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        summary = worker.run()
    finally:
        ended.set()
        looking.join()
    return summary.done.get("read", 0), looks, time.perf_counter() - started


def _finished(looks: list[tuple[float, str, float | None]]) -> dict[str, float]:
    """When each stage was first seen with nothing left."""
    found = {stage: at for at, stage, eta in reversed(looks) if eta == 0}
    return {stage: found.get(stage, looks[-1][0] + LOOK_SECONDS) for _, stage, _ in looks}


def _copy(bodies: list[bytes], photos: Path, first: int, last: int) -> None:
    for number in range(first, last):
        folder = photos / f"{number // 500:04}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:06}.jpg").write_bytes(bodies[number % len(bodies)] + b"%d" % number)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=900, help="About how long the work takes (default 900).")
    parser.add_argument("--warm", type=float, default=600, help="From when on the ETA counts (default 600).")
    parser.add_argument("--encoder", default="look", help='Encoder setting (default "look").')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eta-") as scratch:
        os.environ["IMAGESEARCH_DATA"] = str(Path(scratch) / "data")
        os.environ["IMAGESEARCH_ENCODER"] = options.encoder
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
        sys.path.insert(0, str(ROOT))
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        print(json.dumps(measure(Path(scratch), seconds=options.seconds, warm=options.warm), indent=2))


if __name__ == "__main__":
    main()
