"""Your changes: one line for each thing done, struck while it is undone, taken back from the top downwards."""

from __future__ import annotations

import html
import re
from typing import Any, NamedTuple

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from search import curation
from search.models import Action, Image, SourceAccess
from search.views import curate
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


class Line(NamedTuple):
    """One line of the page as a person sees it."""

    said: str
    struck: bool
    button: str
    first: bool
    leads_to: str


def lines(client: Client, address: str = "/history/") -> list[Line]:
    page = client.get(address).content.decode()
    found = []
    for kind, line in re.findall(r'<li class="change( undone)?">(.*?)</li>', page, re.DOTALL):
        said = html.unescape(re.findall(r"<p>(.*?)</p>", line)[0])
        button = re.search(r'action="(\S+)">.*<button class="button( first)?[^>]*>(\w+)<', line)
        found.append(
            Line(said, bool(kind), button[3], bool(button[2]), button[1])
            if button
            else Line(said, bool(kind), "", False, "")
        )
    return found


def press(client: Client, line: Line) -> None:
    answer = client.post(line.leads_to, {"next": "/history/"})
    assert answer.status_code == 302 and answer["Location"] == "/history/"


def first_button(client: Client) -> Line | None:
    """What stands out on the page: one button at most."""
    standing_out = [line for line in lines(client) if line.first]
    assert len(standing_out) <= 1
    return standing_out[0] if standing_out else None


@pytest.fixture
def image(owner: Any) -> Image:
    return make_image(make_source(owner=owner, name="Photos"))


def rate(image: Image, user: Any, *ratings: int) -> None:
    for rating in ratings:
        assert curation.rate([image.pk], rating, user) is not None


def rating_of(image: Image) -> int:
    return Image.objects.values_list("rating", flat=True).get(pk=image.pk)


def test_the_last_changes_are_undone_one_after_the_other_by_pressing_what_stands_out(
    signed_in: Client, owner: Any, image: Image
) -> None:
    rate(image, owner, 1, 2, 3, 4)
    passed = []
    while line := first_button(signed_in):
        assert line.button == "Undo"
        press(signed_in, line)
        passed.append(rating_of(image))
    assert passed == [3, 2, 1, 0]
    after = lines(signed_in)
    assert [(line.struck, line.button) for line in after] == [(True, "Redo")] * 4, "undoing adds no lines"
    assert "4 stars" in after[0].said and "1 star" in after[3].said


def test_what_was_undone_is_done_again_and_undone_again_in_its_own_line(
    signed_in: Client, owner: Any, image: Image
) -> None:
    rate(image, owner, 5)
    for _ in range(3):
        (line,) = lines(signed_in)
        assert (line.struck, line.button, line.first) == (False, "Undo", True)
        press(signed_in, line)
        assert rating_of(image) == 0
        (line,) = lines(signed_in)
        assert (line.struck, line.button, line.first) == (True, "Redo", False)
        press(signed_in, line)
        assert rating_of(image) == 5


def test_undoing_goes_on_below_what_was_done_since(signed_in: Client, owner: Any, image: Image) -> None:
    rate(image, owner, 1, 2)
    press(signed_in, lines(signed_in)[0])
    curation.tag([image.pk], ["beach"], owner)
    assert [(line.struck, line.first) for line in lines(signed_in)] == [(False, True), (True, False), (False, False)]
    press(signed_in, lines(signed_in)[0])
    assert [line.first for line in lines(signed_in)] == [False, False, True]


def test_pressing_twice_says_so_and_changes_nothing(signed_in: Client, owner: Any, image: Image) -> None:
    rate(image, owner, 5)
    (line,) = lines(signed_in)
    press(signed_in, line)
    twice = signed_in.post(line.leads_to, {"next": "/history/"}, follow=True)
    assert "undone already" in twice.content.decode() and rating_of(image) == 0


