"""Very many short texts as one buffer of bytes, looked through for words without a call for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from search.arrays import Bitmap, Ids

BLOCK = 1 << 18
"""Bytes looked through at once: few enough to stay in the processor's cache."""
_END = b"\xff"
"""Follows each text: no byte of UTF-8."""

_Bytes = npt.NDArray[np.uint8]


class Texts:
    """Texts by number, in UTF-8. Never changed once made, so that threads need no lock.

    A text takes its bytes, one more and four for where it begins (eight past 2 GB).
    """

    def __init__(self, buffer: _Bytes, widths: npt.NDArray[np.int32]) -> None:
        """`widths[n]`: bytes of text n with the byte that ends it; 0 where there is no such text."""
        starts: npt.NDArray[Any] = np.zeros(len(widths) + 1, dtype=np.int32 if len(buffer) < 2**31 else np.int64)
        np.cumsum(widths, out=starts[1:])
        self._buffer, self._starts = buffer, starts
        self._frequency = np.zeros(256, dtype=np.int64)
        for start in range(0, len(buffer), BLOCK):
            self._frequency += np.bincount(buffer[start : start + BLOCK], minlength=256)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> bytes:
        """The text of this number; b"" where there is none."""
        start, end = self._starts[number : number + 2]
        return self._buffer[start : max(start, end - 1)].tobytes()

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes + self._starts.nbytes

    def containing(self, word: bytes) -> Bitmap:
        """`bitmap[number]`, shape (len,): the texts in which this word of UTF-8 stands; every text, of no word."""
        found = np.zeros(len(self), dtype=np.bool_)
        if not word:
            return ~found
        places = self._rarest_first(word)
        if not self._frequency[word[places[0]]]:
            return found
        # The beginnings of words of this length, whole block after whole block.
        for first in range(0, len(self._buffer) - len(word) + 1, BLOCK):
            last = min(first + BLOCK, len(self._buffer) - len(word) + 1)
            hits = self._hits(word, places, first, last)
            if len(hits):
                found[self._numbers(hits)] = True
        return found

    def starting(self, word: bytes, among: Ids) -> Ids:
        """Those of these numbers whose texts begin with this word."""
        starts = self._starts[among]
        # A text that ended before differs in the byte that ends it: nothing is read of the one behind.
        for place, byte in enumerate(word):
            at = starts + place
            there = at < len(self._buffer)
            there[there] = self._buffer[at[there]] == byte
            among, starts = among[there], starts[there]
        return among

    def ending(self, word: bytes) -> Bitmap:
        """`bitmap[number]`, shape (len,): the texts that end with this word."""
        begins = self._starts[1:] - (1 + len(word))
        found = begins >= self._starts[:-1]
        for place, byte in enumerate(word):
            found[found] = self._buffer[begins[found] + place] == byte
        return found

    def _numbers(self, places: Ids) -> Ids:
        """Of which texts these bytes of the buffer are; the places ascend and lie close together."""
        first, last = np.searchsorted(self._starts, places[[0, -1]].astype(self._starts.dtype), side="right")
        near = self._starts[first - 1 : last]
        return np.searchsorted(near, places.astype(near.dtype), side="right") + (first - 2)

    def _rarest_first(self, word: bytes) -> list[int]:
        """The places of the word, that of its rarest byte in these texts first."""
        return sorted(range(len(word)), key=lambda place: int(self._frequency[word[place]]))

    def _hits(self, word: bytes, places: Sequence[int], first: int, last: int) -> Ids:
        """Where between these two the word begins."""
        same = self._buffer[first + places[0] : last + places[0]] == word[places[0]]
        for place in places[1:2]:
            same &= self._buffer[first + place : last + place] == word[place]
        hits = np.flatnonzero(same) + first
        for place in places[2:]:
            if not len(hits):
                break
            hits = hits[self._buffer[hits + place] == word[place]]
        return hits


class TextsWriter:
    """Puts `Texts` together, portion by portion."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._widths: list[npt.NDArray[np.int32]] = []

    def add(self, texts: Sequence[bytes]) -> None:
        """Texts that follow those before, their ASCII letters made small."""
        if texts:
            self._buffer += _END.join(texts).lower()
            self._buffer += _END
            self._widths.append(np.fromiter(map(len, texts), dtype=np.int32, count=len(texts)) + np.int32(1))

    def made(self, numbers: Ids | None = None) -> Texts:
        """The texts: those added were of these numbers, ascending; without, of 0, 1 and so on."""
        widths = np.concatenate([np.zeros(0, dtype=np.int32), *self._widths])
        if numbers is not None:
            spread = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=np.int32)
            spread[numbers] = widths
            widths = spread
        return Texts(np.frombuffer(bytes(self._buffer), dtype=np.uint8), widths)
