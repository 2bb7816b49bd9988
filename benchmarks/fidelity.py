"""Is what the program finds what the model says? Prints it; tests/test_fidelity.py asserts it.

    python benchmarks/fidelity.py [--encoder local-dir:FOLDER] [--photos FOLDER] [--captions 200]

The product is the whole of it: `manage.py index` into a data folder of its own, then `search.retrieval` for every
caption. The reference is plain open_clip and numpy in fp32 on the pictures as the product decodes them. FOLDER holds
photos and `captions.csv` (file, caption).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
SHARED = Path(os.environ.get("IMAGESEARCH_SHARED", ROOT.parent / "shared"))
TOP = 20
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What was found for each caption, best first: file names and scores."""

    names: list[list[str]]
    scores: list[list[float]]


def captioned(folder: Path, count: int) -> list[tuple[str, str]]:
    """(file, caption) of `count` photos spread over the folder, one caption of each."""
    with open(folder / "captions.csv", newline="") as file:
        first = {row["file"]: row["caption"] for row in csv.DictReader(file)}
    rows = sorted((name, caption) for name, caption in first.items() if (folder / name).is_file())
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]


def reference(spec: str, files: Sequence[Path], captions: Sequence[str]) -> Floats:
    """Cosines (captions, files) float32 by open_clip and numpy; only the decoder is the product's."""
    import open_clip
    import torch

    from search.decoding import read_pixels

    model, _, preprocess = open_clip.create_model_and_transforms(spec)
    model.eval()
    size = model.visual.preprocess_cfg["size"]
    side = max(size) if isinstance(size, list | tuple) else size
    tokenizer = open_clip.get_tokenizer(spec)
    with torch.inference_mode():
        parts = []
        for start in range(0, len(files), 32):
            pictures = [
                read_pixels(file.read_bytes(), min_side=2 * side).pixels for file in files[start : start + 32]
            ]  # fmt: skip
            parts.append(model.encode_image(torch.stack([preprocess(picture) for picture in pictures])).numpy())
        texts = np.concatenate([model.encode_text(tokenizer([caption])).numpy() for caption in captions])
    images = np.concatenate(parts)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return texts @ images.T  # type: ignore[no-any-return]


def ask(captions: Sequence[str]) -> Answers:
    """The product's ranking (nothing cut off), in a process whose settings name the data folder."""
    from search.query import Query
    from search.retrieval import find

    names, scores = [], []
    for caption in captions:
        hits = [hit for hit in find(Query(phrases=(caption,), min=0), None, limit=TOP).hits if hit.score is not None]
        names.append([os.fsdecode(bytes(hit.image.path)) for hit in hits])
        scores.append([hit.score for hit in hits if hit.score is not None])
    return Answers(names, scores)


