"""The pages of albums, tags and saved searches; comments and favourites on an image's page; nobody else's is shown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from search import albums, changes, curation, personal, selection, tagging
from search.models import Action, Album, Change, Comment, Favourite, Image, SavedSearch, SourceAccess, Tag
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def images(owner: Any) -> list[Image]:
    source = make_source(owner=owner, name="Photos")
    return [make_image(source) for _ in range(6)]


@pytest.fixture
def stranger() -> Client:
    client = Client()
    client.force_login(make_user("bert"))
    return client


def shown(client: Client, address: str) -> str:
    response = client.get(address, follow=True)
    assert response.status_code == 200, address
    return response.content.decode()


def undo_newest(client: Client) -> None:
    client.post(f"/action/{Action.objects.latest('pk').pk}/undo/")


# --- one image --------------------------------------------------------------------------------------


def test_comments_and_favourites_on_the_page_of_an_image(signed_in: Client, owner: Any, images: list[Image]) -> None:
    page = f"/image/{images[0].pk}/"
    signed_in.post(f"{page}comment/", {"text": "Grandma <3"})
    written = Comment.objects.get()
    assert "Grandma &lt;3" in shown(signed_in, page)
    signed_in.post(f"{page}edit_comment/", {"comment": written.pk, "text": "Grandma!"})
    assert "edited" in shown(signed_in, page)
    signed_in.post(f"{page}delete_comment/", {"comment": written.pk})
    assert not Comment.objects.exists()
    undo_newest(signed_in)
    assert Comment.objects.get().text == "Grandma!"
    assert "Your favourite" not in shown(signed_in, page)
    signed_in.post(f"{page}favourite/")
    assert "Your favourite" in shown(signed_in, page) and Favourite.objects.get().user == owner
    assert signed_in.post(f"{page}edit_comment/", {"comment": "x", "text": "y"}).status_code == 404


def test_who_may_look_may_comment_but_not_change_others_words(
    signed_in: Client, owner: Any, images: list[Image], stranger: Client
) -> None:
    page = f"/image/{images[0].pk}/"
    assert stranger.post(f"{page}comment/", {"text": "Hello"}).status_code == 404
    personal.comment([images[0].pk], "Mine", owner)
    person = make_user("carl")
    SourceAccess.objects.create(source=images[0].source, user=person)
    carl = Client()
    carl.force_login(person)
    carl.post(f"{page}comment/", {"text": "Carl was here"})
    seen = shown(carl, page)
    assert "Mine" in seen and "Carl was here" in seen and seen.count("delete_comment") == 2
    theirs = Comment.objects.get(text="Mine")
    assert carl.post(f"{page}delete_comment/", {"comment": theirs.pk}).status_code == 403
    assert carl.post(f"{page}edit_comment/", {"comment": theirs.pk, "text": "x"}).status_code == 403


def test_filters_of_favourites_comments_and_albums(signed_in: Client, owner: Any, images: list[Image]) -> None:
    ids = [image.pk for image in images]
    personal.favourite(ids[:1], owner)
    personal.favourite(ids[5:], make_user(staff=True))
    personal.comment(ids[1:2], "Look", owner)
    album, _ = albums.create("The best", owner)
    albums.add(album, ids[2:4], owner)

    def found(query: str) -> list[int]:
        return sorted(tile.image.pk for tile in signed_in.get(f"/browse/?q={query}").context["tiles"])

    assert found("is:favourite") == ids[:1] and found("is:commented") == ids[1:2]
    assert found('album:"the BEST"') == ids[2:4] and len(found('-album:"The best"')) == 4
    assert signed_in.get("/browse/?q=album:nothing").status_code == 422


# --- albums -----------------------------------------------------------------------------------------


def test_an_album_is_made_filled_ordered_described_and_deleted(
    signed_in: Client, owner: Any, images: list[Image]
) -> None:
    ids = [image.pk for image in images]
    signed_in.post("/albums/", {"name": "Best"})
    album = Album.objects.get()
    assert "Nothing in it yet" in shown(signed_in, f"/albums/{album.pk}/")
    albums.add(album, ids[::-1], owner, scores=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4])  # type: ignore[arg-type]

    def order() -> list[int]:
        return [tile.image.pk for tile in signed_in.get(f"/albums/{album.pk}/").context["tiles"]]

    page = shown(signed_in, f"/albums/{album.pk}/")
    assert order() == ids[::-1] and '<span class="only-heard">Place </span>1</span>' in page
    assert 'title="cosine similarity when added: 0.90"' in page and "Match" not in page
    selection.replace(owner, albums.listed_ids(album, owner)[3:5])
    signed_in.post(f"/albums/{album.pk}/move/", {"to": "1"})
    assert order() == [ids[2], ids[1], ids[5], ids[4], ids[3], ids[0]]
    undo_newest(signed_in)
    assert order() == ids[::-1]
    signed_in.post(f"/albums/{album.pk}/sort/", {"by": "oldest"})
    assert order() == ids
    signed_in.post(f"/albums/{album.pk}/describe/", {"name": "Very best", "description": "Of <all>"})
    page = shown(signed_in, f"/albums/{album.pk}/")
    assert "Very best" in page and "Of &lt;all&gt;" in page
    signed_in.post(f"/albums/{album.pk}/cover/")
    assert str(Album.objects.get().cover_id) in shown(signed_in, "/albums/")
    first = shown(signed_in, f"/image/{ids[1]}/?in=album-{album.pk}")
    assert f"/image/{ids[0]}/?in=album-" in first and f"/image/{ids[2]}/?in=album-" in first
    signed_in.post(f"/albums/{album.pk}/delete/")
    assert "No albums yet" in shown(signed_in, "/albums/")
    undo_newest(signed_in)
    assert order() == ids


@pytest.mark.parametrize(
    ("verb", "fields", "said"),
    [
        ("describe", {"name": " "}, "needs a name"),
        ("move", {"to": "1"}, "Select pictures of this album first"),
        ("sort", {"by": "magic"}, "put in order by one of"),
        ("share", {"person": "nobody", "role": "viewer"}, "nobody named"),
        ("share", {"person": "anna", "role": "viewer"}, "theirs already"),
        ("cover", {}, "Select pictures of this album first"),
    ],
)
def test_what_cannot_be_done_to_an_album_is_said(
    signed_in: Client, owner: Any, verb: str, fields: dict[str, str], said: str
) -> None:
    album, _ = albums.create("Best", owner)
    page = signed_in.post(f"/albums/{album.pk}/{verb}/", fields, follow=True).content.decode()
    assert said in page and Action.objects.count() == 1


def test_albums_of_others_are_not_there_until_shared(
    signed_in: Client, owner: Any, images: list[Image], stranger: Client
) -> None:
    album, _ = albums.create("Secret best", owner)
    albums.add(album, [image.pk for image in images], owner)
    for address in (f"/albums/{album.pk}/", f"/albums/{album.pk}/delete/"):
        assert stranger.get(address).status_code in {404, 405}
    assert stranger.post(f"/albums/{album.pk}/delete/").status_code == 404
    assert "Secret best" not in shown(stranger, "/albums/")
    signed_in.post(f"/albums/{album.pk}/share/", {"person": "bert", "role": "viewer"})
    page = shown(stranger, f"/albums/{album.pk}/")
    assert "Secret best" in page and f"/thumbnail/{images[0].pk}.jpg" not in page, (
        "sharing shows no more than one may see"
    )
    assert "Change the album" not in page
    assert stranger.post(f"/albums/{album.pk}/delete/").status_code == 403
    assert "<strong>0</strong> pictures" in page and "0 pictures" in shown(stranger, "/albums/")


def test_an_album_is_paged_in_its_order(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    ids = [make_image(source).pk for _ in range(170)]
    album, _ = albums.create("Many", owner)
    albums.add(album, ids[::-1], owner)
    address, seen = f"/albums/{album.pk}/", []
    while address:
        context = signed_in.get(address).context
        seen += [tile.image.pk for tile in context["tiles"]]
        last, address = context["tiles"][-1].place, context["more_href"]
    assert seen == ids[::-1] and last == 170


# --- tags and searches ------------------------------------------------------------------------------


def test_tags_stand_under_each_other_with_their_counts(signed_in: Client, owner: Any, images: list[Image]) -> None:
    ids = [image.pk for image in images]
    curation.tag(ids[:3], "Italy", owner)
    curation.tag(ids[3:5], "Rome", owner)
    rome = Tag.objects.get(key="rome")
    signed_in.post(f"/tags/{rome.pk}/parent/", {"parent": "Italy"})
    signed_in.post(f"/tags/{rome.pk}/colour/", {"colour": "teal"})
    curation.hide(ids[:1], owner)
    page = shown(signed_in, "/tags/")
    found = re.findall(r'<li>\s*((?:<span class="indent".*?)?).*?tag=(\w+)">.*?small">(\d+)<', page, re.DOTALL)
    assert [(bool(indent), name, count) for indent, name, count in found] == [
        (False, "Italy", "2"), (True, "Rome", "2")
    ]  # fmt: skip
    assert "dot teal" in page
    tiles = signed_in.get("/browse/?tag=Italy").context["tiles"]
    assert sorted(tile.image.pk for tile in tiles) == ids[1:5], "what stands under a tag is found with it"
    assert "Rome" in shown(signed_in, "/tags/?part=OM") and "Italy</a>" not in shown(signed_in, "/tags/?part=OM")


def test_a_tag_is_renamed_merged_and_deleted_on_its_page(signed_in: Client, owner: Any, images: list[Image]) -> None:
    curation.tag([images[0].pk], "bech", owner)
    tag = Tag.objects.get()
    page = signed_in.post(f"/tags/{tag.pk}/rename/", {"name": "Beach"}, follow=True).content.decode()
    assert "Renamed the tag “bech” to “Beach”" in page
    signed_in.post(f"/tags/{tag.pk}/merge/", {"into": "sea"})
    assert [one.name for one in images[0].tags.all()] == ["sea"]
    sea = Tag.objects.get(key="sea")
    assert "Deleted the tag" in signed_in.post(f"/tags/{sea.pk}/delete/", follow=True).content.decode()
    undo_newest(signed_in)
    assert [one.name for one in images[0].tags.all()] == ["sea"]
    page = signed_in.post(f"/tags/{sea.pk}/parent/", {"parent": "Sea"}, follow=True).content.decode()
    assert "stands above" in page


def test_tags_of_others_are_not_there(signed_in: Client, owner: Any, images: list[Image], stranger: Client) -> None:
    curation.tag([images[0].pk], ["secret", "shared word"], owner)
    tagging.set_parent(Tag.objects.get(key="shared word"), "Secret group", owner)
    person = make_user("carl")
    own = make_image(make_source(owner=person))
    carl = Client()
    carl.force_login(person)
    carl.post(f"/image/{own.pk}/tag/", {"tag": "shared word"})
    for client in (stranger, carl):
        assert "ecret" not in shown(client, "/tags/")
        assert client.get(f"/tags/{Tag.objects.get(key='secret').pk}/").status_code == 404
        assert client.post(f"/tags/{Tag.objects.get(key='secret').pk}/delete/").status_code == 404
    page = shown(carl, f"/tags/{Tag.objects.get(key='shared word').pk}/")
    assert "ecret" not in page and "Others use this tag too" in page
    assert "Secret group" in shown(signed_in, "/tags/"), "who made it finds it"


def test_a_viewer_sees_tags_without_the_means_to_change_them(owner: Any, images: list[Image]) -> None:
    curation.tag([images[0].pk], "beach", owner)
    viewer, client = make_user("vera"), Client()
    SourceAccess.objects.create(source=images[0].source, user=viewer, role="viewer")
    client.force_login(viewer)
    beach = Tag.objects.get()
    assert "beach" in shown(client, "/tags/") and "Change" not in shown(client, "/tags/")
    page = shown(client, f"/tags/{beach.pk}/").partition("<main")[2].partition("</main>")[0]
    assert "None of the pictures that have this tag is yours to edit." in page
    assert not any(word in page for word in ("Rename", "Merge", "Delete", "Colour"))
    for verb, given in [("rename", {"name": "x"}), ("merge", {"into": "x"}), ("delete", {})]:
        assert client.post(f"/tags/{beach.pk}/{verb}/", given).status_code == 403
    Tag.objects.create(name="unused", key="unused", made_by=viewer)
    own = make_image(make_source(owner=viewer))
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, [own.pk])
    curation.tag([own.pk], "mine", viewer)
    assert shown(client, "/tags/").count(">Change<") == 2
    curation.tag([own.pk], "beach", viewer)
    assert shown(client, "/tags/").count(">Change<") == 3 and "Rename" in shown(client, f"/tags/{beach.pk}/")


def test_a_search_is_saved_opened_and_deleted(signed_in: Client, owner: Any, stranger: Client) -> None:
    signed_in.post("/searches/", {"name": "Good ones", "query": "q=rating%3A%3E%3D4&order=oldest", "page": "search"})
    page = shown(signed_in, "/searches/")
    assert "Good ones" in page and "Good ones" not in shown(stranger, "/searches/")
    (address,) = re.findall(r'<p><a href="([^"]+)">Good ones', page)
    assert "rating:&gt;=4" in shown(signed_in, address.replace("&amp;", "&")).replace("rating:&amp;gt;", "rating:&gt;")
    saved = SavedSearch.objects.get()
    assert stranger.post("/searches/", {"delete": saved.pk}).status_code == 404
    signed_in.post("/searches/", {"delete": saved.pk})
    assert not SavedSearch.objects.exists()
    undo_newest(signed_in)
    assert SavedSearch.objects.get().name == "Good ones"
    for query, said in [("", "nothing to save"), ("rating=9", "rating: takes"), ("q=rating%3A4", "already")]:
        data = {"name": "Good ones", "query": query}
        assert said in signed_in.post("/searches/", data, follow=True).content.decode()


@pytest.mark.parametrize("address", ["/albums/", "/tags/", "/searches/", "/albums/{}/", "/image/{}/"])
def test_pages_cost_the_same_for_2_and_50_rows(signed_in: Client, owner: Any, address: str) -> None:
    source = make_source(owner=owner)
    album, _ = albums.create("All", owner)
    image = make_image(source)
    address = address.format(image.pk if "image" in address else album.pk)
    costs = []
    for number in (2, 48):
        for _ in range(number):
            one = make_image(source)
            albums.add(album, [one.pk], owner)
            albums.add(albums.create(f"Album {one.pk}", owner)[0], [one.pk], owner)
            curation.tag([one.pk, image.pk], f"tag {one.pk}", owner)
            personal.comment([image.pk], f"comment {one.pk}", owner)
            personal.save_search(f"search {one.pk}", f"q=tag:{one.pk}", "search", owner)
        for _ in range(2):  # whatever is made once is made
            signed_in.get(address)
        with CaptureQueriesContext(connection) as captured:
            signed_in.get(address)
        costs.append(len(captured))
    assert costs[0] == costs[1]


def test_undo_of_a_toast_works_on_every_page_and_leads_where_something_is(signed_in: Client) -> None:
    page = signed_in.post("/albums/", {"name": "Coast"}, follow=True)
    album = Album.objects.get(name="Coast")
    here = page.redirect_chain[-1][0]
    said = page.content.decode()
    toast = said[said.index('class="toast ') :]
    assert "hx-post" not in toast and f'name="next" value="{here}"' in toast, "there is no part of the page to swap"
    action = Action.objects.latest("id")
    after = signed_in.post(f"/action/{action.pk}/undo/", {"next": here}, follow=True)
    assert after.redirect_chain == [("/albums/", 302)] and after.status_code == 200
    assert not Album.objects.filter(pk=album.pk).exists() and "Undid: Made the album" in after.content.decode()
