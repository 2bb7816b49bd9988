"""What leaves the catalogue: the images of a query, an album or a choice, as JSON, CSV, originals or sidecars.

Everything here is a generator that holds a few hundred rows at a time: neither 100,000 rows nor 50 GB of originals
are ever in memory. Whether the person may see an image is asked anew for every portion of rows.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from django.conf import settings
from django.db.models import Q

from search import audit, filters, retrieval, selection, stacks
from search.arrays import Ids
from search.errors import BadQuery, runs_the_server
from search.models import Album, Image, ImageTag, RefusedKeyword, Tag
from search.query import Query
from search.querysets import ImageQuerySet
from search.sidecars import Said, paths_of
from search.wording import counted

PORTION = 500
_PERSON = Image.Origin.PERSON


@dataclass(frozen=True)
class Chosen:
    """What is to be exported, in its order: `ids` (n,) int64, `scores` (n,) float32, NaN where there is none."""

    ids: Ids
    scores: npt.NDArray[np.float32]
    within: Callable[[], ImageQuerySet]
    """The images that the person may see; asked anew for every portion."""
    user: Any
    name: str
    """What a file of it is called, without an extension."""
    said: dict[str, Any] = field(default_factory=dict)
    """What a JSON export says of it ahead of the images."""
    notices: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def best(self, number: int) -> Chosen:
        """Only the first so many."""
        return Chosen(
            self.ids[:number], self.scores[:number], self.within, self.user, self.name, self.said, self.notices
        )


@dataclass(frozen=True)
class Row:
    """One exported image with what belongs to it."""

    image: Image
    score: float | None
    tags: tuple[tuple[str, ...], ...]
    """By name; each from its outermost parent to itself."""
    favourite: bool
    """Of the person who exports."""


def of_query(query: Query, user: Any) -> Chosen:
    """The whole ranked list of a query, or, unranked, all that pass its filters. Raises as `retrieval.find`."""
    found = retrieval.everything(query, user)
    notices = list(found.notices)
    if found.capped:
        notices.append(
            f"These are the {len(found.ids):,} best; more are not ranked (IMAGESEARCH_MAX_RESULTS is "
            f"{settings.IMAGESEARCH_MAX_RESULTS:,})."
            if runs_the_server(user)
            else f"These are the {len(found.ids):,} best; add a word or a filter to find what is further down."
        )
    ids, scores = stacks.unfolded(found.ids, found.scores, filters.filtered(query.filters, user))
    return Chosen(
        ids, scores, lambda: filters.within_reach(query.filters, user), user,
        name="pictures", said=_asked(query), notices=notices,
    )  # fmt: skip


def _asked(query: Query) -> dict[str, Any]:
    examples = {name: list(ids) for name, ids in (("like", query.like), ("unlike", query.unlike)) if ids}
    return {"query": query.text(), **examples}


def of_album(album: Album, user: Any) -> Chosen:
    """An album's images in its order, with the scores kept there; those of them that the person may see."""
    seen = _listed(user)().values("pk")
    rows = list(album.entries.filter(image__in=seen).order_by("position", "image").values_list("image_id", "score"))
    ids = np.array([i for i, _ in rows], dtype=np.int64)
    scores = np.array([np.nan if score is None else score for _, score in rows], dtype=np.float32)
    return Chosen(ids, scores, _listed(user), user, name=album.name, said={"album": album.name})


def of_selection(user: Any) -> Chosen:
    """What the person has selected, in that order; hidden and removed images too, where these were selected.

    A stack that is selected by its cover comes whole.
    """
    found = selection.of(user)
    ids, scores = stacks.unfolded(found.ids, found.scores, Image.objects.all(), of_covers=True)
    return Chosen(ids, scores, _reached(user), user, name="selection")


def of_images(ids: Sequence[int] | Ids, user: Any, *, name: str = "pictures") -> Chosen:
    """These images, in this order; those of them that the person may see."""
    chosen = np.asarray(ids, dtype=np.int64)
    return Chosen(chosen, np.full(len(chosen), np.nan, dtype=np.float32), _listed(user), user, name=name)


