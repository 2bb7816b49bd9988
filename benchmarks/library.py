"""A library of N images without files, to measure on: rows, tags, people, albums, vectors, an index.

    python -m benchmarks.library --data FOLDER [--size 1000000] [--rows-only] [--no-index]

Everything is seeded. Rows have the spread of a real archive: a dozen sources of very different sizes, days with many
pictures and days with none, forty cameras, 2,000 tags of which few are common, stars on one picture in seven, places on
two in five, near-duplicates and exact copies, owners who see all, a part, or little of it. The space is that of a
full-size ViT-B-32 with random weights; its vectors have the structure of CLIP's (`vectors_like_clip`), around what its
text tower makes of some phrases, so that other phrases find pictures. They lie in the id-aligned file and are believed
with their checksums, as if they had been embedded here. The files themselves are not there: pictures have no
thumbnails, and a crawl would call the sources missing.

The database is SQLite in the folder, or the empty one that DATABASE_URL names. A folder that holds a library already
is used as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

ENCODER = "random:ViT-B-32"
PASSWORD = "a-long-enough-word"
BLOCK = 20_000
TAGS = 2_000
ALBUMS = 200
SHARES = (0.42, 0.2, 0.1, 0.08, 0.06, 0.04, 0.03, 0.025, 0.02, 0.015, 0.007, 0.003)
"""Of all images, how many each source holds."""
WORDS = [
    "beach", "dog", "snow", "party", "river", "garden", "wedding", "train", "market", "harbour", "forest", "kitchen",
    "castle", "bridge", "summer",
]  # fmt: skip
FORMATS = {"JPEG": 0.82, "HEIF": 0.09, "PNG": 0.06, "RAW": 0.02, "TIFF": 0.01}
STATES = {"ready": 0.975, "unreadable": 0.008, "missing": 0.009, "removed": 0.005, "waiting": 0.003}
ENDINGS = {"JPEG": "jpg", "HEIF": "heic", "PNG": "png", "RAW": "cr3", "TIFF": "tif"}


KEPT = {"IMAGESEARCH_SHARED", "IMAGESEARCH_PRECISION", "IMAGESEARCH_THREADS"}
WHOLE = "bench-library"
"""The `Counter` that says that a library was made to its end."""


@contextmanager
def settings_of(data: Path | None) -> Iterator[Path]:
    """Django set up on a data folder (a scratch one without `data`) with its database migrated."""
    with tempfile.TemporaryDirectory(prefix="imagesearch-library-") as scratch:
        folder = data or Path(scratch)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise SystemExit(f"{folder} is a file: name a folder to keep the library in.") from None
        for name in [one for one in os.environ if one.startswith("IMAGESEARCH_") and one not in KEPT]:
            del os.environ[name]  # they would point at the installation's own data
        os.environ |= environment(folder)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
        import django

        django.setup()
        from django.conf import settings
        from django.core.management import call_command

        settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "testserver"]
        settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
        call_command("migrate", verbosity=0)
        yield folder


def environment(data: Path) -> dict[str, str]:
    """Settings of every process that works on the library."""
    return {"IMAGESEARCH_DATA": str(data), "IMAGESEARCH_ENV_FILE": os.devnull, "IMAGESEARCH_ENCODER": ENCODER}


def make(size: int, *, vectors: bool = True, index: bool = True) -> dict[str, float]:
    """Fill the empty database, and the vectors' file; returns the seconds of each step. Needs Django set up."""
    from django.contrib.auth import get_user_model

    from benchmarks import bulk
    from search import highwater
    from search.models import Counter, Image, Source

    took: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        took[name] = round(time.perf_counter() - began, 1)
        print(f"  {name:20} {took[name]:8.1f} s", file=sys.stderr, flush=True)

    if size < 1:
        raise SystemExit(f"--size is {size}, but a library has at least one image.")
    if Image.objects.exists() and not Source.objects.filter(root=_root(0)).exists():
        raise SystemExit("This database holds a library of somebody's own. Name an empty one to be filled.")
    if Counter.objects.filter(name=WHOLE).exists():
        return took
    if get_user_model().objects.exists():
        raise SystemExit("This library was not finished: delete its folder (or empty its database) and make it again.")
    with bulk.hurried():
        with step("rows"):
            people = _people()
            _images(0, size, _sources(people))
        with step("tags and the rest"):
            _tags(0, size, people)
            _besides(size, people)
        highwater.mend()
        bulk.analyse()
        if vectors:
            with step("vectors"):
                _vectors(size)
    if vectors and index:
        with step("index"):
            _index()
    Counter.objects.create(name=WHOLE, value=size)
    return took


def _root(number: int) -> bytes:
    return b"/nowhere/disk-%d" % number


