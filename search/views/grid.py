"""The justified grid: what a tile shows and links to, and how wide it is.

The policy allows no inline styles, so a tile's width is said as a class that carries its aspect ratio
(`static/css/ratios.css`, in steps of 3 percent). Tiles grow in proportion to it, so that every row has one
height and fills the width without a script and without moving when pictures arrive.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.urls import get_script_prefix, reverse
from django.utils import timezone

from search.models import Image
from search.views.files import sent_as_it_is

CHANCE = 10
"""Per cent; below it a match says no more than chance (docs/matches.md)."""
NARROWEST = 0.4
WIDEST = 4.0
STEP = 1.03
_SOME_NUMBER = 1_234_567_890
STEPS = round(math.log(WIDEST / NARROWEST) / math.log(STEP))


def ratio_class(width: int | None, height: int | None) -> str:
    """The class of a picture of this size in pixels; of 3:2 while the size is not known."""
    ratio = width / height if width and height else 1.5
    step = round(math.log(min(max(ratio, NARROWEST), WIDEST) / NARROWEST) / math.log(STEP))
    return f"ratio-{min(step, STEPS)}"


def stylesheet() -> str:
    """The text of `static/css/ratios.css`."""
    lines = ["/* Made by search/views/grid.py: stylesheet(). One class for each aspect ratio, 3 percent apart. */"]
    lines += [f".ratio-{step} {{ --ratio: {NARROWEST * STEP**step:.4f}; }}" for step in range(STEPS + 1)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Tile:
    """One picture of a grid, ready to draw."""

    image: Image
    href: str
    score: str = ""
    """ "87 %", "by name", or "" where nothing was ranked."""
    detail: str = ""
    """What the score is made from: "cosine 0.312"."""
    place: int = 0
    """Its number in an album, from 1; 0 elsewhere."""
    month: datetime | None = None
    """Set on the first picture of a month, where the grid has month headings."""

    @property
    def name(self) -> str:
        return self.image.title or self.image.name

    @property
    def title(self) -> str:
        """What is said of the tile under the pointer."""
        return f"{self.score} match, {self.detail}" if self.score and self.detail else self.detail

    @property
    def stack(self) -> str:
        """What lies in the stack whose cover this is: "RAW+JPEG", "3 files"; "" for a picture by itself."""
        beneath = getattr(self.image, "stacked", 0)
        if not beneath:
            return ""
        if beneath == 1 and getattr(self.image, "stacked_raw", False):
            return f"RAW+{self.image.format or 'picture'}"
        return f"{beneath + 1} files"

    @property
    def live(self) -> bool:
        """Whether it is a live photo, with a film of its own."""
        return bool(getattr(self.image, "live", False))

    @property
    def ratio(self) -> str:
        return ratio_class(self.image.width, self.image.height)

    @property
    def thumbnail(self) -> str:
        return thumbnail_url(self.image)

    @property
    def whole(self) -> bool:
        """Whether browsers get the file itself when they ask for the picture at full size."""
        return sent_as_it_is(self.image, self.image.size)

    @property
    def waiting(self) -> bool:
        return self.image.sha256 is None

    @property
    def like_href(self) -> str:
        return f"{_around('search', get_script_prefix())[0]}?like={self.image.pk}"


@functools.cache
def _around(view: str, prefix: str, *number: int) -> tuple[str, str]:
    """What stands before and after the number of an image in a view's address, or the whole of one without."""
    before, _, after = reverse(view, args=number).partition(str(*number) or "?")
    return before, after


def _address(view: str, image_id: int) -> str:
    """`reverse` of a view of one image: a page has hundreds."""
    before, after = _around(view, get_script_prefix(), _SOME_NUMBER)
    return f"{before}{image_id}{after}"


def thumbnail_url(image: Image) -> str:
    """Address of the thumbnail; it changes with the file's contents, so browsers may keep it for ever."""
    address = _address("thumbnail", image.pk)
    return f"{address}?v={image.sha256.hex()[:16]}" if image.sha256 else address


def picture_url(image: Image) -> str:
    """Address of the large view, versioned like the thumbnail."""
    address = _address("picture", image.pk)
    return f"{address}?v={image.sha256.hex()[:16]}" if image.sha256 else address


def score_text(match: float | None) -> str:
    """A match as people read it; hits without one were found by name or tag."""
    return "by name" if match is None else f"{match:.0f}\u00a0%"


def nearness_text(match: float | None, place: int) -> str:
    """What is said of a picture that is shown for its nearness alone: its match, or, where that is no more than
    chance brings, its place (from 0) among the nearest.
    """
    if match is None or match >= CHANCE:
        return score_text(match)
    return f"no.\u00a0{place + 1}" if place else "nearest"


def score_detail(score: float | None) -> str:
    """The cosine behind a match, for those who want to know."""
    return "" if score is None else f"cosine {score:.3f}"


def image_href(image_id: int, query: Sequence[tuple[str, Any]] = (), **more: Any) -> str:
    """Address of an image's page that carries the query it was found with."""
    carried = "&".join(filter(None, [_encoded(tuple(query)), urlencode(more)]))
    address = _address("image", image_id)
    return f"{address}?{carried}" if carried else address


@functools.lru_cache(maxsize=64)
def _encoded(query: tuple[tuple[str, Any], ...]) -> str:
    return urlencode(query)


def by_month(
    images: Iterable[Image], *, query: Sequence[tuple[str, Any]] = (), last: datetime | None = None
) -> list[Tile]:
    """Tiles of images that come newest first; the first of each month names it. `last`: the picture before them."""
    tiles = []
    before = _month(last) if last else None
    for image in images:
        month = _month(image.shown_at)
        tiles.append(Tile(image, image_href(image.pk, query), month=image.shown_at if month != before else None))
        before = month
    return tiles


def _month(moment: datetime) -> tuple[int, int]:
    local = timezone.localtime(moment)
    return local.year, local.month
