"""Which of several exact copies is the one to keep: a rule in a fixed order that is shown on the page. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from search.models import Image
from search.wording import counted

_COPY_NAME = re.compile(
    r"(^|[\s_(\[-])(copy|copies|kopie|copie|copia|kopia|cópia|duplicate|duplikat)([\s_)\]-]*\d*[)\]]?)$"
    r"|\(\d{1,3}\)$|^(copy|kopie|copie|copia) (\(\d+\) )?(of|von|de|di) "
    r"|[\s_-]copy\d*$|~\d+$",
    re.IGNORECASE,
)
_COPY_FOLDER = re.compile(
    r"(^|[\s_.-])(back-?ups?|copy|copies|kopien?|copie|duplicates?|dupes?|duplikate?|trash|tmp|temp|old|"
    r"sicherung(en)?|papierkorb|\.?trash-?\d*)([\s_.-]|\d|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Facts:
    """What people did with an image."""

    tags: tuple[str, ...] = ()
    albums: int = 0
    comments: int = 0
    favourites: int = 0


@dataclass(frozen=True)
class Copy:
    """One of several files with the same bytes."""

    image: Image
    facts: Facts
    editable: bool
    """Whether the person who looks may change it: only such ones are hidden, and one of them is kept."""

    @property
    def work(self) -> int:
        """How much people did with it: its tags, albums, comments, favourites and title."""
        facts = self.facts
        titled = self.image.title_origin == Image.Origin.PERSON
        return len(facts.tags) + facts.albums + facts.comments + facts.favourites + titled

    @property
    def said(self) -> str:
        """That in words, "" when nobody did anything."""
        facts = self.facts
        parts = [
            counted(number, one)
            for number, one in (
                (len(facts.tags), "tag"), (facts.albums, "album"), (facts.comments, "comment"),
                (facts.favourites, "favourite"),
            )
            if number
        ]  # fmt: skip
        if self.image.title_origin == Image.Origin.PERSON:
            parts.append("a title")
        return ", ".join(parts)

    @property
    def named_like_a_copy(self) -> bool:
        return bool(_COPY_NAME.search(self.image.name.rpartition(".")[0] or self.image.name))

    @property
    def in_a_backup(self) -> bool:
        return any(_COPY_FOLDER.search(part) for part in self.image.folder.split("/"))

    @property
    def depth(self) -> int:
        return self.image.folder.count("/") + bool(self.image.folder)

    @property
    def path(self) -> str:
        return f"{self.image.folder}/{self.image.name}" if self.image.folder else self.image.name


@dataclass(frozen=True)
class Rule:
    """One reason to keep a copy rather than another: `rank` is smaller for the better one."""

    label: str
    """For the list of rules on the page."""
    rank: Callable[[Copy, int | None], Any]
    because: Callable[[Copy], str]
    """After "Kept because"."""


RULES: tuple[Rule, ...] = (
    Rule(
        "it lies in a folder that you may change",
        lambda copy, prefer: not copy.editable,
        lambda copy: "the other copies are not yours to change",
    ),
    Rule(
        "it lies in the source that you prefer, if you chose one",
        lambda copy, prefer: prefer is not None and copy.image.source_id != prefer,
        lambda copy: f"it lies in “{copy.image.source.name}”, which you prefer",
    ),
    Rule(
        "it has the highest rating",
        lambda copy, prefer: -copy.image.rating,
        lambda copy: f"it is rated {counted(copy.image.rating, 'star')}",
    ),
    Rule(
        "people did most with it: tags, albums, comments, favourites, a title",
        lambda copy, prefer: -copy.work,
        lambda copy: f"it has {copy.said}",
    ),
    Rule(
        "its name does not say that it is a copy",
        lambda copy, prefer: copy.named_like_a_copy,
        lambda copy: "the other’s name says that it is a copy",
    ),
    Rule(
        "it does not lie in a folder for backups, copies or rubbish",
        lambda copy, prefer: copy.in_a_backup,
        lambda copy: "the other lies in a folder for backups or copies",
    ),
    Rule(
        "its file is the oldest",
        lambda copy, prefer: copy.image.mtime_ns,
        lambda copy: "its file is the oldest",
    ),
    Rule(
        "it lies under the fewest folders",
        lambda copy, prefer: copy.depth,
        lambda copy: "it lies under the fewest folders",
    ),
    Rule(
        "its path is the shortest",
        lambda copy, prefer: len(copy.path),
        lambda copy: "its path is the shortest",
    ),
    Rule(
        "it was found first",
        lambda copy, prefer: copy.image.pk,
        lambda copy: "it was found first",
    ),
)  # fmt: skip
"""In this order: the first in which two copies differ decides."""
_WORTH = 4
ALIKE_RULES: tuple[Rule, ...] = (
    *RULES[:_WORTH],
    Rule(
        "it has the most pixels",
        lambda copy, prefer: -(copy.image.width or 0) * (copy.image.height or 0),
        lambda copy: "it has the most pixels",
    ),
    Rule(
        "it says which camera took it",
        lambda copy, prefer: not copy.image.camera,
        lambda copy: "it says which camera took it",
    ),
    Rule(
        "its file is the largest",
        lambda copy, prefer: -copy.image.size,
        lambda copy: "its file is the largest",
    ),
    *RULES[_WORTH:],
)
"""For pictures that look alike and are different files: what people did counts first, then how much there is to see."""


def ordered(copies: Sequence[Copy], prefer: int | None = None, rules: Sequence[Rule] = RULES) -> list[Copy]:
    """The copies with the one to keep first: a total order, the same however they are given."""
    return sorted(copies, key=lambda copy: tuple(rule.rank(copy, prefer) for rule in rules))


def reason(copies: Sequence[Copy], prefer: int | None = None, rules: Sequence[Rule] = RULES) -> str:
    """Why the first of these ordered copies is kept rather than the second."""
    if len(copies) < 2:
        return ""
    best, next_best = copies[:2]
    for rule in rules:
        if rule.rank(best, prefer) != rule.rank(next_best, prefer):
            return f"Kept because {rule.because(best)}."
    return ""
