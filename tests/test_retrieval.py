"""From a query to a ranked page."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import transaction

from search import changes, curation, embeddings, filters, ranking, retrieval, thumbnails, uploads
from search.encoders import get_encoder
from search.errors import BadQuery, StoreFault
from search.models import Change, Image, SourceAccess, Tag
from search.naming import words_of
from search.query import Query, parse
from search.retrieval import Hit, find, reset_rankings
from search.spaces import activate, ensure_space, look_space
from search.vectors import get_store
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]


def painted(colour: str, spot: str = "grey") -> PIL.Image.Image:
    """Mostly one colour, with a spot of another."""
    picture = PIL.Image.new("RGB", (96, 64), colour)
    PIL.ImageDraw.Draw(picture).ellipse((10, 10, 30, 30), fill=spot)
    return picture


def embed(pictures: dict[Image, PIL.Image.Image], space=None) -> None:
    space = space or look_space()
    encoder = get_encoder(space.encoder)
    vectors = encoder.encode_images([encoder.prepare(picture) for picture in pictures.values()])
    embeddings.record(space, np.array([image.pk for image in pictures], dtype=np.int64), vectors)
    changes.record(Change.Kind.IMAGES, [image.pk for image in pictures])


@pytest.fixture
def owner():
    return make_user()


@pytest.fixture
def source(owner):
    return make_source(owner=owner, name="Photos")


@pytest.fixture
def library(source) -> dict[str, Image]:
    """One image of each colour, named p0.jpg to p7.jpg, the first one the newest."""
    start = datetime(2024, 6, 1, tzinfo=UTC)
    images = {
        colour: make_image(source, f"2024/p{n}.jpg", shown_at=start - timedelta(days=n))
        for n, colour in enumerate(COLOURS)
    }
    embed({image: painted(colour) for colour, image in images.items()})
    return images


def score(hit: Hit) -> float:
    assert hit.score is not None
    return hit.score


def ids(page) -> list[int]:
    return [hit.id for hit in page.hits]


def test_signs_that_every_path_has_are_nobodys_name() -> None:
    assert words_of("a/b - c _ ( . ) 2024/05 !/!") == ["a/b", "c", "2024/05"]


# --- the combined query -------------------------------------------------------------------------------


def reference(positives: list[np.ndarray], negatives: list[np.ndarray]) -> np.ndarray:
    """The contract, written down again in float64."""
    dim = len((positives + negatives)[0])
    total = (np.mean(positives, axis=0) if positives else np.zeros(dim)) - (
        0.5 * np.mean(negatives, axis=0) if negatives else 0
    )
    return total / np.linalg.norm(total)


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("blue", ["blue"], []),
        ("blue; red", ["blue", "red"], []),
        ("blue -green", ["blue"], ["green"]),
        ("-green", [], ["green"]),
        ("blue; red -green not:black", ["blue", "red"], ["green", "black"]),
    ],
)
def test_scores_are_the_cosine_to_the_combined_query(library, owner, text, wanted, unwanted) -> None:
    encoder = get_encoder("look")
    vector = reference(
        [row.astype(np.float64) for row in encoder.encode_texts(wanted)] if wanted else [],
        [row.astype(np.float64) for row in encoder.encode_texts(unwanted)] if unwanted else [],
    )
    expected = {}
    for image in library.values():
        row = get_store(look_space()).get(np.array([image.pk]))[0].astype(np.float64)
        expected[image.pk] = float(row @ vector)
    page = find(parse(text), owner)
    assert ids(page) == sorted(expected, key=expected.__getitem__, reverse=True)
    assert all(type(hit.score) is float and abs(score(hit) - expected[hit.id]) < 1e-6 for hit in page.hits)
    assert page.total == len(COLOURS) and page.unknown_words == [] and page.took_ms > 0


def test_words_likes_and_pictures_are_one_query(library, owner) -> None:
    encoder, store = get_encoder("look"), get_store(look_space())
    token = uploads.keep(_file(painted("purple")), owner).token
    query = Query(phrases=("red",), like=(library["blue"].pk,), unlike=(library["black"].pk,), upload=token)
    page = find(query, owner)
    kept = uploads.pixels(token, owner)
    rows = [
        encoder.encode_texts(["red"])[0],
        encoder.encode_images([encoder.prepare(kept)])[0],
        store.get(np.array([library["blue"].pk]))[0],
    ]
    vector = reference([row.astype(np.float64) for row in rows], [store.get(np.array([library["black"].pk]))[0]])
    assert library["blue"].pk not in ids(page) and len(page.hits) == len(COLOURS) - 1
    for hit in page.hits:
        assert abs(score(hit) - float(store.get(np.array([hit.id]))[0].astype(np.float64) @ vector)) < 1e-6


def test_what_cancels_out_is_a_sentence() -> None:
    row = np.array([1.0, 0.0], dtype=np.float32)
    with pytest.raises(BadQuery, match="cancel each other"):
        ranking.combined([row, -row], [])
    assert ranking.combined([row], [row]).tolist() == [[1.0, 0.0]]
    assert ranking.combined([], [row]).tolist() == [[-1.0, 0.0]]


def _file(picture: PIL.Image.Image) -> io.BytesIO:
    out = io.BytesIO()
    picture.save(out, "PNG")
    out.seek(0)
    return out


def test_an_upload_finds_its_like_and_belongs_to_its_owner(library, owner) -> None:
    token = uploads.keep(_file(painted("green")), owner).token
    assert ids(find(Query(upload=token), owner))[0] == library["green"].pk
    with pytest.raises(BadQuery, match="drop it again"):
        find(Query(upload=token), make_user(staff=True))
    assert ids(find(Query(), None, pictures=[painted("blue")]))[0] == library["blue"].pk


# --- filters and visibility ---------------------------------------------------------------------------


def test_filters_narrow_what_is_ranked(library, owner) -> None:
    curation.rate([library["red"].pk, library["blue"].pk], 4, owner)
    curation.tag([library["red"].pk], "warm", owner)
    assert set(ids(find(parse("blue rating:4"), owner))) == {library["red"].pk, library["blue"].pk}
    assert ids(find(parse("blue rating:4"), owner))[0] == library["blue"].pk
    assert ids(find(parse("blue rating:4 -tag:warm"), owner)) == [library["blue"].pk]
    assert find(parse("blue tag:nothing"), owner).hits == []


@pytest.mark.parametrize("state", ["hidden", "removed", "missing", "unreadable"])
def test_what_is_not_listed_is_found_only_by_asking_and_only_by_editors(library, owner, source, state: str) -> None:
    viewer = make_user()
    SourceAccess.objects.create(source=source, user=viewer)
    gone = library["blue"]
    Image.objects.filter(pk=gone.pk).update(**({"hidden": True} if state == "hidden" else {"state": state}))
    changes.record(Change.Kind.IMAGES, [gone.pk])
    for who in (owner, viewer, None):
        for text in ("blue", "p4", "", "rating:0"):
            assert gone.pk not in ids(find(parse(text), who))
    for text in (f"is:{state}", f"blue is:{state}"):
        assert ids(find(parse(text), owner)) == [gone.pk]
        assert ids(find(parse(text), None)) == [gone.pk]
        assert ids(find(parse(text), viewer)) == []
        assert ids(find(parse(text), AnonymousUser())) == []


def test_a_stranger_finds_nothing(library) -> None:
    for who in (make_user(), AnonymousUser(), make_user(staff=True, is_active=False)):
        for query in (parse("blue"), parse(""), parse("p1"), parse("rating:0")):
            page = find(query, who)
            assert (page.hits, page.total, page.covered, page.of) == ([], 0, 0, 0)


def test_an_image_that_is_hidden_after_ranking_is_dropped_and_counted(library, owner) -> None:
    assert len(find(parse("blue"), owner, limit=4).hits) == 4
    second = ids(find(parse("blue"), owner, offset=4, limit=4))
    curation.hide(second[:1], owner)
    Image.objects.filter(pk=second[1]).delete()
    page = find(parse("blue"), owner, offset=4, limit=4)
    assert ids(page) == second[2:] and page.dropped == 2


def test_an_example_must_be_there_and_visible(library, owner) -> None:
    other = make_image()
    said = set()
    for image_id in (other.pk, 10**12):
        for query in (Query(like=(image_id,)), Query(unlike=(image_id,), phrases=("red",))):
            with pytest.raises(BadQuery) as caught:
                find(query, owner)
            said.add(str(caught.value).replace(str(image_id), "N"))
    assert said == {"There is no picture N that you may see. Take it out of the search."}


def test_a_hidden_example_is_for_editors(library, owner, source) -> None:
    viewer = make_user()
    SourceAccess.objects.create(source=source, user=viewer)
    curation.hide([library["red"].pk], owner)
    assert find(Query(like=(library["red"].pk,)), owner).hits
    with pytest.raises(BadQuery):
        find(Query(like=(library["red"].pk,)), viewer)


# --- names and tags -----------------------------------------------------------------------------------


def test_without_a_vector_words_find_names_titles_folders_and_tags(library, owner, source) -> None:
    beach = make_image(source, "Sommer/STRAẞE/x.jpg", title="Vacances à la mer")
    curation.tag([beach.pk], "Été", owner)
    changes.record(Change.Kind.IMAGES, [beach.pk])
    decomposed = make_image(source, "cafe\u0301 1.jpg".encode())
    changes.record(Change.Kind.IMAGES, [decomposed.pk])
    for text in ("strasse", "SOMMER", "ÉTÉ", "mer vacances", "x.jpg straße été"):
        page = find(parse(text), owner)
        assert ids(page) == [beach.pk], text
        assert page.hits[0].score is None and page.unknown_words
    assert ids(find(parse("CAFÉ"), owner)) == [decomposed.pk]
    assert ids(find(parse("mer strasse nowhere"), owner)) == []
    assert ids(find(parse("100% _"), owner)) == []


def test_known_words_rank_and_unknown_ones_come_first(library, owner) -> None:
    for colour in ("yellow", "purple"):
        curation.tag([library[colour].pk], "flower", owner)
    page = find(parse("purple flower"), owner)
    assert page.unknown_words == ["flower"]
    assert ids(page)[:2] == [library["purple"].pk, library["yellow"].pk]
    assert len(page.hits) == len(set(ids(page))) == len(COLOURS)
    rest = [score(hit) for hit in page.hits[2:]]
    assert rest == sorted(rest, reverse=True) and None not in [hit.score for hit in page.hits]


def test_images_without_a_vector_are_found_by_name_without_a_score(library, owner, source) -> None:
    late = make_image(source, "blue-harbour.jpg")
    changes.record(Change.Kind.IMAGES, [late.pk])
    page = find(parse("blue"), owner)
    assert ids(page)[-1] == late.pk and page.hits[-1].score is None
    assert (page.covered, page.of) == (len(COLOURS), len(COLOURS) + 1)
    page = find(parse("blue harbour"), owner)
    assert ids(page)[0] == late.pk and page.hits[0].score is None and page.hits[1].score is not None


def test_unwanted_unknown_words_leave_out_what_carries_them(library, owner) -> None:
    curation.tag([library["red"].pk], "party", owner)
    assert library["red"].pk not in ids(find(parse("red -party"), owner))
    assert set(ids(find(parse("-party"), owner))) == {image.pk for c, image in library.items() if c != "red"}


# --- order, pages, limits -----------------------------------------------------------------------------


def test_without_words_newest_come_first_or_last(library, owner) -> None:
    newest = [library[colour].pk for colour in COLOURS]
    page = find(Query(), owner)
    assert ids(page) == newest and {hit.score for hit in page.hits} == {None}
    assert ids(find(parse("order:oldest"), owner)) == newest[::-1]
    assert ids(find(parse("blue order:newest"), owner)) == newest
    assert find(parse("blue order:newest"), owner).hits[0].score is not None
    assert ids(find(parse("date:2024-05-30..2024-05-31"), owner)) == newest[1:3]


def test_pages_do_not_overlap_and_hold_everything_even_while_images_arrive(library, owner, source) -> None:
    seen: list[int] = []
    offset: int | None = 0
    while offset is not None:
        page = find(parse("blue"), owner, offset=offset, limit=3)
        seen += ids(page)
        offset = page.next_offset
        new = make_image(source)
        embed({new: painted("blue")})
    assert sorted(seen) == sorted(image.pk for image in library.values())
    assert len(ids(find(parse("blue"), owner))) == len(COLOURS) + 3


def test_a_fresh_search_sees_what_has_changed_at_once(library, owner) -> None:
    assert find(parse("tag:new"), owner).hits == []
    curation.tag([library["red"].pk], "new", owner)
    assert ids(find(parse("tag:new"), owner)) == [library["red"].pk]
    assert ids(find(parse("blue tag:new"), owner)) == [library["red"].pk]


def test_rankings_of_two_people_are_not_mixed_up(library, owner) -> None:
    stranger = make_user()
    find(parse("blue"), owner, limit=2)
    page = find(parse("blue"), stranger, offset=2, limit=2)
    assert (page.hits, page.total, page.dropped) == ([], 0, 0)


def test_results_end_at_the_setting(library, owner, settings) -> None:
    settings.IMAGESEARCH_MAX_RESULTS = 3
    for text in ("blue", "", "p", "rating:0"):
        page = find(parse(text), owner, limit=100)
        assert len(page.hits) == page.total == 3 and page.capped, text
    settings.IMAGESEARCH_MAX_RESULTS = 1000
    reset_rankings()
    assert not find(parse("blue"), owner).capped


def test_the_same_asked_again_ranks_again_only_when_something_was_written(library, owner, monkeypatch) -> None:
    ranked = []
    best = retrieval._best
    monkeypatch.setattr(retrieval, "_best", lambda *args: ranked.append(1) or best(*args))
    first = find(parse("blue"), owner)
    assert ids(find(parse("blue"), owner)) == ids(first) and len(ranked) == 1
    with transaction.atomic():
        Image.objects.filter(pk=first.hits[0].id).update(hidden=True)
        changes.record(Change.Kind.IMAGES, [first.hits[0].id])
    assert ids(find(parse("blue"), owner)) == ids(first)[1:] and len(ranked) == 2
    find(parse("blue"), owner)
    find(parse("blue"), None)
    assert len(ranked) == 3, "what one person was shown is not what another is"


def test_who_becomes_staff_is_shown_what_staff_sees_at_once(library, owner) -> None:
    guest = make_user("guest")
    assert not find(parse("blue"), guest).hits and not find(parse("blue"), guest).of
    guest.is_staff = True
    guest.save()
    assert ids(find(parse("blue"), guest)) == ids(find(parse("blue"), owner))
    guest.is_staff = False
    guest.save()
    assert not find(parse("blue"), guest).of and not find(parse("blue"), AnonymousUser()).of


def test_a_filter_of_which_the_log_may_say_nothing_is_asked_every_time(library, owner, monkeypatch) -> None:
    shown = [library["red"].pk]
    asked = replace(filters.get("rating"), kept=False, apply=lambda images, value, user: images.filter(pk__in=shown))
    monkeypatch.setitem(filters._registry, "rating", asked)
    assert ids(find(parse("blue rating:5"), owner)) == shown
    shown.append(library["blue"].pk)
    assert set(ids(find(parse("blue rating:5"), owner))) == set(shown)


def test_the_pages_after_one_that_was_kept_have_their_time(library, owner, monkeypatch) -> None:
    find(parse("blue"), owner, limit=3)
    results = retrieval._rankings._results
    for key, one in list(results.items()):
        results[key] = replace(one, made=one.made - retrieval.KEPT_SECONDS + 5)
    find(parse("blue"), owner, limit=3)
    assert [time.monotonic() - one.made < 60 for key, one in results.items() if "nearest" not in key] == [True]


def test_after_a_full_ranking_hits_by_name_still_follow(library, owner, source, settings) -> None:
    settings.IMAGESEARCH_MAX_RESULTS = 3
    late = [make_image(source, f"blue-{n}.jpg", shown_at=datetime(2020, 1, n + 1, tzinfo=UTC)) for n in range(2)]
    changes.record(Change.Kind.IMAGES, [image.pk for image in late])
    for limit in (1, 2, 3, 4, 10):
        seen: list[Hit] = []
        offset: int | None = 0
        while offset is not None:
            page = find(parse("blue"), owner, offset=offset, limit=limit)
            seen += page.hits
            offset = page.next_offset
        assert [hit.id for hit in seen[3:]] == [late[1].pk, late[0].pk], limit
        assert [hit.score is None for hit in seen] == [False] * 3 + [True] * 2 and page.total == 5
    reset_rankings()
    assert [hit.id for hit in find(parse("blue"), owner, offset=3).hits] == [late[1].pk, late[0].pk]


def test_a_page_costs_the_same_number_of_queries_for_few_and_many(
    library, owner, django_assert_max_num_queries
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    counts = set()
    for limit in (1, 8):
        find(parse("blue -tag:nope"), owner)
        with CaptureQueriesContext(connection) as queries:
            page = find(parse("blue -tag:nope"), owner, limit=limit)
            for hit in page.hits:
                assert hit.image.name and hit.image.path_text and hit.image.title == "" and hit.image.source_id
        counts.add(len(queries))
    assert len(counts) == 1 and counts.pop() < 12


# --- spaces -------------------------------------------------------------------------------------------


@pytest.fixture
def model_space(dev_clip: str):
    space = ensure_space(get_encoder(dev_clip), dev_clip)
    activate(space)
    return space


def test_a_model_finds_by_meaning_and_covers_what_it_has_read(library, owner, source, model_space, shared) -> None:
    folder = shared / "photos" / "captioned" / "flickr"
    photos = sorted(folder.rglob("*.jpg"))[:24]
    images = {make_image(source, photo.name): PIL.Image.open(photo).convert("RGB") for photo in photos}
    embed(images, model_space)
    page = find(parse("a dog running; dogs"), owner)
    assert page.space == model_space and page.unknown_words == []
    assert (page.covered, page.of) == (24, 24 + len(COLOURS))
    assert len(page.hits) == 24
    encoder = get_encoder(model_space.encoder)
    texts = [encoder.encode_texts([text])[0].astype(np.float64) for text in ("a dog running", "dogs")]
    rows = get_store(model_space).get(np.array([image.pk for image in images])).astype(np.float64)
    expected = rows @ reference(texts, [])
    best = [image.pk for image in images][int(expected.argmax())]
    assert ids(page)[0] == best and abs(score(page.hits[0]) - expected.max()) < 1e-6


def test_an_example_the_space_does_not_hold_yet_is_encoded_from_its_thumbnail(library, owner, model_space) -> None:
    embed({library[colour]: painted(colour) for colour in ("red", "blue")}, model_space)
    fresh = library["orange"]
    page = find(Query(like=(fresh.pk,)), owner)
    assert page.hits == [] and f"Image {fresh.pk} has not been read yet" in page.notices[0]
    thumbnails.save(fresh.pk, thumbnails.encode(painted("orange")))
    page = find(Query(like=(fresh.pk,)), owner)
    assert ids(page)[0] == library["red"].pk and page.notices == []
    thumbnails.save(fresh.pk, b"broken")
    assert "has not been read yet" in find(Query(like=(fresh.pk,)), owner).notices[0]


def test_a_model_that_is_gone_leaves_the_look(library, owner, model_space, monkeypatch) -> None:
    model_space.encoder = "local-dir:/nowhere/at-all"
    model_space.save()
    page = find(parse("blue"), owner)
    assert page.space == look_space() and ids(page)[0] == library["blue"].pk
    assert page.notices and page.notices[0].startswith("Searched by colours and layout only. ")


def test_a_vector_the_database_does_not_believe_is_never_found(library, owner) -> None:
    space = look_space()
    victim = library["blue"]
    victim.embeddings.all().delete()
    changes.record(Change.Kind.EMBEDDINGS, [victim.pk], space=space.pk)
    assert victim.pk not in ids(find(parse("blue"), owner))


def test_encoded_words_are_kept_within_bounds(monkeypatch) -> None:
    encoder = get_encoder("look")
    calls: list[str] = []

    class Counting:
        key, text = "counting", True

        def encode_texts(self, texts):
            calls.extend(texts)
            return encoder.encode_texts(texts)

    monkeypatch.setattr(ranking, "_CACHED_TEXTS", 2)
    counting: Any = Counting()
    for text in ("red", "red", "blue", "green", "blue", "red"):
        ranking.encoded(counting, text)
    assert calls == ["red", "blue", "green", "red"]


def test_tags_are_not_revealed_through_names_of_what_one_may_not_see(library, owner) -> None:
    hidden_source = make_image(path="secret.jpg")
    curation.tag([hidden_source.pk], "secret", None)
    changes.record(Change.Kind.IMAGES, [hidden_source.pk])
    assert Tag.objects.get().name == "secret"
    assert find(parse("secret"), owner).hits == [] and find(parse("tag:secret"), owner).hits == []


def test_an_embedding_file_that_is_gone_is_said_and_not_taken_for_nothing_found(library, owner) -> None:
    get_store(look_space()).file.path.unlink()
    for query in (parse("red"), Query(like=(library["red"].pk,))):
        with pytest.raises(StoreFault, match="is not there"):
            find(query, owner)
    assert find(Query(), owner).total == len(library)
