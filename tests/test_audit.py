"""The audit: what is written, what it costs, who reads what, and where it ends."""

from __future__ import annotations

import csv
import io
import sqlite3
import time
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from search import audit, curation, thumbnails
from search.models import Event, SourceAccess
from tests.factories import make_image, make_source, make_user
from tests.pages.pictures import body, image_on_disk

pytestmark = pytest.mark.django_db
EVERYTHING = audit.Wanted()


@pytest.fixture(autouse=True)
def _nothing_pending() -> Any:
    audit._pending.clear()
    yield
    audit._pending.clear()


@pytest.fixture
def anna() -> Any:
    return make_user("anna")


@pytest.fixture
def page(client: Client, anna: Any) -> Client:
    client.force_login(anna)
    Event.objects.all().delete()
    return client


def kinds(**filters: Any) -> list[str]:
    return list(Event.objects.filter(**filters).order_by("pk").values_list("kind", flat=True))


# --- what is written --------------------------------------------------------------------------------


def test_opening_and_downloading_an_original_are_noted_and_thumbnails_are_not(
    page: Client, anna: Any, tmp_path: Any
) -> None:
    image = image_on_disk(make_source(tmp_path, owner=anna, name="Holidays"), "beach.jpg")
    thumbnails.save(image.pk, (tmp_path / "beach.jpg").read_bytes())
    for address in (f"/image/{image.pk}/", f"/thumbnail/{image.pk}.jpg", "/browse/"):
        assert page.get(address).status_code == 200
    page.head(f"/original/{image.pk}/")
    Event.objects.filter(kind="access-changed").delete()
    assert kinds() == []
    assert body(page.get(f"/picture/{image.pk}.jpg", REMOTE_ADDR="192.0.2.7"))
    assert page.get(f"/original/{image.pk}/").status_code == 200
    opened, downloaded = Event.objects.order_by("pk")
    assert (opened.kind, downloaded.kind) == ("opened", "downloaded")
    assert opened.user == anna and opened.name == "anna" and opened.address == "192.0.2.7"
    assert opened.text == "Holidays: beach.jpg" and opened.image_id == image.pk


def test_what_somebody_may_not_see_leaves_no_line(page: Client, tmp_path: Any) -> None:
    image = image_on_disk(make_source(tmp_path, owner=make_user("bert")), "a.jpg")
    Event.objects.all().delete()
    assert page.get(f"/original/{image.pk}/").status_code == 404
    assert kinds() == []


def test_signing_in_out_and_failing_are_noted(client: Client, anna: Any) -> None:
    client.post("/signin", {"username": "anna", "password": "wrong"})
    client.post("/signin", {"username": "nobody", "password": "wrong"})
    client.post("/signin", {"username": "anna", "password": "pass-word-1"})
    client.post("/signout")
    rows = list(Event.objects.order_by("pk").values_list("kind", "name", "user"))
    assert rows == [
        ("sign-in-failed", "anna", anna.pk),
        ("sign-in-failed", "nobody", None),
        ("signed-in", "anna", anna.pk),
        ("signed-out", "anna", anna.pk),
    ]


def test_no_password_is_ever_written(client: Client, anna: Any) -> None:
    from axes.models import AccessAttempt

    client.post("/signin?password=secret-in-address", {"username": "anna", "password": "my-secret-word"})
    attempt = AccessAttempt.objects.get()
    kept = str(list(Event.objects.values())) + str({**vars(attempt)})
    assert "my-secret-word" not in kept and "secret-in-address" not in kept


def test_access_is_noted_whoever_changes_it_and_however(client: Client) -> None:
    boss, bert = make_user("boss", staff=True), make_user("bert")
    source = make_source(name="Holidays")
    group = Group.objects.create(name="family")
    client.force_login(boss)
    Event.objects.all().delete()
    client.post(f"/access/{source.pk}/", {"verb": "give", "whom": "user", "name": "bert", "role": "viewer"})
    client.post(f"/accounts/{bert.pk}/", {"verb": "join", "group": group.pk})
    SourceAccess.objects.get(user=bert).delete()
    rows = list(Event.objects.order_by("pk").values_list("name", "text"))
    assert rows == [
        ("boss", "bert: viewer of Holidays"),
        ("boss", "bert joined family"),
        ("", "bert: no longer viewer of Holidays"),
    ]


