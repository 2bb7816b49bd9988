"""How often Identify claims what is not so, and finds what is there: on photos, with each encoder that is given.

    python -m benchmarks.identify [--photos FOLDER] [--encoder SPEC]... [--count 400]

Half of the photos are the library. For collections of 5, 10, 50 and 200 of them, drawn by a seed, every photo of the
other half is a stranger (a claim about it is false), and altered copies of the collection's own photos have to be
found: a third of the size, JPEG of quality 25, mirrored, without colour, the middle alone, turned by 10 degrees, lying
on the side. The bar: of all strangers of an encoder at most 1 percent get a claim. Without --photos the generated ones
of the pipeline are measured with `look` alone: patches of colour, no photographs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

SIZES = (5, 10, 50, 200)
COPIES = 10
"""Photos of each collection that are altered."""


def _jpeg(picture: PIL.Image.Image) -> PIL.Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=25)
    return PIL.Image.open(out).convert("RGB")


def _middle(picture: PIL.Image.Image) -> PIL.Image.Image:
    width, height = picture.size
    return picture.crop((width // 8, height // 8, width - width // 8, height - height // 8))


ALTERED: dict[str, Callable[[PIL.Image.Image], PIL.Image.Image]] = {
    "a third of the size": lambda picture: picture.resize((picture.width // 3, picture.height // 3)),
    "jpeg quality 25": _jpeg,
    "mirrored": PIL.ImageOps.mirror,
    "without colour": lambda picture: picture.convert("L").convert("RGB"),
    "the middle alone": _middle,
    "turned by 10 degrees": lambda picture: picture.rotate(10, resample=PIL.Image.Resampling.BICUBIC),
    "on its side": lambda picture: picture.transpose(PIL.Image.Transpose.ROTATE_90),
}


def measure(photos: Path, specs: list[str], count: int) -> dict[str, Any]:
    """{encoder's label: {collection size: rates in percent}}. Needs Django set up on a migrated scratch database."""
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
    draw = np.random.default_rng(0)
    chosen = [paths[place] for place in draw.permutation(len(paths))[:count]]
    pictures = [_opened(path) for path in chosen]
    return dict(_of_encoder(spec, pictures, number) for number, spec in enumerate(specs))


def _of_encoder(spec: str, pictures: list[PIL.Image.Image], number: int) -> tuple[str, dict[str, Any]]:
    from django.db import transaction

    from search import changes, embeddings, identification, references
    from search.encoders import get_encoder
    from search.likeness import Finding
    from search.models import Change, Image, ImageTag, Source, Tag, path_digest
    from search.spaces import ensure_space

    encoder = get_encoder(spec)
    space = ensure_space(encoder, spec)
    half = len(pictures) // 2
    source = Source.objects.create(name=f"library {number}", root=f"/library/{number}".encode())
    images = [
        Image.objects.create(
            source=source, path=b"%d" % place, path_digest=path_digest(b"%d" % place), name=str(place),
            directory=path_digest(b""), size=1, mtime_ns=1, state=Image.State.READY, shown_at="2024-01-01T00:00Z",
        )
        for place in range(half)
    ]  # fmt: skip
    prepared = [encoder.prepare(picture) for picture in pictures[:half]]
    vectors = np.concatenate([encoder.encode_images(prepared[at : at + 32]) for at in range(0, half, 32)])
    ids = np.array([image.pk for image in images], dtype=np.int64)
    embeddings.record(space, ids, vectors)
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, ids)
    draw = np.random.default_rng(1)
    claims = {Finding.LIKELY, Finding.ALIKE}
    found: dict[str, Any] = {}
    for size in [size for size in SIZES if size <= half]:
        tag = Tag.objects.create(name=f"{number} {size}")
        own = draw.permutation(half)[:size]
        ImageTag.objects.bulk_create(ImageTag(image=images[place], tag=tag) for place in own)
        collection = references.Collection("tag", tag.pk, tag.name)

        def ask(picture: PIL.Image.Image, collection: Any = collection) -> identification.Identification:
            return identification.identify(collection, None, picture=picture, space=space)

        strangers = [ask(picture).finding for picture in pictures[half:]]
        rates: dict[str, Any] = {
            "strangers": len(strangers),
            "false_claims_percent": _percent([one in claims for one in strangers]),
            "no_good_match_percent": _percent([one is Finding.NONE for one in strangers]),
        }
        for name, alter in ALTERED.items():
            asked = [(place, ask(alter(pictures[place]))) for place in own[:COPIES]]
            rates[f"{name}_claimed_percent"] = _percent(
                [one.finding in claims and one.best.image.pk == images[place].pk for place, one in asked]
            )
            rates[f"{name}_wrongly_claimed"] = sum(
                one.finding in claims and one.best.image.pk != images[place].pk for place, one in asked
            )
        found[f"of_{size}"] = rates
    return encoder.label, found


def _opened(path: Path) -> PIL.Image.Image:
    with PIL.Image.open(path) as picture:
        return picture.convert("RGB")


def _percent(flags: list[bool]) -> float:
    return round(100 * sum(flags) / max(len(flags), 1), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="a folder of photos instead of generated pictures")
    parser.add_argument("--encoder", action="append", metavar="SPEC", help="repeatable (default: look)")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    data = tempfile.mkdtemp(prefix="identify-data-")
    os.environ.update(IMAGESEARCH_DATA=data, DJANGO_SETTINGS_MODULE="imagesearch.settings")
    os.environ.setdefault("IMAGESEARCH_LOG_LEVEL", "WARNING")
    try:
        import django
        from django.core.management import call_command

        from benchmarks.pipeline import make_photos

        django.setup()
        call_command("migrate", verbosity=0)
        folder = Path(given.photos) if given.photos else make_photos(Path(data) / "photos", given.count)
        found = measure(folder, given.encoder or ["look"], given.count)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    json.dump(found, sys.stdout, indent=None if given.json else 2)
    print()


if __name__ == "__main__":
    main()
