"""What pages count of the images a person sees: formats, cameras, lenses, stars, years, tags, albums.

Kept in each process as flat arrays by image id, brought up to date from the change log like `search.bitmaps`, and
counted under the bitmap of what the person may see: no count of a million rows is asked of the database on a click.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import connection
from django.db.models import Case, Q, Value, When
from django.utils import timezone

from search.arrays import Bitmap, Ids
from search.bitmaps import Library, get_library, known_library
from search.changes import changed_images
from search.columns import columns, grouped
from search.models import AlbumEntry, Image, ImageTag

TEXTS = ("format", "camera", "lens")
NUMBERS = ("rating", "year")
FACTS = {
    "gps": Q(latitude__isnull=False, longitude__isnull=False),
    "title": ~Q(title=""),
    "description": ~Q(description=""),
    "date": Q(captured_at__isnull=False),
}
"""What an image may have that no index tells: one bit each."""
MOST_CHANGED = 100_000
"""When more images changed since the last look, all is read anew."""
_MOST_ENTRIES = 5_000
_MOST_BEHIND = 200
"""Entries of the change log that a search follows while it waits..."""
_MOST_AT_ONCE = 5_000
"""...of so many images; more are followed in the background."""
_PATIENCE = 0.25
"""Seconds that a search waits for whoever follows or reads them; then it asks the database."""
_CHUNK = 5_000
_YEARS = (1000, 9000)
_Codes = npt.NDArray[np.int32]


@dataclass
class _Text:
    """`values[codes[id]]`; code 0 is the empty text, and what is no image."""

    codes: _Codes
    values: list[str]
    places: dict[str, int]


class Facets:
    """What is counted, as arrays that follow the change log. Thread-safe; one per process (`get_facets()`).

    Of a million images with 1.2 million tags: 12 MB of texts, 3 MB of stars and years, 1 MB of facts, 10 MB of tags,
    2 MB of albums with 100,000 entries. Each is read when it is first asked for.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._lock = threading.RLock()
        self._number = self._loads = -1
        self._texts: dict[str, _Text] | None = None
        self._numbers: dict[str, npt.NDArray[np.int16]] = {}
        self._facts = np.zeros(0, dtype=np.uint8)
        self._tags: tuple[_Codes, _Codes] | None = None
        self._entries: tuple[_Codes, _Codes, Ids] | None = None

    def refresh(self) -> None:
        """Follow the change log to where the library stands. No query when nothing is new."""
        with self._lock:
            number = self.library.number
            if self.library.loads != self._loads or (number > self._number and not self._follow(number)):
                self._texts = self._tags = self._entries = None
            self._number, self._loads = number, self.library.loads

    def load(self) -> None:
        """Read all that is counted, where it was not: some seconds for a million images."""
        with self._lock:
            self._of_text("format")
            self._all_tags()
            self._all_entries()

    def texts(self, column: str, among: Bitmap) -> dict[str, int]:
        """{value: number of images} of one of TEXTS, without images of which it is empty."""
        with self._lock:
            kept = self._of_text(column)
            counted = _counted(kept.codes, among)
            return {kept.values[code]: int(counted[code]) for code in np.flatnonzero(counted) if code}

    def numbers(self, column: str, among: Bitmap) -> dict[int, int]:
        """{value: number of images} of one of NUMBERS. A picture's year is that of the wall clock where it was taken,
        as in `search.dates`; years before 1000 and after 9000 are left out."""
        with self._lock:
            self._of_text("format")
            counted = _counted(self._numbers[column], among)
            return {int(value): int(counted[value]) for value in np.flatnonzero(counted) if value or column == "rating"}

    def tags(self, among: Bitmap) -> dict[int, int]:
        """{id of a tag: number of images that carry it}."""
        with self._lock:
            images, tags = self._all_tags()
            counted = np.bincount(tags[_taken(among, images)])
            return {int(tag): int(counted[tag]) for tag in np.flatnonzero(counted)}

    def albums(self, among: Bitmap) -> dict[int, tuple[int, int]]:
        """{id of an album: (number of its images, the first of them in its order)}."""
        with self._lock:
            images, albums, _ = self._all_entries()
            there = _taken(among, images)
            found, first, number = np.unique(albums[there], return_index=True, return_counts=True)
            covers = images[there][first]
            return {int(album): (int(n), int(cover)) for album, n, cover in zip(found, number, covers, strict=True)}

    def album(self, album: int, among: Bitmap) -> tuple[Ids, Ids]:
        """(ids of an album's images in its order, their positions), (n,) int64 each. Fresh arrays."""
        with self._lock:
            images, albums, positions = self._all_entries()
            whole = slice(*np.searchsorted(albums, [album, album + 1]))
            there = _taken(among, images[whole])
            return images[whole][there].astype(np.int64), positions[whole][there]

    # --- what passes a filter: `bitmap[id]`, a fresh array; None for what was not read yet. Nothing is read for it.

    def carrying(self, column: str, fits: Callable[[Sequence[str]], Sequence[bool]]) -> Bitmap | None:
        """The images whose text in one of TEXTS `fits`: that is asked of all different texts at once."""
        with self._lock:
            if self._texts is None:
                return None
            kept = self._texts[column]
            return np.asarray(fits(kept.values), dtype=np.bool_)[kept.codes]

    def between(self, column: str, low: int, high: int) -> Bitmap | None:
        """The images whose number in one of NUMBERS is one of these, both included."""
        with self._lock:
            if self._texts is None:
                return None
            values = self._numbers[column]
            return (values >= low) & (values <= high)

    def having(self, fact: str) -> Bitmap | None:
        """The images that have one of FACTS."""
        with self._lock:
            return None if self._texts is None else (self._facts & _BITS[fact]).astype(np.bool_)

    def tagged(self, tags: Ids | None = None) -> Bitmap | None:
        """The images that carry a tag, or one of these."""
        with self._lock:
            if self._tags is None:
                return None
            images, carried = self._tags
            if tags is not None:
                wanted = np.zeros(int(max(tags.max(initial=0), carried.max(initial=0))) + 1, dtype=np.bool_)
                wanted[tags] = True
                images = images[wanted[carried]]
            found = np.zeros(max(len(self._facts), int(images.max(initial=-1)) + 1), dtype=np.bool_)
            found[images] = True
            return found

    def stands_at(self, number: int) -> bool:
        """Whether they were read, and all that the change log says up to this number is in them, or was brought there
        now. Waits for nobody who reads them, nor where there is much to follow."""
        if self._texts is None or self._tags is None or not self._lock.acquire(timeout=_PATIENCE):
            return False
        try:
            upto = self.library.number
            bounds = {"most_entries": _MOST_BEHIND, "most_changed": _MOST_AT_ONCE}
            if upto > self._number and changed_images(self._number, upto, **bounds) is None:
                return False
            self.refresh()
            return self._texts is not None and self._loads == self.library.loads and self._number >= number
        finally:
            self._lock.release()

    # --- following

    def _follow(self, number: int) -> bool:
        """Look again at what changed since; False when all has to be read anew."""
        if self._number < 0 or number - self._number > _MOST_ENTRIES:
            return False
        if self._texts is None and self._tags is None and self._entries is None:
            return True
        changed = changed_images(self._number, number, most_entries=_MOST_ENTRIES, most_changed=MOST_CHANGED)
        if changed is None:
            return False
        if len(changed):
            self._look_again(changed)
        return True

    def _look_again(self, ids: Ids) -> None:
        chunks = [ids[start : start + _CHUNK].tolist() for start in range(0, len(ids), _CHUNK)]
        flags = np.zeros(int(ids[-1]) + 1, dtype=np.bool_)
        flags[ids] = True
        if self._texts is not None:
            for chunk in chunks:
                self._look_again_at_rows(chunk)
        if self._tags is not None:
            rows = [row for c in chunks for row in ImageTag.objects.filter(image__in=c).values_list("image", "tag")]
            kept = ~_taken(flags, self._tags[0])
            if len(rows) or not kept.all():
                new = np.array(rows, dtype=np.int32).reshape(-1, 2).T
                images, tags = (np.concatenate([old[kept], more]) for old, more in zip(self._tags, new, strict=True))
                self._tags = images, tags
        if self._entries is not None:
            links = [AlbumEntry.objects.filter(image__in=c).order_by() for c in chunks]
            found = [row for rows in links for row in rows.values_list("image", "album", "position")]
            kept = ~_taken(flags, self._entries[0])
            if len(found) or not kept.all():
                some = np.array(found, dtype=np.int64).reshape(-1, 3).T
                images, albums, positions = self._entries
                self._entries = _in_order(
                    np.append(images[kept], some[0]),
                    np.append(albums[kept], some[1]),
                    np.append(positions[kept], some[2]),
                )

    def _look_again_at_rows(self, ids: list[int]) -> None:
        self._grow(ids[-1] + 1)
        assert self._texts is not None
        for text in self._texts.values():
            text.codes[ids] = 0
        for values in self._numbers.values():
            values[ids] = 0
        self._facts[ids] = 0
        rows = Image.objects.filter(pk__in=ids).values_list(
            "pk", *TEXTS, "rating", "captured_at", "captured_offset", "shown_at", _facts()
        )
        for pk, *texts, rating, captured_at, offset, shown_at, facts in rows:
            self._facts[pk] = facts
            for column, value in zip(TEXTS, texts, strict=True):
                self._texts[column].codes[pk] = _code(self._texts[column], value)
            self._numbers["rating"][pk] = rating
            self._numbers["year"][pk] = _year(captured_at, offset, shown_at)

    def _grow(self, need: int) -> None:
        assert self._texts is not None
        if need > (size := len(self._numbers["year"])):
            room = need + need // 8 - size
            for kept in self._texts.values():
                kept.codes = np.concatenate([kept.codes, np.zeros(room, dtype=np.int32)])
            for column, values in self._numbers.items():
                self._numbers[column] = np.concatenate([values, np.zeros(room, dtype=np.int16)])
            self._facts = np.concatenate([self._facts, np.zeros(room, dtype=np.uint8)])

    # --- reading

    def _of_text(self, column: str) -> _Text:
        if self._texts is None:
            # The number is that of the library, read before: what is committed in between is looked at twice.
            table = connection.ops.quote_name(Image._meta.db_table)
            ids, seconds, offsets = columns(_moments(table), [], ["id", "seconds", "minutes"])
            size = int(ids.max(initial=-1)) + 1
            made = {}
            for one in TEXTS:
                made[one] = _Text(np.zeros(size, dtype=np.int32), [""], {"": 0})
                for value, those in grouped(f"SELECT id, {one} FROM {table}", [], one):
                    made[one].codes[those[those < size]] = _code(made[one], value)
            numbers = {one: np.zeros(size, dtype=np.int16) for one in NUMBERS}
            numbers["year"][ids] = _years(seconds, offsets)
            for value, those in grouped(f"SELECT id, rating FROM {table}", [], "rating"):
                numbers["rating"][those[those < size]] = value
            facts = np.zeros(size, dtype=np.uint8)
            having = Image.objects.order_by().annotate(having=_facts()).values_list("id", "having")
            for value, those in grouped(*having.query.sql_with_params(), "having"):
                facts[those[those < size]] = value
            self._numbers, self._facts, self._texts = numbers, facts, made
        return self._texts[column]

    def _all_tags(self) -> tuple[_Codes, _Codes]:
        if self._tags is None:
            table = connection.ops.quote_name(ImageTag._meta.db_table)
            found = columns(f"SELECT image_id, tag_id FROM {table}", [], ["image_id", "tag_id"])
            self._tags = found[0].astype(np.int32), found[1].astype(np.int32)
        return self._tags

    def _all_entries(self) -> tuple[_Codes, _Codes, Ids]:
        if self._entries is None:
            names = ["image_id", "album_id", "position"]
            table = connection.ops.quote_name(AlbumEntry._meta.db_table)
            self._entries = _in_order(*columns(f"SELECT {', '.join(names)} FROM {table}", [], names))
        return self._entries


