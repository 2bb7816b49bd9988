"""Accounts: the sign-in limit, sessions, passwords, people and groups, and who may see a folder."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from search import accounts, sessions, signin_limit
from search.asking import address_of, lock_address
from search.errors import NotAllowed
from search.models import Event, Image, SignedIn, SourceAccess
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db
PASSWORD = "pass-word-1"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Safari/604.1"


def attempt(name: str = "anna", password: str = "wrong", address: str = "192.0.2.7", at: str = "/signin") -> Any:
    return Client(REMOTE_ADDR=address).post(at, {"username": name, "password": password})


def wait_over() -> None:
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))


@pytest.fixture
def boss() -> Any:
    return make_user("boss", staff=True)


@pytest.fixture
def as_boss(boss: Any) -> Client:
    client = Client()
    client.force_login(boss)
    return client


# --- the limit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["/signin", "/admin/login/"])
def test_too_many_wrong_passwords_make_one_wait_and_say_how_long(page: str) -> None:
    make_user("anna", staff=True)
    assert [attempt(at=page).status_code for _ in range(5)] == [200] * 4 + [429]
    answer = attempt(password=PASSWORD, at=page)
    assert answer.status_code == 429, "the right password is not tried either"
    assert "15 min" in answer.content.decode() and 800 < int(answer["Retry-After"]) <= 900
    wait_over()
    assert attempt(password=PASSWORD, at=page).status_code == 302


def test_trying_on_does_not_make_the_wait_longer_or_the_audit_grow(owner: Any) -> None:
    for _ in range(5):
        attempt()
    before = AccessAttempt.objects.get().attempt_time
    for _ in range(5):
        attempt()
    assert AccessAttempt.objects.get().attempt_time == before
    assert Event.objects.filter(kind="sign-in-failed").count() == 5
    assert Event.objects.filter(kind="locked-out", name="anna").count() == 1


def test_a_stranger_elsewhere_locks_nobody_out(owner: Any) -> None:
    for _ in range(6):
        attempt(address="198.51.100.9")
    assert attempt(password=PASSWORD).status_code == 302


def test_signing_in_forgets_earlier_mistakes(owner: Any) -> None:
    for _ in range(2):
        for _ in range(4):
            attempt()
        assert attempt(password=PASSWORD).status_code == 302


def test_guessing_with_one_name_after_the_other_stops_at_the_address(owner: Any) -> None:
    make_user("eve")
    for n in range(49):
        assert attempt(f"name{n}").status_code == 200
    assert attempt("eve", PASSWORD).status_code == 302, "an own account does not clear the counts of others"
    assert attempt("name49").status_code == 429
    answer = attempt(password=PASSWORD)
    assert answer.status_code == 429 and int(answer["Retry-After"]) > 0
    assert attempt(password=PASSWORD, address="198.51.100.9").status_code == 302
    assert [one.address for one in signin_limit.locked() if not one.name] == ["192.0.2.7"]


def test_all_addresses_of_an_ipv6_network_count_as_one(owner: Any) -> None:
    for n in range(5):
        attempt(address=f"2001:db8:1:2::{n + 1}")
    assert attempt(password=PASSWORD, address="2001:db8:1:2:aaaa::1").status_code == 429
    assert attempt(password=PASSWORD, address="2001:db8:1:3::1").status_code == 302
    call_command("unlock", "--address", "2001:db8:1:2::77")
    assert attempt(password=PASSWORD, address="2001:db8:1:2::1").status_code == 302


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "203.0.113.5", "10.0.0.1"),
        (1, "203.0.113.5", "203.0.113.5"),
        (1, "6.6.6.6, 203.0.113.5", "203.0.113.5"),
        (2, "6.6.6.6, 203.0.113.5, 10.0.0.2", "203.0.113.5"),
        (2, "203.0.113.5", "10.0.0.1"),
        (1, "", "10.0.0.1"),
        (1, "nonsense", "10.0.0.1"),
        (1, "203.0.113.5:4711", "203.0.113.5"),
        (1, "[2001:db8::5]:4711", "2001:db8::5"),
        (1, "::ffff:203.0.113.5", "203.0.113.5"),
    ],
)
def test_the_address_behind_proxies(settings: Any, proxies: int, forwarded: str, expected: str) -> None:
    settings.IMAGESEARCH_PROXIES = proxies
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", headers={"X-Forwarded-For": forwarded})
    assert address_of(request) == expected
    assert address_of(RequestFactory().get("/", REMOTE_ADDR="")) is None
    assert lock_address(RequestFactory().get("/", REMOTE_ADDR="")) is None


def test_made_up_forwarding_opens_no_way_around_the_limit(owner: Any) -> None:
    for n in range(5):
        Client().post("/signin", {"username": "anna", "password": "x"}, headers={"X-Forwarded-For": f"203.0.113.{n}"})
    answer = Client().post(
        "/signin", {"username": "anna", "password": PASSWORD}, headers={"X-Forwarded-For": "1.2.3.4"}
    )
    assert answer.status_code == 429


@pytest.mark.parametrize("way", ["command", "page", "admin", "all"])
def test_the_owner_unlocks(owner: Any, as_boss: Client, way: str, capsys: Any) -> None:
    for _ in range(5):
        attempt()
    call_command("unlock")
    assert "anna from 192.0.2.7" in capsys.readouterr().out
    page = as_boss.get("/accounts/").content.decode()
    assert "anna" in page and "15 min left" in page
    if way == "command":
        call_command("unlock", "anna")
    elif way == "all":
        call_command("unlock", "--all")
    elif way == "page":
        as_boss.post("/accounts/", {"verb": "unlock", "username": "anna", "address": "192.0.2.7"})
    else:
        chosen = {"action": "unlock_selected", "_selected_action": AccessAttempt.objects.get().pk}
        as_boss.post("/admin/axes/accessattempt/", chosen)
    assert attempt(password=PASSWORD).status_code == 302
    assert Event.objects.filter(kind="unlocked").count() == 1


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--address", "home"], "no IP address"), (["anna", "--all"], "goes without a name")]
)
def test_unlock_says_what_is_wrong(arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        call_command("unlock", *arguments)


def test_unlock_ends_with_1_when_nobody_waits(owner: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("unlock", "anna")
    assert ended.value.code == 1


# --- sessions ---------------------------------------------------------------------------------------


def browser(user: Any, agent: str, address: str = "192.0.2.7") -> Client:
    client = Client(REMOTE_ADDR=address, headers={"User-Agent": agent})
    assert client.post("/signin", {"username": user.username, "password": PASSWORD}).status_code == 302
    return client


def test_sessions_are_listed_and_one_is_ended(owner: Any) -> None:
    here, there = browser(owner, FIREFOX), browser(owner, SAFARI, "198.51.100.9")
    browser(make_user("bert"), "curl/8.5", "203.0.113.77")
    page = here.get("/account/").content.decode()
    assert "Firefox on Linux" in page and "Safari on iPhone" in page and "198.51.100.9" in page
    assert "curl" not in page and "203.0.113.77" not in page, "another person's session"
    places = here.get("/account/").context["places"]
    assert [place.current for place in places] == [True, False]
    here.post(f"/account/session/{places[1].pk}/end/")
    assert there.get("/browse/").status_code == 302 and here.get("/browse/").status_code == 200


def test_all_other_sessions_are_ended(owner: Any) -> None:
    here, *others = (browser(owner, FIREFOX) for _ in range(3))
    bert = browser(make_user("bert"), FIREFOX)
    here.post("/account/sessions/end/")
    assert [one.get("/browse/").status_code for one in others] == [302, 302]
    assert here.get("/browse/").status_code == bert.get("/browse/").status_code == 200
    assert SignedIn.objects.count() == 2


def test_nobody_ends_a_session_of_somebody_else(owner: Any) -> None:
    browser(owner, FIREFOX)
    bert = browser(make_user("bert"), FIREFOX)
    bert.post(f"/account/session/{SignedIn.objects.get(user=owner).pk}/end/")
    assert SignedIn.objects.filter(user=owner).exists()


def test_a_session_is_noted_as_seen_now_and_then_only(owner: Any) -> None:
    here = browser(owner, FIREFOX)
    here.get("/browse/")
    with CaptureQueriesContext(connection) as queries:
        here.get("/browse/")
    assert not [one for one in queries if "signedin" in one["sql"]]
    row = SignedIn.objects.get()
    SignedIn.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    sessions._noted[row.session_key] -= sessions.SEEN_EVERY
    here.get("/browse/", REMOTE_ADDR="192.0.2.8")
    row.refresh_from_db()
    assert timezone.now() - row.seen_at < timedelta(minutes=1) and row.address == "192.0.2.8"


def test_what_is_over_is_not_listed_and_pruned(owner: Any) -> None:
    from django.contrib.sessions.models import Session

    here, _ = browser(owner, FIREFOX), browser(owner, SAFARI)
    Session.objects.filter(session_key=SignedIn.objects.get(browser=SAFARI).session_key).update(
        expire_date=timezone.now() - timedelta(days=1)
    )
    assert len(here.get("/account/").context["places"]) == 1
    assert sessions.prune() == 1 and SignedIn.objects.count() == 1


@pytest.mark.parametrize(
    ("said", "name"),
    [(FIREFOX, "Firefox on Linux"), (SAFARI, "Safari on iPhone"), ("", "Unknown browser"), ("x" * 400, "x" * 60),
     ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
     ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36", "Chrome on Android")],
)  # fmt: skip
def test_browsers_have_names(said: str, name: str) -> None:
    assert sessions.browser_name(said) == name


# --- passwords --------------------------------------------------------------------------------------


def test_changing_the_password_signs_out_everywhere_else(owner: Any) -> None:
    here, there = browser(owner, FIREFOX), browser(owner, SAFARI)
    new = {"old_password": PASSWORD, "new_password1": "another-long-word", "new_password2": "another-long-word"}
    assert here.post("/account/password/", new)["Location"] == "/account/"
    assert there.get("/browse/").status_code == 302 and here.get("/browse/").status_code == 200
    assert len(here.get("/account/").context["places"]) == 1 and SignedIn.objects.count() == 1
    assert attempt(password="another-long-word").status_code == 302


@pytest.mark.parametrize(
    ("old", "new", "again", "said"),
    [
        ("wrong", "another-long-word", "another-long-word", "That is not your password."),
        (PASSWORD, "another-long-word", "another-word-too", "The two passwords differ."),
        (PASSWORD, "short", "short", "too short. It must contain at least 10 characters."),
        (PASSWORD, "password123", "password123", "too common"),
        (PASSWORD, "98712346501", "98712346501", "entirely numeric"),
        (PASSWORD, "anna-katharina", "anna-katharina", "too similar to the username"),
    ],
)
def test_a_bad_password_is_said_in_a_sentence(old: str, new: str, again: str, said: str) -> None:
    client = Client()
    client.force_login(make_user("anna-katharina"))
    page = client.post("/account/password/", {"old_password": old, "new_password1": new, "new_password2": again})
    assert page.status_code == 200 and said in page.content.decode()
    assert get_user_model().objects.get().check_password(PASSWORD)


# --- people and groups ------------------------------------------------------------------------------


def test_an_account_is_made_and_its_link_chooses_a_password_once(as_boss: Client) -> None:
    page = as_boss.post("/accounts/", {"verb": "make", "username": "bert"}, follow=True)
    link = page.context["link"]
    assert link.startswith("http://testserver/invitation/") and link in page.content.decode()
    assert not as_boss.get(page.request["PATH_INFO"]).context["link"], "shown once"
    bert = Client()
    form = bert.get(link, follow=True)
    assert "Choose a password" in form.content.decode() and "bert" in form.content.decode()
    where = form.request["PATH_INFO"]
    words = {"new_password1": "a-long-word", "new_password2": "a-long-word"}
    assert "too short" in bert.post(where, {"new_password1": "x", "new_password2": "x"}).content.decode()
    assert bert.post(where, words)["Location"] == "/"
    assert bert.get("/account/").context["user"].username == "bert"
    again = Client().get(link, follow=True)
    assert again.status_code == 410 and "This link is spent" in again.content.decode()
    person = get_user_model().objects.get(username="bert")
    assert not person.is_staff and not person.is_superuser


def test_a_link_of_an_account_that_is_switched_off_is_spent(boss: Any) -> None:
    bert = make_user("bert")
    link = accounts.invitation(bert, by=boss)
    accounts.switch(bert, on=False, by=boss)
    assert Client().get(link, follow=True).status_code == 410
    with pytest.raises(NotAllowed, match="switch it on first"):
        accounts.invitation(bert, by=boss)


def test_switching_off_ends_sessions_and_keeps_the_work(as_boss: Client) -> None:
    bert = make_user("bert")
    make_source(owner=bert)
    there = browser(bert, FIREFOX)
    as_boss.post(f"/accounts/{bert.pk}/", {"verb": "off"})
    assert there.get("/").status_code == 302 and attempt("bert", PASSWORD).status_code == 200
    as_boss.post(f"/accounts/{bert.pk}/", {"verb": "on"})
    assert attempt("bert", PASSWORD).status_code == 302 and SourceAccess.objects.filter(user=bert).exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"verb": "make", "username": "Boss"}, "There is an account of that name already"),
        ({"verb": "make", "username": "a b!"}, "Enter a valid username"),
        ({"verb": "make", "username": ""}, "Type the name"),
        ({"verb": "group", "name": " "}, "1 to 150 characters"),
        ({"verb": "group", "name": "FAMILY"}, "There is a group of that name already"),
        ({"verb": "unlock", "username": "nobody"}, "need not wait"),
        ({"verb": "unlock", "address": "x"}, "need not wait"),
    ],
)
def test_what_is_wrong_on_the_people_page_is_said(as_boss: Client, data: dict[str, str], said: str) -> None:
    Group.objects.create(name="family")
    assert said in as_boss.post("/accounts/", data, follow=True).content.decode()
    assert get_user_model().objects.count() == 1 and Group.objects.count() == 1


def test_staff_that_is_no_owner_cannot_rise_or_touch_owners(boss: Any) -> None:
    helper = make_user("helper", is_staff=True)
    client = Client()
    client.force_login(helper)
    assert (
        "Only an owner"
        in client.post("/accounts/", {"verb": "make", "username": "x", "runs": "1"}, follow=True).content.decode()
    )
    for verb in ("link", "off", "end"):
        for person in (boss, make_user(is_staff=True)):
            page = client.post(f"/accounts/{person.pk}/", {"verb": verb}, follow=True)
            assert "Only an owner of this installation" in page.content.decode()
            assert not page.context["link"] and not page.context["places"]
    boss.refresh_from_db()
    assert boss.is_active and not get_user_model().objects.filter(username="x").exists()


def test_nobody_switches_off_their_own_account(as_boss: Client, boss: Any) -> None:
    page = as_boss.post(f"/accounts/{boss.pk}/", {"verb": "off"}, follow=True)
    assert "cannot switch off your own" in page.content.decode()


@pytest.mark.parametrize("number", [2, 50])
def test_people_and_access_cost_the_same_for_2_and_50(as_boss: Client, number: int) -> None:
    source, family = make_source(), Group.objects.create(name="family")
    for _ in range(number):
        person = make_user()
        person.groups.add(family)
        SourceAccess.objects.create(source=source, user=person)
        make_source(owner=person)
        person.signed_in.create(session_key=person.username, created_at=timezone.now(), seen_at=timezone.now())
    costs = {}
    for address in ("/accounts/", f"/accounts/{person.pk}/", "/access/", f"/access/{source.pk}/", "/account/"):
        as_boss.get(address)
        with CaptureQueriesContext(connection) as queries:
            assert as_boss.get(address).status_code == 200
        costs[address.strip("0123456789/")] = len(queries)
    assert max(costs.values()) <= 11, costs


def test_more_people_than_a_page_holds_are_all_reached(as_boss: Client) -> None:
    for n in range(60):
        make_user(f"user-{n:03}")
    first = as_boss.get("/accounts/").context
    rest = as_boss.get(first["more_href"]).context
    names = [one.username for one in [*first["people"], *rest["people"]]]
    assert len(names) == len(set(names)) == 61 and not rest["more_href"]


# --- access to a folder -----------------------------------------------------------------------------


def test_an_owner_gives_changes_and_takes_access_and_it_counts_at_once(signed_in: Client, owner: Any) -> None:
    bert = make_user("bert")
    source = make_source(owner=owner, name="Holidays")
    image = make_image(source)
    theirs = Client()
    theirs.force_login(bert)
    page = f"/access/{source.pk}/"
    assert theirs.get(f"/image/{image.pk}/").status_code == theirs.get(page).status_code == 404
    signed_in.post(page, {"verb": "give", "whom": "user", "name": "Bert", "role": "viewer"})
    assert theirs.get(f"/image/{image.pk}/").status_code == 200 and theirs.get(page).status_code == 404
    assert theirs.post(f"/image/{image.pk}/rate/", {"rating": "3"}).status_code == 403
    row = SourceAccess.objects.get(user=bert)
    signed_in.post(page, {"verb": "role", "access": row.pk, "role": "editor"})
    assert theirs.post(f"/image/{image.pk}/rate/", {"rating": "3"}).status_code == 302
    signed_in.post(page, {"verb": "take", "access": row.pk})
    assert theirs.get(f"/image/{image.pk}/").status_code == 404
    assert Image.objects.get().rating == 3


def test_a_group_gets_access_and_loses_it_with_membership(as_boss: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    bert, family = make_user("bert"), Group.objects.create(name="family")
    as_boss.post(f"/access/{source.pk}/", {"verb": "give", "whom": "group", "name": "family", "role": "owner"})
    as_boss.post(f"/accounts/{bert.pk}/", {"verb": "join", "group": family.pk})
    theirs = Client()
    theirs.force_login(bert)
    assert theirs.get(f"/access/{source.pk}/").status_code == 200
    as_boss.post(f"/accounts/{bert.pk}/", {"verb": "leave", "group": family.pk})
    assert theirs.get(f"/access/{source.pk}/").status_code == 404


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"verb": "give", "whom": "user", "name": "nobody", "role": "viewer"}, "Nobody signs in as"),
        ({"verb": "give", "whom": "user", "name": "", "role": "viewer"}, "Type the name"),
        ({"verb": "give", "whom": "group", "name": "bert", "role": "viewer"}, "There is no group"),
        ({"verb": "give", "whom": "user", "name": "bert", "role": "king"}, "Choose one of the roles"),
        ({"verb": "take", "access": "999"}, "taken away already"),
        ({"verb": "take", "access": "x"}, "taken away already"),
        ({"verb": "take", "access": "OWN"}, "needs an owner: make somebody else one first"),
        ({"verb": "role", "access": "OWN", "role": "viewer"}, "needs an owner: make somebody else one first"),
    ],
)
def test_what_is_wrong_with_access_is_said_and_changes_nothing(
    signed_in: Client, owner: Any, data: dict[str, str], said: str
) -> None:
    make_user("bert")
    source = make_source(owner=owner)
    if data.get("access") == "OWN":
        data = {**data, "access": str(SourceAccess.objects.get().pk)}
    before = list(SourceAccess.objects.values())
    assert said in signed_in.post(f"/access/{source.pk}/", data, follow=True).content.decode()
    assert list(SourceAccess.objects.values()) == before


def test_an_owner_may_leave_when_there_is_another(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner, name="Holidays")
    SourceAccess.objects.create(source=source, user=make_user("bert"), role="owner")
    own = SourceAccess.objects.get(user=owner)
    answer = signed_in.post(f"/access/{source.pk}/", {"verb": "take", "access": own.pk})
    assert answer["Location"] == "/access/" and not SourceAccess.objects.filter(user=owner).exists()


def test_rows_of_another_folder_are_out_of_reach(signed_in: Client, owner: Any) -> None:
    own, other = make_source(owner=owner), make_source(owner=make_user("bert"))
    row = SourceAccess.objects.get(source=other)
    signed_in.post(f"/access/{own.pk}/", {"verb": "take", "access": row.pk})
    assert SourceAccess.objects.filter(pk=row.pk).exists()


def test_who_else_has_an_account_is_for_staff_to_read(signed_in: Client, owner: Any, as_boss: Client) -> None:
    make_user("secret-person")
    source = make_source(owner=owner)
    assert "secret-person" not in signed_in.get(f"/access/{source.pk}/").content.decode()
    assert "secret-person" in as_boss.get(f"/access/{source.pk}/").content.decode()
