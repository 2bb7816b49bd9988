"""Queue exactly what is wrong, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from django.db.models import Exists, OuterRef, Q

from ingestion import ledger, stages
from ingestion.models import Work
from search import thumbnails
from search.arrays import Ids
from search.embeddings import forget
from search.errors import StoreFault
from search.models import Embedding, EmbeddingSpace, Image
from search.vectors import get_store
from search.verification import SpaceVerdict, verify

_CHUNK = 5_000
_RANGE = 20_000


@dataclass
class Repairs:
    """How many images were queued, and why."""

    wrong_rows: int = 0
    """Vectors that were not what was written, or not of their picture: forgotten, to be computed again."""
    never_embedded: int = 0
    """Readable images without a vector in a space that is being filled, and without waiting work."""
    never_read: int = 0
    """Waiting images without waiting work."""
    no_thumbnail: int = 0
    """Readable images whose thumbnail is gone."""
    counters: int = 0
    """Stage counters that were put right."""
    cut_off: int = 0
    """Embedding files that were cut off and are now as long as their whole rows."""


def repair(verdicts: list[SpaceVerdict] | None = None) -> Repairs:
    """Mend what `verify` finds (it is run, without a sample, when its verdicts are not given)."""
    done = Repairs()
    _mend_cut_off(done)
    if verdicts is None or done.cut_off:
        verdicts = verify(sample=0)
    for verdict in verdicts:
        if verdict.fault:
            raise StoreFault(verdict.fault)
        wrong = np.array(sorted(set(verdict.bad)), dtype=np.int64)
        if len(wrong):
            _queue_wrong(EmbeddingSpace.objects.get(name=verdict.space), wrong)
            done.wrong_rows += len(wrong)
    _queue_unread(done)
    _queue_unembedded(done)
    _queue_thumbnails(done)
    done.counters = ledger.recount()
    return done


def _mend_cut_off(done: Repairs) -> None:
    for space in EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE):
        file = get_store(space).file
        if not file.path.exists():
            continue
        try:
            file.capacity()
        except StoreFault:
            with contextlib.suppress(ValueError, SyntaxError):
                file.mend_length()
                done.cut_off += 1


def _queue_wrong(space: EmbeddingSpace, wrong: Ids) -> None:
    """Queue the work and forget the vectors in one transaction, in the order that the counters ask for."""
    for start in range(0, len(wrong), _CHUNK):
        forget(space, wrong[start : start + _CHUNK], ahead=lambda ids: ledger.queue(ids, [space.stage]))


def _parts(state: str, lacking: Q) -> Iterator[list[int]]:
    """Ids of the images in this state, ascending, range by range, of which `lacking` holds."""
    others = [one for one in Image.State.values if one != state]  # see `ledger._NOT_ELIGIBLE`
    images = Image.objects.filter(lacking).exclude(state__in=others)
    last = Image.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    for start in range(0, last, _RANGE):
        yield list(images.filter(pk__gt=start, pk__lte=start + _RANGE).order_by("pk").values_list("pk", flat=True))


def _queue(ids: list[int], names: list[str]) -> int:
    for start in range(0, len(ids), _CHUNK):
        ledger.queue(ids[start : start + _CHUNK], names)
    return len(ids)


def _queue_unread(done: Repairs) -> None:
    has_work = Work.objects.filter(image=OuterRef("pk"), stage="read")
    for ids in _parts(Image.State.WAITING, Q(~Exists(has_work))):
        done.never_read += _queue(ids, stages.wanted())


def _queue_unembedded(done: Repairs) -> None:
    wanted = set(stages.wanted())
    for space in EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE):
        if space.stage not in wanted:
            continue
        has_vector = Embedding.objects.filter(image=OuterRef("pk"), space=space)
        has_work = Work.objects.filter(image=OuterRef("pk"), stage=space.stage)
        for ids in _parts(Image.State.READY, Q(~Exists(has_vector), ~Exists(has_work))):
            done.never_embedded += _queue(ids, [space.stage])


def _queue_thumbnails(done: Repairs) -> None:
    has_work = Work.objects.filter(image=OuterRef("pk"), stage="read")
    for ids in _parts(Image.State.READY, Q(~Exists(has_work))):
        done.no_thumbnail += _queue(thumbnails.missing(ids), ["read"])
