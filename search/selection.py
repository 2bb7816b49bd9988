"""What a person has selected: kept on the server, one selection a person, as ids that later indexing does not change.

Only images that the person may see get in. The verbs ask again for the right to do what they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.arrays import Ids
from search.atomically import atomically
from search.compact import pack_ordered, unpack_ordered
from search.history import ids_of
from search.models import Image, Selection
from search.steps import chunks

_NONE: Ids = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Selected:
    """The ids in the order in which they were chosen, and with which score each was found (NaN: without one)."""

    ids: Ids
    scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def among(self, ids: Iterable[int]) -> set[int]:
        """Those of `ids` that are selected."""
        return set(np.intersect1d(self.ids, ids_of(list(ids))).tolist())


def of(user: Any) -> Selected:
    """What this person has selected. One query."""
    row = Selection.objects.filter(user=user.pk).values_list("ids", "scores", "count").first()
    if row is None or not row[2]:
        return Selected(_NONE, _NONE.astype(np.float32))
    ids = unpack_ordered(row[0])
    scores = np.frombuffer(row[1], dtype="<f4") if row[1] else np.full(len(ids), np.nan, dtype=np.float32)
    return Selected(ids, scores)


@atomically
def change(user: Any, *, add: Iterable[int] = (), drop: Iterable[int] = ()) -> Selected:
    """Select more images, and fewer. What one may not see is not added."""
    Selection.objects.select_for_update().filter(user=user.pk).first()
    now = of(user)
    new = visible(ids_of(list(dict.fromkeys(add))), user)
    new = new[~np.isin(new, now.ids)]
    ids = np.concatenate([now.ids, new])
    scores = np.concatenate([now.scores, np.full(len(new), np.nan, dtype=np.float32)])
    kept = ~np.isin(ids, ids_of(list(drop)))
    return _keep(user, ids[kept], scores[kept])


@atomically
def replace(user: Any, ids: Ids, scores: npt.NDArray[np.floating[Any]] | None = None) -> Selected:
    """Select exactly these images, in this order."""
    given = np.full(len(ids), np.nan, dtype=np.float32) if scores is None else scores.astype(np.float32)
    kept = np.isin(ids, visible(ids, user))
    return _keep(user, ids[kept], given[kept])


def clear(user: Any) -> Selected:
    """Select nothing."""
    return _keep(user, _NONE, _NONE.astype(np.float32))


def visible(ids: Ids, user: Any) -> Ids:
    """Those of `ids` that this person may see, in the order given."""
    parts = [
        np.fromiter(Image.objects.visible_to(user).filter(pk__in=chunk).values_list("pk", flat=True), dtype=np.int64)
        for chunk in chunks(ids)
    ]
    return ids[np.isin(ids, np.concatenate([_NONE, *parts]))]


def _keep(user: Any, ids: Ids, scores: npt.NDArray[np.float32]) -> Selected:
    packed = None if np.isnan(scores).all() else scores.astype("<f4").tobytes()
    Selection.objects.update_or_create(
        user_id=user.pk, defaults={"ids": pack_ordered(ids), "scores": packed, "count": len(ids)}
    )
    return Selected(ids, scores)
