"""DNG files made in code: a real colour filter array that LibRaw develops, with or without an embedded preview.

Written after Adobe's DNG specification 1.4; no camera's own files lie here.
"""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image as PilImage

BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL = 1, 2, 3, 4, 5, 10
_SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, SRATIONAL: 8}
_XYZ_OF_SRGB = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
"""XYZ to linear sRGB: a camera whose own colours are those of sRGB."""


def scene(width: int = 640, height: int = 480) -> np.ndarray:
    """Linear RGB, (h, w, 3) in 0 to 1: red at the top left, green at the top right, blue below, grey in the middle."""
    picture = np.zeros((height, width, 3))
    picture[: height // 2, : width // 2] = (0.8, 0.05, 0.05)
    picture[: height // 2, width // 2 :] = (0.05, 0.7, 0.05)
    picture[height // 2 :] = (0.05, 0.05, 0.8)
    picture[height * 2 // 5 : height * 3 // 5, width * 2 // 5 : width * 3 // 5] = 0.4
    return picture


def dng(
    *,
    size: tuple[int, int] = (640, 480),
    preview: tuple[int, int] | None = None,
    preview_colour: tuple[int, int, int] = (200, 120, 10),
    orientation: int = 1,
    cut: bool = False,
) -> bytes:
    """An uncompressed RGGB DNG; `preview` is the size of a JPEG of one colour in its first directory."""
    width, height = size
    linear = scene(width, height)
    mosaic = np.zeros((height, width))
    for (row, column), channel in {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}.items():
        mosaic[row::2, column::2] = linear[row::2, column::2, channel]
    pixels = (mosaic * 65535).astype("<u2").tobytes()
    raw = [
        (254, LONG, [0]), (256, LONG, [width]), (257, LONG, [height]), (258, SHORT, [16]), (259, SHORT, [1]),
        (262, SHORT, [32803]), (273, LONG, ["pixels"]), (277, SHORT, [1]), (278, LONG, [height]),
        (279, LONG, [len(pixels)]), (33421, SHORT, [2, 2]), (33422, BYTE, [0, 1, 1, 2]), (50714, SHORT, [0]),
        (50717, LONG, [65535]),
    ]  # fmt: skip
    common = [
        (271, ASCII, b"Testmaker\0"), (272, ASCII, b"Testcam 1\0"), (274, SHORT, [orientation]),
        (306, ASCII, b"2021:05:04 10:20:30\0"), (34665, LONG, ["exif"]), (50706, BYTE, [1, 4, 0, 0]),
        (50707, BYTE, [1, 1, 0, 0]), (50708, ASCII, b"Testmaker Testcam 1\0"), (50721, SRATIONAL, list(_XYZ_OF_SRGB)),
        (50728, RATIONAL, [1.0, 1.0, 1.0]), (50778, SHORT, [21]),
    ]  # fmt: skip
    exif = [(33434, RATIONAL, [0.005]), (36867, ASCII, b"2021:05:04 10:20:30\0"), (34855, SHORT, [400])]
    blobs = {"pixels": pixels[: len(pixels) // 3] if cut else pixels}
    if preview is None:
        directories = {"first": sorted(raw + common), "exif": exif}
    else:
        out = BytesIO()
        PilImage.new("RGB", preview, preview_colour).save(out, "JPEG", quality=90)
        blobs["preview"] = out.getvalue()
        jpeg = [
            (254, LONG, [1]), (256, LONG, [preview[0]]), (257, LONG, [preview[1]]), (258, SHORT, [8, 8, 8]),
            (259, SHORT, [7]), (262, SHORT, [6]), (273, LONG, ["preview"]), (277, SHORT, [3]),
            (278, LONG, [preview[1]]), (279, LONG, [len(blobs["preview"])]), (330, LONG, ["raw"]),
        ]  # fmt: skip
        directories = {"first": sorted(jpeg + common), "raw": sorted(raw), "exif": exif}
    return _tiff(directories, blobs)


def _tiff(directories: dict[str, list], blobs: dict[str, bytes]) -> bytes:
    """Little-endian TIFF; a text among LONG values names the directory or blob whose offset stands there."""
    offsets: dict[str, int] = {}
    at = 8
    for name, tags in directories.items():
        offsets[name] = at
        at += 2 + 12 * len(tags) + 4 + sum(n + n % 2 for _, kind, v in tags if (n := _SIZES[kind] * len(v)) > 4)
    for name, blob in blobs.items():
        offsets[name] = at
        at += len(blob) + len(blob) % 2
    out = bytearray(b"II*\0" + struct.pack("<I", offsets["first"]))
    for name, tags in directories.items():
        assert len(out) == offsets[name]
        beyond = offsets[name] + 2 + 12 * len(tags) + 4
        entries, data = struct.pack("<H", len(tags)), b""
        for tag, kind, values in tags:
            packed = _packed(kind, values, offsets)
            if len(packed) > 4:
                entries += struct.pack("<HHII", tag, kind, len(values), beyond + len(data))
                data += packed + b"\0" * (len(packed) % 2)
            else:
                entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        out += entries + b"\0\0\0\0" + data
    for blob in blobs.values():
        out += blob + b"\0" * (len(blob) % 2)
    return bytes(out)


def _packed(kind: int, values, offsets: dict[str, int]) -> bytes:
    if kind in (ASCII, BYTE):
        return bytes(values)
    if kind == SHORT:
        return struct.pack(f"<{len(values)}H", *values)
    if kind == LONG:
        return struct.pack(f"<{len(values)}I", *(offsets[v] if isinstance(v, str) else v for v in values))
    code = "<II" if kind == RATIONAL else "<ii"
    return b"".join(struct.pack(code, round(value * 10_000), 10_000) for value in values)
