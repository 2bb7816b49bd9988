"""Reversible steps on what belongs to a person: favourites, comments, and what lies in albums in which order.

Unlike tags and ratings they do not ask for the right to edit the images, but for being that person, or for the
album. Whether somebody sees such a row is decided by `visible_to` where it is shown.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import connection
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from search.arrays import Ids
from search.errors import runs_the_server
from search.models import Album, AlbumEntry, Comment, Favourite, Image
from search.steps import KINDS, Outcome, Step, chunks, having, insert, pack_array, unpack_array

_Positions = npt.NDArray[np.int64]
_Scores = npt.NDArray[np.float64]
_ROWS = 5_000
"""Rows in one VALUES list: SQLite takes 32,766 parameters."""


def _changed(outcome: Outcome, step: Step, done: Ids, inverse: Step) -> None:
    outcome.left = np.concatenate([outcome.left, np.setdiff1d(step.ids, done)])
    outcome.changed = np.concatenate([outcome.changed, done])
    if len(done):
        outcome.inverse.append(inverse)


class Favour(Step):
    """Make images favourites of a person, or no longer."""

    verb = "favour"
    by_images = False

    def __init__(self, ids: Ids, user: int, on: bool) -> None:
        self.ids, self.user, self.on = ids, user, on

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> Favour:
        return cls(ids, value["user"], value["on"])

    def value(self) -> dict[str, Any]:
        return {"user": self.user, "on": self.on}

    def only(self, ids: Ids) -> Favour:
        return Favour(self.ids[np.isin(self.ids, ids)], self.user, self.on)

    def permitted(self, user: Any) -> bool:
        return runs_the_server(user) or user.pk == self.user

    def run(self, outcome: Outcome) -> None:
        rows = Favourite.objects.filter(user=self.user)
        there = having(rows, self.ids)
        if self.on:
            done = np.setdiff1d(self.ids, there)
            insert(Favourite, done, {"user_id": self.user, "created_at": timezone.now()})
        else:
            done = there
            for chunk in chunks(done):
                rows.filter(image__in=chunk).delete()
        _changed(outcome, self, done, Favour(done, self.user, not self.on))


Words = tuple[str, datetime | None]
"""A comment's text, and when it was last edited."""


class SetComment(Step):
    """Write, change or delete the comment that a person made on images at one moment: that moment names it."""

    verb = "comment"
    by_images = False

    def __init__(
        self, ids: Ids, author: int, created_at: datetime, *, before: Words | None, after: Words | None
    ) -> None:
        self.ids, self.author, self.created_at, self.before, self.after = ids, author, created_at, before, after

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> SetComment:
        def words(kept: list[Any] | None) -> Words | None:
            return None if kept is None else (kept[0], parse_datetime(kept[1]) if kept[1] else None)

        created_at = parse_datetime(value["created_at"])
        if created_at is None:
            raise ValueError(f"a comment's moment cannot be {value['created_at']!r}")
        return cls(ids, value["author"], created_at, before=words(value["from"]), after=words(value["to"]))

    def value(self) -> dict[str, Any]:
        def kept(words: Words | None) -> list[Any] | None:
            return None if words is None else [words[0], words[1].isoformat() if words[1] else None]

        return {
            "author": self.author, "created_at": self.created_at.isoformat(),
            "from": kept(self.before), "to": kept(self.after),
        }  # fmt: skip

    def only(self, ids: Ids) -> SetComment:
        return self._for(self.ids[np.isin(self.ids, ids)])

    def _for(self, ids: Ids, *, turned: bool = False) -> SetComment:
        before, after = (self.after, self.before) if turned else (self.before, self.after)
        return SetComment(ids, self.author, self.created_at, before=before, after=after)

    def permitted(self, user: Any) -> bool:
        return runs_the_server(user) or user.pk == self.author

    def run(self, outcome: Outcome) -> None:
        rows = Comment.objects.filter(author=self.author, created_at=self.created_at)
        if self.before is None:
            done = np.setdiff1d(self.ids, having(rows, self.ids))
        else:
            done = having(rows.filter(text=self.before[0], edited_at=self.before[1]), self.ids)
        if self.before is None and self.after is not None:
            columns = {
                "author_id": self.author, "created_at": self.created_at,
                "text": self.after[0], "edited_at": self.after[1],
            }  # fmt: skip
            insert(Comment, done, columns)
        else:
            for chunk in chunks(done):
                found = rows.filter(image__in=chunk)
                if self.after is None:
                    found.delete()
                else:
                    found.update(text=self.after[0], edited_at=self.after[1])
        _changed(outcome, self, done, self._for(done, turned=True))


class _AlbumStep(Step):
    """A step on the entries of one album: whoever may change the album may run it."""

    by_images = False
    ids: Ids
    album: int

    def permitted(self, user: Any) -> bool:
        # Of an album that was deleted nothing is left to protect: the step finds no album and does nothing.
        return (
            runs_the_server(user)
            or not Album.objects.exclude(pk__in=Album.objects.editable_by(user).values("pk"))
            .filter(pk=self.album)
            .exists()
        )


