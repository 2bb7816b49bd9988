"""Favourites, comments, albums and the tags themselves: what they do, for whom, and what they say when they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from search import albums, curation, personal, tagging
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


@pytest.fixture
def anna() -> Any:
    return make_user("anna")


@pytest.fixture
def bert() -> Any:
    return make_user("bert")


@pytest.fixture
def images(anna: Any) -> list[Image]:
    source = make_source(owner=anna)
    return [make_image(source) for _ in range(5)]


def order(album: Album) -> list[int]:
    return list(album.entries.values_list("image", flat=True))


# --- favourites and comments ------------------------------------------------------------------------


def test_favourites_are_each_persons_own_and_need_no_right_to_edit(anna: Any, bert: Any, images: list[Image]) -> None:
    SourceAccess.objects.create(source=images[0].source, user=bert)
    done = personal.favourite([image.pk for image in images[:2]], bert)
    assert done is not None and done.count == 2 and done.summary == "Made 2 pictures your favourites"
    assert not Favourite.objects.filter(user=anna).exists()
    assert personal.favourite([images[0].pk], bert) is None, "it was one already"
    with pytest.raises(NotAllowed):
        curation.undo(done, anna)
    assert curation.undo(done, bert) is not None and not Favourite.objects.exists()


def test_what_one_may_not_see_is_left_out_of_personal_verbs(bert: Any, images: list[Image]) -> None:
    own = make_image(make_source(owner=bert))
    done = personal.comment([images[0].pk, own.pk], "Hello", bert)
    assert done is not None and done.count == 1 and done.details["skipped"] == 1
    with pytest.raises(NotAllowed):
        personal.favourite([images[0].pk], bert)


def test_only_the_author_edits_a_comment_and_staff_may_delete_it(anna: Any, bert: Any, images: list[Image]) -> None:
    SourceAccess.objects.create(source=images[0].source, user=bert, role="owner")
    personal.comment([images[0].pk], "  Two \r\nlines\x07 ", anna)
    written = Comment.objects.get()
    assert written.text == "Two\nlines"
    for verb in (lambda: personal.edit_comment(written, "x", bert), lambda: personal.delete_comment(written, bert)):
        with pytest.raises(NotAllowed):
            verb()
    assert personal.edit_comment(written, "Better", anna) is not None
    written.refresh_from_db()
    assert written.text == "Better" and written.edited_at is not None
    deleted = personal.delete_comment(written, make_user(staff=True))
    assert deleted is not None and not Comment.objects.exists()
    with pytest.raises(NotAllowed):
        curation.undo(deleted, bert)
    assert curation.undo(deleted, anna) is not None and Comment.objects.get().text == "Better"


def test_a_comment_that_was_edited_since_is_not_deleted_by_the_undo(anna: Any, images: list[Image]) -> None:
    done = personal.comment([image.pk for image in images], "Same", anna)
    assert done is not None
    personal.edit_comment(Comment.objects.get(image=images[0]), "Other", anna)
    assert curation.undo(done, anna) is not None
    assert list(Comment.objects.values_list("image", "text")) == [(images[0].pk, "Other")]


@pytest.mark.parametrize("text", ["", " \n\t ", "x" * 10_001])
def test_comments_that_cannot_be_kept_say_why(anna: Any, images: list[Image], text: str) -> None:
    with pytest.raises(BadValue, match="comment"):
        personal.comment([images[0].pk], text, anna)


def test_personal_verbs_on_the_command_line_ask_for_a_person(images: list[Image]) -> None:
    with pytest.raises(BadValue, match="--user"):
        personal.favourite([images[0].pk], None)


# --- albums -----------------------------------------------------------------------------------------


def test_an_album_keeps_the_order_given_and_the_scores(anna: Any, images: list[Image]) -> None:
    album, _ = albums.create("Best", anna)
    ids = [images[n].pk for n in (3, 0, 4)]
    done = albums.add(album, [*ids, ids[0]], anna, scores=np.array([0.9, np.nan, 0.5, 0.1]))
    assert done is not None and done.count == 3 and order(album) == ids
    assert dict(album.entries.values_list("image", "score")) == {ids[0]: 0.9, ids[1]: None, ids[2]: 0.5}
    again = albums.add(album, [images[1].pk, ids[2]], anna)
    assert again is not None and again.count == 1 and order(album) == [*ids, images[1].pk]


def test_images_are_moved_within_an_album_and_back(anna: Any, images: list[Image]) -> None:
    album, _ = albums.create("Best", anna)
    a, b, c, d, e = (image.pk for image in images)
    albums.add(album, [a, b, c, d, e], anna)
    first = albums.move(album, [d, b], anna, before=a)
    assert order(album) == [b, d, a, c, e]
    albums.move(album, [b], anna, before=None)
    assert order(album) == [d, a, c, e, b]
    assert albums.move(album, [b], anna, before=None) is None, "nothing changes"
    albums.reorder(album, [e, d], anna)
    assert order(album) == [e, a, c, d, b]
    for action in Action.objects.order_by("-pk")[:2]:
        curation.undo(action, anna)
    assert first is not None and curation.undo(first, anna) is not None
    assert order(album) == [a, b, c, d, e]
    with pytest.raises(BadValue, match="not being moved"):
        albums.move(album, [b], anna, before=b)


def test_what_left_an_album_comes_back_to_its_place_with_its_score(anna: Any, images: list[Image]) -> None:
    album, _ = albums.create("Best", anna)
    ids = [image.pk for image in images]
    albums.add(album, ids, anna, scores=np.arange(5.0))
    done = albums.take_out(album, ids[1:3], anna)
    assert done is not None and order(album) == [ids[0], *ids[3:]]
    assert curation.undo(done, anna) is not None
    assert order(album) == ids and album.entries.get(image=ids[2]).score == 2.0


def test_a_deleted_album_comes_back_whole(anna: Any, bert: Any, images: list[Image]) -> None:
    album, _ = albums.create("Best", anna, "For grandma.")
    albums.add(album, [images[2].pk, images[0].pk], anna)
    albums.share(album, bert, "editor", anna)
    albums.set_cover(album, images[0].pk, anna)
    done = albums.delete(album, anna)
    assert done is not None and not Album.objects.exists() and not AlbumEntry.objects.exists()
    assert curation.undo(done, anna) is not None
    back = Album.objects.get()
    assert (back.pk, back.description, back.cover_id) == (album.pk, "For grandma.", images[0].pk)
    assert order(back) == [images[2].pk, images[0].pk] and back.shares.get().role == "editor"


def test_undo_does_not_make_a_second_album_of_one_name(anna: Any) -> None:
    album, _ = albums.create("Best", anna)
    done = albums.delete(album, anna)
    other, _ = albums.create("Best", anna)
    assert done is not None and curation.undo(done, anna) is None
    assert list(Album.objects.all()) == [other]


def test_albums_are_for_their_owner_and_those_they_are_shared_with(anna: Any, bert: Any, images: list[Image]) -> None:
    SourceAccess.objects.create(source=images[0].source, user=bert)
    album, _ = albums.create("Best", anna)
    ids = [image.pk for image in images]
    albums.add(album, ids[:2], anna)
    assert not Album.objects.visible_to(bert).exists()
    for verb in (
        lambda: albums.add(album, ids, bert),
        lambda: albums.delete(album, bert),
        lambda: albums.share(album, bert, "editor", bert),
    ):
        with pytest.raises(NotAllowed):
            verb()
    albums.share(album, bert, "viewer", anna)
    assert list(Album.objects.visible_to(bert)) == [album] and not Album.objects.editable_by(bert).exists()
    with pytest.raises(NotAllowed):
        albums.take_out(album, ids, bert)
    albums.share(album, bert, "editor", anna)
    added = albums.add(album, ids[2:3], bert)
    assert added is not None and order(album) == ids[:3]
    with pytest.raises(NotAllowed):
        albums.describe(album, bert, name="Mine now")
    albums.share(album, bert, "", anna)
    assert not AlbumShare.objects.exists()
    with pytest.raises(NotAllowed):
        curation.undo(added, bert)
    assert not Album.objects.visible_to(make_user()).exists()


@pytest.mark.parametrize("name", ["", "  ", "x" * 201])
def test_albums_names_that_cannot_be_kept_say_why(anna: Any, name: str) -> None:
    with pytest.raises(BadValue, match="album"):
        albums.create(name, anna)


def test_two_albums_of_one_person_have_two_names(anna: Any, bert: Any) -> None:
    albums.create("Best", anna)
    with pytest.raises(BadValue, match="already"):
        albums.create(" Best ", anna)
    albums.create("Best", bert)


# --- the tags themselves ----------------------------------------------------------------------------


def test_renaming_a_tag_keeps_its_images_and_is_undone(anna: Any, images: list[Image]) -> None:
    curation.tag([images[0].pk], "bech", anna)
    done = tagging.rename(Tag.objects.get(), "Beach", anna)
    assert done is not None and Tag.objects.get().key == "beach"
    assert curation.undo(done, anna) is not None and Tag.objects.get().name == "bech"


def test_renaming_a_keyword_of_files_outlives_reading_them_again(anna: Any, images: list[Image]) -> None:
    tag = Tag.objects.create(name="strand")
    ImageTag.objects.create(image=images[0], tag=tag, origin="file")
    done = tagging.rename(tag, "beach", anna)
    assert done is not None
    assert list(ImageTag.objects.values_list("tag__name", "origin")) == [("beach", "person")]
    assert list(RefusedKeyword.objects.values_list("image", "tag__name")) == [(images[0].pk, "strand")]
    assert curation.undo(done, anna) is not None
    assert list(ImageTag.objects.values_list("tag__name", "origin")) == [("strand", "file")]
    assert not RefusedKeyword.objects.exists()


def test_renaming_to_a_name_that_is_there_merges(anna: Any, images: list[Image]) -> None:
    a, b = images[0].pk, images[1].pk
    curation.tag([a, b], "bech", anna)
    curation.tag([b], "beach", anna)
    done = tagging.rename(Tag.objects.get(key="bech"), "Beach", anna)
    assert done is not None and "Merged" in done.summary
    assert sorted(ImageTag.objects.values_list("image", "tag__name")) == [(a, "beach"), (b, "beach")]
    assert not Tag.objects.filter(key="bech").exists()
    assert curation.undo(done, anna) is not None
    assert sorted(ImageTag.objects.values_list("tag__key", flat=True)) == ["beach", "bech", "bech"]


def test_merging_takes_children_along_and_never_makes_a_circle(anna: Any, images: list[Image]) -> None:
    for name in ("places", "spots", "italy", "rome"):
        curation.tag([images[0].pk], name, anna)
    tag = {one.key: one for one in Tag.objects.all()}
    tagging.set_parent(tag["italy"], "spots", anna)
    tagging.set_parent(tag["places"], "spots", anna)
    tagging.set_parent(tag["rome"], "italy", anna)
    with pytest.raises(BadValue, match="above"):
        tagging.set_parent(tag["italy"], "rome", anna)
    tagging.merge([tag["spots"]], "places", anna)
    parents = dict(Tag.objects.values_list("key", "parent__key"))
    assert parents == {"places": None, "italy": "places", "rome": "italy"}


def test_a_tag_others_use_too_is_changed_on_ones_own_images_only(anna: Any, bert: Any, images: list[Image]) -> None:
    theirs = make_image(make_source(owner=bert))
    curation.tag([images[0].pk], "beach", anna)
    curation.tag([theirs.pk], "beach", bert)
    tag = Tag.objects.get()
    for verb in (lambda: tagging.set_colour(tag, "red", anna), lambda: tagging.set_parent(tag, "places", anna)):
        with pytest.raises(NotAllowed):
            verb()
    renamed = tagging.rename(tag, "seaside", anna)
    assert renamed is not None and renamed.count == 1
    assert dict(ImageTag.objects.values_list("image", "tag__name")) == {images[0].pk: "seaside", theirs.pk: "beach"}
    assert tagging.delete(Tag.objects.get(key="seaside"), anna) is not None
    with pytest.raises(NotAllowed):
        tagging.delete(tag, anna)
    assert ImageTag.objects.get().image_id == theirs.pk


def test_a_deleted_tag_comes_back_with_its_colour_and_children(anna: Any, images: list[Image]) -> None:
    curation.tag([images[0].pk], ["places", "italy"], anna)
    places = Tag.objects.get(key="places")
    tagging.set_colour(places, "green", anna)
    tagging.set_parent(Tag.objects.get(key="italy"), "Places", anna)
    done = tagging.delete(places, anna)
    assert done is not None and Tag.objects.get().parent is None
    assert curation.undo(done, anna) is not None
    assert Tag.objects.get(key="places").colour == "green" and Tag.objects.get(key="italy").parent.key == "places"  # type: ignore[union-attr]


def test_tags_that_nobody_uses_belong_to_who_made_them(anna: Any, bert: Any, images: list[Image]) -> None:
    curation.tag([images[0].pk], "italy", anna)
    tagging.set_parent(Tag.objects.get(), "Secret places", anna)
    empty = Tag.objects.get(key="secret places")
    with pytest.raises(NotAllowed):
        tagging.delete(empty, bert)
    with pytest.raises(NotAllowed):
        tagging.set_colour(empty, "red", bert)
    assert tagging.delete(empty, anna) is not None


def test_a_colour_that_is_none_is_refused(anna: Any, images: list[Image]) -> None:
    curation.tag([images[0].pk], "italy", anna)
    with pytest.raises(BadValue, match="red"):
        tagging.set_colour(Tag.objects.get(), "#ff0000", anna)