def test_a_line_is_one_insert(anna: Any) -> None:
    with CaptureQueriesContext(connection) as queries:
        audit.record(audit.Kind.EXPORTED, anna, text="12 images as ZIP", count=12)
    written = [one["sql"] for one in queries if not one["sql"].startswith(("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT"))]
    assert len(written) == 1 and written[0].startswith("INSERT")


def test_odd_text_is_kept_readable_and_fits(anna: Any) -> None:
    audit.record(audit.Kind.EXPORTED, anna, text="a\x00b\ud800\n" + "x" * 400)
    text = Event.objects.get().text
    assert text.startswith("a�b��x") and len(text) == 300


def test_an_unknown_kind_is_a_mistake_of_the_caller(anna: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        audit.record("anything", anna)


def test_a_line_about_an_account_that_is_just_gone_fails_nothing(anna: Any) -> None:
    pk = anna.pk
    anna.delete()
    anna.pk = pk
    audit.record(audit.Kind.EXPORTED, anna)
    assert Event.objects.get().name == "anna"
    assert audit.lines(None, EVERYTHING)[0][0].who == "anna"


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(
    "sqlite3" not in django_settings.DATABASES["default"]["ENGINE"], reason="only SQLite has one writer at a time"
)
def test_a_busy_database_holds_no_page_up_and_the_line_comes_later(client: Client, tmp_path: Any) -> None:
    anna = make_user("anna")
    image = image_on_disk(make_source(tmp_path, owner=anna), "a.jpg")
    client.force_login(anna)
    Event.objects.all().delete()
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert client.get(f"/original/{image.pk}/").status_code == 200
    assert time.monotonic() - began < 2
    assert kinds() == [] and len(audit._pending) == 1
    other.execute("ROLLBACK")
    other.close()
    assert connection.connection.execute("PRAGMA busy_timeout").fetchone()[0] == 30_000
    client.get(f"/original/{image.pk}/")
    assert kinds() == ["downloaded", "downloaded"] and not audit._pending


def test_a_broken_transaction_keeps_the_line_for_later(anna: Any) -> None:
    from django.db import IntegrityError, transaction

    with pytest.raises(IntegrityError), transaction.atomic():
        transaction.set_rollback(True)
        audit.record(audit.Kind.EXPORTED, anna)
        raise IntegrityError
    assert kinds() == []
    assert audit.flush() and kinds() == ["exported"]


# --- who reads what ---------------------------------------------------------------------------------


def many(user: Any, number: int) -> None:
    now = timezone.now()
    for n in range(number):
        at = now - timedelta(hours=n // 3)
        Event.objects.create(kind="opened", user=user, name=user.username, text=f"{n}", created_at=at)
    image = make_image(make_source(owner=user))
    for n in range(number // 2):
        curation.tag([image.pk], [f"{user.username} {n}"], user)


def test_the_list_joins_both_tables_newest_first_and_pages_lose_nothing(anna: Any) -> None:
    many(anna, 40)
    whole, more = audit.lines(anna, EVERYTHING, limit=1_000)
    assert not more and len([one for one in whole if one.kind == audit.CHANGED]) == 20
    assert [one.key for one in whole] == sorted((one.key for one in whole), reverse=True)
    seen: list[Any] = []
    before, more = None, True
    while more:
        page, more = audit.lines(anna, EVERYTHING, before=before, limit=7)
        seen += page
        before = audit.parse_cursor(page[-1].cursor)
    assert seen == whole


def test_people_read_their_own_and_staff_everybodys(client: Client, anna: Any) -> None:
    bert, boss = make_user("bert"), make_user("boss", staff=True)
    many(anna, 4)
    many(bert, 4)
    for user, seen in [(anna, {"anna"}), (bert, {"bert"}), (boss, {"anna", "bert", ""})]:
        assert {one.who for one in audit.lines(user, EVERYTHING)[0]} - {"boss"} == seen
    client.force_login(anna)
    assert {one.who for one in client.get("/audit/").context["lines"]} == {"anna"}
    assert client.get("/audit/?person=bert").context["lines"] == []
    client.force_login(boss)
    page = client.get("/audit/?person=bert").content.decode()
    assert "Tagged 1 picture “bert 0”" in page and "anna 0" not in page


def test_an_image_that_may_no_longer_be_seen_keeps_its_name_back(page: Client, anna: Any, tmp_path: Any) -> None:
    source = make_source(tmp_path, viewer=anna, name="Holidays")
    image = image_on_disk(source, "private-name.jpg")
    page.get(f"/original/{image.pk}/")
    assert "private-name.jpg" in page.get("/audit/").content.decode()
    SourceAccess.objects.all().delete()
    for address in ("/audit/", "/audit.csv"):
        answer = page.get(address)
        text = body(answer).decode()
        assert "private-name.jpg" not in text and f"Image {image.pk}" in text


@pytest.mark.parametrize(
    ("query", "expected"),
    [("kind=changed", 2), ("kind=opened", 4), ("kind=exported", 0), ("person=anna", 7), ("since=2000-01-01", 8),
     ("until=2000-01-01", 0), ("since=9999-12-31", 0), ("until=9999-12-31", 8), ("person=anna&kind=opened", 4)],
)  # fmt: skip
def test_filters(client: Client, anna: Any, query: str, expected: int) -> None:
    boss = make_user("boss", staff=True)
    client.force_login(boss)
    Event.objects.all().delete()
    many(anna, 4)
    audit.record(audit.Kind.SIGNED_IN, anna)
    context = client.get(f"/audit/?{query}").context
    assert len(context["lines"]) == expected, [one.label for one in context["lines"]]


@pytest.mark.parametrize("query", ["kind=nonsense", "since=yesterday", "until=2024-13-01"])
def test_a_wrong_filter_is_said(page: Client, query: str) -> None:
    answer = page.get(f"/audit/?{query}")
    assert answer.status_code == 422 and 'role="alert"' in answer.content.decode()
    assert page.get(f"/audit.csv?{query}").status_code == 422


@pytest.mark.parametrize("older", ["x", "1,2,3", "2024-01-01,0,1", "2024-01-01T00:00:00+00:00,0,99999999999999999999"])
def test_a_broken_place_in_the_list_shows_the_newest(page: Client, anna: Any, older: str) -> None:
    many(anna, 2)
    assert page.get("/audit/", {"older": older}).context["lines"]


@pytest.mark.parametrize("staff", [False, True])
def test_the_page_costs_the_same_for_2_and_for_100_lines(client: Client, staff: bool) -> None:
    user = make_user(staff=staff)
    client.force_login(user)

    def cost() -> int:
        client.get("/audit/")
        with CaptureQueriesContext(connection) as queries:
            assert client.get("/audit/").status_code == 200
        return len(queries)

    many(user, 2)
    few = cost()
    many(user, 100)
    assert cost() == few


def test_the_export_holds_everything_and_no_formulas(page: Client, anna: Any) -> None:
    many(anna, 30)
    Event.objects.create(kind="exported", user=anna, name="anna", text='=1+1,"\nx', created_at=timezone.now())
    answer = page.get("/audit.csv")
    assert answer["Content-Type"].startswith("text/csv") and "attachment" in answer["Content-Disposition"]
    rows = list(csv.reader(io.StringIO(body(answer).decode("utf-8-sig"))))
    assert rows[0][0] == "when" and len(rows) == 1 + 30 + 15 + 1 + 1  # the last is the export itself
    assert any(row[3].startswith("'=1+1") for row in rows)
    assert Event.objects.filter(kind="exported", text="The audit as CSV", user=anna).count() == 1


# --- where it ends ----------------------------------------------------------------------------------


def test_lines_end_after_the_days_that_are_set(anna: Any, settings: Any) -> None:
    for days in (1, 29, 31, 400):
        Event.objects.create(kind="opened", user=anna, created_at=timezone.now() - timedelta(days=days))
    settings.IMAGESEARCH_AUDIT_DAYS = 0
    assert audit.prune() == 0
    settings.IMAGESEARCH_AUDIT_DAYS = 30
    assert audit.prune() == 2 and Event.objects.count() == 2


def test_the_scheduler_prunes(anna: Any, settings: Any) -> None:
    from ingestion.tasks import prune

    Event.objects.create(kind="opened", user=anna, created_at=timezone.now() - timedelta(days=400))
    assert prune()["events"] == 1
