"""What the filter form offers, counted only through the listed images that the person may see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from search.facets import seen_by
from search.filters import Choice

_MOST = 100
"""Longest list a form shows; what is not in it can still be typed."""


def sources(user: Any) -> list[Choice]:
    """Every source with listed images, by name."""
    from search.models import Source

    facets, visible = seen_by(user)
    counted = facets.library.by_source(visible)
    named = sorted(Source.objects.filter(pk__in=list(counted)).values_list("name", "pk"))
    return [Choice(name, name, counted[pk]) for name, pk in named]


def formats(user: Any) -> list[Choice]:
    """File formats, most frequent first."""
    return [Choice(value.lower(), value, count) for value, count in _counted("format", user)]


def ratings(user: Any) -> list[Choice]:
    """At least so many stars, most stars first; the count is of the images with at least as many."""
    facets, visible = seen_by(user)
    counted = facets.numbers("rating", visible)
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
    from search.models import Tag

    facets, visible = seen_by(user)
    counted = facets.tags(visible)
    wanted = sorted(counted, key=lambda pk: (-counted[pk], pk))[: _MOST * 10]  # of equals not always the first ones
    rows = Tag.objects.filter(pk__in=wanted).order_by("key").values_list("pk", "name")
    found = sorted(rows, key=lambda row: -counted[row[0]])
    return [Choice(name, name, counted[pk]) for pk, name in found[:_MOST]]


def albums(user: Any) -> list[Choice]:
    """One's own albums and those shared with one, by name, with the images that are listed."""
    from search.models import Album

    facets, visible = seen_by(user)
    counted = facets.albums(visible)
    numbers: dict[str, int] = {}
    for pk, name in Album.objects.visible_to(user).order_by("name", "pk").values_list("pk", "name"):
        numbers[name] = numbers.get(name, 0) + counted.get(pk, (0, 0))[0]
    return [Choice(name, name, count) for name, count in numbers.items()][:_MOST]


def cameras(user: Any) -> list[Choice]:
    """Cameras, most frequent first."""
    return [Choice(value, value, count) for value, count in _counted("camera", user)]


def lenses(user: Any) -> list[Choice]:
    """Lenses, most frequent first."""
    return [Choice(value, value, count) for value, count in _counted("lens", user)]


def years(user: Any) -> list[Choice]:
    """The years of the pictures, newest first."""
    facets, visible = seen_by(user)
    found = sorted(facets.numbers("year", visible).items(), reverse=True)
    return [Choice(f"{year:04}", str(year), count) for year, count in found[:_MOST]]


def review_queues(user: Any) -> list[Choice]:
    """The review queues, without counts: their own page has them."""
    from search.review import LABELS

    return [Choice(name, label) for name, (label, _) in LABELS.items()]


def nothing_counted(values: tuple[str, ...]) -> Callable[[Any], list[Choice]]:
    """Choices of fixed words, without counts."""
    return lambda user: [Choice(value, value) for value in values]


def _counted(column: str, user: Any) -> list[tuple[str, int]]:
    facets, visible = seen_by(user)
    return sorted(facets.texts(column, visible).items(), key=lambda item: (-item[1], item[0]))[:_MOST]
