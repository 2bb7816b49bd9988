"""Which image of a reference collection a picture shows, how sure that is, and whether it shows any of them."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from search import decoding, likeness, thumbnails
from search.arrays import Bitmap, Ids, Vectors
from search.bitmaps import Library, get_library
from search.errors import BadQuery, EncoderUnavailable, Unreadable
from search.likeness import Finding, Level
from search.models import EmbeddingSpace, Image
from search.references import Collection
from search.spaces import active_space, encoder_of, look_space
from search.text import fold
from search.vectors import LocalStore, get_store
from search.wording import counted

SAMPLE = 64
"""Strangers, and references, whose nearest reference is looked up."""
OWN_SAMPLE = 2_048
"""References to which the picture's own cosines are taken."""
NEAREST = 50
"""References looked at for a runner-up that shows something else."""
KEPT = 32
TURNS = {
    90: PIL.Image.Transpose.ROTATE_90,
    180: PIL.Image.Transpose.ROTATE_180,
    270: PIL.Image.Transpose.ROTATE_270,
}
"""Degrees to the left."""
_TURNED = {90: "a quarter turn to the left", 180: "turned upside down", 270: "a quarter turn to the right"}

_Cosines = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Match:
    """One reference. `cosine` to the picture, and how likely it shows the same thing, in percent (0 to 100)."""

    image: Image
    cosine: float
    percent: float

    @property
    def name(self) -> str:
        return self.image.title or self.image.name

    @property
    def percent_text(self) -> str:
        """Rounded down, and never 100: nothing here is certain."""
        return "under 1 %" if self.percent < 1 else f"{math.floor(self.percent)} %"


@dataclass(frozen=True)
class Identification:
    """What was found: `matches` best first, `runner_up` the best that shows something else than the first."""

    finding: Finding
    matches: list[Match]
    runner_up: Match | None
    level: Level
    """How near pictures of other things come to this collection."""
    collection: Collection
    space: EmbeddingSpace
    references: int
    """Images of the collection that were compared..."""
    of: int
    """...of how many that the person may see."""
    turned: int
    """Degrees to the left by which the picture was turned until it matched."""
    notices: list[str]
    took_ms: float

    @property
    def best(self) -> Match:
        return self.matches[0]

    @property
    def margin(self) -> float | None:
        """By how much cosine the best leads the runner-up; None where there is no other thing."""
        return self.best.cosine - self.runner_up.cosine if self.runner_up else None

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        best, other = f"“{self.best.name}”", f"“{self.runner_up.name}”" if self.runner_up else ""
        after = f", {_TURNED[self.turned]}" if self.turned else ""
        match self.finding:
            case Finding.LIKELY:
                return f"This is very likely {best}{after}."
            case Finding.ALIKE:
                return f"This is {best} or {other}{after}: they are too much alike to tell which."
            case Finding.MAYBE:
                return f"This may be {best}. Look for yourself."
        return f"No good match. The nearest is {best}, but pictures of other things come as near."

    @property
    def margin_text(self) -> str:
        """How far the best leads, for people; "" without a runner-up."""
        if self.runner_up is None or self.margin is None:
            return ""
        return f"{self.margin:.2f} nearer than the runner-up, “{self.runner_up.name}” ({self.runner_up.percent_text})"


def identify(
    collection: Collection,
    user: Any,
    *,
    picture: PIL.Image.Image | None = None,
    like: int | None = None,
    space: EmbeddingSpace | None = None,
    limit: int = 10,
) -> Identification:
    """Find a picture (pixels, or an image of the library that the user may see) among the collection's images.

    Compares in `space` (None: the one that serves; `look` when its model is not here). Only images the user may see
    (None: all) are references or decide how near other things come. Where nothing matches as it stands, the picture
    is turned. Raises BadQuery with a sentence when there is nothing to compare, EncoderUnavailable when the model of
    the space that was asked for is not here.
    """
    started = time.perf_counter()
    library = get_library()
    visible = library.visible(user)
    members = visible & _fitted(library.bitmap(_ids(collection)), visible)
    asked = _Asked(space or active_space(), picture, like)
    _bring_vector(asked, library, user, given=space is not None)
    embedded = _fitted(library.embedded(asked.space.pk), visible)
    among = members & embedded
    if like is not None and like < len(members):
        among[like] = members[like] = False
    if not members.any():
        raise BadQuery(f"The {collection.kind} “{collection.name}” holds no other picture that you may see.")
    if not among.any():
        count = counted(int(members.sum()), "picture")
        raise BadQuery(
            f"None of the {count} of “{collection.name}” has been read by {asked.space.label} yet. Try later."
        )
    store = get_store(asked.space)
    store.file.require()
    samples = _samples(asked.space, store, among, visible & embedded & ~members)
    found = _compare(asked.vector, store, among, samples, user, limit)
    turned = 0
    if found.finding in {Finding.NONE, Finding.MAYBE}:
        turned, found = _turned(asked, store, among, samples, user, limit) or (0, found)
    matches = [Match(image, cosine, found.level.percent(cosine)) for image, cosine in found.hits]
    return Identification(
        finding=found.finding,
        matches=matches[:limit],
        runner_up=next((one for one in matches if not same_thing(one.image, matches[0].image)), None),
        level=found.level,
        collection=collection,
        space=asked.space,
        references=int(among.sum()),
        of=int(members.sum()),
        turned=turned,
        notices=asked.notices,
        took_ms=(time.perf_counter() - started) * 1000,
    )


