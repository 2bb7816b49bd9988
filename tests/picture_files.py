"""Files made by hand for tests: what no encoder at hand writes, and what is broken on purpose."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def scene(width: int = 320, height: int = 240, seed: int = 1) -> Image.Image:
    """A smooth colourful picture with no symmetry, so that every turn of it looks different."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    random = np.random.default_rng(seed)
    red = 255 * x / width
    green = 255 * y / height
    blue = 127 + 60 * np.sin(x / 40 + random.random()) + 60 * np.cos(y / 23)
    return Image.fromarray(np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG from its parts: `rows` are the unfiltered scanlines, each after a zero byte; `extra` are further chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra
        + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    )  # fmt: skip


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(pixels: np.ndarray) -> bytes:
    """uint16 pixels, (h, w) grey or (h, w, 3) colour -> PNG."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png(width, height, depth=16, colour=2 if pixels.ndim == 3 else 0, rows=rows)


def matrix_profile(colorants: np.ndarray, gamma: float) -> bytes:
    """A minimal ICC v2 display profile: `colorants` is (3, 3), the XYZ (D50) of red, green, blue in its rows."""

    def fixed(values: Any) -> bytes:
        return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)

    white = (0.9642, 1.0, 0.8249)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = [(b"wtpt", b"XYZ " + bytes(4) + fixed(white))]
    tags += [
        (name, b"XYZ " + bytes(4) + fixed(row))
        for name, row in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True)
    ]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    tags += [
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79)),
        (b"cprt", b"text" + bytes(4) + b"none\0"),
    ]
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags:
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    size = at + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    header += bytes(28) + fixed(white)
    return header + bytes(128 - len(header)) + table + body


ADOBE_RGB = np.array([[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]])
DISPLAY_P3 = np.array([[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]])
_SRGB = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])


def to_srgb_by_the_book(rgb: tuple[int, int, int], colorants: np.ndarray, gamma: float) -> np.ndarray:
    """The sRGB levels of a colour of a matrix profile, computed from the definitions (IEC 61966-2-1)."""
    xyz = ((np.array(rgb) / 255) ** gamma) @ colorants
    linear = np.clip(xyz @ np.linalg.inv(_SRGB), 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def jpeg_of_many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each costs the decoder a pass over all pixels."""
    data = encoded(Image.new("L", (side, side), 90), "JPEG", progressive=True, quality=50)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]
