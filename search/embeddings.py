"""The order of commits that keeps "the database says embedded" true: rows first, then the database.

An `Embedding` row is inserted only after its vector was flushed to disk; re-embedding first commits the
deletion of the old row. A crash in between leaves a vector that nobody believes, never a row without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from django.db import transaction

from search import changes
from search.arrays import Ids, Vectors
from search.faultpoints import reach
from search.models import Change, Embedding, EmbeddingSpace, Image
from search.vectors import get_store
from search.vectors.embedding_file import row_crcs
from search.vectors.local import checked_ids, checked_vectors

_CHUNK = 5_000


def _all(ids: Ids) -> Ids:
    return ids


def _nothing(ids: Ids) -> None:
    return None


def record(
    space: EmbeddingSpace,
    ids: Ids,
    vectors: Vectors,
    *,
    still_mine: Callable[[Ids], Ids] = _all,
    within: Callable[[Ids], None] = _nothing,
) -> Ids:
    """Keep vectors (n, dim) float32 of unit length for these images; returns the ids that were kept, ascending.

    Under the space's write lock: (1) `still_mine(ids)` says for which ids the caller's claim still stands;
    (2) their old Embedding rows are deleted and committed; (3) the vectors are written and flushed; (4) in one
    transaction `still_mine` is asked again (it may lock rows), Embedding rows with CRCs and the change-log entry
    are written and `within(kept)` adds the caller's own writes. Of a space that is being removed nothing is kept.
    Since every writer holds the lock from its first
    check to its commit, a writer whose claim lapsed can never overwrite a row that somebody else committed.

    Raises ValueError for malformed vectors, StoreFault when the disk cannot take them, or when the file is gone in
    which other images of the space are believed to be: a disk that is away must not be taken for an empty one.
    """
    ids = checked_ids(ids)
    vectors = checked_vectors(vectors, len(ids), space.dim)
    if len(np.unique(ids)) != len(ids):
        raise ValueError("an id stands twice among the images to record")
    order = np.argsort(ids)
    ids, vectors = ids[order], vectors[order]
    store = get_store(space)
    with store.writing():
        if not EmbeddingSpace.objects.filter(pk=space.pk, removing=False).exists():  # whoever removes it waits for us
            return ids[:0]
        if not store.file.path.exists() and Embedding.objects.filter(space=space).exists():
            store.file.require()
        mine = np.isin(ids, _existing(still_mine(ids)))
        ids, vectors = ids[mine], vectors[mine]
        disbelieve(space, ids)
        reach("old-embedding-deleted")
        store.upsert(ids, vectors)
        crcs = row_crcs(vectors)
        with transaction.atomic():
            kept = np.isin(ids, _existing(still_mine(ids), lock=True))
            ids, crcs = ids[kept], crcs[kept]
            Embedding.objects.bulk_create(
                [
                    Embedding(image_id=int(i), space_id=space.pk, crc32=int(crc))
                    for i, crc in zip(ids, crcs, strict=True)
                ],
                batch_size=_CHUNK,
            )
            if len(ids):
                changes.record(Change.Kind.EMBEDDINGS, ids, space=space.pk)
            within(ids)
            reach("before-embedding-commit")
        reach("after-embedding-commit")
    return ids


def forget(space: EmbeddingSpace, ids: Iterable[int] | Ids, *, ahead: Callable[[Ids], None] = _nothing) -> int:
    """Stop believing these images' vectors in a space, then zero them; returns how many rows were deleted.

    `ahead(ids)` adds the caller's own writes to the transaction, before the rows are deleted in it.
    """
    array = _array(ids)
    store = get_store(space)
    with store.writing():
        with transaction.atomic():
            ahead(array)
            count = disbelieve(space, array)
        reach("embedding-forgotten")
        store.delete(array)
    return count


def forget_images(ids: Iterable[int] | Ids) -> None:
    """`forget` in every space: call it before image rows are purged."""
    array = _array(ids)
    for space in EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE):
        forget(space, array)


def _array(ids: Iterable[int] | Ids) -> Ids:
    return checked_ids(ids if isinstance(ids, np.ndarray) else np.fromiter(ids, dtype=np.int64))


def disbelieve(space: EmbeddingSpace, ids: Ids) -> int:
    """Delete these Embedding rows, with the change-log entry, and commit unless the caller has a transaction open;
    returns how many there were. The vectors stay until `verify` zeroes what nobody believes."""
    count = 0
    for start in range(0, len(ids), _CHUNK):
        with transaction.atomic():
            rows = Embedding.objects.filter(space=space, image_id__in=ids[start : start + _CHUNK].tolist())
            old = list(rows.values_list("image_id", flat=True))
            if old:
                rows.delete()
                changes.record(Change.Kind.EMBEDDINGS, old, space=space.pk)
                count += len(old)
    return count


def _existing(ids: Ids, *, lock: bool = False) -> Ids:
    """Those of the ids that still have an Image row; `lock` keeps the rows from being deleted until the commit."""
    found: list[int] = []
    for start in range(0, len(ids), _CHUNK):
        rows = Image.objects.filter(pk__in=ids[start : start + _CHUNK].tolist())
        if lock:
            rows = rows.select_for_update(no_key=True).order_by("pk")
        found.extend(rows.values_list("pk", flat=True))
    return np.array(sorted(found), dtype=np.int64)
