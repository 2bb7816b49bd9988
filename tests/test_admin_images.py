"""The list of images in the administration: found, narrowed, changed in bulk after a page that says what happens."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from ingestion.models import Work
from search import changes, curation, errands
from search.admin import base, finding, image_filters, paging
from search.models import (
    Action,
    Album,
    AlbumEntry,
    Change,
    Comment,
    Embedding,
    Errand,
    Favourite,
    Image,
    ImageMetadata,
    ImageTag,
    Movie,
    Tag,
)
from search.querysets import ImageQuerySet
from search.spaces import look_space
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db
LIST = "/admin/search/image/"
ASK = "confirmed"


@pytest.fixture
def staff(client):
    user = make_user("staff", staff=True)
    client.force_login(user)
    return user


def ask(client, deed, images, address=LIST, **data):
    """The page that comes between the list and the doing."""
    return client.post(address, {"action": deed, ACTION_CHECKBOX_NAME: [one.pk for one in images], **data})


def do(client, deed, images, address=LIST, **data):
    """Ask, then say yes with what the form wants; the page that follows."""
    page = ask(client, deed, images, address, **data)
    sent = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.content.decode())
    fields: dict[str, list[str]] = {}
    for name, value in sent:
        fields.setdefault(name, []).append(value)
    return client.post(address, {**fields, **data}, follow=True)


def said(answer):
    return [str(message) for message in answer.context["messages"]]


def found(client, **asked):
    return [row.pk for row in client.get(LIST, asked).context["cl"].result_list]


# --- bulk: ask, show, do ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deed", "data", "verb", "holds"),
    [
        ("tag", {"deed-tag": "sea, blue"}, "tag", {"tags__name": "sea"}),
        ("rate", {"deed-rating": "3"}, "rate", {"rating": 3}),
        ("title", {"deed-title": "Holiday"}, "title", {"title": "Holiday"}),
        ("hide", {}, "hide", {"hidden": True}),
        ("remove", {}, "remove", {"state": "removed"}),
    ],
)
def test_a_deed_asks_shows_and_is_one_action(client, staff, deed, data, verb, holds):
    images = [make_image() for _ in range(3)]
    page = ask(client, deed, images)
    assert not Action.objects.exists(), "asking changes nothing"
    text = page.content.decode()
    assert "3 pictures" in text
    assert all(f'src="/thumbnail/{one.pk}.jpg"' in text for one in images)
    answer = do(client, deed, images, **data)
    assert Image.objects.filter(**holds).count() == 3
    action = Action.objects.get()
    assert (action.verb, action.count, action.user) == (verb, 3, staff)
    assert said(answer) == [f"{action.summary}."]


def test_the_message_offers_the_undo_and_comes_back_to_the_list(client, staff):
    image = make_image()
    answer = do(client, "hide", [image], f"{LIST}?rating=0")
    action = Action.objects.get()
    undo = reverse("undo", args=[action.pk])
    text = answer.content.decode()
    assert f'action="{undo}"' in text
    came_from = re.search(r'name="next" value="([^"]+)"', text)[1].replace("&amp;", "&")
    assert came_from == f"{LIST}?rating=0"
    answer = client.post(undo, {"next": came_from})
    assert answer.status_code == 302 and answer["Location"] == came_from
    image.refresh_from_db()
    assert not image.hidden


def test_taking_tags_off_showing_again_and_bringing_back(client, staff):
    images = [make_image(hidden=True) for _ in range(2)]
    curation.tag([one.pk for one in images], ["sea"], None)
    do(client, "untag", images, **{"deed-tag": "Sea"})
    do(client, "unhide", images)
    do(client, "remove", images)
    do(client, "restore", images)
    assert not ImageTag.objects.exists()
    assert Image.objects.filter(hidden=False).exclude(state="removed").count() == 2


def test_adding_to_a_new_album_keeps_the_order_of_the_list(client, staff):
    start = datetime(2024, 5, 1, tzinfo=UTC)
    images = [make_image(shown_at=start + timedelta(days=n)) for n in range(3)]
    do(client, "album", images, **{"deed-name": "Best"})
    album = Album.objects.get()
    assert album.owner == staff
    inside = list(AlbumEntry.objects.filter(album=album).order_by("position").values_list("image_id", flat=True))
    assert inside == [one.pk for one in reversed(images)], "newest first, as the list shows them"
    do(client, "album", [images[0]], **{"deed-album": str(album.pk)})
    assert AlbumEntry.objects.count() == 3


def test_an_album_and_a_name_or_neither_is_refused(client, staff):
    image = make_image()
    album = Album.objects.create(owner=staff, name="Best")
    theirs = Album.objects.create(owner=make_user(), name="Theirs")
    for data in ({}, {"deed-album": str(album.pk), "deed-name": "New"}, {"deed-album": str(theirs.pk)}):
        answer = do(client, "album", [image], **data)
        assert "errorlist" in answer.content.decode(), data
    assert not AlbumEntry.objects.exists() and Album.objects.count() == 2


@pytest.mark.parametrize(
    ("deed", "data"),
    [("rate", {}), ("rate", {"deed-rating": "9"}), ("tag", {"deed-tag": " , "}), ("title", {"deed-title": "x" * 1001})],
)
def test_a_wrong_value_is_said_beside_its_field_and_changes_nothing(client, staff, deed, data):
    answer = do(client, deed, [make_image()], **data)
    assert answer.status_code == 200 and "errorlist" in answer.content.decode()
    assert not Action.objects.exists()


def test_what_is_so_already_is_counted_beforehand(client, staff):
    images = [make_image(rating=2), make_image(rating=4), make_image()]
    assert "2 are rated already" in ask(client, "rate", images).content.decode()
    assert "1 is hidden already" in ask(client, "hide", [*images, make_image(hidden=True)]).content.decode()


def test_a_list_that_changed_meanwhile_is_shown_again(client, staff):
    images = [make_image() for _ in range(3)]
    page = ask(client, "hide", images, f"{LIST}?rating=0", select_across="1")
    sent = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.content.decode())
    fields: dict[str, list[str]] = {}
    for name, value in sent:
        fields.setdefault(name, []).append(value)
    late = make_image()
    answer = client.post(f"{LIST}?rating=0", fields)
    assert "4 pictures" in answer.content.decode() and "The list changed meanwhile" in answer.content.decode()
    assert not Image.objects.filter(hidden=True).exists()
    do(client, "hide", images, f"{LIST}?rating=0", select_across="1")
    late.refresh_from_db()
    assert late.hidden


def test_everything_that_the_list_finds_is_done_in_portions(client, staff, monkeypatch):
    """Across pages, with filters, and more than is done at once: an errand, which an undo takes back as one."""
    monkeypatch.setattr(errands, "AT_ONCE", 10)
    monkeypatch.setattr(errands, "PORTION", 7)
    monkeypatch.setattr(errands, "start", lambda errand: errands.run_portions(errand.pk))
    source = make_source()
    images = [make_image(source) for _ in range(60)]
    other = make_image(source, rating=5)
    answer = do(client, "tag", images[:1], f"{LIST}?rating=0", select_across="1", **{"deed-tag": "sea"})
    errand = Errand.objects.get()
    assert (errand.total, errand.done, errand.state) == (60, 60, Errand.State.DONE)
    assert reverse("admin:search_errand_change", args=[errand.pk]) in answer.content.decode()
    assert ImageTag.objects.count() == 60 and not other.tags.exists()
    assert Action.objects.get().count == 60


def test_the_ids_of_a_whole_library_are_held_as_numbers_only(staff):
    from search.admin.doing import _ids

    for _ in range(3):
        make_image()
    ids = _ids(Image.objects.order_by("-pk"))
    assert ids.dtype == np.int64 and list(ids) == sorted(ids, reverse=True)


def test_reading_again_and_new_vectors_are_queued_also_in_portions(client, staff, monkeypatch):
    images = [make_image() for _ in range(3)]
    answer = do(client, "chore:read_again", images)
    assert said(answer) == ["3 pictures wait to be read again."]
    assert Work.objects.filter(stage="read").count() == 3
    monkeypatch.setattr(errands, "AT_ONCE", 2)
    monkeypatch.setattr(errands, "PORTION", 2)
    monkeypatch.setattr(errands, "start", lambda errand: errands.run_portions(errand.pk))
    look_space()
    do(client, "chore:embed_again", images)
    assert Errand.objects.get().state == Errand.State.DONE
    assert set(Work.objects.filter(stage="embed:look").values_list("image_id", flat=True)) == {one.pk for one in images}


def test_staff_who_may_only_look_are_offered_no_deeds(client):
    from django.contrib.auth.models import Permission

    guest = make_user(is_staff=True)
    guest.user_permissions.add(Permission.objects.get(codename="view_image"))
    client.force_login(guest)
    image = make_image()
    assert client.get(LIST).status_code == 200
    client.post(LIST, {"action": "hide", ACTION_CHECKBOX_NAME: [image.pk], ASK: "1"}, follow=True)
    image.refresh_from_db()
    assert not image.hidden and not Action.objects.exists()


# --- the gate -----------------------------------------------------------------------------------------


def test_the_gate_of_the_pages_is_that_of_the_administration(client, staff, monkeypatch):
    """Whatever `visible_to` says holds here: lists, rows of other tables that speak of an image, one image's page."""
    secret = make_source(name="secret")
    hidden, shown = make_image(secret, path="zanzibar.jpg"), make_image(path="open.jpg")
    space, tag = look_space(), Tag.objects.create(name="t")
    for image in (hidden, shown):
        Embedding.objects.create(image=image, space=space, crc32=1)
        ImageTag.objects.create(image=image, tag=tag)
        Comment.objects.create(image=image, author=staff, text="fine")
        Favourite.objects.create(image=image, user=staff)
        ImageMetadata.objects.create(image=image, exif={"Make": "Canon"})
        Movie.objects.create(image=image, name=b"live.mov", size=1, mtime_ns=1)
        Work.objects.create(image=image, stage="read", newest=1)
    real = ImageQuerySet.visible_to
    monkeypatch.setattr(ImageQuerySet, "visible_to", lambda self, user: real(self, user).exclude(source=secret.pk))
    assert found(client) == [shown.pk]
    assert found(client, q="zanzibar") == []
    for name in ("embedding", "imagetag", "comment", "favourite", "imagemetadata", "movie"):
        rows = client.get(f"/admin/search/{name}/").context["cl"].result_list
        assert [row.image_id for row in rows] == [shown.pk], name
    assert [row.image_id for row in client.get("/admin/ingestion/work/").context["cl"].result_list] == [shown.pk]
    assert client.get(reverse("admin:search_image_change", args=[hidden.pk])).status_code == 302
    do(client, "hide", [hidden, shown])
    hidden.refresh_from_db()
    assert not hidden.hidden


