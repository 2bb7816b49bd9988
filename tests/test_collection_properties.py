"""Favourites, comments, albums and the tags themselves: undone in reverse order, everything is as it was."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search import albums, curation, history, personal, tagging, undoing
from search.errors import BadValue, NotAllowed
from search.models import (
    Action,
    Album,
    AlbumEntry,
    AlbumShare,
    Comment,
    Favourite,
    Image,
    ImageTag,
    RefusedKeyword,
    SourceAccess,
    Tag,
)  # fmt: skip
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db

IMAGES = 5
"""The first three lie in a source that both people edit, the fourth where one only looks, the last is staff's."""
NAMES = ["sea", "Sea", "sun", "old", "places"]

names = st.sampled_from(NAMES)
chosen = st.lists(st.integers(0, IMAGES - 1), min_size=1, max_size=IMAGES, unique=True)
number = st.integers(0, 2)
verbs = st.one_of(
    st.tuples(st.just("favourite"), chosen),
    st.tuples(st.just("unfavourite"), chosen),
    st.tuples(st.just("comment"), chosen, st.sampled_from(["Nice.", "Who is\nthis?"])),
    st.tuples(st.just("edit_comment"), number, st.sampled_from(["Nicer.", "Nice."])),
    st.tuples(st.just("delete_comment"), number),
    st.tuples(st.just("tag"), chosen, names),
    st.tuples(st.just("untag"), chosen, names),
    st.tuples(st.just("rename_tag"), names, names),
    st.tuples(st.just("merge_tags"), names, names),
    st.tuples(st.just("delete_tag"), names),
    st.tuples(st.just("colour_tag"), names, st.sampled_from(["red", "blue", ""])),
    st.tuples(st.just("move_tag"), names, st.sampled_from([*NAMES, ""])),
    st.tuples(st.just("create"), st.sampled_from(["Best", "Print"])),
    st.tuples(st.just("delete"), number),
    st.tuples(st.just("describe"), number, st.sampled_from(["Best", "Worst"])),
    st.tuples(st.just("share"), number, st.sampled_from(["viewer", "editor", ""])),
    st.tuples(st.just("add"), number, chosen),
    st.tuples(st.just("take_out"), number, chosen),
    st.tuples(st.just("reorder"), number, chosen),
    st.tuples(st.just("move"), number, chosen, st.integers(0, IMAGES - 1)),
    st.tuples(st.just("cover"), number, st.integers(0, IMAGES - 1)),
)
sequences = st.lists(st.tuples(st.sampled_from(["anna", "bert", "staff"]), verbs), max_size=12)


