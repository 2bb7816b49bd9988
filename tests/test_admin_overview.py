"""The administration's front page and what it leads to: spaces and their verification, work, crawls, sources, people's
own things."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import numpy as np
import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from ingestion import checking, dashboard, ledger, tasks
from ingestion.crawlreport import CrawlReport
from ingestion.models import Crawl, StageCount, StageTick, Work
from search import albums, embeddings, personal, thumbnails
from search.models import Action, Album, AlbumEntry, Comment, EmbeddingSpace, Event, Source, SourceAccess, Tag
from search.spaces import look_space
from search.vectors import get_store
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db
FRONT = "/admin/"


@pytest.fixture
def staff(client):
    dashboard.forget()
    user = make_user("staff", staff=True)
    client.force_login(user)
    return user


def act(client, address, action, rows, **data):
    return client.post(address, {"action": action, ACTION_CHECKBOX_NAME: [row.pk for row in rows], **data}, follow=True)


def failed(image, stage="read", reason="The file ends too early."):
    ledger.queue([image.pk], [stage])
    ledger.fail([ledger.Failure(image.pk, stage, reason)])


def embedded(number):
    """So many images with a vector in the space `look`, recorded as a worker would."""
    space = look_space()
    images = [make_image() for _ in range(number)]
    ids = np.array([one.pk for one in images])
    vectors = np.random.default_rng(1).normal(size=(number, space.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embeddings.record(space, ids, vectors, still_mine=lambda wanted: wanted, within=lambda kept: None)
    return space, images


# --- the front page -----------------------------------------------------------------------------------


def test_the_front_page_says_how_everything_stands(client, staff):
    space = look_space()
    StageCount.objects.create(stage="read", waiting=300, done=700, failed=0)
    StageCount.objects.create(stage=space.stage, waiting=250, done=450, failed=0)
    StageTick.objects.create(stage="read", started_at=timezone.now(), done=50)
    image = make_image(state="unreadable")
    failed(image)
    Crawl.objects.create(source=make_source(name="Italy"), state=Crawl.State.RUNNING)
    page = client.get(FRONT).content.decode()
    for words in (
        "64 %", "450 of 700", "serves", "300 waiting", "a second", "left", "1 failed",
        "The file ends too early.", "Italy", "never verified", "none are scheduled", "Database", "Thumbnails",
        "python manage.py process",
    ):  # fmt: skip
        assert words in page, words
    assert "state__exact=failed&amp;stage=read" in page


def test_every_link_of_the_front_page_leads_somewhere(client, staff):
    look_space()
    failed(make_image(state="unreadable"), reason="100 % broken & bad?")
    Crawl.objects.create(source=make_source(), state=Crawl.State.FINISHED, counts=CrawlReport(1, "x").counts())

    page = client.get(FRONT).content.decode()
    overview = page[page.index('class="overview"') : page.index('id="content-main"')]
    links = {unescape(one) for one in re.findall(r'href="([^"]+)"', overview)}
    assert len(links) >= 8
    for link in links:
        assert client.get(link).status_code == 200, link
    reason = next(link for link in links if "q=" in link)
    assert [row.reason for row in client.get(reason).context["cl"].result_list] == ["100 % broken & bad?"]


def test_the_front_page_costs_the_same_queries_whatever_there_is(client, staff):
    look_space()

    def cost():
        for _ in range(2):
            client.get(FRONT)
        with CaptureQueriesContext(connection) as queries:
            client.get(FRONT)
        return len(queries)

    source = make_source()
    failed(make_image(source))
    Crawl.objects.create(source=source)
    few = cost()
    for number in range(30):
        failed(make_image(source, state="missing"), reason=f"Reason {number % 7}")
        Crawl.objects.create(source=source)
    for number in range(4):
        EmbeddingSpace.objects.create(
            name=f"s{number}", encoder="look", key=f"k{number}", label=f"S{number}", dim=4, text=False
        )
        StageCount.objects.create(stage=f"embed:s{number}", waiting=1)
    assert cost() == few


def test_staff_who_may_not_see_images_see_no_overview(client):
    client.force_login(make_user(is_staff=True))
    page = client.get(FRONT)
    assert page.status_code == 200 and "overview" not in page.content.decode().replace("overview.css", "")


def test_thumbnails_are_estimated_from_a_sample(staff, monkeypatch):
    for _ in range(4):
        thumbnails.save(make_image().pk, b"x" * 1_000)
    last = make_image().pk
    exact = dashboard._thumbnails()
    assert (exact.bytes, exact.estimated) == (4_000 * last // last, False) if last <= dashboard.SAMPLE else exact
    monkeypatch.setattr(dashboard, "SAMPLE", 3)
    rough = dashboard._thumbnails()
    assert rough.estimated and rough.bytes is not None and 0 <= rough.bytes <= 1_000 * last


def test_room_and_database_are_told_in_bytes(staff):
    places = {one.name: one.bytes for one in dashboard.dashboard(staff).places}
    assert places["Database"] and places["Database"] > 10_000
    disks = dashboard.dashboard(staff).disks
    assert disks and all(0 < one.free <= one.total and 0 <= one.percent <= 100 for one in disks)


def test_the_site_and_the_administration_link_to_each_other(client, staff):
    assert reverse("admin:index") in client.get(reverse("browse")).content.decode()
    page = client.get(FRONT).content.decode()
    assert f'href="{reverse("search")}"' in page and f'href="{reverse("browse")}"' in page


# --- spaces -------------------------------------------------------------------------------------------


def test_verifying_is_asked_for_done_in_the_background_and_kept(client, staff):
    from django_q.models import OrmQ

    space, images = embedded(3)
    address = reverse("admin:search_embeddingspace_changelist")
    assert "never" in client.get(address).content.decode()
    act(client, address, "verify_now", [space])
    assert OrmQ.objects.count() == 1
    assert "not done yet" in client.get(address).content.decode()
    assert tasks.verify_space(space.pk)
    space.refresh_from_db()
    assert (space.verified_rows, space.verified_bad, space.verify_asked_at) == (3, 0, None)
    assert "all 3 rows right" in client.get(address).content.decode()
    with get_store(space).writing():
        get_store(space).delete(np.array([images[0].pk]))
    checking.run(space.pk)
    space.refresh_from_db()
    assert space.verified_bad == 1
    assert "1 row wrong" in client.get(address).content.decode()
    assert "1 row was wrong" in client.get(FRONT).content.decode()


def test_a_space_that_went_away_is_verified_without_a_fault():
    assert not tasks.verify_space(999)


def test_spaces_show_how_full_they_are(client, staff):
    space = look_space()
    StageCount.objects.create(stage=space.stage, waiting=25, done=70, failed=5)
    page = client.get(reverse("admin:search_embeddingspace_changelist")).content.decode()
    assert '<progress class="bar" max="100" value="70"' in page and "70 of 100, 5 failed" in page
    page = client.get(reverse("admin:search_embeddingspace_change", args=[space.pk])).content.decode()
    assert "70 of 100" in page and reverse("spaces") in page


# --- work and crawls ----------------------------------------------------------------------------------

WORK = "/admin/ingestion/work/"


def test_failures_are_found_by_reason_stage_and_image_and_tried_again(client, staff):
    one, two = make_image(), make_image()
    failed(one)
    failed(two, reason="It is no picture.")
    ledger.queue([two.pk], ["embed:look"])

    def shown(**asked):
        return [(row.image_id, row.stage) for row in client.get(WORK, asked).context["cl"].result_list]

    assert shown(q="no picture") == [(two.pk, "read")]
    assert shown(q=str(one.pk)) == [(one.pk, "read")]
    assert shown(stage="embed:look") == [(two.pk, "embed:look")]
    assert shown()[0][1] == "read", "failures come first"
    act(client, WORK, "try_again", Work.objects.filter(image=one))
    assert Work.objects.get(image=one).state == Work.State.WAITING
    assert Work.objects.get(image=two, stage="read").state == Work.State.FAILED
    row = Work.objects.filter(image=one)
    assert b"Are you sure?" in act(client, WORK, "try_all_again", row).content
    act(client, WORK, "try_all_again", row, confirmed="1")
    assert not Work.objects.filter(state=Work.State.FAILED).exists()
    assert ledger.recount() == 0


def test_very_many_failures_are_tried_again_in_the_background(client, staff, monkeypatch):
    from django_q.models import OrmQ

    from ingestion import admin as pages

    monkeypatch.setattr(pages, "MOST_AT_ONCE", 1)
    images = [make_image(), make_image()]
    for image in images:
        failed(image)
    act(client, WORK, "try_again", Work.objects.all())
    assert Work.objects.filter(state=Work.State.FAILED).count() == 2
    act(client, WORK, "try_all_again", Work.objects.all()[:1], confirmed="1")
    assert OrmQ.objects.count() == 1
    assert tasks.retry_failed() == 2
    assert not Work.objects.filter(state=Work.State.FAILED).exists()


def test_claims_are_shown_and_can_be_asked_for(client, staff):
    held, free = make_image(), make_image()
    ledger.queue([held.pk, free.pk], ["read"])
    Work.objects.filter(image=held).update(lease_owner="host:1", lease_until=timezone.now() + timedelta(hours=2))
    page = client.get(WORK, {"claimed": "1"})
    assert [row.image_id for row in page.context["cl"].result_list] == [held.pk]
    assert "host:1 until" in page.content.decode()
    assert [row.image_id for row in client.get(WORK, {"claimed": "0"}).context["cl"].result_list] == [free.pk]


def test_a_crawl_shows_its_report(client, staff):
    crawl = Crawl.objects.create(source=make_source(), counts={"found": 1234, "new_files": 7, "moved": 0})
    page = client.get(reverse("admin:ingestion_crawl_changelist")).content.decode()
    assert "1,234 found, 7 new files" in page
    page = client.get(reverse("admin:ingestion_crawl_change", args=[crawl.pk])).content.decode()
    assert "<th>new files</th><td>7</td>" in page


def test_looking_for_new_files_is_a_task(client, staff):
    from django_q.models import OrmQ

    act(client, reverse("admin:search_source_changelist"), "crawl_now", [make_source()])
    assert OrmQ.objects.count() == 1


# --- sources and access -------------------------------------------------------------------------------


def save_source(client, source, rows, **fields):
    """Save a source's page with these roles: dicts of what the inline form has."""
    there = SourceAccess.objects.filter(source=source).count()
    data = {
        "name": source.name, "excludes": "", "recrawl_minutes": "60", "access-TOTAL_FORMS": len(rows),
        "access-INITIAL_FORMS": there, "access-MIN_NUM_FORMS": 0, "access-MAX_NUM_FORMS": 1000, **fields,
    }  # fmt: skip
    for number, row in enumerate(rows):
        data |= {f"access-{number}-{name}": value for name, value in {"source": source.pk, **row}.items()}
    return client.post(reverse("admin:search_source_change", args=[source.pk]), data, follow=True)


