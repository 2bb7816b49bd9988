"""What every Encoder promises. A test class inherits these tests and has a fixture `encoder` and `words`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from search.encoders.base import Encoder

TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-3}
"""How far a cosine to itself may be from 1 when only the company in the batch changed."""


def pictures(count: int = 7) -> list[PIL.Image.Image]:
    """Distinct pictures of several shapes: gradients with noise, from a fixed seed."""
    random = np.random.default_rng(5)
    made = []
    for number in range(count):
        height, width = [(300, 400), (400, 300), (257, 256), (64, 900)][number % 4]
        ramp = np.linspace(0, 1, width)[None, :, None] * random.integers(0, 255, 3)
        noise = random.normal(0, 30, (height, width, 3))
        made.append(PIL.Image.fromarray(np.clip(ramp + noise + 20 * number, 0, 255).astype(np.uint8)))
    return made


class ImageEncoderContract:
    """What every encoder promises, of words or not. Inherit, and give the fixtures `encoder` and `spec`."""

    def near(self, encoder: Encoder, one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
        precision = getattr(getattr(encoder, "arithmetic", None), "precision", "fp32")
        return bool((1 - (one * other).sum(axis=-1)).max() <= TOLERANCE[precision])

    def test_it_is_an_encoder(self, encoder: Encoder) -> None:
        assert isinstance(encoder, Encoder)
        assert encoder.key and len(encoder.key) <= 200
        assert encoder.label and len(encoder.label) <= 200
        assert encoder.dim > 0 and encoder.side > 0

    def test_images_become_unit_rows_in_order(self, encoder: Encoder) -> None:
        prepared = [encoder.prepare(picture) for picture in pictures()]
        rows = encoder.encode_images(prepared)
        assert rows.shape == (7, encoder.dim) and rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert self.near(encoder, rows[::-1], encoder.encode_images(prepared[::-1]))
        assert len(np.unique(rows.round(4), axis=0)) == 7

    def test_a_row_does_not_depend_on_its_company(self, encoder: Encoder) -> None:
        prepared = [encoder.prepare(picture) for picture in pictures()]
        together = encoder.encode_images(prepared)
        alone = np.concatenate([encoder.encode_images([one]) for one in prepared])
        assert self.near(encoder, together, alone)

    def test_preparing_changes_nothing_and_takes_any_mode(self, encoder: Encoder) -> None:
        picture = pictures(1)[0]
        before = picture.tobytes()
        np.testing.assert_array_equal(encoder.prepare(picture), encoder.prepare(picture))
        assert picture.tobytes() == before
        grey = encoder.encode_images([encoder.prepare(picture.convert("L"))])
        assert np.isfinite(grey).all() and grey.shape == (1, encoder.dim)

    def test_prepared_pictures_are_small(self, encoder: Encoder) -> None:
        prepared = encoder.prepare(PIL.Image.new("RGB", (4000, 3000)))
        assert prepared.nbytes <= 3 * encoder.side**2

    @pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2)])
    def test_pictures_of_extreme_shape_are_encoded(self, encoder: Encoder, size: tuple[int, int]) -> None:
        rows = encoder.encode_images([encoder.prepare(PIL.Image.new("RGB", size, "white"))])
        assert np.linalg.norm(rows) == pytest.approx(1, abs=1e-5)

    def test_one_colour_and_black_pictures_have_unit_rows(self, encoder: Encoder) -> None:
        plain = [encoder.prepare(PIL.Image.new("RGB", (300, 300), colour)) for colour in ("black", "white", "#777777")]
        np.testing.assert_allclose(np.linalg.norm(encoder.encode_images(plain), axis=1), 1, atol=1e-5)

    def test_an_empty_batch_gives_no_rows(self, encoder: Encoder) -> None:
        for rows in (encoder.encode_images([]), encoder.encode_texts([])):
            assert rows.shape == (0, encoder.dim) and rows.dtype == np.float32

    def test_threads_do_not_disturb_each_other(self, encoder: Encoder) -> None:
        prepared = [encoder.prepare(picture) for picture in pictures()]
        images = encoder.encode_images(prepared)

        def encode(number: int) -> bool:
            return self.near(encoder, encoder.encode_images(prepared[number:]), images[number:])

        assert not in_threads(encode)

    def test_loading_it_again_gives_the_same_key_and_vectors(self, encoder: Encoder, spec: str) -> None:
        from search.encoders import load_anew
        from search.encoders.specification import parse

        again = load_anew(parse(spec))
        assert again is not encoder
        assert (again.key, again.dim, again.side, again.label) == (
            encoder.key,
            encoder.dim,
            encoder.side,
            encoder.label,
        )
        prepared = [encoder.prepare(picture) for picture in pictures(3)]
        assert self.near(encoder, again.encode_images(prepared), encoder.encode_images(prepared))
        self.check_words_of(encoder, again)

    def check_words_of(self, encoder: Encoder, again: Encoder) -> None:
        """What a second one says of words."""
        assert again.text == encoder.text


class WordlessContract(ImageEncoderContract):
    """What an image-only encoder promises."""

    def test_it_says_that_it_knows_no_words(self, encoder: Encoder) -> None:
        assert encoder.text is False
        assert encoder.unknown_words("a red dog") == ["a", "red", "dog"]
        with pytest.raises(ValueError, match="knows no words"):
            encoder.encode_texts(["red"])


class EncoderContract(ImageEncoderContract):
    """What an encoder of words and images promises. Give the fixture `words`, too: three texts it understands."""

    @pytest.fixture(autouse=True)
    def _with_words(self, words: list[str]) -> None:
        self.words = words

    def test_texts_become_unit_rows_in_order(self, encoder: Encoder, words: list[str]) -> None:
        assert encoder.text
        rows = encoder.encode_texts(words)
        assert rows.shape == (len(words), encoder.dim) and rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        alone = np.concatenate([encoder.encode_texts([word]) for word in words])
        assert self.near(encoder, rows, alone)
        assert all(encoder.unknown_words(word) == [] for word in words)

    @pytest.mark.slow
    def test_threads_do_not_disturb_each_other_s_words(self, encoder: Encoder, words: list[str]) -> None:
        prepared = [encoder.prepare(picture) for picture in pictures()]
        images, texts = encoder.encode_images(prepared), encoder.encode_texts(words)

        def encode(number: int) -> bool:
            good = self.near(encoder, encoder.encode_images(prepared[number:]), images[number:])
            return good and self.near(encoder, encoder.encode_texts(words), texts)

        assert not in_threads(encode)

    def check_words_of(self, encoder: Encoder, again: Encoder) -> None:
        assert self.near(encoder, again.encode_texts(self.words), encoder.encode_texts(self.words))


def in_threads(encode: Callable[[int], bool]) -> list[str]:
    """Failures of `encode(number)`, three times in each of four threads at once."""
    failures: list[str] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        try:
            for _ in range(3):
                if not encode(number):
                    failures.append("a vector changed")
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures
