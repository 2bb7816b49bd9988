"""From a query to a ranked page of images that the person may see."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from django.conf import settings

from search import background, calibration, filter_bitmaps, filters, naming, ranking, stacks
from search.arrays import Bitmap, Ids
from search.bitmaps import Library, get_library
from search.calibration import Percents
from search.columns import ids_of
from search.examples import Examples, gather
from search.kept import Kept
from search.models import EmbeddingSpace, Image
from search.newest import newest_of
from search.query import Query
from search.serving import serving_space
from search.vectors import get_store

KEPT_RANKINGS, KEPT_IDS, KEPT_SECONDS = 512, 1_000_000, 900
CONVINCING = 0.99
"""From here on a query has an answer beyond doubt, and a better best would not change what its hits are worth."""

_Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hit:
    """One found image. `score` is its cosine to the combined query, `match` what it is worth in per cent (0 to 100;
    see `search.calibration`); both None for a hit by name, tag or filter alone. The image is as a tile needs it
    (`for_tiles`): without its source."""

    id: int
    score: float | None
    image: Image
    match: float | None = None
    place: int = 0
    """Its place in the whole ranking, from 0."""


@dataclass(frozen=True)
class Page:
    """A page of results, best first."""

    hits: list[Hit]
    total: int
    """How many images all pages hold together; when `capped`, hits by name may still follow the ranked ones."""
    offset: int
    limit: int
    space: EmbeddingSpace
    """Where it was searched; for a query without words and examples the space that would serve."""
    unknown_words: list[str]
    """Words that the encoder does not know; they were looked for in names and tags."""
    covered: int
    """How many of the images this person may see have a vector in the space..."""
    of: int
    """...of how many."""
    capped: bool
    """Whether more was found than results are shown (settings.IMAGESEARCH_MAX_RESULTS)."""
    dropped: int
    """Hits of this page that the person may no longer see, that no longer pass the filters, or are gone."""
    notices: list[str]
    took_ms: float
    min_match: int = 0
    """The match % below which nothing is shown, as it was asked for or set; 0: everything is."""
    below: int = 0
    """How many ranked images were left away for it; more when `below_capped`."""
    below_capped: bool = False

    @property
    def next_offset(self) -> int | None:
        """Where the next page starts; None on the last one."""
        end = self.offset + self.limit
        return end if end < self.total else None


@dataclass(frozen=True)
class _Ranking:
    """What was found, whole: `scores` are NaN where there is none."""

    ids: Ids
    scores: _Scores
    matches: Percents
    """Match % of each, NaN where there is no score."""
    space: EmbeddingSpace
    unknown_words: list[str]
    covered: int
    of: int
    capped: bool
    notices: list[str]
    made: float
    seen: tuple[int, int] = (-1, 0)
    """Where the change log stood."""
    names: Callable[[Ids], Ids] | None = None
    """Looks for the hits by name that follow these; after a full ranking nobody reads so far."""
    carrying: int = 0
    """So many of the first carry the words that the encoder does not know: found by name, whatever their score."""
    min_match: int = 0
    below: int = 0
    below_capped: bool = False


@dataclass(frozen=True)
class Passing:
    """How many images match at least so well; `capped`: or more, beyond settings.IMAGESEARCH_MAX_RESULTS."""

    count: int
    min_match: int
    capped: bool


def find(
    query: Query,
    user: Any,
    *,
    offset: int = 0,
    limit: int = 60,
    pictures: Sequence[PIL.Image.Image] = (),
    space: EmbeddingSpace | None = None,
) -> Page:
    """The page of results from `offset` on, for this user (None: the command line, every image).

    Ranked by the cosine to normalise(mean of what is wanted - 0.5 x mean of what is not), where phrases, liked
    images, the upload and `pictures` are what is wanted; at most settings.IMAGESEARCH_MAX_RESULTS. After these come
    images that carry all words of a phrase in their path, title or tags, without a score. Words that the
    encoder does not know are looked for there too, and the images that carry them come first. Without anything
    to rank by: newest first.

    Ranked images that match less than `min_match(query)` are left away and counted (`Page.below`).

    The first page ranks, unless nothing was changed since the same was asked; the pages after it go on in the same
    ranking for a quarter of an hour, so that they neither overlap nor leave anything out while images are added.
    Whether the user may see an image is checked for every page anew.

    Everything is of one space: the one that serves in this process now, or `space`, which is then not replaced by
    `look` when its model is not here (EncoderUnavailable).

    Raises BadQuery with a sentence (an example that is not there, a source that does not exist, an expired
    upload), SpaceMismatch or StoreFault when the space cannot be searched.
    """
    started = time.perf_counter()
    offset, limit = max(0, offset), max(1, limit)
    key = (query, _who(user), None if space is None else space.pk)
    ranking = None if pictures else _rankings.get(key)
    if ranking is None or not (offset or _still_so(ranking, query, space)):
        ranking = _passing(_nearest(query, user, pictures, space), query, min_match(query, pictures))
        _rankings.put(key, ranking, keep=not pictures)
    elif not offset:
        ranking = replace(ranking, made=time.monotonic())  # the pages after it have their quarter of an hour
        _rankings.put(key, ranking, keep=True)
    if ranking.names is not None and offset + limit >= len(ranking.ids):
        ranking = _with_names(ranking)
        _rankings.put(key, ranking, keep=not pictures)
    ids, scores = ranking.ids[offset : offset + limit], ranking.scores[offset : offset + limit]
    score_of = dict(zip(ids.tolist(), _numbers(scores), strict=True))
    match_of = dict(zip(ids.tolist(), _numbers(ranking.matches[offset : offset + limit]), strict=True))
    place_of = {pk: offset + place for place, pk in enumerate(ids.tolist())}
    images = filters.filtered(query.filters, user, among=ids).for_tiles().in_order_of(ids)
    return Page(
        hits=[Hit(image.pk, score_of[image.pk], image, match_of[image.pk], place_of[image.pk]) for image in images],
        total=len(ranking.ids),
        offset=offset,
        limit=limit,
        space=ranking.space,
        unknown_words=ranking.unknown_words,
        covered=ranking.covered,
        of=ranking.of,
        capped=ranking.capped,
        dropped=len(ids) - len(images),
        notices=[*query.notices, *ranking.notices],
        took_ms=(time.perf_counter() - started) * 1000,
        min_match=ranking.min_match,
        below=ranking.below,
        below_capped=ranking.below_capped,
    )


def min_match(query: Query, pictures: Sequence[PIL.Image.Image] = ()) -> int:
    """The match % below which this query shows nothing: what it asks for, else settings.IMAGESEARCH_MIN_MATCH.

    Without words asked for there is no limit but an asked one: who looks for more of a picture wants the nearest.
    """
    if not (query.ranked or pictures):
        return 0
    if query.min is not None:
        return query.min
    return settings.IMAGESEARCH_MIN_MATCH if query.phrases else 0


def passing(query: Query, user: Any) -> Passing:
    """How many ranked images match at least as well as the query asks; goes on in the ranking that was shown last.

    Raises what `find` raises.
    """
    least = min_match(query)
    nearest = _rankings.get(_nearest_key(query, user)) or _nearest(query, user, ())
    count = int((nearest.matches >= least).sum())
    ranked = int((~np.isnan(nearest.scores)).sum())
    return Passing(count, least, capped=nearest.capped and count >= ranked)


@dataclass(frozen=True)
class Everything:
    """All that a query finds, in order: `scores` are float32, NaN where there is none."""

    ids: Ids
    scores: _Scores
    capped: bool
    """Whether more would be ranked than settings.IMAGESEARCH_MAX_RESULTS; without a ranking nothing is left out."""
    notices: list[str]


def everything(query: Query, user: Any) -> Everything:
    """All pages together.

    With words or examples what `find` would page through; without them every image that passes the filters, however
    many. Raises what `find` raises.
    """
    if not query.ranked:
        images = stacks.folded(query.filters, user).newest_first()
        images = images.reverse() if query.order == "oldest" else images
        ids = np.fromiter(images.values_list("pk", flat=True).iterator(chunk_size=20_000), dtype=np.int64)
        return Everything(ids, np.full(len(ids), np.nan, dtype=np.float32), False, list(query.notices))
    key = (query, _who(user), None)
    ranking = _rankings.get(key) or _passing(_nearest(query, user, ()), query, min_match(query))
    ranking = _with_names(ranking)
    _rankings.put(key, ranking, keep=True)
    portion = max(100, 10_000 // (1 + len(query.filters)))  # SQLite takes 32,766 parameters, and each term has its own
    portions = [ranking.ids[start : start + portion] for start in range(0, len(ranking.ids), portion)]
    parts = [ids_of(filters.filtered(query.filters, user, among=some)) for some in portions]
    kept = np.isin(ranking.ids, np.concatenate([ranking.ids[:0], *parts]))
    notices = [*query.notices, *ranking.notices]
    return Everything(ranking.ids[kept], ranking.scores[kept], ranking.capped, notices)


def reset_rankings() -> None:
    """Forget every kept ranking, every filter's bitmap, every encoded text and the library's background."""
    _rankings.clear()
    filter_bitmaps.reset_filter_bitmaps()
    ranking.reset_texts()
    background.reset_background()


_rankings = Kept[_Ranking](KEPT_RANKINGS, KEPT_SECONDS, weigh=lambda one: len(one.ids), heaviest=KEPT_IDS)


def _who(user: Any) -> Any:
    """For whom a ranking is: as which the person is let in may change, and no entry of the change log says so."""
    return None if user is None else (user.pk, user.is_active, user.is_staff)


def _still_so(ranking: _Ranking, query: Query, space: EmbeddingSpace | None) -> bool:
    """Whether ranking again would find the same: nothing was written since, and what serves is what served."""
    if query.like or query.unlike or query.upload or ranking.notices:
        return False  # pictures may have expired, and what was missing may be there now
    if any(not filters.filter_of(one).kept for one in query.filters):
        return False  # the change log may say nothing of what they ask
    return ranking.seen == get_library().stands and (space or serving_space()).pk == ranking.space.pk


def _nearest_key(query: Query, user: Any, space: EmbeddingSpace | None = None) -> Any:
    return (replace(query, min=0, order="best"), _who(user), None if space is None else space.pk, "nearest")


def _nearest(
    query: Query, user: Any, pictures: Sequence[PIL.Image.Image], space: EmbeddingSpace | None = None
) -> _Ranking:
    """Everything near, best first, with its match %; kept, so that moving the limit ranks nothing again."""
    library = get_library()
    stands, visible = library.stands, library.visible(user)
    if not (query.ranked or pictures):
        return _newest(query, user, library, visible, space or serving_space())
    examples = gather(query, user, pictures, library, space)
    embedded = _fitted(library.embedded(examples.space.pk), visible)
    allowed = _allowed(query, user, library, visible, examples)
    most = settings.IMAGESEARCH_MAX_RESULTS
    names: Callable[[Ids], Ids] | None = None
    carrying = 0
    if examples.vector is not None and not examples.unknown_groups:
        ids, scores = _best(examples, allowed & embedded)
        if len(ids) < most:
            names = partial(_besides, _by_name(query, ids[:0], allowed))
        else:
            names = partial(_names_after, query, user, examples)
    elif examples.vector is not None:
        ids, scores, carrying = _words_first(query, user, library, examples, allowed, embedded)
    else:
        # Only unwanted names were given: what is left, newest first.
        everything = allowed if examples.unwanted_groups and not examples.unknown_groups else None
        carrying_any = naming.carrying(examples.unknown_groups, library, allowed)
        ids = newest_of(everything if carrying_any is None else carrying_any)
        scores = np.full(len(ids), np.nan, dtype=np.float32)
    ranked = int((~np.isnan(scores)).sum())
    capped = ranked >= most or len(ids) - ranked >= most
    ids, kept = stacks.fold(ids, library, allowed)
    scores, carrying = scores[kept], int(kept[:carrying].sum())
    made = _Ranking(
        ids=ids,
        scores=scores,
        matches=_matches(query, examples, scores, visible & embedded),
        space=examples.space,
        unknown_words=examples.unknown_words,
        covered=int((visible & embedded).sum()),
        of=int(visible.sum()),
        capped=capped,
        notices=examples.notices,
        made=time.monotonic(),
        seen=stands,
        names=names,
        carrying=carrying,
    )
    _rankings.put(_nearest_key(query, user, space), made, keep=not pictures)
    return made


def _matches(query: Query, examples: Examples, scores: _Scores, searchable: Bitmap) -> Percents:
    """Match % of these scores. `searchable`: what this person may see in the space, filters left aside."""
    if examples.vector is None or np.isnan(scores).all():
        return np.full(len(scores), np.nan)
    among = searchable.copy()
    among[[i for i in query.like if i < len(among)]] = False
    count = int(among.sum())
    scale = background.scale_of(
        examples.vector, examples.make, space=examples.space, encoder=examples.encoder, among=searchable,
        besides=(*query.like, *query.unlike),
    )  # fmt: skip
    best = float(np.nanmax(scores))
    found = calibration.calibration(scale, best=best, among=count)
    if found.answered < CONVINCING and (query.filters or examples.unwanted_groups):
        # Whether the query has an answer is a matter of the whole library: what a filter lets through keeps its match.
        best = max(best, *get_store(examples.space).search(examples.vector, 1, among=among).scores[0].tolist())
        found = calibration.calibration(scale, best=best, among=count)
    return found.percents(scores)


def _passing(nearest: _Ranking, query: Query, least: int) -> _Ranking:
    """What of it matches at least so well, in the order that the query asks for."""
    kept = np.isnan(nearest.matches) | (nearest.matches >= least)
    kept[: nearest.carrying] = True
    below = int((~kept).sum())
    ids, scores, matches = nearest.ids[kept], nearest.scores[kept], nearest.matches[kept]
    made = replace(
        nearest, ids=ids, scores=scores, matches=matches, min_match=least, below=below,
        below_capped=bool(below) and nearest.capped, capped=nearest.capped and not below, made=time.monotonic(),
    )  # fmt: skip
    if made.names is not None and (not nearest.capped or query.order != "best"):
        made = _with_names(made)
    if query.order != "best":
        made = _by_date(made, newest=query.order == "newest")
    return made


def _newest(query: Query, user: Any, library: Library, visible: Bitmap, space: EmbeddingSpace) -> _Ranking:
    """Nothing to rank by: what passes the filters, newest (or oldest) first."""
    most = settings.IMAGESEARCH_MAX_RESULTS
    images = stacks.folded(query.filters, user).newest_first()
    if query.order == "oldest":
        images = images.reverse()
    ids = np.fromiter(images.values_list("pk", flat=True)[: most + 1], dtype=np.int64)
    return _Ranking(
        ids=ids[:most],
        scores=np.full(min(len(ids), most), np.nan, dtype=np.float32),
        matches=np.full(min(len(ids), most), np.nan),
        space=space,
        unknown_words=[],
        covered=int((visible & _fitted(library.embedded(space.pk), visible)).sum()),
        of=int(visible.sum()),
        capped=len(ids) > most,
        notices=[],
        made=time.monotonic(),
    )


def _allowed(query: Query, user: Any, library: Library, visible: Bitmap, examples: Examples) -> Bitmap:
    """`bitmap[id]` of the images that pass the filters, carry no unwanted word and are no example. A fresh array."""
    allowed = visible.copy()
    if query.filters:
        allowed = _fitted(filter_bitmaps.allowed(query.filters, user, library), visible)
    unwanted = naming.carrying(examples.unwanted_groups, library, allowed)
    if unwanted is not None:
        allowed &= ~unwanted
    shown = stacks.mates(query.like, library)
    allowed[shown[shown < len(allowed)]] = False
    return allowed


def _best(examples: Examples, among: Bitmap) -> tuple[Ids, _Scores]:
    """The best by cosine among these, without padding."""
    if examples.vector is None:
        raise ValueError("there is nothing to rank by")
    found = get_store(examples.space).search(examples.vector, settings.IMAGESEARCH_MAX_RESULTS, among=among)
    kept = found.ids[0] >= 0
    return found.ids[0][kept], found.scores[0][kept]


def _words_first(
    query: Query, user: Any, library: Library, examples: Examples, allowed: Bitmap, embedded: Bitmap
) -> tuple[Ids, _Scores, int]:
    """Images that carry the words the encoder does not know, ranked; then those without a vector; then the others.

    Third, how many carry them.
    """
    carrying = naming.carrying(examples.unknown_groups, library, allowed)
    if carrying is None:
        carrying = np.zeros_like(allowed)
    first = _followed(*_best(examples, carrying & embedded), newest_of(carrying & ~embedded))
    ids, scores = _best(examples, allowed & embedded & ~carrying)
    room = max(0, settings.IMAGESEARCH_MAX_RESULTS - len(first[0]))
    return np.concatenate([first[0], ids[:room]]), np.concatenate([first[1], scores[:room]]), len(first[0])


def _with_names(ranking: _Ranking) -> _Ranking:
    """The ranking with the hits by name that were put off."""
    if ranking.names is None:
        return ranking
    more = ranking.names(ranking.ids)
    ids, scores = _followed(ranking.ids, ranking.scores, more)
    matches = np.concatenate([ranking.matches, np.full(len(more), np.nan)])
    library = get_library()
    ids, kept = stacks.fold(ids, library, library.bitmap(ids))
    scores, matches = scores[kept], matches[kept]
    capped = ranking.capped or len(more) >= settings.IMAGESEARCH_MAX_RESULTS
    return replace(ranking, ids=ids, scores=scores, matches=matches, capped=capped, names=None)


def _names_after(query: Query, user: Any, examples: Examples, ranked: Ids) -> Ids:
    """Hits by name after these, looked for now."""
    library = get_library()
    allowed = _allowed(query, user, library, library.visible(user), examples)
    return _by_name(query, ranked, allowed)


def _besides(named: Ids, ranked: Ids) -> Ids:
    return named[~np.isin(named, ranked)]


def _by_name(query: Query, ranked: Ids, allowed: Bitmap) -> Ids:
    """Images that carry all words of a phrase and are not ranked, newest first."""
    rest = allowed.copy()
    rest[ranked[ranked < len(rest)]] = False
    groups = (naming.words_of(phrase) for phrase in query.phrases)
    return newest_of(naming.carrying(groups, get_library(), rest))


def _followed(ids: Ids, scores: _Scores, more: Ids) -> tuple[Ids, _Scores]:
    """Hits followed by some without a score."""
    return np.concatenate([ids, more]), np.concatenate([scores, np.full(len(more), np.nan, dtype=np.float32)])


def _by_date(ranking: _Ranking, *, newest: bool) -> _Ranking:
    """The same hits by date; no more than a few thousand."""
    ids = ranking.ids
    shown: dict[int, Any] = {}
    for start in range(0, len(ids), 5_000):
        chunk = ids[start : start + 5_000].tolist()
        shown.update(Image.objects.filter(pk__in=chunk).values_list("pk", "shown_at"))
    known = [n for n, i in enumerate(ids.tolist()) if i in shown]
    known.sort(key=lambda n: (shown[int(ids[n])], int(ids[n])), reverse=newest)
    return replace(ranking, ids=ids[known], scores=ranking.scores[known], matches=ranking.matches[known])


def _numbers(values: npt.NDArray[np.floating]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _fitted(flags: Bitmap, like: Bitmap) -> Bitmap:
    """As long as the other one: images that arrived between two looks at the library wait for the next search."""
    if len(flags) >= len(like):
        return flags[: len(like)]
    return np.concatenate([flags, np.zeros(len(like) - len(flags), dtype=np.bool_)])
