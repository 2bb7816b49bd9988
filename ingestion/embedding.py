"""Which images lack vectors, for the `embed` command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.db.models import Exists, OuterRef, Q

from ingestion.errors import BadStage
from ingestion.models import Work
from ingestion.stages import wanted
from search import spaces
from search.access import readable_sources
from search.encoders import availability, get_encoder
from search.errors import EncoderUnavailable
from search.models import Embedding, EmbeddingSpace, Image
from search.querysets import ImageQuerySet


def spaces_to_fill(name: str | None) -> list[EmbeddingSpace]:
    """The named space, or all that are being filled; that of the configured model is made when it is not there.

    Raises BadStage for a name that no space has, EncoderUnavailable when the model is not here.
    """
    images = EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE)
    look = spaces.look_space()
    if name is not None:
        space = look if name == spaces.LOOK else images.filter(name=name).first()
        if space is None:
            raise BadStage(f"There is no space {name!r}. Spaces: {', '.join(images.values_list('name', flat=True))}.")
        return [space]
    spec = settings.IMAGESEARCH_ENCODER
    if spec != spaces.LOOK and not images.filter(encoder=spec).exists():
        there = availability(spec)
        if not there.ready:
            raise EncoderUnavailable(there.sentence)
        spaces.ensure_space(get_encoder(spec), spec)
    stages = set(wanted())
    return [space for space in images if space.stage in stages] or [look]


def images_of(user: Any) -> ImageQuerySet:
    """The images that this user may see; all of them for None."""
    return Image.objects.visible_to(user)


def sources_of(user: Any) -> list[int] | None:
    """Ids of the sources that this user may see; None for all of them."""
    if user is None or user.is_staff:
        return None
    return list(readable_sources(user).values_list("pk", flat=True))


def lacking(some: Sequence[EmbeddingSpace], user: Any, *, retry_failed: bool = False) -> Iterator[Image]:
    """The images that `embed` would work on, by id; with `retry_failed` also those that failed."""
    states = [Image.State.WAITING, Image.State.READY, Image.State.REMOVED]
    condition = Q()
    for space in some:
        has_vector = Exists(Embedding.objects.filter(image=OuterRef("pk"), space=space))
        work = Work.objects.filter(image=OuterRef("pk"), stage=space.stage)
        waits, failed = Exists(work.filter(state=Work.State.WAITING)), Exists(work.filter(state=Work.State.FAILED))
        condition |= (waits | ~has_vector) if retry_failed else (waits | (~has_vector & ~failed))
    rows = images_of(user).filter(condition, state__in=states).select_related("source").order_by("pk")
    yield from rows.only("id", "path", "source__root").iterator(chunk_size=2_000)
