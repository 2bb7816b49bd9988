"""The spaces page and the comparison: for staff only, constant in cost, every button does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ingestion import building, ledger, removal
from search import changes, embeddings, spaces
from search.encoders import get_encoder
from search.models import Change, EmbeddingSpace, Image
from search.vectors import get_store
from tests import networks
from tests.contracts.store import unit_vectors
from tests.factories import make_image, make_source, make_user
from tests.test_retrieval import embed, painted

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(make_user("root", staff=True))
    return client


def other_space(number: int = 1, **fields: Any) -> EmbeddingSpace:
    return EmbeddingSpace.objects.create(
        name=f"other-{number}", encoder=f"local-dir:/nowhere/{number}", key=f"key {number}", label=f"Other {number}",
        dim=8, text=False, **fields,
    )  # fmt: skip


ADDRESSES = ["/spaces/", "/spaces/compare/?q=red&with=other-1", "/spaces/other-1/remove/"]
VERBS = ["/spaces/add/", "/spaces/rollback/", "/spaces/other-1/remove/", *(
    f"/spaces/other-1/{verb}/" for verb in ("build", "pause", "resume", "activate")
)]  # fmt: skip


def test_only_staff_sees_or_changes_anything(signed_in: Client) -> None:
    space = other_space()
    for address in ADDRESSES:
        refused = signed_in.get(address)
        assert refused.status_code == 403
        assert "decided by those who run this installation." in refused.content.decode()
    for address in VERBS:
        assert signed_in.post(address, {"encoder": "look"}).status_code == 403
    assert "Spaces" not in signed_in.get("/").content.decode()
    assert EmbeddingSpace.objects.filter(name=space.name, wanted=False, paused=False, removing=False).exists()
    assert Client().get("/spaces/").status_code == 302


def test_the_page_costs_the_same_for_many_spaces(staff: Client) -> None:
    spaces.look_space()
    other_space(1)
    staff.get("/spaces/")
    with CaptureQueriesContext(connection) as few:
        staff.get("/spaces/")
    for number in range(2, 12):
        other_space(number)
    with CaptureQueriesContext(connection) as many:
        page = staff.get("/spaces/").content.decode()
    assert len(many) == len(few)
    assert page.count(">Use it for searches<") == 11 and page.count("answers searches") == 1
    fragment = staff.get("/spaces/", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in fragment and 'id="spaces"' in fragment


def test_buttons_build_pause_and_resume(staff: Client) -> None:
    space = other_space()
    for verb, wanted, paused in [("build", True, False), ("pause", True, True), ("resume", True, False)]:
        response = staff.post(f"/spaces/{space.name}/{verb}/", follow=True)
        assert response.redirect_chain == [("/spaces/", 302)] and space.name in response.content.decode()
        space.refresh_from_db()
        assert (space.wanted, space.paused) == (wanted, paused)
    assert staff.post(f"/spaces/{space.name}/dance/").status_code == 404
    assert staff.post("/spaces/nothing/pause/").status_code == 404


def test_what_cannot_be_is_said_in_a_sentence(staff: Client) -> None:
    other_space()
    said = staff.post("/spaces/add/", {"encoder": "local-dir:/nowhere"}, follow=True).content.decode()
    assert "/nowhere" in said and "toast error" in said
    assert "it accepts" in staff.post("/spaces/add/", {"encoder": "nonsense"}, follow=True).content.decode()
    assert "Say which model" in staff.post("/spaces/add/", {"encoder": " "}, follow=True).content.decode()
    assert "/nowhere/1" in staff.post("/spaces/other-1/activate/", follow=True).content.decode()
    assert "No other space has served" in staff.post("/spaces/rollback/", follow=True).content.decode()
    assert "built in" in staff.post("/spaces/look/remove/", follow=True).content.decode()
    assert spaces.active_space().name == "look"


def test_removing_asks_first_and_large_ones_go_on_in_the_background(staff: Client, monkeypatch: Any) -> None:
    small, large = other_space(1), other_space(2)
    image = make_image()
    embeddings.record(large, np.array([image.pk]), unit_vectors(1, 8))
    ledger.recount()
    page = staff.get(f"/spaces/{small.name}/remove/").content.decode()
    assert "deleted for good" in page and EmbeddingSpace.objects.filter(pk=small.pk).exists()
    staff.post(f"/spaces/{small.name}/remove/")
    assert not EmbeddingSpace.objects.filter(pk=small.pk).exists()
    monkeypatch.setattr("ingestion.space_views.AT_ONCE", 0)
    assert "background" in staff.post(f"/spaces/{large.name}/remove/", follow=True).content.decode()
    assert EmbeddingSpace.objects.get(pk=large.pk).removing
    from ingestion.tasks import finish_removals

    assert finish_removals() == 1 and not EmbeddingSpace.objects.filter(pk=large.pk).exists()
    assert finish_removals() == 0 and Image.objects.filter(pk=image.pk).exists()


def test_the_same_query_side_by_side(staff: Client, dev_clip: str) -> None:
    source = make_source()
    pictures = {make_image(source, f"{colour}.jpg"): painted(colour) for colour in ["red", "green", "blue", "white"]}
    embed(pictures)
    clip = building.add(dev_clip)
    embed(pictures, clip)
    page = staff.get(f"/spaces/compare/?q=red&with={clip.name}")
    sides = page.context["sides"]
    assert [one.space.name for one, _ in sides] == ["look", clip.name]
    first = next(image for image in pictures if image.name == "red.jpg")
    assert sides[0][1][0][1].image.pk == first.pk, "look finds the red one first"
    encoder = get_encoder(dev_clip)
    row = encoder.encode_images([encoder.prepare(pictures[first])])[0]
    score = float(row @ encoder.encode_texts(["red"])[0])
    shown = next(tile.detail for _, tile, _ in sides[1][1] if tile.image.pk == first.pk)
    assert abs(float(shown.split()[-1]) - score) < 0.006, "each side shows the scores of its own space"
    assert page.context["longest"] == 4 and "4 of 4" in page.content.decode()
    again = staff.get(f"/spaces/compare/?q=red&with={clip.name}&space={clip.name}").content.decode()
    assert "Choose two different spaces" in again
    assert staff.get(f"/spaces/compare/?q=rating:99&with={clip.name}").status_code == 422


def test_comparing_shows_only_what_one_may_see(dev_clip: str) -> None:
    """Staff see all; the comparison itself keeps to what its user may see."""
    from search.comparison import compare
    from search.query import parse

    mine, theirs = make_user(), make_user()
    pictures = {make_image(make_source(owner=user), "p.jpg"): painted("red") for user in (mine, theirs)}
    clip = building.add(dev_clip)
    for space in (spaces.look_space(), clip):
        embed(pictures, space)
    found = compare(parse("red", {}), mine, spaces.look_space(), clip)
    assert [len(one.hits) for one in (found.first, found.second)] == [1, 1] and found.overlap == 1


def test_comparing_with_a_model_that_is_not_here_is_no_comparison_with_look(staff: Client) -> None:
    other = other_space()
    embed({make_image(make_source(), "a.jpg"): painted("red")})
    page = staff.get(f"/spaces/compare/?q=red&with={other.name}")
    assert page.status_code == 422 and "/nowhere/1" in page.content.decode() and not page.context["sides"]


def test_a_removed_space_is_let_go_of_by_a_serving_process(tmp_path: Path) -> None:
    """Its file's room comes free: the process closes its map."""
    from search.serving import Serving, load
    from search.vectors import _stores

    other = other_space()
    image = make_image()
    embeddings.record(other, np.array([image.pk]), unit_vectors(1, 8))
    changes.record(Change.Kind.IMAGES, [image.pk])
    get_store(other).get(np.array([image.pk]))
    here = Serving(load)
    removal.begin(other)
    removal.finish(other)
    assert here.catch_up() == spaces.look_space().pk
    assert other.pk not in _stores


