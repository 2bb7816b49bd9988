"""Which space answers words: the one that serves, or another one where that one compares pictures only."""

from __future__ import annotations

from search.bitmaps import Library
from search.encoders import availability
from search.models import EmbeddingSpace
from search.spaces import LOOK, look_space


def space_for_words(serving: EmbeddingSpace, library: Library) -> EmbeddingSpace:
    """The serving space when its encoder knows words; else the fullest one whose encoder does and is here; else `look`.

    A query is answered wholly in one space: its words and its example pictures together.
    """
    if serving.text:
        return serving
    others = EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE, text=True, removing=False).exclude(
        encoder=LOOK
    )
    filled = [(int(library.embedded(space.pk).sum()), space) for space in others.order_by("-pk")]
    for count, space in sorted(filled, key=lambda one: -one[0]):
        if count and availability(space.encoder).ready:
            return space
    return look_space()
