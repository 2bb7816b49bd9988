"""The verbs of curation: bulk, within one's rights, undoable."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.utils import timezone

from search import curation, steps
from search.bitmaps import get_library
from search.compact import unpack_ids
from search.errors import BadValue, NotAllowed
from search.models import Action, Change, Image, ImageTag, RefusedKeyword, SourceAccess, Tag, path_digest
from search.signals import image_states_changed
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner():
    return make_user()


@pytest.fixture
def source(owner):
    return make_source(owner=owner)


def done(action: Action | None) -> Action:
    """The Action of a verb that must have changed something."""
    assert action is not None
    return action


def tags_of(image: Image) -> set[tuple[str, str]]:
    return set(image.tag_links.values_list("tag__name", "origin"))


def link(image: Image, name: str, origin: str) -> None:
    tag, _ = Tag.objects.get_or_create(name=name, defaults={"key": name})
    ImageTag.objects.create(image=image, tag=tag, origin=origin)


def test_tag_makes_tags_and_says_what_it_did(owner, source) -> None:
    first, second = make_image(source), make_image(source)
    action = done(curation.tag([first.pk, second.pk], ["Beach", "  deep   sea ", "BEACH"], owner))
    assert tags_of(first) == tags_of(second) == {("Beach", "person"), ("deep sea", "person")}
    assert action is not None and action.user == owner and action.verb == "tag" and action.count == 2
    assert action.summary == "Tagged 2 pictures “Beach”, “deep sea”"
    assert unpack_ids(action.ids).tolist() == [first.pk, second.pk]


def test_a_verb_that_changes_nothing_writes_nothing(owner, source) -> None:
    image = make_image(source)
    curation.tag([image.pk], "beach", owner)
    before = Action.objects.count()
    assert curation.tag([image.pk], ["BEACH"], owner) is None
    assert curation.untag([image.pk], ["never seen"], owner) is None
    assert curation.rate([image.pk], 0, owner) is None
    assert curation.set_title([image.pk], "", owner) is None
    assert curation.unhide([image.pk], owner) is None
    assert curation.restore([image.pk], owner) is None
    assert curation.remove([], owner) is None
    assert curation.tag(Image.objects.none(), "x", owner) is None
    assert Action.objects.count() == before


def test_only_what_really_changes_is_in_the_action(owner, source) -> None:
    rated, unrated = make_image(source, rating=4, rating_origin="person"), make_image(source)
    action = done(curation.rate(Image.objects.all(), 4, owner))
    assert action is not None and unpack_ids(action.ids).tolist() == [unrated.pk]
    rated.refresh_from_db()
    assert rated.rating == 4


def test_a_rating_that_came_from_the_file_becomes_the_persons(owner, source) -> None:
    image = make_image(source, rating=4, rating_origin="file", title="From file", title_origin="file")
    assert curation.rate([image.pk], 4, owner) is not None
    assert curation.set_title([image.pk], "From file", owner) is not None
    image.refresh_from_db()
    assert (image.rating_origin, image.title_origin) == ("person", "person")


def test_verbs_leave_out_what_one_may_not_edit_and_say_so(owner, source) -> None:
    mine, other = make_image(source), make_image(make_source(viewer=owner))
    action = done(curation.hide(Image.objects.all(), owner))
    mine.refresh_from_db()
    other.refresh_from_db()
    assert mine.hidden and not other.hidden
    assert action is not None and action.summary == "Hid 1 picture; 1 picture left out, not yours to change"
    assert action.details["skipped"] == 1


@pytest.mark.parametrize("who", ["stranger", "viewer", "anonymous", "inactive"])
def test_those_who_may_edit_nothing_are_told(source, who: str) -> None:
    image = make_image(source)
    user = {"anonymous": AnonymousUser, "inactive": lambda: make_user(is_active=False, staff=True)}.get(
        who, make_user
    )()
    if who == "viewer":
        SourceAccess.objects.create(source=source, user=user, role=SourceAccess.Role.VIEWER)
    before = Image.objects.values().get()
    calls = [
        lambda: curation.tag([image.pk], "x", user),
        lambda: curation.untag([image.pk], "x", user),
        lambda: curation.rate([image.pk], 5, user),
        lambda: curation.set_title([image.pk], "x", user),
        lambda: curation.hide([image.pk], user),
        lambda: curation.unhide([image.pk], user),
        lambda: curation.remove([image.pk], user),
        lambda: curation.restore([image.pk], user),
    ]
    for call in calls:
        with pytest.raises(NotAllowed, match="ask an owner"):
            call()
    assert Image.objects.values().get() == before
    assert not Action.objects.exists() and not Tag.objects.exists()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: curation.tag([1], [" "], None), "needs a name"),
        (lambda: curation.tag([1], [], None), "at least one tag"),
        (lambda: curation.tag([1], "x" * 201, None), "200"),
        (lambda: curation.tag([1], "ΐ" * 100, None), "200"),
        (lambda: curation.rate([1], 6, None), "0 .none. to 5"),
        (lambda: curation.rate([1], True, None), "0 .none. to 5"),
        (lambda: curation.rate([1], 2.5, None), "0 .none. to 5"),  # type: ignore[arg-type]
        (lambda: curation.set_title([1], "x" * 1_001, None), "1,000"),
    ],
)
def test_wrong_values_are_sentences(call, says: str) -> None:
    make_image()
    with pytest.raises(BadValue, match=says):
        call()


def test_text_no_database_takes_is_made_storable(owner, source) -> None:
    image = make_image(source)
    curation.set_title([image.pk], "a\x00b \ud800\n", owner)
    curation.tag([image.pk], "x\x00\ud800y", owner)
    image.refresh_from_db()
    assert image.title == "a b \ufffd"
    assert tags_of(image) == {("x \ufffdy", "person")}


def test_untagging_a_keyword_of_the_file_is_remembered_and_undone(owner, source) -> None:
    image, other = make_image(source), make_image(source)
    link(image, "holiday", "file")
    link(other, "holiday", "person")
    action = done(curation.untag(Image.objects.all(), "Holiday", owner))
    assert not ImageTag.objects.exists()
    refused = RefusedKeyword.objects.order_by("image").values_list("image_id", "tag__name")
    assert list(refused) == [(image.pk, "holiday"), (other.pk, "holiday")]  # a sidecar may hold the person's tag too
    assert curation.undo(action, owner) is not None
    assert tags_of(image) == {("holiday", "file")} and tags_of(other) == {("holiday", "person")}
    assert not RefusedKeyword.objects.exists()


def test_a_refusal_that_was_there_before_survives_the_undo(owner, source) -> None:
    image = make_image(source)
    link(image, "holiday", "file")
    RefusedKeyword.objects.create(image=image, tag=Tag.objects.get())
    curation.undo(done(curation.untag([image.pk], "holiday", owner)), owner)
    assert RefusedKeyword.objects.count() == 1


def test_hide_remove_and_restore_reach_the_change_log(owner, source) -> None:
    image = make_image(source)
    library = get_library()
    for verb, shown in [
        (curation.hide, False),
        (curation.unhide, True),
        (curation.remove, False),
        (curation.restore, True),
    ]:
        verb([image.pk], owner)
        assert Change.objects.latest("number").kind == Change.Kind.IMAGES
        library.refresh()
        assert bool(library.visible(owner)[image.pk]) is shown
    number = library.refresh()
    curation.rate([image.pk], 3, owner)
    assert library.refresh() == number + 1
    assert Change.objects.latest("number").kind == Change.Kind.FACTS


def test_restore_goes_back_to_the_state_that_is_true(owner, source) -> None:
    read = make_image(source, state="ready", sha256=b"x" * 32)
    unread = make_image(source, state="waiting")
    broken = make_image(source, state="unreadable", reason="It is cut off.")
    curation.remove(Image.objects.all(), owner)
    assert set(Image.objects.values_list("state", flat=True)) == {"removed"}
    told: list[tuple[list[int], str]] = []

    def receiver(sender, ids, state, **_) -> None:
        assert connection.in_atomic_block
        told.append((ids.tolist(), state))

    image_states_changed.connect(receiver)
    try:
        curation.restore(Image.objects.all(), owner)
    finally:
        image_states_changed.disconnect(receiver)
    assert dict(Image.objects.values_list("pk", "state")) == {
        read.pk: "ready", unread.pk: "waiting", broken.pk: "unreadable"
    }  # fmt: skip
    assert sorted(told) == sorted([([read.pk], "ready"), ([unread.pk], "waiting"), ([broken.pk], "unreadable")])


def test_what_was_read_or_failed_while_it_was_removed_comes_back_as_it_stands(owner, source) -> None:
    waiting, mended, failed = (
        make_image(source, state="waiting"),
        make_image(source, state="unreadable", reason="It is cut off."),
        make_image(source, state="ready", sha256=b"x" * 32),
    )
    action = done(curation.remove(Image.objects.all(), owner))
    Image.objects.filter(pk=waiting.pk).update(sha256=b"y" * 32)
    Image.objects.filter(pk=mended.pk).update(reason="")
    Image.objects.filter(pk=failed.pk).update(sha256=None, reason="It is damaged.")
    undone = done(curation.undo(action, owner))
    expected = {waiting.pk: "ready", mended.pk: "waiting", failed.pk: "unreadable"}
    assert dict(Image.objects.values_list("pk", "state")) == expected
    redone = done(curation.undo(undone, owner))
    assert redone.count == 3 and set(Image.objects.values_list("state", flat=True)) == {"removed"}
    curation.undo(redone, owner)
    assert dict(Image.objects.values_list("pk", "state")) == expected


def test_undoing_a_removal_brings_each_state_back_even_missing(owner, source) -> None:
    image = make_image(source, state="missing")
    action = done(curation.remove([image.pk], owner))
    curation.undo(action, owner)
    image.refresh_from_db()
    assert image.state == "missing"


def test_undo_is_recorded_idempotent_and_undoable(owner, source) -> None:
    image = make_image(source)
    action = done(curation.rate([image.pk], 5, owner))
    undone = done(curation.undo(action, owner))
    assert undone is not None and undone.verb == "undo" and undone.details["undoes"] == action.pk
    assert undone.summary == "Undid: Rated 1 picture 5 stars"
    action.refresh_from_db()
    assert action.undone_at is not None and action.undone_by == owner
    assert curation.undo(action, owner) is None
    again = done(curation.undo(undone, owner))
    image.refresh_from_db()
    action.refresh_from_db()
    assert image.rating == 5 and again is not None and action.undone_at is None
    assert again.summary == "Did again: Rated 1 picture 5 stars"
    undone_once_more = done(curation.undo(again, owner))
    assert undone_once_more.summary == "Undid: Rated 1 picture 5 stars"
    image.refresh_from_db()
    action.refresh_from_db()
    undone.refresh_from_db()
    assert image.rating == 0 and action.undone_at is not None and undone.undone_at is None


def test_later_changes_win_over_an_undo_and_are_counted(owner, source) -> None:
    editor = make_user()
    SourceAccess.objects.create(source=source, user=editor, role=SourceAccess.Role.EDITOR)
    images = [make_image(source) for _ in range(3)]
    action = done(curation.rate(Image.objects.all(), 5, owner))
    curation.rate([images[0].pk], 2, editor)
    undone = done(curation.undo(action, owner))
    assert list(Image.objects.order_by("pk").values_list("rating", flat=True)) == [2, 0, 0]
    assert undone is not None and undone.details["changed_since"] == 1
    assert undone.summary.endswith("on 2 pictures; 1 changed since and left as they are")


def test_a_later_change_wins_even_when_it_is_to_a_value_the_undo_knows(owner, source) -> None:
    for rating in (0, 2, 2):
        make_image(source, rating=rating, rating_origin="person" if rating else "")
    first, second, third = Image.objects.order_by("pk").values_list("pk", flat=True)
    action = done(curation.rate([first, second, third], 5, owner))
    curation.rate([first], 2, owner)
    undone = done(curation.undo(action, owner))
    assert undone is not None and undone.details["changed_since"] == 1
    assert unpack_ids(undone.ids).tolist() == [second, third]
    assert list(Image.objects.order_by("pk").values_list("rating", flat=True)) == [2, 2, 2]
    assert Image.objects.get(pk=first).rating_origin == "person"


def test_a_tag_that_someone_put_back_stays_after_the_undo(owner, source) -> None:
    image = make_image(source)
    link(image, "holiday", "file")
    action = done(curation.untag([image.pk], "holiday", owner))
    curation.tag([image.pk], "holiday", owner)
    curation.undo(action, owner)
    assert tags_of(image) == {("holiday", "person")}


def test_an_undo_that_leaves_a_tag_put_back_since_leaves_its_refusal_too(owner, source) -> None:
    image = make_image(source)
    link(image, "sea", "file")
    untagged = done(curation.untag([image.pk], "sea", owner))
    curation.tag([image.pk], "sea", owner)
    assert curation.undo(untagged, owner) is None
    assert tags_of(image) == {("sea", "person")}
    assert RefusedKeyword.objects.filter(image=image).exists()


def test_undo_needs_the_right_to_edit(owner, source) -> None:
    stranger = make_user()
    action = done(curation.hide([make_image(source).pk], owner))
    with pytest.raises(NotAllowed):
        curation.undo(action, stranger)
    assert Image.objects.get().hidden
    action.refresh_from_db()
    assert action.undone_at is None


def test_what_one_may_not_undo_is_left_for_someone_who_may(owner, source) -> None:
    staff = make_user(staff=True)
    mine, other = make_image(source), make_image(make_source())
    action = done(curation.rate(Image.objects.all(), 3, staff))
    partly = done(curation.undo(action, owner))
    assert partly is not None and partly.details["skipped"] == 1
    curation.rate([mine.pk], 3, staff)
    assert curation.undo(action, staff) is not None
    assert dict(Image.objects.values_list("pk", "rating")) == {mine.pk: 3, other.pk: 0}
    action.refresh_from_db()
    assert action.undone_at is not None


def test_undo_survives_deleted_tags_and_purged_images(owner, source) -> None:
    kept, purged = make_image(source), make_image(source)
    link(kept, "holiday", "person")
    link(purged, "holiday", "person")
    action = done(curation.untag(Image.objects.all(), "holiday", owner))
    Tag.objects.all().delete()
    purged.delete()
    curation.undo(action, owner)
    assert tags_of(kept) == {("holiday", "person")}
    gone = done(curation.hide([kept.pk], owner))
    kept.delete()
    assert curation.undo(gone, owner) is None


def test_many_different_titles_are_restored_each(owner, source) -> None:
    images = [make_image(source, title=f"title {n}", title_origin="file") for n in range(60)]
    action = done(curation.set_title(Image.objects.all(), "same", owner))
    assert set(Image.objects.values_list("title", "title_origin")) == {("same", "person")}
    curation.undo(action, owner)
    assert list(Image.objects.order_by("pk").values_list("title", "title_origin")) == [
        (f"title {n}", "file") for n in range(60)
    ]
    assert len(images) == 60


def test_a_sliced_queryset_and_an_array_are_taken_too(owner, source) -> None:
    images = [make_image(source) for _ in range(3)]
    curation.hide(Image.objects.order_by("-pk")[:1], owner)
    curation.hide(np.array([images[0].pk, images[0].pk]), owner)
    assert list(Image.objects.order_by("pk").values_list("hidden", flat=True)) == [True, False, True]


def test_long_summaries_keep_what_was_left_out(owner, source) -> None:
    make_image(make_source(viewer=owner))
    make_image(source)
    action = done(curation.set_title(Image.objects.all(), "t" * 900, owner))
    assert action is not None and len(action.summary) == 300
    assert action.summary.endswith("…; 1 picture left out, not yours to change")


def test_a_failing_verb_leaves_nothing_behind(owner, source) -> None:
    image = make_image(source)
    before = Change.objects.count()

    def receiver(sender, **_) -> None:
        raise RuntimeError("the ledger is closed")

    image_states_changed.connect(receiver)
    try:
        with pytest.raises(RuntimeError):
            curation.remove([image.pk], owner)
    finally:
        image_states_changed.disconnect(receiver)
    image.refresh_from_db()
    assert image.state == "ready" and not Action.objects.exists() and Change.objects.count() == before


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """The statements sent to the database (Django's own capture spells out every parameter, which takes seconds)."""
    statements: list[str] = []

    def note(execute, sql, params, many, context):
        statements.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield statements


@pytest.mark.parametrize(
    ("count", "chunk"), [(500, 100), pytest.param(50_000, steps.CHUNK, marks=pytest.mark.slow)], ids=str
)
def test_many_images_are_a_few_statements_for_each_chunk_and_one_row(owner, source, count, chunk, monkeypatch) -> None:
    monkeypatch.setattr(steps, "CHUNK", chunk)
    now = timezone.now()
    Image.objects.bulk_create(
        Image(
            source=source, path=b"%d" % n, path_digest=path_digest(b"%d" % n), directory=b"", name=str(n), size=1,
            mtime_ns=1, shown_at=now, state="ready", rating=n % 6, rating_origin="person" if n % 6 else "",
        )
        for n in range(count)
    )  # fmt: skip
    before = list(Image.objects.order_by("pk").values_list("rating", "rating_origin", "hidden", "state"))
    for verb in [
        lambda: curation.rate(Image.objects.all(), 5, owner),
        lambda: curation.remove(Image.objects.all(), owner),
        lambda: curation.tag(Image.objects.all(), ["a", "b"], owner),
        lambda: curation.untag(Image.objects.all(), ["a"], owner),
    ]:
        with counted() as statements:
            action = verb()
        assert len(statements) < 66
        assert action is not None and action.count in {count, count - (count // 6)}
        assert len(action.ids) + len(str(action.inverse)) < 200_000
        if action.verb != "tag":
            with counted() as statements:
                curation.undo(action, owner)
            assert len(statements) < 60
    assert list(Image.objects.order_by("pk").values_list("rating", "rating_origin", "hidden", "state")) == before
    assert ImageTag.objects.count() == 2 * count


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls in threads of their own at the same time; their results in order. Raises what one of them raised."""
    gate = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(place: int, call: Callable[[], Any]) -> None:
        try:
            gate.wait()
            results[place] = call()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(n, call)) for n, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@pytest.mark.django_db(transaction=True)
def test_the_same_verb_at_the_same_time_is_done_once(owner, source) -> None:
    ids = [make_image(source).pk for _ in range(50)]
    for verb in (
        lambda: curation.tag(ids, ["sea", "sun"], owner),
        lambda: curation.hide(ids[::-1], owner),
        lambda: curation.remove(ids, owner),
        lambda: curation.untag(ids, ["sea"], owner),
    ):
        (action,) = (action for action in together(verb, verb, verb) if action is not None)
        assert action.count == 50
        undone = together(*[lambda action=action: curation.undo(action, owner)] * 3)
        assert len([one for one in undone if one is not None]) == 1
        if action.verb == "tag":
            curation.tag(ids, ["sea"], owner)
    assert Tag.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_different_ratings_at_the_same_time_are_undone_one_after_the_other(owner, source) -> None:
    ids = [make_image(source, rating=1, rating_origin="file").pk for _ in range(20)]
    actions = together(*[lambda stars=stars: curation.rate(ids, stars, owner) for stars in (2, 3, 4, 5)])
    assert len(set(Image.objects.values_list("rating", flat=True))) == 1
    for action in sorted(actions, key=lambda one: -one.pk):
        assert done(curation.undo(action, owner)).count == 20
    assert set(Image.objects.values_list("rating", "rating_origin")) == {(1, "file")}
