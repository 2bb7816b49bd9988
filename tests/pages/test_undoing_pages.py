"""Taking back what was done to very many images: in portions, visible while it is half done, and finishable."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from search import curation, errands, history, undoing
from search.models import Action, Errand, Image, ImageTag, SourceAccess
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def images(owner: Any) -> list[int]:
    source = make_source(owner=owner, name="Photos")
    return [make_image(source).pk for _ in range(7)]


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "AT_ONCE", 4)
    monkeypatch.setattr(errands, "PORTION", 2)
    monkeypatch.setattr(errands, "start", lambda errand: None)


def rated() -> int:
    return Image.objects.filter(rating=3).count()


def begun(action: Action, user: Any) -> Errand:
    errand = errands.undo(action, user)
    assert isinstance(errand, Errand)
    return errand


def test_few_are_undone_at_once(owner: Any, images: list[int]) -> None:
    action = curation.rate(images[:4], 3, owner)
    assert action is not None
    undone = errands.undo(action, owner)
    assert isinstance(undone, Action) and not rated() and not Errand.objects.exists()


def test_many_are_undone_and_done_again_on_the_pages(signed_in: Client, owner: Any, images: list[int]) -> None:
    action = curation.rate(images, 3, owner)
    assert action is not None
    said = signed_in.post(f"/action/{action.pk}/undo/", {"next": "/history/"}, follow=True).content.decode()
    assert "7 pictures: this takes a moment" in said and "Taking back: 0 of 7 pictures" in said
    errand = Errand.objects.get()
    assert errands._portion(errand.pk) and rated() == 5
    half = signed_in.get("/history/").content.decode()
    assert "Taking back: 2 of 7 pictures" in half
    assert "Half taken back:</strong> 5 of 7 pictures are left." in half and "Go on undoing" in half
    errands.stop(errand)
    errands.run_portions(errand.pk)
    assert rated() == 5
    signed_in.post(f"/action/{action.pk}/undo/", {"next": "/history/"})  # it goes on where it was
    assert Errand.objects.get().state == "running"
    errands.run_portions(errand.pk)
    errand.refresh_from_db()
    assert (errand.state, errand.done, rated()) == ("done", 7, 0)
    assert errand.action is not None and errand.action.summary == "Undid: Rated 7 pictures 3 stars"
    lines, _ = history.rows(owner)
    assert [(row.action.pk, row.undone, row.redo, row.press) for row in lines] == [
        (action.pk, True, True, errand.action.pk)
    ]
    shown = signed_in.get("/history/").content.decode()
    assert "Half" not in shown and "Redo" in shown

    signed_in.post(f"/action/{errand.action.pk}/undo/", {"next": "/history/"})
    again = Errand.objects.order_by("pk").last()
    assert again is not None and again.pk != errand.pk
    assert errands._portion(again.pk) and rated() == 2
    assert "Half done again:</strong> 5 of 7 pictures are left." in signed_in.get("/history/").content.decode()
    errands.run_portions(again.pk)
    assert rated() == 7
    action.refresh_from_db()
    assert action.undone_at is None
    lines, _ = history.rows(owner)
    assert len(lines) == 1 and not lines[0].undone and lines[0].partly is None


def test_the_page_of_changes_is_loaded_anew_when_an_undo_is_through(
    signed_in: Client, owner: Any, images: list[int]
) -> None:
    action = curation.rate(images, 3, owner)
    assert action is not None
    errand = begun(action, owner)
    asked = "/selection/errand/?next=/history/"
    assert "every 1s" in signed_in.get(asked, headers={"HX-Request": "true"}).content.decode()
    errands.run_portions(errand.pk)
    assert signed_in.get(asked, headers={"HX-Request": "true"})["HX-Refresh"] == "true"


def test_what_is_not_ones_own_is_left_to_others(owner: Any, images: list[int]) -> None:
    bert = make_user("bert")
    theirs = make_source(owner=bert)
    given = SourceAccess.objects.create(source=theirs, user=owner, role="editor")
    others = [make_image(theirs).pk for _ in range(3)]
    action = curation.rate([*images, *others], 3, owner)
    assert action is not None
    given.delete()
    errands.run_portions(begun(action, owner).pk)
    action.refresh_from_db()
    assert rated() == 3 and action.undone_at is None and history.PARTLY not in action.details
    errand = Errand.objects.get()
    assert errand.action is not None and errand.action.count == 7
    assert "; 3 pictures left out, not yours to change" in errand.action.summary
    undone = curation.undo(action, bert)
    assert undone is not None and undone.count == 3 and not rated()
    action.refresh_from_db()
    assert action.undone_at is not None


def test_nothing_of_it_ones_own_is_said_and_nothing_lost(owner: Any, images: list[int]) -> None:
    action = curation.rate(images, 3, owner)
    assert action is not None
    stranger = make_user("stranger")
    errand = begun(action, stranger)
    errands.run_portions(errand.pk)
    errand.refresh_from_db()
    assert errand.state == "failed" and "ask an owner" in errand.message and rated() == 7
    action.refresh_from_db()
    assert history.PARTLY not in action.details and "left_to_others" not in action.details
    assert curation.undo(action, owner) is not None and not rated()


def test_images_that_were_changed_since_are_counted_over_all_portions(owner: Any, images: list[int]) -> None:
    action = curation.rate(images, 3, owner)
    assert action is not None and curation.rate([images[0], images[5]], 5, owner) is not None
    errand = begun(action, owner)
    errands.run_portions(errand.pk)
    errand.refresh_from_db()
    assert errand.action is not None
    said = "Undid: Rated 7 pictures 3 stars, on 5 pictures; 2 changed since and left as they are"
    assert errand.action.summary == said


def test_what_was_all_changed_since_cannot_be_done_again_and_stays_undone(owner: Any, images: list[int]) -> None:
    action = curation.rate(images, 3, owner)
    assert action is not None
    undone = curation.undo(action, owner)
    assert undone is not None and curation.rate(images, 1, owner) is not None
    errand = begun(undone, owner)
    errands.run_portions(errand.pk)
    errand.refresh_from_db()
    assert errand.state == "failed" and "changed since" in errand.message
    undone.refresh_from_db()
    action.refresh_from_db()
    assert undone.undone_at is None and action.undone_at is not None
    assert undoing.size_of(undone) == 7, "it can be done again once they are as they were"


def test_an_image_has_all_of_an_action_taken_back_or_nothing(owner: Any, images: list[int]) -> None:
    action = curation.tag(images, ["sea", "sun", "old"], owner)
    assert action is not None
    errand = begun(action, owner)
    while errands._portion(errand.pk):
        counts = [ImageTag.objects.filter(image=pk).count() for pk in images]
        assert set(counts) == {0, 3}


def test_what_is_half_undone_can_be_undone_at_once_by_staff(owner: Any, images: list[int]) -> None:
    action = curation.rate(images, 3, owner)
    assert action is not None
    errand = begun(action, owner)
    errands._portion(errand.pk)
    assert curation.undo(action, make_user(staff=True)) is not None and not rated()
    errands.run_portions(errand.pk)  # finds nothing left
    errand.refresh_from_db()
    action.refresh_from_db()
    assert errand.state == "done" and action.undone_at is not None and history.PARTLY not in action.details
