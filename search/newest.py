"""Images by their date, newest first."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
from django.conf import settings

from search import naming
from search.arrays import Bitmap, Ids
from search.models import Image


def newest_of(flags: Bitmap | None) -> Ids:
    """The newest of these images, newest first: at most settings.IMAGESEARCH_MAX_RESULTS."""
    most = settings.IMAGESEARCH_MAX_RESULTS
    ids = np.flatnonzero(flags) if flags is not None else np.zeros(0, dtype=np.int64)
    if len(ids) <= naming.FEW:
        rows: list[tuple[Any, int]] = []
        for start in range(0, len(ids), 5_000):
            some = Image.objects.filter(pk__in=ids[start : start + 5_000].tolist())
            rows += [(shown_at, pk) for pk, shown_at in some.values_list("pk", "shown_at")]
        return np.array([pk for _, pk in sorted(rows, reverse=True)[:most]], dtype=np.int64)
    wanted = (pk for pk in Image.objects.newest_first().values_list("pk", flat=True).iterator() if _in(flags, pk))
    return np.fromiter(islice(wanted, most), dtype=np.int64)


def _in(flags: Bitmap | None, image_id: int) -> bool:
    return flags is not None and image_id < len(flags) and bool(flags[image_id])
