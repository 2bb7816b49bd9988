"""What the match % is worth: how many unrelated queries find something, and how much of what is right is kept.

    python -m benchmarks.calibration [--photos FOLDER] [--encoder local-dir:FOLDER]

On captioned photographs (folders with a captions.csv of file and caption): two hundred of their captions, single words
that several captions of a photograph name, and two hundred queries that none answers (`benchmarks/nonsense.py`),
through the product's own search, for people who see the whole library, a hundred photographs of it, or ten; then
colour words with the built-in encoder. For each cut-off a row of the table.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.nonsense import SENTENCES, unrelated

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("IMAGESEARCH_SHARED", ROOT.parent / "shared"))
CUTS = (10, 20, 30, 40, 50, 60, 70, 80)
SMALL = (10, 100)
CAPTIONS = 200
_WORDS = """
dog ball beach bicycle snow grass football skateboard mountain horse boat train bus kitchen girl boy man woman child
baby water pool street motorcycle rock guitar cat crowd field tree car swing hat camera pizza bench tennis sand
surfboard climber umbrella
"""
WORDS = tuple(_WORDS.split())
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
NAMED_OFTEN = 2
"""A word is right for a photograph that so many of its captions use it for; none of them: it is taken as wrong."""
MUCH, LITTLE = 0.25, 0.02
"""Shares of a picture's pixels from which a colour is right, and below which it is wrong."""


@dataclass
class Library:
    """Photographs with the captions people wrote, as rows of the database."""

    captions: dict[int, list[str]]
    """By image id; photographs without captions are background only."""
    colours: dict[str, np.ndarray]
    """Share of each colour word, by image id."""
    people: dict[int, Any]
    """Accounts by how many photographs they see."""
    seen: dict[int, set[int]]


def measure(folders: Sequence[Path], *, encoder: str) -> dict[str, Any]:
    """Index the photographs in `encoder` and in `look`, and measure both.

    Needs Django set up on a migrated scratch database and data folder.
    """
    from django.conf import settings

    from search.encoders import get_encoder
    from search.spaces import activate, ensure_space, look_space

    settings.IMAGESEARCH_MAX_RESULTS = 100_000
    loaded = get_encoder(encoder)
    library = _index(folders, [(ensure_space(loaded, encoder), loaded), (look_space(), get_encoder("look"))])
    report: dict[str, Any] = {"photographs": len(library.seen[0]), "encoder": loaded.label}
    activate(ensure_space(loaded, encoder))
    report["all"] = _table(library, 0)
    for size in SMALL:
        report[f"sees_{size}"] = _table(library, size)
    report["added_ms"] = _added_milliseconds()
    activate(look_space())
    report["look"] = _colour_table(library)
    return report


def _table(library: Library, size: int) -> dict[str, Any]:
    """Shares at each cut-off, for a person who sees so many photographs (0: all of them)."""
    user, seen = library.people[size], library.seen[size]
    told = [(image_id, texts) for image_id, texts in library.captions.items() if image_id in seen]
    chosen = random.Random(0)
    asked = [(image_id, chosen.choice(texts)) for image_id, texts in chosen.sample(told, min(CAPTIONS, len(told)))]
    own, answered = [], []
    for image_id, caption in asked:
        matches = _matches(caption, user)
        own.append(matches.get(image_id, 0.0))
        answered.append(max(matches.values()))
    chance = {text: max(_matches(text, user).values()) for text in unrelated()}
    words = [found for word in WORDS if (found := _word(word, library, user, seen)) is not None]
    rows = {}
    for cut in CUTS:
        wrong = [text for text, best in chance.items() if best >= cut]
        row: dict[str, Any] = {
            "unrelated_answered": round(len(wrong) / len(chance), 3),
            "of_gibberish": round(sum(text not in SENTENCES for text in wrong) / (len(chance) - len(SENTENCES)), 3),
            "of_sentences": round(sum(text in SENTENCES for text in wrong) / len(SENTENCES), 3),
            "captions_answered": round(float(np.mean(np.array(answered) >= cut)), 3),
            "own_photograph_kept": round(float(np.mean(np.array(own) >= cut)), 3),
        }
        if words:
            row |= {
                "words_answered": round(float(np.mean([(best >= cut).any() for best, _, _ in words])), 3),
                "words_recall": round(float(np.mean([(match[right] >= cut).mean() for match, right, _ in words])), 3),
                "words_precision": _precision(words, cut),
            }
        rows[f"min_{cut}"] = row
    return {"captions": len(asked), "words": len(words), **rows}


