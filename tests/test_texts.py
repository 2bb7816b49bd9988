"""Many texts in one buffer are looked through as Python would, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from search import texts
from search.texts import Texts, TextsWriter

some_text = st.text("abcä/ß🌊", max_size=6).map(str.encode)
words = st.text("abcä/ß🌊", max_size=4).map(str.encode) | st.binary(max_size=2).filter(lambda one: b"\xff" not in one)


def packed(all_texts: list[bytes], *, portion: int = 3) -> Texts:
    writer = TextsWriter()
    for start in range(0, len(all_texts), portion):
        writer.add(all_texts[start : start + portion])
    return writer.made()


@given(st.lists(some_text, max_size=20), words, st.integers(1, 9))
@example([b"ab", b"b"], b"bb", 1)
@example([b"aab"], b"ab", 1)
@example([], b"a", 3)
@example([b""], b"", 3)
def test_a_word_is_found_in_just_the_texts_that_hold_it(all_texts: list[bytes], word: bytes, block: int) -> None:
    made = packed(all_texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BLOCK", block)
        assert made.containing(word).tolist() == [word in one for one in all_texts]
    assert made.ending(word).tolist() == [one.endswith(word) for one in all_texts]
    numbers = np.arange(len(all_texts))
    assert made.starting(word, numbers).tolist() == [n for n, one in enumerate(all_texts) if one.startswith(word)]
    assert [made[n] for n in range(len(made))] == all_texts


@given(st.dictionaries(st.integers(0, 30), some_text, max_size=8), words.filter(bool), st.integers(1, 5))
def test_numbers_that_have_no_text_hold_no_word(by_number: dict[int, bytes], word: bytes, block: int) -> None:
    writer, numbers = TextsWriter(), sorted(by_number)
    writer.add([by_number[number] for number in numbers])
    made = writer.made(np.array(numbers, dtype=np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BLOCK", block)
        found = np.flatnonzero(made.containing(word)).tolist()
    assert found == [number for number in numbers if word in by_number[number]]
    assert np.flatnonzero(made.ending(word)).tolist() == [n for n in numbers if by_number[n].endswith(word)]
    assert all(made[number] == by_number.get(number, b"") for number in range(len(made)))


def test_ascii_letters_are_made_small_and_others_left_as_they_are() -> None:
    made = packed(["IMG_Ä".encode()])
    assert made.containing("img_Ä".encode()).all() and not made.containing("ä".encode()).any()


def test_a_text_takes_its_bytes_and_five_more() -> None:
    made = packed([b"img_0001.jpg"] * 100)
    assert made.nbytes == 100 * (12 + 5) + 4
