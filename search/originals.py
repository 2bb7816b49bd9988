"""The files as they lie on disk: opened for reading only, and never out of their source."""

from __future__ import annotations

import os
import re
import stat
from typing import BinaryIO

from search import live
from search.formats import HEAD_BYTES, describe
from search.models import Image, Movie


def open_original(image: Image) -> BinaryIO:
    """Open the file for reading.

    Raises OSError when it is gone, is no plain file (a pipe would hang) or lies outside its source by way of a
    symbolic link where the source does not follow them.
    """
    return _open(image, image.absolute_path)


def open_movie(movie: Movie) -> BinaryIO:
    """Open the film of a live photo for reading. Raises OSError as `open_original`, and when it is no film any more."""
    path = live.path_of(movie)
    file = _open(movie.image, path)
    if describe(file.read(HEAD_BYTES), os.path.basename(os.fsencode(path))) not in live.KINDS:
        file.close()
        raise IsADirectoryError(f"{path!r} is no film")
    file.seek(0)
    return file


def _open(image: Image, path: str) -> BinaryIO:
    require_within(image, path)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise IsADirectoryError(f"{path!r} is no plain file")
    return os.fdopen(handle, "rb")


def require_within(image: Image, path: str) -> None:
    """Raises PermissionError for a path that links lead out of the image's source, which does not follow them."""
    if not image.source.follow_symlinks:
        root = os.path.realpath(image.source.root_path)
        if os.path.commonpath([root, os.path.realpath(path)]) != root:
            raise PermissionError(f"{path!r} leads out of its source")


def safe_name(name: str) -> str:
    """A file name that a header or an archive can carry: no control characters, no slashes, never empty."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f/\\\u2028\u2029]", "_", name).strip(". ")[:200] or "picture"
