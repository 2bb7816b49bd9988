"""A server process goes over to another space when it has loaded it, and answers from the old one until then."""

from __future__ import annotations

import threading
import time

import pytest

from search import serving, spaces
from search.errors import EncoderUnavailable
from search.models import EmbeddingSpace
from search.serving import Serving

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair() -> tuple[EmbeddingSpace, EmbeddingSpace]:
    other = EmbeddingSpace.objects.create(name="b", encoder="b", key="b", label="B", dim=4, text=True)
    return spaces.look_space(), other


def loaded(pks: list[int]) -> Serving:
    here = Serving(lambda space: pks.append(space.pk))
    here.follow()
    return here


def test_without_following_the_active_space_serves_at_once(pair) -> None:
    here = Serving(lambda space: pytest.fail("nothing is loaded ahead"))
    assert here.space().pk == pair[0].pk
    spaces.activate(pair[1])
    assert here.space().pk == pair[1].pk


def test_the_old_space_serves_until_the_new_one_is_loaded(pair) -> None:
    old, new = pair
    done: list[int] = []
    here = loaded(done)
    assert here.catch_up() == old.pk
    spaces.activate(new)
    assert [here.space().pk for _ in range(3)] == [old.pk] * 3
    assert here.noticed.is_set(), "the thread that loads is woken"
    assert here.catch_up() == new.pk and here.space().pk == new.pk
    spaces.activate(old)
    assert here.space().pk == old.pk, "what is loaded serves at once"
    assert done == [old.pk, new.pk]
    here.catch_up()
    assert done == [old.pk, new.pk], "and is not loaded again"


def test_the_first_search_of_a_process_takes_the_active_space(pair) -> None:
    spaces.activate(pair[1])
    assert loaded([]).space().pk == pair[1].pk


def test_searches_go_on_in_the_old_space_while_loading_takes_its_time(pair) -> None:
    old, new = pair
    go, loading = threading.Event(), threading.Event()

    def load(space: EmbeddingSpace) -> None:
        if space.pk == new.pk:
            loading.set()
            assert go.wait(20)

    here = Serving(load)
    here.follow()
    here.catch_up()
    spaces.activate(new)
    # The query for the active space is the test's own: a thread would not see this test's transaction.
    thread = threading.Thread(target=lambda: (load(new), here._ready.add(new.pk)))
    thread.start()
    assert loading.wait(20)
    for _ in range(10):
        assert here.space().pk == old.pk
    go.set()
    thread.join(20)
    assert here.space().pk == new.pk


def test_after_the_bound_the_new_space_serves_whatever_loading_says(pair, monkeypatch) -> None:
    old, new = pair

    def load(space: EmbeddingSpace) -> None:
        if space.pk == new.pk:
            raise EncoderUnavailable("It is not here.")

    here = Serving(load)
    here.follow()
    here.catch_up()
    spaces.activate(new)
    with pytest.raises(EncoderUnavailable):
        here.catch_up()
    assert here.space().pk == old.pk
    began = time.monotonic()
    monkeypatch.setattr(serving.time, "monotonic", lambda: began + serving.MOST_SECONDS + 1)
    assert here.space().pk == new.pk


def test_a_space_that_is_gone_serves_no_longer(pair) -> None:
    old, new = pair
    here = loaded([])
    spaces.activate(new)
    here.catch_up()
    spaces.activate(old)
    EmbeddingSpace.objects.filter(pk=new.pk).delete()
    assert here.space().pk == old.pk