def test_roles_are_given_and_taken_through_the_verbs(client, staff):
    owner, heir = make_user(), make_user()
    group = Group.objects.create(name="family")
    source = make_source(owner=owner)
    mine = SourceAccess.objects.get()
    save_source(
        client, source,
        [
            {"id": mine.pk, "user": owner.pk, "role": "owner", "DELETE": "on"},
            {"user": heir.pk, "role": "owner"},
            {"group": group.pk, "role": "viewer"},
        ],
    )  # fmt: skip
    roles = set(SourceAccess.objects.values_list("user", "group", "role"))
    assert roles == {(heir.pk, None, "owner"), (None, group.pk, "viewer")}
    assert Event.objects.filter(kind="access-changed", user=staff).count() == 3


def test_a_source_keeps_an_owner_and_nobody_is_named_twice(client, staff):
    owner, other = make_user(), make_user()
    source = make_source(owner=owner)
    mine = SourceAccess.objects.get()
    page = save_source(client, source, [{"id": mine.pk, "user": owner.pk, "role": "viewer"}])
    assert "needs an owner" in page.content.decode()
    row = {"id": mine.pk, "user": owner.pk, "role": "owner"}
    page = save_source(
        client, source, [row, {"user": other.pk, "role": "viewer"}, {"user": other.pk, "role": "editor"}]
    )
    assert page.context["errors"]
    page = save_source(
        client, source, [row, {"user": other.pk, "group": Group.objects.create(name="g").pk, "role": "viewer"}]
    )
    assert "either a user or a group" in page.content.decode()
    assert list(SourceAccess.objects.values_list("user", "role")) == [(owner.pk, "owner")]


