"""Taking a space away: its work, its results, its row and its files, in short steps that can be gone on with.

From the first step on no worker claims the space's work. When its rows in the ledger are gone, no claim on it
stands any more, so what a worker still has in hand is never recorded (`search.embeddings.record` asks again in its
own transaction). The counters move with every step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from ingestion import ledger, tally
from ingestion.errors import IngestionError
from ingestion.models import StageCount, StageTick, Work
from search import changes
from search.embeddings import disbelieve
from search.faultpoints import reach
from search.models import Change, Embedding, EmbeddingSpace
from search.serving import MOST_SECONDS
from search.spaces import LOOK, active_space, image_spaces
from search.vectors import get_store

_CHUNK = 5_000


class NotRemoved(IngestionError):
    """The space has to stay; the message says why."""


def begin(space: EmbeddingSpace) -> None:
    """Mark a space as being removed: workers leave it alone and it can serve no more. `finish` does the rest.

    Raises NotRemoved for `look`, for the space that serves or served until a moment ago (other processes may still
    answer from it), and for that of the configured model, which would be filled anew.
    """
    if space.encoder == LOOK:
        raise NotRemoved("The space look is built in: it stays.")
    if space.encoder == settings.IMAGESEARCH_ENCODER and not space.from_thumbnails:
        raise NotRemoved(
            f"{space.name} is the space of the model that IMAGESEARCH_ENCODER names: the workers would fill it again. "
            "Set another model first, and start the program again."
        )
    with transaction.atomic():
        now = image_spaces().select_for_update().filter(pk=space.pk).first()
        if now is None:
            raise NotRemoved(f"The space {space.name} is not there any more.")
        if active_space().pk == now.pk:
            raise NotRemoved(
                f"{space.name} serves searches. Let another space serve first (`manage.py spaces activate NAME`)."
            )
        left = _seconds_left(now)
        if left > 0:
            raise NotRemoved(
                f"{space.name} served searches until a moment ago, and a process that is still loading the other space "
                f"may answer from it. Try again in {left:.0f} seconds."
            )
        image_spaces().filter(pk=now.pk).update(removing=True, wanted=False, chosen=False)
        changes.record(Change.Kind.SPACES, [now.pk])
    space.removing, space.wanted = True, False
    reach("space-removal-begun")


def _seconds_left(space: EmbeddingSpace) -> float:
    if space.served_until is None:
        return 0.0
    return (space.served_until + timedelta(seconds=MOST_SECONDS) - timezone.now()).total_seconds()


def finish(space: EmbeddingSpace, progress: Callable[[int], None] | None = None) -> int:
    """Take away what `begin` marked; returns how many vectors it held. Stopped anywhere and called again it goes on.

    Calls `progress(vectors gone so far)`.
    """
    _drop_work(space.stage)
    total = 0
    while ids := list(
        Embedding.objects.filter(space=space).order_by("image_id").values_list("image_id", flat=True)[:_CHUNK]
    ):
        with transaction.atomic(), ledger.losing_results(space.stage, ids):
            disbelieve(space, np.array(ids, dtype=np.int64))
        total += len(ids)
        reach("space-partly-removed")
        if progress:
            progress(total)
    store = get_store(space)
    with store.writing():  # whoever records waits for this, and finds then that its claims are gone
        _drop_work(space.stage)
        folder = Path(settings.IMAGESEARCH_SPACES) / space.name
        for file in folder.glob("*"):
            if file.is_dir():
                shutil.rmtree(file, ignore_errors=True)
            elif file.name != "write.lock":
                file.unlink(missing_ok=True)
        reach("space-files-removed")
        with transaction.atomic():
            tally.hold()
            StageCount.objects.filter(stage=space.stage).delete()
            StageTick.objects.filter(stage=space.stage).delete()
            EmbeddingSpace.objects.filter(pk=space.pk).delete()
            changes.record(Change.Kind.SPACES, [space.pk])
        shutil.rmtree(folder, ignore_errors=True)
    store.close()
    return total


def sweep() -> int:
    """Drop work of spaces that are gone: what somebody queued in the moment of their removal. Returns how many rows."""
    stages = set(StageCount.objects.filter(stage__startswith=ledger.EMBED).values_list("stage", flat=True))
    stages -= {space.stage for space in EmbeddingSpace.objects.all()}
    total = 0
    for stage in sorted(stages):
        total += _drop_work(stage)
        with transaction.atomic():
            tally.hold()
            if not EmbeddingSpace.objects.filter(name=stage.removeprefix(ledger.EMBED)).exists():
                StageCount.objects.filter(stage=stage).delete()
    return total


def _drop_work(stage: str) -> int:
    """Delete the stage's rows from the ledger, waiting, failed and claimed ones, in short transactions."""
    total = 0
    for state in (Work.State.WAITING, Work.State.FAILED):
        rows = Work.objects.filter(state=state, stage=stage)
        while keys := list(rows.values_list("pk", "image_id")[:_CHUNK]):
            ids = [image_id for _, image_id in keys]
            with transaction.atomic():
                tally.hold()
                done = tally.count_done(stage, ids)
                gone = rows.filter(pk__in=[pk for pk, _ in keys]).delete()[0]
                waiting, failed = (gone, 0) if state == Work.State.WAITING else (0, gone)
                tally.move(stage, waiting=-waiting, failed=-failed, done=tally.count_done(stage, ids) - done)
            total += gone
    return total
