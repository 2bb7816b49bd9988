"""What narrows the list of images, each quick over a million rows: no filter lists what occurs in the table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from django.contrib import admin
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from search.admin import finding
from search.admin.typed import TypedFilter
from search.bitmaps import get_library
from search.models import Embedding, EmbeddingSpace, Image, ImageTag, Tag, tag_key

MANY = 5_000
"""From so many images on, a tag is looked up image by image, newest first, instead of gathering its images first."""
MOST_LACKING = 2_000
PATIENCE = 0.25
"""Seconds for which images without a tag are looked for in one go."""


class RatingFilter(admin.SimpleListFilter):
    title = "rating"
    parameter_name = "rating"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("0", "not rated"), *((str(n), "★" * n) for n in range(1, 6))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Image]) -> QuerySet[Image]:
        return queryset.filter(rating=int(value)) if (value := self.value()) in set("012345") else queryset


class QueueFilter(admin.SimpleListFilter):
    """The review queues that every image says of itself; each has an index of only what waits in it."""

    title = "review queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in ("wide", "small", "blurred", "plain", "unrated", "untagged")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Image]) -> QuerySet[Image]:
        names = [name for name, _ in self.lookup_choices]
        return queryset.filter(**{name: True}) if (name := self.value()) in names else queryset


class FormatFilter(admin.SimpleListFilter):
    """The formats the program reads, without asking a large table which occur."""

    title = "format"
    parameter_name = "format"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "HEIF", "HEIC", "AVIF", "JPEG2000", "RAW"]
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Image]) -> QuerySet[Image]:
        return queryset.filter(format=self.value()) if self.value() else queryset


class TagFilter(TypedFilter):
    """A tag by its name, of however many there are; "-" for images without any."""

    title = "tag"
    parameter_name = "tag"
    placeholder = "A whole tag"
    suggest = "tag_suggestions"
    links = (("-", "no tag"),)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Image]) -> QuerySet[Image]:
        value = self.value()
        if not value:
            return queryset
        if value == "-":
            untagged = Q(~Exists(ImageTag.objects.filter(image=OuterRef("pk"))))
            found = finding.look(untagged, start=finding.start_of(request), patience=PATIENCE)
            finding.say_how_far(request, found)
            return queryset.filter(pk__in=found.ids)
        return tagged(queryset, value)


def tagged(images: QuerySet[Image], name: str) -> QuerySet[Image]:
    """Those of the images that have a tag, asked for in the way that is quick for a rare, or for a common one."""
    tag = Tag.objects.filter(key=tag_key(name)).values_list("pk", flat=True).first()
    if tag is None:
        return images.none()
    links = ImageTag.objects.filter(tag=tag)
    if links.order_by()[:MANY].count() < MANY:
        return images.filter(pk__in=list(links.values_list("image", flat=True)))
    return images.filter(Exists(ImageTag.objects.filter(image=OuterRef("pk"), tag=tag)))


class SpaceFilter(admin.SimpleListFilter):
    """Whether a space has a vector of the image."""

    title = "space"
    parameter_name = "space"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = []
        for name, label in EmbeddingSpace.objects.filter(kind="image").order_by("pk").values_list("name", "label"):
            found += [(f"{name}.in", f"in {label}"), (f"{name}.out", f"not in {label}")]
        return found

    def queryset(self, request: HttpRequest, queryset: QuerySet[Image]) -> QuerySet[Image]:
        name, _, what = (self.value() or "").rpartition(".")
        space = EmbeddingSpace.objects.filter(name=name).first() if what in ("in", "out") else None
        if space is None:
            return queryset
        if what == "in":
            return queryset.filter(Exists(Embedding.objects.filter(image=OuterRef("pk"), space=space)))
        return queryset.filter(pk__in=lacking(space, request.user))


def lacking(space: EmbeddingSpace, user: Any) -> list[int]:
    """The listed images with the highest ids that have no vector in a space, at most 2,000: from what each process
    keeps in memory for searching, so that no table is read for what is *not* in it."""
    library = get_library()
    library.refresh()
    missing = np.flatnonzero(library.visible(user) & ~library.embedded(space.pk))
    return [int(one) for one in missing[-MOST_LACKING:]]


class BeforeFilter(TypedFilter):
    """Where the list of images goes on: what was taken before a day, or at or before a moment."""

    title = "date, from here back"
    parameter_name = "before"
    kind = "text"
    placeholder = "2019-12-31"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Image]) -> QuerySet[Image]:
        moment = moment_of(self.value() or "")
        return queryset.filter(shown_at__lte=moment) if moment else queryset


def moment_of(text: str) -> datetime | None:
    """The end of a day "2019-12-31", or the moment "2019-12-31T10:00:00+00:00"; None for anything else."""
    try:
        if (day := parse_date(text)) is not None:
            return datetime(day.year, day.month, day.day, 23, 59, 59, 999_999, tzinfo=UTC)
        moment = parse_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment is None:
        return None
    return moment if timezone.is_aware(moment) else moment.replace(tzinfo=UTC)