def test_adding_says_when_it_is_there_already_and_when_nobody_fills_it(
    staff: Client, tmp_path: Path, monkeypatch: Any
) -> None:
    network = networks.write_folder(tmp_path / "tiny", said={"name": "tiny"})
    said = staff.post("/spaces/add/", {"encoder": f"onnx:{network}"}, follow=True).content.decode()
    assert "tiny is added. No worker is running" in said and "toast warning" in said
    monkeypatch.setattr("ingestion.presence.live_workers", lambda: ["here:1"])
    said = staff.post("/spaces/add/", {"encoder": f"onnx:{network}"}, follow=True).content.decode()
    assert "tiny is there already, as tiny. Workers fill it" in said


def test_the_index_of_a_space_is_told(staff: Client, monkeypatch: Any) -> None:
    from search import index_failures, indexing

    space = other_space()
    assert "<dt>Index</dt>" not in staff.get("/spaces/").content.decode()
    ids = np.array([make_image().pk for _ in range(200)])
    embeddings.record(space, ids, unit_vectors(200, 8))
    monkeypatch.setattr(indexing, "LEAST_ROWS", 10)
    indexing.make(space)
    assert "200 vectors, recall@20 1.000</dd>" in staff.get("/spaces/").content.decode()
    for said in ("failed once, tried again from", "failed 2 times, tried again from"):
        index_failures.note(get_store(space).file.folder, "There is no room for <it>.")
        page = staff.get("/spaces/").content.decode()
        assert said in page and "on: There is no room for &lt;it&gt;.</dd>" in page
