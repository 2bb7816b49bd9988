"""The built-in encoder: finds by look, and by colour words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import pytest

from search.encoders import get_encoder
from search.encoders.base import Encoder
from search.encoders.colours import BASIC, NAMED, Range, lab, understand
from tests.contracts.encoder import EncoderContract

PAINT = {
    "red": (200, 25, 30), "orange": (240, 130, 20), "yellow": (245, 220, 40), "green": (40, 130, 50),
    "blue": (35, 70, 190), "purple": (110, 40, 150), "pink": (250, 150, 190), "brown": (105, 65, 35),
    "black": (12, 12, 12), "grey": (128, 128, 128), "white": (248, 248, 248),
}  # fmt: skip


@pytest.fixture(scope="module")
def look() -> Encoder:
    return get_encoder("look")


class TestLook(EncoderContract):
    @pytest.fixture
    def encoder(self, look: Encoder) -> Encoder:
        return look

    @pytest.fixture
    def spec(self) -> str:
        return "look"

    @pytest.fixture
    def words(self) -> list[str]:
        return ["red", "dark blue", "black and white"]


def scene(colour: tuple[int, int, int], seed: int) -> PIL.Image.Image:
    """A third of the picture in this colour, on a noisy background of dull tones."""
    random = np.random.default_rng(seed)
    ground = random.normal(random.uniform(70, 180), 25, (192, 256, 1)) + random.normal(0, 6, (1, 1, 3))
    image = PIL.Image.fromarray(np.clip(np.broadcast_to(ground, (192, 256, 3)), 0, 255).astype(np.uint8))
    x, y = int(random.integers(0, 110)), int(random.integers(0, 60))
    PIL.ImageDraw.Draw(image).ellipse((x, y, x + 145, y + 130), fill=colour)
    return image.filter(PIL.ImageFilter.GaussianBlur(1))


def test_a_colour_word_ranks_pictures_of_that_colour_first(look: Encoder) -> None:
    names = list(PAINT)
    images = [scene(PAINT[name], seed) for name in names for seed in range(6)]
    rows = look.encode_images([look.prepare(image) for image in images])
    owners = np.repeat(np.arange(len(names)), 6)
    for number, name in enumerate(names):
        if name == "grey":  # every background is greyish
            continue
        best = np.argsort(-(rows @ look.encode_texts([name])[0]))[:6]
        assert (owners[best] == number).all(), (name, [names[owners[i]] for i in best])


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("dark blue", (10, 20, 90), (130, 170, 240)),
        ("light blue", (130, 170, 240), (10, 20, 90)),
        ("dark green", (10, 60, 20), (120, 210, 120)),
        ("pale green", (160, 215, 160), (10, 80, 20)),
        ("navy", (5, 10, 70), (90, 150, 250)),
        ("sky blue", (120, 185, 250), (10, 15, 80)),
        ("dark", (15, 15, 20), (200, 200, 190)),
        ("bright", (240, 240, 235), (30, 30, 40)),
    ],
)
def test_light_and_dark_are_understood(
    look: Encoder, text: str, first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    plain = [PIL.Image.new("RGB", (256, 256), colour) for colour in (first, second)]
    wanted, other = look.encode_images([look.prepare(image) for image in plain]) @ look.encode_texts([text])[0]
    assert wanted > other + 0.1


def test_black_and_white_means_without_colour_and_colourful_the_opposite(look: Encoder) -> None:
    random = np.random.default_rng(0)
    colourful = PIL.Image.fromarray(random.integers(0, 2, (8, 8, 3), dtype=np.uint8) * 220).resize((256, 256), 0)
    images = [colourful, colourful.convert("L").convert("RGB")]
    rows = look.encode_images([look.prepare(image) for image in images])
    for text in ("black and white", "Black & White", "monochrome", "greyscale"):
        coloured, grey = rows @ look.encode_texts([text])[0]
        assert grey > coloured, text
    for text in ("colourful", "colorful", "rainbow"):
        coloured, grey = rows @ look.encode_texts([text])[0]
        assert coloured > grey, text


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("red", []),
        ("red dog", ["dog"]),
        ("a dog running on grass", ["dog", "running", "grass"]),
        ("Black and White!", []),
        ("the dark blue sea", ["sea"]),
        ("reddish-brown horses, grey sky", ["horses", "sky"]),
        ("зелёный", ["зелёный"]),
        ("", []),
        ("2024", ["2024"]),
        ("navy blue and turquoise", []),
    ],
)
def test_words_that_are_no_colours_are_named(look: Encoder, text: str, unknown: list[str]) -> None:
    assert look.unknown_words(text) == unknown


@pytest.mark.parametrize("text", ["dog", "", "the", "!!!"])
def test_a_text_without_a_colour_is_refused(look: Encoder, text: str) -> None:
    with pytest.raises(ValueError, match="no colour word"):
        look.encode_texts(["red", text])


def test_every_name_in_the_table_is_understood_alone_and_ranks_its_own_colour_over_its_opposite(look: Encoder) -> None:
    for name, code in NAMED.items():
        own = tuple(int(code[i : i + 2], 16) for i in (0, 2, 4))
        opposite = tuple(255 - value if abs(value - 128) > 40 else 255 for value in own)
        plain = [PIL.Image.new("RGB", (64, 64), colour) for colour in (own, opposite)]
        mine, other = look.encode_images([look.prepare(image) for image in plain]) @ look.encode_texts([name])[0]
        assert mine > other, name
    for name in [*BASIC, *NAMED]:
        assert understand(name).unknown == [], name


def test_two_colours_ask_for_both(look: Encoder) -> None:
    red, blue = (200, 25, 30), (35, 70, 190)
    both = PIL.Image.new("RGB", (256, 256), red)
    both.paste(blue, (128, 0, 256, 256))
    images = [both, PIL.Image.new("RGB", (256, 256), red), PIL.Image.new("RGB", (256, 256), blue)]
    rows = look.encode_images([look.prepare(image) for image in images])
    mixed, only_red, only_blue = rows @ look.encode_texts(["red and blue"])[0]
    assert mixed > only_blue and mixed > (only_red + only_blue) / 2
    of_red = rows @ look.encode_texts(["red"])[0]
    assert of_red[1] > of_red[0] > of_red[2]


def test_the_vectors_are_the_same_on_every_machine(look: Encoder) -> None:
    """The key promises it: a change of the descriptor must change the key's version, and then these figures."""
    place = np.arange(64)
    pixels = np.stack(np.broadcast_arrays(place[:, None] * 4, place[None, :] * 3 + 20, (place[:, None] % 16) * 10), -1)
    image, text = look.encode_images([pixels.astype(np.uint8)])[0], look.encode_texts(["dark green"])[0]
    signs = np.where(np.arange(4)[:, None] * 37 % 11 > np.arange(look.dim)[None, :] * 7 % 10, 1, -1)
    assert look.key == "look:1"
    assert (signs @ image).tolist() == pytest.approx(IMAGE_FIGURES, abs=1e-3)
    assert (signs @ text).tolist() == pytest.approx(TEXT_FIGURES, abs=1e-3)


