"""A server process loads what the first search needs before somebody searches."""

from __future__ import annotations

import pytest

from search import ranking, retrieval, spaces, warmup
from search.errors import EncoderUnavailable
from search.models import EmbeddingSpace
from tests.factories import make_image

pytestmark = pytest.mark.django_db


def test_warming_loads_the_active_space() -> None:
    make_image()
    assert warmup.warm() == spaces.look_space().pk


def test_warming_without_the_model_says_what_a_search_would_say() -> None:
    space = EmbeddingSpace.objects.create(
        name="away", encoder="local-dir:/nowhere", key="away", label="Away", dim=4, text=True
    )
    spaces.activate(space)
    with pytest.raises(EncoderUnavailable, match="/nowhere"):
        warmup.warm()


def test_practising_searches_as_a_page_does() -> None:
    make_image()
    retrieval.reset_rankings()
    warmup.warm()
    warmup.practise()
    assert any(text == "red" for _, text in ranking._texts), "the words were encoded in the space that serves"


def test_settling_keeps_what_stays_from_the_collector() -> None:
    import gc

    before = gc.get_freeze_count()
    try:
        warmup.settle()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


def test_a_page_that_cannot_be_shown_ends_no_practising(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    make_image()
    monkeypatch.setattr(warmup, "_show_nobody", lambda: 1 // 0)
    warmup.practise()
    assert "cannot be shown" in caplog.text
