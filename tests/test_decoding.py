"""A file's bytes become upright 8-bit sRGB pixels, or one sentence."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from search.decoding import Limits, decode, is_risky, probe, read_file, read_pixels
from search.errors import TooLarge, TooSmall, Unreadable
from tests.picture_files import (
    encoded,
    jpeg_of_many_scans,
    png,
    png_chunk,
    scene,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on broken files
ANY = Limits(min_side=1, max_pixels=300_000_000)


def pixels(data: bytes, min_side: int | None = None) -> np.ndarray:
    return np.asarray(decode(data, min_side=min_side, limits=ANY).pixels).astype(int)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of the absolute differences, in levels."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


# --- formats ----------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP", "JPEG2000", "AVIF", "HEIF"])
def test_every_format_gives_the_picture(format: str, tmp_path: Path) -> None:
    picture = scene()
    if format == "HEIF":
        import pillow_heif

        out = io.BytesIO()
        pillow_heif.from_pillow(picture).save(out, quality=95)
        data = out.getvalue()
    else:
        data = encoded(picture, format, **({"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}))
    decoded = decode(data, min_side=None, limits=ANY)
    assert (decoded.format, decoded.width, decoded.height) == (format, 320, 240)
    assert decoded.pixels.mode == "RGB"
    assert difference(np.asarray(decoded.pixels), np.asarray(picture)) < (8 if format == "GIF" else 3)
    path = tmp_path / "picture.dat"
    path.write_bytes(data)
    assert probe(path, limits=ANY) == type(probe(path, limits=ANY))(format, 320, 240)


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("#c02020", "#20c020", "#2020c0")]
    for format in ("GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"):
        options = {"quality": 95} if format in ("WEBP", "AVIF", "MPO") else {}
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert np.abs(pixels(data).reshape(-1, 3).mean(axis=0) - (0xC0, 0x20, 0x20)).max() < 6, format


# --- orientation ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_every_orientation_gives_the_same_picture(shared: Path, shape: str) -> None:
    folder = shared / "photos/metadata/orientation"
    upright = decode((folder / f"{shape}_1.jpg").read_bytes(), min_side=None, limits=ANY)
    for orientation in range(9):
        path = folder / f"{shape}_{orientation}.jpg"
        turned = decode(path.read_bytes(), min_side=None, limits=ANY)
        assert (turned.width, turned.height) == (upright.width, upright.height)
        assert difference(np.asarray(turned.pixels), np.asarray(upright.pixels)) < 4
        seen = probe(path, limits=ANY)
        assert (seen.width, seen.height) == (upright.width, upright.height)
        small = decode(path.read_bytes(), min_side=200, limits=ANY)
        assert (small.width, small.height) == (upright.width, upright.height)
        assert min(small.pixels.size) >= 200


_BACK = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_orientation_counts_in_every_format(format: str, orientation: int, tmp_path: Path) -> None:
    picture = scene(160, 96)
    stored = picture.transpose(_TURNS[_BACK[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    if format == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
        stored.getexif()[0x0112] = orientation
        data = encoded(stored, format, quality=95)
    else:
        data = encoded(stored, format, exif=exif, **({"quality": 95} if format in ("WEBP", "AVIF") else {}))
    decoded = decode(data, min_side=None, limits=ANY)
    assert (decoded.width, decoded.height) == (160, 96)
    assert difference(np.asarray(decoded.pixels), np.asarray(picture)) < 4
    path = tmp_path / "turned"
    path.write_bytes(data)
    seen = probe(path, limits=ANY)
    assert (seen.width, seen.height) == (160, 96)


# --- reduced scale ----------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "JPEG2000", "TIFF", "WEBP"])
def test_the_shorter_side_stays_at_least_what_is_asked(format: str) -> None:
    picture = scene(1500, 1100)
    data = encoded(picture, format)
    for asked in (100, 256, 512, 549, 551, 1100, 4000):
        decoded = decode(data, min_side=asked, limits=ANY)
        assert (decoded.width, decoded.height) == (1500, 1100)
        assert min(decoded.pixels.size) >= min(asked, 1100)
        assert min(decoded.pixels.size) < 2 * asked or min(decoded.pixels.size) <= 1100
        shrunk = np.asarray(picture.resize(decoded.pixels.size, Image.Resampling.BOX))
        assert difference(np.asarray(decoded.pixels), shrunk) < 4
    assert min(decode(data, min_side=256, limits=ANY).pixels.size) < 512


def test_reduced_and_full_decode_embed_alike(shared: Path, dev_clip: str) -> None:
    """Twelve-megapixel JPEGs: the cosine of the embeddings is at least 0.995."""
    from search.encoders import get_encoder

    encoder = get_encoder(dev_clip)
    photos = sorted((shared / "photos/captioned/coco").rglob("*.jpg"))[:6]
    large = [
        encoded(Image.open(path).convert("RGB").resize((4000, 3000), Image.Resampling.LANCZOS), "JPEG", quality=92)
        for path in photos
    ]
    mobile = shared / "photos/metadata/exif-samples/jpg/mobile/HMD_Nokia_8.3_5G.jpg"
    large.append(mobile.read_bytes())
    for data in large:
        full = decode(data, min_side=None, limits=ANY).pixels
        reduced = decode(data, min_side=2 * encoder.side, limits=ANY).pixels
        assert max(reduced.size) < max(full.size) / 3
        a, b = encoder.encode_images([encoder.prepare(full), encoder.prepare(reduced)])
        assert float(a @ b) >= 0.995


# --- limits and faults ----------------------------------------------------------------------


def sentence(data: bytes, name: str = "", limits: Limits = ANY) -> str:
    with pytest.raises(Unreadable) as caught:
        decode(data, min_side=256, name=name, limits=limits)
    message = str(caught.value)
    assert message.endswith(".")
    assert message.isprintable()
    return message


def test_limits_come_from_the_header_and_the_settings(settings: Any, tmp_path: Path) -> None:
    bomb = png(60_000, 60_000, rows=bytes(100))
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)
    for read in (lambda: decode(bomb, min_side=256), lambda: probe(path), lambda: read_pixels(bomb, min_side=256)):
        with pytest.raises(TooLarge, match=r"60000 x 60000 pixels, 3600 megapixels; at most 300 .*MAX_MEGAPIXELS"):
            read()
    small = encoded(scene(200, 31), "PNG")
    with pytest.raises(TooSmall, match=r"200 x 31 pixels; sides of at least 32 .*MIN_SIDE"):
        decode(small, min_side=256)
    settings.IMAGESEARCH_MIN_SIDE = 31
    assert decode(small, min_side=256).height == 31
    settings.IMAGESEARCH_MAX_MEGAPIXELS = 0.006
    with pytest.raises(TooLarge):
        decode(small, min_side=256)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF"])
def test_a_file_that_is_cut_off_is_unreadable_never_half_grey(format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8))
    data = encoded(noise, format)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert format.replace("JPEG2000", "JPEG 2000").replace("WEBP", "WebP") in sentence(
            data[: int(len(data) * share)]
        )
    assert decode(data, min_side=256, limits=ANY).width == 300


def test_a_cut_off_jpeg_says_so() -> None:
    data = encoded(scene(), "JPEG")
    assert sentence(data[: len(data) // 2]) == "This JPEG picture is cut off: the end of the file is missing."


def test_a_jpeg_that_ends_in_zeros_is_cut_off_unless_it_was_complete() -> None:
    data = encoded(scene(), "JPEG")
    assert "cut off" in sentence(data[: len(data) // 2] + bytes(len(data) // 2 + 1000))
    assert decode(data + bytes(5000), min_side=None, limits=ANY).width == 320


def test_what_is_no_picture_is_said_in_a_sentence() -> None:
    assert sentence(b"") == "The file is empty."
    assert sentence(b"%PDF-1.4 ...", "photo.jpg") == "The file is named like a JPEG picture but holds a PDF document."
    assert "header of this PNG picture is damaged" in sentence(b"\x89PNG\r\n\x1a\n" + bytes(50))
    with pytest.raises(Unreadable, match="Photoshop document"):
        read_pixels(b"8BPS" + bytes(30), min_side=256, name="a.psd")


def test_ghostscript_and_other_plugins_never_run(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="EPS drawing"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", min_side=None, name="a.jpg", limits=ANY)
    for format in ("ICO", "PPM", "TGA", "PCX"):
        with pytest.raises(Unreadable):
            decode(encoded(scene(64, 64), format), min_side=None, limits=ANY)


def test_a_text_that_unpacks_to_gigabytes_costs_nothing() -> None:
    packed = zlib.compress(bytes(40 << 20), 9)
    chunk = png_chunk(b"zTXt", b"Comment\0\0" + packed)
    assert "PNG" in sentence(png(64, 64, rows=bytes(64 * 193), extra=chunk))


def test_what_is_not_a_regular_file_is_never_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.jpg"
    os.mkfifo(fifo)
    for read in (read_file, probe):
        with pytest.raises(Unreadable, match="not a regular file"):
            read(fifo)
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "gone.jpg")


def test_a_file_too_large_for_any_accepted_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(TooLarge, match="more than any accepted picture needs"):
        read_file(path)


def test_the_risky_ones_are_known() -> None:
    assert is_risky("TIFF", b"")
    assert is_risky("HEIF", b"")
    assert not is_risky("JPEG", encoded(scene(), "JPEG", progressive=True))
    assert not is_risky("JPEG", b"broken")
    assert is_risky("JPEG", jpeg_of_many_scans(64, 200))
    assert is_risky("PNG", png(20_000, 10_000))


@settings(max_examples=300, deadline=None)
@given(
    which=st.integers(0, 5),
    cut=st.floats(0.02, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=10),
)
def test_no_damage_raises_anything_but_a_sentence(which: int, cut: float, changes: list[tuple[float, int]]) -> None:
    data = bytearray(_WHOLE[which])
    for place, value in changes:
        data[int(place * min(len(data), 600))] = value
    try:
        decode(bytes(data[: int(len(data) * cut)]), min_side=32, limits=Limits(1, 1_000_000))
    except Unreadable as fault:
        assert str(fault).endswith(".")
        assert str(fault).isprintable()


_WHOLE = [encoded(scene(80, 64), format) for format in ("JPEG", "PNG", "BMP", "WEBP", "GIF")]
_WHOLE.append(encoded(scene(80, 64), "JPEG", progressive=True))


def test_every_file_of_the_collection_is_a_picture_or_a_sentence(shared: Path) -> None:
    from search.decoding import sniff

    counted = {"pictures": 0, "sentences": 0, "no picture": 0}
    for path in sorted((shared / "photos/formats").rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if sniff(data, path.name) is None:
            counted["no picture"] += 1
        try:
            decoded = read_pixels(data, min_side=512, name=path.name, limits=ANY)
        except Unreadable as fault:
            assert str(fault).endswith("."), path
            counted["sentences"] += 1
            continue
        counted["pictures"] += 1
        seen = probe(path, limits=ANY)
        assert (seen.format, seen.width, seen.height) == (decoded.format, decoded.width, decoded.height), path
        assert decoded.pixels.mode == "RGB"
    assert counted["pictures"] + counted["sentences"] == 966
    assert counted["pictures"] >= 680
    assert 200 <= counted["no picture"] <= 240
