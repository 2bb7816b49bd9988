"""What a person types or clicks, as a `Query`. Pure: text in, text out.

The language of the search box::

    dog on grass              one phrase
    dog; cat                  two phrases: pictures between both meanings
    -snow  not:"two dogs"     away from these
    tag:beach  -tag:family    filters (see `search.filters`), a minus sign turns one round
    "10:30"  "a; b"           quotation marks keep signs that would mean something; \\" and \\\\ inside them
    like:123  -like:7         pictures that look like image 123, unlike image 7
    order:newest              instead of best first

An unknown `name:` is plain words, with a notice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from search import filters
from search.errors import BadQuery
from search.filters import Term
from search.text import clean, storable

ORDERS = ("best", "newest", "oldest")
MAX_TEXT = 4_000
MAX_PARTS = 200
_MAX_ID = 2**63 - 1
_OPENING = '"“„«'
_CLOSING = {'"': '"', "“": '”“"', "„": '“”"', "«": '»"'}
_OPERATOR = re.compile(r"(-?)([A-Za-z]+):")
_TOKEN = re.compile(r"^[A-Za-z0-9_-]{16,64}$")


@dataclass(frozen=True)
class Query:
    """One search: everything the address of a results page holds.

    `upload` is the token of a picture someone searches with, "" for none. `order` is one of ORDERS;
    "best" without words or examples means newest first. `notices` say how something was understood.
    """

    phrases: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    like: tuple[int, ...] = ()
    unlike: tuple[int, ...] = ()
    upload: str = ""
    filters: tuple[Term, ...] = ()
    order: str = "best"
    min: int | None = None
    """Show only what matches at least so many per cent, 0 to 100; None: as it is set (`retrieval.min_match`)."""
    notices: tuple[str, ...] = field(default=(), compare=False)

    @property
    def ranked(self) -> bool:
        """Whether there is something to rank by: words or examples, wanted or not."""
        return bool(self.phrases or self.negatives or self.like or self.unlike or self.upload)

    @property
    def by_picture_alone(self) -> bool:
        """Whether it ranks, and asks for no words: the nearest are shown, however far they are."""
        return self.ranked and not self.phrases

    @property
    def empty(self) -> bool:
        """Whether nothing at all was asked."""
        return not (self.ranked or self.filters)

    def text(self) -> str:
        """The words and filters as one would type them; `parse(query.text(), query.params())` gives the query back."""
        parts = ["; ".join(_written(phrase) for phrase in self.phrases)] if self.phrases else []
        parts += [f"not:{_quoted(phrase)}" for phrase in self.negatives]
        parts += [_term_text(term) for term in self.filters]
        return " ".join(parts)

    def params(self) -> dict[str, str | list[str]]:
        """The query as parameters of an address; `from_params` is the inverse. Pass it to `urlencode(doseq=True)`."""
        params: dict[str, str | list[str]] = {}
        if text := self.text():
            params["q"] = text
        if self.like:
            params["like"] = [str(i) for i in self.like]
        if self.unlike:
            params["unlike"] = [str(i) for i in self.unlike]
        if self.upload:
            params["upload"] = self.upload
        if self.order != "best":
            params["order"] = self.order
        if self.min is not None:
            params["min"] = str(self.min)
        return params

    def without(self, *, term: Term | None = None, like: int | None = None, unlike: int | None = None) -> Query:
        """The query less one of its parts: what the cross on a chip leads to."""
        return replace(
            self,
            filters=tuple(one for one in self.filters if one != term),
            like=tuple(i for i in self.like if i != like),
            unlike=tuple(i for i in self.unlike if i != unlike),
        )


def parse(text: str = "", params: Mapping[str, Any] | None = None) -> Query:
    """Understand what was typed, together with the other parameters of an address.

    `params` may be a QueryDict, or a dict of strings and lists. Besides like, unlike, upload, order and
    min, each filter's own name is a parameter (`?rating=>=3&-tag=family`), so that a plain form works;
    `not` holds a phrase. `q` is left to `from_params`.

    Raises BadQuery with a sentence for a value that cannot be understood.
    """
    draft = _Draft()
    draft.read(text)
    for name, values in _pairs(params):
        draft.take(name, values)
    return draft.query()


def from_params(params: Mapping[str, Any]) -> Query:
    """The query of an address: its `q` (several are several phrases) and its other parameters."""
    return _drafted(params, _Draft()).query()


def without_wrong_filters(params: Mapping[str, Any]) -> tuple[Query, list[BadQuery]]:
    """The query of an address without the filters that cannot be understood, and what is wrong with each of them.

    Raises BadQuery for what is wrong otherwise.
    """
    draft = _drafted(params, _Draft(wrong=[]))
    return draft.query(), draft.wrong or []


def _drafted(params: Mapping[str, Any], draft: _Draft) -> _Draft:
    pairs = list(_pairs(params))
    for name, values in pairs:
        if name == "q":
            for value in values:
                draft.read(value)
    for name, values in pairs:
        draft.take(name, values)
    return draft


class _Draft:
    """A query in the making; keeps the order in which things were said and drops repetitions."""

    def __init__(self, wrong: list[BadQuery] | None = None) -> None:
        self.wrong = wrong
        """Where wrong filters are gathered; None: they are raised."""
        self.parts: dict[str, list[Any]] = {
            "phrases": [], "negatives": [], "like": [], "unlike": [], "filters": [], "notices": []
        }  # fmt: skip
        self.upload = ""
        self.order = "best"
        self.min: int | None = None

    def add(self, part: str, value: Any) -> None:
        if value not in self.parts[part]:
            self.parts[part].append(value)

    def query(self) -> Query:
        if sum(len(values) for values in self.parts.values()) > MAX_PARTS:
            raise BadQuery(f"A search takes at most {MAX_PARTS} phrases, examples and filters. Leave some away.")
        parts = {name: tuple(values) for name, values in self.parts.items()}
        return Query(upload=self.upload, order=self.order, min=self.min, **parts)

    # --- parameters ----------------------------------------------------------------------------

    def take(self, name: str, values: list[str]) -> None:
        """One parameter. Names that are not the query's own (page, offset, csrf ...) are left alone."""
        bare = name.removeprefix("-")
        for value in values:
            if not value.strip():
                continue
            if name in {"like", "unlike"}:
                self.add(name, _id(name, value))
            elif name == "not":
                self.add("negatives", clean(value))
            elif name == "upload":
                self.upload = _upload(value)
            elif name == "order":
                self.order = _order(value)
            elif name == "min":
                self.min = _min(value)
            elif bare not in filters.RESERVED and filters.get(bare) is not None:
                self._filter(bare, clean(value), negated=name != bare)

    # --- text ----------------------------------------------------------------------------------

    def read(self, text: str) -> None:
        """What was typed in one box."""
        if len(text) > MAX_TEXT:
            raise BadQuery(f"That is longer than the {MAX_TEXT:,} characters a search may have. Shorten it.")
        words: list[str] = []
        for token in _tokens(storable(text)):
            if token.kind == "separator":
                self._end_phrase(words)
            elif token.kind == "words":
                words.append(token.value)
            elif token.kind == "negative":
                if value := clean(token.value):
                    self.add("negatives", value)
            elif token.kind == "operator":
                self._operator(token)
            if token.notice:
                self.add("notices", token.notice)
        self._end_phrase(words)

    def _end_phrase(self, words: list[str]) -> None:
        if phrase := clean(" ".join(words)):
            self.add("phrases", phrase)
        words.clear()

    def _operator(self, token: _Token) -> None:
        if token.name == "like":
            self.add("unlike" if token.negated else "like", _id("like", token.value))
        elif token.name == "order":
            self.order = _order(token.value)
        else:
            self._filter(token.name, clean(token.value), negated=token.negated)

    def _filter(self, name: str, value: str, *, negated: bool) -> None:
        try:
            self.add("filters", filters.term(name, value, negated=negated))
        except BadQuery as error:
            if self.wrong is None:
                raise
            self.wrong.append(error)


