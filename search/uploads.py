"""Pictures that people search with: private to whoever gave them, kept small and without metadata, gone in time.

Only a re-encoded copy is kept, as `<IMAGESEARCH_UPLOADS>/<token>.jpg`, readable by the program alone; what was
sent is never written to disk. The token is random and stands in the address of the results page, which is of
use to its owner only.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import PIL.Image
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from search.decoding import read_pixels
from search.errors import BadQuery, NotAllowed, TooLarge, Unreadable
from search.models import Upload
from search.text import clean

SIDE = 1024
"""Longest side of the picture that is kept, in pixels."""
MAX_BYTES = 100_000_000
KEPT_FOR_EACH = 50
"""How many live pictures one person has at most; the oldest give way."""
_QUALITY = 95
_STRAY_SECONDS = 3_600
_GONE = "The picture you searched with is no longer here: it was kept for a limited time. Choose or drop it again."


def keep(file: IO[bytes], user: Any) -> Upload:
    """Check and keep a picture to search with; `file` is any binary file, such as Django's UploadedFile.

    Raises Unreadable (TooLarge, TooSmall, TooSlow) when it is not a picture that can be read, NotAllowed for
    someone who is not signed in, OSError when the disk does not take it.
    """
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        raise NotAllowed("Sign in to search with a picture of your own.")
    name = clean(os.path.basename(str(getattr(file, "name", "") or "")))
    picture = reduced(read(file))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_QUALITY, subsampling=0)
    token = secrets.token_urlsafe(32)
    path = _path(token)
    _write(path, encoded.getvalue())
    try:
        with transaction.atomic():
            live = Upload.objects.filter(owner=user).order_by("-created_at", "-token").values_list("token", flat=True)
            _delete(list(live[KEPT_FOR_EACH - 1 :]))
            expires = timezone.now() + dt.timedelta(hours=settings.IMAGESEARCH_UPLOAD_HOURS)
            return Upload.objects.create(token=token, owner=user, name=name[:255], expires_at=expires)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def pixels(token: str, user: Any) -> PIL.Image.Image:
    """The kept picture (RGB, longest side at most 1,024) of its owner.

    Raises BadQuery with one and the same sentence when it has expired, was never there, or is somebody else's.
    """
    data = content(token, user)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise BadQuery(_GONE) from error


def content(token: str, user: Any) -> bytes:
    """The kept picture as JPEG, for showing it to its owner. Raises BadQuery as `pixels` does."""
    return _path(_live(token, user).token, error=BadQuery(_GONE)).read_bytes()


def expire() -> int:
    """Delete what has expired, and files that no row speaks of; returns how many pictures went."""
    with transaction.atomic():
        count = _delete(list(Upload.objects.filter(expires_at__lte=timezone.now()).values_list("token", flat=True)))
    return count + _delete_strays()


def read(file: IO[bytes]) -> PIL.Image.Image:
    """The pixels of a picture someone hands in (RGB, upright). Raises Unreadable and its kind with a sentence."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise TooLarge(f"The file has more than {MAX_BYTES / 1e6:.0f} MB. Search with a smaller copy of it.")
    if not data:
        raise Unreadable("The file is empty.")
    name = os.path.basename(str(getattr(file, "name", "") or ""))
    return read_pixels(data, min_side=SIDE, name=name, cautious=True).pixels


def reduced(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A copy with a longest side of at most 1,024 pixels and no metadata."""
    picture = picture.convert("RGB")
    picture.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
    picture.info = {}
    return picture


def _live(token: str, user: Any) -> Upload:
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        raise BadQuery(_GONE)
    found = Upload.objects.filter(token=token, owner=user, expires_at__gt=timezone.now()).first()
    if found is None:
        raise BadQuery(_GONE)
    return found


def _path(token: str, *, error: Exception | None = None) -> Path:
    path = Path(settings.IMAGESEARCH_UPLOADS) / f"{token}.jpg"
    if error is not None and not path.is_file():
        raise error
    return path


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, readable by the program's user alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(prefix="upload-", suffix=".part", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _delete(tokens: Iterable[str]) -> int:
    """Delete rows now and their files once that is committed."""
    tokens = list(tokens)
    for token in tokens:
        transaction.on_commit(_unlinker(_path(token)))
    for start in range(0, len(tokens), 5_000):
        Upload.objects.filter(token__in=tokens[start : start + 5_000]).delete()
    return len(tokens)


def _unlinker(path: Path) -> Callable[[], None]:
    return lambda: path.unlink(missing_ok=True)


def _delete_strays() -> int:
    """Files older than an hour without a row: their owner was deleted, or the program stopped half-way."""
    folder = Path(settings.IMAGESEARCH_UPLOADS)
    if not folder.is_dir():
        return 0
    limit = timezone.now().timestamp() - _STRAY_SECONDS
    known = set(Upload.objects.values_list("token", flat=True))
    count = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < limit:
                token, _, ending = entry.name.rpartition(".")
                if ending == "part" or (ending == "jpg" and token not in known):
                    os.unlink(entry.path)
                    count += 1
    return count
