"""A server process loads what the first search needs before somebody searches."""

from __future__ import annotations

import pytest

from search import spaces, warmup
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
