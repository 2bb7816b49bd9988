"""What images are called, kept in the process: the same images as the database finds, after every change, for a word of
any kind, and no more for anybody than what they may see."""

from __future__ import annotations

import random
import unicodedata
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestion import rows
from ingestion.spool import Newcomer
from search import changes, curation, filter_bitmaps, filters, name_store, naming, retrieval, tagging
from search.bitmaps import get_library, reset_library
from search.errors import SearchError
from search.facets import get_facets
from search.filters import Term
from search.models import Action, Change, Counter, Image, ImageTag, Tag, tag_key
from search.name_store import NameStore, get_name_store
from search.query import parse
from search.text import fold
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def names_of_few_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the few images here the database would be asked, though the names were read."""
    monkeypatch.setattr(naming, "FEWER", 0)


SIGNS = "aAbBäÄßẞéſKσςΣıİ%_\\. '\"😀ﬁ\u0308\u0301"
part = st.text(SIGNS, min_size=1, max_size=5) | st.sampled_from(["IMG_1.jpg", "straße", "STRASSE", "100%", "a_b"])
folder = st.lists(part, max_size=3).map("/".join)
word = st.lists(st.text(SIGNS, max_size=3), min_size=1, max_size=3).map("/".join).filter(bool)
either_form = st.sampled_from(["NFC", "NFD"])


@st.composite
def called(draw: Any) -> dict[str, Any]:
    """Folder, file name and title of an image, and its tags."""
    form = draw(either_form)
    made = {"folder": draw(folder), "name": draw(part), "title": draw(st.just("") | part)}
    named = {key: unicodedata.normalize(form, value) for key, value in made.items()}
    return {**named, "tags": draw(st.lists(part.filter(lambda one: one.strip()), max_size=2))}


@st.composite
def words_about(draw: Any, images: list[dict[str, Any]]) -> list[str]:
    """Words of any kind, and parts of how these images are called."""
    found = draw(st.lists(word, min_size=1, max_size=3))
    for one in images:
        path = f"/{one['folder']}/{one['name']}"
        for text in (path, one["title"], *one["tags"]):
            start = draw(st.integers(0, len(text)))
            found.append(text[start : draw(st.integers(start, len(text)))])
    return list(dict.fromkeys(one for one in found if one))


def make(one: dict[str, Any], source: Any) -> int:
    image = make_image(source, folder=one["folder"], name=one["name"], title=one["title"])
    for name in one["tags"]:
        tag = Tag.objects.filter(key=tag_key(name)).first() or Tag.objects.create(name=name)
        ImageTag.objects.get_or_create(image=image, tag=tag)
    return image.pk


def asked(text: str) -> set[int]:
    """What the database says."""
    return set(filters.alone(Term("called", fold(text)), None).values_list("pk", flat=True))


def at_hand(text: str) -> set[int]:
    """What the process says that has read all names."""
    library = get_library()
    found = naming._at_hand(fold(text), library, library.number)
    assert found is not None, "the names were read"
    return set(np.flatnonzero(found).tolist())


def read() -> NameStore:
    """The store of this process, read."""
    store = get_name_store()
    store.keep_up()
    return store


def same(words: list[str]) -> None:
    for one in words:
        assert at_hand(one) == asked(one), one


def changed(kind: Change.Kind, ids: list[int], **values: Any) -> None:
    with transaction.atomic():
        Image.objects.filter(pk__in=ids).update(**values)
        changes.record(kind, ids)


@settings(
    max_examples=50, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(data=st.data())
def test_a_word_is_found_where_the_database_finds_it_whatever_is_renamed(data: Any) -> None:
    with transaction.atomic():
        reset_library()
        source = make_source()
        images = data.draw(st.lists(called(), max_size=3), label="images")
        later = data.draw(st.lists(called(), max_size=2), label="later")
        words = data.draw(words_about([*images, *later]), label="words")
        ids = [make(one, source) for one in images]
        store = read()
        same(words)
        for one in later:
            if ids and data.draw(st.booleans(), label="renamed"):
                pk = data.draw(st.sampled_from(ids))
                changed(Change.Kind.FACTS, [pk], **{key: one[key] for key in ("folder", "name", "title")})
            else:
                ids.append(make(one, source))
                changed(Change.Kind.IMAGES, ids[-1:])
            same(words)
        if ids and data.draw(st.booleans(), label="one is deleted"):
            Image.objects.filter(pk=ids[0]).delete()
            changed(Change.Kind.IMAGES, ids[:1])
        same(words)
        store._names = None
        store.keep_up()
        same(words)
        transaction.set_rollback(True)


NAMES = ["beach", "Beach party", "Öl", "strasse", "b/c"]
WORDS = ["beach", "BEACH", "party", "ol", "öl", "o\u0308l", "Straße", "b/c", "/b", "img", "img_1", "new/", "new/img",
         "2019/trip", "/2019", "trip/img_", "//", "jpg", "h p", "%", "_"]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_everything_that_people_and_crawls_do_is_followed(seed: int) -> None:
    chance = random.Random(seed)
    owner = make_user()
    source = make_source(owner=owner)
    images = [make_image(source, f"{place}IMG_{n}.jpg").pk for n, place in enumerate(["", "2019/trip/", "2019/"] * 3)]
    get_facets().load()
    store = read()
    names = store._names

    def some() -> list[int]:
        return chance.sample(images, chance.randint(1, 4))

    def arrive() -> None:
        images.extend(rows.register(source, [Newcomer(b"new/IMG_%d.jpg" % len(images), 9, 9, 0)], []))

    def move() -> None:
        changed(Change.Kind.FACTS, some()[:1], folder=chance.choice(["", "2019", "new/trip"]), name="Straße.jpg")

    def purge() -> None:
        if len(images) == 4:
            return
        gone = images.pop()
        Image.objects.filter(pk=gone).delete()
        changed(Change.Kind.IMAGES, [gone])

    def rename_tag() -> None:
        tag = Tag.objects.order_by("?").first()
        if tag is not None:
            deed = chance.choice([tagging.rename, lambda one, name, user: tagging.merge([one], name, user)])
            deed(tag, chance.choice(NAMES), owner)

    def delete_tag() -> None:
        tag = Tag.objects.first()
        if tag is not None:
            tagging.delete(tag, owner)

    def undo() -> None:
        action = Action.objects.filter(undone_at=None).exclude(verb="undo").order_by("-pk").first()
        if action is not None:
            curation.undo(action, action.user)

    deeds = [
        lambda: curation.tag(some(), chance.sample(NAMES, 2), owner), lambda: curation.untag(some(), NAMES[:3], owner),
        lambda: curation.set_title(some(), chance.choice(["", *NAMES]), owner), lambda: curation.rate(some(), 3, owner),
        lambda: curation.hide(some(), owner), lambda: curation.remove(some(), owner), arrive, move, purge, rename_tag,
        delete_tag, undo, undo,
    ]  # fmt: skip
    for _ in range(25):
        with suppress(SearchError):
            chance.choice(deeds)()
        same(chance.sample(WORDS, 7))
        library = get_library()
        visible = library.visible(owner)
        groups = [chance.sample(WORDS, 2), chance.sample(WORDS, 1)]
        carried = naming.carrying(groups, library, visible)
        assert carried is not None
        expected = set().union(*(set.intersection(*map(asked, group)) for group in groups))
        assert set(np.flatnonzero(carried).tolist()) == expected & set(np.flatnonzero(visible).tolist())
    same(WORDS)
    assert store._names is names, "all was followed, nothing read anew"


def test_images_of_which_nothing_changed_but_other_facts_are_not_kept_beside() -> None:
    owner = make_user()
    images = [make_image(make_source(owner=owner)).pk for _ in range(5)]
    store = read()
    curation.rate(images, 4, owner)
    curation.set_title(images[:1], "Sea", owner)
    same(["sea", "photo"])
    assert list(store._besides) == images[:1]
    curation.set_title(images[:1], "", owner)
    same(["sea", "photo"])
    assert not store._besides


def test_a_word_asks_the_database_for_tags_only() -> None:
    owner = make_user(staff=True)
    images = [make_image(make_source(), "trip/sea.jpg").pk for _ in range(5)]
    curation.tag(images[:2], "Seaside", owner)
    read()
    library = get_library()
    visible = library.visible(owner)
    for loaded, most in ((False, 2), (True, 1)):
        filter_bitmaps.reset_filter_bitmaps()
        if loaded:
            get_facets().load()
        with CaptureQueriesContext(connection) as captured:
            carried = naming.carrying([["trip/sea"]], library, visible)
        assert carried is not None and carried.sum() == 5
        assert len(captured) <= most
        assert not [one["sql"] for one in captured if 'FROM "search_image"' in one["sql"]]
    with CaptureQueriesContext(connection) as captured:
        naming.carrying([["trip/sea"]], library, visible)
    assert len(captured) == 0


def test_as_long_as_names_are_not_read_the_database_is_asked_and_nothing_read() -> None:
    images = [make_image(make_source(), f"{name}.jpg").pk for name in ("sea", "sun")]
    library = get_library()
    assert naming._at_hand("sea", library, library.number) is None
    carried = naming.carrying([["sea"]], library, library.visible(None))
    assert carried is not None and np.flatnonzero(carried).tolist() == images[:1]
    assert get_name_store().nbytes == 0


@pytest.mark.parametrize("how", ["pruned", "many entries", "many images", "any image", "back"])
def test_what_cannot_be_followed_is_asked_of_the_database_until_it_is_read_anew(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = make_user()
    images = [make_image(make_source(owner=owner), f"old{n}.jpg").pk for n in range(4)]
    with transaction.atomic():
        for _ in range(5):
            changes.record(Change.Kind.IMAGES, images)
    store = read()
    same(["old", "new"])
    if how == "back":
        number = changes.last_number()
        Change.objects.filter(number__gt=number - 3).delete()
        Counter.objects.filter(name=changes.COUNTER).update(value=number - 3)
        Image.objects.filter(pk__in=images[:3]).update(name="new.jpg")
    else:
        for image in images[:3]:
            changed(Change.Kind.FACTS, [image], name="new.jpg")
    if how == "pruned":
        changes.prune(keep=1)
    elif how == "many entries":
        monkeypatch.setattr(name_store, "MOST_ENTRIES", 2)
    elif how == "many images":
        monkeypatch.setattr(name_store, "MOST_CHANGED", 2)
    elif how == "any image":
        gone = get_user_model().objects.create_user("gone")
        gone.delete()
    library = get_library()
    assert naming._at_hand("new", library, library.number) is None and store.nbytes == 0
    carried = naming.carrying([["new"]], library, library.visible(None))
    assert carried is not None and np.flatnonzero(carried).tolist() == images[:3]
    store.keep_up()
    same(["old", "new"])


def test_names_that_changed_are_followed_in_the_background_and_after_many_read_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [make_image(make_source(), f"old{n}.jpg").pk for n in range(4)]
    store = read()
    names = store._names
    store.keep_up()
    changed(Change.Kind.FACTS, images[:2], name="new.jpg")
    store.keep_up()
    assert store._names is names and sorted(store._besides) == images[:2]
    with CaptureQueriesContext(connection) as captured:
        same_at_hand = at_hand("new")
    assert same_at_hand == set(images[:2])
    assert not [one["sql"] for one in captured if 'FROM "search_image"' in one["sql"]], "nothing was left to look at"
    monkeypatch.setattr(name_store, "MOST_BESIDES", 1)
    store.keep_up()
    assert store._names is not names and not store._besides
    same(["old", "new"])


def test_rows_come_in_portions_and_images_that_are_gone_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_store, "_PORTION", 3)
    source = make_source()
    images = [make_image(source, f"trip{n % 2}/sea{n}.jpg", title="Sun" if n % 3 else "").pk for n in range(11)]
    Image.objects.filter(pk__in=images[2:6]).delete()
    read()
    same(["sea", "trip0", "trip1/", "trip1/sea7", "sun", "/", "//", "a7", "0/sea1"])


def test_an_empty_library_has_no_names() -> None:
    read()
    same(["a", "/", "a/b"])
    make({"folder": "", "name": "a.jpg", "title": "", "tags": []}, make_source())
    changed(Change.Kind.IMAGES, list(Image.objects.values_list("pk", flat=True)))
    same(["a", "/", "a/b", "//a"])


def test_a_word_shows_nobody_what_they_may_not_see() -> None:
    anna, ben = make_user(), make_user()
    mine = make_image(make_source(owner=anna), "trip/zebra.jpg").pk
    theirs = make_image(make_source(owner=ben), "trip/zebra.jpg").pk
    hidden = make_image(make_source(owner=anna), "trip/zebra.jpg", hidden=True).pk
    curation.tag([mine, theirs, hidden], "zebras", None)
    read()
    for user, seen in ((anna, mine), (ben, theirs)):
        page = retrieval.find(parse("trip/zebra"), user)
        assert [hit.id for hit in page.hits] == [seen]
    assert not retrieval.find(parse("zebra"), make_user()).hits
