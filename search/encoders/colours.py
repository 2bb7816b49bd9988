"""Colour words and colour space: sRGB to CIELAB, and which colours a phrase such as "dark blue" means.

Sources: the eleven basic terms are those of Berlin and Kay, "Basic Color Terms" (1969), with ranges of hue, chroma
and lightness set here; the other names are centroids of the XKCD colour survey (2010, public domain, CC0) and of
CSS Color Module Level 4 (W3C). CIELAB: CIE 15:2004, D65; sRGB: IEC 61966-2-1.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
) / np.array([[0.95047], [1.0], [1.08883]], dtype=np.float32)


@functools.cache
def _linear() -> Floats:
    """sRGB byte -> linear light, (256,) float32."""
    value = np.arange(256, dtype=np.float64) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def lab(pixels: npt.NDArray[np.uint8]) -> Floats:
    """sRGB bytes (..., 3) -> CIELAB (..., 3) float32; L 0 to 100, a and b about -128 to 128."""
    xyz = _linear()[pixels] @ _SRGB_TO_XYZ.T
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * np.float32(841 / 108) + np.float32(4 / 29))
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Range:
    """A region of colours: hue in degrees (None: any), chroma and lightness from-to."""

    hue: tuple[float, float] | None
    chroma: tuple[float, float]
    light: tuple[float, float]


_ANY = (0.0, 150.0)
BASIC: dict[str, Range] = {
    "red": Range((12, 45), (38, 150), (18, 68)),
    "orange": Range((48, 74), (45, 150), (48, 85)),
    "yellow": Range((80, 108), (40, 150), (62, 100)),
    "green": Range((108, 175), (18, 150), (15, 92)),
    "blue": Range((228, 318), (18, 150), (12, 82)),
    "purple": Range((302, 342), (20, 150), (12, 75)),
    "pink": Range((-25, 30), (16, 75), (60, 95)),
    "brown": Range((40, 80), (16, 48), (15, 52)),
    "black": Range(None, (0, 10), (0, 18)),
    "grey": Range(None, (0, 8), (28, 80)),
    "white": Range(None, (0, 8), (88, 100)),
}

NAMED: dict[str, str] = {
    # XKCD colour survey
    "teal": "029386", "turquoise": "06c2ac", "aqua": "13eac9", "magenta": "c20078", "violet": "9a0eea",
    "lavender": "c79fef", "lilac": "cea2fd", "mauve": "ae7181", "maroon": "650021", "burgundy": "610023",
    "olive": "6e750e", "lime": "aaff32", "mustard": "ceb301", "tan": "d1b26f", "beige": "e6daa6",
    "salmon": "ff796c", "coral": "fc5a50", "peach": "ffb07c", "rose": "cf6275", "crimson": "8c000f",
    "scarlet": "be0119", "rust": "a83c09", "indigo": "380282", "navy": "01153e", "periwinkle": "8e82fe",
    "plum": "580f41", "mint": "9ffeb0", "khaki": "aaa662", "charcoal": "343837", "gold": "dbb40c",
    "amber": "feb308", "ivory": "ffffcb", "cream": "ffffc2", "emerald": "01a049", "ochre": "bf9005",
    "terracotta": "ca6641", "sienna": "a9561e", "sepia": "985e2b", "silver": "c5c9c7", "cerulean": "0485d1",
    "sky blue": "75bbfd", "royal blue": "0504aa", "navy blue": "001146", "baby blue": "a2cffe",
    "forest green": "06470c", "lime green": "89fe05", "olive green": "677a04", "sea green": "53fca1",
    "hot pink": "ff028d", "blood red": "980002", "brick red": "8f1402", "midnight blue": "020035",
    "mint green": "8fff9f", "grass green": "3f9b0b", "ice blue": "d7fffe", "steel blue": "5a7d9a",
    # CSS Color Module Level 4
    "cyan": "00ffff", "azure": "f0ffff", "fuchsia": "ff00ff", "orchid": "da70d6", "chocolate": "d2691e",
    "slate": "708090", "aquamarine": "7fffd4", "wheat": "f5deb3",
}  # fmt: skip

SAME = {"gray": "grey", "violet": "purple", "greyscale": "grey", "golden": "gold", "blonde": "gold"}
WITHOUT_COLOUR = {"greyscale", "grayscale", "monochrome", "monochromatic", "colourless", "colorless", "desaturated"}
COLOURFUL = {"colourful", "colorful", "multicoloured", "multicolored", "multicolour", "multicolor", "rainbow"}
MODIFIERS = {"dark", "deep", "light", "pale", "pastel", "bright", "vivid", "dull", "muted"}
FILLERS = {
    "a", "an", "the", "and", "or", "with", "in", "of", "on", "very", "some", "more", "mostly", "all", "is", "are",
    "colour", "colours", "color", "colors", "coloured", "colored", "tone", "tones", "shade", "shades",
}  # fmt: skip


@dataclass(frozen=True)
class Phrase:
    """What a text means: ranges to look for, and the words that are no colours."""

    ranges: list[Range]
    unknown: list[str]


def understand(text: str) -> Phrase:
    """Read the colour words of a text (English, any case). "black and white" means pictures without colour."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())
    ranges: list[Range] = []
    unknown: list[str] = []
    modifiers: list[str] = []
    index = 0
    while index < len(words):
        taken, found = _read(words[index:])
        if found:
            ranges += [_modified(one, modifiers) for one in found]
            modifiers = []
        elif words[index] in MODIFIERS:
            modifiers.append(words[index])
        elif words[index] not in FILLERS:
            unknown.append(words[index])
        index += taken
    if modifiers:  # with no colour after them they speak of the whole picture: "dark", "a bright picture"
        ranges += [one for word in modifiers for one in _overall(word)]
    return Phrase(ranges, unknown)


