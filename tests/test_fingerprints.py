"""What a thumbnail says about its picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ingestion.fingerprints import Fingerprint, fingerprint, perceptual_hash
from search.thumbnails import make
from tests.picture_files import encoded, scene


def distance(a: int, b: int) -> int:
    return ((a ^ b) & (1 << 64) - 1).bit_count()


def of(image: Image.Image) -> Fingerprint:
    return fingerprint(make(image))


def test_the_hash_is_imagehashs_as_a_signed_integer() -> None:
    import imagehash

    for seed in range(20):
        picture = scene(300, 256, seed).rotate(7 * seed)
        value = perceptual_hash(picture)
        assert -(2**63) <= value < 2**63
        assert f"{value & (1 << 64) - 1:016x}" == str(imagehash.phash(picture))


def test_the_hash_stands_resizing_and_recoding_and_tells_photos_apart(shared: Path) -> None:
    photos = [
        Image.open(path).convert("RGB") for path in sorted((shared / "photos/captioned/flickr").rglob("*.jpg"))[:40]
    ]
    hashes = [of(photo).perceptual_hash for photo in photos]
    for photo, known in zip(photos, hashes, strict=True):
        smaller = photo.resize((photo.width * 2 // 3, photo.height * 2 // 3))
        recoded = Image.open(io.BytesIO(encoded(smaller, "JPEG", quality=60)))
        assert distance(of(recoded).perceptual_hash, known) <= 8
    apart = [distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert np.median(apart) > 24


def test_sharpness_falls_with_blur_whatever_the_size(shared: Path) -> None:
    for path in sorted((shared / "photos/captioned/coco").rglob("*.jpg"))[:10]:
        photo = Image.open(path).convert("RGB")
        sharp = of(photo).sharpness
        assert sharp > 2 * of(photo.filter(ImageFilter.GaussianBlur(4))).sharpness
        larger = of(photo.resize((photo.width * 2, photo.height * 2), Image.Resampling.BICUBIC)).sharpness
        assert larger == pytest.approx(sharp, rel=0.35)
    assert of(Image.new("RGB", (300, 300), "#123456")).sharpness == 0


def test_uniformity_is_one_for_one_colour_and_small_for_a_scene() -> None:
    assert of(Image.new("RGB", (300, 300), "#123456")).uniformity == 1
    assert of(scene(600, 400)).uniformity < 0.05
    mostly = Image.new("RGB", (400, 400), "#808080")
    mostly.paste("#8f8080", (0, 0, 40, 400))
    assert of(mostly).uniformity == pytest.approx(0.9, abs=0.02)


def test_the_main_colours_are_those_that_are_there() -> None:
    flag = Image.new("RGB", (256, 256), "#ff0000")
    flag.paste("#0000ff", (0, 0, 64, 256))
    assert of(flag).colours == [["#ff0000", 0.75], ["#0000ff", 0.25]]
    almost = Image.fromarray(np.random.default_rng(0).integers(100, 104, (256, 256, 3), dtype=np.uint8))
    assert len(of(almost).colours) == 1
    many = of(scene(600, 400)).colours
    assert 1 < len(many) <= 5
    assert [share for _, share in many] == sorted((share for _, share in many), reverse=True)
    assert sum(share for _, share in many) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 500), (2048, 13), (40, 2048)])
def test_odd_shapes_have_fingerprints_too(size: tuple[int, int]) -> None:
    made = fingerprint(Image.new("RGB", size, "#202020"))
    assert made.uniformity == 1
    assert made.colours == [["#202020", 1.0]]
