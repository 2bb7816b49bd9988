"""What passes a filter, as bitmaps by image id: kept in this process and followed through the change log.

A bitmap is kept for each term, bit by bit, with the number of the change log at which it stands, and for each person
where what passes depends on who asks. Of what the log says since then only the images concerned are asked about again;
what cannot be told by images (`Filter.anew`), a pruned log and too many images have it made anew. Whoever writes what
a filter asks says so in the log, in the same transaction: see `search.changes`.

Some are made of what this process has read already (`Filter.at_hand`), the others by the database. Several people who
want one at the same moment have it made once: the others wait for the first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from django.conf import settings

from search import filters, review
from search.arrays import Bitmap, Ids
from search.bitmaps import Library
from search.changes import last_number
from search.columns import ids_of
from search.compact import unpack_ids
from search.filters import Term, filter_of
from search.models import Change
from search.querysets import ImageQuerySet

MOST = 512
"""Bitmaps kept at most..."""
MOST_BYTES = 64 * 2**20
"""...in so many bytes: of a million images each takes 125 kB."""
MOST_ENTRIES = 2_000
"""Entries of the change log that are followed; behind more of them a bitmap is made anew..."""
MOST_CHANGED = 20_000
"""...as it is when more images changed."""
_CHUNK = 5_000
_BY_IMAGE = frozenset({Change.Kind.IMAGES.value, Change.Kind.FACTS.value})
_BESIDES = frozenset(set(Change.Kind.values) - _BY_IMAGE)

_Key = tuple[str, str, Hashable, Hashable]
_Entry = tuple[int, str, bytes]


@dataclass(frozen=True)
class _Kept:
    bits: npt.NDArray[np.uint8]
    size: int
    number: int
    """The change-log number at which it stands."""


_kept: OrderedDict[_Key, _Kept] = OrderedDict()
_lock = threading.Lock()
_making: dict[_Key, list[threading.RLock]] = {}
"""For each bitmap that is being made one lock, as often as somebody makes it or waits for it."""


def allowed(terms: Sequence[Term], user: Any, library: Library) -> Bitmap:
    """`bitmap[id]`, as long as the library: the images that `filters.filtered(terms, user)` holds. A fresh array.

    `library` was brought up to date before. Raises BadQuery when a term speaks of something that is not there.
    """
    wanted = list(terms)
    if asked := filters.asked(wanted):
        reach = library.visible(user, to_edit=True, listed=False)
        if asked == {"hidden"}:
            wanted += [Term("is", state, negated=True) for state in ("missing", "removed", "unreadable")]
    else:
        reach = library.visible(user)
    return reach & passing(wanted, user, library, len(reach)) if wanted else reach


def passing(terms: Sequence[Term], user: Any, library: Library, size: int) -> Bitmap:
    """`bitmap[id]`, shape (size,): the images that pass every term, whoever may see them. A fresh array.

    The same as `filters.narrow(Image.objects.all(), terms, user)`, but for ids that are no image's.
    """
    found = _found(list(dict.fromkeys(Term(one.name, one.value) for one in terms)), user, library)
    passes = np.ones(size, dtype=np.bool_)
    any_of: dict[str, list[Bitmap]] = {}
    for one in dict.fromkeys(terms):
        filter, bits = filter_of(one), _unpacked(found[one.name, one.value], size)
        if one.negated:
            passes &= ~bits
        elif filter.several == "any":
            any_of.setdefault(one.name, []).append(bits)
        else:
            passes &= bits
    for several in any_of.values():
        passes &= np.logical_or.reduce(several)
    return passes


def reset_filter_bitmaps() -> None:
    """Forget every kept bitmap."""
    with _lock:
        _kept.clear()


def kept_bytes() -> int:
    """How many bytes the kept bitmaps take."""
    with _lock:
        return _bytes()


def _found(terms: list[Term], user: Any, library: Library) -> dict[tuple[str, str], _Kept]:
    number = library.number
    known: dict[Term, _Kept] = {}
    keys = {one: _key(one, user, library) for one in terms}
    with _lock:
        for one, key in keys.items():
            if key in _kept and filter_of(one).kept:
                known[one] = _kept[key]
                _kept.move_to_end(key)
    if any(kept.number > number for kept in known.values()):  # another thread is further, or numbers were given back
        number = last_number()
        known = {one: kept for one, kept in known.items() if kept.number <= number}
    entries = _entries(min((kept.number for kept in known.values()), default=number), number)
    found: dict[tuple[str, str], _Kept] = {}
    for one in terms:
        kept = known.get(one)
        if kept is not None and kept.number < number:
            kept = None if entries is None else _followed(kept, one, user, entries)
        if not filter_of(one).kept:
            kept = _made(one, user, library, number)
        elif kept is None:
            kept = _made_once(keys[one], one, user, library, number)
        else:
            _put(keys[one], kept)
        found[one.name, one.value] = kept
    return found


def _key(term: Term, user: Any, library: Library) -> _Key:
    """What a term means here: to whom, and under which settings."""
    personal = filter_of(term).personal
    if personal is False or (personal is not True and term.value not in personal):
        who: Hashable = "anybody"
    else:
        who = None if user is None else (user.pk, user.is_active, user.is_staff)
    under = review.thresholds(), settings.IMAGESEARCH_STACKS, settings.TIME_ZONE, library.loads
    return term.name, term.value, who, under


def _made_once(key: _Key, term: Term, user: Any, library: Library, number: int) -> _Kept:
    """Made and kept, where nobody else did both since this was found to be needed. Each fails for themselves."""
    with _turn(key):
        with _lock:
            kept = _kept.get(key)
        if kept is None or kept.number < number or (kept.number > number and kept.number > last_number()):
            kept = _made(term, user, library, number)
            _put(key, kept)
        return kept


@contextmanager
def _turn(key: _Key) -> Iterator[None]:
    """One after the other for each key. Nobody holds two of them, nor `_lock` while waiting for one."""
    with _lock:
        waiting = _making.setdefault(key, [])
        turn = waiting[0] if waiting else threading.RLock()
        waiting.append(turn)
    try:
        with turn:
            yield
    finally:
        with _lock:
            waiting.pop()
            if not waiting:
                del _making[key]


def _made(term: Term, user: Any, library: Library, number: int) -> _Kept:
    flags = filters.at_hand(term, user, library, number)
    if flags is None:
        flags = library.bitmap(_ids(filters.alone(term, user)), longer=True)
    return _packed(flags, number)


def _ids(images: ImageQuerySet) -> Ids:
    return ids_of(images) if images.links is None else ids_of(images.links, "image_id")


def _entries(after: int, upto: int) -> list[_Entry] | None:
    """What the change log says after a number; None when that is too much, or the log was pruned past it."""
    if after >= upto:
        return []
    if upto - after > MOST_ENTRIES:
        return None
    log = Change.objects.filter(number__gt=after, number__lte=upto).order_by("number")
    entries = list(log.values_list("number", "kind", "ids"))
    return entries if len(entries) == upto - after else None


def _followed(kept: _Kept, term: Term, user: Any, entries: list[_Entry]) -> _Kept | None:
    """The bitmap as it stands after these entries; None when it has to be made anew."""
    filter, parts = filter_of(term), []
    for number, kind, packed in entries:
        if number <= kept.number:
            continue
        ids = unpack_ids(packed) if kind in _BY_IMAGE else None
        if kind in filter.anew or (ids is None and kind not in _BESIDES) or (ids is not None and not len(ids)):
            return None
        if ids is not None:
            parts.append(ids)
    changed = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))
    if len(changed) > MOST_CHANGED:
        return None
    if not len(changed):
        return _Kept(kept.bits, kept.size, entries[-1][0])
    flags = _unpacked(kept, max(kept.size, int(changed[-1]) + 1))
    flags[changed] = False
    for start in range(0, len(changed), _CHUNK):
        few = changed[start : start + _CHUNK].tolist()
        flags[ids_of(filters.alone(term, user, few))] = True
    return _packed(flags, entries[-1][0])


def _packed(flags: Bitmap, number: int) -> _Kept:
    return _Kept(np.packbits(flags), len(flags), number)


def _unpacked(kept: _Kept, size: int) -> Bitmap:
    """`bitmap[id]` of this length; a fresh array."""
    flags = np.unpackbits(kept.bits, count=min(size, kept.size)).view(np.bool_)
    return flags if len(flags) == size else np.concatenate([flags, np.zeros(size - len(flags), dtype=np.bool_)])


def _put(key: _Key, kept: _Kept) -> None:
    with _lock:
        _kept[key] = kept  # an older one than another thread put here is only followed once more
        _kept.move_to_end(key)
        while len(_kept) > MOST or (_bytes() > MOST_BYTES and len(_kept) > 1):
            _kept.popitem(last=False)


def _bytes() -> int:
    return sum(kept.bits.nbytes for kept in _kept.values())
