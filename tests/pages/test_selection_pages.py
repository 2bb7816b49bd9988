"""Selecting without a script: ticks travel with the form; all of a query is fixed as ids; nobody else's is touched."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from search import curation, errands, keys, selection
from search.models import Action, Album, Comment, Errand, Favourite, Image, ImageTag, Selection, Tag
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def images(owner: Any) -> list[Image]:
    source = make_source(owner=owner, name="Photos")
    return [make_image(source) for _ in range(6)]


def pks(images: list[Image]) -> list[int]:
    return [image.pk for image in images]


def chosen(user: Any) -> list[int]:
    return selection.of(user).ids.tolist()


def do(client: Client, verb: str, **fields: Any) -> str:
    return client.post("/selection/do/", {"verb": verb, "next": "/browse/", **fields}, follow=True).content.decode()


def test_ticks_on_a_page_are_acted_on_and_stay_selected(signed_in: Client, owner: Any, images: list[Image]) -> None:
    ids = pks(images)
    page = do(signed_in, "tag", ids=ids[:2], shown=",".join(map(str, ids)), tag="beach, sun")
    assert "Tagged 2 pictures “beach”, “sun”" in page and "Undo" in page
    assert set(ImageTag.objects.values_list("image", flat=True)) == set(ids[:2])
    assert chosen(owner) == ids[:2]
    assert page.count(" checked>") == 2, "the grid shows what is selected"
    do(signed_in, "rate", ids=ids[1:3], shown=",".join(map(str, ids)), rating=4)
    assert chosen(owner) == ids[1:3], "what was shown and is not ticked any more is not selected any more"
    assert list(Image.objects.filter(rating=4).order_by("pk").values_list("pk", flat=True)) == ids[1:3]


def test_what_is_selected_elsewhere_stays(signed_in: Client, owner: Any, images: list[Image]) -> None:
    ids = pks(images)
    selection.change(owner, add=ids[:2])
    signed_in.post("/selection/", {"ids": ids[3:4], "shown": ",".join(map(str, ids[3:]))})
    assert chosen(owner) == [*ids[:2], ids[3]]
    signed_in.post("/selection/", {"add": f"{ids[4]},{ids[5]}", "drop": str(ids[0])}, headers={"HX-Request": "true"})
    assert chosen(owner) == [ids[1], *ids[3:]]


@pytest.mark.parametrize(
    ("verb", "fields", "holds"),
    [
        ("favourite", {}, lambda ids: Favourite.objects.filter(image__in=ids).count() == len(ids)),
        ("comment", {"text": "Look."}, lambda ids: Comment.objects.filter(image__in=ids).count() == len(ids)),
        ("typed", {"text": "Look."}, lambda ids: Comment.objects.filter(image__in=ids).count() == len(ids)),
        ("title", {"title": "One"}, lambda ids: Image.objects.filter(title="One").count() == len(ids)),
        ("hide", {}, lambda ids: Image.objects.filter(hidden=True).count() == len(ids)),
        ("remove", {}, lambda ids: Image.objects.filter(state="removed").count() == len(ids)),
        ("album", {"album_name": "Best"}, lambda ids: [e.image_id for e in Album.objects.get().entries.all()] == ids),
    ],
)  # fmt: skip
def test_every_verb_and_its_undo(
    signed_in: Client, owner: Any, images: list[Image], verb: str, fields: dict[str, str], holds: Any
) -> None:
    ids = pks(images)[3::-1]
    selection.change(owner, add=ids)
    page = do(signed_in, verb, **fields)
    assert holds(ids), page
    (number,) = set(re.findall(r"/action/(\d+)/undo/", page))
    signed_in.post(f"/action/{number}/undo/")
    assert not holds(ids)


def test_all_of_a_query_are_the_ids_of_that_moment(signed_in: Client, owner: Any, images: list[Image]) -> None:
    ids = pks(images)
    curation.tag(ids[:4], "beach", owner)
    signed_in.post("/selection/all/", {"query": "q=tag%3Abeach", "page": "browse"})
    assert sorted(chosen(owner)) == ids[:4]
    curation.tag(ids[4:], "beach", owner)
    page = do(signed_in, "rate", rating=5)
    assert "Rated 4 pictures 5 stars" in page
    signed_in.post("/selection/all/", {"none": "1"})
    assert chosen(owner) == [] and "Nothing is selected" in signed_in.get("/selection/").content.decode()


def test_all_results_are_selected_beyond_the_page(signed_in: Client, owner: Any, settings: Any) -> None:
    settings.IMAGESEARCH_MAX_RESULTS = 70
    source = make_source(owner=owner)
    everything = {make_image(source).pk for _ in range(130)}
    page = signed_in.get("/").content.decode()
    assert "Select all" in page
    signed_in.post("/selection/all/", {"query": "", "page": "search"})
    assert set(chosen(owner)) == everything, "without words all that pass the filters, whatever is shown"


def test_nobody_selects_or_changes_what_they_may_not(client: Client, signed_in: Client, images: list[Image]) -> None:
    bert = make_user("bert")
    own = make_image(make_source(owner=bert))
    looked_at = make_image(make_source(viewer=bert))
    other = Client()
    other.force_login(bert)
    ids = pks(images)
    other.post("/selection/", {"ids": [*ids, own.pk, looked_at.pk]})
    assert chosen(bert) == [own.pk, looked_at.pk]
    Selection.objects.filter(user=bert).delete()
    page = do(other, "rate", ids=[*ids, own.pk, looked_at.pk], rating=3)
    assert "Rated 1 picture 3 stars; 1 picture left out" in page
    assert list(Image.objects.filter(rating=3)) == [own]
    other.post("/selection/all/", {"query": "", "page": "browse"})
    assert sorted(chosen(bert)) == sorted([own.pk, looked_at.pk])
    selection.change(bert, drop=[own.pk])
    answer = other.post("/selection/do/", {"verb": "hide"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("verb", "fields", "said"),
    [
        ("tag", {"tag": " , "}, "at least one tag"),
        ("rate", {"rating": "9"}, "0 to 5"),
        ("rate", {}, "0 to 5"),
        ("album", {}, "Choose an album"),
        ("album", {"album": "999999"}, "Choose an album"),
        ("comment", {"text": " "}, "at least one character"),
        ("typed", {}, "press the button"),
        ("typed", {"text": "a", "tag": "b"}, "press the button"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    signed_in: Client, owner: Any, images: list[Image], verb: str, fields: dict[str, str], said: str
) -> None:
    selection.change(owner, add=pks(images))
    assert said in do(signed_in, verb, **fields)
    assert not Action.objects.exists() and chosen(owner) == pks(images)


def test_nothing_selected_and_unknown_verbs(signed_in: Client, owner: Any, images: list[Image]) -> None:
    assert "Nothing is selected" in do(signed_in, "hide")
    selection.change(owner, add=pks(images))
    assert signed_in.post("/selection/do/", {"verb": "explode"}).status_code == 404
    assert signed_in.get("/selection/do/").status_code == 405


def test_files_are_read_and_embedded_again(signed_in: Client, owner: Any, images: list[Image]) -> None:
    from ingestion import ledger
    from ingestion.models import Work

    make_image(make_source(viewer=owner))
    selection.change(owner, add=Image.objects.values_list("pk", flat=True))
    assert "6 pictures wait to be read again; 1 picture left out" in do(signed_in, "read_again")
    assert Work.objects.filter(stage="read").count() == 6
    assert "6 pictures wait for new vectors" in do(signed_in, "embed_again")
    assert Work.objects.filter(stage__startswith="embed:").count() >= 6
    assert ledger.counts() == ledger.count_anew()


def test_with_a_script_the_bar_alone_is_answered(signed_in: Client, owner: Any, images: list[Image]) -> None:
    selection.change(owner, add=pks(images))
    answer = signed_in.post("/selection/do/", {"verb": "rate", "rating": 2}, headers={"HX-Request": "true"})
    page = answer.content.decode()
    assert "<html" not in page and 'id="selection"' in page and "Rated 6 pictures 2 stars" in page
    answer = signed_in.post("/selection/do/", {"verb": "hide"}, headers={"HX-Request": "true"})
    assert answer["HX-Refresh"] == "true" and chosen(owner) == []
    assert "Hid 6 pictures" in signed_in.get("/browse/").content.decode()


def test_the_page_of_the_selection_costs_the_same_for_2_and_50(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    costs = []
    for number in (2, 48):
        selection.change(owner, add=[make_image(source).pk for _ in range(number)])
        with CaptureQueriesContext(connection) as captured:
            signed_in.get("/selection/")
        costs.append(len(captured))
    assert costs[0] == costs[1]


# --- many, in portions ------------------------------------------------------------------------------


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "AT_ONCE", 3)
    monkeypatch.setattr(errands, "PORTION", 2)
    monkeypatch.setattr(errands, "start", lambda errand: None)


@pytest.mark.usefixtures("small_portions")
def test_many_are_done_in_portions_as_one_action(signed_in: Client, owner: Any, images: list[Image]) -> None:
    ids = pks(images)
    curation.rate([ids[1]], 4, owner)
    Action.objects.all().delete()
    selection.change(owner, add=ids)
    assert "6 pictures: this takes a moment" in do(signed_in, "rate", rating=4)
    errand = Errand.objects.get()
    assert errands._portion(errand.pk) and Image.objects.filter(rating=4).count() == 2
    assert "2 of 6 pictures" in signed_in.get("/browse/").content.decode()
    errands.stop(errand)
    errands.run_portions(errand.pk)
    assert "Stopped after 2 of 6" in signed_in.get("/selection/").content.decode()
    signed_in.post("/selection/errand/", {"what": "go"})
    errands.run_portions(errand.pk)
    errand.refresh_from_db()
    assert (errand.state, errand.done) == ("done", 6)
    action = Action.objects.get()
    assert (action.summary, action.count) == ("Rated 5 pictures 4 stars", 5)
    fragment = signed_in.get("/selection/errand/", headers={"HX-Request": "true"}).content.decode()
    assert "Done: Rated 5 pictures 4 stars" in fragment and "every 1s" not in fragment
    assert curation.undo(action, owner) is not None
    assert list(Image.objects.filter(rating=4).values_list("pk", flat=True)) == [ids[1]]


@pytest.mark.usefixtures("small_portions")
def test_an_errand_keeps_order_and_scores_of_an_album(owner: Any, images: list[Image]) -> None:
    import numpy as np

    from search import albums

    album, _ = albums.create("Best", owner)
    ids = np.array(pks(images)[::-1])
    selected = selection.replace(owner, ids, np.linspace(0.9, 0.4, 6))
    errand = errands.do("album", selected, {"album": album.pk}, owner)
    assert isinstance(errand, Errand)
    errands.run_portions(errand.pk)
    assert list(album.entries.values_list("image", flat=True)) == ids.tolist()
    assert [round(score, 2) for score in album.entries.values_list("score", flat=True)] == [
        0.9,
        0.8,
        0.7,
        0.6,
        0.5,
        0.4,
    ]


@pytest.mark.usefixtures("small_portions")
def test_an_errand_leaves_out_whole_portions_that_are_not_ones_own(owner: Any, images: list[Image]) -> None:
    theirs = [make_image(make_source(viewer=owner)).pk for _ in range(4)]
    selected = selection.change(owner, add=[*theirs, *pks(images)[:2]])
    errand = errands.do("hide", selected, {}, owner)
    assert isinstance(errand, Errand)
    errands.run_portions(errand.pk)
    errand.refresh_from_db()
    assert errand.state == "done" and "not yours" in errand.message
    assert Image.objects.filter(hidden=True).count() == 2


@pytest.mark.usefixtures("small_portions")
def test_an_errand_of_somebody_else_is_not_shown_or_stopped(owner: Any, images: list[Image]) -> None:
    errand = errands.do("hide", selection.change(owner, add=pks(images)), {}, owner)
    bert = Client()
    bert.force_login(make_user("bert"))
    assert bert.post("/selection/errand/", {"what": "stop"}).status_code == 404
    assert "pictures</p>" not in bert.get("/selection/errand/", headers={"HX-Request": "true"}).content.decode()
    errand.refresh_from_db()  # type: ignore[union-attr]
    assert errand.state == "running"  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
def test_an_errand_runs_in_its_own_thread(owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "AT_ONCE", 3)
    monkeypatch.setattr(errands, "PORTION", 2)
    source = make_source(owner=owner)
    selected = selection.change(owner, add=[make_image(source).pk for _ in range(5)])
    threads = []
    monkeypatch.setattr(errands, "start", lambda errand, real=errands.start: threads.append(real(errand)))
    errand = errands.do("tag", selected, {"names": ["beach"]}, owner)
    threads[0].join(30)
    assert Errand.objects.get(pk=errand.pk).state == "done"  # type: ignore[union-attr]
    assert Tag.objects.get().image_links.count() == 5 and Action.objects.get().count == 5


def test_all_of_a_ranked_search_keeps_its_order_and_scores(signed_in: Client, owner: Any, tmp_path: Any) -> None:
    import numpy as np

    from search.models import Embedding
    from search.query import Query
    from search.retrieval import everything, find
    from search.spaces import look_space
    from search.vectors import get_store

    source = make_source(owner=owner)
    images = [make_image(source) for _ in range(5)]
    space = look_space()
    vectors = np.random.default_rng(3).standard_normal((5, space.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    from search import embeddings

    embeddings.record(space, np.array(pks(images)), vectors, still_mine=lambda ids: ids, within=lambda kept: None)
    assert Embedding.objects.count() == 5 and get_store(space) is not None
    query = Query(like=(images[0].pk,))
    found = everything(query, owner)
    ids, scores = found.ids, found.scores
    page = find(query, owner)
    assert ids.tolist() == [hit.id for hit in page.hits] and len(ids) == 4
    assert scores.tolist() == pytest.approx([hit.score for hit in page.hits])
    signed_in.post("/selection/all/", {"query": f"like={images[0].pk}", "page": "search"})
    assert chosen(owner) == ids.tolist()
    assert selection.of(owner).scores.tolist() == pytest.approx(scores.tolist())


def test_the_bar_offers_viewers_only_what_they_may_do(client: Client, owner: Any) -> None:
    from search.models import SourceAccess

    source = make_source(viewer=owner)
    make_image(source)
    client.force_login(owner)
    refused = ["tag", "untag", "rate", "title", "hide", "unhide", "remove", "restore", "read_again", "embed_again"]
    offered = ["favourite", "unfavourite", "comment", "album", "export"]
    page = client.get("/browse/").content.decode()
    assert not [verb for verb in refused if f'name="verb" value="{verb}"' in page]
    assert not [verb for verb in offered if f'name="verb" value="{verb}"' not in page]
    SourceAccess.objects.update(role=SourceAccess.Role.EDITOR)
    page = client.get("/browse/").content.decode()
    assert not [verb for verb in refused + offered if f'name="verb" value="{verb}"' not in page]


def test_a_page_asks_once_what_is_selected_and_for_no_pictures_when_nothing_is(
    signed_in: Client, owner: Any, images: list[Image]
) -> None:
    def asked(about: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert signed_in.get("/selection/").status_code == 200
        return sum(f'FROM "{about}"' in query["sql"] for query in queries)

    asked("search_selection")
    assert (asked("search_selection"), asked("search_image"), asked("search_errand")) == (1, 0, 1)
    selection.change(owner, add=pks(images)[:2])
    assert (asked("search_selection"), asked("search_image")) == (1, 1)


def test_the_table_of_keys_on_a_page_has_those_that_were_registered_since(
    signed_in: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_keys", list(keys._keys))
    before = signed_in.get("/selection/").content.decode()
    keys.register(keys.GRID, keys.Key("grid", ("%",), "brand-new", "Something new"))
    after = signed_in.get("/selection/").content.decode()
    assert "brand-new" not in before and "brand-new" in after


def test_only_an_errand_that_is_to_be_shown_is_read(owner: Any) -> None:
    def newest() -> tuple[Any, int]:
        with CaptureQueriesContext(connection) as queries:
            found = errands.newest(owner)
        return found and found.pk, len(queries)

    running = {"verb": "hide", "total": 3, "state": Errand.State.RUNNING, "beat_at": timezone.now()}
    made = Errand.objects.create(user=owner, **running)
    Errand.objects.create(user=make_user(), **running)
    assert newest() == (made.pk, 2)
    Errand.objects.filter(pk=made.pk).update(state=Errand.State.DONE)
    assert newest() == (made.pk, 2), "it ended within the last minute"
    Errand.objects.filter(pk=made.pk).update(beat_at=timezone.now() - 2 * errands.SILENT)
    assert newest() == (None, 1)