_BITS = {fact: np.uint8(1 << number) for number, fact in enumerate(FACTS)}


def _facts() -> Any:
    """Expression: the bits of all FACTS that an image has."""
    bits: Any = Value(0)
    for fact, condition in FACTS.items():
        bits = bits + Case(When(condition, then=Value(int(_BITS[fact]))), default=Value(0))
    return bits


def _taken(among: Bitmap, ids: npt.NDArray[np.integer]) -> Bitmap:
    """Which of these ids are set in `among`; what lies past its end is not."""
    if not len(among):
        return np.zeros(len(ids), dtype=np.bool_)
    found = among[np.minimum(ids, len(among) - 1)]
    return found & (ids < len(among))


def _counted(codes: npt.NDArray[np.integer], among: Bitmap) -> Ids:
    size = min(len(codes), len(among))
    return np.bincount(codes[:size][among[:size]])


def _in_order(images: Ids, albums: Ids, positions: Ids) -> tuple[_Codes, _Codes, Ids]:
    order = np.lexsort((images, positions, albums))
    return images[order].astype(np.int32), albums[order].astype(np.int32), positions[order]


def _code(kept: _Text, value: str) -> int:
    if value not in kept.places:
        kept.places[value] = len(kept.values)
        kept.values.append(value)
    return kept.places[value]


