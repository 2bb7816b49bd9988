"""What the lightbox asks for: slices of any set, in its order, that neither overlap wrongly nor leave anything out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from search import albums, changes, curation, embeddings, personal, selection
from search.models import Change, Image
from search.spaces import look_space
from search.views.slides import SLICE
from tests.factories import make_image, make_source, make_user
from tests.pages.pictures import body, image_on_disk, jpeg

pytestmark = pytest.mark.django_db
START = datetime(2024, 5, 1, tzinfo=UTC)
NUMBER = 2 * SLICE + 17


def library(owner: Any, number: int = NUMBER) -> list[Image]:
    """Pictures newest first, each with a vector of its own, the first one nearest to the last ones."""
    source = make_source(owner=owner)
    images = [make_image(source, shown_at=START - timedelta(hours=n)) for n in range(number)]
    rows = np.random.default_rng(5).normal(size=(number, look_space().dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    embeddings.record(look_space(), np.array([image.pk for image in images]), rows)
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, [image.pk for image in images])
    return images


def sets(owner: Any, images: list[Image]) -> dict[str, str]:
    """The address of one picture in each kind of set."""
    album, _ = albums.create("Walks", owner)
    albums.add(album, [image.pk for image in images[::-1]], owner)
    selection.change(owner, add=[image.pk for image in images[1:]])
    curation.tag([image.pk for image in images], ["beach"], owner)
    return {
        "newest": f"/image/{images[70].pk}/",
        "browsed": f"/image/{images[70].pk}/?tag=beach&in=browse",
        "filtered": f"/image/{images[70].pk}/?tag=beach&at=70",
        "like": f"/image/{images[3].pk}/?like={images[0].pk}&at=40",
        "album": f"/image/{images[70].pk}/?in=album-{album.pk}",
        "selection": f"/image/{images[70].pk}/?in=selection&at=69",
    }


KINDS = ["newest", "browsed", "filtered", "like", "album", "selection"]


def ask(client: Client, href: str, way: str) -> dict[str, Any]:
    parts = urlsplit(href)
    pk = parts.path.split("/")[2]
    response = client.get(f"/slides/?{urlencode([*parse_qsl(parts.query), ('from', pk), ('way', way)])}")
    assert response.status_code == 200
    found: dict[str, Any] = json.loads(response.content)
    return found


def walk(client: Client, href: str, between: Callable[[int], None] = lambda place: None) -> list[int]:
    """The whole set from one picture on, both ways, as the script goes through it."""
    first = ask(client, href, "around")
    ids = [slide["id"] for slide in first["slides"]]
    hrefs = {slide["id"]: slide["href"] for slide in first["slides"]}
    after, before = first["after"], first["before"]
    while after:
        between(ids[-1])
        data = ask(client, hrefs[ids[-1]], "after")
        fresh = [slide for slide in data["slides"] if slide["id"] not in hrefs]
        hrefs |= {slide["id"]: slide["href"] for slide in fresh}
        ids += [slide["id"] for slide in fresh]
        after = data["after"] and bool(data["slides"])
    while before:
        data = ask(client, hrefs[ids[0]], "before")
        fresh = [slide for slide in data["slides"] if slide["id"] not in hrefs]
        hrefs |= {slide["id"]: slide["href"] for slide in fresh}
        ids = [slide["id"] for slide in fresh] + ids
        before = data["before"] and bool(data["slides"])
    return ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_set_is_gone_through_in_its_order(kind: str, signed_in: Client, owner: Any) -> None:
    images = library(owner)
    href = sets(owner, images)[kind]
    if kind == "like":
        listed = signed_in.get(f"/?like={images[0].pk}&min=0").context["found"]
        assert listed.total == NUMBER - 1
        at = next(hit for hit in listed.hits if hit.place == 40)
        href = f"/image/{at.id}/?like={images[0].pk}&at=40"
    ids = walk(signed_in, href)
    assert len(ids) == len(set(ids))
    order = [image.pk for image in images]
    expected = {"album": order[::-1], "selection": order[1:]}.get(kind, order)
    if kind == "like":
        assert set(ids) == set(order[1:])
    else:
        assert ids == expected


@pytest.mark.parametrize("kind", ["newest", "filtered", "album"])
def test_hiding_on_the_way_loses_no_picture(kind: str, signed_in: Client, owner: Any) -> None:
    images = library(owner)
    href = sets(owner, images)[kind]
    hidden: list[int] = []

    def hide(last: int) -> None:
        """Some of those that were looked at are hidden, and the results are ranked anew."""
        gone = [image.pk for image in images[75:80]]
        hidden.extend(gone)
        curation.hide(gone, owner)
        signed_in.get("/?tag=beach")

    ids = walk(signed_in, href, hide)
    assert hidden
    assert set(ids) == {image.pk for image in images}, "every picture was reached, also those after the hidden ones"


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_costs_the_same_queries_for_few_and_many(kind: str, signed_in: Client, owner: Any) -> None:
    images = library(owner, 90)
    href = sets(owner, images)[kind]
    costs = []
    for _ in range(2):
        for _ in range(2):
            ask(signed_in, href, "around")
        with CaptureQueriesContext(connection) as captured:
            data = ask(signed_in, href, "around")
        costs.append(len(captured))
        assert len(data["slides"]) > 30
        library(owner, 40)
    assert costs[0] == costs[1] <= 28


def test_a_slide_says_how_its_picture_stands(signed_in: Client, owner: Any) -> None:
    mine = make_image(make_source(owner=owner), rating=3, title="Sea")
    theirs = make_image(make_source(viewer=owner))
    strange = make_image(make_source(owner=make_user()))
    personal.favourite([mine.pk], owner)
    selection.change(owner, add=[theirs.pk])
    data = json.loads(signed_in.get(f"/slides/?ids={mine.pk},{theirs.pk},{strange.pk},x").content)["slides"]
    assert [one["id"] for one in data] == [mine.pk, theirs.pk], "what one may not see is not there"
    assert data[0] | {"rating": 3, "favourite": True, "selected": False, "editable": True, "name": "Sea"} == data[0]
    assert data[1] | {"rating": 0, "favourite": False, "selected": True, "editable": False} == data[1]
    assert signed_in.get(f"/slides/?from={strange.pk}").status_code == 404


def test_counting_says_what_is_known(signed_in: Client, owner: Any) -> None:
    images = library(owner)
    known = sets(owner, images)
    assert (ask(signed_in, known["filtered"], "around") | {"number": 11, "total": NUMBER})["total"] == NUMBER
    assert ask(signed_in, known["filtered"], "around")["number"] == 70 - SLICE + 1
    album = ask(signed_in, known["album"], "around")
    place = NUMBER - 1 - 70
    assert (album["number"], album["total"]) == (max(0, place - SLICE) + 1, NUMBER)
    browsed = ask(signed_in, known["newest"], "around")
    assert (browsed["number"], browsed["total"]) == (None, NUMBER), "no count of a million rows for a place"
    assert ask(signed_in, f"/image/{images[5].pk}/", "around")["number"] == 1


# --- what is done on a tile ---------------------------------------------------------------------------


def send(client: Client, address: str, **values: str) -> Any:
    return client.post(address, {"shown": "tile", **values}, headers={"HX-Request": "true"})


def test_a_change_on_a_tile_answers_with_its_undo_and_how_the_picture_stands(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    answer = send(signed_in, f"/image/{image.pk}/rate/", rating="4")
    event = json.loads(answer["HX-Trigger"])["image-changed"]
    assert (event["id"], event["rating"]) == (image.pk, 4)
    page = answer.content.decode()
    assert 'id="toasts"' in page and "<html" not in page and 'name="shown" value="tile"' in page
    action = int(page.split('action="/action/')[1].split("/")[0])
    undone = send(signed_in, f"/action/{action}/undo/")
    assert "images-changed" in json.loads(undone["HX-Trigger"])
    image.refresh_from_db()
    assert image.rating == 0


def test_what_one_may_not_change_is_said_on_a_tile(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(viewer=owner))
    answer = send(signed_in, f"/image/{image.pk}/rate/", rating="4")
    assert answer.status_code == 200 and "toast error" in answer.content.decode()
    image.refresh_from_db()
    assert image.rating == 0


def test_one_picture_is_selected_and_put_into_an_album_from_its_page(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    signed_in.post(f"/image/{image.pk}/select/")
    assert selection.of(owner).ids.tolist() == [image.pk]
    signed_in.post(f"/image/{image.pk}/unselect/")
    assert not len(selection.of(owner))
    signed_in.post(f"/image/{image.pk}/album/", {"album_name": "Walks"})
    assert list(image.album_entries.values_list("album__name", flat=True)) == ["Walks"]
    said = signed_in.post(f"/image/{image.pk}/album/", {"album": "999999"}, follow=True).content.decode()
    assert "Choose an album" in said


def test_the_panel_and_the_page_have_different_ids(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    panel = signed_in.get(f"/image/{image.pk}/panel/").content.decode()
    assert 'id="lightbox-curation"' in panel and 'id="curation"' not in panel and "Dimensions" in panel
    answer = signed_in.post(
        f"/image/{image.pk}/rate/", {"rating": "2"}, headers={"HX-Request": "true", "HX-Target": "lightbox-curation"}
    )
    assert 'id="lightbox-rating-2"' in answer.content.decode()
    assert json.loads(answer["HX-Trigger"])["image-changed"]["rating"] == 2
    page = signed_in.get(f"/image/{image.pk}/")
    assert 'id="curation"' in page.content.decode() and "HX-Request" in page["Vary"]


# --- the sizes of a picture ---------------------------------------------------------------------------


def test_a_large_file_is_sent_no_larger_than_asked(signed_in: Client, owner: Any, tmp_path: Path) -> None:
    import io

    import PIL.Image

    noise = np.random.default_rng(1).integers(0, 255, (1500, 3000, 3), dtype=np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(noise).save(out, "JPEG", quality=90)
    image = image_on_disk(make_source(tmp_path, owner=owner), "big.jpg", out.getvalue(), width=3000, height=1500)
    address = f"/picture/{image.pk}.jpg"
    for side, size in [("1280", (1280, 640)), ("2048", (2048, 1024)), ("4096", (3000, 1500)), ("77", (3000, 1500))]:
        answer = signed_in.get(f"{address}?side={side}")
        assert PIL.Image.open(io.BytesIO(body(answer))).size == size, side
    assert body(signed_in.get(address)) == out.getvalue()
    tags = {signed_in.get(f"{address}?side={side}")["ETag"] for side in ("1280", "2048")}
    assert len(tags | {signed_in.get(address)["ETag"]}) == 3, "a browser never takes one size for another"


def test_a_file_that_is_gone_is_said_in_words_when_asked_strictly(
    signed_in: Client, owner: Any, tmp_path: Path
) -> None:
    image = image_on_disk(make_source(tmp_path, owner=owner), "a.jpg", jpeg())
    os.unlink(tmp_path / "a.jpg")
    assert signed_in.get(f"/picture/{image.pk}.jpg").status_code == 200, "elsewhere its thumbnail stands for it"
    answer = signed_in.get(f"/picture/{image.pk}.jpg?strict=1&side=2048")
    assert (answer.status_code, answer.content) == (404, b"The file is not where it was.")
    assert answer["Content-Type"].startswith("text/plain")
