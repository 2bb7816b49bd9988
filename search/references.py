"""Reference collections: the images of one source, album or tag, as far as a person may see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from search.access import readable_sources
from search.errors import BadQuery
from search.facets import get_facets
from search.models import Album, AlbumEntry, Image, ImageTag, Source, Tag, tag_key
from search.querysets import ImageQuerySet

KINDS = ("source", "album", "tag")
MOST_TAGS = 200
_NAMED = 10


@dataclass(frozen=True)
class Collection:
    """Where a picture is looked for. `key` is what an address holds: "source:3"."""

    kind: str
    pk: int
    name: str

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.pk}"

    def members(self) -> ImageQuerySet:
        """Every image of it, whoever may see it: narrowed by `search.bitmaps.Library.visible`."""
        images: ImageQuerySet = Image.objects.all()
        if self.kind == "source":
            return images.filter(source=self.pk)
        if self.kind == "album":
            return images.filter(pk__in=AlbumEntry.objects.filter(album=self.pk).values("image"))
        return images.filter(pk__in=ImageTag.objects.filter(tag=self.pk).values("image"))


def by_key(key: str, user: Any) -> Collection:
    """The collection that an address names. Raises BadQuery: the same for what one may not see."""
    kind, _, number = key.partition(":")
    if kind in KINDS and number.isascii() and number.isdigit() and len(number) < 19:
        found = _of(kind, user).filter(pk=int(number)).first()
        if found is not None:
            return Collection(kind, found.pk, found.name)
    raise BadQuery("That source, album or tag is not there, or you may not see it. Choose another one.")


def by_name(kind: str, name: str, user: Any) -> Collection:
    """The collection with this name (tags: however it is written). Raises BadQuery naming what there is."""
    rows = _of(kind, user)
    found = list((rows.filter(key=tag_key(name)) if kind == "tag" else rows.filter(name=name))[:2])
    if len(found) == 2:
        raise BadQuery(f"Several people have an album named {name!r}: say whose with --user.")
    if not found:
        names = [repr(one) for one in rows.order_by("name").values_list("name", flat=True)[: _NAMED + 1]]
        there = ", ".join(names[:_NAMED]) + (" and more" if len(names) > _NAMED else "") or "none"
        raise BadQuery(f"There is no {kind} named {name!r}; there are: {there}.")
    return Collection(kind, found[0].pk, found[0].name)


def choices(user: Any) -> list[tuple[str, list[Collection]]]:
    """(heading, collections) of what this person may choose from; of many tags the most used ones."""
    facets = get_facets()
    used = facets.tags(facets.library.visible(user, listed=False))
    most = sorted(used, key=lambda pk: (-used[pk], pk))[:MOST_TAGS]
    tags = Tag.objects.filter(pk__in=most).order_by("key")
    groups = [
        ("Sources", [Collection("source", pk, name) for pk, name in _of("source", user).values_list("pk", "name")]),
        ("Albums", [Collection("album", pk, name) for pk, name in _of("album", user).values_list("pk", "name")]),
        ("Tags", [Collection("tag", tag.pk, tag.name) for tag in tags]),
    ]
    return [(heading, found) for heading, found in groups if found]


def _of(kind: str, user: Any) -> QuerySet[Any]:
    if user is not None and not user.is_active:
        return Source.objects.none()
    if kind == "source":
        return Source.objects.all() if user is None or user.is_staff else readable_sources(user)
    if kind == "album":
        return Album.objects.visible_to(user)
    seen = Image.objects.visible_to(user).filter(pk=OuterRef("image"))
    return Tag.objects.filter(Exists(ImageTag.objects.filter(Exists(seen), tag=OuterRef("pk"))))
