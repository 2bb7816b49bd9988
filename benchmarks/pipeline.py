"""The whole way of a folder, from files to searchable, against its bare parts measured in the same run.

    python -m benchmarks.pipeline [--count 1000] [--photos FOLDER] [--encoder random:ViT-B-32-256|onnx]

Bare encode (resize, crop and tower), decode and thumbnail run in as many threads as the worker uses, each part by
itself; their summed processor time says how many images a second the processors allow. The bar: end to end (crawl,
read, metadata, fingerprints, thumbnails, both spaces, database, everything on disk) at least 0.9 of that; with a
small ONNX network, beside which everything else weighs more, 0.7.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ENCODER = "random:ViT-B-32-256"
ONNX = "onnx"
"""Stands for a MobileNetV2 of random weights, exported to a scratch folder: speed does not depend on the weights."""
BATCH = 32
SAMPLE = 256


def measure(
    count: int = 1000, photos: str | os.PathLike[str] | None = None, *, encoder: str = ENCODER
) -> dict[str, Any]:
    """Index `count` generated 640-pixel JPEGs (or the pictures of a folder) and time the parts beside the whole.

    Needs Django set up on a migrated scratch database and data folder. Images a second are wall-clock; `cpu_ms`
    are processor milliseconds an image. `ratio` is end to end over what the bare parts' processor time allows,
    `ratio_cpu` the same in processor time alone, which other programs on the machine disturb less.
    """
    from django.conf import settings

    from search.encoders import encode_plan, get_encoder, set_threads
    from search.encoders.threads import before_torch, thread_budget

    before_torch()
    with tempfile.TemporaryDirectory(prefix="pipeline-") as scratch:
        if encoder == ONNX:
            encoder = f"onnx:{export_network(Path(scratch) / 'mobilenetv2')}"
        settings.IMAGESEARCH_ENCODER = encoder
        loaded = get_encoder(encoder)
        threads = thread_budget()
        callers, inner = encode_plan()
        set_threads(inner)
        folder = Path(photos) if photos is not None else make_photos(Path(scratch) / "photos", count)
        sample = _sample(folder)
        bare = _bare(loaded, sample, threads=threads, callers=callers)
        whole = _index(folder)
    allowed = threads / (sum(bare[part]["cpu_ms"] for part in ("encode", "decode", "thumbnail")) / 1000)
    cpu_allowed = sum(bare[part]["cpu_ms"] for part in ("encode", "decode", "thumbnail"))
    return {
        "images": whole["images"],
        "encoder": loaded.label,
        "threads": threads,
        "images_per_second": round(whole["per_second"], 2),
        "allowed_per_second": round(allowed, 2),
        "ratio": round(whole["per_second"] / allowed, 3),
        "ratio_cpu": round(cpu_allowed / whole["cpu_ms"], 3),
        "over_bare_encoder": round(whole["per_second"] / bare["encode"]["per_second"], 3),
        "bare": {name: {key: round(value, 2) for key, value in part.items()} for name, part in bare.items()},
        "whole_cpu_ms": round(whole["cpu_ms"], 2),
        "stage_cpu_ms": whole["stage_cpu_ms"],
        "busy": round(whole["busy"], 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "growth_rss_mb": round(whole["growth_mb"], 1),
    }


def export_network(folder: Path) -> Path:
    """MobileNetV2 without its last layer, seeded random weights, as an ONNX encoder's folder."""
    import warnings

    import torch
    import torchvision

    folder.mkdir()
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2(weights=None)
    model.classifier = torch.nn.Identity()
    ends: dict[str, Any] = {"input_names": ["input"], "output_names": ["features"]}
    free = {"input": {0: "n"}, "features": {0: "n"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is called the old one
        file = str(folder / "model.onnx")
        torch.onnx.export(model.eval(), (torch.zeros(2, 3, 224, 224),), file, dynamo=False, dynamic_axes=free, **ends)
    said = {"name": "mobilenetv2, random weights", "input": "input", "output": "features", "size": 224}
    (folder / "model.json").write_text(json.dumps({**said, "mean": [0.5] * 3, "std": [0.5] * 3}))
    return folder


def make_photos(folder: Path, count: int, *, seed: int = 0) -> Path:
    """`count` distinct 640x480 JPEGs, statistically like photos: smooth forms, edges and grain; about 70 kB each."""
    import numpy as np
    import PIL.Image

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        random = np.random.default_rng(seed * 1_000_003 + number)
        layers = np.zeros((480, 640, 3), dtype=np.float32)
        for cells, weight in ((4, 120), (16, 60), (64, 30), (160, 18)):
            small = random.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)
            method = PIL.Image.Resampling.BICUBIC if cells != 16 else PIL.Image.Resampling.NEAREST
            big = PIL.Image.fromarray(small).resize((640, 480), method)
            layers += (np.asarray(big, dtype=np.float32) - 128) * (weight / 128)
        layers += random.standard_normal((480, 640, 1), dtype=np.float32) * 6 + 128
        PIL.Image.fromarray(layers.clip(0, 255).astype(np.uint8)).save(folder / f"photo{number:06}.jpg", quality=85)
    return folder


def _sample(folder: Path) -> list[bytes]:
    found: list[bytes] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}:
            found.append(path.read_bytes())
        if len(found) == SAMPLE:
            break
    return found


