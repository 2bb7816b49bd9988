"""What pages count, kept in the process: the same as the database counts, after every change and for each person."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction
from django.db.models import Count
from django.test.utils import CaptureQueriesContext

from search import access, albums, changes, curation, filter_choices, tagging, tagtree
from search.bitmaps import get_library, reset_library
from search.errors import SearchError
from search.facets import Facets, get_facets, seen_by
from search.filters import Term, filtered, narrow
from search.models import Action, Album, AlbumEntry, Change, Image, ImageTag, Tag
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db

TAGS = ["beach", "dog", "snow", "party"]
MOMENTS = [
    datetime(2019, 12, 31, 23, 30, tzinfo=UTC),
    datetime(2020, 1, 1, 0, 30, tzinfo=UTC),
    datetime(2020, 6, 1, 12, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 900_000, tzinfo=UTC),
]


def _facts(chance: random.Random) -> dict[str, Any]:
    """What a file may say."""
    moment = chance.choice(MOMENTS)
    return {
        "format": chance.choice(["JPEG", "HEIF", ""]), "camera": chance.choice(["", "Canon", "Leica Ä"]),
        "lens": chance.choice(["", "50 mm"]), "shown_at": moment,
        "captured_at": chance.choice([None, moment]), "captured_offset": chance.choice([None, -60, 0, 720]),
    }  # fmt: skip


def _grouped(rows: Any, column: str) -> dict[Any, int]:
    return dict(rows.order_by().values_list(column).annotate(n=Count("pk")))


def check(facets: Facets, user: Any) -> None:
    """Everything that is counted, against fresh counts of the database."""
    listed = filtered([], user)
    visible = facets.library.visible(user)
    for column in ("format", "camera", "lens"):
        assert facets.texts(column, visible) == _grouped(listed.exclude(**{column: ""}), column)
    assert facets.numbers("rating", visible) == _grouped(listed, "rating")
    years = {
        year: narrow(listed, [Term("date", str(year))], user).count() for year in (1969, 1970, 2019, 2020, 2021, 2024)
    }
    assert facets.numbers("year", visible) == {year: n for year, n in years.items() if n}
    assert facets.tags(visible) == _grouped(ImageTag.objects.filter(image__in=listed), "tag")
    inside = {}
    for album in Album.objects.all():
        entries = AlbumEntry.objects.filter(album=album, image__in=listed).order_by("position", "image")
        ids = list(entries.values_list("image_id", flat=True))
        if ids:
            inside[album.pk] = (len(ids), ids[0])
        assert facets.album(album.pk, visible)[0].tolist() == ids
    assert facets.albums(visible) == inside
    assert facets.library.by_source(visible) == _grouped(listed, "source_id")


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_database_after_any_changes(seed: int, zone: str, settings: Any) -> None:
    settings.TIME_ZONE = zone
    chance = random.Random(f"{seed} {zone}")
    owner, anna, ben, staff = make_user(), make_user(), make_user(), make_user(staff=True)
    sources = [make_source(owner=owner) for _ in range(3)]
    access.grant(sources[1], "editor", by=owner, user=anna)
    images = [make_image(chance.choice(sources), **_facts(chance)).pk for _ in range(40)]
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, images)
    mine = [albums.create(name, person)[0] for person in (owner, anna) for name in ("One", "Two")]
    facets = get_facets()
    check(facets, owner)

    def some() -> list[int]:
        return chance.sample(images, chance.randint(1, 8))

    def read_again() -> None:
        pk = chance.choice(images)
        with transaction.atomic():
            Image.objects.filter(pk=pk).update(**_facts(chance))
            changes.record(Change.Kind.IMAGES, [pk])

    def arrive() -> None:
        with transaction.atomic():
            images.append(make_image(chance.choice(sources), **_facts(chance)).pk)
            changes.record(Change.Kind.IMAGES, [images[-1]])

    def purge() -> None:
        gone = images.pop(chance.randrange(len(images)))
        with transaction.atomic():
            Image.objects.filter(pk=gone).delete()
            changes.record(Change.Kind.IMAGES, [gone])

    def into_album() -> None:
        album = chance.choice(mine)
        albums.add(album, some(), album.owner)

    def turn_album() -> None:
        album = chance.choice(mine)
        ids = list(album.entries.values_list("image_id", flat=True))
        albums.reorder(album, chance.sample(ids, len(ids)), album.owner)

    def out_of_album() -> None:
        album = chance.choice(mine)
        albums.take_out(album, some(), album.owner)

    def undo() -> None:
        action = Action.objects.filter(undone_at=None).exclude(verb="undo").order_by("-pk").first()
        if action is not None:
            curation.undo(action, action.user)

    def tag_itself() -> None:
        tags = list(Tag.objects.all())
        if tags:
            tag = chance.choice(tags)
            [lambda: tagging.merge([tag], chance.choice(TAGS), owner), lambda: tagging.delete(tag, owner)][
                chance.randrange(2)
            ]()

    deeds = [
        lambda: curation.tag(some(), chance.sample(TAGS, 2), owner), lambda: curation.untag(some(), TAGS[:2], owner),
        lambda: curation.rate(some(), chance.randint(0, 5), owner), lambda: curation.hide(some(), owner),
        lambda: curation.unhide(some(), owner), lambda: curation.remove(some(), owner),
        lambda: curation.restore(some(), owner), read_again, arrive, purge, into_album, into_album, turn_album,
        out_of_album, undo, undo, tag_itself,
        lambda: access.grant(chance.choice(sources), "viewer", by=owner, user=ben),
    ]  # fmt: skip
    for number in range(60):
        with suppress(SearchError):  # nothing of these images, or that album, is theirs any more
            chance.choice(deeds)()
        assert get_facets() is facets
        if number % 3 == 0:
            for user in (owner, anna, ben, staff):
                check(facets, user)
    reset_library()
    assert get_facets() is not facets
    check(get_facets(), owner)


def test_nothing_is_asked_of_the_images_when_nothing_changed_and_only_what_changed_else() -> None:
    owner = make_user(staff=True)
    source = make_source(owner=owner)
    images = [make_image(source).pk for _ in range(5)]
    facets = get_facets()
    facets.load()
    check(facets, owner)
    with CaptureQueriesContext(connection) as captured:
        facets, visible = seen_by(owner)
        facets.tags(visible), facets.texts("camera", visible), facets.albums(visible), facets.numbers("year", visible)
    assert len(captured) == 1, "only where the change log ends"
    curation.rate(images[:2], 4, owner)
    with CaptureQueriesContext(connection) as captured:
        facets, visible = seen_by(owner)
        assert facets.numbers("rating", visible) == {0: 3, 4: 2}
    asked = [one["sql"] for one in captured if "search_image" in one["sql"] or "search_albumentry" in one["sql"]]
    assert len(asked) == 3 and all("IN (" in sql for sql in asked), "the rows, tags and albums of these two"


def test_a_change_of_any_image_has_all_read_anew() -> None:
    owner = make_user(staff=True)
    images = [make_image(make_source(), camera="Old").pk for _ in range(3)]
    facets, visible = seen_by(owner)
    assert facets.texts("camera", visible) == {"Old": 3}
    with transaction.atomic():
        Image.objects.filter(pk__in=images[:2]).update(camera="New")
        changes.record(Change.Kind.FACTS)
    facets, visible = seen_by(owner)
    assert facets.texts("camera", visible) == {"New": 2, "Old": 1}


def test_a_pruned_log_and_a_number_that_went_back_have_all_read_anew() -> None:
    owner = make_user(staff=True)
    images = [make_image(make_source(), camera="Old").pk for _ in range(3)]
    with transaction.atomic():
        for _ in range(5):
            changes.record(Change.Kind.IMAGES, images)
    facets, visible = seen_by(owner)
    assert facets.texts("camera", visible) == {"Old": 3}
    with transaction.atomic():
        Image.objects.filter(pk=images[0]).update(camera="New")
        changes.record(Change.Kind.IMAGES, images)
        changes.record(Change.Kind.IMAGES, images)
    changes.prune(keep=1)
    facets, visible = seen_by(owner)
    assert facets.texts("camera", visible) == {"New": 1, "Old": 2}
    Image.objects.filter(pk=images[1]).update(camera="New")
    changes.move_counter(changes.COUNTER, -3)
    facets, visible = seen_by(owner)
    assert facets.texts("camera", visible) == {"New": 2, "Old": 1}


def test_an_empty_library_counts_nothing() -> None:
    facets, visible = seen_by(make_user(staff=True))
    check(facets, None)
    assert facets.album(7, visible)[0].tolist() == []
    assert facets.tags(np.zeros(0, dtype=np.bool_)) == {}


def test_the_panel_offers_the_most_frequent_first_and_equals_by_name() -> None:
    owner = make_user(staff=True)
    images = [make_image(make_source(owner=owner), camera=camera).pk for camera in ("B", "A", "C", "C")]
    curation.tag(images[:1], ["zebra", "ape"], owner)
    curation.tag(images[:2], "dog", owner)
    assert [(one.value, one.count) for one in filter_choices.tags(owner)] == [("dog", 2), ("ape", 1), ("zebra", 1)]
    assert [(one.value, one.count) for one in filter_choices.cameras(owner)] == [("C", 2), ("A", 1), ("B", 1)]


def test_the_pages_of_tags_hold_each_once_in_the_order_of_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = make_user(staff=True)
    image = make_image(make_source(owner=owner))
    curation.tag([image.pk], [f"t{n:02}" for n in range(20)], owner)
    tags = {tag.name: tag for tag in Tag.objects.all()}
    for child, parent in [("t03", "t15"), ("t04", "t03"), ("t00", "t15")]:
        tagging.set_parent(tags[child], parent, owner)
    whole = [(one.tag.name, one.depth) for one in tagtree.tree(owner).branches]
    place = whole.index(("t15", 0))
    assert whole[place : place + 4] == [("t15", 0), ("t00", 1), ("t03", 1), ("t04", 2)] and len(whole) == 20
    monkeypatch.setattr(tagtree, "PAGE", 7)
    pages, after = [], None
    while True:
        page = tagtree.tree(owner, after=after)
        assert page.later is (after is not None)
        pages += [(one.tag.name, one.depth) for one in page.branches]
        after = page.after
        if after is None:
            break
    assert pages == whole
    assert tagtree.tree(owner, after=10**9).branches[0].tag.name == "t01", "a tag that is gone: from the beginning"


def test_the_library_and_what_is_counted_stand_at_one_moment_for_images_that_arrive() -> None:
    owner = make_user(staff=True)
    source = make_source(owner=owner)
    first = make_image(source)
    visible = get_library().visible(owner)
    later = [make_image(source, shown_at=datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=n)).pk for n in range(30)]
    curation.tag([first.pk, *later], "dog", owner)
    facets = get_facets()
    assert sum(facets.tags(visible).values()) == 1 and sum(facets.numbers("rating", visible).values()) == 1
