"""Which is quicker: one thread that encodes with all processors, or as many threads with one processor each?

    python benchmarks/encode_plan.py [random:ARCHITECTURE] [--seconds 10] [--busy]

Prints images a second for each plan, batch size and wait policy of OpenMP (each policy in a process of its own,
since the runtime reads it once), and with --busy beside a thread that decodes JPEGs all the while, as in ingestion.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROUNDS = 5
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")


def measure(spec: str, seconds: float, busy: bool) -> None:
    import io

    import django
    import numpy as np
    import PIL.Image

    django.setup()
    from search.encoders import get_encoder, set_threads, thread_budget

    encoder = get_encoder(spec)
    noise = np.random.default_rng(0)
    picture = PIL.Image.fromarray(noise.integers(0, 255, (480, 640, 3), dtype=np.uint8))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=85)
    prepared = encoder.prepare(picture)
    stop = threading.Event()
    decoded = [0]

    def decode() -> None:
        while not stop.is_set():
            PIL.Image.open(io.BytesIO(packed.getvalue())).convert("RGB").resize((341, 256))
            decoded[0] += 1

    if busy:
        threading.Thread(target=decode, daemon=True).start()
    processors = thread_budget()
    plans = [(batch, *plan) for batch in (16, 32, 64) for plan in ((1, processors), (processors, 1))]
    rounds: dict[tuple[int, int, int], list[tuple[float, float]]] = {plan: [] for plan in plans}
    for number in range(ROUNDS + 1):  # the machine's own pace wanders: plans take turns, and the median counts
        for batch, callers, inner in plans:
            set_threads(inner)
            wall, cpu = run([prepared] * batch, encoder, callers, seconds / ROUNDS)
            if number:
                rounds[batch, callers, inner].append((wall, cpu))
    policy = os.environ.get("OMP_WAIT_POLICY", "default")
    for (batch, callers, inner), figures in rounds.items():
        wall, cpu = (statistics.median(values) for values in zip(*figures, strict=True))
        print(
            f"{policy:8} batch {batch:3}: {callers} x {inner} threads: {wall:6.1f} images a second, "
            f"{cpu:6.1f} a processor second",
            flush=True,
        )
    if busy:
        print(f"{decoded[0]} pictures decoded beside it")
    stop.set()


def run(batch: list[Any], encoder: Any, callers: int, seconds: float) -> tuple[float, float]:
    """(images a second of wall time, of processor time) with so many threads calling."""
    done = [0] * callers
    ends = time.perf_counter() + seconds

    def call(number: int) -> None:
        while True:
            encoder.encode_images(batch)
            done[number] += len(batch)
            if time.perf_counter() > ends:
                return

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - wall), sum(done) / (time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", nargs="?", default="random:ViT-B-32-256")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--busy", action="store_true", help="decode JPEGs in another thread at the same time")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure(options.encoder, options.seconds, options.busy)
        return
    for policy in ("PASSIVE", "ACTIVE"):
        subprocess.run([sys.executable, *sys.argv, "--here"], env={**os.environ, "OMP_WAIT_POLICY": policy}, check=True)


if __name__ == "__main__":
    main()
