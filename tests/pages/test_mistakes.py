"""A filter that cannot be used: what is wrong, what is accepted, and links that go on from there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from search.models import Image
from tests.factories import make_image, make_source

pytestmark = pytest.mark.django_db


def links(page: str) -> dict[str, str]:
    """Text -> address of the links within the message."""
    message = page.split('role="alert"')[1].split("<details")[0]
    found = re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>(.*?)</a>', message, re.DOTALL)
    return {" ".join(re.sub(r"<.*?>", " ", text).split()): href.replace("&amp;", "&") for href, text in found}


def shown(client: Client, address: str) -> list[int]:
    response = client.get(address)
    assert response.status_code == 200, address
    return [tile.image.pk for tile in response.context["tiles"]]


@pytest.fixture
def rated(owner: Any) -> Image:
    source = make_source(owner=owner, name="Holidays")
    make_image(source, "dog-1.jpg")
    return make_image(source, "dog-2.jpg", rating=4)


def test_a_wrong_value_offers_what_would_be_right_in_the_same_search(signed_in: Client, rated: Image) -> None:
    response = signed_in.get("/", {"q": "name:dog rating:9"})
    page = response.content.decode()
    assert response.status_code == 422
    assert "rating: takes 0 to 5" in page and "Rated with this many stars" in page
    ways = links(page)
    assert shown(signed_in, ways["rating:&gt;=3"]) == [rated.pk]
    assert shown(signed_in, ways["★★★★ or more 1"]) == [rated.pk] and "★★★★★ 0" not in ways
    assert len(shown(signed_in, ways["Search for name:dog alone"])) == 2
    assert shown(signed_in, ways["Browse all pictures"])


def test_without_the_only_filter_the_newest_pictures_are_left(signed_in: Client, rated: Image) -> None:
    ways = links(signed_in.get("/?q=rating:9").content.decode())
    assert ways["Without this filter"] == "/" and len(shown(signed_in, "/")) == 2


def test_several_wrong_filters_are_said_together(signed_in: Client, rated: Image) -> None:
    page = signed_in.get("/?q=rating:9 date:soon -format:doc name:dog").content.decode()
    assert all(said in page for said in ["rating: takes", "date: takes", "format: is one of", "-format:doc"])
    assert len(shown(signed_in, links(page)["Search for name:dog alone"])) == 2
    assert shown(signed_in, links(page)["JPEG 2"]) == [], "the minus sign stays"


@pytest.mark.parametrize("page", ["/", "/browse/"])
def test_a_source_that_is_not_there_offers_those_that_are(signed_in: Client, rated: Image, page: str) -> None:
    response = signed_in.get(page, {"source": "Nowhere", "rating": "4"})
    assert response.status_code == 422
    ways = links(response.content.decode())
    assert shown(signed_in, ways["Holidays 2"]) == [rated.pk] and ways["Holidays 2"].startswith(f"{page}?")
    assert shown(signed_in, ways["Search for rating:4 alone"]) == [rated.pk]
    assert "My photos" not in response.content.decode(), "an example that would be wrong too is not given"


def test_a_filter_without_a_value_names_an_example(signed_in: Client, rated: Image) -> None:
    page = signed_in.get("/?q=size:").content.decode()
    assert "needs a value right after the colon" in page and shown(signed_in, links(page)["size:&gt;=5MB"]) == []


def test_what_is_wrong_besides_filters_leads_back_to_the_pictures(signed_in: Client, rated: Image) -> None:
    response = signed_in.get("/?q=rating:9&like=everything")
    assert response.status_code == 422
    assert {"Browse all pictures", "Start anew"} <= links(response.content.decode()).keys()


def test_each_filters_own_example_is_understood(signed_in: Client, rated: Image) -> None:
    from search.filters import all_filters

    for one in all_filters():
        page = signed_in.get("/", {"q": f"{one.name}:"}).content.decode()
        href = links(page)[one.example.replace(">", "&gt;").replace('"', "&quot;")]
        assert signed_in.get(href).status_code == 200 or one.name in {"source", "album"}, one.name


def test_the_message_replaces_the_results_for_htmx_too(signed_in: Client, rated: Image) -> None:
    fragment = signed_in.get("/?q=rating:9", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in fragment and "Without this filter" in links(fragment)
