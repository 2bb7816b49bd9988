"""Kept bitmaps of filters are always what the database says now, whatever was done since, by whom and from where."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings as configured
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext, override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestion import rows
from ingestion.moves import Absent, Arrived
from ingestion.register import crawl, source_for
from ingestion.spool import Newcomer
from ingestion.worker import Worker
from search import (
    access,
    albums,
    bitmaps,
    changes,
    columns,
    copies,
    curation,
    filter_bitmaps,
    filters,
    personal,
    retrieval,
    review,
    stacks,
    tagging,
)  # fmt: skip
from search.bitmaps import get_library
from search.errors import BadQuery, SearchError
from search.facets import get_facets, seen_by
from search.filters import Term
from search.models import (
    Action,
    Album,
    Change,
    Comment,
    Counter,
    Image,
    ImageTag,
    Reviewed,
    Source,
    SourceAccess,
    Tag,
)  # fmt: skip
from search.query import parse
from search.sidecars import Said, sidecar
from tests.factories import make_image, make_source, make_user
from tests.photos import put
from tests.test_sidecar_reading import later

pytestmark = pytest.mark.django_db

WORDS = [
    "source:one", "source:ONE", "folder:2019", "folder:trip", "name:IMG", "name:über", "format:jpeg", "format:raw",
    "date:2019", "before:2020", "after:2018", "rating:>=3", "rating:0", "rating:2..4", "tag:sea", "tag:sun", "tag:old",
    "tag:water", "album:best", "album:BEST", "camera:canon", "lens:50mm", "size:>=2kB", "size:<1MP", "has:gps",
    "has:tags", "has:rating", "has:title", "has:description", "has:date", "has:comments", "is:hidden", "is:missing",
    "is:removed", "is:unreadable", "is:untagged", "is:unrated", "is:waiting", "is:favourite", "is:commented",
    "is:flagged", "is:wide", "is:small", "is:blurred", "is:plain", "is:kept", "is:live", "review:unrated",
    "review:untagged", "review:flagged", "review:small", "id:1..3", "id:2,5",
]  # fmt: skip
IMAGES = 7


def terms_of(words: Iterable[str]) -> list[Term]:
    return list(parse(" ".join(words)).filters)


def fresh(terms: list[Term], user: Any) -> set[int] | str:
    """What the database says, asked through the ORM; or what it complains of."""
    try:
        return set(filters.filtered(terms, user).values_list("pk", flat=True))
    except BadQuery as error:
        return f"wrong: {error.part}" if len(terms) == 1 else "wrong"


TAKEN = "2019-05-01T10:00:00Z"


def kept(terms: list[Term], user: Any) -> set[int] | str:
    library = get_library()
    try:
        return set(np.flatnonzero(filter_bitmaps.allowed(terms, user, library)).tolist())
    except BadQuery as error:
        return f"wrong: {error.part}" if len(terms) == 1 else "wrong"


class World:
    """Seven images in two sources, four people, an album, tags under each other."""

    def __init__(self, *, counted: bool = False) -> None:
        filter_bitmaps.reset_filter_bitmaps()
        bitmaps.reset_library()
        for model in (Action, Comment, Reviewed, Album, ImageTag, Tag, SourceAccess, Image, Source):
            model._default_manager.all().delete()
        self.people = {
            "owner": make_user(), "editor": make_user(), "viewer": make_user(), "staff": make_user(staff=True),
        }  # fmt: skip
        owner = self.people["owner"]
        self.sources = [make_source(owner=owner, name="one"), make_source(name="two", viewer=self.people["viewer"])]
        SourceAccess.objects.create(source=self.sources[0], user=self.people["editor"], role="editor")
        one, two = self.sources
        read = {"read_at": "2024-01-01T00:00:00Z"}
        self.images = [
            make_image(one, "2019/trip/IMG_1.jpg", rating=4, captured_at=TAKEN, shown_at=TAKEN, **read),
            make_image(one, "2019/IMG_2.jpg", camera="Canon EOS", lens="50mm", size=5_000, sha256=b"s" * 32, **read),
            make_image(one, "Über.cr2", format="RAW", width=90, height=90, sharpness=1.0, uniformity=0.1, **read),
            make_image(one, "2019/trip/IMG_4.jpg", hidden=True, latitude=1.0, longitude=2.0, sha256=b"s" * 32, **read),
            make_image(one, "IMG_5.jpg", state="removed", title="Gone", **read),
            make_image(two, "IMG_6.jpg", state="waiting", description="said"),
            make_image(two, "2019/IMG_7.jpg", state="missing", width=5_000, height=400, **read),
        ]
        sea, sun, water = (Tag.objects.create(name=name) for name in ("sea", "sun", "water"))
        Tag.objects.filter(pk=sea.pk).update(parent=water)
        for number, tag in [(0, sea), (1, sun), (3, sea), (5, sun)]:
            ImageTag.objects.create(image=self.images[number], tag=tag, origin="file" if number else "person")
        self.album = albums.create("best", owner)[0]
        albums.add(self.album, [self.images[0].pk, self.images[2].pk], owner)
        review.refresh()
        self.group = Group.objects.create(name=f"group{owner.pk}")
        if counted:
            get_facets().load()

    def do(self, who: str, verb: str, which: list[int], number: int) -> None:
        user, ids = self.people[who], [self.images[n].pk for n in which]
        word = ["sea", "sun", "old", "water"][number % 4]
        named = Tag.objects.filter(name=word).first()
        with contextlib.suppress(SearchError, Tag.DoesNotExist, Album.DoesNotExist):
            getattr(self, f"do_{verb}")(user, ids, number, word, named)

    def do_curate(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        verb = [curation.hide, curation.unhide, curation.remove, curation.restore, curation.flag, curation.unflag,
                curation.review_again, personal.favourite, personal.unfavourite][number % 9]  # fmt: skip
        verb(ids, user)

    def do_rate(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        curation.rate(ids, number % 6, user)

    def do_title(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        curation.set_title(ids, word if number % 2 else "", user)

    def do_tag(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        (curation.tag if number % 3 else curation.untag)(ids, word, user)

    def do_keep(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        curation.keep(ids, review.NAMES[number % len(review.NAMES)], user)

    def do_comment(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        written = Comment.objects.order_by("pk").first()
        if number % 2 and written:
            personal.delete_comment(written, user)
        else:
            personal.comment(ids, word, user)

    def do_album(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        album = Album.objects.order_by("pk").first()
        if album is None or number % 9 == 0:
            albums.create(["best", "Best", "BEST"][number % 3], user)
        elif number % 9 < 3:
            albums.add(album, ids, user)
        elif number % 9 < 5:
            albums.take_out(album, ids, user)
        elif number % 9 < 7:
            albums.share(album, self.people[["editor", "viewer"][number % 2]], ["", "viewer"][number // 2 % 2], user)
        elif number % 9 == 7:
            albums.describe(album, user, name=["best", "Best", "other"][number % 3])
        else:
            albums.delete(album, user)

    def do_tags(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        other = ["sun", "old", "water", "sea"][number // 4 % 4]
        if named is None:
            return
        verb = [tagging.rename, tagging.set_parent, tagging.merge, tagging.delete][number // 16 % 4]
        if verb is tagging.delete:
            tagging.delete(named, user)
        elif verb is tagging.merge:
            tagging.merge([named], other, user)
        else:
            verb(named, other, user)

    def do_stack(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        (stacks.unstack if number % 3 == 0 else stacks.stack)(ids, user)

    def do_copies(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        copies.hide_others(ids, user)

    def do_undo(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        done = list(Action.objects.order_by("-pk")[:4])
        if done:
            curation.undo(done[number % len(done)], user)

    def do_access(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        source = self.sources[number % 2]
        given = SourceAccess.objects.filter(source=source).exclude(role="owner").first()
        if number % 5 == 0 and given:
            access.revoke(given, by=None)
        elif number % 5 == 1:
            access.grant(source, ["viewer", "editor"][number // 2 % 2], by=None, group=self.group)
        elif number % 5 == 2:
            (self.people["viewer"].groups.remove if number // 5 % 2 else self.people["viewer"].groups.add)(self.group)
        elif number % 5 == 3:
            self.people["editor"].is_staff = bool(number // 5 % 2)
            self.people["editor"].save()
        else:
            Source.objects.get(pk=source.pk)
            source.name = ["one", "One", "other"][number // 5 % 3] + ("" if source is self.sources[0] else "!")
            source.save()

    def do_files(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        if number % 4 == 0:
            rows.mark_missing(ids)
        elif number % 4 == 1:
            rows.mark_changed([(one, 10 * number, 7) for one in sorted(ids)])
        elif number % 4 == 2:
            image = Image.objects.get(pk=ids[0])
            path = b"%s/IMG_%d.jpg" % ([b"2019", b"new/trip"][number // 4 % 2], number * 100 + ids[0])
            absent = Absent(image.pk, bytes(image.path), image.size, image.mtime_ns, image.sha256)
            rows.move(image.source, [(absent, Arrived(Newcomer(path, image.size, 8, 0), image.sha256 or b""))])
        else:
            new = rows.register(self.sources[number % 2], [Newcomer(b"new/IMG_%d.jpg" % len(self.images), 9, 9, 0)], [])
            self.images += [Image.objects.get(pk=pk) for pk in new]

    def do_settings(self, user: Any, ids: list[int], number: int, word: str, named: Any) -> None:
        with override_settings(IMAGESEARCH_REVIEW_SMALL=number * 20):
            review.refresh()
            self.check(["is:small", "review:small"], "staff")
        review.refresh()

    def check(self, words: list[str], who: str | None) -> None:
        user = None if who is None else self.people[who]
        terms = terms_of(words)
        assert kept(terms, user) == fresh(terms, user), (words, who)


VERBS = [name.removeprefix("do_") for name in vars(World) if name.startswith("do_")]
steps = st.tuples(
    st.sampled_from(["owner", "editor", "staff", "viewer"]), st.sampled_from(VERBS),
    st.lists(st.integers(0, IMAGES - 1), min_size=1, max_size=IMAGES, unique=True), st.integers(0, 99),
)  # fmt: skip
words = st.lists(
    st.tuples(st.booleans(), st.sampled_from(WORDS)).map(lambda one: ("-" if one[0] else "") + one[1]),
    min_size=1, max_size=3,
)  # fmt: skip
looks = st.tuples(words, st.sampled_from(["owner", "editor", "staff", "viewer", None]))


@settings(
    max_examples=40, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(
    always=st.lists(looks, min_size=1, max_size=4), sequence=st.lists(st.tuples(steps, looks), max_size=10),
    counted=st.booleans(),
)  # fmt: skip
def test_kept_bitmaps_are_what_the_database_says_after_anything(always: Any, sequence: Any, counted: bool) -> None:
    with transaction.atomic():
        world = World(counted=counted)
        for step, look in sequence:
            for one in (*always, look):
                world.check(*one)
            world.do(*step)
        for one in always:
            world.check(*one)
        transaction.set_rollback(True)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("verb", VERBS)
def test_every_filter_notices_each_kind_of_change(verb: str, counted: bool) -> None:
    """All filters are kept for two people, then one thing is done, in several ways: each is right, told by the database
    or by what pages count with."""
    world = World(counted=counted)
    for number in (0, 1, 2, 3, 4, 5, 7, 8, 19, 35, 50):
        world.do(["owner", "staff"][number % 2], verb, [number % 5, 5], number)
        if counted:
            get_facets().load()
            filter_bitmaps.reset_filter_bitmaps()
        for word in WORDS:
            world.check([word], ["owner", "staff"][number % 4 // 2])
    for who in ("owner", "staff", "viewer"):
        for word in WORDS:
            world.check([word], who)


def test_every_filter_says_whether_it_may_be_kept() -> None:
    undecided = [one.name for one in filters.all_filters() if one.kept is None]
    assert not undecided, f"say in their registration whether search may keep what passes: {undecided}"
    kinds = {kind for one in filters.all_filters() for kind in one.anew}
    assert kinds <= set(Change.Kind.values)


def test_every_filter_and_value_is_walked_through_here() -> None:
    """The words of these tests speak of every registered filter, and of every value of those with fixed values."""
    said = {(one.name, one.value) for word in WORDS for one in terms_of([word])}
    assert {name for name, _ in said} == {one.name for one in filters.all_filters()}
    from search.builtin_filters import HAS, IS

    assert {value for name, value in said if name == "has"} == set(HAS)
    assert {value for name, value in said if name == "is"} == set(IS)


def test_a_filter_that_does_not_say_so_is_not_kept() -> None:
    made = filters.Filter(
        "quick", "Quick", "Whatever rows say.", str, lambda images, value, user: images.filter(rating=int(value)), "q:1"
    )
    filters.register(made)
    try:
        image = make_image(rating=2)
        assert kept([Term("quick", "2")], None) == {image.pk}
        Image.objects.filter(pk=image.pk).update(rating=3)  # nobody tells the change log
        assert kept([Term("quick", "2")], None) == set()
        assert filter_bitmaps.kept_bytes() == 0
    finally:
        del filters._registry["quick"]


def test_nothing_is_asked_when_nothing_changed_and_little_when_little_did(django_assert_num_queries) -> None:
    owner = make_user()
    source = make_source(owner=owner)
    images = [make_image(source, rating=n % 6) for n in range(30)]
    ImageTag.objects.create(image=images[1], tag=Tag.objects.create(name="sea"))
    terms = terms_of(["rating:>=3", "-tag:sea"])
    library = get_library()
    library.visible(owner)
    filter_bitmaps.allowed(terms, owner, library)
    with django_assert_num_queries(1):  # the sources that this person may see
        filter_bitmaps.allowed(terms, owner, library)
    curation.rate([images[0].pk], 5, owner)
    library.refresh()
    with CaptureQueriesContext(connection) as queries:
        filter_bitmaps.allowed(terms, owner, library)
    asked = [query["sql"] for query in queries if 'FROM "search_image"' in query["sql"]]
    assert len(queries) <= 6 and len(asked) == 2 and all(f" IN ({images[0].pk})" in sql for sql in asked)


def test_what_one_person_may_see_is_never_kept_for_another() -> None:
    one, other = make_user(), make_user()
    source = make_source(owner=one, viewer=other)
    mine, theirs = make_image(source), make_image(source)
    personal.favourite([mine.pk], one)
    personal.favourite([theirs.pk], other)
    albums.add(albums.create("best", one)[0], [mine.pk], one)
    albums.add(albums.create("best", other)[0], [theirs.pk], other)
    for word in ("is:favourite", "album:best"):
        for _ in range(2):
            assert kept(terms_of([word]), one) == {mine.pk} and kept(terms_of([word]), other) == {theirs.pk}
    assert kept(terms_of(["review:unrated"]), other) == set()
    assert isinstance(kept(terms_of(["album:best"]), make_user()), str)


def test_only_so_many_bitmaps_and_bytes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        make_image()
    monkeypatch.setattr(filter_bitmaps, "MOST", 5)
    for number in range(9):
        kept([filters.term("id", str(number + 1))], None)
    assert len(filter_bitmaps._kept) == 5
    each = filter_bitmaps.kept_bytes() // 5
    monkeypatch.setattr(filter_bitmaps, "MOST", 500)
    monkeypatch.setattr(filter_bitmaps, "MOST_BYTES", 3 * each)
    for number in range(9):
        kept([filters.term("name", f"photo{number}")], None)
        assert filter_bitmaps.kept_bytes() <= 3 * each
    assert {key[1] for key in filter_bitmaps._kept} == {"photo6", "photo7", "photo8"}


@pytest.mark.parametrize("how", ["pruned", "many entries", "many images"])
def test_what_cannot_be_followed_is_made_anew(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = make_user()
    images = [make_image(make_source(owner=owner)) for _ in range(4)]
    terms = terms_of(["rating:0"])
    assert kept(terms, None) == {image.pk for image in images}
    for image in images[:3]:
        curation.rate([image.pk], 4, None)
    if how == "pruned":
        changes.prune(keep=1)
    elif how == "many entries":
        monkeypatch.setattr(filter_bitmaps, "MOST_ENTRIES", 2)
    else:
        monkeypatch.setattr(filter_bitmaps, "MOST_CHANGED", 2)
    assert kept(terms, None) == {images[3].pk}


def test_a_page_shows_nothing_that_stopped_passing_after_it_was_ranked() -> None:
    images = [make_image(make_source(), rating=4) for _ in range(5)]
    first = retrieval.find(parse("rating:4"), None, limit=2)
    assert (len(first.hits), first.total, first.dropped) == (2, 5, 0)
    rest = {image.pk for image in images} - {hit.id for hit in first.hits}
    curation.rate([min(rest)], 1, None)
    second = retrieval.find(parse("rating:4"), None, offset=2, limit=3)
    assert {hit.id for hit in second.hits} == rest - {min(rest)} and second.dropped == 1
    assert retrieval.find(parse("rating:4"), None).total == 4


def test_columns_come_as_they_are_in_the_database() -> None:
    assert columns.ids_of(Image.objects.none()).tolist() == columns.ids_of(Image.objects.all()).tolist() == []
    images = [make_image(make_source(), size=10**n) for n in range(12)]
    assert columns.ids_of(Image.objects.filter(pk=images[3].pk)).tolist() == [images[3].pk]
    assert sorted(columns.ids_of(Image.objects.all())) == [image.pk for image in images]
    ids, sizes = columns.columns("SELECT id, size FROM search_image WHERE size > %s", [10], ["id", "size"])
    assert dict(zip(ids.tolist(), sizes.tolist(), strict=True)) == {image.pk: image.size for image in images[2:]}
    assert ids.dtype == sizes.dtype == np.int64


@pytest.mark.django_db(transaction=True)
def test_files_that_are_read_again_renamed_and_gone_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    put(root / "trip" / "IMG.jpg", 1)
    put(root / "trip" / "IMG2.jpg", 2)

    def settle() -> None:
        crawl(source_for(root)[0], accept_missing=True)
        Worker(threads=2).run()
        for word in WORDS:
            if not word.startswith(("source", "album")):
                assert kept(terms_of([word]), None) == fresh(terms_of([word]), None), word

    settle()
    assert kept(terms_of(["tag:sun"]), None) == kept(terms_of(["rating:>=3"]), None) == set()
    later(root / "trip" / "IMG.jpg.xmp", sidecar(Said(4, "A title", (("sun",),))))
    settle()
    assert len(kept(terms_of(["tag:sun", "rating:>=3", "has:title"]), None)) == 1
    (root / "trip").rename(root / "2019")
    settle()
    assert len(kept(terms_of(["folder:2019"]), None)) == 2
    (root / "2019" / "IMG2.jpg").unlink()
    settle()
    assert len(kept(terms_of(["folder:2019"]), None)) == 1 and len(kept(terms_of(["is:missing"]), None)) == 1


@pytest.mark.django_db(transaction=True)
def test_what_another_process_writes_is_followed() -> None:
    images = [make_image(make_source(), rating=1) for _ in range(3)]
    assert kept(terms_of(["rating:5"]), None) == set()
    database = configured.DATABASES["default"]
    code = (
        "import sys, django; from django.conf import settings; django.setup()\n"
        "from django.db import connections\n"
        "settings.DATABASES['default']['NAME'] = connections['default'].settings_dict['NAME'] = sys.argv[1]\n"
        "from search import curation; print(curation.rate([int(sys.argv[2])], 5, None).count)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(connection.settings_dict["NAME"]), str(images[1].pk)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "imagesearch.settings"}, cwd=configured.BASE_DIR,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.stdout.strip() == "1", (said.stderr, database["ENGINE"])
    assert kept(terms_of(["rating:5"]), None) == {images[1].pk}
    assert kept(terms_of(["rating:1"]), None) == {images[0].pk, images[2].pk}


@pytest.mark.django_db(transaction=True)
def test_an_account_that_ends_takes_its_comments_and_favourites_out_of_the_filters() -> None:
    person, image = make_user(), make_image()
    access.grant(image.source, "viewer", by=None, user=person)
    personal.comment([image.pk], "words", person)
    personal.favourite([image.pk], person)
    for word in ("has:comments", "is:commented", "is:favourite"):
        assert kept(terms_of([word]), None) == {image.pk}
    Action.objects.all().delete()
    person.delete()
    for word in ("has:comments", "is:commented", "is:favourite"):
        assert kept(terms_of([word]), None) == set()


def test_nothing_kept_outlives_an_older_database_that_only_another_search_noticed():
    images = [make_image(rating=1, camera="Old") for _ in range(3)]
    staff = make_user(staff=True)

    def now() -> tuple[set[int], dict[str, int]]:
        facets, visible = seen_by(staff)
        five = filter_bitmaps.allowed([Term("rating", "5")], None, get_library())
        return set(np.flatnonzero(five).tolist()), facets.texts("camera", visible)

    with transaction.atomic():
        for _ in range(10):
            changes.record(Change.Kind.IMAGES, [one.pk for one in images])
    assert now() == (set(), {"Old": 3})
    number = changes.last_number()
    Change.objects.filter(number__gt=number - 5).delete()
    Counter.objects.filter(name=changes.COUNTER).update(value=number - 5)
    Image.objects.filter(pk=images[0].pk).update(rating=5, camera="New")
    assert get_library().number == number - 5, "a search that asks for neither"
    for _ in range(6):
        curation.flag([images[2].pk], None)
        curation.unflag([images[2].pk], None)
    assert now() == ({images[0].pk}, {"Old": 2, "New": 1})
