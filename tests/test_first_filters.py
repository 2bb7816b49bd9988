"""The first use of a filter: told by what pages count with, the same as by the database, and made once for several."""

from __future__ import annotations

import datetime as dt
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction

from search import changes, facets, filter_bitmaps
from search.bitmaps import get_library
from search.facets import get_facets
from search.filters import Term
from search.models import Change, ImageTag, Tag
from tests.factories import make_image, make_source
from tests.test_filter_bitmaps import kept, terms_of

pytestmark = pytest.mark.django_db


NAMES = [
    "Canon EOS",
    "CANON 5D",
    "Über Kamera",
    "uber",
    "STRASSE",
    "Straße",
    "Ελλάς",
    "ΕΛΛΆΣ",
    "富士フイルム X",
    "50%_mm",
    "Cafe\u0301",
    "",
]


@pytest.mark.parametrize("column", ["camera", "lens"])
def test_texts_are_compared_as_the_database_compares_them(column: str) -> None:
    source = make_source()
    for name in NAMES:
        make_image(source, **{column: name})
    asked = [*filter(None, NAMES), "canon", "ÜBER", "ss", "ς", "σ", "X", "%", "_", "é", "cafe", "e", "nothing"]
    by_database = {word: kept([Term(column, word)], None) for word in asked}
    get_facets().load()
    filter_bitmaps.reset_filter_bitmaps()
    assert {word: kept([Term(column, word)], None) for word in asked} == by_database
    assert by_database["canon"] and by_database["ss"] and not by_database["nothing"]


@pytest.mark.parametrize(
    "word",
    [
        "camera:canon",
        "lens:50",
        "format:jpeg",
        "date:2024",
        "rating:0",
        "is:unrated",
        "has:gps",
        "has:title",
        "has:tags",
        "is:untagged",
    ],
)
def test_what_pages_count_with_answers_without_looking_at_images(word: str, django_assert_num_queries: Any) -> None:
    images = [make_image(make_source(), camera="Canon", lens="50mm", latitude=1.0, longitude=1.0) for _ in range(3)]
    library = get_library()
    terms = terms_of([word])
    with django_assert_num_queries(1):
        before = filter_bitmaps.passing(terms, None, library, library.size)
    get_facets().load()
    filter_bitmaps.reset_filter_bitmaps()
    with django_assert_num_queries(0):
        now = filter_bitmaps.passing(terms, None, library, library.size)
    ids = [image.pk for image in images]
    assert before[ids].tolist() == now[ids].tolist() == [word not in ("has:title", "has:tags")] * 3


DATES = [(1999, None), (2019, 0), (2019, 840), (2020, -720), (2020, None), (2021, 60)]


def test_what_pages_count_with_answers_as_the_database_does(django_user_model: Any, settings: Any) -> None:
    editor, stranger = (django_user_model.objects.create_user(name, password="x") for name in ("editor", "stranger"))
    disk, other = make_source(owner=editor), make_source(name="Other", owner=stranger)
    parent, child = Tag.objects.create(name="animals"), Tag.objects.create(name="dogs")
    Tag.objects.filter(pk=child.pk).update(parent=parent)
    for number, (year, offset) in enumerate(DATES):
        moment = dt.datetime(year, 12, 31, 23, 30, 59, 999_999, tzinfo=dt.UTC) if number % 2 else None
        image = make_image(
            disk if number % 3 else other,
            rating=number,
            format=["JPEG", "HEIF", "RAW"][number % 3],
            captured_at=moment,
            captured_offset=offset if moment else None,
            shown_at=moment or dt.datetime(year, 1, 1, 0, 0, tzinfo=dt.UTC),
        )
        if number < 4:
            ImageTag.objects.create(image=image, tag=child if number % 2 else parent)
    words = [f"rating:{word}" for word in ("0", "5", ">=3", "<=2", "1..4")]
    words += [f"format:{word}" for word in ("jpeg", "heic", "raw", "gif")]
    words += [f"date:{word}" for word in ("2019", "2018", "2020..2021", "1999..2022", "2020..", "..2020", "2019-12")]
    words += ["tag:animals", "tag:dogs", "tag:nobody", "is:unrated", "has:rating"]
    settings.TIME_ZONE = "Asia/Tokyo"
    by_database = {word: kept(terms_of([word]), editor) for word in words}
    get_facets().load()
    filter_bitmaps.reset_filter_bitmaps()
    assert {word: kept(terms_of([word]), editor) for word in words} == by_database
    assert all(len(by_database[word]) for word in ("rating:>=3", "format:heic", "date:2020..2021", "tag:animals"))
    other_source = Term("source", "Other")
    assert kept([other_source], editor) == f"wrong: {other_source}", "of another's sources nobody learns the name"