def same_thing(one: Image, other: Image) -> bool:
    """Whether two references are known to show the same: the same file, or one title."""
    copies = one.sha256 is not None and one.sha256 == other.sha256
    return copies or one.pk == other.pk or bool(one.title and fold(one.title) == fold(other.title))


def reset_samples() -> None:
    """Forget every kept sample."""
    with _lock:
        _kept.clear()


@dataclass
class _Asked:
    """The picture, in the space where it is compared."""

    space: EmbeddingSpace
    picture: PIL.Image.Image | None
    like: int | None
    vector: Vectors = field(default_factory=lambda: np.zeros((1, 0), dtype=np.float32))
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Samples:
    """Cosines to the nearest reference: of strangers, and of references to another thing."""

    strangers: _Cosines
    references: _Cosines


@dataclass(frozen=True)
class _Found:
    finding: Finding
    level: Level
    hits: list[tuple[Image, float]]


_kept: OrderedDict[bytes, _Samples] = OrderedDict()
_lock = threading.Lock()


def _bring_vector(asked: _Asked, library: Library, user: Any, *, given: bool) -> None:
    if asked.like is not None:
        if not Image.objects.visible_to(user).filter(pk=asked.like).exists():
            raise BadQuery(f"There is no picture {asked.like} that you may see.")
        asked.picture = _thumbnail(asked.like)
        embedded = library.embedded(asked.space.pk)
        if asked.like < len(embedded) and embedded[asked.like]:
            asked.vector = get_store(asked.space).get(np.array([asked.like], dtype=np.int64))
            return
    if asked.picture is None:
        what = f"Image {asked.like} has not been read yet. Try again when it has."
        raise BadQuery("Choose a picture first." if asked.like is None else what)
    try:
        encoder = encoder_of(asked.space)
    except EncoderUnavailable as error:
        look = look_space()
        if given or look.pk == asked.space.pk:
            raise
        asked.notices.append(f"Compared by colours and layout only. {error.said_to(user)}")
        asked.space, encoder = look, encoder_of(look)
    asked.vector = encoder.encode_images([encoder.prepare(asked.picture)])


def _thumbnail(image_id: int) -> PIL.Image.Image | None:
    data = thumbnails.read(image_id)
    try:
        return decoding.decode(data, min_side=None).pixels if data is not None else None
    except Unreadable:
        return None


def _compare(vector: Vectors, store: LocalStore, among: Bitmap, samples: _Samples, user: Any, limit: int) -> _Found:
    nearest = store.search(vector, max(limit, NEAREST), among=among)
    kept = nearest.ids[0] >= 0
    ids, cosines = nearest.ids[0][kept], nearest.scores[0][kept]
    # Who may see them is asked again: access may have ended since the flags were read.
    images = Image.objects.visible_to(user).listed().for_grid().in_order_of(ids)
    if not images:
        raise BadQuery("The pictures to compare with have just gone. Try again.")
    some = _drawn(among, OWN_SAMPLE)
    some = some[some != ids[0]]
    own = np.concatenate([cosines[:1], store.get(some) @ vector[0]])
    level = likeness.background(strangers=samples.strangers, references=samples.references, own=own)
    cosine_of = dict(zip(ids.tolist(), cosines.tolist(), strict=True))
    hits = [(image, float(cosine_of[image.pk])) for image in images]
    others = [cosine for image, cosine in hits if not same_thing(image, hits[0][0])]
    return _Found(likeness.judge(hits[0][1], others, level), level, hits)