# --- finding and narrowing ----------------------------------------------------------------------------


def test_images_are_found_by_part_of_name_folder_title_path_tag_and_number(client, staff):
    source = make_source("/disk/photos")
    one = make_image(source, path="2019/Italy/IMG_0001.jpg", title="Grüße aus Rom")
    two = make_image(source, path="2020/beach/IMG_0002.jpg")
    curation.tag([two.pk], ["Sea"], None)
    assert set(found(client, q="img_000")) == {one.pk, two.pk}
    assert found(client, q="italy") == [one.pk]
    assert found(client, q="GRÜSSE") == [one.pk], "as everywhere, in any script and without regard to case"
    assert found(client, q="sea") == [two.pk]
    assert found(client, q="beach/img") == [two.pk]
    assert found(client, q="/disk/photos/2019/Italy/IMG_0001.jpg") == [one.pk]
    assert found(client, q="/disk/photos/2020/beach") == [two.pk]
    assert one.pk in found(client, q=str(one.pk))
    assert found(client, q="nothing of that name") == []


def test_a_search_that_takes_too_long_says_how_far_it_came_and_goes_on(client, staff, monkeypatch):
    monkeypatch.setattr(finding, "WINDOW", 3)
    monkeypatch.setattr(finding.find, "__kwdefaults__", {"start": None, "patience": -1.0})
    source = make_source()
    images = [make_image(source, path=f"beach{n}.jpg") for n in range(10)]
    seen, address = [], f"{LIST}?q=beach"
    for _ in range(10):
        page = client.get(address)
        seen += [row.pk for row in page.context["cl"].result_list]
        link = re.search(r'href="(\?[^"]+)">look on from there', page.content.decode())
        if link is None:
            break
        address = LIST + link[1].replace("&amp;", "&")
    assert sorted(seen) == [one.pk for one in images], "nothing is lost and nothing comes twice"


