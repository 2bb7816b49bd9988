"""Pictures that really lie on disk, for tests of the pages."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import PIL.Image

from search.models import Image, Source
from tests.factories import make_image


def jpeg(colour: str = "red", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    out = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(out, options.pop("format", "JPEG"), **options)
    return out.getvalue()


def image_on_disk(
    source: Source, name: str | bytes = "a.jpg", data: bytes | None = None, *, format: str = "JPEG", **fields: Any
) -> Image:
    """An Image whose file really lies in the source's folder."""
    data = jpeg() if data is None else data
    raw = os.fsencode(name)
    Path(os.fsdecode(source.root + b"/" + raw)).write_bytes(data)
    return make_image(source, raw, sha256=hashlib.sha256(data).digest(), size=len(data), format=format, **fields)


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content
