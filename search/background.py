"""The library's background: a sample of what a person may see, and the cohort of queries it is compared with.

The sample of a space holds the images with the smallest hashes of their ids (bottom-k sampling; Cohen and Kaplan,
"Summarizing data using bottom-k sketches", PODC 2007) among those that this person may see, that are listed and that
the database knows as embedded. So it is a uniform sample that is drawn the same way in every process, changes only
image by image as the library grows, and tells nobody anything of images that are not theirs to see: the per cents of
two people may differ a little, because each is measured against their own library.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import tempfile
import threading
import time
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from django.conf import settings

from search import calibration
from search.arrays import Bitmap, Ids, Vectors
from search.calibration import Cohort, Scale
from search.encoders.base import Encoder
from search.errors import BadQuery
from search.models import EmbeddingSpace
from search.ranking import combined
from search.reference_phrases import PHRASES
from search.vectors import get_store

log = logging.getLogger(__name__)

SAMPLE = 1_000
"""Images in a sample: the median of so many cosines is right to a twenty-fifth of their spread."""
KEPT_SAMPLES = 16
KEPT_SECONDS = 600.0
_STRIDE = 31
_FIRST = 1 << 16
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Make:
    """What a query is made of: how many texts and pictures are wanted, and how many are not."""

    texts: int = 0
    pictures: int = 0
    unwanted_texts: int = 0
    unwanted_pictures: int = 0

    @property
    def reads(self) -> bool:
        """Whether there are words in it."""
        return bool(self.texts or self.unwanted_texts)


@dataclass
class _Sample:
    ids: Ids
    rows: Vectors
    made: float
    cohorts: dict[Make, Cohort | None] = field(default_factory=dict)


_samples: OrderedDict[tuple[int, bytes], _Sample] = OrderedDict()
_phrases: dict[str, Vectors] = {}
_lock = threading.Lock()


def scale_of(
    vector: Vectors,
    make: Make,
    *,
    space: EmbeddingSpace,
    encoder: Encoder | None,
    among: Bitmap,
    besides: Sequence[int] = (),
) -> Scale:
    """The scale of a query (1, dim) of this make in a space, by a sample of `among`: what the person may see there.

    `besides`: images that are part of the query. `encoder` may be None for a query without words.
    """
    kept = _sample(space, sample_ids(among))
    if make not in kept.cohorts:
        phrases = reference(encoder, space) if make.reads and encoder is not None else kept.rows[:0]
        kept.cohorts[make] = calibration.cohort(_cohort_cosines(make, phrases, kept.rows))
    own = (kept.rows @ vector[0]).astype(np.float64)
    own[np.isin(kept.ids, np.asarray(besides, dtype=np.int64))] = np.nan
    return calibration.scale(own, kept.cohorts[make])


def sample_ids(among: Bitmap, size: int = SAMPLE) -> Ids:
    """The ids of the sample of these images, ascending; all of them when they are no more than `size`."""
    first = _first(max(_FIRST, 1 << (len(among) - 1).bit_length()) if len(among) else 0)
    first = first[first < len(among)]
    found = first[among[first]][:size]
    if len(found) < size:  # few of them are in it: all that are
        found = np.flatnonzero(among).astype(np.int64)
        if len(found) > size:
            found = found[np.argpartition(_hash(found), size - 1)[:size]]
    return np.sort(found)


def reference(encoder: Encoder, space: EmbeddingSpace) -> Vectors:
    """The reference phrases that the encoder knows, (p, dim) float32; encoded once and kept beside the vectors."""
    with _lock:
        if encoder.key in _phrases:
            return _phrases[encoder.key]
    file = Path(settings.IMAGESEARCH_SPACES) / space.name / "phrases.npz"
    vectors = _read(file, encoder)
    if vectors is None:
        vectors = _encoded(encoder)
        _write(file, encoder, vectors)
    with _lock:
        _phrases[encoder.key] = vectors
    return vectors


def reset_background() -> None:
    """Forget every sample and every encoded phrase of this process."""
    with _lock:
        _samples.clear()
        _phrases.clear()


def _sample(space: EmbeddingSpace, ids: Ids) -> _Sample:
    key = (space.pk, hashlib.blake2b(ids.tobytes(), digest_size=16).digest())
    now = time.monotonic()
    with _lock:
        found = _samples.get(key)
        if found is not None and now - found.made < KEPT_SECONDS:
            _samples.move_to_end(key)
            return found
    made = _Sample(ids, get_store(space).get(ids), now)
    with _lock:
        _samples[key] = made
        _samples.move_to_end(key)
        while len(_samples) > KEPT_SAMPLES:
            _samples.popitem(last=False)
    return made


@functools.lru_cache(maxsize=2)
def _first(size: int) -> Ids:
    """Of the ids below `size` those with the smallest hashes, some `_FIRST` of them, in the order of these. `size` is
    rounded up by who asks: it grows with every new image, and a million hashes take a while."""
    limit = np.uint64(min(2**64 - 1, 2**64 * _FIRST // max(size, 1)))
    found = [np.zeros(0, dtype=np.int64)]
    for start in range(0, size, _BLOCK):
        ids = np.arange(start, min(start + _BLOCK, size), dtype=np.int64)
        found.append(ids[_hash(ids) <= limit])
    ids = np.concatenate(found)
    return ids[np.argsort(_hash(ids))]


def _hash(ids: Ids) -> npt.NDArray[np.uint64]:
    """No two alike: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    value = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))


