"""What is made of a picture is made once, and of two pictures at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ingestion.ledger import Claimed
from ingestion.pictures import Picture
from search import decoding
from search.models import Image
from tests import patterns


def picture(path: Path, number: int) -> Picture:
    made = Picture(Image(pk=number, path=path.name.encode()), Claimed(number, ("read",), 0), 64)
    made.data = patterns.write(path, number).read_bytes()
    return made


def test_two_pictures_are_decoded_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    read_pixels = decoding.read_pixels

    def met(*arguments, **options):  # type: ignore[no-untyped-def]
        both.wait(60)  # breaks, and fails the test, unless the other thread gets here too
        return read_pixels(*arguments, **options)

    monkeypatch.setattr(decoding, "read_pixels", met)
    pictures = [picture(tmp_path / f"{n}.jpg", n) for n in (1, 2)]
    sizes = []
    threads = [threading.Thread(target=lambda one=one: sizes.append(one.thumbnail.size)) for one in pictures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [(96, 80), (96, 80)]


def test_pixels_and_thumbnail_are_made_once_and_let_go(tmp_path: Path) -> None:
    one = picture(tmp_path / "1.jpg", 1)
    assert one.decoded is one.decoded and one.thumbnail is one.thumbnail
    assert one.encoded_thumbnail is one.encoded_thumbnail
    before = one.decoded
    data = one.data
    one.let_go()
    assert not one.data and "decoded" not in one.__dict__
    one.data = data
    assert one.decoded is not before
