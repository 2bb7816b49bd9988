"""Signing in and out, and the one-time link."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from search import changes, welcome
from search.models import Change, Image, SourceAccess
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


# --- signing in -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "/", "/?q=dog", "/browse/", "/image/1/", "/progress/", "/problems/", "/history/", "/thumbnail/1.jpg",
        "/picture/1.jpg", "/original/1/", "/filters/", "/narrow/", "/tags/",
        "/tags/suggest/?tag=a", "/tags/1/",
        "/albums/", "/albums/1/", "/searches/", "/selection/", "/upload/aaaaaaaaaaaaaaaaaaaa.jpg",
    ],
)  # fmt: skip
def test_every_page_asks_strangers_to_sign_in(client: Client, address: str) -> None:
    response = client.get(address)
    assert response.status_code == 302
    assert response["Location"].startswith("/signin?next=")


@pytest.mark.parametrize(
    "address", ["/upload/", "/image/1/rate/", "/image/1/remove/", "/action/1/undo/", "/problems/retry/"]
)
def test_strangers_change_nothing(client: Client, address: str) -> None:
    image = make_image()
    assert client.post(address, {"rating": "5"})["Location"].startswith("/signin?next=")
    image.refresh_from_db()
    assert image.rating == 0 and image.state == Image.State.READY


def test_a_form_sent_after_the_session_ended_leads_back_to_its_page(client: Client) -> None:
    page = "http://testserver/image/1/?q=red%20sunset&at=2"
    sent = client.post("/image/1/rate/", {"rating": "5"}, headers={"Referer": page})
    assert sent["Location"] == "/signin?next=/image/1/%3Fq%3Dred%2520sunset%26at%3D2"
    assert "nothing was changed" in client.get(sent["Location"]).content.decode()
    for elsewhere in ("https://evil.example/", "//evil.example/", ""):
        assert client.post("/upload/", headers={"Referer": elsewhere})["Location"] == "/signin?next=/"


@pytest.mark.parametrize("method", ["get", "post"])
def test_htmx_opens_the_sign_in_page_whole_when_the_session_ended(client: Client, method: str) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/progress/"}
    response = getattr(client, method)("/problems/retry/", headers=headers)
    assert response.status_code == 200 and not response.content
    assert response["HX-Redirect"] == "/signin?next=/progress/"


@pytest.mark.parametrize("address", ["/", "/browse/", "/progress/", "/problems/", "/history/", "/filters/"])
def test_pages_answer_head(signed_in: Client, address: str) -> None:
    response = signed_in.head(address)
    assert response.status_code == 200 and not response.content


@pytest.mark.parametrize("verb", ["tag", "untag", "rate", "title", "hide", "unhide", "remove", "restore"])
def test_changes_are_made_by_post_alone(signed_in: Client, owner: Any, verb: str) -> None:
    image = make_image(make_source(owner=owner))
    assert signed_in.get(f"/image/{image.pk}/{verb}/").status_code == 405


def test_changes_need_the_csrf_token(owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(owner)
    response = strict.post(f"/image/{image.pk}/rate/", {"rating": "5"})
    assert response.status_code == 403
    assert "Nothing was changed" in response.content.decode()
    image.refresh_from_db()
    assert image.rating == 0


def test_sign_in_says_what_is_wrong_and_goes_where_one_wanted(client: Client, owner: Any) -> None:
    wrong = client.post("/signin", {"username": "anna", "password": "nope"})
    assert "do not belong together" in wrong.content.decode()
    right = client.post("/signin?next=/browse/", {"username": "anna", "password": "pass-word-1", "next": "/browse/"})
    assert right["Location"] == "/browse/"
    away = Client().post("/signin", {"username": "anna", "password": "pass-word-1", "next": "https://evil.example/"})
    assert away["Location"] == "/"


def test_sign_out_is_a_post(signed_in: Client) -> None:
    assert signed_in.get("/signout").status_code == 405
    assert signed_in.post("/signout")["Location"] == "/signin"
    assert signed_in.get("/")["Location"].startswith("/signin")


# --- the one-time link ------------------------------------------------------------------------------


def test_one_time_link_creates_the_owner_once_and_gives_them_every_ownerless_source(client: Client) -> None:
    ownerless = make_source()
    path = welcome.issue()
    assert path is not None
    assert "You are the first here" in client.get(path).content.decode()
    number = changes.last_number()
    answer = client.post(path, {"username": "anna", "password": "a-long-word", "again": "a-long-word"})
    assert answer["Location"] == "/"
    user = get_user_model().objects.get()
    assert user.is_superuser and user.check_password("a-long-word")
    assert SourceAccess.objects.get(source=ownerless).role == SourceAccess.Role.OWNER
    assert Change.objects.filter(number__gt=number, kind=Change.Kind.ACCESS).exists()
    assert client.get("/").status_code == 200, "the owner is signed in"
    again = Client().post(path, {"username": "eve", "password": "a-long-word", "again": "a-long-word"})
    assert again.status_code == 410
    assert get_user_model().objects.count() == 1


def test_one_time_link_leaves_sources_with_an_owner_alone() -> None:
    bert = make_user("bert")
    owned = make_source(owner=bert)
    welcome.adopt_sources(make_user("anna"))
    assert list(SourceAccess.objects.filter(source=owned).values_list("user__username", flat=True)) == ["bert"]


def test_one_time_link_is_not_issued_once_somebody_has_an_account(owner: Any) -> None:
    assert welcome.issue() is None


def test_one_time_link_of_an_earlier_start_stops_working(client: Client) -> None:
    earlier, later = welcome.issue(), welcome.issue()
    assert earlier and later and earlier != later
    assert client.get(earlier).status_code == 410
    assert client.get(later).status_code == 200


def test_one_time_link_is_good_no_more_when_an_account_was_made_meanwhile(client: Client) -> None:
    path = welcome.issue()
    assert path is not None
    make_user("somebody")
    assert client.get(path).status_code == 410
    response = client.post(path, {"username": "anna", "password": "a-long-word", "again": "a-long-word"})
    assert response.status_code == 410
    assert not get_user_model().objects.filter(is_superuser=True).exists()


def test_one_time_token_is_stored_hashed_and_private(settings: Any) -> None:
    path = welcome.issue()
    assert path is not None
    token = path.strip("/").split("/")[-1]
    file = Path(settings.IMAGESEARCH_DATA) / "welcome"
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"username": "anna", "password": "a-long-word", "again": "another-word"}, "The two passwords differ."),
        ({"username": "anna", "password": "short", "again": "short"}, "too short"),
        ({"username": "an na!", "password": "a-long-word", "again": "a-long-word"}, "Enter a valid username"),
        ({"username": "", "password": "a-long-word", "again": "a-long-word"}, "This field is required"),
    ],
)
def test_one_time_link_says_what_is_wrong_and_stays_good(client: Client, data: dict[str, str], said: str) -> None:
    path = welcome.issue()
    assert path is not None
    response = client.post(path, data)
    assert response.status_code == 200 and said in response.content.decode()
    assert not get_user_model().objects.exists()
    good = {"username": "anna", "password": "a-long-word", "again": "a-long-word"}
    assert client.post(path, good).status_code == 302