def _precision(words: list[tuple[np.ndarray, np.ndarray, np.ndarray]], cut: int) -> float:
    shares = [1 - wrong[match >= cut].mean() for match, _, wrong in words if (match >= cut).any()]
    return round(float(np.mean(shares)), 3) if shares else 0.0


def _word(word: str, library: Library, user: Any, seen: set[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Match %, right and wrong of each captioned photograph; None when the word is named too seldom."""
    ids = [image_id for image_id in library.captions if image_id in seen]
    forms = re.compile(rf"\b{word}(s|es)?\b", re.IGNORECASE)
    named = np.array([sum(bool(forms.search(text)) for text in library.captions[i]) for i in ids])
    if (named >= NAMED_OFTEN).sum() < 3:
        return None
    matches = _matches(word, user)
    return np.array([matches.get(i, 0.0) for i in ids]), named >= NAMED_OFTEN, named == 0


def _matches(text: str, user: Any) -> dict[int, float]:
    """Match % of every photograph that this person may see."""
    from search.query import Query
    from search.retrieval import find

    page = find(Query(phrases=(text,), min=0), user, limit=100_000)
    return {hit.id: hit.match for hit in page.hits if hit.match is not None} or {0: 0.0}


def _colour_table(library: Library) -> dict[str, Any]:
    from search.encoders.colours import understand

    user = library.people[0]
    # "The gold standard" names a colour, and is rightly answered by it.
    chance = [max(_matches(text, user).values()) for text in unrelated() if not understand(text).ranges]
    told = {word: _matches(word, user) for word in COLOURS}
    rows: dict[str, Any] = {}
    for cut in CUTS:
        recall, wrong = [], []
        for word in COLOURS:
            share = library.colours[word]
            right = np.flatnonzero(share >= MUCH)
            if len(right) < 3:
                continue
            passing = [image_id for image_id, match in told[word].items() if match >= cut]
            recall.append(float(np.mean([told[word].get(int(i), 0.0) >= cut for i in right])))
            wrong.append(float(np.mean(share[passing] < LITTLE)) if passing else 0.0)
        rows[f"min_{cut}"] = {
            "unrelated_answered": round(float(np.mean(np.array(chance) >= cut)), 3),
            "colour_words_answered": round(float(np.mean([max(m.values()) >= cut for m in told.values()])), 3),
            "recall": round(float(np.mean(recall)), 3),
            "without_the_colour": round(float(np.mean(wrong)), 3),
        }
    return rows


def _added_milliseconds(times: int = 30) -> float:
    """What the match % adds to a search, once the sample and the cohort are there; the median."""
    from search import background, retrieval
    from search.query import Query

    spent: list[float] = []
    real = background.scale_of

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return real(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - began)

    background.scale_of = timed
    try:
        for number in range(times):
            retrieval.find(Query(phrases=(f"a dog {number}",), min=0), None, limit=60)
    finally:
        background.scale_of = real
    return round(1000 * float(np.median(spent)), 2)


def _index(folders: Sequence[Path], spaces: Sequence[tuple[Any, Any]]) -> Library:
    """Rows, vectors in each space, colours, and accounts that see all or few."""
    import PIL.Image
    from django.contrib.auth import get_user_model
    from django.db import transaction

    from search import changes, embeddings
    from search.models import Change, Image, Source, SourceAccess, path_digest

    files = [path for folder in folders for path in sorted(folder.glob("*.jpg"))]
    written = {name: texts for folder in folders for name, texts in _captions(folder)}
    random.Random(1).shuffle(files)
    library = Library({}, {word: np.zeros(len(files) + 1) for word in COLOURS}, {}, {})
    bounds = [0, *SMALL, len(files)]
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        source = Source.objects.create(name=f"part{number}", root=os.fsencode(f"/nowhere/{number}"))
        Image.objects.bulk_create(
            Image(
                source=source, path=os.fsencode(path.name), path_digest=path_digest(os.fsencode(path.name)),
                directory=path_digest(b""), name=f"{start + n}.jpg", size=1, mtime_ns=1, state=Image.State.READY,
                shown_at="2024-01-01T00:00:00Z",
            )
            for n, path in enumerate(files[start:end])
        )  # fmt: skip
    ids = dict(zip(files, Image.objects.order_by("id").values_list("pk", flat=True), strict=True))
    for start in range(0, len(files), 64):
        part = files[start : start + 64]
        pictures = [PIL.Image.open(path).convert("RGB") for path in part]
        numbers = np.array([ids[path] for path in part])
        for space, encoder in spaces:
            embeddings.record(space, numbers, encoder.encode_images([encoder.prepare(one) for one in pictures]))
        for image_id, picture in zip(numbers.tolist(), pictures, strict=True):
            for word, share in _colour_shares(picture).items():
                library.colours[word][image_id] = share
        with transaction.atomic():
            changes.record(Change.Kind.IMAGES, numbers)
    library.captions = {ids[path]: written[path.name] for path in files if path.name in written}
    for size in (0, *SMALL):
        user = get_user_model().objects.create_user(f"sees{size}")
        seen = files[: size or len(files)]
        for source in Source.objects.filter(images__pk__in=[ids[path] for path in seen]).distinct():
            SourceAccess.objects.create(source=source, user=user, role=SourceAccess.Role.VIEWER)
        library.people[size], library.seen[size] = user, {ids[path] for path in seen}
    return library


def _colour_shares(picture: Any) -> dict[str, float]:
    """Share of the pixels within the range of each colour word."""
    from search.encoders.colours import BASIC, lab

    pixels = lab(np.asarray(picture.resize((64, 64)), dtype=np.uint8)).reshape(-1, 3)
    light, chroma = pixels[:, 0], np.hypot(pixels[:, 1], pixels[:, 2])
    hue = np.degrees(np.arctan2(pixels[:, 2], pixels[:, 1]))
    shares = {}
    for word in COLOURS:
        wanted = BASIC[word]
        inside = (light >= wanted.light[0]) & (light <= wanted.light[1])
        inside &= (chroma >= wanted.chroma[0]) & (chroma <= wanted.chroma[1])
        if wanted.hue is not None:
            inside &= (hue - wanted.hue[0]) % 360 <= wanted.hue[1] - wanted.hue[0]
        shares[word] = float(inside.mean())
    return shares


def _captions(folder: Path) -> Iterator[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    with (folder / "captions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["file"], []).append(row["caption"])
    yield from found.items()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=SHARED / "photos" / "captioned")
    parser.add_argument("--encoder", default=f"local-dir:{SHARED / 'models' / 'dev-clip'}")
    given = parser.parse_args()
    folders = [file.parent for file in sorted(given.photos.glob("**/captions.csv"))]
    if not folders:
        print(json.dumps({"left_out": f"no captioned photographs at {given.photos} (set IMAGESEARCH_SHARED)"}))
        return
    data = tempfile.mkdtemp(prefix="calibration-data-")
    os.environ.update(IMAGESEARCH_DATA=data, DJANGO_SETTINGS_MODULE="imagesearch.settings")
    os.environ.setdefault("IMAGESEARCH_LOG_LEVEL", "WARNING")
    try:
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        found = measure(folders, encoder=given.encoder)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    json.dump(found, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