def _bare(encoder: Any, sample: Sequence[bytes], *, threads: int, callers: int) -> dict[str, dict[str, float]]:
    """{part: {"per_second", "cpu_ms"}} of each bare part over the sample."""
    from search import thumbnails
    from search.decoding import decode

    side = max(512, 2 * encoder.side)
    pixels = [decode(data, min_side=side).pixels for data in sample]
    batches = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]

    def encode(batch: list[Any]) -> None:
        encoder.encode_images([encoder.prepare(one) for one in batch])

    encode(batches[0])  # the first batch pays for what is made once
    return {
        "encode": _timed(encode, batches, len(pixels), callers),
        "decode": _timed(lambda data: decode(data, min_side=side), sample, len(sample), threads),
        "thumbnail": _timed(lambda one: thumbnails.encode(thumbnails.make(one)), pixels, len(pixels), threads),
    }


def _timed(work: Callable[[Any], Any], items: Sequence[Any], images: int, threads: int) -> dict[str, float]:
    """Every item once, in so many threads at once."""
    left = list(items)
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                if not left:
                    return
                item = left.pop()
            work(item)

    running = [threading.Thread(target=run) for _ in range(threads)]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"per_second": images / wall, "cpu_ms": 1000 * cpu / images}


def _index(folder: Path) -> dict[str, Any]:
    """Crawl and process at once, as `manage.py index` does."""
    from django.db import connection

    from ingestion.register import crawl
    from ingestion.roots import source_for
    from ingestion.worker import Worker
    from search.models import Image

    source, _ = source_for(folder)

    def walk() -> None:
        try:
            crawl(source)
        finally:
            connection.close()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    walker = threading.Thread(target=walk)
    worker = Worker(sources=[source.pk], more=walker.is_alive)
    wall, cpu = time.perf_counter(), time.process_time()
    walker.start()
    summary = worker.run()
    walker.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    images = Image.objects.filter(source=source, state=Image.State.READY).count()
    if not images:
        raise SystemExit(f"No picture could be read in {folder}.")
    return {
        "images": images,
        "per_second": images / wall,
        "cpu_ms": 1000 * cpu / images,
        "busy": cpu / wall / worker.threads,
        "stage_cpu_ms": {name: round(1000 * value / images, 2) for name, value in sorted(summary.seconds.items())},
        "growth_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--photos", help="a folder of pictures instead of generated ones")
    parser.add_argument("--encoder", default=ENCODER, help=f"default {ENCODER}; {ONNX}: a network of random weights")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    data = tempfile.mkdtemp(prefix="pipeline-data-")
    os.environ.update(IMAGESEARCH_DATA=data, DJANGO_SETTINGS_MODULE="imagesearch.settings")
    os.environ.setdefault("IMAGESEARCH_LOG_LEVEL", "WARNING")
    try:
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        found = measure(given.count, given.photos, encoder=given.encoder)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    json.dump(found, sys.stdout, indent=None if given.json else 2)
    print()


if __name__ == "__main__":
    main()
