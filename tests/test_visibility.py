"""Who sees what: every public function that returns images, for every kind of person."""

from __future__ import annotations

import numpy as np
import pytest
from django.contrib.auth.models import AnonymousUser, Group

from search import changes, curation, embeddings, filters
from search.access import editable_sources, readable_sources
from search.bitmaps import get_library
from search.errors import BadQuery, NotAllowed
from search.filters import Term
from search.models import Change, Image, SourceAccess
from search.query import Query, parse
from search.retrieval import find
from search.spaces import look_space
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db

EDITORS = {"editor", "owner", "staff", "group editor", "command line"}
READERS = EDITORS | {"viewer", "group viewer"}
NOBODY = {"anonymous", "stranger", "inactive owner", "inactive staff"}
PEOPLE = sorted(READERS | NOBODY)
UNLISTED = ("hidden", "missing", "removed", "unreadable")


class World:
    """One source with an image of each kind, and another one that only staff and the command line see."""

    def __init__(self) -> None:
        source = make_source(name="Ours")
        viewers, editors = (Group.objects.create(name=name) for name in ("viewers", "editors"))
        self.people = {
            "anonymous": AnonymousUser(),
            "stranger": make_user(),
            "viewer": make_user(),
            "editor": make_user(),
            "owner": make_user(),
            "staff": make_user(staff=True),
            "group viewer": make_user(),
            "group editor": make_user(),
            "inactive owner": make_user(is_active=False),
            "inactive staff": make_user(staff=True, is_active=False),
            "command line": None,
        }
        for who, role in [("viewer", "viewer"), ("editor", "editor"), ("owner", "owner"), ("inactive owner", "owner")]:
            SourceAccess.objects.create(source=source, user=self.people[who], role=role)
        for group, who, role in [(viewers, "group viewer", "viewer"), (editors, "group editor", "editor")]:
            SourceAccess.objects.create(source=source, group=group, role=role)
            self.people[who].groups.add(group)
        # Rights in another source say nothing of this one; a second grant does not double what is found.
        other = make_source(owner=self.people["stranger"], name="Theirs")
        self.people["viewer"].groups.add(viewers)
        self.images = {
            "listed": make_image(source, "listed.jpg"),
            "waiting": make_image(source, "waiting.jpg", state="waiting"),
            "hidden": make_image(source, "hidden.jpg", hidden=True),
            **{state: make_image(source, f"{state}.jpg", state=state) for state in UNLISTED[1:]},
        }
        self.elsewhere = make_image(other, "elsewhere.jpg")
        ids = [image.pk for image in self.images.values()]
        row = np.zeros((len(ids), look_space().dim), dtype=np.float32)
        row[:, 0] = 1
        embeddings.record(look_space(), np.array(ids), row)
        changes.record(Change.Kind.IMAGES, [*ids, self.elsewhere.pk])
        self.names = {image.pk: name for name, image in self.images.items()}

    def named(self, ids) -> set[str]:
        found = [int(i) for i in ids]
        assert len(found) == len(set(found)), "an image is found twice"
        return {self.names[i] for i in found if i in self.names}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=PEOPLE)
def who(request) -> str:
    return request.param


def expected(who: str, kind: str) -> set[str]:
    """Names of the images of our source that this person finds in a listing, or by asking for a kind."""
    if kind == "listed":
        return {"listed", "waiting"} if who in READERS else set()
    if kind == "all":
        return {"listed", "waiting", *UNLISTED} if who in READERS else set()
    return {kind} if who in EDITORS else set()


def test_the_querysets(world, who) -> None:
    user = world.people[who]
    visible = Image.objects.visible_to(user)
    assert world.named(visible.values_list("pk", flat=True)) == expected(who, "all")
    assert world.named(visible.listed().values_list("pk", flat=True)) == expected(who, "listed")
    editable = set(world.images) if who in EDITORS else set()
    assert world.named(Image.objects.editable_by(user).values_list("pk", flat=True)) == editable
    assert (world.elsewhere in visible) == (who in {"staff", "command line", "stranger"})
    assert world.named(i.pk for i in visible.in_order_of([*world.names, *world.names])[: len(world.names)]) == expected(
        who, "all"
    )


def test_the_sources(world, who) -> None:
    user = world.people[who]
    if user is None or not user.pk:
        return
    reads = who in READERS - {"staff"} or who == "inactive owner"
    edits = who in EDITORS - {"staff"} or who == "inactive owner"
    assert ("Ours" in readable_sources(user).values_list("name", flat=True)) == reads
    assert ("Ours" in editable_sources(user).values_list("name", flat=True)) == edits
    names = list(readable_sources(user).values_list("name", flat=True))
    assert len(names) == len(set(names))


def test_the_bitmaps(world, who) -> None:
    library = get_library()
    assert world.named(np.flatnonzero(library.visible(world.people[who]))) == expected(who, "listed")


@pytest.mark.parametrize("text", ["", "rating:0", "name:jpg", "jpg", "blue", "blue jpg", "-snow", "-is:hidden"])
def test_what_is_found(world, who, text: str) -> None:
    page = find(parse(text), world.people[who], limit=100)
    assert world.named(hit.id for hit in page.hits) == expected(who, "listed")
    assert page.total == len(page.hits) and page.dropped == 0
    assert page.covered <= page.of


@pytest.mark.parametrize("kind", UNLISTED)
@pytest.mark.parametrize("words", ["", "blue ", "jpg ", "name:jpg "])
def test_what_is_found_by_asking(world, who, kind: str, words: str) -> None:
    page = find(parse(f"{words}is:{kind}"), world.people[who], limit=100)
    assert world.named(hit.id for hit in page.hits) == expected(who, kind)


def test_filtered(world, who) -> None:
    user = world.people[who]
    for kind in ("listed", *UNLISTED):
        terms = [] if kind == "listed" else [filters.term("is", kind)]
        assert world.named(filters.filtered(terms, user).values_list("pk", flat=True)) == expected(who, kind)
    by_name = filters.narrow(filters.filtered([], user), [Term("called", "jpg")], user)
    assert world.named(by_name.values_list("pk", flat=True)) == expected(who, "listed")


@pytest.mark.parametrize("kind", ["listed", *UNLISTED])
def test_examples(world, who, kind: str) -> None:
    query = Query(like=(world.images[kind].pk,))
    if who in EDITORS or (who in READERS and kind == "listed"):
        assert find(query, world.people[who]).total
    else:
        with pytest.raises(BadQuery, match="that you may see"):
            find(query, world.people[who])


def test_counts_and_choices(world, who) -> None:
    user = world.people[who]
    source = filters.get("source")
    assert source is not None and source.choices is not None
    counted = {choice.value: choice.count for choice in source.choices(user)}
    assert counted.get("Ours", 0) == len(expected(who, "listed"))
    page = find(Query(), user)
    elsewhere = who in {"staff", "command line", "stranger"}
    assert page.of == len(expected(who, "listed")) + elsewhere


def test_verbs(world, who) -> None:
    user = world.people[who]
    ids = list(world.names)
    if who in EDITORS:
        action = curation.tag(ids, "seen", user)
        assert action is not None and action.count == len(ids)
    else:
        with pytest.raises(NotAllowed):
            curation.tag(ids, "seen", user)


def test_access_that_is_taken_away_counts_at_once(world) -> None:
    viewer = world.people["viewer"]
    viewer.groups.clear()
    assert find(parse("blue"), viewer, limit=1).hits
    SourceAccess.objects.filter(user=viewer).delete()
    assert find(parse("blue"), viewer, offset=1, limit=1).hits == []
    assert find(parse("blue"), viewer).hits == []