def _cohort_cosines(make: Make, phrases: Vectors, rows: Vectors) -> npt.NDArray[np.float64]:
    """Cosines (q, n) of queries of this make, put together from phrases and images of the sample, to the sample."""
    texts, pictures = make.texts + make.unwanted_texts, make.pictures + make.unwanted_pictures
    if (texts and not len(phrases)) or (pictures and not len(rows)):
        return np.zeros((0, len(rows)))
    queries, parts = [], []
    for number in range(max(len(phrases), len(PHRASES)) if texts else min(len(rows), len(PHRASES))):
        read = [phrases[(number + turn * _STRIDE) % len(phrases)] for turn in range(texts)]
        seen = [(number + turn * _STRIDE) % len(rows) for turn in range(pictures)]
        wanted = [*read[: make.texts], *(rows[i] for i in seen[: make.pictures])]
        unwanted = [*read[make.texts :], *(rows[i] for i in seen[make.pictures :])]
        try:
            queries.append(combined(wanted, unwanted)[0])
            parts.append(seen)
        except BadQuery:
            continue  # these cancel each other out
    cosines = (np.stack(queries) @ rows.T).astype(np.float64) if queries else np.zeros((0, len(rows)))
    for cosine, seen in zip(cosines, parts, strict=True):
        cosine[seen] = np.nan
    return cosines


def _encoded(encoder: Encoder) -> Vectors:
    try:
        return np.asarray(encoder.encode_texts(list(PHRASES)), dtype=np.float32)
    except ValueError:  # one that knows some words only
        known = []
        for phrase in PHRASES:
            try:
                known.append(encoder.encode_texts([phrase])[0])
            except ValueError:
                continue
        return np.asarray(known, dtype=np.float32).reshape(len(known), encoder.dim)


def _identity(encoder: Encoder) -> str:
    return f"{encoder.key} {hashlib.sha256(repr(PHRASES).encode()).hexdigest()}"


def _read(file: Path, encoder: Encoder) -> Vectors | None:
    try:
        with np.load(file, allow_pickle=False) as kept:
            vectors = kept["vectors"]
            known = str(kept["identity"]) == _identity(encoder)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # not there yet, cut off or overwritten: encoded again
    sound = vectors.dtype == np.float32 and vectors.ndim == 2 and vectors.shape[1] == encoder.dim
    return vectors if known and sound and np.isfinite(vectors).all() else None


def _write(file: Path, encoder: Encoder, vectors: Vectors) -> None:
    if not file.parent.is_dir():
        return
    try:
        handle, temporary = tempfile.mkstemp(prefix="phrases-", suffix=".new", dir=file.parent)
        with os.fdopen(handle, "wb") as out:
            np.savez(out, vectors=vectors, identity=np.array(_identity(encoder)))
        os.rename(temporary, file)
    except OSError as error:
        log.info("The reference phrases could not be kept in %s (%s); they are encoded again next time.", file, error)
