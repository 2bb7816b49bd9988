"""Which film of a folder belongs to which picture: live photos, found by the files' names at the end of a crawl."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from ingestion.known import chunks
from ingestion.models import SeenFile
from ingestion.stacking import CAMERA, File, original_stem
from search import changes
from search.atomically import atomically
from search.formats import extension_of
from search.live import CONTENT_TYPES, KINDS
from search.models import Change, Image, Movie, Source

_FOLDERS = 64
_ORDER = {extension: place for place, extension in enumerate(CONTENT_TYPES)}


class Film(NamedTuple):
    name: str
    """As text, odd bytes shown as \\xNN."""
    raw: bytes
    size: int
    mtime_ns: int


def is_film(path: bytes) -> bool:
    """Whether the file is named like the film of a live photo."""
    return extension_of(os.path.basename(path).decode("utf-8", "backslashreplace")) in _ORDER


def films_of(files: Iterable[File], films: Iterable[Film]) -> dict[int, Film]:
    """{id: its film} of those pictures of one folder that have one.

    A JPEG or HEIC and a film belong together that have the same name but for the extension, whatever the case. An
    edited picture without a film of its own has its original's; `PXL_1.MP.jpg` also goes with `PXL_1.MP`. Of several
    films the one that is written alike comes first, then MOV, then MP4.
    """
    by_stem: dict[str, list[Film]] = {}
    for film in films:
        by_stem.setdefault(os.path.splitext(film.name)[0].casefold(), []).append(film)
    found: dict[int, Film] = {}
    for file in files if by_stem else ():
        if extension_of(file.name) not in CAMERA:
            continue
        for stem in _stems(file.name):
            if several := by_stem.get(stem.casefold()):
                found[file.id] = min(several, key=lambda film: _preference(film, stem))
                break
    return found


def _stems(name: str) -> Iterable[str]:
    for stem in (os.path.splitext(name)[0], original_stem(name)[0]):
        yield stem
        if stem.casefold().endswith(".mp"):
            yield stem[:-3]


def _preference(film: Film, stem: str) -> tuple[bool, int, str]:
    return os.path.splitext(film.name)[0] != stem, _ORDER[extension_of(film.name)], film.name


def match_films(source: Source, directories: Collection[bytes]) -> int:
    """Bring the films of the live photos in these folders up to date; returns how many images changed. One short
    transaction for each few folders, and none where nothing changed."""
    changed = 0
    for some in chunks(sorted(directories), _FOLDERS):
        if _wrong(source, some, lock=False):
            changed += _mend(source, some)
    return changed


@atomically
def _mend(source: Source, directories: Sequence[bytes]) -> int:
    wrong = _wrong(source, directories, lock=True)
    for ids in chunks(sorted(wrong), 500):
        Movie.objects.filter(pk__in=ids).delete()
        Movie.objects.bulk_create(
            Movie(image_id=pk, name=film.raw, size=film.size, mtime_ns=film.mtime_ns)
            for pk in ids
            if (film := wrong[pk]) is not None
        )
    if wrong:
        changes.record(Change.Kind.IMAGES, sorted(wrong))
    return len(wrong)


def _wrong(source: Source, directories: Sequence[bytes], *, lock: bool) -> dict[int, Film | None]:
    """{image: its film, or None for no film} of those that do not stand as they should."""
    films: dict[bytes, list[Film]] = {}
    seen = SeenFile.objects.filter(source=source, directory__in=directories, why="unsupported", kind__in=KINDS)
    for directory, path, size, mtime_ns in seen.values_list("directory", "path", "size", "mtime_ns"):
        if is_film(path := bytes(path)):
            raw = os.path.basename(path)
            film = Film(raw.decode("utf-8", "backslashreplace"), raw, size, mtime_ns)
            films.setdefault(bytes(directory), []).append(film)
    standing = Movie.objects.filter(image__source=source, image__directory__in=directories)
    now = {
        pk: (bytes(name), size, mtime_ns)
        for pk, name, size, mtime_ns in standing.values_list("image", "name", "size", "mtime_ns")
    }
    if not films and not now:
        return {}
    rows = Image.objects.filter(source=source, directory__in=[*films]).exclude(state=Image.State.MISSING).order_by("pk")
    if lock:
        rows = rows.select_for_update(of=("self",), no_key=True)
    files: dict[bytes, list[File]] = {}
    for pk, directory, name in rows.values_list("pk", "directory", "name"):
        files.setdefault(bytes(directory), []).append(File(pk, name))
    wanted = {pk: film for directory, some in files.items() for pk, film in films_of(some, films[directory]).items()}
    wrong: dict[int, Film | None] = {pk: film for pk, film in wanted.items() if now.get(pk) != film[1:]}
    return wrong | dict.fromkeys(now.keys() - wanted.keys())