def _read(words: list[str]) -> tuple[int, list[Range]]:
    """The colour expression that starts here: (number of words, its ranges or [])."""
    if words[:3] in (["black", "and", "white"], ["black", "n", "white"]) or words[:2] == ["black", "white"]:
        return (2 if words[1] == "white" else 3), [replace(BASIC["grey"], light=(0.0, 100.0), chroma=(0.0, 6.0))]
    word = words[0]
    if word in WITHOUT_COLOUR:
        return 1, [replace(BASIC["grey"], light=(0.0, 100.0), chroma=(0.0, 6.0))]
    if word in COLOURFUL:
        return 1, [Range(None, (40.0, 150.0), (15.0, 95.0))]
    two = " ".join(words[:2])
    if two in NAMED:
        return 2, [_around(NAMED[two])]
    for name in (word, word.removesuffix("ish"), word.removesuffix("dish"), word.removesuffix("s")):
        name = SAME.get(name, name)
        if name in BASIC:
            return 1, [BASIC[name]]
        if name in NAMED:
            return 1, [_around(NAMED[name])]
    return 1, []


def _around(code: str) -> Range:
    """The region around one named colour."""
    values: Any = lab(np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], dtype=np.uint8))
    lightness, a, b = (float(value) for value in values)
    chroma, hue = float(np.hypot(a, b)), float(np.degrees(np.arctan2(b, a)))
    light = (max(0.0, lightness - 16), min(100.0, lightness + 16))
    if chroma < 10:
        return Range(None, (0, 10), light)
    # Photographs hold named colours far less pure than the colour on a screen that people gave the name to.
    return Range((hue - 16, hue + 16), (min(chroma * 0.45, 35), 150), (max(0, light[0] - 8), light[1]))


def _modified(given: Range, modifiers: list[str]) -> Range:
    low, high = given.light
    weak, strong = given.chroma
    for word in modifiers:
        middle = (low + high) / 2
        if word in {"dark", "deep"}:
            low, high = max(0.0, low - 8), middle
        elif word in {"light", "pale", "pastel"}:
            low, high = middle, min(100.0, high + 10)
            weak, strong = weak * 0.6, max(weak * 0.6 + 10, min(strong, 50.0))
        elif word in {"bright", "vivid"}:
            low, weak = (low + middle) / 2, max(weak, 45.0) if given.hue else weak
        else:
            weak, strong = weak * 0.6, max(weak * 0.6 + 10, min(strong, 35.0))
    return Range(given.hue, (weak, strong), (low, high))


def _overall(word: str) -> list[Range]:
    match word:
        case "dark" | "deep":
            return [Range(None, _ANY, (0, 25))]
        case "bright":
            return [Range(None, _ANY, (80, 100))]
        case "vivid":
            return [Range(None, (45, 150), (15, 95))]
        case "dull" | "muted":
            return [Range(None, (0, 12), (20, 80))]
    return [Range(None, (4, 30), (78, 100))]
