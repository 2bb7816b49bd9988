"""Any sequence of verbs, undone in reverse order, restores the first state; nobody's images are touched by others."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search import curation
from search.errors import NotAllowed
from search.models import Action, Image, ImageTag, RefusedKeyword, SourceAccess, Tag
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db

IMAGES = 6
"""The first four lie in a source that both people edit, the other two in one that only staff may."""

verbs = st.one_of(
    st.tuples(st.just("tag"), st.lists(st.sampled_from(["sea", "Sea", "sun", "old"]), min_size=1, max_size=2)),
    st.tuples(st.just("untag"), st.lists(st.sampled_from(["sea", "sun", "old"]), min_size=1, max_size=2)),
    st.tuples(st.just("rate"), st.integers(0, 5)),
    st.tuples(st.just("set_title"), st.sampled_from(["", "One", "Two", "Keyword title"])),
    *(st.tuples(st.just(name), st.none()) for name in ("hide", "unhide", "remove", "restore")),
)
chosen = st.lists(st.integers(0, IMAGES - 1), min_size=1, max_size=IMAGES, unique=True)
sequences = st.lists(st.tuples(st.sampled_from(["owner", "editor", "staff"]), verbs, chosen), max_size=12)


class World:
    """Six images with all kinds of first states, and three people."""

    def __init__(self) -> None:
        for model in (Action, RefusedKeyword, ImageTag, Tag, SourceAccess, Image):
            model.objects.all().delete()
        self.people = {"owner": make_user(), "editor": make_user(), "staff": make_user(staff=True)}
        shared = make_source(owner=self.people["owner"])
        SourceAccess.objects.create(source=shared, user=self.people["editor"], role=SourceAccess.Role.EDITOR)
        closed = make_source(viewer=self.people["editor"])
        self.images = [
            make_image(shared),
            make_image(shared, rating=3, rating_origin="file", title="Keyword title", title_origin="file"),
            make_image(shared, hidden=True, state="missing"),
            make_image(shared, state="removed", rating=5, rating_origin="person"),
            make_image(closed, rating=1, rating_origin="file"),
            make_image(closed, state="waiting", hidden=True),
        ]
        tags = [Tag.objects.create(name=name) for name in ("sea", "sun")]
        for image, tag, origin in [(0, 0, "file"), (1, 0, "person"), (1, 1, "file"), (4, 0, "file"), (4, 1, "person")]:
            ImageTag.objects.create(image=self.images[image], tag=tags[tag], origin=origin)
        RefusedKeyword.objects.create(image=self.images[2], tag=tags[0])

    def do(self, who: str, verb: tuple[str, Any], which: list[int]) -> Action | None:
        name, value = verb
        ids = [self.images[n].pk for n in which]
        arguments = [ids] if value is None else [ids, value]
        try:
            return getattr(curation, name)(*arguments, self.people[who])
        except NotAllowed:
            return None


def state(images: list[Image]) -> dict[int, Any]:
    """All curation of these images, by id."""
    ids = [image.pk for image in images]
    fields = ("rating", "rating_origin", "title", "title_origin", "hidden", "state")
    rows = {row[0]: row[1:] for row in Image.objects.filter(pk__in=ids).values_list("pk", *fields)}
    links = ImageTag.objects.values_list("image_id", "tag__key", "origin")
    refusals = RefusedKeyword.objects.values_list("image_id", "tag__key")
    return {
        i: (
            rows[i],
            sorted((key, origin) for image, key, origin in links if image == i),
            sorted(key for image, key in refusals if image == i),
        )
        for i in ids
    }


relaxed = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(sequences)
def test_undoing_everything_in_reverse_order_restores_the_first_state(sequence) -> None:
    world = World()
    first = state(world.images)
    states, actions = [], []
    for who, verb, which in sequence:
        before = state(world.images)
        action = world.do(who, verb, which)
        after = state(world.images)
        assert (action is None) == (before == after)
        if action is not None:
            changed = [i for i in before if before[i] != after[i]]
            assert action.count == len(changed)
            actions.append(action)
            states.append(before)
    for action, before in zip(reversed(actions), reversed(states), strict=True):
        assert curation.undo(action, world.people["staff"]) is not None
        assert state(world.images) == before
        assert curation.undo(action, world.people["staff"]) is None
    assert state(world.images) == first


@relaxed
@given(sequences, st.data())
def test_an_undo_that_is_undone_and_done_again_changes_nothing_else(sequence, data) -> None:
    world = World()
    actions = [action for step in sequence if (action := world.do(*step)) is not None]
    if not actions:
        return
    before = state(world.images)
    action = data.draw(st.sampled_from(actions))
    undone = curation.undo(action, world.people["staff"])
    if undone is None:
        assert state(world.images) == before
        return
    without = state(world.images)
    redone = curation.undo(undone, world.people["staff"])
    assert redone is not None and state(world.images) == before
    assert curation.undo(redone, world.people["staff"]) is not None
    assert state(world.images) == without


@relaxed
@given(sequences)
def test_verbs_and_undos_never_touch_what_one_may_not_edit(sequence) -> None:
    world = World()
    theirs = world.images[4:]
    first = state(theirs)
    actions = [action for who, *step in sequence if who != "staff" and (action := world.do(who, *step)) is not None]
    assert state(theirs) == first
    for who, *step in sequence:
        if who == "staff":
            by_staff = world.do("staff", *step)
            before = state(theirs)
            if by_staff is not None:
                with contextlib.suppress(NotAllowed):
                    curation.undo(by_staff, world.people["editor"])
                assert state(theirs) == before
    for action in actions:
        before = state(theirs)
        curation.undo(action, world.people["owner"])
        assert state(theirs) == before


@relaxed
@given(sequences, chosen, verbs)
def test_an_undo_never_takes_back_what_somebody_did_later_to_the_same_thing(sequence, which, later) -> None:
    world = World()
    for step in sequence:
        world.do(*step)
    mine = world.do("owner", ("rate", 4), which)
    theirs = world.do("editor", ("rate", 2), which)
    if mine is None or theirs is None:
        return
    before = state(world.images)
    undone = curation.undo(mine, world.people["owner"])
    assert undone is None and state(world.images) == before
