"""The admin: every model is there, lists cost the same for 2 and 50 rows, and changes go through the verbs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from ingestion import ledger
from ingestion.models import Crawl, SeenFile, StageCount, StageTick, Watch, Work
from search import curation
from search.compact import pack_ids, pack_ordered
from search.models import (
    Action,
    Album,
    AlbumEntry,
    AlbumShare,
    Change,
    Comment,
    Counter,
    Difference,
    Embedding,
    EmbeddingSpace,
    Errand,
    Event,
    Favourite,
    Image,
    ImageMetadata,
    ImageTag,
    Movie,
    RefusedKeyword,
    Reviewed,
    SavedSearch,
    Selection,
    SignedIn,
    Source,
    SourceAccess,
    Tag,
    Upload,
    path_digest,
)  # fmt: skip
from search.spaces import look_space
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db
MODELS = [model for label in ("search", "ingestion") for model in apps.get_app_config(label).get_models()]
NOW = datetime(2024, 5, 1, tzinfo=UTC)

_numbers = count(1)


@pytest.fixture
def staff(client):
    user = make_user("staff", staff=True)
    client.force_login(user)
    return user


def make_row(model):
    """One row of any model, with other rows behind each of its foreign keys."""
    n = next(_numbers)
    makers = {
        Action: lambda: Action.objects.create(
            user=make_user(), verb="hide", summary=f"Hid {n}", ids=pack_ids([1]), count=1, undone_by=make_user()
        ),
        Album: lambda: Album.objects.create(owner=make_user(), name=f"album {n}"),
        AlbumShare: lambda: AlbumShare.objects.create(album=make_row(Album), user=make_user()),
        AlbumEntry: lambda: AlbumEntry.objects.create(album=make_row(Album), image=make_image(), position=n),
        Change: lambda: Change.objects.create(number=10_000 + n, kind="images", ids=pack_ids([n])),
        Comment: lambda: Comment.objects.create(image=make_image(), author=make_user(), text="fine"),
        Counter: lambda: Counter.objects.create(name=f"counter {n}", value=n),
        Crawl: lambda: Crawl.objects.create(source=make_source()),
        Watch: lambda: Watch.objects.create(source=make_source(), watched=True, beat_at=NOW),
        Difference: lambda: Difference.objects.create(image=make_image(), mark=f"mark {n}", by=make_user()),
        Embedding: lambda: Embedding.objects.create(image=make_image(), space=make_row(EmbeddingSpace), crc32=n),
        EmbeddingSpace: lambda: EmbeddingSpace.objects.create(
            name=f"space-{n}", encoder="look", key=f"key {n}", label=f"Space {n}", dim=4, text=False
        ),
        Errand: lambda: Errand.objects.create(
            user=make_user(), verb="hide", ids=pack_ordered(np.array([n])), total=1, beat_at=NOW
        ),
        Event: lambda: Event.objects.create(kind="opened", name=f"name {n}", user=make_user(), created_at=NOW),
        Favourite: lambda: Favourite.objects.create(image=make_image(), user=make_user()),
        Image: make_image,
        ImageMetadata: lambda: ImageMetadata.objects.create(image=make_image(), exif={"Make": "Canon"}),
        Movie: lambda: Movie.objects.create(image=make_image(), name=b"live.mov", size=1, mtime_ns=1),
        ImageTag: lambda: ImageTag.objects.create(image=make_image(), tag=make_row(Tag)),
        RefusedKeyword: lambda: RefusedKeyword.objects.create(image=make_image(), tag=make_row(Tag)),
        Reviewed: lambda: Reviewed.objects.create(image=make_image(), queue="blurred"),
        SavedSearch: lambda: SavedSearch.objects.create(user=make_user(), name=f"search {n}", query="q=beach"),
        Selection: lambda: Selection.objects.create(user=make_user(), ids=pack_ids([1]), count=1),
        SeenFile: lambda: SeenFile.objects.create(
            source=make_source(), path=b"%d.pdf" % n, path_digest=path_digest(b"%d.pdf" % n),
            directory=path_digest(b""), size=1, mtime_ns=1, why="unsupported", kind="PDF document",
        ),
        SignedIn: lambda: SignedIn.objects.create(
            session_key=f"key{n}", user=make_user(), created_at=NOW, seen_at=NOW
        ),
        Source: make_source,
        SourceAccess: lambda: SourceAccess.objects.create(source=make_source(), user=make_user()),
        StageCount: lambda: StageCount.objects.create(stage=f"stage {n}"),
        StageTick: lambda: StageTick.objects.create(stage="read", started_at=NOW + timedelta(seconds=n)),
        Tag: lambda: Tag.objects.create(name=f"tag {n}"),
        Upload: lambda: Upload.objects.create(token=f"token{n}", owner=make_user(), expires_at=NOW),
        Work: lambda: Work.objects.create(image=make_image(), stage="read", newest=n),
    }  # fmt: skip
    return makers[model]()


def changelist(model):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def act(client, model, action, rows, **data):
    chosen = {"action": action, ACTION_CHECKBOX_NAME: [row.pk for row in rows], **data}
    return client.post(changelist(model), chosen, follow=True)


def test_every_model_is_in_the_admin():
    missing = [model.__name__ for model in MODELS if not admin.site.is_registered(model)]
    assert not missing


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_list_costs_the_same_queries_for_2_and_for_50_rows(client, staff, model):
    def cost():
        client.get(changelist(model))  # sessions and content types are remembered after the first look
        with CaptureQueriesContext(connection) as queries:
            answer = client.get(changelist(model))
        assert answer.status_code == 200
        return len(queries), len(answer.context["cl"].result_list)

    for _ in range(2):
        make_row(model)
    few, shown_few = cost()
    for _ in range(48):
        make_row(model)
    many, shown_many = cost()
    assert shown_few < shown_many
    assert few == many


def test_embeddings_are_listed_by_their_number_alone(client, staff):
    """Joined with the few spaces, SQLite may go through all rows of each and sort them: 0.7 s at a million."""
    embedding = make_row(Embedding)
    with CaptureQueriesContext(connection) as queries:
        page = client.get(changelist(Embedding)).content.decode()
    assert str(embedding.space) in page
    (asked,) = [one["sql"] for one in queries.captured_queries if "crc32" in one["sql"]]
    assert "JOIN" not in asked


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_row_opens_and_search_and_filters_work(client, staff, model):
    row = make_row(model)
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[row.pk])
    assert client.get(url).status_code == 200
    assert client.get(changelist(model), {"q": "1"}).status_code == 200
    assert admin.site._registry[model].search_fields, "every list can be searched"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_pages_have_no_inline_styles_or_scripts(client, staff, model):
    row = make_row(model)
    for url in (
        changelist(model),
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[row.pk]),
    ):
        page = client.get(url).content.decode()
        ours = re.findall(r"<[^>]+ style=|<style|\son\w+=", page)
        assert not ours, ours


@pytest.mark.parametrize(
    "model",
    [
        Embedding,
        EmbeddingSpace,
        Change,
        Counter,
        Work,
        StageCount,
        StageTick,
        Action,
        ImageTag,
        RefusedKeyword,
        Crawl,
        Watch,
    ],
    ids=lambda model: model.__name__,
)
def test_rows_that_the_program_keeps_true_cannot_be_edited_by_hand(rf, staff, model):
    request = rf.get("/")
    request.user = staff
    page = admin.site._registry[model]
    row = make_row(model)
    assert not page.has_add_permission(request)
    assert not page.has_change_permission(request, row)
    assert not page.has_delete_permission(request, row)


def test_thumbnails_are_shown_and_linked(client, staff):
    image = make_image()
    page = client.get(changelist(Image)).content.decode()
    assert f'src="/thumbnail/{image.pk}.jpg"' in page
    assert f'href="/image/{image.pk}/"' in page


def test_a_person_who_is_not_staff_is_sent_away(client):
    client.force_login(make_user())
    assert client.get(changelist(Image)).status_code == 302


# --- images: every change is a verb -----------------------------------------------------------------


def test_saving_an_image_goes_through_the_verbs(client, staff):
    image = make_image()
    curation.tag([image.pk], ["old", "kept"], None)
    url = reverse("admin:search_image_change", args=[image.pk])
    client.post(url, {"title": "Sea", "rating": "4", "hidden": "on", "tag_names": "kept\nnew one\n"})
    image.refresh_from_db()
    assert (image.title, image.rating, image.hidden) == ("Sea", 4, True)
    assert set(image.tags.values_list("name", flat=True)) == {"kept", "new one"}
    verbs = list(Action.objects.filter(user=staff).order_by("pk").values_list("verb", flat=True))
    assert verbs == ["title", "rate", "hide", "tag", "untag"]


def test_saving_an_unchanged_image_writes_no_action(client, staff):
    image = make_image(title="Sea", rating=2)
    curation.tag([image.pk], ["a", "b"], None)
    before = Action.objects.count()
    url = reverse("admin:search_image_change", args=[image.pk])
    client.post(url, {"title": "Sea", "rating": "2", "tag_names": "a\r\nb"})
    assert Action.objects.count() == before


@pytest.mark.parametrize("data", [{"rating": "6"}, {"tag_names": "x" * 201}, {"title": "x" * 1001}, {"rating": "-1"}])
def test_a_wrong_value_is_said_beside_its_field_and_changes_nothing(client, staff, data):
    image = make_image()
    url = reverse("admin:search_image_change", args=[image.pk])
    answer = client.post(url, {"title": "", "rating": "0", "tag_names": "", **data})
    assert answer.status_code == 200
    assert next(iter(data)) in answer.context["adminform"].form.errors
    assert not Action.objects.exists()


def test_images_cannot_be_deleted_or_added(client, staff):
    image = make_image()
    assert client.get(reverse("admin:search_image_delete", args=[image.pk])).status_code == 403
    assert client.get(reverse("admin:search_image_add")).status_code == 403


def test_images_are_found_by_tag_name_and_id(client, staff):
    one, other = make_image(path="beach.jpg"), make_image(path="town.jpg")
    curation.tag([other.pk], ["sea"], None)

    def found(term):
        return {row.pk for row in client.get(changelist(Image), {"q": term}).context["cl"].result_list}

    assert found("beach") == {one.pk}
    assert found("Sea") == {other.pk}
    assert found(str(one.pk)) >= {one.pk}


# --- tags, spaces, work ------------------------------------------------------------------------------


def test_taking_a_tag_off_all_images_asks_first_and_is_undoable(client, staff):
    images = [make_image() for _ in range(2)]
    curation.tag([image.pk for image in images], ["sea"], None)
    tag = Tag.objects.get()
    assert b"Are you sure?" in act(client, Tag, "take_off", [tag]).content
    assert ImageTag.objects.count() == 2
    act(client, Tag, "take_off", [tag], confirmed="1")
    assert not ImageTag.objects.exists()
    curation.undo(Action.objects.latest("pk"), staff)
    assert ImageTag.objects.count() == 2


def test_only_unused_tags_are_deleted(client, staff):
    curation.tag([make_image().pk], ["used"], None)
    Tag.objects.create(name="unused")
    act(client, Tag, "delete_unused", Tag.objects.all(), confirmed="1")
    assert list(Tag.objects.values_list("name", flat=True)) == ["used"]


def test_two_tags_of_one_name_are_refused_with_a_sentence(client, staff):
    Tag.objects.create(name="Sea")
    answer = client.post(reverse("admin:search_tag_add"), {"name": " sea "})
    assert "There is a tag of that name already" in answer.content.decode()


def test_making_a_space_active_asks_first(client, staff):
    space, broken = look_space(), make_row(EmbeddingSpace)
    assert b"Are you sure?" in act(client, EmbeddingSpace, "make_active", [space]).content
    act(client, EmbeddingSpace, "make_active", [space], confirmed="1")
    space.refresh_from_db()
    assert space.active and space.chosen
    answer = act(client, EmbeddingSpace, "make_active", [space, broken])
    assert "exactly one" in answer.content.decode()
    answer = act(client, EmbeddingSpace, "make_active", [broken], confirmed="1")
    assert "holds vectors of" in answer.content.decode()
    broken.refresh_from_db()
    assert not broken.active


def test_failed_work_is_tried_again_through_the_ledger(client, staff):
    image = make_image()
    ledger.queue([image.pk], ["read"])
    Work.objects.update(state=Work.State.FAILED, reason="It is broken.")
    ledger.recount()
    act(client, Work, "try_again", Work.objects.all())
    assert Work.objects.get().state == Work.State.WAITING
    assert (StageCount.objects.get(stage="read").waiting, StageCount.objects.get(stage="read").failed) == (1, 0)


def test_counting_anew_puts_wrong_counters_right(client, staff):
    StageCount.objects.create(stage="read", waiting=99)
    act(client, StageCount, "count_again", StageCount.objects.all())
    assert StageCount.objects.get(stage="read").waiting == 0
