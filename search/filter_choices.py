"""What the filter form offers, counted only through the listed images that the person may see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Count, Max, Min

from search.filters import Choice, Term, filtered, narrow

_MOST = 100
"""Longest list a form shows; what is not in it can still be typed."""


def sources(user: Any) -> list[Choice]:
    """Every source with listed images, by name."""
    counted = filtered([], user).order_by().values_list("source__name").annotate(Count("pk"))
    return [Choice(name, name, count) for name, count in sorted(counted)]


def formats(user: Any) -> list[Choice]:
    """File formats, most frequent first."""
    return [Choice(value.lower(), value, count) for value, count in _counted("format", user)]


def ratings(user: Any) -> list[Choice]:
    """At least so many stars, most stars first; the count is of the images with at least as many."""
    counted = dict(filtered([], user).order_by().values_list("rating").annotate(Count("pk")))
    return [
        Choice(
            f">={stars}" if stars < 5 else "5",
            "★" * stars + (" or more" if stars < 5 else ""),
            sum(counted.get(n, 0) for n in range(stars, 6)),
        )
        for stars in range(5, 0, -1)
    ]


def tags(user: Any) -> list[Choice]:
    """Tags, most frequent first."""
    from search.models import ImageTag

    links = ImageTag.objects.filter(image__in=filtered([], user).order_by().values("pk"))
    counted = links.order_by().values_list("tag__name").annotate(count=Count("pk")).order_by("-count", "tag__key")
    return [Choice(name, name, count) for name, count in counted[:_MOST]]


def albums(user: Any) -> list[Choice]:
    """One's own albums and those shared with one, by name, with the images that are listed."""
    from search.models import Album, AlbumEntry

    entries = AlbumEntry.objects.filter(image__in=filtered([], user).order_by().values("pk")).order_by()
    counted = dict(entries.values_list("album").annotate(count=Count("pk")))
    numbers: dict[str, int] = {}
    for pk, name in Album.objects.visible_to(user).order_by("name", "pk").values_list("pk", "name"):
        numbers[name] = numbers.get(name, 0) + counted.get(pk, 0)
    return [Choice(name, name, count) for name, count in numbers.items()][:_MOST]


def cameras(user: Any) -> list[Choice]:
    """Cameras, most frequent first."""
    return [Choice(value, value, count) for value, count in _counted("camera", user)]


def lenses(user: Any) -> list[Choice]:
    """Lenses, most frequent first."""
    return [Choice(value, value, count) for value, count in _counted("lens", user)]


def years(user: Any) -> list[Choice]:
    """The years of the pictures, newest first."""
    images = filtered([], user).order_by()
    ends = images.aggregate(first=Min("shown_at"), last=Max("shown_at"))
    if ends["first"] is None:
        return []
    found = []
    # A day more at each end: the wall clock of a picture may stand in another year than its instant.
    for year in range(min(ends["last"].year + 1, 9000), max(ends["first"].year - 2, 999), -1):
        count = narrow(images, [Term("date", f"{year:04}")], user).count()
        if count:
            found.append(Choice(f"{year:04}", str(year), count))
        if len(found) == _MOST:
            break
    return found


def review_queues(user: Any) -> list[Choice]:
    """The review queues, without counts: their own page has them."""
    from search.review import LABELS

    return [Choice(name, label) for name, (label, _) in LABELS.items()]


def nothing_counted(values: tuple[str, ...]) -> Callable[[Any], list[Choice]]:
    """Choices of fixed words, without counts."""
    return lambda user: [Choice(value, value) for value in values]


def _counted(column: str, user: Any) -> list[tuple[str, int]]:
    images = filtered([], user).exclude(**{column: ""}).order_by()
    return list(images.values_list(column).annotate(count=Count("pk")).order_by("-count", column)[:_MOST])
