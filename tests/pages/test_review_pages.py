"""The review: its overview, one picture at a time, and the queue's grid; by forms alone and as fragments."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from search import curation, review
from search.models import Action, Favourite, Image, ImageTag
from tests.factories import make_source, make_user
from tests.test_review import read_image

pytestmark = pytest.mark.django_db
FRAGMENT = {"HX-Request": "true"}


def queue_of(owner: Any, number: int, **fields: Any) -> list[Image]:
    """So many blurred pictures of this person's, newest first."""
    source = make_source(owner=owner)
    first = datetime(2024, 6, 1, 12, tzinfo=UTC)
    given = {"sharpness": 3.0, **fields}
    return [read_image(source, f"soft{n}.jpg", shown_at=first - timedelta(days=n // 2), **given) for n in range(number)]


def in_order(images: list[Image]) -> list[Image]:
    return sorted(images, key=lambda one: (one.shown_at, one.pk), reverse=True)


def shown(response: Any) -> int | None:
    return response.context["image"].pk if response.context["image"] else None


def press(client: Client, page: Any, verb: str, *, fragment: bool = False, **more: Any) -> Any:
    """Press one of the buttons of a page."""
    context = page.context
    form = {
        "image": context["image"].pk if context["image"] else "", "at": context["at"], "trail": context["trail"],
        "verb": verb, **more,
    }  # fmt: skip
    address = f"/review/{context['queue']}/do/"
    if fragment:
        return client.post(address, form, headers=FRAGMENT)
    response = client.post(address, form)
    assert response.status_code == 302
    return client.get(response["Location"])


def test_the_overview_counts_only_what_waits_for_oneself(signed_in: Client, owner: Any) -> None:
    queue_of(owner, 3)
    queue_of(make_user("bert"), 5)
    response = signed_in.get("/review/")
    rows = {row["queue"].name: str(row["tally"]) for row in response.context["rows"]}
    assert rows | {"blurred": "3", "unrated": "3", "untagged": "3", "wide": "0", "flagged": "0"} == rows
    assert rows["problems"] == "0"
    text = response.content.decode()
    assert 'href="/review/blurred/"' in text and 'href="/browse/?review=blurred"' in text
    assert 'href="/browse/?review=wide"' not in text and 'href="/problems/"' in text


@pytest.mark.parametrize("number", [2, 30])
def test_pages_ask_the_same_number_of_questions_however_many_wait(
    signed_in: Client, owner: Any, django_assert_max_num_queries: Any, number: int
) -> None:
    queue_of(owner, number)
    review.refresh()
    with django_assert_max_num_queries(20):
        signed_in.get("/review/")
    with django_assert_max_num_queries(14):
        signed_in.get("/review/blurred/")


@pytest.mark.parametrize("fragment", [False, True])
def test_a_queue_is_gone_through_to_its_end(signed_in: Client, owner: Any, fragment: bool) -> None:
    images = in_order(queue_of(owner, 6))
    page = signed_in.get("/review/blurred/")
    verbs = ["keep", "hide", "remove", "keep", "hide", "keep"]
    for left, (image, verb) in enumerate(zip(images, verbs, strict=True)):
        assert shown(page) == image.pk and page.context["tally"].number == 6 - left
        assert page.context["why"] == "Sharpness 3.0; usual is 25 or more"
        page = press(signed_in, page, verb, fragment=fragment)
    assert shown(page) is None and "Nothing waits here" in page.content.decode()
    assert [bool(row.hidden) for row in Image.objects.in_bulk([i.pk for i in images]).values()].count(True) == 2
    assert Image.objects.filter(state="removed").count() == 1
    assert review.count("blurred", owner).number == 0
    for image in reversed(images):  # and all the way back
        page = press(signed_in, page, "undo", fragment=fragment)
        assert shown(page) == image.pk
    assert page.context["tally"].number == 6 and not page.context["trail"]
    assert review.count("blurred", owner).number == 6


def test_what_does_not_leave_the_queue_stays_in_view(signed_in: Client, owner: Any) -> None:
    image, second = in_order(queue_of(owner, 2))
    page = signed_in.get("/review/blurred/")
    for verb, more in [("rate:4", {}), ("tag", {"tag": "sea, sun"}), ("favourite", {})]:
        page = press(signed_in, page, verb, **more)
        assert shown(page) == image.pk
    image.refresh_from_db()
    assert image.rating == 4 and ImageTag.objects.filter(image=image).count() == 2
    assert Favourite.objects.filter(image=image, user=owner).exists()
    assert "4 ★" in page.content.decode() and "Your favourite" in page.content.decode()
    page = press(signed_in, page, "favourite")
    assert not Favourite.objects.exists()
    page = press(signed_in, page, "keep")
    assert shown(page) == second.pk


def test_stars_end_the_waiting_among_the_unrated_and_tags_among_the_untagged(signed_in: Client, owner: Any) -> None:
    first, second = in_order(queue_of(owner, 2, sharpness=500.0))
    page = press(signed_in, signed_in.get("/review/unrated/"), "rate:5")
    assert shown(page) == second.pk
    page = press(signed_in, page, "rate:0")  # no stars are no rating: it goes on waiting
    assert shown(page) == second.pk
    page = press(signed_in, signed_in.get("/review/untagged/"), "tag", tag="sea")
    assert shown(page) == second.pk
    curation.flag([first.pk], owner)
    page = press(signed_in, signed_in.get("/review/flagged/"), "keep")
    assert shown(page) is None
    assert not Image.objects.filter(flagged=True).exists()


def test_skipping_goes_on_and_back_without_changing_anything(signed_in: Client, owner: Any) -> None:
    images = in_order(queue_of(owner, 5))
    page = signed_in.get("/review/blurred/")
    for image in images:
        assert shown(page) == image.pk
        page = signed_in.get(page.context["skip_href"])
    assert shown(page) is None
    text = page.content.decode()
    assert "The end of this queue" in text and "5 that you skipped are still in it" in text
    for image in reversed(images):
        page = signed_in.get(page.context["back_href"])
        assert shown(page) == image.pk
    assert not page.context["back_href"] and not Action.objects.exists()


def test_the_fragment_replaces_the_address_and_says_what_happened(signed_in: Client, owner: Any) -> None:
    _, second = in_order(queue_of(owner, 2))
    response = press(signed_in, signed_in.get("/review/blurred/"), "hide", fragment=True)
    text = response.content.decode()
    assert "<html" not in text and text.count('id="review"') == 1
    address = urlsplit(response["HX-Replace-Url"])
    assert address.path == "/review/blurred/"
    assert parse_qs(address.query)["at"][0].endswith(f",{second.pk}")
    assert re.search(rf'id="announce"[^>]*hx-swap-oob="innerHTML">Hid 1 picture\. {second.name}: Sharpness', text)
    assert "1 left" in text
    again = signed_in.get(response["HX-Replace-Url"])  # a reload loses nothing
    assert shown(again) == second.pk and again.context["done"] == "Hid 1 picture"


def test_the_next_picture_is_fetched_ahead(signed_in: Client, owner: Any) -> None:
    images = in_order(queue_of(owner, 3))
    page = signed_in.get("/review/blurred/")
    assert f"/picture/{images[1].pk}.jpg" in page.context["preload"]
    assert f"/picture/{images[1].pk}.jpg" in page.content.decode()


def test_a_viewer_has_nothing_to_review_and_a_stranger_can_do_nothing(client: Client, owner: Any) -> None:
    image = queue_of(owner, 1)[0]
    viewer = make_user("vera")
    image.source.access.create(user=viewer, role="viewer")
    for person, status in ((viewer, 403), (make_user("bert"), 302)):
        client.force_login(person)
        page = client.get("/review/blurred/")
        assert shown(page) is None and "Nothing waits here" in page.content.decode()
        for verb in ("keep", "hide", "remove", "rate:1", "tag"):
            form = {"image": image.pk, "verb": verb, "tag": "mine"}
            assert client.post("/review/blurred/do/", form).status_code == status
    assert not Action.objects.exists()
    theirs = curation.hide([image.pk], owner)
    client.post("/review/blurred/do/", {"verb": "undo", "trail": f"{theirs.pk if theirs else 0}.{image.pk}"})
    image.refresh_from_db()
    assert image.hidden


@pytest.mark.parametrize(
    "query",
    [
        "at=yesterday",
        "at=,",
        "at=9999-99-99T00:00:00Z,1",
        "trail=1,2,x.y,-1.2",
        f"trail={'9' * 40}.1",
        "at=%00&trail=%00",
    ],
)
def test_addresses_that_make_no_sense_begin_at_the_newest(signed_in: Client, owner: Any, query: str) -> None:
    images = in_order(queue_of(owner, 2))
    assert shown(signed_in.get(f"/review/blurred/?{query}")) == images[0].pk


def test_what_cannot_be_done_is_said(signed_in: Client, owner: Any) -> None:
    image = queue_of(owner, 1)[0]
    page = signed_in.get("/review/blurred/")
    for verb, more, said in [
        ("rate:9", {}, "Choose a rating from 0 to 5."),
        ("tag", {"tag": ""}, "tag"),
        ("undo", {}, "There is nothing to undo here"),
        ("keep", {"image": 10**17}, "not there any more"),
    ]:
        response = press(signed_in, page, verb, fragment=True, **more)
        assert response.status_code == 200
        assert said in response.content.decode() and 'class="toast error"' in response.content.decode()
    assert signed_in.post("/review/blurred/do/", {"image": image.pk, "verb": "burn"}).status_code == 404
    assert signed_in.get("/review/nonsense/").status_code == 404
    assert signed_in.get("/review/blurred/do/").status_code == 405
    assert not Action.objects.exists()


def test_the_grid_of_a_queue_keeps_all_of_it_at_once(signed_in: Client, owner: Any) -> None:
    images = queue_of(owner, 5)
    sharp = read_image(images[0].source)
    grid = signed_in.get("/browse/?review=blurred")
    assert {tile.image.pk for tile in grid.context["tiles"]} == {image.pk for image in images}
    assert 'name="queue" value="blurred"' in grid.content.decode()
    signed_in.post("/selection/all/", {"page": "browse", "query": grid.context["query_string"]})
    response = signed_in.post("/selection/do/", {"verb": "keep", "queue": "blurred", "next": "/browse/?review=blurred"})
    assert response.status_code == 302
    assert Action.objects.get().summary == "Kept 5 pictures of the queue “Blurred”"
    assert not signed_in.get("/browse/?review=blurred").context["tiles"]
    assert review.count("unrated", owner).number == 6
    signed_in.post("/selection/all/", {"page": "browse", "query": "is=kept"})
    signed_in.post("/selection/do/", {"verb": "again"})
    assert review.count("blurred", owner).number == 5
    signed_in.post("/selection/do/", {"verb": "flag", "ids": sharp.pk})
    assert review.count("flagged", owner).number == 6
    for address, there in [
        ("/browse/?review=blurred", True),
        ("/browse/", False),
        ("/browse/?review=wide&review=small", False),
    ]:
        bar = signed_in.post("/selection/all/", {"query": "review=blurred", "next": address}, headers=FRAGMENT)
        assert ('name="queue" value="blurred"' in bar.content.decode()) is there, (
            "the bar that is swapped in has it too"
        )
    assert 'name="queue"' not in signed_in.get("/browse/").content.decode()
    bad = signed_in.post("/selection/do/", {"verb": "keep", "queue": "nonsense"}, follow=True)
    assert "no review queue" in bad.content.decode()


def test_flags_are_set_and_taken_off_on_the_page_of_an_image(signed_in: Client, owner: Any) -> None:
    image = read_image(make_source(owner=owner))
    signed_in.post(f"/image/{image.pk}/flag/")
    assert review.count("flagged", owner).number == 1
    assert "Flagged" in signed_in.get(f"/image/{image.pk}/").content.decode()
    signed_in.post(f"/image/{image.pk}/unflag/")
    assert review.count("flagged", owner).number == 0


def test_other_settings_are_said_until_the_images_are_sorted(signed_in: Client, owner: Any, settings: Any) -> None:
    queue_of(owner, 1)
    review.refresh()
    assert "were changed" not in signed_in.get("/review/").content.decode()
    settings.IMAGESEARCH_REVIEW_SMALL = 5_000
    for address in ("/review/", "/review/small/"):
        assert "were changed" in signed_in.get(address).content.decode()
    review.refresh()
    assert shown(signed_in.get("/review/small/"))
