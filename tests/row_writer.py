"""A process that embeds and embeds again, to be killed: `python -m tests.row_writer FIRST COUNT ROUNDS`.

Vectors are a function of (image id, round), so whoever looks later can tell a right row from a wrong one.
"""

from __future__ import annotations

import os
import sys

import django
import numpy as np

DIM = 64


def vector(image_id: int, round_number: int) -> np.ndarray:
    """The one right row of this image in this round: (DIM,) float32 of unit length."""
    row = np.random.default_rng([image_id, round_number]).standard_normal(DIM).astype(np.float32)
    return row / np.linalg.norm(row)


def main(first: int, count: int, rounds: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
    django.setup()
    from search import embeddings
    from search.models import Embedding, EmbeddingSpace, Image

    space = EmbeddingSpace.objects.get(name="rows")
    ids = np.array(Image.objects.order_by("pk").values_list("pk", flat=True)[first : first + count], dtype=np.int64)
    for round_number in range(rounds):
        for start in range(0, len(ids), 17):
            batch = ids[start : start + 17]
            if round_number == 0:
                known = Embedding.objects.filter(space=space, image_id__in=batch.tolist())
                batch = np.setdiff1d(batch, np.array(known.values_list("image_id", flat=True), dtype=np.int64))
            if len(batch):
                embeddings.record(space, batch, np.array([vector(int(i), round_number) for i in batch]))
    gone = ids[-5:]
    embeddings.forget(space, gone)
    embeddings.record(space, gone, np.array([vector(int(i), 0) for i in gone]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