def _asked_by_two(monkeypatch: pytest.MonkeyPatch, make: Any) -> list[Any]:
    """What two threads get that ask for the same new filter, the second while `make` of the first is not done."""
    begun, go_on, made = threading.Event(), threading.Event(), filter_bitmaps._made

    def slowly(term: Term, *rest: Any) -> Any:
        if begun.is_set():
            return made(term, *rest)
        begun.set()
        assert go_on.wait(20)
        return make(lambda: made(term, *rest))

    monkeypatch.setattr(filter_bitmaps, "_made", slowly)
    library = get_library()
    library.visible(None)
    term = Term("camera", "canon")

    def ask() -> Any:
        try:
            return np.flatnonzero(filter_bitmaps.passing([term], None, library, library.size)).tolist()
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(ask)
        assert begun.wait(20)
        second = threads.submit(ask)
        [key] = filter_bitmaps._making
        while len(filter_bitmaps._making[key]) < 2:
            time.sleep(0.001)
        other = threads.submit(filter_bitmaps.passing, [], None, library, library.size)
        assert len(other.result(20)) == library.size, "what is kept is at hand while one is made"
        go_on.set()
        outcomes: list[Any] = []
        for one in (first, second):
            outcomes.append(one.exception(20) or one.result())
    assert filter_bitmaps._making == {}
    return outcomes


@pytest.mark.django_db(transaction=True)
def test_two_who_ask_for_the_same_at_once_have_it_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(make_source(), camera="Canon")
    asked: list[int] = []

    def make(made: Any) -> Any:
        asked.append(1)
        monkeypatch.setattr(filter_bitmaps.filters, "alone", lambda *_: pytest.fail("asked the database again"))
        return kept_now

    kept_now = filter_bitmaps._made(Term("camera", "canon"), None, get_library(), get_library().number)
    assert _asked_by_two(monkeypatch, make) == [[image.pk], [image.pk]] and asked == [1]


@pytest.mark.django_db(transaction=True)
def test_when_the_first_fails_the_second_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image(make_source(), camera="Canon")

    def fail(made: Any) -> Any:
        raise RuntimeError("the first one's own trouble")

    first, second = _asked_by_two(monkeypatch, fail)
    assert isinstance(first, RuntimeError) and second == [image.pk]


def test_a_search_follows_little_and_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    make_image()
    counted = facets.get_facets()
    counted.load()
    library = get_library()
    assert facets.loaded_facets(library, library.number) is counted
    with transaction.atomic():
        changes.record(Change.Kind.FACTS, [1])
    library.refresh()
    monkeypatch.setattr(facets, "_MOST_BEHIND", 0)
    assert facets.loaded_facets(library, library.number) is None, "followed in the background"
    assert facets.get_facets() is counted and facets.loaded_facets(library, library.number) is counted
    monkeypatch.setattr(facets, "_PATIENCE", 0.01)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with counted._lock:
            held.set()
            done.wait(10)

    reader = threading.Thread(target=hold)
    reader.start()
    try:
        assert held.wait(10) and facets.loaded_facets(library, library.number) is None
    finally:
        done.set()
        reader.join()
