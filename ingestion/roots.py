"""From a path that a person names to the source that holds it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction

from ingestion import excludes, tally
from ingestion.crawler import readable
from ingestion.errors import BadSource, SourceGone
from search.models import Source, SourceAccess
from search.wording import agreeing


def source_for(
    path: str | bytes | os.PathLike[str],
    *,
    name: str | None = None,
    owner: Any = None,
    globs: Iterable[str] = (),
    follow_symlinks: bool = False,
) -> tuple[Source, bytes]:
    """The source that holds this folder, made on first use, and the folder's path relative to its root.

    `~` is expanded, links are resolved. A new source belongs to `owner`, else to the first owner there is,
    else to nobody until there is one. For a known source, `owner` becomes an owner too, `globs` are added,
    and `follow_symlinks` is turned on. Raises BadSource, SourceGone, BadPattern.
    """
    globs = list(globs)
    excludes.Rules(map(excludes.literal, globs))
    given = os.path.expanduser(os.fsencode(path))
    if not given:
        raise BadSource("The path is empty: name a folder of pictures, such as ~/Pictures.")
    real = os.path.realpath(given)
    source = _holder_of(real)
    if source is None:
        _require_folder(real, given, None)
        _refuse_own(real)
        with transaction.atomic():
            tally.hold()  # one source is made at a time, so that two commands neither make it twice nor nest theirs
            source = _holder_of(real)
            if source is None:
                _refuse_nesting(real)
                return _make(real, name=name, owner=owner, globs=globs, follow_symlinks=follow_symlinks), b""
    _require_folder(real, given, source)
    _adjust(source, name=name, owner=owner, globs=globs, follow_symlinks=follow_symlinks)
    return source, real[len(_slashed(bytes(source.root))) :]


def _holder_of(real: bytes) -> Source | None:
    """The source whose folder this is, or lies in."""
    for source in Source.objects.all():
        if _slashed(real).startswith(_slashed(bytes(source.root))):
            return source
    return None


def _refuse_nesting(real: bytes) -> None:
    inside = [source for source in Source.objects.all() if bytes(source.root).startswith(_slashed(real))]
    if inside:
        listed = ", ".join(f"{source.name} ({source.root_text})" for source in inside)
        raise BadSource(
            f"{readable(real)} contains what is a source already: {listed}. Sources do not nest: name "
            f"{agreeing(len(inside), 'that folder', 'one of those folders')}, or another one."
        )


def own_folders() -> frozenset[tuple[int, int]]:
    """(device, inode) of the program's own folders: never walked, wherever they lie."""
    found = set()
    for folder in _own_paths():
        try:
            status = os.stat(folder)
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def _own_paths() -> list[Path]:
    return [
        Path(settings.IMAGESEARCH_DATA), Path(settings.IMAGESEARCH_SPACES), Path(settings.IMAGESEARCH_THUMBNAILS),
        Path(settings.IMAGESEARCH_MODELS), Path(settings.IMAGESEARCH_LOGS), Path(settings.IMAGESEARCH_UPLOADS),
    ]  # fmt: skip


def _refuse_own(real: bytes) -> None:
    """The data folder itself and all that lies in its parts are no source; a folder of photos beside them may be."""
    for folder in _own_paths():
        own = os.path.realpath(os.fsencode(folder))
        whole = own == os.path.realpath(os.fsencode(settings.IMAGESEARCH_DATA))
        if real == own or (not whole and real.startswith(_slashed(own))):
            raise BadSource(f"{readable(real)} is a folder of the program's own data; name a folder of pictures.")


def _require_folder(real: bytes, given: bytes, source: Source | None) -> None:
    try:
        if not stat.S_ISDIR(os.stat(real).st_mode):
            raise BadSource(f"{readable(given)} is a file; name the folder that holds it.")
    except (FileNotFoundError, NotADirectoryError):
        if source is not None and not os.path.isdir(source.root):
            raise SourceGone(gone_sentence(source)) from None
        hint = f" To record what went away, crawl the whole source {source.name}." if source is not None else ""
        raise BadSource(f"There is no folder {readable(given)}.{hint}") from None
    except OSError as error:
        raise BadSource(f"The folder {readable(given)} cannot be reached ({error.strerror}).") from None


def gone_sentence(source: Source) -> str:
    return (
        f"The folder {readable(bytes(source.root))} of the source {source.name} is not there: perhaps its disk is not "
        "mounted. Nothing was changed; crawl again when it is back."
    )


def _make(real: bytes, *, name: str | None, owner: Any, globs: list[str], follow_symlinks: bool) -> Source:
    wish = name or readable(os.path.basename(real) or real)
    with transaction.atomic():
        if name and Source.objects.filter(name=name).exists():
            raise BadSource(f"There is a source named {name} already; choose another name for {readable(real)}.")
        source = Source.objects.create(
            name=_free_name(wish[:190]), root=real, excludes="\n".join(map(excludes.literal, globs)),
            follow_symlinks=follow_symlinks,
        )  # fmt: skip
        owner = owner or _first_owner()
        if owner is not None:
            _own(source, owner)
        return source


def _adjust(source: Source, *, name: str | None, owner: Any, globs: list[str], follow_symlinks: bool) -> None:
    if name and name != source.name:
        raise BadSource(
            f"{source.root_text} is the source {source.name} already; it is renamed on its page, not by a crawl."
        )
    known = source.excludes.splitlines()
    added = [glob for glob in map(excludes.literal, globs) if glob not in known]
    if added or (follow_symlinks and not source.follow_symlinks):
        source.excludes = "\n".join([*known, *added])
        source.follow_symlinks = source.follow_symlinks or follow_symlinks
        source.save(update_fields=["excludes", "follow_symlinks"])
    if owner is not None:
        with transaction.atomic():
            _own(source, owner)


def _own(source: Source, user: Any) -> None:
    access, made = SourceAccess.objects.get_or_create(
        source=source, user=user, defaults={"role": SourceAccess.Role.OWNER}
    )
    if not made and access.role != SourceAccess.Role.OWNER:
        access.role = SourceAccess.Role.OWNER
        access.save(update_fields=["role"])


def _first_owner() -> Any:
    return get_user_model().objects.filter(is_superuser=True, is_active=True).order_by("pk").first()


def _free_name(wish: str) -> str:
    names = set(Source.objects.filter(name__startswith=wish).values_list("name", flat=True))
    if wish not in names:
        return wish
    return next(name for n in range(2, len(names) + 3) if (name := f"{wish} ({n})") not in names)


def _slashed(path: bytes) -> bytes:
    return path if path.endswith(b"/") else path + b"/"
