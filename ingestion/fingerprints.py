"""What a picture's thumbnail says about it: a perceptual hash, sharpness, uniformity and main colours. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

_SIDE = 256
"""Sharpness and uniformity are taken with the short side at most this many pixels, so that they can be compared."""
_NEAR = 12.0
"""Levels of 255: how far from the mean colour (Euclidean, RGB) a pixel counts as the same."""
_COLOURS = 5


@dataclass(frozen=True)
class Fingerprint:
    perceptual_hash: int
    """64-bit pHash (DCT of the 32 x 32 grey picture, low frequencies above their median) as a signed integer."""
    sharpness: float
    """Variance of the Laplacian of the grey picture (levels squared): low is blurred."""
    uniformity: float
    """Share of pixels within a small distance of the mean colour: 1.0 is all one colour."""
    colours: list[list[Any]]
    """Up to five main colours, largest share first: [["#rrggbb", share], ...]."""


def fingerprint(thumbnail: PilImage.Image) -> Fingerprint:
    """RGB thumbnail -> its fingerprint; about 2 ms."""
    picture = thumbnail if thumbnail.mode == "RGB" else thumbnail.convert("RGB")
    if (shorter := min(picture.size)) > _SIDE:
        picture = picture.reduce(max(1, round(shorter / _SIDE)))
    small = picture.resize((64, 64), PilImage.Resampling.BOX)
    grey = picture.convert("L")
    return Fingerprint(
        perceptual_hash=perceptual_hash(grey),
        sharpness=_sharpness(grey),
        uniformity=_uniformity(small),
        colours=_main_colours(small.reduce(2)),
    )


def perceptual_hash(picture: PilImage.Image) -> int:
    """pHash as ImageHash computes it (after Zauner 2010), 64 bits row by row, most significant first, signed."""
    import imagehash

    bits = np.asarray(imagehash.phash(picture).hash, dtype=bool).ravel()
    return int(np.packbits(bits).view(">i8")[0])


def _sharpness(picture: PilImage.Image) -> float:
    """Variance of the 4-neighbour Laplacian (Pech-Pacheco et al. 2000) of a grey picture."""
    grey = np.asarray(picture, dtype=np.int16)
    if min(grey.shape) < 3:
        return 0.0
    centre = grey[1:-1, 1:-1]
    laplacian: npt.NDArray[np.int16] = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * centre
    return float(np.var(laplacian, dtype=np.float64))


def _uniformity(small: PilImage.Image) -> float:
    pixels = np.asarray(small, dtype=np.float32).reshape(-1, 3)
    distance = np.linalg.norm(pixels - pixels.mean(axis=0), axis=1)
    return float((distance <= _NEAR).mean())


def _main_colours(small: PilImage.Image) -> list[list[Any]]:
    """Maximum coverage (a third of median cut's time); colours that hardly differ are one, called by the larger."""
    quantized = small.quantize(_COLOURS, method=PilImage.Quantize.MAXCOVERAGE, dither=PilImage.Dither.NONE)
    palette = quantized.getpalette() or []
    merged: list[tuple[tuple[int, ...], int]] = []
    for count, index in sorted(quantized.getcolors() or [], reverse=True):
        colour = tuple(palette[3 * int(index) : 3 * int(index) + 3])  # type: ignore[call-overload]
        for place, (known, share) in enumerate(merged):
            if sum((a - b) ** 2 for a, b in zip(colour, known, strict=True)) < _NEAR**2:
                merged[place] = (known, share + count)
                break
        else:
            merged.append((colour, count))
    total = small.width * small.height
    merged.sort(key=lambda item: -item[1])
    return [["#" + bytes(colour).hex(), round(count / total, 4)] for colour, count in merged]
