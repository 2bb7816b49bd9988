"""Live photos: a picture whose short film lies beside it, in the same folder."""

from __future__ import annotations

import os

from django.conf import settings

from search.formats import extension_of
from search.models import Image, Movie
from search.querysets import ImageQuerySet

CONTENT_TYPES = {"mov": "video/quicktime", "mp4": "video/mp4", "m4v": "video/mp4", "mp": "video/mp4"}
"""What the film of a live photo may be named, and what it is sent as; the first one is preferred."""
KINDS = ("QuickTime video", "MP4 video")
"""What `formats.describe` says of such a film."""


def movie_of(image: Image) -> Movie | None:
    """The film of a live photo; None for other pictures, and while stacks are turned off.

    No query for images that were asked for with `select_related("movie")`.
    """
    return getattr(image, "movie", None) if settings.IMAGESEARCH_STACKS else None


def only_live(images: ImageQuerySet) -> ImageQuerySet:
    """Those of `images` that are live photos; none while stacks are turned off."""
    return images.filter(pk__in=Movie.objects.values("image")) if settings.IMAGESEARCH_STACKS else images.none()


def content_type(movie: Movie) -> str:
    """What the film is sent as."""
    return CONTENT_TYPES.get(extension_of(movie.name_text), "video/mp4")


def path_of(movie: Movie) -> str:
    """Where the film lies on this machine, for `os` functions. Its image comes with its source."""
    return os.path.join(os.path.dirname(movie.image.absolute_path), os.fsdecode(os.path.basename(bytes(movie.name))))