def test_whose_a_role_is_does_not_change_by_editing(client, staff):
    owner, other = make_user(), make_user()
    source = make_source(owner=owner)
    mine = SourceAccess.objects.get()
    save_source(client, source, [{"id": mine.pk, "user": other.pk, "role": "owner"}], name="Renamed")
    assert SourceAccess.objects.get().user == owner
    assert Source.objects.get().name == "Renamed"


# --- what belongs to people ---------------------------------------------------------------------------


def test_albums_and_comments_are_deleted_through_the_verbs_and_come_back(client, staff):
    owner, image = make_user(staff=True), make_image()
    album = albums.create("Best", owner)[0]
    albums.add(album, [image.pk], owner)
    personal.comment([image.pk], "fine", owner)
    for address, action, model in (
        ("/admin/search/album/", "delete_selected_albums", Album),
        ("/admin/search/comment/", "delete_selected_comments", Comment),
    ):
        assert b"Are you sure?" in act(client, address, action, model.objects.all()).content
        assert model.objects.count() == 1
        page = act(client, address, action, model.objects.all(), confirmed="1")
        assert not model.objects.exists(), action
        undo = reverse("undo", args=[Action.objects.latest("pk").pk])
        assert undo in page.content.decode()
        client.post(undo)
        assert model.objects.count() == 1
    assert AlbumEntry.objects.count() == 1


