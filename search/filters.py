"""The registry of filters: what `name:value` in the search box and the filter form mean.

Pure but for the callables that are registered: a filter's `parse` works on text alone, its `apply` on a
queryset. Other apps register theirs in `AppConfig.ready()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from search.errors import BadQuery

if TYPE_CHECKING:
    from search.arrays import Bitmap
    from search.bitmaps import Library
    from search.querysets import ImageQuerySet


@dataclass(frozen=True)
class Term:
    """One condition of a query: a registered filter, its canonical value, and whether it must not hold."""

    name: str
    value: str
    negated: bool = False


@dataclass(frozen=True)
class Choice:
    """A value the filter form offers, counted through the images the person may see (None: not counted)."""

    value: str
    label: str
    count: int | None = None


class Apply(Protocol):
    def __call__(self, queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet: ...


class AtHand(Protocol):
    def __call__(self, value: str, library: Library, number: int, user: Any) -> Bitmap | None:
        """`bitmap[id]` of the images that pass for this user, at this number of the change log or a later one: the same
        as `apply`, for ids that are no image's whatever comes. None: that has to be asked of the database now."""


@dataclass(frozen=True)
class Filter:
    """One operator of the search box and of the filter form."""

    name: str
    """What is typed before the colon; lower-case letters."""
    label: str
    """Name in the form."""
    help: str
    """One sentence for people."""
    parse: Callable[[str], str]
    """Typed value -> canonical value; `parse(parse(x)) == parse(x)`. Raises BadQuery with a sentence."""
    apply: Apply
    """Narrow a queryset of images to those of a canonical value, for this user (None: the command line)."""
    example: str = ""
    choices: Callable[[Any], list[Choice]] | None = None
    """The values to offer to a user, most useful first, counted only through images the user may see."""
    negatable: bool = True
    several: Literal["all", "any"] = "all"
    """What several values of this filter mean together: all of them must hold, or any of them."""
    unlisted: frozenset[str] = frozenset()
    """Canonical values that ask for images which are otherwise not listed (hidden, removed, missing, unreadable):
    they show them to those who may edit them."""
    kept: bool | None = None
    """Whether search may keep what passes and look again only at what the change log says (`search.filter_bitmaps`):
    when all that `apply` asks is told there of each image, or by a kind of entry in `anew`. False: never; None: nobody
    has said, and it is not kept."""
    anew: frozenset[str] = frozenset()
    """Kinds of entries of the change log (`Change.Kind`) after which all is asked anew."""
    at_hand: AtHand | None = None
    """What passes a canonical value, where this process knows that without the database."""
    personal: bool | frozenset[str] = True
    """Whether what passes depends on who asks; or the canonical values for which it does."""


_registry: dict[str, Filter] = {}
_untyped: dict[str, Filter] = {}

RESERVED = frozenset(
    {"like", "unlike", "not", "order", "min", "q", "upload", "page", "offset", "as", "best", "naming", "of"}
)
"""Names that queries and pages use themselves."""


def register(filter: Filter) -> None:
    """Add a filter; a second one of the same name takes the first one's place.

    Raises ValueError for a name that cannot be typed before a colon or that queries use themselves.
    """
    if not (filter.name.isascii() and filter.name.isalpha() and filter.name.islower()) or filter.name in RESERVED:
        raise ValueError(f"{filter.name!r} cannot be a filter's name: lower-case letters, none of {sorted(RESERVED)}")
    _registry[filter.name] = filter


def register_untyped(filter: Filter) -> None:
    """Add a filter that the program uses in terms of its own, and that nobody can type or choose."""
    _untyped[filter.name] = filter


def filter_of(term: Term) -> Filter:
    """The filter that a term speaks of. Raises BadQuery when it is not registered (any more)."""
    filter = get(term.name) or _untyped.get(term.name)
    if filter is None:
        raise BadQuery(f"There is no filter named {term.name!r} any more. Take it out of the search.")
    return filter


def get(name: str) -> Filter | None:
    """The filter of this name, whatever its case; None when there is none."""
    return _registry.get(name.lower())


def all_filters() -> list[Filter]:
    """Every filter, in the order of registration."""
    return list(_registry.values())


