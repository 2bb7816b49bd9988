"""Verification of spaces on request: asked for on a page, done in the background, its outcome kept with the space."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils import timezone

from search.models import EmbeddingSpace
from search.verification import verify


def ask(space_ids: Sequence[int]) -> int:
    """Let the background tasks verify these spaces; returns how many."""
    from django_q.tasks import async_task

    found = EmbeddingSpace.objects.filter(pk__in=list(space_ids), kind=EmbeddingSpace.Kind.IMAGE)
    ids = list(found.values_list("pk", flat=True))
    found.update(verify_asked_at=timezone.now())
    for one in ids:
        async_task("ingestion.tasks.verify_space", one)
    return len(ids)


def run(space_id: int) -> bool:
    """Verify one space, and keep what was found with it; False when it is gone."""
    space = EmbeddingSpace.objects.filter(pk=space_id).first()
    return space is not None and bool(verify(only=space))
