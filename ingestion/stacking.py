"""Which files of a folder are one picture: a raw file and its JPEG or HEIC, an edited picture and its original.

Found by the files' names alone, folder by folder, so that any sequence of arrivals, moves and deletions ends where a
first crawl of what is there now would. What a person stacked or took apart is left as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from django.db import transaction

from ingestion.known import chunks
from search import changes
from search.formats import EXTENSIONS, extension_of
from search.models import Change, Image, Source, path_digest

_RAW = frozenset(EXTENSIONS["RAW"])
CAMERA = frozenset(EXTENSIONS["JPEG"] + EXTENSIONS["HEIF"])
_APPLE_EDIT = re.compile(r"(img_)e(\d{4,})", re.IGNORECASE)
_EDIT = re.compile(r"(.+?)[-_ ](?:edited|bearbeitet|edit)", re.IGNORECASE)
_FOLDERS = 64

_PERSON, _FILE, _NOBODY = Image.Origin.PERSON.value, Image.Origin.FILE.value, Image.Origin.NONE.value


class File(NamedTuple):
    id: int
    name: str


def stacks_of(files: Iterable[File]) -> dict[int, int]:
    """{id: id of its cover} of the files of one folder that lie beneath another one.

    Files belong together that have the same name but for the extension and the mark of an edited one (`IMG_E1234`,
    `IMG_1234-edited`), whatever the case, when there is a raw file and a JPEG or HEIC, or an edited one and its
    original. The cover is an edited one before a JPEG or HEIC before a raw file, of several the first by name.
    """
    together: dict[str, list[tuple[int, str, File]]] = {}
    for file in files:
        extension = extension_of(file.name)
        if extension not in _RAW and extension not in CAMERA:
            continue
        stem, rank = os.path.splitext(file.name)[0], 2
        if extension in CAMERA:
            stem, edited = original_stem(file.name)
            rank = 0 if edited else 1
        together.setdefault(stem.casefold(), []).append((rank, file.name, file))
    found: dict[int, int] = {}
    for several in together.values():
        if len({rank for rank, _, _ in several}) < 2:
            continue
        several.sort()
        cover = several[0][2].id
        found.update((file.id, cover) for _, _, file in several[1:])
    return found


def original_stem(name: str) -> tuple[str, bool]:
    """The name without its extension and the mark of an edited picture; and whether it had one."""
    stem = os.path.splitext(name)[0]
    if edit := _APPLE_EDIT.fullmatch(stem):
        return f"{edit[1]}{edit[2]}", True
    if edit := _EDIT.fullmatch(stem):
        return edit[1], True
    return stem, False


class Touched:
    """Folders of a source whose stacks have to be looked at again: 16 bytes each."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.directories: set[bytes] = set()

    def by_path(self, paths: Iterable[bytes]) -> None:
        """The folders of these files (relative)."""
        self.directories.update(path_digest(folder) for folder in {os.path.dirname(path) for path in paths})

    def by_image(self, ids: Sequence[int]) -> None:
        """The folders of these images."""
        for some in chunks(ids, 500):
            rows = Image.objects.filter(pk__in=some).order_by().values_list("directory", flat=True).distinct()
            self.directories.update(bytes(one) for one in rows)


def restack(source: Source, directories: Collection[bytes]) -> int:
    """Bring the stacks of these folders up to date; returns how many images changed. One short transaction for each
    few folders, and none where nothing changed."""
    changed = 0
    for some in chunks(sorted(directories), _FOLDERS):
        if _wanted(source, some, lock=False):
            with transaction.atomic():
                wanted = _wanted(source, some, lock=True)
                for (cover, origin), ids in _grouped(wanted).items():
                    for part in chunks(ids, 5_000):
                        Image.objects.filter(pk__in=part).update(stack_of_id=cover, stack_origin=origin)
                if wanted:
                    changes.record(Change.Kind.IMAGES, sorted(wanted))
                    changed += len(wanted)
    return changed


Place = tuple[int | None, str]
"""An image's cover (None: none) and who said so."""


def _wanted(source: Source, directories: Sequence[bytes], *, lock: bool) -> dict[int, Place]:
    """{image: its place} of those that do not stand as they should."""
    rows = Image.objects.filter(source=source, directory__in=directories).exclude(stack_origin=_PERSON).order_by("pk")
    if lock:
        rows = rows.select_for_update(of=("self",))
    folders: dict[bytes, list[File]] = {}
    now: dict[int, Place] = {}
    for pk, directory, name, state, cover, origin in rows.values_list(
        "pk", "directory", "name", "state", "stack_of_id", "stack_origin"
    ):
        now[pk] = (cover, origin)
        if state != Image.State.MISSING:
            folders.setdefault(bytes(directory), []).append(File(pk, name))
    cover_of = {pk: cover for files in folders.values() for pk, cover in stacks_of(files).items()}
    wanted = {pk: (cover_of[pk], _FILE) if pk in cover_of else (None, _NOBODY) for pk in now}
    return {pk: place for pk, place in wanted.items() if now[pk] != place}


def _grouped(wanted: dict[int, Place]) -> dict[Place, list[int]]:
    places: dict[Place, list[int]] = {}
    for pk, place in sorted(wanted.items()):
        places.setdefault(place, []).append(pk)
    return places