def album_named(text: str, user: Any) -> Album:
    """The album of this number or name that the person owns or shares. Raises BadQuery."""
    albums = Album.objects.visible_to(user)
    found = list(albums.filter(name=text).order_by("pk")[:2])
    if not found and text.isascii() and text.isdigit() and len(text) < 19:
        found = list(albums.filter(pk=int(text)))
    if len(found) > 1:
        numbers = ", ".join(str(pk) for pk in albums.filter(name=text).order_by("pk").values_list("pk", flat=True))
        raise BadQuery(f"Several albums are named {text!r}. Say which by its number: {numbers}.")
    if not found:
        raise BadQuery(f"There is no album {text!r} that you may see.")
    return found[0]


def _listed(user: Any) -> Callable[[], ImageQuerySet]:
    return lambda: Image.objects.visible_to(user).listed()


def note(chosen: Chosen, kind: str) -> None:
    """A line in the audit: who took what along, as what."""
    said = chosen.said.get("query") or chosen.said.get("album") or ""
    text = f"{counted(len(chosen), 'picture')} as {kind}" + (f": {said}" if said else "")
    audit.record(audit.Kind.EXPORTED, chosen.user, text=text, count=len(chosen))


def _reached(user: Any) -> Callable[[], ImageQuerySet]:
    """What may be chosen by hand: listed images, and those hidden ones that the person may edit."""

    def within() -> ImageQuerySet:
        mine = Image.objects.editable_by(user).values("pk")
        there = Image.objects.visible_to(user).filter(state__in=["waiting", "ready"])
        return there.filter(Q(hidden=False) | Q(pk__in=mine))

    return within


def rows(chosen: Chosen, portion: int = PORTION) -> Iterator[Row]:
    """The chosen images that are still there and may be seen, in order: a handful of queries a portion."""
    for start in range(0, len(chosen.ids), portion):
        ids = chosen.ids[start : start + portion].tolist()
        scores = dict(zip(ids, chosen.scores[start : start + portion].tolist(), strict=True))
        images = chosen.within().select_related("source", "movie").in_order_of(ids)
        tags = tags_of(ids)
        favourites: set[int] = set()
        if chosen.user is not None:
            favourites = set(chosen.user.favourites.filter(image__in=ids).values_list("image_id", flat=True))
        for image in images:
            score = scores[image.pk]
            yield Row(
                image, None if math.isnan(score) else score, tags.get(image.pk, ()), image.pk in favourites
            )  # fmt: skip


def tags_of(ids: Sequence[int]) -> dict[int, tuple[tuple[str, ...], ...]]:
    """{image id: its tags' paths}. One query, and one more for each generation of parents."""
    links: dict[int, list[int]] = {}
    names: dict[int, tuple[str, int | None]] = {}
    found = ImageTag.objects.filter(image_id__in=ids).order_by("image_id", "tag__key")
    for image_id, tag_id, name, parent in found.values_list("image_id", "tag_id", "tag__name", "tag__parent"):
        links.setdefault(image_id, []).append(tag_id)
        names[tag_id] = (name, parent)
    while wanted := {parent for _, parent in names.values() if parent is not None} - names.keys():
        above = {pk: (name, parent) for pk, name, parent in _parents(wanted)}
        if not above:
            break
        names |= above
    return {image_id: paths_of(tags, names) for image_id, tags in links.items()}


def _parents(ids: set[int]) -> list[tuple[int, str, int | None]]:
    return list(Tag.objects.filter(pk__in=ids).values_list("pk", "name", "parent"))


def said_of(some: Sequence[Row]) -> dict[int, Said]:
    """{image id: what its sidecar says}. One query for what was refused."""
    refused: dict[int, set[str]] = {}
    asked = RefusedKeyword.objects.filter(image_id__in=[row.image.pk for row in some])
    for image_id, key in asked.values_list("image_id", "tag__key"):
        refused.setdefault(image_id, set()).add(key)
    return {row.image.pk: _said(row, refused.get(row.image.pk, set())) for row in some}