class World:
    """Five images, three people, an album, a comment, keywords from files."""

    def __init__(self) -> None:
        for model in (Action, Comment, Favourite, Album, RefusedKeyword, ImageTag, Tag, SourceAccess, Image):
            model.objects.all().delete()
        self.people = {"anna": make_user(), "bert": make_user(), "staff": make_user(staff=True)}
        anna, bert = self.people["anna"], self.people["bert"]
        both = make_source(owner=anna)
        SourceAccess.objects.create(source=both, user=bert, role=SourceAccess.Role.EDITOR)
        annas, nobodys = make_source(owner=anna, viewer=bert), make_source()
        self.images = [make_image(source) for source in (both, both, both, annas, nobodys)]
        for image, name, origin in [(0, "sea", "file"), (1, "sea", "person"), (1, "sun", "file"), (3, "old", "person")]:
            tag, _ = Tag.objects.get_or_create(key=name, defaults={"name": name})
            ImageTag.objects.create(image=self.images[image], tag=tag, origin=origin)
        RefusedKeyword.objects.create(image=self.images[2], tag=Tag.objects.get(key="sun"))
        personal.comment([self.images[0].pk], "First.", anna)
        album, _ = albums.create("Album", anna)
        albums.add(album, [self.images[n].pk for n in (2, 0, 3)], anna, scores=[0.5, float("nan"), 0.25])  # type: ignore[arg-type]
        AlbumShare.objects.create(album=album, user=bert, role="editor")
        Action.objects.all().delete()

    def do(self, who: str, verb: tuple[Any, ...]) -> Action | None:
        with contextlib.suppress(NotAllowed, BadValue):
            return self._do(self.people[who], *verb)
        return None

    def _do(self, user: Any, name: str, *values: Any) -> Action | None:
        first = values[0]
        if name in {"favourite", "unfavourite", "comment"}:
            return getattr(personal, name)(self._ids(first), *values[1:], user)
        if name in {"edit_comment", "delete_comment"}:
            written = list(Comment.objects.order_by("created_at", "image"))[first : first + 1]
            return getattr(personal, name)(*written, *values[1:], user) if written else None
        if name in {"tag", "untag"}:
            return getattr(curation, name)(self._ids(first), values[1], user)
        if name.endswith(("_tag", "_tags")):
            tag = Tag.objects.filter(key=first.casefold()).first()
            if tag is None:
                return None
            if name == "merge_tags":
                return tagging.merge([tag], values[1], user)
            verb = {"rename_tag": tagging.rename, "colour_tag": tagging.set_colour, "move_tag": tagging.set_parent}
            return verb[name](tag, values[1], user) if name in verb else tagging.delete(tag, user)
        if name == "create":
            return albums.create(first, user)[1]
        album = next(iter(Album.objects.order_by("pk")[first : first + 1]), None)
        if album is None:
            return None
        if name == "describe":
            return albums.describe(album, user, name=values[1])
        if name == "share":
            return albums.share(album, self.people["bert"], values[1], user)
        if name == "cover":
            return albums.set_cover(album, self.images[values[1]].pk, user)
        if name == "move":
            return albums.move(album, self._ids(values[1]), user, before=self.images[values[2]].pk)
        return getattr(albums, name)(album, *(self._ids(value) for value in values[1:]), user)

    def _ids(self, which: list[int]) -> list[int]:
        return [self.images[n].pk for n in which]


def state() -> dict[str, Any]:
    """Everything that these verbs change."""
    used = Tag.objects.filter(image_links__isnull=False).distinct()
    return {
        "links": sorted(ImageTag.objects.values_list("image_id", "tag__key", "origin")),
        "refusals": sorted(RefusedKeyword.objects.values_list("image_id", "tag__key")),
        "tags": sorted(map(str, used.values_list("key", "name", "colour", "parent__key"))),
        "favourites": sorted(Favourite.objects.values_list("user", "image")),
        "comments": sorted(map(str, Comment.objects.values_list("image", "author", "created_at", "text", "edited_at"))),
        "albums": sorted(map(str, Album.objects.values_list("pk", "owner", "name", "cover", "created_at"))),
        "shares": sorted(AlbumShare.objects.values_list("album", "user", "role")),
        "entries": sorted(map(str, AlbumEntry.objects.values_list("album", "image", "position", "score"))),
    }


relaxed = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
fewer = settings(relaxed, max_examples=15)


@relaxed
@given(sequences)
def test_undoing_everything_in_reverse_order_restores_the_first_state(sequence) -> None:
    world = World()
    done = []
    for who, verb in sequence:
        before = state()
        action = world.do(who, verb)
        if action is None:
            assert state() == before, f"{verb} changed something without an action"
        else:
            done.append((action, before))
    for action, before in reversed(done):
        assert curation.undo(action, world.people["staff"]) is not None, action.summary
        assert state() == before, action.summary
        assert curation.undo(action, world.people["staff"]) is None


def in_portions(action: Action, user: Any, *, most: int) -> Action | None:
    """`curation.undo` in portions of so many images: until the last one the history says that it is half done."""
    portion, anew = undoing.Portion(None, 1), True
    while portion.left:
        before = portion.left
        portion = undoing.undo_portion(action, user, most=most, begun=portion.made, anew=anew)
        assert anew or portion.left < before
        anew = False
        action.refresh_from_db()
        assert (history.PARTLY in action.details) == bool(portion.left)
    return portion.made


