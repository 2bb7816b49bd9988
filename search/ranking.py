"""From words and examples to one vector: the pure part of ranking, and the cache of encoded words."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from search.arrays import Vectors
from search.encoders.base import Encoder
from search.errors import BadQuery

NEGATIVE_WEIGHT = 0.5
_CACHED_TEXTS = 2_000

_Row = npt.NDArray[np.float32]
_texts: OrderedDict[tuple[str, str], _Row | None] = OrderedDict()
_lock = threading.Lock()


def combined(positives: Sequence[_Row], negatives: Sequence[_Row]) -> Vectors:
    """normalise(mean(positives) - 0.5 mean(negatives)), shape (1, dim) float32; needs at least one row.

    The weight is that of Rocchio's relevance feedback (1971) in its common setting. Raises BadQuery when
    what is wanted and what is not cancel each other out.
    """
    total = np.zeros(len([*positives, *negatives][0]), dtype=np.float64)
    if positives:
        total += np.mean(np.stack(positives).astype(np.float64), axis=0)
    if negatives:
        total -= NEGATIVE_WEIGHT * np.mean(np.stack(negatives).astype(np.float64), axis=0)
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise BadQuery("What is looked for and what is left out cancel each other. Change one of them.")
    return (total / length).astype(np.float32)[None, :]


def encoded(encoder: Encoder, text: str) -> _Row | None:
    """The unit vector of a text, (dim,) float32; None when the encoder knows none of its words. Cached."""
    key = (encoder.key, text)
    with _lock:
        if key in _texts:
            _texts.move_to_end(key)
            return _texts[key]
    row: _Row | None = None
    if encoder.text:
        try:
            row = np.asarray(encoder.encode_texts([text])[0], dtype=np.float32)
        except ValueError:
            row = None
    with _lock:
        _texts[key] = row
        while len(_texts) > _CACHED_TEXTS:
            _texts.popitem(last=False)
    return row


def unknown_words(encoder: Encoder, text: str) -> list[str]:
    """The words of a text that the encoder cannot rank by; all of them when it ranks by none."""
    unknown = list(encoder.unknown_words(text)) if encoder.text else []
    return unknown or (text.split() if encoded(encoder, text) is None else [])


def reset_texts() -> None:
    """Forget every encoded text."""
    with _lock:
        _texts.clear()