def _said(row: Row, refused: set[str]) -> Said:
    image = row.image
    return Said(
        rating=image.rating if image.rating or image.rating_origin == _PERSON else None,
        title=image.title if image.title or image.title_origin == _PERSON else None,
        tags=row.tags,
        refused=frozenset(refused),
    )


# --- JSON and CSV -------------------------------------------------------------------------------------

COLUMNS = (
    "id", "source", "path", "name", "file", "score", "title", "description", "rating", "favourite", "tags", "hidden",
    "state", "format", "width", "height", "size", "modified", "sha256", "shown_at", "captured_at",
    "captured_offset_minutes", "camera", "lens", "exposure_seconds", "f_number", "iso", "focal_length_mm", "latitude",
    "longitude", "altitude_m",
)  # fmt: skip
"""The fields of both, in this order; `file` (the full path on the server) only for those who run the server."""


def record(row: Row, *, full_paths: bool) -> dict[str, Any]:
    """One image as plain JSON values; names that are no text are shown with \\xNN and given as `path_hex` as well."""
    image = row.image
    captured = image.captured_at
    values: tuple[Any, ...] = (
        image.pk, image.source.name, image.path_text, image.name, image.absolute_path_text, row.score, image.title,
        image.description, image.rating, row.favourite, ["/".join(path) for path in row.tags], image.hidden,
        image.state, image.format, image.width, image.height, image.size, _moment(image.mtime_ns),
        image.sha256.hex() if image.sha256 else None, _written(image.shown_at),
        # Without an offset it is the camera's wall clock, no instant.
        None if captured is None else _written(captured).removesuffix("" if image.captured_offset is not None else "Z"),
        image.captured_offset, image.camera, image.lens, image.exposure_time, image.aperture, image.iso,
        image.focal_length, image.latitude, image.longitude, image.altitude,
    )  # fmt: skip
    made = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in zip(COLUMNS, values, strict=True)
    }
    if not full_paths:
        del made["file"]
    try:
        image.path.decode("utf-8")
    except UnicodeDecodeError:
        made["path_hex"] = image.path.hex()
    return made


def as_json(chosen: Chosen) -> Iterator[bytes]:
    """One JSON object: what was asked, `images`, and last of all `count`, so that what is cut off shows."""
    full = runs_the_server(chosen.user)
    ahead = {"exported_at": _written(datetime.now(UTC)), **chosen.said, "notices": chosen.notices}
    yield _utf8(json.dumps(ahead, ensure_ascii=False)[:-1] + ', "images": [')
    number = 0
    for row in rows(chosen):
        text = json.dumps(record(row, full_paths=full), ensure_ascii=False, allow_nan=False)
        yield _utf8(("," if number else "") + "\n" + text)
        number += 1
    yield b'\n], "count": %d}\n' % number


def as_csv(chosen: Chosen) -> Iterator[bytes]:
    """RFC 4180 with a heading, UTF-8 with a byte order mark (Excel asks for it); several tags part by semicolons.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; JSON has it as it is.
    """
    full = runs_the_server(chosen.user)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    columns = [name for name in COLUMNS if full or name != "file"]
    writer.writerow(columns)
    yield b"\xef\xbb\xbf" + _utf8(buffer.getvalue())
    for row in rows(chosen):
        buffer.seek(0)
        buffer.truncate()
        made = record(row, full_paths=full)
        made["tags"] = "; ".join(made["tags"])
        writer.writerow([_cell(made[name]) for name in columns])
        yield _utf8(buffer.getvalue())


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b"):
        return f"'{value}" if value.lstrip() else value
    return value


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # half surrogates, in JSON an escape


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _moment(mtime_ns: int) -> str | None:
    try:
        return _written(datetime.fromtimestamp(mtime_ns // 1_000_000_000, tz=UTC))
    except (OverflowError, ValueError, OSError):
        return None
