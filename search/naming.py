"""Finding images by what they are called: folder, file name, title and tags."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Q

from search.folding import contains, path_text
from search.models import ImageTag, Tag
from search.text import fold

_EDGES = ".,!?:;'\"()[]{}“”„«»…"
_IN_EVERY_PATH = "/\\._-"


def words_of(phrase: str) -> list[str]:
    """The words of a phrase, without the punctuation around them, each once; not the signs that every path has."""
    words = (word.strip(_EDGES) for word in phrase.split())
    return list(dict.fromkeys(word for word in words if word.strip(_IN_EVERY_PATH)))


def called(words: Iterable[str]) -> Q:
    """Condition: every word stands, case folded, somewhere in the image's folder, file name, title or tags."""
    condition = Q()
    for word in words:
        tags = Tag.objects.filter(key__contains=fold(word)).order_by()
        tagged = ImageTag.objects.filter(tag__in=tags).values("image")
        titled = ~Q(title="") & contains("title", word)
        condition &= contains(path_text(), word) | titled | Q(pk__in=tagged)
    return condition


def called_any(groups: Iterable[Iterable[str]]) -> Q | None:
    """Condition: every word of at least one of the groups; None when there is no word at all."""
    condition: Q | None = None
    for group in groups:
        words = list(group)
        if words:
            condition = called(words) if condition is None else condition | called(words)
    return condition
