"""Pixels of every mode and profile become 8-bit sRGB."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from search.decoding import Limits, decode
from tests.picture_files import (
    ADOBE_RGB,
    DISPLAY_P3,
    encoded,
    matrix_profile,
    png,
    png16,
    png_chunk,
    scene,
    to_srgb_by_the_book,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on broken files
ANY = Limits(min_side=1, max_pixels=300_000_000)


def pixels(data: bytes, min_side: int | None = None) -> np.ndarray:
    return np.asarray(decode(data, min_side=min_side, limits=ANY).pixels).astype(int)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of the absolute differences, in levels."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


# --- modes ----------------------------------------------------------------------


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    picture = np.tile(ramp, (40, 1))
    expected = np.repeat((picture / 257)[..., None], 3, axis=2)
    for data in (
        png16(picture),
        encoded(Image.fromarray(picture), "TIFF"),
        encoded(Image.fromarray(picture), "TIFF", compression="tiff_lzw"),
        encoded(Image.fromarray(picture), "JPEG2000", irreversible=False),
        encoded(Image.fromarray(picture.astype(np.int32)), "TIFF"),
        encoded(Image.fromarray(picture.astype(np.float32)), "TIFF"),
        encoded(Image.fromarray((picture / 65535).astype(np.float32)), "TIFF"),
    ):
        assert np.abs(pixels(data) - expected).max() <= 1.01


def test_sixteen_bit_colour_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    picture = np.stack([np.tile(ramp, (40, 1)), np.tile(ramp[::-1], (40, 1)), np.full((40, 256), 40000)], axis=-1)
    assert np.abs(pixels(png16(picture)) - picture / 257).max() <= 1.01


def test_twelve_bit_tiff_fills_its_range(shared: Path) -> None:
    data = (shared / "photos/formats/pillow/12bit.cropped.tif").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        raw = np.asarray(image).astype(int)
    assert raw.max() <= 4095
    assert np.abs(pixels(data)[..., 0] - raw * 255 / 4095).max() <= 1.01


def test_signed_sixteen_bit_is_scaled_by_its_own_range(shared: Path) -> None:
    grey = pixels((shared / "photos/formats/pillow/16bit.s.tif").read_bytes())[..., 0]
    assert sorted(set(grey.ravel().tolist())) == [0, 255]


def test_a_float_picture_without_a_known_range_is_stretched_and_survives_nan() -> None:
    picture = np.tile(np.linspace(-3, 5, 200, dtype=np.float32), (40, 1))
    picture[0, 0], picture[1, 1] = np.nan, np.inf
    grey = pixels(encoded(Image.fromarray(picture), "TIFF"))[..., 0]
    assert (grey[5, 0], grey[5, -1]) == (0, 255)
    assert np.all(np.diff(grey[5]) >= 0)
    constant = np.full((40, 40), np.nan, dtype=np.float32)
    assert pixels(encoded(Image.fromarray(constant), "TIFF")).max() == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA", "CMYK", "YCbCr", "LAB"])
def test_every_mode_becomes_the_same_rgb(mode: str) -> None:
    grey = mode in ("1", "L", "LA")
    picture = scene().convert("L").convert("RGB") if grey else scene()
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        made = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    elif mode == "PA":
        made = picture.quantize(256).convert("PA")
    else:
        made = picture.convert(mode)
    assert made is not None
    format = {"YCbCr": "JPEG", "PA": "PNG"}.get(mode, "TIFF")
    if mode == "PA":
        made = made.convert("RGBA")
    data = encoded(made, format, **({"quality": 98} if format == "JPEG" else {}))
    limit = {"1": 128, "P": 30, "PA": 12, "LAB": 4}.get(mode, 2.5)
    assert difference(pixels(data), np.asarray(picture)) < limit


def test_cmyk_inks_have_their_colours_also_from_adobes_inverted_jpeg() -> None:
    inks = {(255, 0, 0, 0): (0, 255, 255), (0, 255, 0, 0): (255, 0, 255), (0, 0, 255, 0): (255, 255, 0),
            (0, 0, 0, 255): (0, 0, 0), (0, 0, 0, 0): (255, 255, 255), (0, 255, 255, 128): (127, 0, 0)}  # fmt: skip
    for ink, colour in inks.items():
        picture = Image.new("CMYK", (64, 64), ink)
        jpeg = encoded(picture, "JPEG", quality=98)
        assert b"Adobe" in jpeg
        for data in (jpeg, encoded(picture, "TIFF")):
            assert np.abs(pixels(data)[32, 32] - colour).max() <= 3, ink


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_transparency_lies_on_white(format: str) -> None:
    picture = Image.new("RGBA", (90, 60), (200, 0, 0, 255))
    picture.paste((0, 0, 200, 0), (30, 0, 60, 60))
    picture.paste((0, 0, 0, 128), (60, 0, 90, 60))
    row = pixels(encoded(picture, format, **({"lossless": True} if format == "WEBP" else {})))[30]
    assert row[10].tolist() == [200, 0, 0]
    assert row[45].tolist() == [255, 255, 255]
    assert np.abs(row[75] - 127).max() <= 1


def test_transparent_palette_entries_and_colour_keys_lie_on_white() -> None:
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.paste(2, (0, 0, 20, 40))
    for format in ("PNG", "GIF"):
        row = pixels(encoded(palette, format, transparency=1))[20]
        assert (row[5].tolist(), row[30].tolist()) == ([0, 0, 255], [255, 255, 255])
    keyed = Image.new("RGB", (40, 40), (10, 20, 30))
    keyed.paste((9, 9, 9), (0, 0, 20, 40))
    row = pixels(encoded(keyed, "PNG", transparency=(10, 20, 30)))[20]
    assert (row[5].tolist(), row[30].tolist()) == ([9, 9, 9], [255, 255, 255])
    deep = np.full((40, 40), 1000, np.uint16)
    deep[:, :20] = 25700
    data = png(40, 40, depth=16, colour=0, extra=png_chunk(b"tRNS", struct.pack(">H", 1000)),
               rows=b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep))  # fmt: skip
    row = pixels(data)[20]
    assert (row[5].tolist(), row[30].tolist()) == ([100] * 3, [255] * 3)


# --- colour profiles ----------------------------------------------------------------------


@pytest.mark.parametrize(("colorants", "gamma"), [(ADOBE_RGB, 563 / 256), (DISPLAY_P3, 563 / 256), (ADOBE_RGB, 1.8)])
@pytest.mark.parametrize("colour", [(100, 150, 100), (180, 120, 90), (128, 128, 128), (60, 90, 160), (250, 250, 250)])
def test_profiles_are_converted_to_srgb(colorants: np.ndarray, gamma: float, colour: tuple[int, int, int]) -> None:
    profile = matrix_profile(colorants, round(gamma * 256) / 256)
    expected = to_srgb_by_the_book(colour, colorants, round(gamma * 256) / 256)
    for format in ("PNG", "TIFF", "WEBP"):
        data = encoded(
            Image.new("RGB", (40, 40), colour),
            format,
            icc_profile=profile,
            **({"lossless": True} if format == "WEBP" else {}),
        )
        assert np.abs(pixels(data)[20, 20] - expected).max() <= 2, format


def test_a_profile_counts_for_palette_transparency_and_grey_too() -> None:
    profile = matrix_profile(ADOBE_RGB, 2.0)
    expected = to_srgb_by_the_book((100, 150, 100), ADOBE_RGB, 2.0)
    palette = Image.new("RGB", (40, 40), (100, 150, 100)).quantize(2)
    assert np.abs(pixels(encoded(palette, "PNG", icc_profile=profile))[20, 20] - expected).max() <= 2
    see_through = Image.new("RGBA", (40, 40), (100, 150, 100, 255))
    see_through.putpixel((0, 0), (0, 0, 0, 0))
    found = pixels(encoded(see_through, "PNG", icc_profile=profile))
    assert np.abs(found[20, 20] - expected).max() <= 2
    assert found[0, 0].tolist() == [255, 255, 255]
    grey = pixels(encoded(Image.new("L", (40, 40), 128), "PNG", icc_profile=profile))[20, 20]
    assert np.abs(grey - to_srgb_by_the_book((128, 128, 128), ADOBE_RGB, 2.0)).max() <= 2


def test_the_srgb_profile_changes_nothing_at_all() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, profiled = encoded(scene(), "PNG"), encoded(scene(), "PNG", icc_profile=profile)
    assert np.array_equal(pixels(plain), pixels(profiled))


@pytest.mark.parametrize("broken", [b"junk", bytes(200), matrix_profile(ADOBE_RGB, 2.2)[:150]])
def test_a_broken_or_foreign_profile_is_ignored(broken: bytes) -> None:
    assert np.array_equal(pixels(encoded(scene(), "PNG", icc_profile=broken)), np.asarray(scene()))


def test_a_profile_of_another_colour_model_is_ignored() -> None:
    picture = Image.new("CMYK", (64, 64), (255, 0, 0, 0))
    data = encoded(picture, "TIFF", icc_profile=matrix_profile(ADOBE_RGB, 2.2))
    assert pixels(data)[32, 32].tolist() == [0, 255, 255]
