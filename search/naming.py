"""Finding images by what they are called: folder, file name, title and tags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from django.db.models import F, Q, QuerySet

from search import filter_bitmaps
from search.arrays import Bitmap, Ids
from search.bitmaps import Library
from search.columns import ids_of
from search.facets import loaded_facets
from search.filters import Filter, Term, alone, register_untyped
from search.folding import contains, path_text
from search.models import Change, ImageTag, Tag
from search.name_store import get_name_store
from search.querysets import ImageQuerySet
from search.text import fold

FEW = 10_000
FEWER = 200
"""No more than so many are looked at even where the names of all were read into this process."""
_CHUNK = 5_000
_CALLED = "called"

_EDGES = ".,!?:;'\"()[]{}“”„«»…"
_IN_EVERY_PATH = "/\\._-"


def words_of(phrase: str) -> list[str]:
    """The words of a phrase, without the punctuation around them, each once; not the signs that every path has."""
    words = (word.strip(_EDGES) for word in phrase.split())
    return list(dict.fromkeys(word for word in words if word.strip(_IN_EVERY_PATH)))


def carrying(groups: Iterable[Iterable[str]], library: Library, among: Bitmap) -> Bitmap | None:
    """`bitmap[id]`, as long as `among`: those of its images in whose folder, file name, title or tags every word of at
    least one of the groups stands, case folded. None when there is no word at all.

    Of many images it is kept for each word who carries it, as for filters, and so it is where the names were read into
    this process; else of few these alone are looked at.
    """
    found: Bitmap | None = None
    few = np.flatnonzero(among)
    only_few = len(few) <= FEWER or (len(few) <= FEW and not _names_here(library))
    for group in groups:
        terms = [Term(_CALLED, fold(word)) for word in group]
        if not terms:
            continue
        if only_few:
            one = np.zeros(len(among), dtype=np.bool_)
            one[_looked_at(terms, few)] = True
        else:
            one = filter_bitmaps.passing(terms, None, library, len(among)) & among
        found = one if found is None else found | one
    return found


def _names_here(library: Library) -> bool:
    store = get_name_store()
    return store.library is library and store.answers(library.number)


def _looked_at(terms: list[Term], ids: Ids) -> Ids:
    for one in terms:
        chunks = (ids[start : start + _CHUNK].tolist() for start in range(0, len(ids), _CHUNK))
        ids = np.sort(np.concatenate([ids[:0], *(ids_of(alone(one, None, chunk)) for chunk in chunks)]))
    return ids


def _called(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    """Images in whose folder, file name, title or tags this word stands."""
    tags = _tags(value)
    tagged = ImageTag.objects.filter(tag__in=tags)
    if queryset.few is not None:
        # Said so that no index on the tag fits: SQLite would go through all images of every tag with this word.
        tagged = ImageTag.objects.alias(by_tag=F("tag_id") + 0).filter(by_tag__in=tags, image__in=queryset.few)
    placed = contains(path_text(), value) if "/" in value else contains("name", value) | contains("folder", value)
    titled = ~Q(title="") & contains("title", value)
    return queryset.filter(placed | titled | Q(pk__in=tagged.values("image")))


def _tags(value: str) -> QuerySet[Tag]:
    return Tag.objects.filter(key__contains=value).order_by()


def _at_hand(value: str, library: Library, number: int, user: Any = None) -> Bitmap | None:
    """The same images, where the names were read into this process."""
    store = get_name_store()
    named = store.having(value, number) if store.library is library else None
    if named is None:
        return None
    tags = ids_of(_tags(value))
    facets = loaded_facets(library, number)
    there = None if facets is None else facets.tagged(tags)
    tagged = (
        ids_of(ImageTag.objects.filter(tag__in=_tags(value)), "image_id") if there is None else np.flatnonzero(there)
    )
    return library.bitmap(np.concatenate([named, tagged]), longer=True)


def register_names() -> None:
    """Let terms speak of words that images carry."""
    register_untyped(
        Filter(
            _CALLED, "Name", "The folder, file name, title or a tag contains this.", fold, _called,
            at_hand=_at_hand, kept=True, anew=frozenset({Change.Kind.TAGS.value}), personal=False,
        )
    )  # fmt: skip
