"""Small real pictures for tests that need files."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

from PIL import Image as PilImage


def jpeg(number: int = 0, *, size: tuple[int, int] = (48, 40)) -> bytes:
    """A JPEG whose bytes and pixels depend on `number`."""
    picture = PilImage.new("RGB", size, (number * 37 % 256, number * 91 % 256, number * 13 % 256))
    picture.putpixel((1, 1), (number % 256, number // 256 % 256, 200))
    out = BytesIO()
    picture.save(out, "JPEG", comment=b"picture %d" % number)
    return out.getvalue()


def put(path: Path | bytes, content: bytes | int = 0, *, mtime: float | None = None) -> None:
    """Write a file (a number stands for `jpeg(number)`), making folders on the way."""
    raw = os.fsencode(path)
    os.makedirs(os.path.dirname(raw), exist_ok=True)
    with open(raw, "wb") as file:
        file.write(jpeg(content) if isinstance(content, int) else content)
    if mtime is not None:
        os.utime(raw, (mtime, mtime))
