"""A model whose weights were replaced: the page says so calmly, naming both, and nothing else breaks."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from search import spaces
from search.encoders import get_encoder
from search.models import EmbeddingSpace
from tests.factories import make_image, make_source

pytestmark = pytest.mark.django_db


def test_a_search_in_a_space_of_other_weights_is_refused_in_a_sentence(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    space = EmbeddingSpace.objects.create(
        name="before", encoder="look", key="weights-of-before", label="Model of before", dim=8, text=True
    )
    spaces.activate(space)
    response = signed_in.get("/", {"q": "red"})
    page = response.content.decode()
    assert response.status_code < 500
    assert "Model of before" in page and get_encoder("look").label in page
    for address in ("/", "/browse/", f"/image/{image.pk}/", "/progress/"):
        assert signed_in.get(address).status_code == 200, address