def test_what_cannot_be_done_again_yet_stays_struck_and_says_why(signed_in: Client, owner: Any, image: Image) -> None:
    rate(image, owner, 1, 2)
    for _ in range(2):
        press(signed_in, next(line for line in lines(signed_in) if line.first))
    newest, oldest = lines(signed_in)
    answer = signed_in.post(newest.leads_to, {"next": "/history/"}, follow=True).content.decode()
    assert "Redo older changes first" in answer and rating_of(image) == 0
    assert lines(signed_in) == [newest, oldest]
    press(signed_in, oldest)
    press(signed_in, newest)
    assert rating_of(image) == 2 and not any(line.struck for line in lines(signed_in))


def test_the_keyboard_stays_on_what_is_undone_next(signed_in: Client, owner: Any, image: Image) -> None:
    rate(image, owner, 1, 2)
    assert "autofocus" not in signed_in.get("/history/").content.decode(), "only after pressing"
    page = signed_in.post(lines(signed_in)[0].leads_to, {"next": "/history/"}, follow=True).content.decode()
    assert re.search(r'<button class="button first" autofocus>Undo<span class="only-heard">: .* 1 star<', page)
    assert page.split('id="toasts"')[1].count("Redo") == 1, "the message offers to do it again"


def test_what_staff_undid_is_struck_and_staffs_to_do_again(signed_in: Client, owner: Any, image: Image) -> None:
    rate(image, owner, 5)
    staff = make_user("boss", staff=True)
    assert curation.undo(Action.objects.get(), staff) is not None
    (mine,) = lines(signed_in)
    assert mine.struck and mine.button == ""
    assert "by boss" in signed_in.get("/history/").content.decode()
    desk = Client()
    desk.force_login(staff)
    (theirs,) = lines(desk)
    assert theirs.said.startswith("Undid") and (theirs.struck, theirs.button, theirs.first) == (False, "Redo", False)
    press(desk, theirs)
    assert rating_of(image) == 5
    (theirs,) = lines(desk)
    assert (theirs.struck, theirs.button) == (True, "Undo")
    (mine,) = lines(signed_in)
    assert (mine.struck, mine.button, mine.first) == (False, "Undo", True)
    press(desk, theirs)
    assert rating_of(image) == 0 and lines(signed_in)[0].struck
    (theirs,) = lines(desk)
    assert (theirs.struck, theirs.button) == (False, "Redo")


def test_what_is_left_for_others_to_undo_does_not_stand_in_the_way(signed_in: Client, owner: Any, image: Image) -> None:
    other = make_image(make_source(owner=owner, name="Lent"))
    rate(image, owner, 1)
    curation.rate([image.pk, other.pk], 2, owner)
    SourceAccess.objects.filter(source=other.source).delete()
    press(signed_in, lines(signed_in)[0])
    assert (rating_of(image), rating_of(other)) == (1, 2)
    after = lines(signed_in)
    assert "left out, not yours to change" in after[0].said and after[0].button == "Redo"
    assert [line.first for line in after] == [False, False, True]
    press(signed_in, after[2])
    assert rating_of(image) == 0


def test_pages_hold_as_many_lines_whatever_was_undone(
    signed_in: Client, owner: Any, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curate, "HISTORY_PAGE", 4)
    rate(image, owner, 1, 2, 3, 4, 5, 1)
    for _ in range(5):
        line = first_button(signed_in)
        if line is not None:
            press(signed_in, line)
    page = signed_in.get("/history/")
    assert [line.struck for line in lines(signed_in)] == [True] * 4
    older = lines(signed_in, page.context["older_href"])
    assert [(line.struck, line.button) for line in older] == [(False, "Undo")] * 2
    assert rating_of(image) == 2


def test_the_page_costs_the_same_whatever_was_undone(signed_in: Client, owner: Any, image: Image) -> None:
    def cost() -> int:
        signed_in.get("/history/")
        with CaptureQueriesContext(connection) as captured:
            signed_in.get("/history/")
        return len(captured)

    rate(image, owner, 1, 2)
    press(signed_in, lines(signed_in)[0])
    few = cost()
    for number in range(12):
        for name in "abc":
            curation.tag([image.pk], [f"{name}{number}"], owner)
        for _ in range(2):
            line = first_button(signed_in)
            assert line is not None
            press(signed_in, line)
        press(signed_in, lines(signed_in)[0])
    assert len(lines(signed_in)) == 38 and Action.objects.count() > 70
    assert cost() == few