def test_a_search_that_finds_too_much_says_so(client, staff, monkeypatch):
    monkeypatch.setattr(finding, "MOST", 2)
    for n in range(4):
        make_image(path=f"beach{n}.jpg")
    page = client.get(LIST, {"q": "beach"})
    assert len(page.context["cl"].result_list) == 2
    link = re.search(r'narrow it, or <a href="(\?[^"]+)">look on', page.content.decode())[1].replace("&amp;", "&")
    rest = client.get(LIST + link).context["cl"].result_list
    assert len({row.pk for row in [*page.context["cl"].result_list, *rest]}) == 4


def test_filters_narrow_by_rating_state_format_source_and_date(client, staff):
    source = make_source()
    old = datetime(2010, 1, 1, tzinfo=UTC)
    one = make_image(source, rating=5, format="PNG", state="unreadable", shown_at=old)
    two = make_image(rating=1)
    for asked in (
        {"rating": "5"}, {"format": "PNG"}, {"state__exact": "unreadable"}, {"source__id__exact": source.pk},
        {"before": "2010-01-01"}, {"before": old.isoformat()}, {"below": one.pk}, {"rating": "5", "format": "PNG"},
    ):  # fmt: skip
        assert found(client, **asked) == [one.pk], asked
    for wrong in ({"before": "2010-99-99"}, {"below": "x"}, {"rating": "7"}, {"below": "9" * 30}):
        assert set(found(client, **wrong)) == {one.pk, two.pk}, wrong


