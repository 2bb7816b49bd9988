"""Tags as a person sees them: counted through their images, each under its parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.db.models import Q, QuerySet

from search.errors import runs_the_server
from search.facets import get_facets, seen_by
from search.models import Image, ImageTag, Tag, tag_key

PAGE = 400
MOST = 20_000
"""So many tags make a tree; more are found by a part of their name."""
MOST_TOLD = 20_000
"""So many tags are named to the database by their ids; which of more a person may know of it finds out itself."""


@dataclass(frozen=True)
class Branch:
    """A tag in the tree: how deep it stands, and how many images this person sees with it."""

    tag: Tag
    depth: int
    count: int

    @property
    def steps(self) -> range:
        return range(min(self.depth, 8))


@dataclass(frozen=True)
class Tree:
    """A page of the tree."""

    branches: list[Branch]
    after: int | None
    """The tag after which the next page begins; None when there is none."""
    later: bool
    """Whether this is not the first page."""
    cut: bool
    """Whether there are more tags than MOST."""


def with_those_under(name: str) -> list[int]:
    """The ids of the tag of this name and of all that stand under it: a query for each level."""
    found = list(Tag.objects.filter(key=tag_key(name)).values_list("pk", flat=True))
    level, known = found, set(found)
    while level:
        level = [pk for pk in Tag.objects.filter(parent__in=level).values_list("pk", flat=True) if pk not in known]
        found = [*found, *level]
        known.update(level)
    return found


def counts(user: Any) -> dict[int, int]:
    """How many listed images this person sees with each tag."""
    facets, visible = seen_by(user)
    return facets.tags(visible)


def visible_tags(user: Any) -> QuerySet[Tag]:
    """The tags that this person may know of: on images they see, or made by them; staff: all."""
    if runs_the_server(user):
        return Tag.objects.all()
    facets = get_facets()
    known = list(facets.tags(facets.library.visible(user, listed=False)))
    if len(known) > MOST_TOLD:
        links = ImageTag.objects.filter(image__in=Image.objects.visible_to(user).order_by().values("pk"))
        return Tag.objects.filter(Q(pk__in=links.values("tag")) | Q(made_by=user.pk))
    return Tag.objects.filter(Q(pk__in=known) | Q(made_by=user.pk))


def touchable(tags: list[int], user: Any) -> set[int]:
    """Those of these tags that this person may rename, merge or delete on some image, or made and nobody uses."""
    if runs_the_server(user):
        return set(tags)
    facets = get_facets()
    mine = facets.tags(facets.library.visible(user, to_edit=True, listed=False))
    used = facets.tags(facets.library.visible(None, listed=False))
    made = Tag.objects.filter(pk__in=tags, made_by=user.pk).order_by().values_list("pk", flat=True)
    return {pk for pk in tags if pk in mine} | {pk for pk in made if pk not in used}


def changeable(tag: Tag, user: Any) -> bool:
    """Whether this person may change the tag itself, as far as a page says so (`row_steps.may_change_tag` decides)."""
    if runs_the_server(user):
        return True
    facets = get_facets()
    carrying = facets.tags(facets.library.visible(None, listed=False)).get(tag.pk, 0)
    mine = facets.tags(facets.library.visible(user, to_edit=True, listed=False)).get(tag.pk, 0)
    return mine == carrying if carrying else tag.made_by_id == user.pk


def named(user: Any, start: str, most: int) -> list[str]:
    """The first tags whose key begins so, of those on images that this person may see."""
    facets = get_facets()
    known = facets.tags(facets.library.visible(user, listed=False))
    rows = Tag.objects.filter(key__startswith=start).order_by("key").values_list("pk", "name")
    return list(islice((name for pk, name in rows.iterator(chunk_size=500) if pk in known), most))


def tree(user: Any, part: str = "", *, after: int | None = None) -> Tree:
    """A page of the tags that this person may know of, each before those under it.

    `part`: only tags whose name contains this, flat. `after`: what follows this tag. A parent that the person may not
    know of is left out, and what stands under it stands at the top. The same few queries for any number.
    """
    numbers = counts(user)
    tags = visible_tags(user)
    if part:
        tags = tags.filter(key__contains=tag_key(part))
    rows = list(tags.order_by("key").values_list("pk", "parent_id")[: MOST + 1])
    places = [(pk, 0) for pk, _ in rows[:MOST]] if part else _under_parents(rows[:MOST])
    start = next((n + 1 for n, (pk, _) in enumerate(places) if pk == after), 0)
    shown = places[start : start + PAGE]
    found = Tag.objects.in_bulk([pk for pk, _ in shown])
    branches = [Branch(found[pk], depth, numbers.get(pk, 0)) for pk, depth in shown if pk in found]
    return Tree(branches, shown[-1][0] if len(places) > start + PAGE else None, start > 0, len(rows) > MOST)


def _under_parents(rows: Sequence[tuple[int, int | None]]) -> list[tuple[int, int]]:
    """(id, depth) of tags in the order of the tree, from (id, id of the parent) in the order among equals."""
    known = {pk for pk, _ in rows}
    under: dict[int | None, list[int]] = {}
    for pk, parent in rows:
        under.setdefault(parent if parent in known else None, []).append(pk)
    places: list[tuple[int, int]] = []
    waiting = [(pk, 0) for pk in reversed(under.get(None, []))]
    while waiting:
        pk, depth = waiting.pop()
        places.append((pk, depth))
        waiting += [(child, depth + 1) for child in reversed(under.get(pk, []))]
    return places
