"""Where an encoder that knows no words serves: who answers words, and what the pages say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.test import Client

from ingestion.register import crawl
from ingestion.worker import Worker
from search import spaces, warmup
from search.bitmaps import get_library
from search.encoders import get_encoder, reset_encoders
from search.models import Image
from search.query import Query, parse
from search.retrieval import find
from search.words import space_for_words
from tests import patterns
from tests.factories import make_source, make_user
from tests.networks import write_folder

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def spec(tmp_path: Path, settings: Any) -> Any:
    settings.IMAGESEARCH_ENCODER = f"onnx:{write_folder(tmp_path / 'model')}"
    yield settings.IMAGESEARCH_ENCODER
    reset_encoders()


@pytest.fixture
def owner() -> Any:
    return make_user("anna")


@pytest.fixture
def filled(tmp_path: Path, owner: Any, spec: str) -> Any:
    """A source of six pictures, read in both spaces."""
    (tmp_path / "photos").mkdir()
    for number in range(6):
        patterns.write(tmp_path / "photos" / f"p{number}.png", number)
    source = make_source(tmp_path / "photos", owner=owner)
    crawl(source)
    Worker(threads=2).run()
    return source


def test_it_takes_over_from_look_once_it_has_read_every_picture(filled: Any, spec: str) -> None:
    serving = spaces.active_space()
    assert (serving.encoder, serving.text, serving.label) == (spec, False, "tiny")
    first, *others = Image.objects.order_by("pk").values_list("pk", flat=True)
    page = find(Query(like=(first,)), None)
    assert page.space.pk == serving.pk and {hit.id for hit in page.hits} == set(others)
    vectors = np.load(Path(spaces._description_file(serving)).parent / "vectors.npy", mmap_mode="r")
    assert page.hits[0].score == pytest.approx(float(vectors[first] @ vectors[page.hits[0].id]), abs=1e-5)


def test_it_does_not_take_over_from_a_model_that_knows_words(
    tmp_path: Path, filled: Any, dev_clip: str, settings: Any
) -> None:
    settings.IMAGESEARCH_ENCODER = dev_clip
    Worker(threads=2).run()
    clip = spaces.active_space()
    assert clip.encoder == dev_clip
    settings.IMAGESEARCH_ENCODER = f"onnx:{write_folder(tmp_path / 'second', factor=2.0)}"
    Worker(threads=2).run()
    assert spaces.active_space().pk == clip.pk
    wordless = next(one for one in spaces.list_spaces() if one.encoder == settings.IMAGESEARCH_ENCODER)
    assert wordless.embedded == 6


def test_words_are_answered_by_the_fullest_space_that_knows_them(filled: Any, spec: str, dev_clip: str) -> None:
    serving = spaces.active_space()
    assert space_for_words(serving, get_library()) == spaces.look_space()
    page = find(parse("red", {}), None)
    assert page.space == spaces.look_space() and len(page.hits) == 6
    assert page.notices == ["tiny compares pictures and knows no words: look searched instead."]
    clip = spaces.ensure_space(get_encoder(dev_clip), dev_clip)
    assert space_for_words(serving, get_library()) == spaces.look_space(), "nothing is in it yet"
    Worker(only=clip.stage, threads=2).run()
    serving.refresh_from_db()
    spaces.activate(serving)
    like = Image.objects.values_list("pk", flat=True)[0]
    for query in (parse("a dog", {}), parse("a dog", {"like": [str(like)]}), parse("-dog", {})):
        page = find(query, None)
        assert page.space.pk == clip.pk and page.hits
        assert page.notices == [f"tiny compares pictures and knows no words: {clip.label} searched instead."]
    assert find(Query(like=(like,)), None).space.pk == serving.pk
    assert warmup.warm() == serving.pk


def test_words_that_nobody_knows_are_looked_for_in_names(filled: Any) -> None:
    page = find(parse("p3", {}), None)
    assert page.hits[0].image.name == "p3.png" and page.unknown_words == ["p3"]


def test_the_pages_say_what_it_does_and_promise_no_meaning(client: Client, filled: Any, owner: Any) -> None:
    client.force_login(owner)
    for address in ("/", "/?q=red", f"/?like={Image.objects.values_list('pk', flat=True)[0]}"):
        page = client.get(address).content.decode()
        assert "by meaning" not in page, address
    assert "tiny compares pictures and knows no words: look searched instead." in client.get("/?q=red").content.decode()


def test_the_pages_say_that_it_waits(client: Client, owner: Any, spec: str, settings: Any) -> None:
    client.force_login(owner)
    make_source(owner=owner)
    assert "Pictures are compared by the model once it has read all of them" in client.get("/?q=red").content.decode()
    settings.IMAGESEARCH_ENCODER = "onnx:/nowhere"
    page = client.get("/?q=red").content.decode()
    assert "Comparing pictures waits for its model." in page and "/nowhere" not in page