class Enter(_AlbumStep):
    """Put images into an album, each at a position and with a score (NaN: none)."""

    verb = "enter"

    def __init__(self, ids: Ids, album: int, positions: _Positions, scores: _Scores) -> None:
        self.ids, self.album, self.positions, self.scores = ids, album, positions, scores

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> Enter:
        scores = unpack_array(value["scores"], "<f8") if value["scores"] else np.full(len(ids), np.nan)
        return cls(ids, value["album"], unpack_array(value["positions"], "<i8"), scores)

    def value(self) -> dict[str, Any]:
        scores = "" if np.isnan(self.scores).all() else pack_array(self.scores.astype("<f8"))
        return {"album": self.album, "positions": pack_array(self.positions.astype("<i8")), "scores": scores}

    def only(self, ids: Ids) -> Enter:
        return self._masked(np.isin(self.ids, ids))

    def _masked(self, keep: npt.NDArray[np.bool_]) -> Enter:
        return Enter(self.ids[keep], self.album, self.positions[keep], self.scores[keep])

    def run(self, outcome: Outcome) -> None:
        new = self.ids[:0]
        if Album.objects.filter(pk=self.album).exists():
            new = np.setdiff1d(self.ids, having(AlbumEntry.objects.filter(album=self.album), self.ids))
            entering = self._masked(np.isin(self.ids, new))
            entering._write()
            new = having(AlbumEntry.objects.filter(album=self.album), new)  # without images that are gone
        _changed(outcome, self, new, Leave(new, self.album))

    def _write(self) -> None:
        """All rows by INSERT ... SELECT from a list of values, where the image is there."""
        moment = AlbumEntry._meta.get_field("created_at").get_db_prep_save(timezone.now(), connection)
        scores = [None if np.isnan(score) else score for score in self.scores.tolist()]
        rows = list(zip(self.ids.tolist(), self.positions.tolist(), scores, strict=True))
        with connection.cursor() as cursor:
            for start in range(0, len(rows), _ROWS):
                part = rows[start : start + _ROWS]
                cursor.execute(
                    "INSERT INTO search_albumentry (album_id, image_id, position, score, created_at) "
                    "SELECT %s, i.id, v.column2, CAST(v.column3 AS double precision), %s "
                    f"FROM (VALUES {', '.join(['(%s, %s, %s)'] * len(part))}) AS v "
                    f"JOIN {Image._meta.db_table} AS i ON i.id = v.column1 ON CONFLICT DO NOTHING",
                    [self.album, moment, *(value for row in part for value in row)],
                )


class Leave(_AlbumStep):
    """Take images out of an album; where they stood is remembered."""

    verb = "leave"

    def __init__(self, ids: Ids, album: int) -> None:
        self.ids, self.album = ids, album

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> Leave:
        return cls(ids, value["album"])

    def value(self) -> dict[str, Any]:
        return {"album": self.album}

    def only(self, ids: Ids) -> Leave:
        return Leave(self.ids[np.isin(self.ids, ids)], self.album)

    def run(self, outcome: Outcome) -> None:
        rows = AlbumEntry.objects.filter(album=self.album)
        there, positions, scores = standing_at(self.album, self.ids)
        for chunk in chunks(there):
            rows.filter(image__in=chunk).delete()
        _changed(outcome, self, there, Enter(there, self.album, positions, scores))


class Rearrange(_AlbumStep):
    """Move entries of an album to other positions, where they stand as expected."""

    verb = "rearrange"

    def __init__(self, ids: Ids, album: int, before: _Positions, after: _Positions) -> None:
        self.ids, self.album, self.before, self.after = ids, album, before, after

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> Rearrange:
        return cls(ids, value["album"], unpack_array(value["from"], "<i8"), unpack_array(value["to"], "<i8"))

    def value(self) -> dict[str, Any]:
        before, after = (pack_array(positions.astype("<i8")) for positions in (self.before, self.after))
        return {"album": self.album, "from": before, "to": after}

    def only(self, ids: Ids) -> Rearrange:
        return self._masked(np.isin(self.ids, ids))

    def _masked(self, keep: npt.NDArray[np.bool_]) -> Rearrange:
        return Rearrange(self.ids[keep], self.album, self.before[keep], self.after[keep])

    def run(self, outcome: Outcome) -> None:
        there, positions, _ = standing_at(self.album, self.ids)
        as_expected = np.zeros(len(self.ids), dtype=np.bool_)
        places = np.searchsorted(self.ids, there)
        as_expected[places] = positions == self.before[places]
        done = self._masked(as_expected)
        rows = list(zip(done.ids.tolist(), done.after.tolist(), strict=True))
        with connection.cursor() as cursor:
            for start in range(0, len(rows), _ROWS):
                part = rows[start : start + _ROWS]
                cursor.execute(
                    "UPDATE search_albumentry SET position = v.column2 "
                    f"FROM (VALUES {', '.join(['(%s, %s)'] * len(part))}) AS v "
                    "WHERE album_id = %s AND image_id = v.column1",
                    [*(value for row in part for value in row), self.album],
                )
        _changed(outcome, self, done.ids, Rearrange(done.ids, self.album, before=done.after, after=done.before))


def standing_at(album: int, ids: Ids) -> tuple[Ids, _Positions, _Scores]:
    """Which of these images (ascending) lie in an album, their positions, and their scores (NaN: none)."""
    rows: list[tuple[int, int, float | None]] = []
    for chunk in chunks(ids):
        found = AlbumEntry.objects.filter(album=album, image__in=chunk).order_by()
        rows += found.values_list("image_id", "position", "score")
    rows.sort(key=lambda row: row[0])
    there = np.array([row[0] for row in rows], dtype=np.int64)
    scores = np.array([np.nan if row[2] is None else row[2] for row in rows], dtype=np.float64)
    return there, np.array([row[1] for row in rows], dtype=np.int64), scores


KINDS |= {step.verb: step for step in (Favour, SetComment, Enter, Leave, Rearrange)}
