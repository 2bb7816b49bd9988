"""What is removed (or hidden) never matches again: in no space, in no way of asking, from the same moment on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from search import changes, curation, embeddings, identification, retrieval, uploads
from search.encoders import get_encoder, reset_encoders
from search.errors import BadQuery
from search.identification import identify
from search.models import Album, AlbumEntry, Change, EmbeddingSpace, Image
from search.query import parse
from search.references import Collection
from search.spaces import activate, ensure_space, look_space
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh():
    identification.reset_samples()
    yield
    reset_encoders()


@pytest.fixture
def owner() -> Any:
    return make_user("anna")


@pytest.fixture
def spaces(dev_clip: str) -> list[EmbeddingSpace]:
    """Two spaces that both know words: colours, and meaning."""
    clip = ensure_space(get_encoder(dev_clip), dev_clip)
    return [look_space(), clip]


@pytest.fixture
def library(shared: Path, owner: Any, spaces: list[EmbeddingSpace]) -> list[Image]:
    """A dozen photos with vectors in both spaces, all in one album."""
    folder = shared / "photos" / "captioned" / "coco"
    source = make_source(folder, owner=owner, name="Photos")
    paths = sorted(folder.glob("*.jpg"))[:12]
    images = [make_image(source, path.name, title=f"picture {n}") for n, path in enumerate(paths)]
    pixels = [PIL.Image.open(path).convert("RGB") for path in paths]
    ids = np.array([image.pk for image in images], dtype=np.int64)
    for space in spaces:
        encoder = get_encoder(space.encoder)
        embeddings.record(space, ids, encoder.encode_images([encoder.prepare(one) for one in pixels]))
    changes.record(Change.Kind.IMAGES, ids)
    album = Album.objects.create(owner=owner, name="All of them")
    for place, image in enumerate(images, start=1):
        AlbumEntry.objects.create(album=album, image=image, position=place)
    return images


def of(row: Any) -> Collection:
    return Collection("album" if isinstance(row, Album) else "source", row.pk, row.name)


def asked(image: Image, others: list[Image], owner: Any, spaces: list[EmbeddingSpace]) -> dict[str, set[int]]:
    """Every way to meet an image, by its name: the ids that were found."""
    out = io.BytesIO()
    PIL.Image.open(image.absolute_path).convert("RGB").save(out, "PNG")
    upload = uploads.keep(SimpleUploadedFile("same.png", out.getvalue()), owner)
    queries = {
        "words": parse("red", {}),
        "more words": parse("a photo of a person", {}),
        "without words": parse("-blue", {}),
        "by its title": parse(f'"{image.title}"', {}),
        "by a filter": parse(f"id:{image.pk}", {}),
        "newest": parse("", {}),
        "like another": parse("", {"like": str(others[0].pk)}),
        "unlike another": parse("red", {"unlike": str(others[0].pk)}),
        "upload": parse("", {"upload": upload.token}),
        "words and upload": parse("red", {"upload": upload.token}),
    }
    found: dict[str, set[int]] = {}
    for name, query in queries.items():
        for space in spaces:
            pages = [retrieval.find(query, owner, offset=offset, limit=4, space=space) for offset in (0, 4, 8)]
            found[f"{name} in {space.name}"] = {hit.id for page in pages for hit in page.hits}
        activate(spaces[1])
        retrieval.find(query, owner)  # all pages are those of the ranking whose first page was shown
        found[f"{name}, all pages"] = set(retrieval.everything(query, owner).ids.tolist())
    album = Album.objects.get()
    for space in spaces:
        for collection in (of(image.source), of(album)):
            for how in ({"picture": PIL.Image.open(image.absolute_path).convert("RGB")}, {"like": others[0].pk}):
                result = identify(collection, owner, space=space, limit=50, **how)
                found[f"identify {[*how]} in {collection.kind}, {space.name}"] = {
                    one.image.pk for one in result.matches
                }
    return found


@pytest.mark.parametrize("verb", ["remove", "hide"])
def test_what_is_removed_is_met_nowhere_from_that_moment_on(
    client: Client, library: list[Image], owner: Any, spaces: list[EmbeddingSpace], verb: str
) -> None:
    image, *others = library
    before = asked(image, others, owner, spaces)
    met = {how for how, ids in before.items() if image.pk in ids}
    assert set(before) - met <= {"more words in look"}, "only words that colours do not know find nothing at first"
    action = getattr(curation, verb)([image.pk], owner)
    after = asked(image, others, owner, spaces)
    assert not {how for how, ids in after.items() if image.pk in ids}
    for space in spaces:
        assert others[1].pk in after[f"newest in {space.name}"], "the others are still there"
    client.force_login(owner)
    for address in ("/?q=red", f"/?like={others[0].pk}", "/browse/", f"/image/{others[0].pk}/", "/albums/"):
        assert f"/thumbnail/{image.pk}.jpg" not in client.get(address).content.decode()
    curation.undo(action, owner)
    assert {how for how, ids in asked(image, others, owner, spaces).items() if image.pk in ids} == met


def test_pages_of_a_ranking_that_was_made_before_do_not_bring_it_back(
    library: list[Image], owner: Any, spaces: list[EmbeddingSpace]
) -> None:
    activate(spaces[1])
    query = parse("a photo", {})
    first = retrieval.find(query, owner, limit=6)
    later = retrieval.find(query, owner, offset=6, limit=6)
    gone = later.hits[2].id
    curation.remove([gone], owner)
    again = retrieval.find(query, owner, offset=6, limit=6)  # goes on in the ranking that is kept
    assert gone not in {hit.id for hit in again.hits} and again.dropped == 1
    assert [hit.id for hit in first.hits] == [hit.id for hit in retrieval.find(query, owner, limit=6).hits]


def test_what_was_removed_is_no_reference_even_where_it_is_the_only_one(
    library: list[Image], owner: Any, spaces: list[EmbeddingSpace]
) -> None:
    album = Album.objects.get()
    curation.remove([image.pk for image in library[1:]], owner)
    picture = PIL.Image.open(library[1].absolute_path).convert("RGB")
    for space in spaces:
        found = identify(of(album), owner, picture=picture, space=space)
        assert [one.image.pk for one in found.matches] == [library[0].pk]
    curation.remove([library[0].pk], owner)
    with pytest.raises(BadQuery):
        identify(of(album), owner, picture=picture)
