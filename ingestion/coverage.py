"""How much of the library is read and embedded: what `stats` reports."""

from __future__ import annotations

from typing import Any

from django.db.models import Count

from ingestion import problems, watchstate
from search import spaces
from search.access import readable_sources
from search.models import EmbeddingSpace, Image, Source

_PRESENT = [Image.State.WAITING, Image.State.READY, Image.State.UNREADABLE]


def stats(user: Any = None) -> dict[str, Any]:
    """Numbers of the images that this user may see.

    `total`: files that are there (not removed, not missing); `readable`: those that were read; `embedded` and
    `coverage_percent`: by space, of the readable ones; `failed`: by stage; `states`: images in each state;
    `active`: the name of the space that serves; `sources`: how each source is kept up to date.
    """
    images = Image.objects.visible_to(user).order_by()
    states = dict(images.values_list("state").annotate(number=Count("pk")))
    readable = states.get(Image.State.READY, 0)
    ready = images.filter(state=Image.State.READY)
    active = spaces.active_space()
    some = list(EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE).order_by("pk"))
    embedded = {space.name: ready.filter(embeddings__space=space).count() for space in some}
    return {
        "total": sum(states.get(state, 0) for state in _PRESENT),
        "readable": readable,
        "embedded": embedded,
        "coverage_percent": {
            name: round(100 * number / readable, 2) if readable else 100.0 for name, number in embedded.items()
        },
        "failed": problems.count(user),
        "states": states,
        "active": active.name,
        "sources": [
            {"source": row.source.name, "watched": row.watched, "kept": row.sentence}
            for row in watchstate.kept(Source.objects.all() if user is None else readable_sources(user))
        ],
    }
