"""The page of one image: what it shows, and what is done there."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from ingestion.models import StageCount, Work
from search.models import Action, Image
from tests.factories import make_image, make_source, make_user
from tests.pages.pictures import image_on_disk

pytestmark = pytest.mark.django_db


# --- one image --------------------------------------------------------------------------------------


def test_image_page_shows_everything_known(signed_in: Client, owner: Any, tmp_path: Path) -> None:
    image = image_on_disk(
        make_source(tmp_path, owner=owner, name="Holidays"), "beach.jpg", camera="Canon EOS 80D", lens="EF 50mm",
        captured_at=datetime(2019, 5, 1, 22, 30, tzinfo=UTC), captured_offset=-210, exposure_time=0.004, aperture=2.8,
        iso=400, focal_length=50, latitude=48.13743, longitude=11.57549, altitude=519.6,
        description="At <the> sea", exif={"Image": {"Make": "Canon"}}, colours=[["#112233", 0.5], ["#aabbcc", 0.5]],
    )  # fmt: skip
    page = signed_in.get(f"/image/{image.pk}/").content.decode()
    for expected in [
        "Canon EOS 80D", "EF 50mm", "1 May 2019, 19:00:00 -03:30", "1/250 s", "f/2.8", "400", "50 mm",
        "48.13743, 11.57549, 520 m", "At &lt;the&gt; sea", "Image Make", "#112233", str(tmp_path), "Holidays",
        image.sha256.hex() if image.sha256 else "", "640 × 480", "JPEG",
    ]:  # fmt: skip
        assert expected in page, expected


def test_unreadable_image_has_a_calm_page_with_its_reason(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner), state=Image.State.UNREADABLE, reason="The file ends too early.")
    Work.objects.create(image=image, stage="read", state=Work.State.FAILED, newest=1, reason=image.reason)
    StageCount.objects.create(stage="read", failed=1)
    page = signed_in.get(f"/image/{image.pk}/").content.decode()
    assert "The file ends too early." in page and "Try again" in page
    signed_in.post("/problems/retry/", {"image": image.pk, "next": f"/image/{image.pk}/"})
    image.refresh_from_db()
    assert image.state == Image.State.WAITING
    assert not Work.objects.filter(state=Work.State.FAILED).exists()


def test_neighbours_follow_the_browsed_set(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    ids = [
        make_image(source, shown_at=datetime(2020, 1, 1, tzinfo=UTC) - timedelta(days=n), rating=n % 2).pk
        for n in range(5)
    ]
    way = signed_in.get(f"/image/{ids[2]}/").context["way"]
    assert f"/image/{ids[1]}/" in way.previous and f"/image/{ids[3]}/" in way.next
    way = signed_in.get(f"/image/{ids[2]}/?q=rating:0&in=browse").context["way"]
    assert f"/image/{ids[0]}/" in way.previous and f"/image/{ids[4]}/" in way.next
    assert way.back_href.startswith("/browse/")
    assert signed_in.get(f"/image/{ids[0]}/").context["way"].previous == ""


def test_neighbours_follow_the_results(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    ids = [make_image(source, f"boat{n}.jpg", shown_at=datetime(2020, 1, n + 1, tzinfo=UTC)).pk for n in range(4)]
    page = signed_in.get("/?q=boat1;boat2;boat3").content.decode()
    found = [int(i) for i in re.findall(r'href="/image/(\d+)/', page)]
    assert sorted(found) == sorted(ids[1:])
    links = re.findall(r'href="(/image/\d+/[^"]*)"', page)
    context = signed_in.get(links[1].replace("&amp;", "&")).context
    assert context["box_text"] == "boat1; boat2; boat3", "the box holds the query to go on from"
    way = context["way"]
    assert f"/image/{found[0]}/" in way.previous and f"/image/{found[2]}/" in way.next
    moved = links[1].replace("&amp;", "&").replace("at=1", "at=2")
    assert f"/image/{found[0]}/" in signed_in.get(moved).context["way"].previous, "found again where it is now"


# --- changing an image ------------------------------------------------------------------------------


def test_each_change_can_be_undone_from_its_message(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    address = f"/image/{image.pk}/"

    def post(verb: str, **data: Any) -> str:
        response = signed_in.post(f"{address}{verb}/", {**data, "next": address}, follow=True)
        assert response.redirect_chain == [(address, 302)]
        return response.content.decode()

    def undo() -> None:
        action = Action.objects.exclude(verb="undo").first()
        assert action is not None
        response = signed_in.post(f"/action/{action.pk}/undo/", {"next": address}, follow=True)
        assert "Undid" in response.content.decode()

    steps: list[tuple[str, dict[str, Any], tuple[str, Any], tuple[str, Any]]] = [
        ("rate", {"rating": 4}, ("rating", 0), ("rating", 4)),
        ("title", {"title": "At the sea"}, ("title", ""), ("title", "At the sea")),
        ("hide", {}, ("hidden", False), ("hidden", True)),
        ("remove", {}, ("state", "ready"), ("state", "removed")),
    ]
    for verb, data, before, after in steps:
        page = post(verb, **data)
        assert "/undo/" in page, verb
        image.refresh_from_db()
        assert getattr(image, after[0]) == after[1], verb
        undo()
        image.refresh_from_db()
        assert getattr(image, before[0]) == before[1], verb
    assert "beach" in post("tag", tag="Beach, family")
    assert list(image.tags.values_list("key", flat=True)) == ["beach", "family"]
    post("untag", tag="Beach")
    assert list(image.tags.values_list("key", flat=True)) == ["family"]
    undo()
    assert image.tags.count() == 2


def test_change_through_htmx_answers_the_fragment_with_its_undo(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    response = signed_in.post(
        f"/image/{image.pk}/rate/",
        {"rating": 3, "next": f"/image/{image.pk}/?q=dog&at=2"},
        headers={"HX-Request": "true"},
    )
    fragment = response.content.decode()
    assert response.status_code == 200 and "<html" not in fragment
    assert 'id="curation"' in fragment and "/undo/" in fragment and 'hx-swap-oob="true"' in fragment
    assert "?q=dog&amp;at=2" in fragment, "the way back to the results is kept"


@pytest.mark.parametrize(
    ("verb", "data", "said"),
    [
        ("rate", {"rating": "6"}, "less than or equal to 5"),
        ("rate", {"rating": "many"}, "A rating is a whole number from 0 to 5."),
        ("tag", {"tag": " , "}, "Type at least one tag"),
        ("tag", {"tag": "x" * 201}, "at most 200 characters"),
        ("title", {"title": "x" * 1001}, "at most 1000 characters"),
    ],
)
def test_wrong_change_is_a_sentence(signed_in: Client, owner: Any, verb: str, data: dict[str, str], said: str) -> None:
    image = make_image(make_source(owner=owner))
    response = signed_in.post(f"/image/{image.pk}/{verb}/", data, follow=True)
    assert said in response.content.decode()
    assert not Action.objects.exists()


def test_unknown_verb_is_not_found(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    assert signed_in.post(f"/image/{image.pk}/explode/").status_code == 404


def test_after_a_change_one_is_not_sent_to_another_site(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    response = signed_in.post(f"/image/{image.pk}/hide/", {"next": "https://evil.example/"})
    assert response["Location"] == f"/image/{image.pk}/"


def test_nobody_undoes_what_another_did(signed_in: Client, owner: Any) -> None:
    from search import curation

    bert = make_user("bert")
    action = curation.rate([make_image(make_source(owner=bert)).pk], 5, bert)
    assert action is not None
    assert signed_in.post(f"/action/{action.pk}/undo/").status_code == 404
    assert signed_in.get("/history/").content.decode().count("Rated") == 0


def test_history_lists_ones_changes_with_their_undo(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    signed_in.post(f"/image/{image.pk}/rate/", {"rating": 5})
    action = Action.objects.get()
    page = signed_in.get("/history/").content.decode()
    assert action.summary in page and f"/action/{action.pk}/undo/" in page
    signed_in.post(f"/action/{action.pk}/undo/", {"next": "/history/"})
    assert "undone" in signed_in.get("/history/").content.decode()
    twice = signed_in.post(f"/action/{action.pk}/undo/", {"next": "/history/"}, follow=True)
    assert "undone already" in twice.content.decode()


def test_the_window_is_named_after_a_new_title(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    htmx = {"HX-Request": "true"}
    said = signed_in.post(f"/image/{image.pk}/title/", {"title": "The beach"}, headers=htmx).content.decode()
    assert "<title>The beach · Image search</title>" in said


def test_identify_starts_from_the_page_of_a_picture(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    page = signed_in.get(f"/image/{image.pk}/").content.decode()
    assert f"/identify/?like={image.pk}&amp;among=source:{image.source_id}" in page


@pytest.mark.parametrize(
    ("match", "place", "said"),
    [(93.4, 3, "93\u00a0%"), (10, 0, "10\u00a0%"), (9.9, 0, "nearest"), (0, 4, "no.\u00a05"), (None, 2, "by name")],
)
def test_what_is_shown_for_its_nearness_is_not_said_to_match_by_nothing(match: Any, place: int, said: str) -> None:
    from search.views.grid import nearness_text

    assert nearness_text(match, place) == said