def product(environment: dict[str, str], folder: Path, captions: Sequence[str]) -> Answers:
    """Index the folder and answer the captions, in processes with this environment (a migrated database)."""
    subprocess.run([sys.executable, "manage.py", "index", str(folder)], cwd=ROOT, env=environment, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    asked = subprocess.run(
        [sys.executable, __file__, "--ask"], cwd=ROOT, env=environment, check=True, text=True,
        input=json.dumps(list(captions)), stdout=subprocess.PIPE,
    )  # fmt: skip
    return Answers(**json.loads(asked.stdout.splitlines()[-1]))


def largest_swap(expected: Floats, names: Sequence[str], answers: Answers) -> float:
    """How much worse, by the reference, a hit is than the one the reference has at its rank; the largest of all.

    0 where the product's list is the reference's; a swap of two hits counts the difference of their cosines.
    """
    number = {name: i for i, name in enumerate(names)}
    worst = 0.0
    for row, found in zip(expected, answers.names, strict=True):
        best = np.sort(row)[::-1][:TOP]
        given = np.array([row[number[name]] for name in found])
        if len(given) != len(best) or len(set(found)) != len(found):
            return float("inf")
        worst = max(worst, float(np.abs(given - best).max()))
    return worst


def largest_score_error(expected: Floats, names: Sequence[str], answers: Answers) -> float:
    """How far a shown score is from the reference's cosine for that image."""
    number = {name: i for i, name in enumerate(names)}
    errors = [
        abs(row[number[name]] - score)
        for row, found, scores in zip(expected, answers.names, answers.scores, strict=True)
        for name, score in zip(found, scores, strict=True)
    ]
    return float(max(errors))


def overlaps(expected: Floats, names: Sequence[str], answers: Answers) -> Floats:
    """For each caption the share of the reference's top 20 that the product's top 20 holds."""
    best = np.argsort(-expected, axis=1)[:, :TOP]
    shares = [
        len({names[i] for i in row} & set(found)) / min(TOP, len(names))
        for row, found in zip(best, answers.names, strict=True)
    ]
    return np.array(shares, dtype=np.float32)


def recalls(wanted: Sequence[str], answers: Answers) -> dict[int, float]:
    """Share of captions whose own photo is among the first 1, 5 and 10."""
    return {
        k: float(np.mean([name in found[:k] for name, found in zip(wanted, answers.names, strict=True)]))
        for k in (1, 5, 10)
    }


def twelve_megapixels(picture: PIL.Image.Image, seed: int, *, quality: int = 92) -> bytes:
    """A 4000 x 3000 JPEG as a camera would write it: the picture enlarged, with fine texture and sensor noise."""
    random = np.random.default_rng(seed)
    pixels = np.asarray(picture.convert("RGB").resize((4000, 3000), PIL.Image.Resampling.BICUBIC), dtype=np.float32)
    grain = random.normal(0, 6, (3000, 4000, 1)).astype(np.float32)
    coarse = random.normal(0, 10, (750, 1000)).astype(np.float32)
    texture = np.asarray(PIL.Image.fromarray(coarse).resize((4000, 3000), PIL.Image.Resampling.BICUBIC))[..., None]
    pixels += grain + texture * (pixels.mean(axis=2, keepdims=True) / 255)
    out = io.BytesIO()
    PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def reduced_against_full(encoder: Any, packed: Sequence[bytes]) -> Floats:
    """Cosine between the vectors of a JPEG decoded at reduced scale, as ingestion does it, and decoded in full."""
    from search.decoding import decode

    vectors = []
    for side in (2 * encoder.side, None):
        prepared = [encoder.prepare(decode(data, min_side=side).pixels) for data in packed]
        vectors.append(encoder.encode_images(prepared))
    return (vectors[0] * vectors[1]).sum(axis=1)  # type: ignore[no-any-return]


def example_pictures() -> list[PIL.Image.Image]:
    """The photographs that come with scikit-image."""
    import skimage.data

    return [PIL.Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "cat", "coffee", "rocket")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default=f"local-dir:{SHARED / 'models' / 'dev-clip'}")
    parser.add_argument("--photos", type=Path, default=SHARED / "photos" / "captioned" / "flickr")
    parser.add_argument("--captions", type=int, default=200)
    parser.add_argument("--ask", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    import django

    if options.ask:
        django.setup()
        answers = ask(json.load(sys.stdin))
        print(json.dumps({"names": answers.names, "scores": answers.scores}))
        return
    chosen = captioned(options.photos, options.captions)
    files = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    names, captions = [path.name for path in files], [caption for _, caption in chosen]
    work = Path(tempfile.mkdtemp(prefix="fidelity-"))
    try:
        os.environ.update(IMAGESEARCH_DATA=str(work / "reference"), IMAGESEARCH_ENCODER=options.encoder)
        os.environ.pop("DATABASE_URL", None)
        os.environ["IMAGESEARCH_PRECISION"] = "fp32"
        django.setup()
        print(f"{len(captions)} captions, {len(files)} photos, {options.encoder}", flush=True)
        expected = reference(options.encoder, files, captions)
        for precision in ("fp32", "bf16"):
            environment = {
                **os.environ, "IMAGESEARCH_DATA": str(work / precision), "IMAGESEARCH_PRECISION": precision,
            }  # fmt: skip
            subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
            answers = product(environment, options.photos, captions)
            found = recalls([name for name, _ in chosen], answers)
            print(
                f"{precision}: largest swap {largest_swap(expected, names, answers):.1e}, "
                f"largest error of a score {largest_score_error(expected, names, answers):.1e}, "
                f"overlap of the first {TOP}: {overlaps(expected, names, answers).mean():.4f}, "
                + ", ".join(f"recall@{k} {share:.3f}" for k, share in found.items()),
                flush=True,
            )
        from search.encoders import get_encoder

        pictures = example_pictures() + [PIL.Image.open(file) for file in files[:: max(1, len(files) // 12)]]
        packed = [twelve_megapixels(picture, seed) for seed, picture in enumerate(pictures)]
        for spec in (options.encoder, "look"):
            cosines = reduced_against_full(get_encoder(spec), packed)
            print(f"12 megapixels at reduced scale, {spec}: cosine at least {cosines.min():.5f}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