_FILE_TIME = 10**6
"""In place of the minutes east of UTC: the moment is that of the file, for the program's own time zone."""


def _moments(table: str) -> str:
    """SELECT of each image's id, the seconds since 1970 of its moment, and the minutes that its clock is ahead."""
    moment = "coalesce(captured_at, shown_at)"
    if connection.vendor == "postgresql":
        seconds = f"floor(extract(epoch from {moment}))::bigint"
    else:
        seconds = f"CAST(strftime('%%s', substr({moment}, 1, 19)) AS INTEGER)"
    minutes = f"CASE WHEN captured_at IS NULL THEN {_FILE_TIME} ELSE coalesce(captured_offset, 0) END"
    return f"SELECT id, {seconds} AS seconds, {minutes} AS minutes FROM {table}"


def _years(seconds: Ids, minutes: Ids) -> Ids:
    of_file = minutes == _FILE_TIME
    clock = seconds + np.where(of_file, 0, 60 * minutes)
    years = clock.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970
    for year in np.unique(years[of_file]):  # the program's time zone may say the year before, or the next
        if _YEARS[0] <= year <= _YEARS[1]:
            these = np.flatnonzero(of_file & (years == year))
            years[these] += (seconds[these] >= _start(int(year) + 1)).astype(np.int64)
            years[these] -= seconds[these] < _start(int(year))
    return np.where((years >= _YEARS[0]) & (years <= _YEARS[1]), years, 0)


