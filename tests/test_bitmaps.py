"""The library's flags follow the change log and agree with the database after anything."""

from __future__ import annotations

import numpy as np
import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search import changes
from search.bitmaps import Library, get_library
from search.models import Change, Embedding, EmbeddingSpace, Image, SourceAccess
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


def ids_of(bitmap: np.ndarray) -> list[int]:
    return np.flatnonzero(bitmap).tolist()


def note(*images: Image) -> None:
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, [image.pk for image in images])


def test_visible_is_what_the_person_may_see_and_is_listed() -> None:
    owner, viewer, stranger, staff = make_user(), make_user(), make_user(), make_user(staff=True)
    shared, other = make_source(owner=owner, viewer=viewer), make_source(owner=stranger)
    first, second, third = make_image(shared), make_image(shared, hidden=True), make_image(other)
    make_image(shared, state=Image.State.REMOVED)
    make_image(shared, state=Image.State.MISSING)
    make_image(shared, state=Image.State.UNREADABLE)
    waiting = make_image(shared, state=Image.State.WAITING)
    library = get_library()
    assert ids_of(library.visible(owner)) == ids_of(library.visible(viewer)) == [first.pk, waiting.pk]
    assert ids_of(library.visible(stranger)) == [third.pk]
    assert ids_of(library.visible(staff)) == ids_of(library.visible(None)) == [first.pk, third.pk, waiting.pk]
    assert ids_of(library.visible(make_user())) == []
    assert ids_of(library.visible(AnonymousUser())) == []
    assert second.pk < library.size


def test_access_through_a_group_and_its_end_are_seen_at_once() -> None:
    user, group = make_user(), Group.objects.create(name="family")
    source = make_source()
    image = make_image(source)
    library = get_library()
    before = library.number
    assert ids_of(library.visible(user)) == []
    access = SourceAccess.objects.create(source=source, group=group)
    user.groups.add(group)
    assert ids_of(library.visible(user)) == [image.pk]
    access.delete()
    assert ids_of(library.visible(user)) == []
    assert Change.objects.filter(kind=Change.Kind.ACCESS, number__gt=before).count() == 3


def test_changes_are_followed_without_loading_anew(django_assert_num_queries) -> None:
    image = make_image()
    library = get_library()
    assert ids_of(library.visible(None)) == [image.pk]
    Image.objects.filter(pk=image.pk).update(hidden=True)
    late = make_image()
    note(image, late)
    with django_assert_num_queries(3):  # the last number, the log, the rows it speaks of
        library.refresh()
    assert ids_of(library.visible(None)) == [late.pk]
    with django_assert_num_queries(1):
        library.refresh()


def test_a_purged_image_and_a_pruned_log_are_noticed() -> None:
    first, second = make_image(), make_image()
    library = get_library()
    note(first)
    library.refresh()
    first_id = first.pk
    first.delete()
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, [first_id])
    library.refresh()
    assert ids_of(library.visible(None)) == [second.pk]
    Image.objects.filter(pk=second.pk).update(hidden=True)
    for _ in range(5):
        note(second)
    changes.prune(keep=1)
    library.refresh()
    assert ids_of(library.visible(None)) == []


def test_embedded_follows_the_log_for_each_space() -> None:
    images = [make_image() for _ in range(4)]
    a, b = (EmbeddingSpace.objects.create(name=n, encoder=n, key=n, label=n, dim=4, text=False) for n in ("one", "two"))
    library = get_library()
    assert ids_of(library.embedded(a.pk)) == ids_of(library.embedded(b.pk)) == []
    with transaction.atomic():
        Embedding.objects.create(image=images[1], space=a, crc32=1)
        changes.record(Change.Kind.EMBEDDINGS, [images[1].pk], space=a.pk)
    late = make_image()
    with transaction.atomic():
        Embedding.objects.create(image=late, space=a, crc32=1)
        changes.record(Change.Kind.EMBEDDINGS, [late.pk], space=a.pk)
        changes.record(Change.Kind.IMAGES, [late.pk])
    library.refresh()
    assert ids_of(library.embedded(a.pk)) == [images[1].pk, late.pk]
    assert ids_of(library.embedded(b.pk)) == []
    with transaction.atomic():
        Embedding.objects.filter(image=late).delete()
        changes.record(Change.Kind.EMBEDDINGS, [late.pk], space=a.pk)
    library.refresh()
    assert ids_of(library.embedded(a.pk)) == [images[1].pk]
    assert len(library.embedded(a.pk)) == library.size


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["add", "hide", "show", "remove", "purge", "refresh"]), st.integers(0, 30))))
def test_following_equals_loading_anew(steps: list[tuple[str, int]]) -> None:
    source = make_source()
    made: list[int] = []
    library = Library()
    for what, pick in steps:
        if what == "refresh":
            library.refresh()
            continue
        with transaction.atomic():
            if what == "add" or not made:
                made.append(make_image(source).pk)
                touched = made[-1]
            else:
                touched = made[pick % len(made)]
                rows = Image.objects.filter(pk=touched)
                if what == "purge":
                    rows.delete()
                elif what == "remove":
                    rows.update(state=Image.State.REMOVED)
                else:
                    rows.update(hidden=what == "hide")
            changes.record(Change.Kind.IMAGES, [touched])
    library.refresh()
    anew = Library()
    anew.refresh()
    assert ids_of(library.visible(None)) == ids_of(anew.visible(None))
    assert ids_of(anew.visible(None)) == list(Image.objects.listed().order_by("pk").values_list("pk", flat=True))
