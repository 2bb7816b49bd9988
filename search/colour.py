"""Pixels of any mode and profile become 8-bit sRGB: scaling of deep pictures, ICC profiles, transparency on white."""

from __future__ import annotations

import functools
import hashlib
import io
import threading
from collections import OrderedDict
from typing import Any

from PIL import Image as PilImage
from PIL import ImageCms

_WHITE = (255, 255, 255)
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_PROFILE_FAULTS = (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError, KeyError, MemoryError)
_TRANSFORMS_KEPT = 64

_transforms: OrderedDict[tuple[bytes, str], Any] = OrderedDict()
_lock = threading.Lock()


def to_eight_bits(image: PilImage.Image) -> PilImage.Image:
    """A loaded picture of any mode -> one of L, LA, RGB, RGBA, CMYK, LAB with the same meaning.

    Sixteen-bit and float pixels are scaled to the range they were stored for, never clipped. A colour that stands
    for "transparent" becomes alpha.
    """
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _scale_deep(image)
    if mode in ("L", "RGB", "1", "P") and image.has_transparency_data:
        return image.convert("RGBA")
    converted = {
        "1": "L",
        "P": "RGB",
        "PA": "RGBA",
        "La": "LA",
        "RGBa": "RGBA",
        "RGBX": "RGB",
        "HSV": "RGB",
        "YCbCr": "RGB",
    }
    return image.convert(converted[mode]) if mode in converted else image


def to_srgb(image: PilImage.Image, profile: bytes | None) -> PilImage.Image:
    """An 8-bit picture (see `to_eight_bits`) with its ICC profile -> RGB in sRGB, transparency laid on white.

    A profile that is broken or does not fit the pixels is ignored, as viewers do.
    """
    alpha = None
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
        if alpha.getextrema() == (255, 255):
            alpha = None
    coloured = _apply_profile(image, profile) if profile or image.mode == "LAB" else None
    rgb = coloured or image.convert("RGB")
    if alpha is None:
        return rgb
    flat = PilImage.new("RGB", rgb.size, _WHITE)
    flat.paste(rgb, mask=alpha)
    return flat


def _apply_profile(image: PilImage.Image, profile: bytes | None) -> PilImage.Image | None:
    """The picture in sRGB, or None where there is nothing to do or the profile is of no use."""
    transform = _transform(profile, image.mode)
    if transform is None and image.mode == "L":
        # A grey picture with a colour profile is common: as RGB the profile fits.
        transform = _transform(profile, "RGB")
        image = image.convert("RGB") if transform is not None else image
    if transform is None:
        return None
    try:
        return ImageCms.applyTransform(image, transform)
    except _PROFILE_FAULTS:
        return None


def _transform(profile: bytes | None, mode: str) -> Any:
    """The cached transform to sRGB; None where the profile is broken, of another kind, or sRGB itself."""
    key = (hashlib.blake2b(profile or b"", digest_size=16).digest(), mode)
    with _lock:
        if key in _transforms:
            _transforms.move_to_end(key)
            return _transforms[key]
    transform = _build_transform(profile, mode)
    with _lock:
        _transforms[key] = transform
        while len(_transforms) > _TRANSFORMS_KEPT:
            _transforms.popitem(last=False)
    return transform


def _build_transform(profile: bytes | None, mode: str) -> Any:
    try:
        if mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
            if _PROFILE_MODES.get(source.profile.xcolor_space.strip()) != mode:
                return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if mode in ("RGB", "L") and _is_identity(transform, mode) else transform
    except _PROFILE_FAULTS:
        return None


def _is_identity(transform: Any, mode: str) -> bool:
    """Whether no colour of a coarse grid moves by more than two levels: sRGB under one of its many names."""
    before = _grid(mode)
    after = ImageCms.applyTransform(before, transform)
    assert after is not None
    return max(abs(a - b) for a, b in zip(before.convert("RGB").tobytes(), after.tobytes(), strict=True)) <= 2


@functools.cache
def _grid(mode: str) -> PilImage.Image:
    steps = (0, 32, 64, 96, 128, 160, 192, 224, 255)
    if mode == "L":
        return PilImage.frombytes("L", (len(steps), 1), bytes(steps))
    data = bytes(value for r in steps for g in steps for b in steps for value in (r, g, b))
    return PilImage.frombytes("RGB", (len(data) // 3, 1), data)


def _scale_deep(image: PilImage.Image) -> PilImage.Image:
    """Modes I;16*, I and F -> L (or LA where one value stands for transparent).

    16-bit: by the bits that the file declares (12-bit TIFF fills its range). 32-bit whole numbers and floats carry no
    range: 0..1 (floats), 0..255 and 0..65535 are taken as such, anything else is stretched between its extremes.
    """
    import numpy as np

    pixels = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    transparent = image.info.get("transparency")
    alpha = None
    if isinstance(transparent, int):
        alpha = PilImage.fromarray(np.where(pixels == transparent, 0, 255).astype(np.uint8))
    low, high = 0.0, 65535.0
    if image.mode.startswith("I;16"):
        bits = tags.get(258) or (16,)
        high = float((1 << min(int(bits[0]), 16)) - 1)
    else:
        finite = pixels[np.isfinite(pixels)] if image.mode == "F" else pixels
        least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        ranges = ([1.0] if image.mode == "F" else []) + [255.0, 65535.0]
        if tags.get(258) == (16,):
            ranges = [32767.0]  # signed 16-bit
        high = next((end for end in ranges if least >= 0 and most <= end), most)
        low = 0.0 if high != most or (least >= 0 and most in ranges) else least
    if image.mode == "I;16" and (low, high) == (0.0, 65535.0):
        grey = (pixels >> 8).astype(np.uint8)
    else:
        scaled = np.nan_to_num((pixels.astype(np.float32) - low) * (255.0 / max(high - low, 1e-12)), nan=0.0)
        grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if tags.get(262) == 0:
        grey = 255 - grey  # TIFF "white is zero", which Pillow leaves as it is in deep modes
    result = PilImage.fromarray(grey)
    if alpha is not None:
        result.putalpha(alpha)
    return result