@dataclass(frozen=True)
class _Token:
    kind: str
    value: str = ""
    name: str = ""
    negated: bool = False
    notice: str = ""


def _tokens(text: str) -> Iterator[_Token]:
    """Split what was typed: words, separators, negatives, operators."""
    at = 0
    while at < len(text):
        char = text[at]
        if char.isspace():
            at += 1
        elif char == ";":
            at += 1
            yield _Token("separator")
        elif char in _OPENING:
            value, at, notice = _read_value(text, at)
            yield _Token("words", value, notice=notice)
        else:
            token, at = _read_bare(text, at)
            yield token


def _read_bare(text: str, at: int) -> tuple[_Token, int]:
    """A token that starts without a quotation mark."""
    if (operator := _OPERATOR.match(text, at)) is not None:
        minus, name = operator[1], operator[2].lower()
        if name == "not" and not minus:
            value, end, notice = _read_value(text, operator.end())
            return _Token("negative", value, notice=notice), end
        if name in {"like", "order"} or filters.get(name) is not None:
            value, end, notice = _read_value(text, operator.end())
            return _Token("operator", value, name=name, negated=bool(minus), notice=notice), end
    if text[at] == "-" and at + 1 < len(text) and not text[at + 1].isspace() and text[at + 1] not in "-;":
        value, end, notice = _read_value(text, at + 1)
        return _Token("negative", value, notice=notice or _colon_notice(text[at + 1 : end])), end
    value, end, _ = _read_value(text, at)
    return _Token("words", value, notice=_colon_notice(value)), end