def _turned(
    asked: _Asked, store: LocalStore, among: Bitmap, samples: _Samples, user: Any, limit: int
) -> tuple[int, _Found] | None:
    """The turn that gives a good match, and what it found."""
    if asked.picture is None:
        return None
    try:
        encoder = encoder_of(asked.space)
    except EncoderUnavailable:
        return None  # the image's own vector was stored before the model went away
    vectors = encoder.encode_images([encoder.prepare(asked.picture.transpose(turn)) for turn in TURNS.values()])
    best = store.search(vectors, 1, among=among).scores[:, 0]
    place = int(best.argmax())
    found = _compare(vectors[place : place + 1], store, among, samples, user, limit)
    level = found.level.of_turned()
    others = [cosine for image, cosine in found.hits if not same_thing(image, found.hits[0][0])]
    finding = likeness.judge(found.hits[0][1], others, level)
    if finding not in {Finding.LIKELY, Finding.ALIKE}:
        return None
    return list(TURNS)[place], _Found(finding, level, found.hits)


def _samples(space: EmbeddingSpace, store: LocalStore, among: Bitmap, outside: Bitmap) -> _Samples:
    """Kept for as long as neither the collection nor what the person may see of the library changes."""
    digest = hashlib.sha256(f"{space.pk}:{space.key}".encode())
    for flags in (among, outside):
        digest.update(b"|" + np.packbits(flags).tobytes())
    key = digest.digest()
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    strangers, references = _drawn(outside, SAMPLE), _drawn(among, SAMPLE)
    made = _Samples(
        store.search(store.get(strangers), 1, among=among).scores[:, 0] if len(strangers) else _none(),
        _nearest_others(store, references, among) if len(references) > 1 else _none(),
    )
    with _lock:
        _kept[key] = made
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return made


def _nearest_others(store: LocalStore, references: Ids, among: Bitmap) -> _Cosines:
    """For each reference the cosine to the nearest one that shows something else."""
    near = store.search(store.get(references), 5, among=among)
    rows = (
        Image.objects.filter(pk__in=np.unique(near.ids[near.ids >= 0]).tolist()).only("pk", "sha256", "title").in_bulk()
    )
    cosines = []
    for own, ids, scores in zip(references.tolist(), near.ids.tolist(), near.scores.tolist(), strict=True):
        for other, cosine in zip(ids, scores, strict=True):
            if other in rows and own in rows and not same_thing(rows[own], rows[other]):
                cosines.append(cosine)
                break
    return np.array(cosines, dtype=np.float32)


def _drawn(flags: Bitmap, most: int) -> Ids:
    """So many of the ids at most, always the same ones while these stay: those whose hash is smallest."""
    ids = np.flatnonzero(flags).astype(np.int64)
    if len(ids) <= most:
        return ids
    # Knuth's multiplicative hash: the draw is spread evenly, and new ids replace few of it.
    hashed = (ids.astype(np.uint64) * np.uint64(2_654_435_761)) % np.uint64(2**32)
    return np.sort(ids[np.argpartition(hashed, most)[:most]])


def _ids(collection: Collection) -> Ids:
    return np.fromiter(collection.members().order_by().values_list("pk", flat=True).iterator(20_000), dtype=np.int64)


def _fitted(flags: Bitmap, like: Bitmap) -> Bitmap:
    if len(flags) >= len(like):
        return flags[: len(like)]
    return np.concatenate([flags, np.zeros(len(like) - len(flags), dtype=np.bool_)])


def _none() -> _Cosines:
    return np.zeros(0, dtype=np.float32)


def report(found: Identification) -> dict[str, Any]:
    """The identification as `--json` prints it."""

    def row(match: Match) -> dict[str, Any]:
        return {
            "id": match.image.pk,
            "name": match.name,
            "path": match.image.absolute_path_text,
            "cosine": match.cosine,
            "match": round(match.percent, 2),
        }

    return {
        "finding": found.finding.value,
        "sentence": found.sentence,
        "matches": [row(match) for match in found.matches],
        "runner_up": row(found.runner_up) if found.runner_up else None,
        "margin": found.margin,
        "good_from": found.level.good,
        "turned": found.turned,
        "collection": {"kind": found.collection.kind, "name": found.collection.name},
        "space": found.space.name,
        "references": found.references,
        "of": found.of,
        "notices": found.notices,
        "took_ms": round(found.took_ms, 3),
    }
