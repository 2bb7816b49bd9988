"""Querysets of the catalogue: who may see what, and what a grid needs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThan

if TYPE_CHECKING:
    from search.models import Image


class ImageQuerySet(models.QuerySet["Image"]):
    few: list[int] | None = None
    """The ids that `one_of` was given."""
    links: models.QuerySet[Any] | None = None
    """The rows that say all by themselves which images these are (see `having`)."""

    def _clone(self) -> ImageQuerySet:
        made: ImageQuerySet = super()._clone()  # type: ignore[misc]
        made.few = self.few
        return made

    def one_of(self, ids: list[int]) -> ImageQuerySet:
        """The image of the outer query, which is one of these few ids: for Exists, which asks whether it is here.

        So a database looks at each of the few and at no index of many, whatever is asked of them; nor at other images'
        tags, albums and comments (see `having`).
        """
        found = self.filter(pk=OuterRef("pk"))
        found.few = ids
        return found

    def having(self, links: models.QuerySet[Any], *, mostly: bool = False) -> ImageQuerySet:
        """Those of which a row of `links` speaks: of a model with an `image`. `mostly`: that may be most of them."""
        if self.few is not None:
            return self.filter(pk__in=links.filter(image__in=self.few).order_by().values("image"))
        if mostly:
            found = self.filter(Exists(links.filter(image=OuterRef("pk"))))
        else:
            found = self.filter(pk__in=links.order_by().values("image"))
        found.links = None if self.query.where else links
        return found

    def visible_to(self, user: Any) -> ImageQuerySet:
        """The images this person may see: the one gate of every page and command.

        `None` stands for the command line without `--user`: every image. Staff see every source;
        an anonymous or inactive user sees nothing. Says nothing of hidden or removed images:
        see `listed()`.
        """
        if user is None:
            return self
        if not user.is_active:
            return self.none()
        if user.is_staff:
            return self
        from search.access import readable_sources

        return self.filter(source__in=readable_sources(user))

    def editable_by(self, user: Any, *, lead: bool = True) -> ImageQuerySet:
        """The images whose curation this person may change (owner or editor of the source, or staff).

        `lead=False`: what is asked for has an index of its own, from which the sources shall not lead the database
        away (SQLite takes an equality for the better guess, and would look through every image of a source).
        """
        if user is None:
            return self
        if not user.is_active:
            return self.none()
        if user.is_staff:
            return self
        from search.access import editable_sources

        if not lead:
            return self.alias(of_source=F("source_id") + 0).filter(of_source__in=editable_sources(user).values("pk"))
        return self.filter(source__in=editable_sources(user))

    def listed(self) -> ImageQuerySet:
        """What grids show: not hidden, not removed, not missing, not known to be unreadable."""
        # Said as what is left out: an index on the state would find nearly every row, and then sort them all.
        return self.filter(hidden=False).exclude(state__in=["unreadable", "missing", "removed"])

    def with_tag(self, name: str) -> ImageQuerySet:
        from search.models import tag_key

        return self.filter(tag_links__tag__key=tag_key(name))

    def rated(self, at_least: int) -> ImageQuerySet:
        return self.filter(rating__gte=at_least)

    def for_grid(self) -> ImageQuerySet:
        """Only the columns that a grid shows, with the source; one query whatever the number of rows."""
        return self.for_tiles().select_related("source").only(*_OF_TILES, "source__name", "source__root")

    def for_tiles(self) -> ImageQuerySet:
        """`for_grid` without the source, which tiles do not show.

        Covers of stacks know how many lie beneath them (`stacked`), and whether a raw file does (`stacked_raw`); live
        photos know that they are (`live`).
        """
        rows: Any = self
        if settings.IMAGESEARCH_STACKS:
            rows = rows.annotate(**_of_stacks())
        return rows.only(*_OF_TILES)

    def in_order_of(self, ids: Sequence[int] | Iterable[int]) -> list[Image]:
        """The rows with these ids, in this order; ids that are gone are left out."""
        wanted = [int(i) for i in ids]
        rows = self.filter(pk__in=wanted).in_bulk() if wanted else {}
        return [rows[i] for i in wanted if i in rows]

    def newest_first(self) -> ImageQuerySet:
        return self.order_by("-shown_at", "-id")

    def after(self, *, shown_at: Any, id: int) -> ImageQuerySet:
        """Keyset pagination under `newest_first`: the rows after this one."""
        # The first part is where an index is entered: SQLite walks to an OR from its end.
        return self.filter(Q(shown_at__lte=shown_at), Q(shown_at__lt=shown_at) | Q(id__lt=id))


_OF_TILES = (
    "id", "source", "path", "name", "state", "sha256", "width", "height", "shown_at", "title", "rating", "hidden",
    "format", "size", "mtime_ns",
)  # fmt: skip


@functools.cache
def _of_stacks() -> dict[str, Any]:
    """What `for_grid` asks of stacks and live photos. Put together once: a query copies what it is annotated with."""
    from search.models import Image, Movie

    beneath = Image.objects.filter(stack_of=OuterRef("pk")).order_by()
    number = beneath.filter(hidden=False, state__in=["waiting", "ready"]).values("stack_of").annotate(n=Count("pk"))
    return {
        "stacked": Coalesce(Subquery(number.values("n")), 0),
        "stacked_raw": _any(beneath.filter(format="RAW"), "stack_of"),
        "live": _any(Movie.objects.filter(image=OuterRef("pk")).order_by(), "image"),
    }


def _any(rows: Any, of: str) -> Any:
    """Whether there is one. Counted, where EXISTS would say the same: for that PostgreSQL reads all such rows at once
    (every raw file, every film) when the outer query could give many, whatever the LIMIT of a page."""
    return GreaterThan(Coalesce(Subquery(rows.values(of).annotate(n=Count("pk")).values("n")), 0), 0)


__all__ = ["ImageQuerySet"]