def _colon_notice(word: str) -> str:
    before, colon, after = word.partition(":")
    if not (colon and before and after) or word[0] in _OPENING:
        return ""
    return f"“{word}” was searched as plain words, because no filter is named “{before}”."


def _read_value(text: str, at: int) -> tuple[str, int, str]:
    """The quoted or bare value that starts here: (value, where it ends, notice)."""
    if at < len(text) and text[at] in _OPENING:
        return _read_quoted(text, at)
    end = at
    while end < len(text) and not text[end].isspace() and text[end] != ";":
        end += 1
    return text[at:end], end, ""


def _read_quoted(text: str, at: int) -> tuple[str, int, str]:
    closing = _CLOSING[text[at]]
    at += 1
    value: list[str] = []
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text) and text[at + 1] in '\\"':
            value.append(text[at + 1])
            at += 2
        elif char in closing:
            return "".join(value), at + 1, ""
        else:
            value.append(char)
            at += 1
    return "".join(value), at, "A quotation mark was left open; it was taken to close at the end."


def _written(phrase: str) -> str:
    """A phrase as it can be typed: bare when each word stands for itself, else quoted."""
    for word in phrase.split(" "):
        if word[0] in _OPENING or word[0] == "-" or ";" in word or ":" in word:
            return _quoted(phrase)
    return phrase


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _term_text(term: Term) -> str:
    bare = term.value and not any(char.isspace() or char == ";" for char in term.value)
    value = term.value if bare and term.value[0] not in _OPENING else _quoted(term.value)
    return f"{'-' if term.negated else ''}{term.name}:{value}"


def _pairs(params: Mapping[str, Any] | None) -> Iterator[tuple[str, list[str]]]:
    if params is None:
        return
    lists: Iterable[tuple[str, Any]] = params.lists() if hasattr(params, "lists") else params.items()
    for name, value in lists:
        yield name, [str(one) for one in (value if isinstance(value, list | tuple) else [value])]


def _id(name: str, value: str) -> int:
    value = value.strip()
    if not (value.isascii() and value.isdigit() and len(value) < 20) or not 0 < int(value) <= _MAX_ID:
        raise BadQuery(f"{name}: takes the number of a picture, such as {name}:123, not {value[:40]!r}.")
    return int(value)


def _order(value: str) -> str:
    value = value.strip().lower()
    if value not in ORDERS:
        raise BadQuery(f"order: is one of {', '.join(ORDERS)}, not {value[:40]!r}.")
    return value


def _min(value: str) -> int:
    value = value.strip().removesuffix("%").strip()
    if not (value.isascii() and value.isdigit() and len(value) < 4) or int(value) > 100:
        raise BadQuery(f"min= takes a match in per cent, a whole number from 0 to 100, not {value[:40]!r}.")
    return int(value)


def _upload(value: str) -> str:
    if not _TOKEN.match(value.strip()):
        raise BadQuery("The picture to search with is not known here. Choose or drop it again.")
    return value.strip()
