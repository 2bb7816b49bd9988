"""Tags as a person sees them: counted through their images, each under its parent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q

from search.errors import runs_the_server
from search.models import Image, ImageTag, Tag, tag_key

MOST = 2_000


@dataclass(frozen=True)
class Branch:
    """A tag in the tree: how deep it stands, and how many images this person sees with it."""

    tag: Tag
    depth: int
    count: int

    @property
    def steps(self) -> range:
        return range(min(self.depth, 8))


def with_those_under(name: str) -> list[int]:
    """The ids of the tag of this name and of all that stand under it: a query for each level."""
    found = list(Tag.objects.filter(key=tag_key(name)).values_list("pk", flat=True))
    level = found
    while level:
        level = [pk for pk in Tag.objects.filter(parent__in=level).values_list("pk", flat=True) if pk not in found]
        found = [*found, *level]
    return found


def counts(user: Any) -> dict[int, int]:
    """How many listed images this person sees with each tag."""
    images = Image.objects.visible_to(user).listed().order_by().values("pk")
    links = ImageTag.objects.order_by() if user is None else ImageTag.objects.filter(image__in=images).order_by()
    return dict(links.values_list("tag").annotate(count=Count("pk")))


def visible_tags(user: Any, known: dict[int, int] | None = None) -> Any:
    """The tags that this person may know of: on images they see, or made by them; staff: all."""
    if runs_the_server(user):
        return Tag.objects.all()
    if known is not None:
        return Tag.objects.filter(Q(pk__in=list(known)) | Q(made_by=user.pk))
    links = ImageTag.objects.filter(image__in=Image.objects.visible_to(user).order_by().values("pk"))
    return Tag.objects.filter(Q(pk__in=links.values("tag")) | Q(made_by=user.pk))


def touchable(tags: list[int], user: Any) -> set[int]:
    """Those of these tags that this person may rename, merge or delete on some image, or made and nobody uses."""
    if runs_the_server(user):
        return set(tags)
    links = ImageTag.objects.filter(tag__in=tags).order_by()
    mine = links.filter(image__in=Image.objects.editable_by(user).order_by().values("pk"))
    unused = Tag.objects.filter(pk__in=tags, made_by=user.pk).exclude(pk__in=links.values("tag")).order_by()
    return {*mine.values_list("tag", flat=True).distinct(), *unused.values_list("pk", flat=True)}


def tree(user: Any, part: str = "") -> tuple[list[Branch], bool]:
    """The tags that this person may know of, each before those under it; and whether there are more than MOST.

    `part`: only tags whose name contains this, flat. A parent that the person may not know of is left out, and
    what stands under it stands at the top. Two queries.
    """
    numbers = counts(user)
    tags = visible_tags(user)
    if part:
        tags = tags.filter(key__contains=tag_key(part))
    found = list(tags.order_by("key")[: MOST + 1])
    shown = found[:MOST]
    if part:
        return [Branch(tag, 0, numbers.get(tag.pk, 0)) for tag in shown], len(found) > MOST
    known = {tag.pk for tag in shown}
    under: dict[int | None, list[Tag]] = {}
    for tag in shown:
        under.setdefault(tag.parent_id if tag.parent_id in known else None, []).append(tag)
    branches: list[Branch] = []
    waiting = [(tag, 0) for tag in reversed(under.get(None, []))]
    while waiting:
        tag, depth = waiting.pop()
        branches.append(Branch(tag, depth, numbers.get(tag.pk, 0)))
        waiting += [(child, depth + 1) for child in reversed(under.get(tag.pk, []))]
    return branches, len(found) > MOST
