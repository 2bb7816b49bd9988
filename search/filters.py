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


_registry: dict[str, Filter] = {}

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


def filtered(terms: Iterable[Term], user: Any) -> ImageQuerySet:
    """The images that `user` may see and that pass every term, in no order.

    Only listed images (not hidden, removed, missing or unreadable), unless a term asks for such images and
    the user may edit them. Raises BadQuery when a term speaks of something that is not there.
    """
    terms = list(terms)
    return narrow(within_reach(terms, user), terms, user)


def narrow(queryset: ImageQuerySet, terms: Sequence[Term], user: Any) -> ImageQuerySet:
    """`queryset` limited to what passes every term."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for one in terms:
        groups.setdefault((one.name, one.negated), []).append(one.value)
    for (name, negated), values in groups.items():
        filter = get(name)
        if filter is None:
            raise BadQuery(f"There is no filter named {name!r} any more. Take it out of the search.")
        if negated:
            for value in values:
                queryset = queryset.exclude(pk__in=_passing(filter, value, user, negated=True))
        elif filter.several == "any" and len(values) > 1:
            queryset = queryset.filter(_any_of(filter, values, user))
        else:
            for value in values:
                with _naming(Term(name, value)):
                    queryset = filter.apply(queryset, value, user)
    return queryset


def shows_unlisted(terms: Iterable[Term]) -> bool:
    """Whether a term asks for images that are otherwise not listed."""
    return bool(_asked(terms))


def _asked(terms: Iterable[Term]) -> set[str]:
    asked: set[str] = set()
    for one in terms:
        filter = get(one.name)
        if filter is not None and not one.negated and one.value in filter.unlisted:
            asked.add(one.value)
    return asked


def within_reach(terms: Sequence[Term], user: Any) -> ImageQuerySet:
    """What `user` may see at all under these terms, before any of them narrows it: see `filtered`."""
    from search.models import Image

    visible = Image.objects.visible_to(user)
    asked = _asked(terms)
    if not asked:
        return visible.listed()
    if asked == {"hidden"}:
        return visible.editable_by(user).filter(state__in=["waiting", "ready"])
    return visible.editable_by(user)


def _passing(filter: Filter, value: str, user: Any, *, negated: bool = False) -> Any:
    from search.models import Image

    with _naming(Term(filter.name, value, negated)):
        return filter.apply(Image.objects.all(), value, user).order_by().values("pk")


def _any_of(filter: Filter, values: Sequence[str], user: Any) -> Any:
    from django.db.models import Q

    condition = Q()
    for value in values:
        condition |= Q(pk__in=_passing(filter, value, user))
    return condition
