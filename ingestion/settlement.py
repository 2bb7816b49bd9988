"""Results that come without a claim: vectors that were adopted instead of computed. Part of the work ledger."""

from __future__ import annotations

import numpy as np
from django.db import connection
from django.db.models import Count, Exists, OuterRef
from django.utils import timezone

from ingestion import tally
from ingestion.models import Work
from search.arrays import Ids
from search.models import Image

_CHUNK = 5_000


def unclaimed(stage: str, ids: Ids) -> Ids:
    """Those of the ids that lack the stage's result and that no worker has in hand; inside a transaction this
    stays so until it ends."""
    free: list[int] = []
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK].tolist()
        if connection.in_atomic_block:
            if connection.features.has_select_for_update:
                list(Image.objects.filter(pk__in=chunk).select_for_update(no_key=True).order_by("pk").values_list("pk"))
            tally.hold()
        held = Work.objects.filter(image_id=OuterRef("pk"), stage=stage, lease_until__gte=timezone.now())
        lacking = Image.objects.filter(~tally.has_result(stage), ~Exists(held), pk__in=chunk)
        free.extend(lacking.values_list("pk", flat=True))
    return np.array(sorted(free), dtype=np.int64)


def settle(stage: str, ids: Ids) -> None:
    """The stage's result, which these images lacked, is recorded in this very transaction by somebody without a
    claim: their work is gone, waiting or failed, and they count as done."""
    tally.hold()
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK].tolist()
        rows = Work.objects.filter(stage=stage, image_id__in=chunk)
        had = dict(rows.order_by().values_list("state").annotate(n=Count("id")))
        rows.delete()
        tally.move(
            stage, waiting=-had.get(Work.State.WAITING, 0), failed=-had.get(Work.State.FAILED, 0), done=len(chunk)
        )