def grow(size: int) -> None:
    """More rows with their tags, until there are `size`; no vectors."""
    from benchmarks import bulk
    from search import highwater
    from search.models import Image, Source

    have = Image.objects.count()
    _images(have, size, list(Source.objects.order_by("pk")))
    _tags(have, size, [])
    highwater.mend()
    bulk.analyse()


def _people() -> list[Any]:
    """The owner (staff, sees everything), one with a third of the library, one with a hundredth."""
    from django.contrib.auth import get_user_model

    people = get_user_model().objects
    owner = people.create_superuser("owner", password=PASSWORD)
    return [owner, people.create_user("anna", password=PASSWORD), people.create_user("ben", password=PASSWORD)]


def _sources(people: list[Any]) -> list[Any]:
    from django.db import transaction

    from search import access
    from search.models import Source, SourceAccess

    made = [Source.objects.create(name=f"Disk {n + 1}", root=_root(n)) for n in range(len(SHARES))]
    SourceAccess.objects.bulk_create(SourceAccess(source=one, user=people[0], role="owner") for one in made)
    with transaction.atomic():
        for who, which in ((people[1], (1, 2)), (people[2], (10, 11))):
            for n in which:
                access.grant(made[n], "editor", by=people[0], user=who)
    return made


def _images(have: int, size: int, sources: list[Any]) -> None:
    from benchmarks import bulk
    from search import review
    from search.models import Image, path_digest

    _, small, blur, plain = review.thresholds()
    chance = np.random.default_rng(11)
    days = np.sort(chance.beta(2.6, 1.1, max(1, size // 60)) * 22 * 365).astype(int)  # more every year
    shared = chance.integers(0, 2**63, 4_000)  # hashes of pictures that are there several times
    places = np.column_stack([chance.uniform(-55, 68, 300), chance.uniform(-170, 170, 300)])
    first, read = datetime(2004, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    for start in range(have, size, BLOCK):
        n = np.arange(start, min(start + BLOCK, size))
        chance = np.random.default_rng([11, start])
        source = chance.choice(len(sources), len(n), p=SHARES)
        format = chance.choice(list(FORMATS), len(n), p=list(FORMATS.values())).tolist()
        state = chance.choice(list(STATES), len(n), p=list(STATES.values())).tolist()
        day = days[np.minimum(n // 60, len(days) - 1)]
        shown = [
            first + timedelta(days=int(d), seconds=int(s)) for d, s in zip(day, 30_000 + 40 * (n % 60), strict=True)
        ]
        folder = [
            f"{at.year}/{at:%m-%d} {WORDS[number // 60 % len(WORDS)]}" for at, number in zip(shown, n, strict=True)
        ]
        name = [f"IMG_{number:07d}.{ENDINGS[one]}" for number, one in zip(n, format, strict=True)]
        path = [f"{a}/{b}".encode() for a, b in zip(folder, name, strict=True)]
        hashes = chance.integers(-(2**63), 2**63, len(n))
        near = chance.random(len(n)) < 0.06  # one or two bits beside another picture
        hashes[near] = shared[chance.integers(0, len(shared), near.sum())] ^ (1 << chance.integers(0, 60, near.sum()))
        digests = [one.tobytes() for one in chance.integers(0, 2**62, (len(n), 4))]
        for place in np.flatnonzero(chance.random(len(n)) < 0.01):
            digests[place] = b"copy %04d" % (start // BLOCK * 7 % 5_000 + place % 90) + bytes(23)
        camera = np.minimum(chance.zipf(1.6, len(n)), 40)
        placed = chance.random(len(n)) < 0.4
        where = places[np.minimum(n // 600 % 300, 299)] + chance.normal(0, 0.05, (len(n), 2))
        turned, tiny = chance.random(len(n)) < 0.2, chance.random(len(n)) < 0.02
        width, height = np.where(turned, 3000, 4000), np.where(turned, 4000, 3000)
        width[tiny], height[tiny] = 120, 90
        sharpness, uniformity = chance.lognormal(6, 1.3, len(n)), chance.beta(1, 9, len(n))
        rating = chance.choice(6, len(n), p=[0.86, 0.01, 0.02, 0.04, 0.04, 0.03])
        ready = np.array([one != "waiting" for one in state])
        flat = uniformity >= plain
        bulk.put(
            Image,
            {
                "id": (n + 1).tolist(), "source": [sources[s].pk for s in source], "path": path,
                "path_digest": [path_digest(one) for one in path], "name": name, "folder": folder,
                "directory": [path_digest(one.encode()) for one in folder],
                "size": chance.lognormal(15, 0.6, len(n)).astype(int).tolist(),
                "mtime_ns": [int(at.timestamp()) * 10**9 + int(k) for at, k in zip(shown, n, strict=True)],
                "state": state, "reason": ["The file ends too early." if one == "unreadable" else "" for one in state],
                "sha256": digests, "format": format, "width": width.tolist(), "height": height.tolist(),
                "shown_at": shown, "captured_at": shown, "created_at": read, "read_at": read,
                "camera": [f"Maker {c % 7} Camera {c}" for c in camera],
                "lens": [f"{24 + 5 * (c % 9)} mm" for c in camera],
                "iso": (100 * 2 ** chance.integers(0, 7, len(n))).tolist(), "aperture": 2.8, "exposure_time": 0.005,
                "focal_length": [24.0 + 5 * (c % 9) for c in camera],
                "latitude": [float(a) if p else None for a, p in zip(where[:, 0], placed, strict=True)],
                "longitude": [float(a) if p else None for a, p in zip(where[:, 1], placed, strict=True)],
                "perceptual_hash": hashes.tolist(), "sharpness": sharpness.tolist(), "uniformity": uniformity.tolist(),
                "colours": (("#336699", 0.4), ("#aabbcc", 0.3), ("#112233", 0.2)),
                "title": [f"A {WORDS[k % 15]} in {WORDS[k % 13]}" if k % 20 == 0 else "" for k in n.tolist()],
                "rating": rating.tolist(), "hidden": (n % 97 == 0).tolist(),
                "wide": [False] * len(n), "small": (ready & (np.minimum(width, height) < small)).tolist(),
                "blurred": (ready & (sharpness < blur) & ~flat).tolist(), "plain": (ready & flat).tolist(),
                "unrated": (ready & (rating == 0)).tolist(), "untagged": (ready & (n % 5 >= 3)).tolist(),
                "flagged": (n % 1_009 == 0).tolist(),
            },
        )  # fmt: skip
    from search.models import Counter

    Counter.objects.update_or_create(name=review._COUNTER, defaults={"value": review._digest()})


def _tags(have: int, size: int, people: list[Any]) -> None:
    """Three images of five carry one to three tags; the commonest lies on a twelfth of all images."""
    from benchmarks import bulk
    from search.models import Image, ImageTag, Tag

    now = datetime(2026, 6, 1, tzinfo=UTC)
    names = [f"{WORDS[n % 15]} {n}" if n >= 15 else WORDS[n] for n in range(TAGS)]
    if people:
        bulk.put(Tag, {"name": names, "key": names, "created_at": now, "made_by": people[0].pk})
    tags = np.array(list(Tag.objects.order_by("pk").values_list("pk", flat=True)))
    weights = (1 + np.arange(len(tags))) ** -0.9
    weights /= weights.sum()
    for start in range(have, size, 5 * BLOCK):
        n = np.arange(start, min(start + 5 * BLOCK, size))
        n = n[n % 5 < 3]
        chance = np.random.default_rng([13, start])
        chosen = chance.choice(len(tags), (len(n), 3), p=weights)
        image, number = np.nonzero(np.arange(3)[None] <= (n % 3)[:, None])
        pairs = np.unique(np.column_stack([n[image] + 1, tags[chosen[image, number]]]), axis=0)
        origin = [("file" if one % 2 else Image.Origin.PERSON.value) for one in pairs[:, 0].tolist()]
        bulk.put(
            ImageTag,
            {"image": pairs[:, 0].tolist(), "tag": pairs[:, 1].tolist(), "origin": origin, "created_at": now},
        )


def _besides(size: int, people: list[Any]) -> None:
    """Albums, favourites, comments, the history, what was opened, what a crawl saw, finished and failed work."""
    from benchmarks import bulk
    from ingestion.models import Crawl, SeenFile, StageCount, StageTick, Work
    from search.compact import pack_ids
    from search.encoders import get_encoder
    from search.models import (
        Action,
        Album,
        AlbumEntry,
        Comment,
        Event,
        Favourite,
        Source,
        path_digest,
    )
    from search.spaces import activate, ensure_space

    now = datetime(2026, 6, 1, tzinfo=UTC)
    owner = people[0].pk
    chance = np.random.default_rng(17)
    bulk.put(Album, {"owner": owner, "name": [f"Album {n}" for n in range(ALBUMS)], "created_at": now})
    albums = list(Album.objects.order_by("pk").values_list("pk", flat=True))
    each = max(1, size // 10 // ALBUMS)
    entries = {"image": [], "album": [], "position": []}  # type: dict[str, list[int]]
    for album in albums:
        ids = np.unique(chance.integers(1, size + 1, each))
        entries["image"] += ids.tolist()
        entries["album"] += [album] * len(ids)
        entries["position"] += (1_024 * np.arange(1, len(ids) + 1)).tolist()
    bulk.put(AlbumEntry, {**entries, "created_at": now})
    few = np.unique(chance.integers(1, size + 1, max(1, size // 25))).tolist()
    bulk.put(Favourite, {"user": owner, "image": few, "created_at": now})
    bulk.put(Comment, {"author": owner, "image": few[::4], "text": "What a day that was.", "created_at": now})
    times = [now - timedelta(minutes=n) for n in range(max(1, size // 20))]
    bulk.put(
        Action,
        {"user": owner, "verb": "tag", "summary": [f"Tagged {n}" for n in range(len(times))], "ids": pack_ids([1, 2]),
         "count": 2, "created_at": times},
    )  # fmt: skip
    times = [now - timedelta(minutes=n) for n in range(max(1, size // 5))]
    opened = chance.integers(1, size + 1, len(times)).tolist()
    bulk.put(Event, {"kind": "opened", "user": owner, "name": "owner", "image_id": opened, "created_at": times})
    sources = list(Source.objects.order_by("pk").values_list("pk", flat=True))
    seen = [b"%d.pdf" % n for n in range(max(1, size // 10))]
    bulk.put(
        SeenFile,
        {"source": [sources[n % len(sources)] for n in range(len(seen))], "path": seen,
         "path_digest": [path_digest(one) for one in seen], "directory": path_digest(b""), "size": 1, "mtime_ns": 1,
         "why": "unsupported", "kind": [f"kind {n % 7}" for n in range(len(seen))]},
    )  # fmt: skip
    for n in range(100):
        Crawl.objects.create(
            source_id=sources[n % len(sources)], state="finished", counts={"found": size}, finished_at=now
        )
    space = ensure_space(get_encoder(ENCODER), ENCODER)
    activate(space)
    failed = list(range(1, size + 1, 200))
    bulk.put(
        Work,
        {"image": failed, "stage": "read", "state": "failed", "newest": failed, "attempts": 1,
         "reason": "The file ends too early.", "failed_at": now},
    )  # fmt: skip
    StageCount.objects.bulk_create(
        [
            StageCount(stage="read", done=size - len(failed), failed=len(failed)),
            StageCount(stage=space.stage, done=size),
        ],
        ignore_conflicts=True,
    )
    StageTick.objects.create(stage="read", started_at=now, done=400)


def _vectors(size: int) -> None:
    """Rows in the space's file, flushed, and then believed: in the order in which the program does it."""
    from django.db import transaction

    from benchmarks import bulk
    from benchmarks.vectors_like_clip import CLUSTERS, Vectors
    from search import changes
    from search.encoders import get_encoder
    from search.models import Change, Embedding
    from search.spaces import active_space
    from search.vectors import get_store
    from search.vectors.embedding_file import row_crcs

    space = active_space()
    store, now = get_store(space), datetime(2026, 6, 1, tzinfo=UTC)
    encoder, texts = get_encoder(ENCODER), phrases(CLUSTERS, seed=3)
    around = np.concatenate([encoder.encode_texts(texts[n : n + 50]) for n in range(0, len(texts), 50)])
    for start, rows in Vectors(space.dim, texts=around).blocks(size):
        ids = np.arange(start + 1, start + 1 + len(rows))
        store.upsert(ids, rows)
        bulk.put(
            Embedding,
            {"image": ids.tolist(), "space": space.pk, "crc32": row_crcs(rows).tolist(), "created_at": now},
        )
    with transaction.atomic():
        changes.record(Change.Kind.SPACES, [space.pk])


def phrases(count: int, seed: int = 5) -> list[str]:
    """Distinct things that people look for."""
    chance = random.Random(seed)
    what = "red,old,two,my,a,the,wet,dark,sunny,wooden,tall,sleeping,three,blue".split(",")  # noqa: SIM905
    where = ["at night", "by the sea", "in the snow", "on a table", "from above", "in 1999", "at home", "with friends"]
    found: dict[str, None] = {}
    while len(found) < count:
        found[f"{chance.choice(what)} {chance.choice(WORDS)} {chance.choice(where)} {chance.randrange(1000)}"] = None
    return list(found)


def _index() -> None:
    from search import indexing
    from search.errors import IndexNotMade
    from search.spaces import active_space

    try:
        about = indexing.make(active_space())
    except IndexNotMade as error:
        print(f"  {error}", file=sys.stderr)
        return
    print(f"  recall@20 {about.recall}, {about.seconds} s", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, required=True, help="The data folder to make; kept.")
    parser.add_argument("--rows-only", action="store_true", help="No vectors and no index.")
    parser.add_argument("--no-index", action="store_true")
    options = parser.parse_args()
    with settings_of(options.data):
        took = make(options.size, vectors=not options.rows_only, index=not options.no_index)
        from search.models import Image

        print(json.dumps({"images": Image.objects.count(), "seconds": took}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
