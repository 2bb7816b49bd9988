"""Groups of faces: the same whatever the order, never two faces of one picture, right on real faces and at size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faces import clustering
from search.arrays import Ids, Vectors

DIM = 64


def people(number: int, faces: int, *, spread: float = 0.6, seed: int = 0) -> tuple[Vectors, Ids]:
    """Faces of made-up people: unit vectors about a random middle each, and whose each is."""
    chance = np.random.default_rng(seed)
    middles = chance.standard_normal((number, DIM))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    who = np.repeat(np.arange(number), faces)
    vectors = middles[who] + spread * chance.standard_normal((len(who), DIM)) / np.sqrt(DIM)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), who


def partition(groups: clustering.Places) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(groups == one).tolist()) for one in np.unique(groups)}


def grouped(vectors: Vectors, least: float = 0.5) -> clustering.Places:
    return clustering.whisper(clustering.near(vectors, least), len(vectors))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(-0.5, 0.9), st.integers(1, 8))
def test_neighbours_are_those_that_comparing_all_finds(seed: int, count: int, least: float, most: int) -> None:
    vectors, _ = people(count, 1, seed=seed)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    wanted = set()
    for one in range(count):
        nearest = [int(other) for other in np.argsort(-scores[one], kind="stable") if scores[one, other] >= least]
        wanted |= {(one, other) for other in nearest[:most]} | {(other, one) for other in nearest[:most]}
    edges = clustering.near(vectors, least, most=most)
    assert list(zip(edges.source.tolist(), edges.target.tolist(), strict=True)) == sorted(wanted)
    assert np.allclose(edges.cosine, scores[edges.source, edges.target], atol=1e-6)


def test_blocks_give_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = people(9, 5)
    whole = clustering.near(vectors, 0.3, most=4)
    monkeypatch.setattr(clustering, "_BLOCK_SCORES", 100)
    parted = clustering.near(vectors, 0.3, most=4)
    assert np.array_equal(whole.source, parted.source) and np.array_equal(whole.target, parted.target)


def test_people_are_told_apart() -> None:
    vectors, who = people(200, 8)
    assert partition(grouped(vectors)) == partition(who)


def test_nobody_and_one_are_groups_too() -> None:
    assert len(grouped(np.zeros((0, DIM), dtype=np.float32))) == 0
    assert grouped(people(1, 1)[0]).tolist() == [0]
    assert clustering.apart(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, DIM), np.float32)).tolist() == []


def test_one_false_edge_joins_nobody() -> None:
    vectors, who = people(2, 12)
    edges = clustering.near(vectors, 0.5)
    bridge = clustering.both_ways(
        np.append(edges.source, 0).astype(np.int32),
        np.append(edges.target, 12).astype(np.int32),
        np.append(edges.cosine, 0.95).astype(np.float32),
        24,
    )
    assert len(bridge) == len(edges) + 2
    assert partition(clustering.whisper(bridge, 24)) == partition(who)


def test_faces_of_low_quality_join_groups_and_join_none_together() -> None:
    vectors, who = people(2, 6)
    between = vectors[0] + vectors[6]
    vectors = np.vstack([vectors, np.repeat(between[None] / np.linalg.norm(between), 3, axis=0)]).astype(np.float32)
    seeds = np.arange(15) < 12
    groups = clustering.whisper(clustering.near(vectors, 0.5), 15, seeds=seeds)
    assert partition(groups[:12]) == partition(who), "three blurred faces between two people did not join them"
    assert set(groups[12:].tolist()) <= set(groups[:12].tolist())
    alone = clustering.whisper(clustering.near(vectors, 0.5), 15, seeds=np.zeros(15, dtype=np.bool_))
    assert len(set(alone.tolist())) == 15, "they seed no group among themselves"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_group_holds_two_faces_of_a_picture(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    groups = np.array(data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)), dtype=np.int32)
    images = np.array(data.draw(st.lists(st.integers(1, 12), min_size=count, max_size=count)), dtype=np.int64)
    vectors, _ = people(count, 1, seed=data.draw(st.integers(0, 100)))
    found = clustering.apart(groups, images, vectors)
    pairs = list(zip(found.tolist(), images.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for one in np.unique(found):  # groups are only made smaller
        assert len(np.unique(groups[found == one])) == 1
    for one in np.unique(groups):
        assert len(np.unique(images[groups == one])) == max(np.sum(found == new) for new in found[groups == one])
    assert clustering.numbered(found).tolist() == found.tolist()


def test_the_same_edges_give_the_same_groups() -> None:
    vectors, _ = people(30, 6, spread=1.1)
    assert grouped(vectors, 0.4).tolist() == grouped(vectors, 0.4).tolist()


def test_the_threshold_is_told_by_strangers_and_rises_with_the_library() -> None:
    strangers, _ = people(2_000, 1)
    families, _ = people(200, 10)
    few, many = clustering.threshold(strangers), clustering.threshold(strangers, faces=1_000_000)
    assert 0.25 <= few < many <= clustering.HIGHEST
    assert abs(clustering.threshold(families) - few) < 0.03, "people who are in it often hardly move it"
    assert clustering.threshold(strangers[:1]) == clustering.HIGHEST
    share = np.mean(strangers[:1000] @ strangers[1000:].T >= few)
    assert share < 5 * clustering.FALSE_MATCH_RATE


def test_a_face_joins_a_person_whose_several_faces_are_near() -> None:
    vectors, who = people(3, 7)
    confirmed, asked = np.flatnonzero(np.arange(21) % 7 < 6), np.flatnonzero(np.arange(21) % 7 == 6)
    found = clustering.likely(vectors[asked], vectors[confirmed], who[confirmed] + 10, least=0.4)
    assert found.person.tolist() == [10, 11, 12] and found.sure.all()
    stranger, _ = people(1, 1, seed=9)
    nobody = clustering.likely(stranger, vectors[confirmed], who[confirmed], least=0.4)
    assert nobody.person.tolist() == [-1] and not nobody.sure.any()


def test_one_confirmed_face_suggests_and_does_not_decide() -> None:
    vectors, who = people(2, 2)
    found = clustering.likely(vectors[[1]], vectors[[0, 2]], who[[0, 2]], least=0.4)
    assert found.person.tolist() == [0] and not found.sure.any()
    assert clustering.likely(vectors, vectors[:0], who[:0], least=0.4).person.tolist() == [-1] * 4


def test_between_two_people_nobody_decides() -> None:
    vectors, who = people(2, 6)
    between = vectors[who == 0].mean(axis=0) + vectors[who == 1].mean(axis=0)
    between = (between / np.linalg.norm(between)).astype(np.float32)[None]
    found = clustering.likely(between, vectors, who, least=0.3)
    assert found.person[0] in (0, 1) and not found.sure[0]


def test_real_faces_are_grouped_by_person(shared: Path) -> None:
    """The ten people, each picture's face the one in its middle: the bar of the whole measurement, on these alone."""
    import PIL.Image

    from faces.insightface_pack import InsightFacePack

    pack = InsightFacePack(shared / "models" / "faces")
    vectors, names = [], []
    for file in sorted((shared / "photos" / "people" / "lfw").glob("*/*.jpg"))[::2]:
        found = pack.find(PIL.Image.open(file))
        middle = min(found, key=lambda one: abs(one.box.left + one.box.width / 2 - 0.5))
        vectors.append(middle.vector)
        names.append(file.parent.name)
    array = np.stack(vectors)
    groups = clustering.whisper(clustering.near(array, 0.46), len(array))
    for one in np.unique(groups):
        assert len({names[face] for face in np.flatnonzero(groups == one)}) == 1, "a group holds two people"
    assert len(np.unique(groups)) <= 12, "ten people, at most two faces that found nobody"
