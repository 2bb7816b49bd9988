"""The approximate index of a space: made beside the one in use, taken in one step, left away when it breaks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from django.db.models import Max

from search import index_failures
from search.arrays import Vectors
from search.background import reference
from search.bitmaps import get_library, known_library
from search.errors import EncoderUnavailable, IndexNotMade, SpaceMismatch, StoreFault
from search.models import Embedding, EmbeddingSpace
from search.spaces import encoder_of
from search.vectors import faiss_index, get_store, index_folder

LEAST_ROWS = 20_000
"""Below this an index answers nothing: every search is exact."""
RECALL = 0.99
FITS = 0.98
"""So many of a sample at least lie where the index says, but for rounding."""
KEPT_FROM = 200_000
"""From so many vectors on the background tasks make an index by themselves: below, exact searches are quick."""
MOST_BESIDES = 50_000
MOST_SHARE = 0.1
"""An index is made anew when more than both were written or taken away since it was made."""


@dataclass(frozen=True)
class State:
    """The index of a space as commands and pages show it; `rows` 0: there is none."""

    rows: int = 0
    recall: float = 0.0
    besides: int = 0
    """Vectors written or taken away since: scored exactly beside it."""
    made_at: float = 0.0
    fault: str = ""
    failed: str = ""
    """Why the background tasks could not make it the last time."""
    tries: int = 0
    """How often they failed, one after the other."""
    again_at: float = 0.0
    """From when on they try again, in seconds since 1970."""

    @property
    def again(self) -> datetime:
        """`again_at` as a moment."""
        return datetime.fromtimestamp(self.again_at, tz=UTC)


def state(space: EmbeddingSpace) -> State:
    """What there is. Opens the index; two small queries."""
    store = get_store(space)
    failure = index_failures.read(store.file.folder)
    last = (failure.why, failure.tries, failure.again_at) if failure else ("", 0, 0.0)
    index = store.index()
    if index is None:
        return State(0, 0.0, 0, 0.0, store.index_fault, *last)
    since = known_library().written_since(space.pk, index.about.last)
    about = index.about
    return State(about.rows, about.recall, len(since), about.made_at, "", *last)


def rests(space: EmbeddingSpace) -> bool:
    """Whether making the index failed not long enough ago to try it again. One look at the disk."""
    failure = index_failures.read(get_store(space).file.folder)
    return failure is not None and failure.at <= time.time() < failure.again_at


def due(space: EmbeddingSpace) -> bool:
    """Whether an index of this space should be made now: it is large enough and there is none, a broken one, or one
    beside which too much was written or taken away. Reads this process's flags."""
    embedded = get_library().embedded(space.pk)
    if int(np.count_nonzero(embedded)) < KEPT_FROM:
        return False
    index = get_store(space).index()
    if index is None:
        return True
    differs = index.covers(len(embedded)) != embedded
    written = known_library().written_since(space.pk, index.about.last)
    differs[written[written < len(differs)]] = True
    return int(np.count_nonzero(differs)) > max(MOST_BESIDES, MOST_SHARE * index.about.rows)


def make(
    space: EmbeddingSpace, *, recall: float = RECALL, go_on: Callable[[float], None] = lambda done: None
) -> faiss_index.About:
    """Make the space's index anew and let every process use it from its next search on. Searches go on meanwhile with
    what there was.

    `recall`: recall@20 against the exact search that it is tuned to. `go_on(share)` is called between steps and may
    raise to give up. Raises IndexNotMade with a sentence, StoreFault when the disk cannot take it.
    """
    store = get_store(space)
    with _alone(store.file.folder):
        store.file.require()
        file = _identity(store.file.path)

        def still_so() -> None:
            there = EmbeddingSpace.objects.filter(pk=space.pk, removing=False).exists()
            if not there or _identity(store.file.path) != file:
                raise IndexNotMade(f"{space.name} was removed or restored meanwhile; nothing was changed.")

        still_so()
        # The newest row first, then which there are: what is written in between counts as written since.
        last = Embedding.objects.filter(space=space).aggregate(last=Max("pk"))["last"] or 0
        ids = np.flatnonzero(get_library().embedded(space.pk))
        if len(ids) < LEAST_ROWS:
            raise IndexNotMade(
                f"{space.name} holds {len(ids):,} vectors; up to {LEAST_ROWS:,} "
                "every search is exact and needs no index."
            )
        try:
            about = faiss_index.build(
                store.get, ids, store.file.folder, dim=space.dim, last=last, wanted=recall, queries=_phrases(space),
                go_on=go_on, still_so=still_so,
            )  # fmt: skip
            index_failures.forget(store.file.folder)
            return about
        except ValueError as error:
            raise IndexNotMade(
                f"{space.name} cannot be indexed: {error}. `manage.py verify` says what is wrong with its vectors."
            ) from error


def check(space: EmbeddingSpace, sample: int = 500) -> str:
    """Compare the index with the vectors it was made of; one that does not fit, or is broken, is deleted: it is a
    cache. Returns a sentence about that, "" when there is none or it is as it should be."""
    store = get_store(space)
    index = store.index()
    if index is not None:
        ids = np.flatnonzero(index.covers(store.file.capacity()))
        chosen = np.sort(np.random.default_rng().choice(ids, min(sample, len(ids)), replace=False))
        rows = store.get(chosen)
        # Asked after the rows were read: what is written meanwhile is not among them.
        since = Embedding.objects.filter(space=space, image_id__in=chosen.tolist(), pk__lte=index.about.last)
        there = np.isin(chosen, np.fromiter(since.values_list("image_id", flat=True), dtype=np.int64))
        if index.fits(chosen[there], rows[there]) >= FITS:
            return ""
        why = "was not made of these vectors"
    elif store.index_fault:
        why = "was broken"
    else:
        return ""
    try:
        drop(space)
    except (IndexNotMade, StoreFault) as error:
        return f"The index of {space.name} {why}, and could not be deleted: {error}"
    return f"The index of {space.name} {why} and was deleted; searches are exact until it is made anew."


def drop(space: EmbeddingSpace) -> bool:
    """Delete the space's index: searches are exact from then on. Whether there was one."""
    store = get_store(space)
    with _alone(store.file.folder):
        there = index_folder.current(store.file.folder) is not None
        index_folder.forget(store.file.folder)
        index_failures.forget(store.file.folder)
    return there


def _phrases(space: EmbeddingSpace) -> Vectors | None:
    """Texts as people ask them, encoded; None where the encoder has no words or is not here."""
    if not space.text:
        return None
    try:
        phrases = reference(encoder_of(space), space)
    except (EncoderUnavailable, SpaceMismatch):
        return None
    return phrases if len(phrases) else None


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is: another one after a restore; None when it is gone."""
    try:
        stands = path.stat()
    except OSError:
        return None
    return stands.st_dev, stands.st_ino


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One maker at a time; raises IndexNotMade while another is at it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / "index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreFault(f"{folder} cannot be written ({error.strerror}). Run this as who owns the data.") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexNotMade(f"The index of {folder.name} is being made already.") from None
        yield
    finally:
        os.close(fd)
