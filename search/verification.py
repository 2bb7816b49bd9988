"""Proof that row i is image id i: every row against its CRC, strays zeroed, a sample embedded again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
from django.db.models import Max
from django.utils import timezone

from search import decoding, indexing, thumbnails
from search.arrays import Ids
from search.columns import columns
from search.errors import EncoderUnavailable, SpaceMismatch, StoreFault, Unreadable
from search.models import Embedding, EmbeddingSpace, Image
from search.spaces import encoder_of
from search.vectors import get_store
from search.vectors.embedding_file import row_crcs
from search.vectors.local import LocalStore
from search.wording import agreeing, counted

_BLOCK_BYTES = 1 << 25
"""So much of a file is read at once."""
SAME = 0.99
"""Cosine from which a vector counts as that of the file: what precision and batching change stays far above it."""

Progress = Callable[[str, int, int], None]


@dataclass
class SpaceVerdict:
    """What was found in one space. Ids are image ids."""

    space: str
    rows: int = 0
    mismatched: list[int] = field(default_factory=list)
    """The database says embedded, but the row is not what was written."""
    strays_zeroed: int = 0
    """Rows that nobody believed (left by a crash or a purge), now zero."""
    sampled: int = 0
    drifted: list[tuple[int, float]] = field(default_factory=list)
    """(id, cosine) of sampled images whose stored vector is not that of their file, or of their
    thumbnail in a space made from thumbnails."""
    sample_skipped: int = 0
    """Sampled images that could not be compared: file away, changed since, or unreadable."""
    fault: str = ""
    """A sentence when the file as a whole is broken."""
    lost: list[int] = field(default_factory=list)
    """Those of `mismatched` for which the file has no row at all: it is gone, or it was shortened."""
    loss: str = ""
    """A sentence about them."""
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.bad or self.fault)

    @property
    def bad(self) -> list[int]:
        """The images whose vectors are to be computed again."""
        return [*self.mismatched, *(image for image, _ in self.drifted)]


def verify(
    *,
    sample: int = 20,
    progress: Progress | None = None,
    seed: int | None = None,
    only: EmbeddingSpace | None = None,
) -> list[SpaceVerdict]:
    """Check every image space, or `only` one; a verdict each, of which the space's row keeps the sum. Memory stays
    flat; searches and workers go on meanwhile.

    A mismatch is reported only when it stands on a second look, under the write lock, at row and database.
    """
    random = np.random.default_rng(seed)
    verdicts = []
    spaces = EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE).order_by("id")
    for space in spaces if only is None else spaces.filter(pk=only.pk):
        verdict = SpaceVerdict(space.name)
        try:
            chosen = _check_rows(space, verdict, sample, random, progress)
            _check_sample(space, verdict, chosen, progress)
            if said := indexing.check(space):
                verdict.notes.append(said)
        except StoreFault as fault:
            verdict.fault = str(fault)
            _add_what_was_cut_off(space, verdict)
        _keep(space, verdict)
        verdicts.append(verdict)
    return verdicts


def _keep(space: EmbeddingSpace, verdict: SpaceVerdict) -> None:
    EmbeddingSpace.objects.filter(pk=space.pk).update(
        verified_at=timezone.now(), verified_rows=verdict.rows, verified_bad=len(verdict.bad),
        verified_fault=verdict.fault, verify_asked_at=None,
    )  # fmt: skip


def _check_rows(
    space: EmbeddingSpace, verdict: SpaceVerdict, sample: int, random: np.random.Generator, progress: Progress | None
) -> list[int]:
    """CRC of every believed row, zero for every other; returns a random sample of good ids."""
    store = get_store(space)
    last = Embedding.objects.filter(space=space).aggregate(last=Max("image_id"))["last"] or -1
    end = max(store.file.capacity(), last + 1)
    block = np.empty((max(1, _BLOCK_BYTES // (4 * space.dim)), space.dim), dtype="<f4")
    keys, chosen = np.zeros(0), np.zeros(0, dtype=np.int64)
    for start in range(0, end, len(block)):
        stop = min(start + len(block), end)
        ids, crcs = _believed(space, start, stop)
        rows = store.file.read(start, block[: stop - start])
        verdict.rows += len(ids)
        bad = _wrong(ids, crcs, rows, start)
        if len(bad):
            bad = _second_look(space, store, bad)
            verdict.mismatched.extend(bad.tolist())
        _zero_strays(space, store, verdict, ids, rows, start)
        if sample:
            good = np.setdiff1d(ids, bad)
            keys, chosen = np.append(keys, random.random(len(good))), np.append(chosen, good)
            first = np.argsort(keys)[:sample]
            keys, chosen = keys[first], chosen[first]
        if progress:
            progress(space.name, stop, end)
    capacity = store.file.capacity()
    verdict.lost = [one for one in verdict.mismatched if one >= capacity]
    verdict.loss = _loss(store, verdict.lost)
    return chosen.tolist()


def _add_what_was_cut_off(space: EmbeddingSpace, verdict: SpaceVerdict) -> None:
    """In a file that was cut off, the images past its end; nothing of a file that is broken in another way."""
    file = get_store(space).file
    try:
        whole = file.whole_rows()
    except (OSError, ValueError, SyntaxError):
        return
    past = Embedding.objects.filter(space=space, image_id__gte=whole).order_by("image_id")
    verdict.lost = list(past.values_list("image_id", flat=True))
    verdict.mismatched = sorted({*verdict.mismatched, *verdict.lost})
    if verdict.lost:
        verdict.fault += f" Past its end: {counted(len(verdict.lost), 'image')} ({some_of(verdict.lost)})."


def _loss(store: LocalStore, lost: list[int]) -> str:
    """What to say of images whose rows the file does not have; "" for none."""
    if not lost:
        return ""
    whose = f"of {counted(len(lost), 'image')} ({some_of(lost)})"
    again = agreeing(len(lost), "it is", "they are") + " computed again."
    try:
        store.file.require()
    except StoreFault as fault:
        return f"{fault} It held the {agreeing(len(lost), 'vector', 'vectors')} {whose}."
    return (
        f"The embedding file {store.file.path} ends before the {agreeing(len(lost), 'vector', 'vectors')} {whose}: it "
        f"was shortened. Put it back from a backup, or run `manage.py repair`, and {again}"
    )


def some_of(ids: list[int], most: int = 5) -> str:
    """The first ids, and how many others there are: "3, 4, 5, 6, 7 and 12 more"."""
    more = f" and {len(ids) - most:,} more" if len(ids) > most else ""
    return ", ".join(map(str, ids[:most])) + more


def _believed(space: EmbeddingSpace, start: int, stop: int) -> tuple[Ids, Ids]:
    """(ids, ascending, their CRCs) of the rows from `start` to before `stop` that the database believes."""
    table = Embedding._meta.db_table
    ids, crcs = columns(
        f"SELECT image_id, crc32 FROM {table} WHERE space_id = %s AND image_id >= %s AND image_id < %s",
        [space.pk, start, stop], ["image_id", "crc32"],
    )  # fmt: skip
    order = np.argsort(ids)
    return ids[order], crcs[order]


def _wrong(ids: Ids, crcs: Ids, rows: np.ndarray, start: int) -> Ids:
    inside = ids < start + len(rows)
    there = ids[inside] - start
    computed = row_crcs(rows if len(there) == len(rows) else rows[there])
    return np.concatenate([ids[inside][computed != crcs[inside]], ids[~inside]])


def _second_look(space: EmbeddingSpace, store: LocalStore, suspects: Ids) -> Ids:
    with store.writing():
        still: list[int] = []
        for start in range(0, len(suspects), 5_000):
            chunk = suspects[start : start + 5_000]
            pairs = dict(
                Embedding.objects.filter(space=space, image_id__in=chunk.tolist()).values_list("image_id", "crc32")
            )
            computed = row_crcs(store.get(chunk))
            still += [
                int(i) for i, crc in zip(chunk, computed, strict=True) if int(i) in pairs and pairs[int(i)] != int(crc)
            ]
        capacity = store.file.capacity()
        return np.unique(np.array(still + [int(i) for i in suspects if i >= capacity], dtype=np.int64))


def _zero_strays(
    space: EmbeddingSpace, store: LocalStore, verdict: SpaceVerdict, believed: Ids, rows: np.ndarray, start: int
) -> None:
    unbelieved = np.ones(len(rows), dtype=np.bool_)
    unbelieved[believed[believed < start + len(rows)] - start] = False
    others = np.flatnonzero(unbelieved)
    strays = others[rows[others].any(axis=1)] + start
    if not len(strays):
        return
    with store.writing():
        now, _ = _believed(space, int(strays[0]), int(strays[-1]) + 1)
        strays = np.setdiff1d(strays, now)
        store.delete(strays)
    verdict.strays_zeroed += len(strays)


def _check_sample(space: EmbeddingSpace, verdict: SpaceVerdict, chosen: list[int], progress: Progress | None) -> None:
    if not chosen:
        return
    try:
        encoder = encoder_of(space)
    except (EncoderUnavailable, SpaceMismatch) as why:
        verdict.notes.append(f"No sample of {space.name} was embedded again: {why}")
        return
    store = get_store(space)
    for image in Image.objects.select_related("source").filter(pk__in=chosen, state=Image.State.READY):
        try:
            pixels = _input_of(space, image, side=encoder.side)
        except (OSError, Unreadable):
            continue
        if pixels is None:
            continue
        vector = encoder.encode_images([encoder.prepare(pixels)])[0]
        cosine = float(vector.astype(np.float64) @ store.get(np.array([image.pk]))[0].astype(np.float64))
        verdict.sampled += 1
        if cosine < SAME and Embedding.objects.filter(space=space, image_id=image.pk).exists():
            verdict.drifted.append((image.pk, round(cosine, 4)))
    verdict.sample_skipped = len(chosen) - verdict.sampled


def _input_of(space: EmbeddingSpace, image: Image, *, side: int) -> PIL.Image.Image | None:
    """What the image's vector in this space was made from: its file, or its thumbnail; None when that is not here
    as it was. Raises OSError, Unreadable."""
    if space.from_thumbnails:
        return thumbnails.pixels(image.pk)
    found = os.stat(image.absolute_path)
    if (found.st_size, found.st_mtime_ns) != (image.size, image.mtime_ns):
        return None
    data = decoding.read_file(image.absolute_path)
    return decoding.read_pixels(data, min_side=2 * side, name=image.path).pixels
