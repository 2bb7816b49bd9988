"""Vector stores: one per embedding space, made here and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from django.conf import settings

from search.arrays import Ids
from search.vectors.local import LocalStore

if TYPE_CHECKING:
    from search.models import EmbeddingSpace

_stores: dict[int, LocalStore] = {}
_lock = threading.Lock()


def get_store(space: EmbeddingSpace) -> LocalStore:
    """This process's store of a space. Opening costs nothing; a broken file raises StoreFault when it is used."""
    with _lock:
        store = _stores.get(space.pk)
        if store is None or store.dim != space.dim or store.file.folder != settings.IMAGESEARCH_SPACES / space.name:
            folder = settings.IMAGESEARCH_SPACES / space.name
            store = LocalStore(folder, space.dim, news=partial(_written_since, space.pk))
            _stores[space.pk] = store
        return store


def _written_since(space_id: int, last: int) -> Ids:
    """Ids whose vector was written or taken away after that Embedding row was the newest."""
    from search.bitmaps import known_library

    return known_library().written_since(space_id, last)


def forget_stores(*, keep: Collection[int]) -> None:
    """Let go of the stores of all spaces but these (ids): their files may be deleted."""
    with _lock:
        for pk in [pk for pk in _stores if pk not in keep]:
            _stores.pop(pk).close()


def reset_stores() -> None:
    """Let go of every store: the next `get_store` opens anew."""
    with _lock:
        for store in _stores.values():
            store.close()
        _stores.clear()
