"""The search page, its filters, and a picture as the query."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.factories import make_image, make_source, make_user
from tests.pages.pictures import jpeg

pytestmark = pytest.mark.django_db


# --- searching --------------------------------------------------------------------------------------


def test_empty_search_shows_the_newest_first(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    old = make_image(source, "old.jpg", shown_at=datetime(2001, 1, 1, tzinfo=UTC))
    new = make_image(source, "new.jpg", shown_at=datetime(2021, 1, 1, tzinfo=UTC))
    page = signed_in.get("/").content.decode()
    assert page.index(f"/image/{new.pk}/") < page.index(f"/image/{old.pk}/")
    assert "What can be asked" in page


def test_empty_catalogue_says_how_to_fill_it_to_those_who_can(signed_in: Client) -> None:
    staff = Client()
    staff.force_login(make_user("root", staff=True))
    for address in ["/", "/browse/"]:
        assert "manage.py index" in staff.get(address).content.decode()
        page = signed_in.get(address).content.decode()
        assert "manage.py" not in page and "Who may see which folder" in page


def test_every_part_of_a_query_is_a_chip_with_the_address_without_it(signed_in: Client, owner: Any) -> None:
    from search.query import from_params

    example = make_image(make_source(owner=owner), "example.jpg")
    address = f"/?q=red -blue tag:beach -name:x order:newest&like={example.pk}"
    response = signed_in.get(address)
    query = response.context["query"]
    made = response.context["chips"]
    assert [(chip.kind, chip.text) for chip in made] == [
        ("", "red"), ("not", "blue"), ("like", "example.jpg"), ("tag", "beach"), ("not file name", "x"),
        ("order", "newest first"),
    ]  # fmt: skip
    for chip in made:
        rest = from_params(signed_in.get(chip.without).wsgi_request.GET)
        assert len(rest.params().values()) <= len(query.params().values())
        assert rest != query
    assert "example.jpg" in response.content.decode()


def test_wrong_query_is_a_sentence_and_keeps_what_was_typed(signed_in: Client) -> None:
    response = signed_in.get("/", {"q": "dog rating:9"})
    page = response.content.decode()
    assert response.status_code == 422
    assert "rating: takes 0 to 5" in page and 'value="dog rating:9"' in page


def test_unknown_words_are_said(signed_in: Client, owner: Any) -> None:
    make_image(make_source(owner=owner))
    page = signed_in.get("/?q=red+zeppelin").content.decode()
    assert "does not know" in page and "zeppelin" in page


def test_page_says_what_brings_the_model(signed_in: Client, owner: Any, settings: Any) -> None:
    settings.IMAGESEARCH_ENCODER = "local-dir:/nowhere/at/all"
    make_image(make_source(owner=owner))
    page = signed_in.get("/?q=red").content.decode()
    assert "Searching by meaning waits for its model" in page and "runs this installation can bring it" in page
    signed_in.force_login(make_user("boss", staff=True))
    for address in ("/?q=red", "/progress/"):
        assert "/nowhere/at/all" in signed_in.get(address).content.decode()


def test_search_fragment_for_htmx_is_not_a_page(signed_in: Client, owner: Any) -> None:
    make_image(make_source(owner=owner))
    fragment = signed_in.get("/?q=red", headers={"HX-Request": "true"})
    assert b"<html" not in fragment.content and b"hx-swap-oob" in fragment.content
    assert "HX-Request" in fragment["Vary"]
    whole = signed_in.get("/?q=red", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert b"<html" in whole.content


def test_more_results_come_as_a_link_and_as_a_fragment(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    for number in range(70):
        make_image(source, shown_at=datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=number))
    first = signed_in.get("/?q=name:photo")
    more = first.context["more_href"]
    assert more in first.content.decode().replace("&amp;", "&")
    ids = re.findall(r'href="/image/(\d+)/', first.content.decode())
    second = signed_in.get(more, headers={"HX-Request": "true"}).content.decode()
    ids += re.findall(r'href="/image/(\d+)/', second)
    assert len(ids) == len(set(ids)) == 70
    assert "The end." in second
    assert b"<html" in signed_in.get(more).content, "the link alone gives a page"


def test_filter_form_goes_to_the_whole_query_as_an_address(signed_in: Client, owner: Any) -> None:
    make_image(make_source(owner=owner))
    page = signed_in.get("/filters/?q=dog+tag:beach+-tag:work").content.decode()
    assert 'name="q" value="dog -tag:work"' in page and 'value="beach"' in page
    answer = signed_in.get(
        "/narrow/", {"page": "search", "q": "dog", "tag": "sea side", "rating": ">=3", "date-from": "2019-05"}
    )
    assert answer.status_code == 302
    assert signed_in.get(answer["Location"]).context["query"].text() == ('dog tag:"sea side" rating:>=3 date:2019-05..')
    wrong = signed_in.get("/narrow/", {"page": "browse", "date-from": "yesterday"})
    assert wrong.status_code == 422 and "yesterday" in wrong.content.decode()


# --- a picture as the query -------------------------------------------------------------------------


def test_upload_joins_the_query_and_stays_private(signed_in: Client, owner: Any) -> None:
    make_image(make_source(owner=owner))
    file = SimpleUploadedFile("mine.png", jpeg(format="PNG"), "image/png")
    answer = signed_in.post("/upload/", {"picture": file, "query": "q=tag%3Abeach"})
    assert answer.status_code == 302
    assert "upload=" in answer["Location"] and "tag%3Abeach" in answer["Location"]
    page = signed_in.get(answer["Location"])
    assert page.status_code == 200
    shown = re.search(r"/upload/[\w-]+\.jpg", page.content.decode())
    assert shown and signed_in.get(shown[0])["Content-Type"] == "image/jpeg"
    stranger = Client()
    stranger.force_login(make_user("bert"))
    assert stranger.get(shown[0]).status_code == 404
    assert stranger.get(answer["Location"]).status_code == 422


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "Choose, drop or paste a picture first."),
        ({"picture": SimpleUploadedFile("a.jpg", b"", "image/jpeg")}, "That file is empty."),
        ({"picture": SimpleUploadedFile("a.jpg", b"%PDF-1.4 not a picture", "image/jpeg")}, ""),
    ],
)
def test_wrong_upload_is_a_sentence_on_the_page_one_came_from(
    signed_in: Client, data: dict[str, Any], said: str
) -> None:
    answer = signed_in.post("/upload/", {**data, "query": "q=red"}, follow=True)
    assert answer.redirect_chain == [("/?q=red", 302)]
    page = answer.content.decode()
    assert 'class="toast error"' in page and said in page


def test_full_disk_is_a_sentence_to_who_uploads(signed_in: Client, settings: Any, tmp_path: Path) -> None:
    settings.IMAGESEARCH_UPLOADS = tmp_path / "file" / "uploads"
    (tmp_path / "file").write_bytes(b"no folder can be made beneath a file")
    answer = signed_in.post("/upload/", {"picture": SimpleUploadedFile("a.jpg", jpeg(), "image/jpeg")}, follow=True)
    assert "The picture could not be kept" in answer.content.decode()
