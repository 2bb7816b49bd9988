"""Asking a row of an archive: its picture is read and embedded again, as a worker would, and compared.

What was computed is kept in a file as it comes, so that an adoption that was killed does not compute it again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingestion.alignment import RIGHT, UNKNOWN, WRONG, Answers
from ingestion.archive import Archive
from ingestion.ledger import Claimed
from ingestion.pictures import NoThumbnail, Picture
from ingestion.readers import ChangedWhileRead, Vanished, read_file
from ingestion.reading import ReadStage
from ingestion.stages import EmbedStage, needs_file
from search.arrays import Ids, Vectors
from search.errors import Unreadable
from search.faultpoints import reach
from search.models import Image
from search.verification import SAME

NEIGHBOURS = 16
"""Rows on either side with which a fresh vector is compared."""
_NEAR = 0.015
"""Radians. Nearer than this, precision and decoding decide (bf16 against fp32 is 0.01): nothing is read into it."""
_THREADS = 4
_PAGE = 1_024

Tell = Callable[[int, int], None]
"""(asked so far, in this round)"""


@dataclass(frozen=True)
class Judgement:
    """What one comparison says."""

    answer: int
    cosine: float
    alike: bool
    """A neighbouring row would have passed as well: copies, or a series of near copies."""


def judge(fresh: Vectors, window: Vectors, own: int) -> Judgement:
    """The row `own` of `window` (n, dim) against the fresh vector (dim,) of the picture it is said to belong to.

    Right from a cosine of `verification.SAME`, which precision and decoding stay far above, unless a neighbouring row
    lies at half the angle or nearer (Lowe's ratio test, IJCV 60, 2004): then the rows have slid within a series of
    pictures that resemble each other.
    """
    cosines = np.clip(window.astype(np.float64) @ fresh.astype(np.float64), -1, 1)
    angles = np.arccos(cosines)
    others = np.delete(angles, own)
    others = others[np.delete(window.any(axis=1), own)]
    nearest = float(others.min(initial=np.pi))
    if cosines[own] < SAME:
        return Judgement(WRONG, float(cosines[own]), False)
    if angles[own] > _NEAR and nearest < angles[own] / 2:
        return Judgement(WRONG, float(cosines[own]), True)
    return Judgement(RIGHT, float(cosines[own]), bool(nearest < max(2 * angles[own], _NEAR)))


class Samples:
    """Answers rows of an archive with an encoder; `ids[row]` is the image that the row is said to belong to."""

    def __init__(self, archive: Archive, ids: Ids, stage: EmbedStage, file: Path, tell: Tell) -> None:
        self.archive, self.ids, self.stage, self.file, self.tell = archive, ids, stage, file, tell
        self.judgements: dict[int, Judgement] = {}
        self.reasons: Counter[str] = Counter()
        """Why pictures could not be asked."""
        self.computed = 0
        self._record = np.dtype([("row", "<i8"), ("image", "<i8"), ("known", "?"), ("vector", "<f4", (archive.dim,))])
        self._places = dict(self._kept())
        """Where each row's record stands in the file; the vectors themselves stay there."""

    def ask(self, rows: Ids) -> Answers:
        """The answers of `alignment.Ask`."""
        new = [row for row in rows.tolist() if row not in self._places]
        size = max(self.stage.batch, _THREADS)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="sample") as pool:
            for start in range(0, len(new), size):
                self._compute(new[start : start + size], pool)
                self.tell(start + len(new[start : start + size]), len(new))
        return np.array([self._answer(row) for row in rows.tolist()], dtype=np.int8)

    def fresh(self, row: int) -> Vectors | None:
        """The vector that was computed for this row's picture; None when it was not asked or could not be read."""
        place = self._places.get(row)
        if place is None:
            return None
        record = np.fromfile(self.file, dtype=self._record, count=1, offset=place * self._record.itemsize)[0]
        return np.array(record["vector"]) if record["known"] else None

    def _answer(self, row: int) -> int:
        vector = self.fresh(row)
        if vector is None:
            return UNKNOWN
        start = max(row - NEIGHBOURS, 0)
        window, usable = self.archive.block(start, row + NEIGHBOURS + 1)
        if not usable[row - start]:
            return UNKNOWN
        self.judgements[row] = judge(vector, window, row - start)
        return self.judgements[row].answer

    # --- computing

    def _compute(self, rows: Sequence[int], pool: ThreadPoolExecutor) -> None:
        images = Image.objects.select_related("source").in_bulk([int(self.ids[row]) for row in rows])
        found = list(pool.map(self._prepare, [images.get(int(self.ids[row])) for row in rows]))
        there = [index for index, one in enumerate(found) if not isinstance(one, str)]
        results: list[Any] = [None] * len(rows)
        for index, one in zip(there, self.stage.compute([found[i] for i in there]) if there else [], strict=True):
            results[index] = None if isinstance(one, Unreadable) else one
            if results[index] is None:
                found[index] = str(one)
        self.reasons.update(one for one in found if isinstance(one, str))
        self.computed += len(rows)
        self._keep(rows, results)

    def _prepare(self, image: Image | None) -> Any:
        """What the encoder takes; a sentence when the picture cannot be had."""
        if image is None:
            return "The image is gone from the catalogue."
        picture = Picture(image, Claimed(image.pk, (), 0), max(self.stage.side, ReadStage.side))
        try:
            if not needs_file(self.stage):
                return self.stage.prepare(picture)
            picture.data, picture.size, picture.mtime_ns = read_file(image.absolute_path, lambda size: None)
            if (picture.size, picture.mtime_ns) != (image.size, image.mtime_ns):
                return "The file changed since the last crawl."
            return self.stage.prepare(picture)
        except Vanished:
            return "The file is not there."
        except NoThumbnail:
            return "Its stored thumbnail is not there."
        except ChangedWhileRead:
            return "The file was being written."
        except Unreadable as error:
            return str(error)

    # --- what is kept

    def _kept(self) -> Iterator[tuple[int, int]]:
        """(row, place) of what an earlier run computed; a record that was cut off is none."""
        size = self._record.itemsize
        try:
            whole = self.file.stat().st_size // size
        except FileNotFoundError:
            return
        os.truncate(self.file, whole * size)
        for start in range(0, whole, _PAGE):
            count = min(_PAGE, whole - start)
            for place, one in enumerate(np.fromfile(self.file, self._record, count=count, offset=start * size), start):
                if 0 <= one["row"] < len(self.ids) and self.ids[one["row"]] == one["image"]:
                    yield int(one["row"]), place

    def _keep(self, rows: Sequence[int], results: Sequence[Any]) -> None:
        records = np.zeros(len(rows), dtype=self._record)
        for record, row, vector in zip(records, rows, results, strict=True):
            record["row"], record["image"], record["known"] = row, self.ids[row], vector is not None
            if vector is not None:
                record["vector"] = vector
        with open(self.file, "ab") as out:
            out.write(records.tobytes())
            out.flush()
            os.fsync(out.fileno())
            first = out.tell() // self._record.itemsize - len(rows)
        self._places.update(zip(rows, range(first, first + len(rows)), strict=True))
        reach("samples-kept")


def whereabouts(archive: Archive, vectors: Vectors) -> tuple[Ids, Vectors]:
    """Where in the archive each of these vectors (n, dim) stands: the row nearest to it and its cosine.

    Reads the whole archive once, in blocks.
    """
    best = np.full(len(vectors), -1, dtype=np.int64)
    scores = np.full(len(vectors), -1, dtype=np.float32)
    for start, block, _ in archive.blocks():
        cosines = vectors @ block.T
        columns = cosines.argmax(axis=1)
        top = cosines[np.arange(len(vectors)), columns]
        better = top > scores
        best[better], scores[better] = columns[better] + start, top[better]
    return best, scores
