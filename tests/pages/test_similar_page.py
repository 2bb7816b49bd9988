"""The page of look-alikes: forms for everything, fragments for htmx."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from search import look_alike_pairs
from search.access import grant
from search.models import Difference
from tests.factories import make_source, make_user
from tests.test_copies import hidden
from tests.test_look_alikes import BASE, OTHER, picture

pytestmark = pytest.mark.django_db


@pytest.fixture
def source(owner: Any) -> Any:
    return make_source(owner=owner, name="photos")


def page(client: Client, query: str = "", **headers: str) -> str:
    response = client.get(f"/similar/{query}", headers=headers)
    assert response.status_code == 200
    return response.content.decode()


def members(text: str, group: int) -> list[str]:
    form = text.split(f'id="group-{group}"')[1].split("</form>")[0]
    return re.findall(r'name="member" value="(\d+)"', form)


def test_before_anything_was_looked_for_it_says_so(signed_in: Client, source: Any) -> None:
    assert "Not looked for yet" in page(signed_in)
    look_alike_pairs.refresh()
    assert "No look-alikes" in page(signed_in)


def test_groups_say_why_and_as_of_when(signed_in: Client, source: Any) -> None:
    first = picture(source, "a.jpg", rating=4, width=1200, height=800)
    second = picture(source, "small <b>.jpg", BASE ^ 1)
    look_alike_pairs.refresh()
    text = page(signed_in)
    assert "Kept because it is rated 4 stars." in text and "it has the most pixels" in text
    assert f'value="{first.pk}" autocomplete="off" checked' in text and "small &lt;b&gt;.jpg" in text
    assert "1 group, 1 picture to hide" in text and "1,200 × 800" in text
    assert "As of " in text and "changed since" not in text
    assert members(text, second.pk) == [str(first.pk), str(second.pk)]
    picture(source, "new.jpg")
    assert "changed since" in page(signed_in)


def test_keeping_one_hides_those_that_were_shown_and_undo_brings_them_back(signed_in: Client, source: Any) -> None:
    first, second, third = (picture(source, f"{n}.jpg", BASE ^ n) for n in range(3))
    look_alike_pairs.refresh()
    data = {"keeper": second.pk, "member": [first.pk, second.pk], "next": "/similar/?within=2"}
    response = signed_in.post("/similar/keep/", data, follow=True)
    assert response.redirect_chain == [("/similar/?within=2", 302)]
    assert hidden() == {first.pk}, "the third one was not in the form"
    text = response.content.decode()
    assert "Hid 1 look-alike of 1 picture" in text
    signed_in.post(f"/action/{text.split('/action/')[1].split('/')[0]}/undo/", {"next": "/similar/"})
    assert not hidden() and third.pk


def test_telling_apart_takes_the_group_away_until_it_is_undone(signed_in: Client, owner: Any, source: Any) -> None:
    first, second = picture(source, "a.jpg"), picture(source, "b.jpg", BASE ^ 1)
    look_alike_pairs.refresh()
    data = {"member": [first.pk, second.pk], "group": second.pk}
    text = signed_in.post("/similar/different/", data, headers={"HX-Request": "true"}).content.decode()
    assert f'id="group-{second.pk}"' in text and "2 pictures are different ones" in text
    assert "Nothing left to hide" in text and "<html" not in text
    assert {one.by for one in Difference.objects.all()} == {owner}
    assert "No look-alikes" in page(signed_in)
    signed_in.post(f"/action/{text.split('/action/')[1].split('/')[0]}/undo/", {"next": "/similar/"})
    assert "2 pictures</strong> that look alike" in page(signed_in)


def test_the_distance_and_the_order_can_be_chosen(signed_in: Client, source: Any) -> None:
    for number in range(3):
        picture(source, f"{number}.jpg", BASE ^ number)
    one, two = picture(source, "x.jpg", OTHER), picture(source, "y.jpg", OTHER ^ 0b11110000)
    look_alike_pairs.refresh()
    text = page(signed_in)
    assert text.index(f'id="group-{two.pk}"') < text.index(f'id="group-{one.pk - 1}"')
    text = page(signed_in, "?order=largest")
    assert text.index(f'id="group-{two.pk}"') > text.index(f'id="group-{one.pk - 1}"')
    assert f'id="group-{two.pk}"' not in page(signed_in, "?within=3")
    for odd in ("?within=99", "?within=x", "?order=x", "?after=x", "?after=9.9.9", "?after=." + "9" * 40):
        assert page(signed_in, odd)
    assert "not there any more" in page(signed_in, "?prefer=99999")


@pytest.mark.parametrize("keeper", ["", "x", "-1", "9" * 30, "999999"])
def test_a_keeper_that_is_none_changes_nothing_and_is_said(signed_in: Client, source: Any, keeper: str) -> None:
    one, two = picture(source, "a.jpg"), picture(source, "b.jpg")
    for data in ({"keeper": keeper, "member": [one.pk, two.pk]}, {"keeper": one.pk, "member": [keeper or "-"]}):
        response = signed_in.post("/similar/keep/", data, follow=True)
        assert response.status_code == 200 and not hidden()
    assert b"toast" in response.content
    response = signed_in.post("/similar/different/", {"member": [keeper or "-"]}, follow=True)
    assert response.status_code in {200, 403} and not Difference.objects.exists()


def test_viewers_change_nothing(client: Client, source: Any) -> None:
    first, second = picture(source, "a.jpg"), picture(source, "b.jpg")
    look_alike_pairs.refresh()
    viewer = make_user()
    grant(source, "viewer", by=None, user=viewer)
    client.force_login(viewer)
    assert "No look-alikes" in page(client)
    data = {"keeper": first.pk, "member": [first.pk, second.pk]}
    assert client.post("/similar/keep/", data).status_code == 403
    assert client.post("/similar/different/", data).status_code == 403
    assert not hidden() and not Difference.objects.exists()


def test_more_groups_than_a_page_are_gone_through(signed_in: Client, source: Any) -> None:
    for number in range(45):
        base = BASE ^ (number * 0x0101010101010101)
        picture(source, f"{number}a.jpg", base), picture(source, f"{number}b.jpg", base)
    look_alike_pairs.refresh()
    seen: list[str] = []
    query = "?order=largest&within=0"
    while True:
        text = page(signed_in, query)
        seen += re.findall(r'id="group-(\d+)"', text)
        more = re.search(r'href="/similar/([^"]+)" rel="next"', text)
        if not more:
            break
        query = more[1].replace("&amp;", "&")
    assert len(seen) == len(set(seen)) == int(re.search(r"([\d,]+) groups", page(signed_in, "?within=0"))[1])  # type: ignore[index]
    assert "These were the last groups" in text and "First groups" in text


def test_the_page_takes_as_many_queries_however_many_groups_there_are(signed_in: Client, source: Any) -> None:
    def queries() -> int:
        look_alike_pairs.refresh()
        page(signed_in)
        with CaptureQueriesContext(connection) as captured:
            page(signed_in)
        return len(captured)

    picture(source, "a.jpg"), picture(source, "b.jpg")
    few = queries()
    for number in range(15):
        base = BASE ^ (number * 0x0101010101010101)
        for one in range(4):
            picture(source, f"{number}-{one}.jpg", base)
    assert queries() == few
