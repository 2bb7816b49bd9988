"""Spaces: one encoder each, refused to any other, one of them active."""

from __future__ import annotations

import json

import numpy as np
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from search import embeddings, spaces
from search.encoders import get_encoder
from search.errors import SpaceMismatch
from search.models import Change, EmbeddingSpace, Image
from tests.contracts.store import unit_vectors
from tests.factories import make_image, make_source

pytestmark = pytest.mark.django_db


class OtherEncoder:
    """An encoder of another identity, as after a change of weights."""

    key = "other-1"
    label = "Other model"
    dim = 8
    text = False
    side = 64

    def prepare(self, image):
        return np.asarray(image)

    def encode_images(self, batch):
        return unit_vectors(len(batch), self.dim)

    def encode_texts(self, texts):
        raise ValueError("no words")

    def unknown_words(self, text):
        return text.split()


def test_look_always_exists_and_serves_until_another_is_active() -> None:
    look = spaces.look_space()
    assert spaces.look_space().pk == look.pk == spaces.active_space().pk
    other = spaces.ensure_space(OtherEncoder(), "other")
    assert spaces.active_space().pk == look.pk
    spaces.activate(other)
    assert spaces.active_space().pk == other.pk
    spaces.activate(look)
    assert spaces.active_space().pk == look.pk
    assert Change.objects.filter(kind=Change.Kind.SPACES).count() == 4


def test_the_same_encoder_found_elsewhere_is_the_same_space() -> None:
    first = spaces.ensure_space(OtherEncoder(), "local-dir:/a")
    moved = spaces.ensure_space(OtherEncoder(), "local-dir:/b")
    assert moved.pk == first.pk
    assert EmbeddingSpace.objects.get(pk=first.pk).encoder == "local-dir:/b"


def test_two_encoders_of_one_name_get_spaces_of_their_own() -> None:
    retrained = OtherEncoder()
    retrained.key = "other-2"
    first, second = spaces.ensure_space(OtherEncoder(), "x"), spaces.ensure_space(retrained, "x")
    assert (first.name, second.name) == ("other-model", "other-model-2")


def test_a_space_opened_with_a_different_encoder_is_refused_and_both_are_named() -> None:
    space = spaces.ensure_space(OtherEncoder(), "other")
    space.encoder = "look"
    with pytest.raises(SpaceMismatch) as refused:
        spaces.encoder_of(space)
    look = get_encoder("look")
    for name in ("Other model", "other-1", look.label, look.key):
        assert name in str(refused.value)


def test_a_folder_whose_description_is_of_another_encoder_is_refused() -> None:
    space = spaces.look_space()
    file = django_settings.IMAGESEARCH_SPACES / space.name / "space.json"
    said = json.loads(file.read_text())
    assert said["key"] == space.key
    file.write_text(json.dumps({**said, "key": "stranger", "label": "A stranger"}))
    with pytest.raises(SpaceMismatch, match="A stranger"):
        spaces.encoder_of(space)


def test_the_database_allows_one_active_space() -> None:
    spaces.activate(spaces.look_space())
    with pytest.raises(IntegrityError), transaction.atomic():
        EmbeddingSpace.objects.create(name="second", encoder="x", key="x", label="x", dim=3, text=False, active=True)


def test_spaces_command_lists_and_activates(capsys) -> None:
    call_command("spaces", "--json")
    said = json.loads(capsys.readouterr().out)
    assert [(space["name"], space["active"]) for space in said["spaces"]] == [(spaces.look_space().name, True)]
    assert said["spaces"][0]["coverage_percent"] == 100.0
    call_command("spaces", "activate", spaces.look_space().name)
    assert "serves searches" in capsys.readouterr().out
    with pytest.raises(CommandError, match="no space 'nothing'"):
        call_command("spaces", "activate", "nothing")


def test_removed_images_count_neither_as_embedded_nor_as_readable(capsys) -> None:
    space, source = spaces.look_space(), make_source()
    images = [make_image(source) for _ in range(3)]
    for image in images[:2]:
        embeddings.record(space, [image.pk], unit_vectors(1, space.dim))
    Image.objects.filter(pk=images[0].pk).update(state=Image.State.REMOVED)
    report = spaces.list_spaces()[0]
    assert (report.embedded, report.readable, report.coverage_percent) == (1, 2, 50.0)
    call_command("spaces")
    assert "1 of 2 images (50.0 %)" in capsys.readouterr().out