IMAGE_FIGURES = [-5.0932, -1.7752, 2.9408, -4.3353]
TEXT_FIGURES = [-1.9173, -0.6994, 1.6023, -1.0292]


def test_a_picture_and_its_small_noisy_brighter_copy_are_near_and_others_far(look: Encoder) -> None:
    originals = [scene(PAINT[name], seed) for seed, name in enumerate(PAINT)]
    random = np.random.default_rng(1)
    copies = []
    for image in originals:
        pixels = np.asarray(image.resize((150, 112)), np.float32) * 1.04 + random.normal(0, 4, (112, 150, 3))
        copies.append(PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    rows = look.encode_images([look.prepare(image) for image in originals])
    others = look.encode_images([look.prepare(image) for image in copies])
    scores = rows @ others.T
    assert (scores.argmax(axis=1) == np.arange(len(rows))).all()
    assert scores.diagonal().min() > 0.85


def test_lab_is_that_of_scikit_image() -> None:
    from skimage.color import rgb2lab

    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    np.testing.assert_allclose(lab(pixels), rgb2lab(pixels), atol=0.05)


# --- on photographs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(shared: Path, look: Encoder) -> tuple[Any, Any]:
    files = sorted((shared / "photos" / "captioned" / "flickr").glob("*.jpg"))[::2]
    rows, colours = [], []
    for file in files:
        with PIL.Image.open(file) as image:
            small = image.convert("RGB").resize((128, 128), PIL.Image.Resampling.BOX)
        rows.append(look.prepare(small))
        colours.append(lab(np.asarray(small)).reshape(-1, 3))
    return look.encode_images(rows), np.stack(colours)


def share(colours: Any, wanted: Range) -> Any:
    """Share of each picture's pixels in a range, counted pixel by pixel: another way than the descriptor's."""
    chroma = np.hypot(colours[..., 1], colours[..., 2])
    inside = (chroma >= wanted.chroma[0]) & (chroma <= wanted.chroma[1])
    inside &= (colours[..., 0] >= wanted.light[0]) & (colours[..., 0] <= wanted.light[1])
    if wanted.hue:
        hue = np.degrees(np.arctan2(colours[..., 2], colours[..., 1]))
        middle, half = sum(wanted.hue) / 2, (wanted.hue[1] - wanted.hue[0]) / 2
        inside &= np.abs((hue - middle + 180) % 360 - 180) <= half
    return inside.mean(axis=1)


@pytest.mark.parametrize("word", [*BASIC, "dark blue", "light blue", "dark green", "black and white", "sky blue"])
def test_on_photographs_the_first_ten_hold_much_more_of_the_colour(look: Encoder, photos: Any, word: str) -> None:
    rows, colours = photos
    shares = np.mean([share(colours, one) for one in understand(word).ranges], axis=0)
    first = np.argsort(-(rows @ look.encode_texts([word])[0]))[:10]
    possible = np.sort(shares)[-10:].mean()
    assert shares[first].mean() > 0.5 * possible
    assert shares[first].mean() > 2 * shares.mean()


def test_cosines_of_unrelated_photographs_are_spread_around_a_low_value(photos: Any) -> None:
    rows, _ = photos
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    assert abs(cosines.mean()) < 0.15 and 0.1 < cosines.std() < 0.35
    assert np.quantile(cosines, 0.99) < 0.75


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    from tests.conftest import ROOT

    code = (
        "import django, sys; django.setup()\n"
        "from search.encoders import get_encoder\n"
        "get_encoder('look').encode_texts(['red'])\n"
        "assert not {'torch', 'cv2', 'skimage', 'scipy', 'open_clip'} & set(sys.modules)"
    )
    environment = {**os.environ, "IMAGESEARCH_DATA": str(tmp_path / "d"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
