"""The files that could not be processed: which, why, since when; and trying them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, OuterRef, QuerySet

from ingestion import ledger
from ingestion.models import Work
from search.models import Image
from search.queues import Queue, Tally, register_queue, tally


@dataclass(frozen=True)
class Problem:
    """One stage of one file that failed."""

    id: int
    """The image's id."""
    path: str
    stage: str
    reason: str
    failed_at: datetime | None


def problems(user: Any = None, *, newest_first: bool = True) -> Iterator[Problem]:
    """Everything that failed among the images this user may see, with flat memory."""
    rows = failed(user).select_related("image__source").order_by("-failed_at" if newest_first else "image_id", "-pk")
    for row in rows.only(
        "stage", "reason", "failed_at", "image__path", "image__source__root", "image_id"
    ).iterator(chunk_size=1_000):  # fmt: skip
        yield Problem(row.image_id, row.image.absolute_path_text, row.stage, row.reason, row.failed_at)


def count(user: Any = None) -> dict[str, int]:
    """{stage: number of failures} among the images this user may see."""
    return dict(failed(user).order_by().values_list("stage").annotate(number=Count("pk")))


def waiting(user: Any = None) -> Tally:
    """How many failures this user finds on the problems page, counted no further than a counter says."""
    return tally(failed(user))


def register_queue_of_problems() -> None:
    """The problems page as one of the review queues."""
    from django.urls import reverse

    register_queue(
        Queue(
            "problems",
            "Problems",
            "Files that could not be read or processed, each with its reason.",
            waiting,
            lambda: reverse("problems"),
            order=200,
        )
    )


def retry(ids: Sequence[int] | None = None, *, user: Any = None, stage: str | None = None) -> int:
    """Let failed work wait again (all of it, or that of these images); returns how many stages do."""
    images = None if user is None else Image.objects.editable_by(user)
    return ledger.retry(ids, stage=stage, images=images)


def failed(user: Any, *, to_edit: bool = False) -> QuerySet[Work]:
    """The failures among the images that this user may see, or with `to_edit` change."""
    rows = Work.objects.filter(state=Work.State.FAILED)
    if user is None or (user.is_active and user.is_staff):
        return rows
    images = Image.objects.editable_by(user) if to_edit else Image.objects.visible_to(user)
    # Each failure's own image is looked up: all that a person may see would first be put together.
    return rows.filter(Exists(images.filter(pk=OuterRef("image"))))


def count_in(source: Any) -> int:
    """Number of failures among one source's images."""
    return Work.objects.filter(state=Work.State.FAILED, image__source=source).count()
