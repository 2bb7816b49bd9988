"""The page of exact copies: forms for everything, fragments for htmx."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from search.models import Errand, Image
from search.views import copies as view
from tests.factories import make_source, make_user
from tests.test_copies import copy, hidden

pytestmark = pytest.mark.django_db


@pytest.fixture
def source(owner: Any) -> Any:
    return make_source(owner=owner, name="photos")


def page(client: Client, query: str = "", **headers: str) -> str:
    response = client.get(f"/copies/{query}", headers=headers)
    assert response.status_code == 200
    return response.content.decode()


def test_groups_say_why_and_offer_each_copy(signed_in: Client, source: Any) -> None:
    first, second = copy(source, "a.jpg", rating=4), copy(source, "backup/a <b>.jpg")
    text = page(signed_in)
    assert "Kept because it is rated 4 stars." in text
    assert f'value="{first.pk}" autocomplete="off" checked' in text and f'value="{second.pk}"' in text
    assert "1 group, 1 copy to hide" in text and "backup/a &lt;b&gt;.jpg" in text
    assert "it has the highest rating" in text


def test_keeping_one_hides_the_others_and_undo_brings_them_back(signed_in: Client, source: Any) -> None:
    first, second = copy(source, "a.jpg"), copy(source, "b.jpg")
    response = signed_in.post("/copies/keep/", {"keeper": second.pk, "next": "/copies/?older=999"}, follow=True)
    assert response.redirect_chain == [("/copies/?older=999", 302)]
    assert hidden() == {first.pk}
    text = response.content.decode()
    assert "Hid 1 exact copy of 1 picture" in text and "Undo" in text
    action = text.split("/action/")[1].split("/")[0]
    signed_in.post(f"/action/{action}/undo/", {"next": "/copies/"})
    assert not hidden()


def test_a_fragment_takes_the_group_s_place_and_counts_down(signed_in: Client, source: Any) -> None:
    first, _ = copy(source, "a.jpg"), copy(source, "b.jpg")
    copy(source, "c.jpg", "x"), copy(source, "d.jpg", "x")
    response = signed_in.post(
        "/copies/keep/", {"keeper": first.pk, "group": "7"}, headers={"HX-Request": "true"}
    )  # fmt: skip
    text = response.content.decode()
    assert 'id="group-7"' in text and 'hx-swap-oob="true"' in text and "1 group, 1 copy to hide" in text
    assert "<html" not in text


@pytest.mark.parametrize("keeper", ["", "x", "-1", "9" * 30, "999999"])
def test_a_keeper_that_is_none_changes_nothing_and_is_said(signed_in: Client, source: Any, keeper: str) -> None:
    copy(source, "a.jpg"), copy(source, "b.jpg")
    response = signed_in.post("/copies/keep/", {"keeper": keeper}, follow=True)
    assert response.status_code == 200 and not hidden()
    assert b"toast error" in response.content


def test_viewers_may_not_hide(client: Client, source: Any) -> None:
    from search.access import grant

    first, _ = copy(source, "a.jpg"), copy(source, "b.jpg")
    viewer = make_user()
    grant(source, "viewer", by=None, user=viewer)
    client.force_login(viewer)
    assert "No exact copies" in page(client)
    assert client.post("/copies/keep/", {"keeper": first.pk}).status_code == 403
    assert not hidden()


def test_all_groups_are_announced_before_they_are_cleared_up(signed_in: Client, source: Any) -> None:
    for number in range(3):
        copy(source, f"{number}.jpg", f"word {number}"), copy(source, f"x/{number}.jpg", f"word {number}")
    text = signed_in.get("/copies/all/").content.decode()
    assert "<strong>3 exact copies</strong>" in text and "<strong>3 pictures</strong>" in text
    assert not hidden(), "looking changes nothing"
    text = signed_in.post("/copies/all/", follow=True).content.decode()
    assert "Hid 3 exact copies of 3 pictures" in text and "No exact copies" in text
    assert len(hidden()) == 3
    assert b"There are no copies to hide" in signed_in.post("/copies/all/", follow=True).content


def test_many_groups_go_in_an_errand(signed_in: Client, source: Any, monkeypatch: Any) -> None:
    from search import errands

    monkeypatch.setattr(view, "AT_ONCE", 1)
    monkeypatch.setattr(errands, "start", lambda errand: None)
    for number in range(3):
        copy(source, f"{number}.jpg", f"word {number}"), copy(source, f"x/{number}.jpg", f"word {number}")
    text = signed_in.post("/copies/all/", {"prefer": source.pk}, follow=True).content.decode()
    assert "3 groups: this takes a moment" in text and 'hx-get="/selection/errand/' in text
    errands.run_portions(Errand.objects.get().pk)
    assert len(hidden()) == 3
    assert set(Image.objects.filter(hidden=False).values_list("folder", flat=True)) == {""}


def test_a_source_that_is_not_ones_own_cannot_be_preferred(signed_in: Client, source: Any) -> None:
    other = make_source(name="secret")
    assert "is not there any more" in page(signed_in, f"?prefer={other.pk}")
    assert signed_in.post("/copies/all/", {"prefer": other.pk}).status_code == 302
    assert not hidden()


def test_more_groups_follow_on_the_next_page(signed_in: Client, source: Any) -> None:
    for number in range(view.PAGE + 1):
        copy(source, f"{number}.jpg", f"word {number}"), copy(source, f"x/{number}.jpg", f"word {number}")
    text = page(signed_in)
    assert text.count('class="copy-group panel"') == view.PAGE
    address = text.split('rel="next"')[0].rpartition('href="')[2].split('"')[0]
    assert page(signed_in, address.removeprefix("/copies/")).count('class="copy-group panel"') == 1
    assert "No more groups here" in page(signed_in, "?older=0")
    assert page(signed_in, "?older=x").count('class="copy-group panel"') == view.PAGE


def test_the_page_asks_as_much_for_two_groups_as_for_twenty(signed_in: Client, source: Any) -> None:
    def asked() -> int:
        page(signed_in)
        with CaptureQueriesContext(connection) as context:
            page(signed_in)
        return len(context)

    def fill(start: int, end: int) -> None:
        for number in range(start, end):
            for place in ("a", "b", "c"):
                copy(source, f"{place}/{number}.jpg", f"word {number}", rating=number % 5)

    fill(0, 2)
    few = asked()
    fill(2, 20)
    assert asked() == few
