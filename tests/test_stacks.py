"""Stacks: which files are one picture, how a crawl keeps that true, and what search and curation make of it."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestion.models import Crawl
from ingestion.register import crawl, source_for
from ingestion.stacking import File, stacks_of
from search import changes, curation, embeddings, errands, exports, retrieval, selection, stacks
from search.bitmaps import get_library
from search.errors import BadValue, NotAllowed
from search.models import Change, Image
from search.query import Query, parse
from search.spaces import look_space
from tests.conftest import reset_factories
from tests.crawling import as_read, go, root  # noqa: F401
from tests.factories import make_image, make_source, make_user
from tests.photos import jpeg, put

pytestmark = pytest.mark.django_db


def stacked(*names: str) -> dict[str, str]:
    """{name: the name of its cover}, in every order the same."""
    files = [File(number, name) for number, name in enumerate(names, 1)]
    found = {names[pk - 1]: names[cover - 1] for pk, cover in stacks_of(files).items()}
    for seed in range(5):
        mixed = random.Random(seed).sample(files, len(files))
        assert {names[pk - 1]: names[cover - 1] for pk, cover in stacks_of(mixed).items()} == found
    return found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["IMG_1.CR2", "IMG_1.JPG"], {"IMG_1.CR2": "IMG_1.JPG"}),
        (["img_1.nef", "IMG_1.jpeg"], {"img_1.nef": "IMG_1.jpeg"}),
        (["a.dng", "a.heic"], {"a.dng": "a.heic"}),
        (["IMG_1234.HEIC", "IMG_E1234.HEIC"], {"IMG_1234.HEIC": "IMG_E1234.HEIC"}),
        (["IMG_1234.HEIC", "IMG_E1234.JPG", "IMG_1234.DNG"],
         {"IMG_1234.HEIC": "IMG_E1234.JPG", "IMG_1234.DNG": "IMG_E1234.JPG"}),
        (["PXL_1.jpg", "PXL_1-edited.jpg"], {"PXL_1.jpg": "PXL_1-edited.jpg"}),
        (["a.jpg", "a.heic"], {}),
        (["a.jpg", "a.png"], {}),
        (["a.cr2", "a.dng"], {}),
        (["a.cr2", "b.jpg"], {}),
        (["IMG_E1234.JPG"], {}),
        (["edited.jpg", "-edited.jpg"], {}),
        (["IMG_1.mov", "IMG_1.jpg"], {}),
    ],
)  # fmt: skip
def test_files_of_one_picture_are_known_by_their_names(names: list[str], expected: dict[str, str]) -> None:
    assert stacked(*names) == expected


# --- the crawl

PATHS = [f"{folder}{name}" for folder in ("", "a/") for name in ("x.jpg", "x.dng", "x-edited.jpg", "y.nef", "y.jpg")]


def standing() -> dict[str, str | None]:
    """{path: path of its cover} of what is there."""
    rows = Image.objects.exclude(state="missing").values_list("path", "stack_of__path")
    return {os.fsdecode(path): os.fsdecode(cover) if cover else None for path, cover in rows}


def from_scratch(paths: list[str], theirs: set[str] = frozenset()) -> dict[str, str | None]:  # type: ignore[assignment]
    """The same, as the names of what is there say, folder by folder; `theirs` were decided by a person."""
    wanted: dict[str, str | None] = dict.fromkeys(paths)
    for folder in {os.path.dirname(path) for path in paths}:
        mine = [path for path in sorted(paths) if os.path.dirname(path) == folder and path not in theirs]
        for pk, cover in stacks_of(File(n, os.path.basename(path)) for n, path in enumerate(mine)).items():
            wanted[mine[pk]] = mine[cover]
    return wanted


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "drop", "move", "crawl"]), st.sampled_from(PATHS), st.sampled_from(PATHS)),
        min_size=4, max_size=14,
    )
)  # fmt: skip
def test_any_arrivals_moves_and_deletions_end_where_a_first_crawl_would(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "a").mkdir()
    put(folder / "keep.jpg", jpeg(99))
    with transaction.atomic():
        sid = transaction.savepoint()
        source = source_for(folder)[0]
        for number, (what, path, other) in enumerate(steps):
            if what == "put" and not (folder / path).exists():
                put(folder / path, jpeg(number))
            elif what == "drop":
                (folder / path).unlink(missing_ok=True)
            elif what == "move" and (folder / path).exists() and not (folder / other).exists():
                (folder / path).rename(folder / other)
            elif what == "crawl":
                crawl(source, accept_missing=True)
                as_read()
        crawl(source, accept_missing=True)
        there = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        assert standing() == from_scratch(there)
        transaction.savepoint_rollback(sid)


def test_a_person_s_word_outlives_crawls(root: Path, go: Any) -> None:  # noqa: F811
    for number, name in enumerate(["x.jpg", "x.dng", "y.jpg", "y.nef", "z.jpg"]):
        put(root / name, jpeg(number))
    go()
    assert standing()["x.dng"] == "x.jpg" and standing()["y.nef"] == "y.jpg"
    by_name = {image.name: image for image in Image.objects.all()}
    apart = stacks.unstack([by_name["x.jpg"].pk], None)
    stacks.set_cover(by_name["y.nef"], None)
    mine = stacks.stack([by_name["z.jpg"].pk, by_name["x.jpg"].pk], None)
    put(root / "x-edited.jpg", jpeg(9))
    go(rehash=True)
    expected = {"x.jpg": "z.jpg", "x.dng": None, "y.jpg": "y.nef", "y.nef": None, "z.jpg": None, "x-edited.jpg": None}
    assert standing() == expected
    assert apart is not None and mine is not None
    curation.undo(mine, None)
    curation.undo(apart, None)
    go(rehash=True)
    assert standing()["x.jpg"] == standing()["x.dng"] == "x-edited.jpg"


def test_what_a_cut_off_crawl_left_is_stacked_by_the_next(root: Path, go: Any, monkeypatch: Any) -> None:  # noqa: F811
    from ingestion import register

    put(root / "x.jpg", jpeg(1))
    put(root / "x.dng", jpeg(2))

    def cut(*args: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(register, "restack", cut)
        with pytest.raises(KeyboardInterrupt):
            go()
    assert Crawl.objects.get().state == "failed" and standing()["x.dng"] is None
    go()
    assert standing()["x.dng"] == "x.jpg"


def test_an_unchanged_folder_costs_no_look_at_its_stacks(root: Path, go: Any, monkeypatch: Any) -> None:  # noqa: F811
    from ingestion import register

    put(root / "x.jpg", jpeg(1))
    put(root / "x.dng", jpeg(2))
    go()
    as_read()
    asked: list[Any] = []
    monkeypatch.setattr(register, "restack", lambda source, some: asked.append(list(some)))
    go()
    assert asked == []


def test_with_stacks_off_nothing_is_stacked(root: Path, go: Any, settings: Any) -> None:  # noqa: F811
    settings.IMAGESEARCH_STACKS = False
    put(root / "x.jpg", jpeg(1))
    put(root / "x.dng", jpeg(2))
    go()
    assert standing() == {"x.jpg": None, "x.dng": None}
    settings.IMAGESEARCH_STACKS = True
    go(rehash=True)
    assert standing()["x.dng"] == "x.jpg"
    settings.IMAGESEARCH_STACKS = False
    assert stacks.folded([], None).count() == 2
    assert retrieval.find(Query(), None).total == 2


# --- in lists and results


@pytest.fixture
def anna() -> Any:
    return make_user("anna")


@pytest.fixture
def source(anna: Any) -> Any:
    return make_source(owner=anna, name="photos")


def note(*images: Image) -> None:
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, [image.pk for image in images])


def picture(source: Any, name: str, cover: Image | None = None, angle: float = 0.0, **fields: Any) -> Image:
    """An image with a vector at this angle from the first axis."""
    format = "RAW" if name.endswith(("nef", "dng")) else "JPEG"
    origin = "file" if cover else ""
    image = make_image(source, name, **{"format": format, "stack_of": cover, "stack_origin": origin, **fields})
    row = np.zeros((1, look_space().dim), np.float32)
    row[0, 0], row[0, 1] = np.cos(angle), np.sin(angle)
    embeddings.record(look_space(), np.array([image.pk]), row)
    note(image)
    return image


def found(text: str, user: Any, **options: Any) -> list[str]:
    return [hit.image.name for hit in retrieval.find(parse(text, {}), user, **options).hits]


def like(image: Image, user: Any, **fields: Any) -> retrieval.Page:
    return retrieval.find(Query(like=(image.pk,), min=0, **fields), user)


def test_a_stack_is_one_tile_and_is_counted_once(anna: Any, source: Any) -> None:
    cover = picture(source, "x.jpg")
    picture(source, "x.nef", cover)
    picture(source, "x-edited.nef", cover)
    single = picture(source, "y.jpg")
    page = retrieval.find(Query(), anna)
    assert {hit.id for hit in page.hits} == {cover.pk, single.pk} and page.total == 2
    assert set(stacks.folded([], anna).values_list("pk", flat=True)) == {cover.pk, single.pk}
    assert stacks.count(get_library(), anna) == 2


def test_a_ranked_stack_stands_once_at_the_place_of_its_best(anna: Any, source: Any) -> None:
    example = picture(source, "example.jpg", angle=0.0)
    far = picture(source, "x.jpg", angle=1.2)
    picture(source, "x.nef", far, angle=0.1)
    middle = picture(source, "y.jpg", angle=0.5)
    page = like(example, anna)
    assert [hit.id for hit in page.hits] == [far.pk, middle.pk] and page.total == 2
    assert page.hits[0].score == pytest.approx(np.cos(0.1), abs=1e-5)
    assert [hit.id for hit in like(far, anna).hits] == [middle.pk, example.pk], "not its own raw file"


def test_filters_apply_to_members_and_the_cover_stands_for_those_that_pass_with_it(anna: Any, source: Any) -> None:
    cover = picture(source, "x.jpg", rating=5)
    raw = picture(source, "x.nef", cover, rating=0)
    second = picture(source, "x-2.nef", cover, rating=0)
    assert found("format:raw", anna) == [raw.name]
    assert set(stacks.folded(parse("format:raw", {}).filters, anna).values_list("pk", flat=True)) == {raw.pk}
    assert found("rating:5", anna) == ["x.jpg"]
    assert found("name:x-2", anna) == [second.name]
    example = picture(source, "example.jpg", angle=0.3)
    page = retrieval.find(parse("format:raw", {"like": [str(example.pk)]}), anna)
    assert page.total == 1 and page.hits[0].id in {raw.pk, second.pk}


def test_a_cover_that_is_not_listed_covers_nothing(anna: Any, source: Any) -> None:
    cover = picture(source, "x.jpg")
    raw = picture(source, "x.nef", cover)
    example = picture(source, "example.jpg")
    for change in ({"hidden": True}, {"hidden": False, "state": "missing"}, {"state": "unreadable"}):
        Image.objects.filter(pk=cover.pk).update(**change)
        note(cover)
        assert {hit.id for hit in retrieval.find(Query(), anna).hits} == {raw.pk, example.pk}
        assert [hit.id for hit in like(example, anna).hits] == [raw.pk]
        assert stacks.count(get_library(), anna) == 2
    Image.objects.filter(pk=cover.pk).update(state="ready")
    note(cover)
    assert {hit.id for hit in retrieval.find(Query(), anna).hits} == {cover.pk, example.pk}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_lists_and_rankings_fold_alike(data: st.DataObject) -> None:
    """The list by the database and the ranking by bitmaps hold the same stacks, each once."""
    reset_factories()  # what the example before this one did was rolled back
    with transaction.atomic():
        sid = transaction.savepoint()
        user = make_user()
        source = make_source(owner=user)
        images: list[Image] = []
        for number in range(8):
            covers = [one for one in images if one.stack_of_id is None]
            cover = data.draw(st.sampled_from([None, *covers]))
            fields = {"hidden": data.draw(st.booleans()), "rating": data.draw(st.integers(0, 1))}
            images.append(make_image(source, f"{number}.jpg", stack_of=cover, **fields))
        example = make_image(source, "example.jpg")
        rows = np.random.default_rng(len(images)).normal(size=(9, look_space().dim)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        embeddings.record(look_space(), np.array([one.pk for one in (*images, example)]), rows)
        note(*images, example)
        text = data.draw(st.sampled_from(["", "rating:1"]))
        query = parse(text, {})
        folded = list(stacks.folded(query.filters, user).exclude(pk=example.pk).order_by("pk"))
        ranked = retrieval.find(parse(text, {"like": [str(example.pk)], "min": "0"}), user)

        def keys(some: Any) -> list[int]:
            return sorted(get_library().covers(np.array([one.pk for one in some], dtype=np.int64)).tolist())

        assert keys(folded) == keys(hit.image for hit in ranked.hits)
        assert len(set(keys(folded))) == len(folded)
        passing = Image.objects.visible_to(user).listed().exclude(pk=example.pk).filter(rating__gte=1 if text else 0)
        assert set(keys(passing)) == set(keys(folded)), "no stack is lost"
        transaction.savepoint_rollback(sid)


def test_what_leaves_holds_every_file_of_a_stack_that_passes(anna: Any, source: Any) -> None:
    cover = picture(source, "x.jpg")
    raw = picture(source, "x.nef", cover)
    single = picture(source, "y.jpg")
    assert set(exports.of_query(Query(), anna).ids.tolist()) == {cover.pk, raw.pk, single.pk}
    assert exports.of_query(parse("format:jpeg", {}), anna).ids.tolist() == [single.pk, cover.pk]
    assert set(exports.of_query(Query(like=(single.pk,), min=0), anna).ids.tolist()) == {cover.pk, raw.pk}
    selection.change(anna, add=[cover.pk])
    assert exports.of_selection(anna).ids.tolist() == [cover.pk, raw.pk]
    selection.replace(anna, np.array([raw.pk]))
    assert exports.of_selection(anna).ids.tolist() == [raw.pk]


# --- curation


def test_what_is_done_to_a_cover_is_done_to_the_stack_and_undone(anna: Any, source: Any, client: Client) -> None:
    cover = picture(source, "x.jpg")
    raw = picture(source, "x.nef", cover)
    client.force_login(anna)
    client.post(f"/image/{cover.pk}/rate/", {"rating": "4"})
    assert set(Image.objects.values_list("rating", flat=True)) == {4}
    client.post(f"/image/{raw.pk}/rate/", {"rating": "2"})
    assert dict(Image.objects.values_list("name", "rating")) == {"x.jpg": 4, "x.nef": 2}, "a member's page is its own"
    selected = selection.change(anna, add=[cover.pk])
    action = errands.do("hide", selected, {}, anna)
    assert Image.objects.filter(hidden=True).count() == 2
    curation.undo(action, anna)  # type: ignore[arg-type]
    assert not Image.objects.filter(hidden=True).exists()


def test_stacking_by_hand_and_back(anna: Any, source: Any) -> None:
    raw, first, second = (picture(source, name) for name in ("a.nef", "b.jpg", "c.jpg"))
    action = stacks.stack([raw.pk, second.pk, first.pk], anna)
    assert action is not None and action.summary == "Stacked 3 pictures"
    assert {one.stack_of_id for one in Image.objects.all()} == {None, second.pk}, "the first that is no raw file"
    assert retrieval.find(Query(), anna).total == 1
    chosen = stacks.set_cover(raw, anna)
    assert dict(Image.objects.values_list("name", "stack_of")) == {"a.nef": None, "b.jpg": raw.pk, "c.jpg": raw.pk}
    stacks.unstack([first.pk], anna)
    assert [one.name for one in stacks.members(Image.objects.get(pk=raw.pk), anna)] == ["a.nef", "c.jpg"]
    curation.undo(chosen, anna)  # type: ignore[arg-type]
    assert dict(Image.objects.values_list("name", "stack_of")) == {"a.nef": second.pk, "b.jpg": None, "c.jpg": None}
    other = picture(source, "d.jpg")
    stacks.stack([other.pk, second.pk], anna)
    assert dict(Image.objects.values_list("name", "stack_of"))["a.nef"] == other.pk, "a stack comes whole"


def test_stacks_keep_to_what_one_may_change_and_to_one_source(anna: Any, source: Any) -> None:
    bert = make_user("bert")
    cover = picture(source, "x.jpg")
    raw = picture(source, "x.nef", cover)
    his = picture(make_source(owner=bert, viewer=anna), "his.jpg")
    for refused in (lambda: stacks.unstack([cover.pk], bert), lambda: stacks.set_cover(raw, bert)):
        with pytest.raises(NotAllowed):
            refused()
    with pytest.raises(BadValue):
        stacks.stack([cover.pk, his.pk], make_user(staff=True))
    with pytest.raises(BadValue):
        stacks.stack([his.pk], bert)
    with pytest.raises(BadValue):
        stacks.set_cover(cover, anna)
    assert Image.objects.get(pk=raw.pk).stack_of_id == cover.pk
    assert stacks.members(cover, bert) == []


def test_the_image_page_shows_the_stack_and_changes_it(anna: Any, source: Any, client: Client) -> None:
    cover = picture(source, "x.jpg")
    raw = picture(source, "x.nef", cover)
    client.force_login(anna)
    text = client.get(f"/image/{cover.pk}/").content.decode()
    assert "2 files of one picture" in text and "go to all of them" in text and f"/image/{raw.pk}/cover/" in text
    assert "RAW+JPEG" in client.get("/browse/").content.decode()
    client.post(f"/image/{raw.pk}/cover/", {"next": f"/image/{raw.pk}/"})
    assert Image.objects.get(pk=cover.pk).stack_of_id == raw.pk
    assert "for this file alone" in client.get(f"/image/{cover.pk}/").content.decode()
    client.post(f"/image/{raw.pk}/unstack/")
    assert not Image.objects.filter(stack_of__isnull=False).exists()
    assert "RAW+JPEG" not in client.get("/browse/").content.decode()
    selection.replace(anna, np.array([cover.pk, raw.pk]))
    client.post("/selection/do/", {"verb": "stack"})
    assert Image.objects.get(pk=raw.pk).stack_of_id == cover.pk


def test_browsing_asks_as_much_for_many_stacks_as_for_few(anna: Any, source: Any, client: Client) -> None:
    client.force_login(anna)

    def asked() -> int:
        client.get("/browse/")
        with CaptureQueriesContext(connection) as context:
            assert client.get("/browse/").status_code == 200
        return len(context)

    for number in range(2):
        picture(source, f"{number}.nef", picture(source, f"{number}.jpg"))
    few = asked()
    for number in range(2, 30):
        picture(source, f"{number}.nef", picture(source, f"{number}.jpg"))
    assert asked() == few
