"""What the catalogue knows of a source's files, read by folders as plain tuples: a re-crawl asks for every file."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeVar

from django.db import connection

from ingestion.models import Crawl, SeenFile, Work
from search.models import Image, Source

ImageRow = tuple[bytes, int, int, int, str]
"""path, id, size, mtime_ns, state"""

IndexRow = tuple[bytes, str, int, int, int, str]
"""directory, name, id, size, mtime_ns, state"""

SeenRow = ImageRow
"""path, id, size, mtime_ns, why"""

_CHUNK = 500

T = TypeVar("T")


def images_in(source_id: int, directories: Sequence[bytes]) -> dict[bytes, dict[bytes, IndexRow]]:
    """The images in folders with these digests, by folder and file name, read from an index alone.

    The index holds names as text. That is one to one with the bytes on disk except where a backslash may stand
    for an odd byte; the paths of those few rows are looked up.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT directory, name, id, size, mtime_ns, state FROM {Image._meta.db_table} "
            f"WHERE source_id = %s AND directory IN ({_marks(directories)})",
            [source_id, *directories],
        )
        listed = cursor.fetchall()
    odd = [row[2] for row in listed if "\\" in row[1]]
    exact: dict[int, bytes] = {}
    for chunk in chunks(odd, _CHUNK):
        exact.update(Image.objects.filter(pk__in=chunk).values_list("pk", "path"))
    found: dict[bytes, dict[bytes, IndexRow]] = {directory: {} for directory in directories}
    for row in listed:
        found[row[0]][row[1].encode()] = row
    odd_rows = [row for row in listed if row[2] in exact] if exact else []
    for row in odd_rows:
        found[row[0]].pop(row[1].encode(), None)
    for row in odd_rows:
        found[row[0]][os.path.basename(exact[row[2]])] = row
    return found


def images_of(source_id: int, directories: Sequence[bytes]) -> list[ImageRow]:
    """The images in folders of which only the digest is known."""
    return _in(Image._meta.db_table, "state", source_id, directories)


def seen_in(source_id: int, directories: Sequence[bytes]) -> list[SeenRow]:
    """The remembered non-candidates in folders with these digests."""
    return _in(SeenFile._meta.db_table, "why", source_id, directories)


def image_directories(source_id: int, beneath: bytes = b"") -> list[bytes]:
    """Digests of all folders that hold images, within one folder (relative) or the whole source."""
    return _directories(Image._meta.db_table, source_id, beneath)


def seen_directories(source_id: int, beneath: bytes = b"") -> list[bytes]:
    """The same for remembered non-candidates."""
    return _directories(SeenFile._meta.db_table, source_id, beneath)


def has_seen(source_id: int) -> bool:
    """Whether any non-candidate of the source is remembered."""
    return SeenFile.objects.filter(source=source_id).exists()


def without_work(ids: Sequence[int]) -> bool:
    """Whether nothing is queued for some of these images."""
    return Work.objects.filter(image__in=ids).values("image").distinct().count() < len(ids)


def present(source_id: int) -> int:
    """How many images of the source are there, as far as is known."""
    there = [Image.State.WAITING, Image.State.READY, Image.State.UNREADABLE]
    return Image.objects.filter(source=source_id, state__in=there).count()


def lately_missing(source: Source) -> int:
    """How many images crawls of single folders marked missing since the last look through the whole source."""
    crawls = Crawl.objects.filter(source=source).exclude(parts="")
    if source.crawled_at:
        crawls = crawls.filter(started_at__gt=source.crawled_at)
    return sum(int(counts.get("missing", 0)) for counts in crawls.values_list("counts", flat=True))


def last_image_id(source_id: int) -> int:
    """The newest image of the source; 0 when it has none."""
    return Image.objects.filter(source=source_id).order_by("-pk").values_list("pk", flat=True).first() or 0


def sizes_known(source_id: int, sizes: Iterable[int], *, up_to: int) -> set[int]:
    """Which of these file sizes images of the source with ids up to `up_to` have."""
    found: set[int] = set()
    for chunk in chunks(sorted(set(sizes)), _CHUNK):
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT DISTINCT size FROM {Image._meta.db_table} "
                f"WHERE source_id = %s AND id <= %s AND size IN ({_marks(chunk)})",
                [source_id, up_to, *chunk],
            )
            found.update(size for (size,) in cursor.fetchall())
    return found


def chunks(things: Sequence[T], length: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), length):
        yield things[start : start + length]


def _in(table: str, column: str, source_id: int, directories: Sequence[bytes]) -> list[ImageRow]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT path, id, size, mtime_ns, {column} FROM {table} "
            f"WHERE source_id = %s AND directory IN ({_marks(directories)})",
            [source_id, *directories],
        )
        return cursor.fetchall()


def _directories(table: str, source_id: int, beneath: bytes) -> list[bytes]:
    with connection.cursor() as cursor:
        if not beneath:
            cursor.execute(f"SELECT DISTINCT directory FROM {table} WHERE source_id = %s", [source_id])
            return [bytes(digest) for (digest,) in cursor.fetchall()]
        # From folder to folder through the index, with one path of each: no other row is looked at.
        following = f"SELECT directory FROM {table} WHERE source_id = %s"
        cursor.execute(
            f"WITH RECURSIVE folders(digest) AS (SELECT ({following} ORDER BY directory LIMIT 1) UNION ALL "
            f"SELECT ({following} AND directory > folders.digest ORDER BY directory LIMIT 1) FROM folders "
            "WHERE folders.digest IS NOT NULL) "
            f"SELECT digest, (SELECT path FROM {table} WHERE source_id = %s AND directory = digest LIMIT 1) "
            "FROM folders WHERE digest IS NOT NULL",
            [source_id, source_id, source_id],
        )
        return [bytes(digest) for digest, path in cursor.fetchall() if bytes(path).startswith(beneath + b"/")]


def _marks(things: Collection[object]) -> str:
    return ", ".join(["%s"] * len(things))
