"""The export page and what it sends."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from search import albums, curation, selection
from search.models import Album, Event, Image, SourceAccess
from search.views import export
from tests.factories import make_image, make_source, make_user
from tests.photos import jpeg, put

pytestmark = pytest.mark.django_db


@pytest.fixture
def images(owner: Any, tmp_path: Path) -> list[Image]:
    source = make_source(tmp_path / "photos", owner=owner, name="Photos")
    made = []
    for number in range(3):
        put(tmp_path / "photos" / "a" / f"{number}.jpg", number)
        made.append(make_image(source, f"a/{number}.jpg", size=len(jpeg(number)), format="JPEG"))
    curation.tag([made[0].pk], ["beach"], owner)
    return made


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def test_results_and_browsing_lead_to_the_export_of_the_same_query(signed_in: Client, images: Any) -> None:
    for page in ("/?q=tag:beach", "/browse/?tag=beach"):
        assert 'href="/export/?q=tag%3Abeach"' in signed_in.get(page).content.decode()
    shown = signed_in.get("/export/?tag=beach").content.decode()
    assert "Export 1 picture<" in shown and 'name="q" value="tag:beach"' in shown
    assert "Export 3 pictures" in signed_in.get("/export/").content.decode()


@pytest.mark.parametrize("kind", ["json", "csv", "zip", "xmp"])
def test_each_format_is_a_download_with_a_name(signed_in: Client, images: Any, kind: str) -> None:
    response = signed_in.get(f"/export/download/?tag=beach&as={kind}&naming=lightroom")
    assert response.status_code == 200 and response.streaming
    ending = "-sidecars.zip" if kind == "xmp" else f".{kind}"
    assert response["Content-Disposition"].startswith('attachment; filename="pictures-20')
    assert response["Content-Disposition"].endswith(f'{ending}"') and response["Cache-Control"] == "private, no-store"
    data = body(response)
    if kind == "json":
        assert [one["tags"] for one in json.loads(data)["images"]] == [["beach"]]
    elif kind == "csv":
        assert data.count(b"\r\n") == 2
    else:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.namelist() == ["Photos/a/0.xmp" if kind == "xmp" else "Photos/a/0.jpg"]
            assert archive.testzip() is None


def test_the_filter_named_format_is_not_the_format_of_the_export(signed_in: Client, images: Any) -> None:
    assert json.loads(body(signed_in.get("/export/download/?format=png&as=json")))["count"] == 0
    assert json.loads(body(signed_in.get("/export/download/?format=jpeg&as=json&best=2")))["count"] == 2


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "Choose what to export as"),
        ("as=pdf", "Choose what to export as"),
        ("as=json&best=0", "whole number from 1"),
        ("as=json&best=x", "whole number from 1"),
        ("as=xmp&naming=x", "as digikam or as lightroom"),
        ("as=json&q=rating:9", "0 to 5"),
        ("as=json&q=like:99", "no picture 99"),
    ],
)
def test_what_is_asked_wrongly_leads_back_with_a_sentence(
    signed_in: Client, images: Any, query: str, says: str
) -> None:
    response = signed_in.get(f"/export/download/?{query}", follow=True)
    assert response.redirect_chain and says in response.content.decode()


def test_a_wrong_query_is_said_on_the_page(signed_in: Client) -> None:
    response = signed_in.get("/export/?q=rating:9")
    assert response.status_code == 422 and 'role="alert"' in response.content.decode()
    assert "Nothing to export" in signed_in.get("/export/").content.decode()


def test_strangers_get_nothing_and_nobody_gets_in_without_an_account(client: Client, images: Any) -> None:
    for address in ("/export/", "/export/download/?as=json"):
        assert client.get(address).status_code == 302
    client.force_login(make_user("bob"))
    assert "Nothing to export" in client.get("/export/").content.decode()
    assert json.loads(body(client.get("/export/download/?as=json")))["images"] == []
    for kind in ("zip", "xmp"):
        with zipfile.ZipFile(io.BytesIO(body(client.get(f"/export/download/?as={kind}")))) as archive:
            assert archive.namelist() == []


def test_downloads_of_originals_leave_threads_to_others(signed_in: Client, images: Any) -> None:
    def stream() -> Any:
        yield b"one"
        yield b"two"

    for _ in range(export.AT_ONCE):
        assert export._reading.acquire(blocking=False)
    refused = signed_in.get("/export/download/?as=zip", follow=True)
    assert "downloads of originals are under way" in refused.content.decode()
    assert json.loads(body(signed_in.get("/export/download/?as=json")))["count"] == 3
    turns = [export._Turn(stream()) for _ in range(export.AT_ONCE)]
    turns[0].close()  # never begun
    assert list(turns[1]) == [b"one", b"two"]
    next(turns[2])
    turns[2].close()  # broken off
    for turn in turns:
        turn.close()
        turn.close()
    for _ in range(2 * export.AT_ONCE):
        assert body(signed_in.get("/export/download/?as=zip"))
    assert export._reading._value == export.AT_ONCE


def test_the_page_costs_the_same_for_any_number_of_images(signed_in: Client, owner: Any, images: Any) -> None:
    def cost() -> int:
        for _ in range(2):
            signed_in.get("/export/?tag=beach")
        with CaptureQueriesContext(connection) as captured:
            signed_in.get("/export/?tag=beach")
        return len(captured)

    before = cost()
    for number in range(30):
        image = make_image(images[0].source, f"more/{number}.jpg")
        curation.tag([image.pk], ["beach"], owner)
    assert cost() == before


def test_an_error_in_the_middle_breaks_the_download_off(signed_in: Client, images: Any, monkeypatch: Any) -> None:
    """It must not look whole: the stream raises, and the server ends the connection without its end."""
    from search import exports

    real = exports.record

    def fails(row: Any, **options: Any) -> Any:
        if row.image.pk == images[0].pk:
            raise OSError("database gone")
        return real(row, **options)

    monkeypatch.setattr(exports, "record", fails)
    response = signed_in.get("/export/download/?as=json")
    with pytest.raises(OSError, match="database gone"):
        body(response)
    assert os.path.isdir(images[0].source.root_path)


def test_the_audit_says_who_took_what_along(signed_in: Client, owner: Any, images: Any) -> None:
    body(signed_in.get("/export/download/?tag=beach&as=zip"))
    line = Event.objects.get(kind=Event.Kind.EXPORTED)
    assert (line.user, line.count, line.text) == (owner, 1, "1 picture as originals: tag:beach")


@pytest.mark.parametrize("script", [False, True])
def test_the_selection_is_exported_in_its_order_with_the_ticks_just_made(
    signed_in: Client, images: Any, script: bool
) -> None:
    headers = {"HX-Request": "true"} if script else {}
    ticks = {"verb": "export", "shown": "", "ids": [images[2].pk, images[0].pk]}
    response = signed_in.post("/selection/do/", ticks, headers=headers)
    there = response["HX-Redirect" if script else "Location"]
    assert there == "/export/?of=selection" and "Export 2 pictures" in signed_in.get(there).content.decode()
    found = json.loads(body(signed_in.get("/export/download/?of=selection&as=json")))["images"]
    assert [one["id"] for one in found] == [images[2].pk, images[0].pk]
    stranger = Client()
    stranger.force_login(make_user("bob"))
    assert json.loads(body(stranger.get("/export/download/?of=selection&as=json")))["images"] == []


def test_hidden_ones_are_exported_from_a_selection_by_those_who_may_edit_them(
    signed_in: Client, owner: Any, images: Any
) -> None:
    eve = make_user("eve")
    SourceAccess.objects.create(source=images[0].source, user=eve, role="viewer")
    for user in (owner, eve):
        selection.change(user, add=[images[0].pk, images[1].pk])
    curation.hide([images[0].pk], owner)
    assert json.loads(body(signed_in.get("/export/download/?of=selection&as=json")))["count"] == 2
    viewer = Client()
    viewer.force_login(eve)
    assert json.loads(body(viewer.get("/export/download/?of=selection&as=json")))["count"] == 1


def test_an_album_is_exported_by_those_it_is_shared_with(signed_in: Client, owner: Any, images: Any) -> None:
    album = Album.objects.create(owner=owner, name="Best of")
    albums.add(album, [images[1].pk, images[0].pk], owner)
    there = f"/export/?of=album-{album.pk}"
    assert f'href="{there}"' in signed_in.get(f"/albums/{album.pk}/").content.decode()
    assert f'href="/albums/{album.pk}/"' in signed_in.get(there).content.decode()
    found = json.loads(body(signed_in.get(f"/export/download/?of=album-{album.pk}&as=json")))
    assert found["album"] == "Best of" and {one["id"] for one in found["images"]} == {images[0].pk, images[1].pk}
    stranger = Client()
    stranger.force_login(make_user("bob"))
    assert stranger.get(f"/export/?of=album-{album.pk}").status_code == 422
    assert "not there any more" in stranger.get(f"/export/?of=album-{album.pk}").content.decode()
