"""Hiding exact copies as reversible steps, with what people decided about them going over to the one that is kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from search.arrays import Ids
from search.models import AlbumEntry, Comment, Favourite, Image, ImageTag, RefusedKeyword
from search.personal_steps import Enter, Favour, SetComment
from search.steps import KINDS, Link, Outcome, SetFields, Step, chunks

_PERSON = Image.Origin.PERSON.value


class Carried(Step):
    """A step on what belongs to a person or an album, run by whoever may edit the image.

    A favourite, a comment or a place in an album goes over to an image with the very same bytes, and back: nobody
    decides anew in somebody else's name.
    """

    verb = "carried"

    def __init__(self, step: Step) -> None:
        self.ids, self.step = step.ids, step

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> Carried:
        return cls(KINDS[value["verb"]].from_value(ids, value["value"]))

    def value(self) -> dict[str, Any]:
        return {"verb": self.step.verb, "value": self.step.value()}

    def only(self, ids: Ids) -> Carried:
        return Carried(self.step.only(ids))

    def run(self, outcome: Outcome) -> None:
        before = len(outcome.inverse)
        self.step.run(outcome)
        outcome.inverse[before:] = [Carried(step) for step in outcome.inverse[before:]]


KINDS[Carried.verb] = Carried


def planned(keeper_of: Mapping[int, int]) -> list[Step]:
    """The steps that hide the images `{hidden: kept}` and carry over what people decided about them.

    A dozen queries for each 10,000 images, and one step for each tag, album and person concerned.
    """
    if not keeper_of:
        return []
    hidden = np.array(sorted(keeper_of), dtype=np.int64)
    keepers = np.unique(np.fromiter(keeper_of.values(), dtype=np.int64))
    made = [
        *_tags(hidden, keepers, keeper_of),
        *_ratings_and_titles(hidden, keepers, keeper_of),
        *_favourites(hidden, keeper_of),
        *_albums(hidden, keeper_of),
        *_comments(hidden, keeper_of),
    ]
    nothing, everything = np.zeros(len(hidden), dtype=np.int32), np.ones(len(hidden), dtype=np.int32)
    return [*made, SetFields(hidden, ("hidden",), [(False,), (True,)], before=nothing, after=everything)]


def _tags(hidden: Ids, keepers: Ids, keeper_of: Mapping[int, int]) -> list[Step]:
    """Every tag that the kept image lacks and that nobody took off it."""
    there: set[tuple[int, int]] = set()
    for chunk in chunks(keepers):
        for model in (ImageTag, RefusedKeyword):
            there.update(model._default_manager.filter(image__in=chunk).values_list("image_id", "tag_id"))
    new: dict[tuple[int, str], set[int]] = defaultdict(set)
    for chunk in chunks(hidden):
        links = ImageTag.objects.filter(image__in=chunk).order_by("tag__key")
        for image, tag, name in links.values_list("image_id", "tag_id", "tag__name"):
            if (keeper_of[image], tag) not in there:
                new[tag, name].add(keeper_of[image])
    return [Link(_sorted(ids), tag, name, _PERSON) for (tag, name), ids in new.items()]


def _ratings_and_titles(hidden: Ids, keepers: Ids, keeper_of: Mapping[int, int]) -> list[Step]:
    """The highest rating and the first title that a person gave, where the kept image has none from anybody."""
    best: dict[int, int] = {}
    title: dict[int, str] = {}
    for chunk in chunks(hidden):
        rows = Image.objects.filter(pk__in=chunk).order_by("pk")
        for image, rating, said, origin in rows.values_list("pk", "rating", "title", "title_origin"):
            keeper = keeper_of[image]
            best[keeper] = max(best.get(keeper, 0), rating)
            if said and origin == _PERSON:
                title.setdefault(keeper, said)
    ratings: list[tuple[int, tuple[Any, ...], tuple[Any, ...]]] = []
    titles: list[tuple[int, tuple[Any, ...], tuple[Any, ...]]] = []
    for chunk in chunks(keepers):
        rows = Image.objects.filter(pk__in=chunk)
        for pk, *values in rows.values_list("pk", "rating", "rating_origin", "title", "title_origin"):
            if not values[0] and values[1] != _PERSON and best.get(pk):
                ratings.append((pk, tuple(values[:2]), (best[pk], _PERSON)))
            if values[3] != _PERSON and title.get(pk):
                titles.append((pk, tuple(values[2:]), (title[pk], _PERSON)))
    return [
        *_set(("rating", "rating_origin"), ratings),
        *_set(("title", "title_origin"), titles),
    ]


def _set(fields: tuple[str, ...], rows: list[tuple[int, tuple[Any, ...], tuple[Any, ...]]]) -> list[Step]:
    if not rows:
        return []
    rows.sort()
    table = list(dict.fromkeys(value for _, before, after in rows for value in (before, after)))
    place = {value: n for n, value in enumerate(table)}
    before = np.array([place[row[1]] for row in rows], dtype=np.int32)
    after = np.array([place[row[2]] for row in rows], dtype=np.int32)
    return [SetFields(_sorted(row[0] for row in rows), fields, table, before=before, after=after)]


def _favourites(hidden: Ids, keeper_of: Mapping[int, int]) -> list[Step]:
    whose: dict[int, set[int]] = defaultdict(set)
    for chunk in chunks(hidden):
        for image, user in Favourite.objects.filter(image__in=chunk).values_list("image_id", "user_id"):
            whose[user].add(keeper_of[image])
    return [Carried(Favour(_sorted(ids), user, True)) for user, ids in sorted(whose.items())]


def _albums(hidden: Ids, keeper_of: Mapping[int, int]) -> list[Step]:
    """The kept image stands in each album where the hidden one stood, with its score."""
    entries: dict[int, dict[int, tuple[int, float]]] = defaultdict(dict)
    for chunk in chunks(hidden):
        rows = AlbumEntry.objects.filter(image__in=chunk).order_by("position", "image")
        for image, album, position, score in rows.values_list("image_id", "album_id", "position", "score"):
            entries[album].setdefault(keeper_of[image], (position, np.nan if score is None else score))
    made: list[Step] = []
    for album, places in sorted(entries.items()):
        ids = _sorted(places)
        positions = np.array([places[int(i)][0] for i in ids], dtype=np.int64)
        scores = np.array([places[int(i)][1] for i in ids], dtype=np.float64)
        made.append(Carried(Enter(ids, album, positions, scores)))
    return made


def _comments(hidden: Ids, keeper_of: Mapping[int, int]) -> list[Step]:
    said: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    for chunk in chunks(hidden):
        rows = Comment.objects.filter(image__in=chunk).order_by("created_at", "pk")
        for image, *words in rows.values_list("image_id", "author_id", "created_at", "text", "edited_at"):
            said[tuple(words)].add(keeper_of[image])
    return [
        Carried(SetComment(_sorted(ids), author, moment, before=None, after=(text, edited)))
        for (author, moment, text, edited), ids in said.items()
    ]


def _sorted(ids: Any) -> Ids:
    return np.array(sorted(ids), dtype=np.int64)