@fewer
@given(sequences, st.integers(1, 3))
def test_undoing_in_portions_does_what_undoing_at_once_does(sequence, most) -> None:
    world = World()
    staff, done = world.people["staff"], []
    for who, verb in sequence:
        before = state()
        if (action := world.do(who, verb)) is not None:
            done.append((action, before))
    for action, before in reversed(done):
        after = state()
        undone = in_portions(action, staff, most=most)
        assert undone is not None and state() == before, action.summary
        assert undone.count == action.count and undone.summary.startswith("Undid")
        action.refresh_from_db()
        assert action.undone_at is not None and curation.undo(action, staff) is None
        redone = in_portions(undone, staff, most=most)
        assert redone is not None and state() == after, action.summary
        action.refresh_from_db()
        assert action.undone_at is None and action.inverse, "what was done again can be undone again"
        assert curation.undo(action, staff) is not None
        assert state() == before


@fewer
@given(sequences, st.integers(1, 2), st.booleans())
def test_an_undo_left_half_way_can_be_finished_or_taken_back(sequence, most, finish) -> None:
    world = World()
    staff, action, before = world.people["staff"], None, state()
    for who, verb in sequence:
        now = state()
        if (made := world.do(who, verb)) is not None:
            action, before = made, now
    if action is None:
        return
    after = state()
    portion = undoing.undo_portion(action, staff, most=most, anew=True)
    if not finish and portion.made is not None and portion.left:
        assert curation.undo(portion.made, staff) is not None
        assert state() == after
        action.refresh_from_db()
        assert history.PARTLY not in action.details, "nothing of it is undone any more"
    elif portion.left:
        action.refresh_from_db()
        assert history.PARTLY in action.details
    if portion.left:
        assert curation.undo(action, staff) is not None
    assert state() == before
    action.refresh_from_db()
    assert action.undone_at is not None and history.PARTLY not in action.details


@relaxed
@given(sequences, st.data())
def test_an_undo_that_is_undone_and_done_again_changes_nothing_else(sequence, data) -> None:
    world = World()
    actions = [action for step in sequence if (action := world.do(*step)) is not None]
    if not actions:
        return
    before = state()
    action = data.draw(st.sampled_from(actions[-1:]))
    undone = curation.undo(action, world.people["staff"])
    assert undone is not None
    without = state()
    redone = curation.undo(undone, world.people["staff"])
    assert redone is not None and state() == before, action.summary
    assert curation.undo(redone, world.people["staff"]) is not None
    assert state() == without


@relaxed
@given(sequences)
def test_nobody_changes_what_is_not_theirs_to_change(sequence) -> None:
    world = World()
    bert = world.people["bert"].pk
    ids = [image.pk for image in world.images]

    def others() -> Any:
        return {
            "favourites": sorted(Favourite.objects.exclude(user=bert).values_list("user", "image")),
            "comments": sorted(Comment.objects.exclude(author=bert).values_list("author", "image", "text")),
            "links": sorted(ImageTag.objects.filter(image__in=ids[3:]).values_list("image", "tag__key", "tag__name")),
            "albums": sorted(Album.objects.exclude(owner=bert).values_list("owner", "name")),
            "shares": sorted(AlbumShare.objects.exclude(album__owner=bert).values_list("album", "user", "role")),
        }

    before, actions = others(), []
    for who, verb in sequence:
        if who == "bert":
            actions.append(world.do(who, verb))
    assert others() == before
    assert not AlbumEntry.objects.filter(image=ids[4]).exists(), "an image that nobody of them sees lies in an album"
    for action in actions:
        if action is not None:
            with contextlib.suppress(NotAllowed):
                curation.undo(action, world.people["bert"])
    assert others() == before


@relaxed
@given(sequences)
def test_anybody_s_undo_of_another_s_action_changes_only_what_they_may(sequence) -> None:
    world = World()
    for who, verb in sequence:
        if who != "anna":
            continue
        action = world.do(who, verb)
        if action is None:
            continue
        favourites = sorted(Favourite.objects.values_list("user", "image"))
        comments = sorted(Comment.objects.values_list("author", "image", "text"))
        rows = sorted(Album.objects.values_list("pk", "name"))
        with contextlib.suppress(NotAllowed):
            curation.undo(action, world.people["bert"])
        assert sorted(Favourite.objects.values_list("user", "image")) == favourites
        assert sorted(Comment.objects.values_list("author", "image", "text")) == comments
        assert sorted(Album.objects.values_list("pk", "name")) == rows
