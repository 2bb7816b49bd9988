"""What is wrong with the server is said to everybody, its folders and hashes to those who run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from search import changes, embeddings, spaces
from search.encoders import get_encoder, weights
from search.models import Change, EmbeddingSpace
from search.vectors import get_store
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db
ASK = "Whoever runs this installation"


@pytest.fixture
def pages(owner: Any) -> Callable[[str], tuple[str, str]]:
    """`pages(address)`: the page as a guest sees it and as staff does."""
    make_image(make_source(owner=owner))
    seen = []
    for user in (owner, make_user("boss", staff=True)):
        client = Client()
        client.force_login(user)
        seen.append(client)
    return lambda address: (seen[0].get(address).content.decode(), seen[1].get(address).content.decode())


@pytest.mark.parametrize("address", ["/?q=red", "/progress/"])
@pytest.mark.parametrize("there", ["nothing", "empty weights"])
def test_a_missing_model_shows_its_folder_to_staff_only(
    pages: Callable[[str], tuple[str, str]], settings: Any, tmp_path: Path, address: str, there: str
) -> None:
    folder = tmp_path / "hidden-place"
    settings.IMAGESEARCH_ENCODER = f"local-dir:{folder / 'clip'}"
    if there == "empty weights":
        (folder / "clip").mkdir(parents=True)
        (folder / "clip" / weights.CONFIG).write_text("{}")
        (folder / "clip" / weights.PREFERRED[0]).touch()
    guest, staff = pages(address)
    assert "hidden-place" in staff and ASK not in staff
    assert "hidden-place" not in guest and "manage.py" not in guest and ASK in guest


def test_searching_without_the_active_model_shows_its_folder_to_staff_only(
    pages: Callable[[str], tuple[str, str]], tmp_path: Path
) -> None:
    lost = EmbeddingSpace.objects.create(
        name="lost", encoder=f"local-dir:{tmp_path}/hidden-place", key="k", label="Lost", dim=8, text=True
    )
    spaces.activate(lost)
    guest, staff = pages("/?q=red")
    for page in (guest, staff):
        assert "Searched by colours and layout only." in page
    assert "hidden-place" in staff
    assert "hidden-place" not in guest and ASK in guest


def test_swapped_weights_show_their_hashes_to_staff_and_the_command_line_only(
    pages: Callable[[str], tuple[str, str]],
) -> None:
    swapped = EmbeddingSpace.objects.create(
        name="before", encoder="look", key="weights-of-before", label="Model of before", dim=8, text=True
    )
    spaces.activate(swapped)
    guest, staff = pages("/?q=red")
    key = get_encoder("look").key
    assert "weights-of-before" in staff and key in staff and "IMAGESEARCH_ENCODER" in staff
    assert "Model of before" in guest and ASK in guest
    assert "weights-of-before" not in guest and key not in guest and "IMAGESEARCH_ENCODER" not in guest
    with pytest.raises(CommandError, match="weights-of-before"):
        call_command("search", "red")


def test_a_lost_embedding_file_shows_its_folder_to_staff_only(
    pages: Callable[[str], tuple[str, str]], settings: Any
) -> None:
    image = make_image()
    space = spaces.look_space()
    vector = np.zeros((1, space.dim), np.float32)
    vector[0, 0] = 1
    embeddings.record(space, np.array([image.pk]), vector)
    changes.record(Change.Kind.IMAGES, [image.pk])
    get_store(space).file.path.unlink()
    guest, staff = pages("/?q=red")
    assert str(settings.IMAGESEARCH_SPACES) in staff and "manage.py repair" in staff
    assert str(settings.IMAGESEARCH_SPACES) not in guest and "manage.py" not in guest and ASK in guest
