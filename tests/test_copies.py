"""Exact copies: which groups a person meets, which copy the rule keeps, and hiding the others with the way back."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search import albums, changes, copies, copy_rule, curation, errands, personal
from search.bitmaps import FOLD, Library, get_library
from search.errors import BadQuery, BadValue, NotAllowed
from search.models import (
    Album,
    AlbumEntry,
    Change,
    Comment,
    Errand,
    Favourite,
    Image,
    ImageTag,
    RefusedKeyword,
)
from search.queues import queue_named
from search.selection import Selected
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


def sha(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()


def note(*images: Image) -> None:
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, [image.pk for image in images])


def copy(source: Any, path: str, word: str = "same", **fields: Any) -> Image:
    image = make_image(source, path, sha256=sha(word), **fields)
    note(image)
    return image


def ids_of(found: list[copies.Group]) -> list[list[int]]:
    return [[one.image.pk for one in group.copies] for group in found]


def hidden() -> set[int]:
    return set(Image.objects.filter(hidden=True).values_list("pk", flat=True))


@pytest.fixture
def anna() -> Any:
    return make_user("anna")


@pytest.fixture
def source(anna: Any) -> Any:
    return make_source(owner=anna, name="photos")


# --- which groups


def test_groups_are_images_with_the_same_bytes_newest_group_first(anna: Any, source: Any) -> None:
    a, b = copy(source, "a.jpg"), copy(source, "x/a.jpg")
    copy(source, "single.jpg", "single")
    make_image(source, "unread.jpg")
    c, d = copy(source, "c.jpg", "other"), copy(source, "x/c.jpg", "other")
    found, more = copies.groups(anna)
    assert (ids_of(found), more) == ([[c.pk, d.pk], [a.pk, b.pk]], False)
    assert [group.key for group in found] == [d.pk, b.pk]
    assert copies.tally(anna) == copies.Tally(groups=2, hiding=2)
    queue = queue_named("copies")
    assert queue is not None and str(queue.counter(anna)) == "2" and queue.url() == "/copies/"


def test_hidden_removed_and_missing_copies_make_no_group(anna: Any, source: Any) -> None:
    copy(source, "a.jpg")
    for number, fields in enumerate([{"hidden": True}, {"state": "removed"}, {"state": "missing"}]):
        copy(source, f"{number}.jpg", **fields)
    assert copies.groups(anna) == ([], False)
    late = copy(source, "late.jpg")
    assert [group.key for group in copies.groups(anna)[0]] == [late.pk], "a new copy brings the group back"


def test_a_person_meets_groups_of_what_they_may_change(anna: Any, source: Any) -> None:
    bert, staff, nobody = make_user("bert"), make_user("staff", staff=True), make_user("nobody")
    his = make_source(owner=bert, viewer=anna, name="his")
    hers, theirs = copy(source, "a.jpg"), copy(his, "a.jpg")
    assert copies.count(anna) == copies.count(bert) == copies.count(nobody) == 0
    assert copies.count(staff) == copies.count(None) == 1
    second = copy(source, "z/a.jpg")
    (group,), _ = copies.groups(anna)
    assert [one.image.pk for one in group.copies] == [hers.pk, second.pk, theirs.pk]
    assert [one.editable for one in group.copies] == [True, True, False]
    assert (group.total, group.hiding) == (3, 1)
    assert copies.count(bert) == 0, "one copy of his own, and two that he may not even see"


def test_pages_of_groups_neither_overlap_nor_leave_any_out(anna: Any, source: Any) -> None:
    for number in range(7):
        copy(source, f"{number}/a.jpg", f"word {number}")
        copy(source, f"{number}/b.jpg", f"word {number}")
    keys: list[int] = []
    older: int | None = None
    while True:
        found, more = copies.groups(anna, older=older, limit=3)
        keys += [group.key for group in found]
        if not more:
            break
        older = found[-1].key
    assert len(keys) == len(set(keys)) == 7
    assert keys == sorted(keys, reverse=True)


def test_digests_that_are_folded_to_the_same_number_by_chance_are_no_copies(anna: Any, source: Any) -> None:
    first, second = (int(one) for one in FOLD[:2])
    for number in range(4):
        words = [(7 + number // 3 * second) % 2**64, (8 - number // 3 * first) % 2**64, 9, 10]
        note(make_image(source, f"{number}.jpg", sha256=np.array(words, dtype=">u8").tobytes()))
    assert len(set(get_library().twins()[1].tolist())) == 1
    (group,), _ = copies.groups(anna)
    assert [one.image.name for one in group.copies] == ["0.jpg", "1.jpg", "2.jpg"]
    copies.hide_others(copies.representatives(anna), anna)
    assert sorted(Image.objects.filter(hidden=False).values_list("name", flat=True)) == ["0.jpg", "3.jpg"]
    assert copies.groups(anna) == ([], False)


def test_digests_that_agree_in_their_first_bytes_are_groups_of_their_own(anna: Any, source: Any) -> None:
    """A page draws no more than it says, and counts each group, however alike the digests look."""
    for number in range(20):
        for place in range(8):
            note(make_image(source, f"{number}/{place}.jpg", sha256=b"12345678" + bytes([number]) * 24))
    assert copies.tally(anna) == copies.Tally(groups=20, hiding=140)
    found, more = copies.groups(anna)
    assert sum(len(group.shown) for group in found) <= copies.MOST_SHOWN and more
    assert len({group.key for group in found}) == len(found) == copies.MOST_SHOWN // 8


def test_the_number_of_queries_does_not_depend_on_the_number_of_groups(anna: Any, source: Any) -> None:
    def asked() -> int:
        get_library()
        copies.count(anna)
        with CaptureQueriesContext(connection) as context:
            copies.groups(anna, limit=50)
        return len(context)

    def fill(start: int, end: int) -> None:
        for number in range(start, end):
            for place in ("a", "b", "c"):
                image = copy(source, f"{number}/{place}.jpg", f"word {number}")
                curation.tag([image.pk], [f"tag {number % 5}"], anna)
                personal.favourite([image.pk], anna)

    fill(0, 2)
    few = asked()
    fill(2, 30)
    assert asked() == few <= 14


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from(["a", "b", "", "hide", "show", "missing", "ready", "remove"])),
        min_size=1, max_size=25,
    )
)  # fmt: skip
def test_the_twins_follow_any_changes_as_if_loaded_anew(steps: list[tuple[int, str]]) -> None:
    with transaction.atomic():
        sid = transaction.savepoint()
        source = make_source()
        images = [make_image(source, f"{number}.jpg") for number in range(8)]
        note(*images)
        library = Library()
        library.refresh()
        library.twins()
        for which, what in steps:
            rows = Image.objects.filter(pk=images[which].pk)
            if what in ("a", "b", ""):
                rows.update(sha256=sha(what) if what else None)
            elif what in ("hide", "show"):
                rows.update(hidden=what == "hide")
            else:
                rows.update(state={"remove": "removed"}.get(what, what))
            note(images[which])
            library.refresh()
            fresh = Library()
            fresh.refresh()
            for mine, theirs in zip(library.twins(), fresh.twins(), strict=True):
                assert mine.tolist() == theirs.tolist()
        transaction.savepoint_rollback(sid)


# --- the rule


def test_the_rule_keeps_the_copy_that_people_worked_with(anna: Any, source: Any) -> None:
    plain = copy(source, "a.jpg")
    rated = copy(source, "deep/er/IMG (1).jpg", rating=4)
    (group,), _ = copies.groups(anna)
    assert group.keeper.image == rated and group.reason == "Kept because it is rated 4 stars."
    curation.rate([plain.pk], 5, anna)
    (group,), _ = copies.groups(anna)
    assert group.keeper.image == plain
    curation.rate([plain.pk], 4, anna)
    curation.tag([rated.pk], ["beach"], anna)
    personal.favourite([rated.pk], anna)
    (group,), _ = copies.groups(anna)
    assert group.reason == "Kept because it has 1 tag, 1 favourite."


@pytest.mark.parametrize(
    ("kept", "other", "because"),
    [
        ("a/IMG_1.jpg", "IMG_1 copy.jpg", "says that it is a copy"),
        ("a/IMG_1.jpg", "IMG_1 (2).jpg", "says that it is a copy"),
        ("a/IMG_1.jpg", "Kopie von IMG_1.jpg", "says that it is a copy"),
        ("a/IMG_1.jpg", "IMG_1 - Kopie (2).jpg", "says that it is a copy"),
        ("a/b/IMG_1.jpg", "Backup 2019/IMG_1.jpg", "for backups or copies"),
        ("a/IMG_1.jpg", "a/b/IMG_1.jpg", "fewest folders"),
        ("a/IMG.jpg", "a/IMG_1.jpg", "path is the shortest"),
    ],
)
def test_the_rule_by_names_and_places(anna: Any, source: Any, kept: str, other: str, because: str) -> None:
    copy(source, other)
    best = copy(source, kept)
    (group,), _ = copies.groups(anna)
    assert group.keeper.image == best
    assert because in group.reason


@pytest.mark.parametrize("name", ["Copyright.jpg", "scopy.jpg", "tempest/a.jpg", "goldfish/a.jpg", "2019 (Rome)/a.jpg"])
def test_names_that_only_look_like_copies(source: Any, name: str) -> None:
    one = copy_rule.Copy(make_image(source, name), copy_rule.Facts(), True)
    assert not one.named_like_a_copy and not one.in_a_backup


def test_an_older_file_comes_before_a_shorter_path_and_a_preferred_source_before_both(anna: Any, source: Any) -> None:
    disk = make_source(owner=anna, name="disk")
    old = copy(source, "some/where/a.jpg", mtime_ns=5)
    new = copy(disk, "a.jpg", mtime_ns=9)
    (group,), _ = copies.groups(anna)
    assert group.keeper.image == old and group.reason == "Kept because its file is the oldest."
    (group,), _ = copies.groups(anna, prefer=copies.preferred(str(disk.pk), anna))
    assert group.keeper.image == new and "which you prefer" in group.reason
    with pytest.raises(BadQuery):
        copies.preferred(str(make_source().pk), anna)
    with pytest.raises(BadQuery):
        copies.preferred("x", anna)


@given(st.permutations(range(6)), st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2)), min_size=6, max_size=6))
def test_the_rule_is_one_order_however_the_copies_are_given(order: list[int], facts: list[tuple[int, int]]) -> None:
    made = [
        copy_rule.Copy(
            Image(pk=n + 1, name=f"{n % 2}.jpg", folder="", rating=rating, mtime_ns=time), copy_rule.Facts(), True
        )
        for n, (rating, time) in enumerate(facts)
    ]
    assert copy_rule.ordered([made[n] for n in order]) == copy_rule.ordered(made)


# --- hiding


def state() -> Any:
    """Everything people decided, to compare."""
    return (
        sorted(Image.objects.values_list("pk", "hidden", "rating", "rating_origin", "title", "title_origin")),
        sorted(ImageTag.objects.values_list("image", "tag__name", "origin")),
        sorted(Favourite.objects.values_list("image", "user")),
        sorted(AlbumEntry.objects.values_list("album", "image", "position", "score")),
        sorted(Comment.objects.values_list("image", "author", "text", "created_at", "edited_at")),
    )


def test_what_people_decided_goes_over_to_the_one_that_is_kept_and_back(anna: Any, source: Any) -> None:
    bert = make_user("bert")
    first, second, third = (copy(source, f"{name}.jpg") for name in "abc")
    other = copy(source, "other.jpg", "other")
    curation.tag([second.pk, third.pk], ["beach"], anna)
    curation.tag([first.pk], ["dog"], anna)
    curation.untag([first.pk], ["dog"], anna)
    curation.tag([second.pk], ["dog", "sea"], anna)
    curation.rate([third.pk], 3, anna)
    curation.set_title([second.pk], "By the sea", anna)
    Favourite.objects.create(user=bert, image=second)
    personal.favourite([third.pk], anna)
    personal.comment([second.pk], "Lovely", anna)
    Comment.objects.create(image=third, author=bert, text="Where?")
    album, _ = albums.create("Holidays", anna)
    albums.add(album, [other.pk, second.pk], anna)
    theirs = Album.objects.create(owner=bert, name="Bert's")
    AlbumEntry.objects.create(album=theirs, image=third, position=7, score=0.5)
    before = state()

    action = copies.hide_others([first.pk], anna, chosen=True)
    assert action is not None and action.summary == "Hid 2 exact copies of 1 picture"
    assert hidden() == {second.pk, third.pk}
    assert copies.groups(anna) == ([], False)
    kept = Image.objects.get(pk=first.pk)
    assert set(kept.tags.values_list("name", flat=True)) == {"beach", "sea"}, "dog was taken off it by a person"
    assert RefusedKeyword.objects.filter(image=first).count() == 1
    assert (kept.rating, kept.rating_origin, kept.title) == (3, "person", "By the sea")
    assert set(Favourite.objects.filter(image=first).values_list("user", flat=True)) == {anna.pk, bert.pk}
    assert set(Comment.objects.filter(image=first).values_list("author", "text")) == {
        (anna.pk, "Lovely"), (bert.pk, "Where?"),
    }  # fmt: skip
    places = dict(AlbumEntry.objects.filter(album=album).values_list("image", "position"))
    assert places[first.pk] == places[second.pk] > places[other.pk]
    assert AlbumEntry.objects.filter(album=theirs, image=first, position=7, score=0.5).exists()

    undone = curation.undo(action, anna)
    assert undone is not None
    assert state() == before
    assert len(copies.groups(anna)[0]) == 1
    again = curation.undo(undone, anna)
    assert again is not None and hidden() == {second.pk, third.pk}
    assert Favourite.objects.filter(image=first, user=bert).exists()


def test_a_rating_and_a_title_of_the_kept_one_stay(anna: Any, source: Any) -> None:
    first, second = copy(source, "a.jpg"), copy(source, "b.jpg")
    zeroed, rated = copy(source, "c.jpg", "x", rating=2), copy(source, "d.jpg", "x")
    curation.rate([first.pk], 2, anna)
    curation.rate([second.pk, rated.pk], 5, anna)
    curation.set_title([first.pk], "Mine", anna)
    curation.set_title([second.pk], "Other", anna)
    curation.rate([zeroed.pk], 0, anna)
    copies.hide_others([first.pk, zeroed.pk], anna, chosen=True)
    assert Image.objects.get(pk=first.pk).rating == 2 and Image.objects.get(pk=first.pk).title == "Mine"
    assert Image.objects.get(pk=zeroed.pk).rating == 0, "a person took the rating away"


def test_all_groups_at_once_follow_the_rule(anna: Any, source: Any) -> None:
    keep = [copy(source, f"{n}.jpg", f"word {n}", rating=n % 3).pk for n in range(4)]
    for n in range(4):
        copy(source, f"deep/{n}.jpg", f"word {n}")
    action = copies.hide_others(copies.representatives(anna), anna)
    assert action is not None and action.summary == "Hid 4 exact copies of 4 pictures"
    assert set(Image.objects.filter(hidden=False).values_list("pk", flat=True)) == set(keep)
    assert copies.hide_others(keep, anna) is None
    curation.undo(action, anna)
    assert not hidden()


def test_nothing_that_is_not_ones_own_is_hidden_or_kept(anna: Any, source: Any) -> None:
    bert = make_user("bert")
    his = make_source(owner=bert, viewer=anna)
    secret = make_source(owner=bert)
    first, second = copy(source, "a.jpg"), copy(source, "b/a.jpg")
    seen, unseen = copy(his, "a.jpg", rating=5), copy(secret, "a.jpg")
    with pytest.raises(BadValue):
        copies.hide_others([seen.pk], anna, chosen=True)
    with pytest.raises(BadValue):
        copies.hide_others([unseen.pk], anna, chosen=True)
    assert copies.hide_others([unseen.pk], anna) is None
    action = copies.hide_others(copies.representatives(anna), anna)
    assert action is not None and hidden() == {second.pk}
    with pytest.raises(NotAllowed):
        copies.hide_others([first.pk], make_viewer(source))
    with pytest.raises(BadValue):
        copies.hide_others([second.pk], anna, chosen=True)  # it is hidden
    Image.objects.filter(pk=second.pk).update(hidden=False)
    with pytest.raises(NotAllowed):
        curation.undo(action, bert)


def make_viewer(source: Any) -> Any:
    from search.access import grant

    viewer = make_user()
    grant(source, "viewer", by=None, user=viewer)
    return viewer


def test_whoever_may_edit_takes_it_back_whole_although_favourites_are_anothers(anna: Any, source: Any) -> None:
    from search.access import grant

    bert, editor = make_user("bert"), make_user("editor")
    grant(source, "editor", by=None, user=editor)
    first, second = copy(source, "a.jpg"), copy(source, "b.jpg")
    Favourite.objects.create(user=bert, image=second)
    action = copies.hide_others([first.pk], anna, chosen=True)
    assert action is not None
    before = set(Favourite.objects.values_list("image", flat=True))
    assert before == {first.pk, second.pk}
    curation.undo(action, editor)
    assert set(Favourite.objects.values_list("image", flat=True)) == {second.pk}
    action.refresh_from_db()
    assert action.undone_at is not None and not hidden()


def test_an_errand_clears_up_in_portions_with_one_action(anna: Any, source: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(errands.PORTIONS, "copies", 2)
    monkeypatch.setattr(errands, "start", lambda errand: None)
    for n in range(5):
        for place in ("a", "b", "c"):
            copy(source, f"{n}/{place}.jpg", f"word {n}")
    ids = copies.representatives(anna)
    errand = errands.do("copies", Selected(ids, np.full(5, np.nan, np.float32)), {"prefer": None}, anna, at_once=3)
    assert isinstance(errand, Errand)
    errands.run_portions(errand.pk)
    errand.refresh_from_db()
    assert (errand.state, errand.done) == ("done", 5)
    assert errand.action is not None and errand.action.summary == "Hid 10 exact copies of 5 pictures"
    assert len(hidden()) == 10
    curation.undo(errand.action, anna)
    assert not hidden()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_hiding_and_undoing_in_any_order_returns_to_the_same_state(data: st.DataObject) -> None:
    with transaction.atomic():
        sid = transaction.savepoint()
        user = make_user()
        source = make_source(owner=user)
        images = [copy(source, f"{n}.jpg", f"word {n % 3}") for n in range(8)]
        for image in images:
            if data.draw(st.booleans()):
                curation.tag([image.pk], [data.draw(st.sampled_from(["red", "blue"]))], user)
            if data.draw(st.booleans()):
                curation.rate([image.pk], data.draw(st.integers(1, 5)), user)
            if data.draw(st.booleans()):
                personal.favourite([image.pk], user)
        before = state()
        done = []
        for _ in range(3):
            which = data.draw(st.sampled_from(images))
            which.refresh_from_db()
            action = None if which.hidden else copies.hide_others([which.pk], user, chosen=data.draw(st.booleans()))
            if action is not None:
                done.append(action)
        for action in reversed(done):
            curation.undo(action, user)
        assert state() == before
        transaction.savepoint_rollback(sid)


# --- the command


def said(*arguments: str) -> str:
    out = io.StringIO()
    call_command("copies", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_lists_and_hides_only_when_told_to(anna: Any, source: Any) -> None:
    first, second = copy(source, "a.jpg"), copy(source, "b/a.jpg")
    assert f"keep  {first.pk:>8}" in said() and f"hide  {second.pk:>8}" in said("--user", "anna")
    assert json.loads(said("--json"))["groups"][0]["keep"] == first.pk
    assert "would be hidden" in said("--hide-others") and not hidden()
    assert "Hid 1 copy" in said("--hide-others", "--yes") and hidden() == {second.pk}
    assert "No copies" in said()


def test_the_command_does_not_wait_for_ever_when_groups_change_meanwhile(anna: Any, source: Any) -> None:
    copy(source, "a.jpg")
    stale = copy(source, "b.jpg")
    get_library().twins()
    Image.objects.filter(pk=stale.pk).update(sha256=sha("changed"))  # nobody said so yet
    assert json.loads(said("--json"))["groups"] == []


def test_a_group_keeps_its_place_while_others_come(anna: Any) -> None:
    """Its newest picture says where it stands in the list."""
    source = make_source(owner=anna)
    copy(source, "a.jpg"), copy(source, "b.jpg")
    ((group,), _) = copies.groups(anna)
    copy(source, "c.jpg", "x"), copy(source, "d.jpg", "x")
    assert [one.key for one in copies.groups(anna)[0]][-1] == group.key