def term(name: str, value: str, *, negated: bool = False) -> Term:
    """A checked, canonical term. Raises BadQuery for an unknown filter, a wrong value or a forbidden negation."""
    filter = get(name)
    if filter is None:
        known = ", ".join(sorted(_registry))
        raise BadQuery(f"There is no filter named {name!r}. These are known: {known}.")
    with _naming(Term(filter.name, value.strip(), negated)):
        if negated and not filter.negatable:
            raise BadQuery(f"{filter.name}: cannot be turned round with a minus sign. Leave the minus sign away.")
        if not value.strip():
            raise BadQuery(f"{filter.name}: needs a value right after the colon, for example {filter.example}.")
        return Term(filter.name, filter.parse(value), negated)


@contextmanager
def _naming(term: Term) -> Iterator[None]:
    """A BadQuery that is raised inside names this term as the wrong part."""
    try:
        yield
    except BadQuery as error:
        error.part = error.part or term
        raise


def filtered(terms: Iterable[Term], user: Any, *, among: Iterable[int] | None = None) -> ImageQuerySet:
    """The images that `user` may see and that pass every term, in no order.

    Only listed images (not hidden, removed, missing or unreadable), unless a term asks for such images and
    the user may edit them; only those among these few ids, where they are given. Raises BadQuery when a term speaks
    of something that is not there.
    """
    terms = list(terms)
    reach = within_reach(terms, user)
    if among is None:
        return narrow(reach, terms, user)
    few = [int(i) for i in among]
    return _those(few, narrow(reach.one_of(few), terms, user))


def narrow(queryset: ImageQuerySet, terms: Sequence[Term], user: Any) -> ImageQuerySet:
    """`queryset` limited to what passes every term."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for one in terms:
        groups.setdefault((one.name, one.negated), []).append(one.value)
    for (name, negated), values in groups.items():
        filter = filter_of(Term(name, values[0], negated))
        if negated:
            for value in values:
                queryset = queryset.exclude(pk__in=alone(Term(name, value, True), user, queryset.few).values("pk"))
        elif filter.several == "any" and len(values) > 1:
            queryset = queryset.filter(_any_of(name, values, user, queryset.few))
        else:
            for value in values:
                with _naming(Term(name, value)):
                    queryset = filter.apply(queryset, value, user)
    return queryset


def shows_unlisted(terms: Iterable[Term]) -> bool:
    """Whether a term asks for images that are otherwise not listed."""
    return bool(asked(terms))


def asked(terms: Iterable[Term]) -> set[str]:
    """For which images these terms ask that are otherwise not listed: values of `Filter.unlisted`."""
    found: set[str] = set()
    for one in terms:
        filter = get(one.name)
        if filter is not None and not one.negated and one.value in filter.unlisted:
            found.add(one.value)
    return found


def within_reach(terms: Sequence[Term], user: Any) -> ImageQuerySet:
    """What `user` may see at all under these terms, before any of them narrows it: see `filtered`."""
    from search.models import Image

    visible = Image.objects.visible_to(user)
    unlisted = asked(terms)
    if not unlisted:
        return visible.listed()
    if unlisted == {"hidden"}:
        return visible.editable_by(user).exclude(state__in=["unreadable", "missing", "removed"])
    return visible.editable_by(user)


def alone(term: Term, user: Any, few: Iterable[int] | None = None) -> ImageQuerySet:
    """The images that a single term speaks of, whoever may see them: its minus sign left aside. With `few` only those
    of these ids. Raises BadQuery."""
    from search.models import Image

    filter = filter_of(term)
    with _naming(term):
        if few is None:
            return filter.apply(Image.objects.all(), term.value, user)
        few = list(few)
        return _those(few, filter.apply(Image.objects.all().one_of(few), term.value, user))


def at_hand(term: Term, user: Any, library: Library, number: int) -> Bitmap | None:
    """`alone` as a bitmap, where this process knows it without asking the database of each image. Raises BadQuery."""
    known = filter_of(term).at_hand
    with _naming(term):
        return None if known is None else known(term.value, library, number, user)


def _those(few: list[int], passing: ImageQuerySet) -> ImageQuerySet:
    from django.db.models import Exists

    from search.models import Image

    return Image.objects.filter(Exists(passing), pk__in=few)


def _any_of(name: str, values: Sequence[str], user: Any, few: Iterable[int] | None) -> Any:
    from django.db.models import Q

    condition = Q()
    for value in values:
        condition |= Q(pk__in=alone(Term(name, value), user, few).values("pk"))
    return condition