def test_counts_in_lists_stop_at_a_thousand(client, staff, monkeypatch):
    from search.admin import paging

    tag = Tag.objects.create(name="sea")
    from search.models import ImageTag

    for _ in range(5):
        ImageTag.objects.create(image=make_image(), tag=tag)
    assert paging.bounded_counts(ImageTag, "tag_id", [tag.pk, tag.pk + 1]) == {tag.pk: 5, tag.pk + 1: 0}
    assert paging.bounded_counts(ImageTag, "tag_id", [tag.pk], most=3) == {tag.pk: 3}
    assert (paging.at_most(999), paging.at_most(1_000)) == ("999", "1,000 or more")
    page = client.get(reverse("admin:search_tag_changelist")).content.decode()
    assert f'{reverse("admin:search_image_changelist")}?tag=sea">5<' in page


def test_verbs_are_for_those_who_may_change_such_rows(client):
    helper = make_user(is_staff=True)
    helper.user_permissions.add(*Permission.objects.filter(codename__in=["view_work", "view_source", "view_action"]))
    client.force_login(helper)
    image = make_image()
    failed(image)
    page = client.get(WORK)
    assert page.status_code == 200
    act(client, WORK, "try_again", Work.objects.all())
    assert Work.objects.get().state == Work.State.FAILED
    assert "crawl_now" not in client.get(reverse("admin:search_source_changelist")).content.decode()


def test_a_backup_in_time_is_told(client, staff, settings, tmp_path):
    from ingestion import backup_schedule

    settings.IMAGESEARCH_BACKUPS = tmp_path
    assert "No backup was made" in client.get(FRONT).content.decode()
    backup_schedule.run(datetime.now(UTC))
    dashboard.forget()
    page = client.get(FRONT).content.decode()
    assert "No backup was made" not in page and "Backups" in page


def test_parts_that_register_their_health_are_on_the_front_page(client, staff):
    from search import panels

    before = dict(panels._health)
    panels.register_health("watching", lambda: panels.Health("degraded", "Nobody watches the folders."))
    try:
        page = client.get(FRONT).content.decode()
    finally:
        panels._health.clear()
        panels._health.update(before)
    assert "Watching" in page and "Nobody watches the folders." in page


@pytest.mark.slow
def test_the_measurement_asks_for_every_list_with_constant_queries():
    """What `benchmarks.admin_at_size` does at a million rows, at a size for every day: each page answers, and four
    times the rows cost no query more (searches look through the ids stretch by stretch, and are left out)."""
    from benchmarks import admin_at_size, library

    def queries(rows):
        return {
            row["page"]: row["queries"] for row in rows if "searched" not in row["page"] and "no tag" not in row["page"]
        }

    library.make(1_000, vectors=False)
    few = queries(admin_at_size.measure(1))
    library.grow(4_000)
    many = queries(admin_at_size.measure(1))
    assert len(few) > 40
    assert many == few