def test_flags_and_review_queues_narrow_the_list(client, staff):
    one, other = make_image(), make_image(blurred=True)
    do(client, "flag", [one])
    assert Action.objects.get().verb == "flag"
    assert found(client, flagged__exact="1") == [one.pk]
    assert found(client, queue="blurred") == [other.pk]
    assert set(found(client, queue="zanzibar")) == {one.pk, other.pk}
    do(client, "unflag", [one, other])
    assert found(client, flagged__exact="1") == []


@pytest.mark.parametrize("many", [1, 5_000])
def test_the_tag_filter_takes_a_name_however_common_the_tag_is(client, staff, monkeypatch, many):
    monkeypatch.setattr(image_filters, "MANY", many)
    one, other = make_image(), make_image()
    curation.tag([one.pk], ["Sea"], None)
    assert found(client, tag="sea") == [one.pk]
    assert found(client, tag="-") == [other.pk]
    assert found(client, tag="zanzibar") == []


def test_the_tag_filter_lists_no_tags(client, staff):
    for n in range(30):
        curation.tag([make_image().pk], [f"zanzibar{n}"], None)
    assert b"zanzibar" not in client.get(LIST).content


def test_the_space_filter_tells_what_has_a_vector_and_what_lacks_one(client, staff):
    space = look_space()
    has, lacks, gone = make_image(), make_image(), make_image(state="removed")
    Embedding.objects.create(image=has, space=space, crc32=1)
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, [has.pk, lacks.pk, gone.pk])
        changes.record(Change.Kind.EMBEDDINGS, [has.pk], space=space.pk)
    assert found(client, space="look.in") == [has.pk]
    assert found(client, space="look.out") == [lacks.pk]
    assert set(found(client, space="zanzibar.out")) == {has.pk, lacks.pk, gone.pk}


