"""Small pictures on disk for tests of the worker: distinct, seeded, each file newer than the one before."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import PIL.Image

_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    ' xmp:Rating="{rating}"><dc:title><rdf:Alt><rdf:li xml:lang="x-default">{title}</rdf:li></rdf:Alt></dc:title>'
    "<dc:subject><rdf:Bag>{keywords}</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def picture(seed: int, size: tuple[int, int] = (96, 80)) -> PIL.Image.Image:
    """A smooth coloured pattern, different for each seed."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC)


def write(path: Path, seed: int, *, size: tuple[int, int] = (96, 80), mtime: float | None = None, **options) -> Path:  # type: ignore[no-untyped-def]
    """Save `picture(seed)`; `mtime` in seconds, where it matters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path, quality=90, **options)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


def xmp(*keywords: str, title: str = "", rating: int = 0) -> bytes:
    """An XMP packet for `write(..., xmp=...)`."""
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)
    return _XMP.format(keywords=items, title=title, rating=rating).encode()


def folder_of(root: Path, count: int, *, first: int = 0) -> Path:
    """`count` distinct JPEGs photo0000.jpg ..., each newer than the one before it."""
    for number in range(first, first + count):
        write(root / f"photo{number:04}.jpg", number, mtime=1_700_000_000 + number)
    return root