def _start(year: int) -> int:
    return int(timezone.make_aware(dt.datetime(year, 1, 1), timezone.get_default_timezone()).timestamp())


def _year(captured_at: dt.datetime | None, offset: int | None, shown_at: dt.datetime) -> int:
    try:
        if captured_at is None:
            year = timezone.localtime(shown_at, timezone.get_default_timezone()).year
        else:
            year = (captured_at + dt.timedelta(minutes=offset or 0)).year
    except OverflowError:
        return 0
    return year if _YEARS[0] <= year <= _YEARS[1] else 0


_facets: Facets | None = None
_facets_lock = threading.Lock()


def get_facets() -> Facets:
    """This process's `Facets`, brought up to date with its library, which is brought up to date first."""
    get_library()
    return known_facets()


def known_facets() -> Facets:
    """The same, where the library was brought up to date just now."""
    global _facets
    library = known_library()
    with _facets_lock:
        if _facets is None or _facets.library is not library:
            _facets = Facets(library)
        facets = _facets
    facets.refresh()
    return facets


def loaded_facets(library: Library, number: int) -> Facets | None:
    """The facets of this library with all that the change log says up to this number; None where they have not been
    read yet, or are being read."""
    facets = _facets
    return facets if facets is not None and facets.library is library and facets.stands_at(number) else None


def seen_by(user: Any) -> tuple[Facets, Bitmap]:
    """The facets, and the bitmap of the listed images that this person sees, at one moment."""
    facets = get_facets()
    return facets, facets.library.visible(user)