def test_filters_keep_each_other_and_the_search(client, staff):
    make_image(path="beach.jpg", rating=5)
    page = client.get(LIST, {"q": "beach", "rating": "5"}).content.decode()
    form = re.search(r'<form method="get" class="typed-filter">(.*?)</form>', page, re.DOTALL)[1]
    assert 'name="q" value="beach"' in form and 'name="rating" value="5"' in form


# --- long lists ---------------------------------------------------------------------------------------


def test_a_list_goes_on_beyond_its_last_page_and_shows_every_row(client, staff, monkeypatch):
    monkeypatch.setattr(paging, "MOST_COUNTED", 4)
    monkeypatch.setattr(base.CatalogueAdmin, "list_per_page", 4)
    start = datetime(2024, 5, 1, tzinfo=UTC)
    images = [make_image(shown_at=start + timedelta(days=n)) for n in range(11)]
    seen, address = set(), LIST
    for _ in range(10):
        page = client.get(address)
        seen |= {row.pk for row in page.context["cl"].result_list}
        further = page.context["cl"].further
        if not further:
            break
        assert "Go on after the last row" in page.content.decode()
        address = LIST + further
    assert seen == {one.pk for one in images}


def test_what_lies_beyond_the_pages_is_said_to_be_an_estimate(client, staff, monkeypatch):
    source = make_source()
    for n in range(30):
        make_image(source, path=f"{n}.jpg")
    assert "30 images" in client.get(LIST).content.decode()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE search_image")
    monkeypatch.setattr(paging, "MOST_COUNTED", 4)
    page = client.get(LIST).content.decode()
    assert re.search(r"About \d+ images, of which pages show 4", page)
    page = client.get(LIST, {"rating": "0"}).content.decode()
    assert re.search(r"(About \d+ images|More than 4 images)", page)
    assert "everything that the list finds" in page


def test_counting_stops_at_what_pages_show(staff, monkeypatch):
    monkeypatch.setattr(paging, "MOST_COUNTED", 3)
    for _ in range(5):
        make_image()
    paginator = paging.BoundedPaginator(Image.objects.order_by("pk"), 2)
    assert (paginator.count, paginator.num_pages, paginator.more) == (3, 2, True)
    few = paging.BoundedPaginator(Image.objects.filter(pk__lt=0).order_by("pk"), 2)
    assert (few.count, few.more, few.said) == (0, False, "0 images")


@pytest.mark.parametrize(
    "asked", [{}, {"q": "photo"}, {"tag": "sea"}, {"space": "look.out"}, {"rating": "0", "p": "1"}]
)
def test_every_way_of_listing_costs_the_same_queries_for_2_and_for_50_rows(client, staff, asked):
    look_space()
    source = make_source()

    def more(number):
        new = [make_image(source).pk for _ in range(number)]
        curation.tag(new, ["sea"], None)
        with transaction.atomic():
            changes.record(Change.Kind.IMAGES, new)

    def cost():
        for _ in range(2):
            client.get(LIST, asked)
        with CaptureQueriesContext(connection) as queries:
            answer = client.get(LIST, asked)
        return len(queries), len(answer.context["cl"].result_list)

    more(2)
    few, shown_few = cost()
    more(48)
    many, shown_many = cost()
    assert shown_many > shown_few
    assert few == many
