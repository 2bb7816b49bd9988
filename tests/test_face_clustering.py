"""Groups of faces: of one person each, never two faces of one picture, right on real faces."""

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
    return clustering.grouped(vectors, np.arange(len(vectors)), least=least)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(-0.5, 0.9), st.integers(1, 8))
def test_neighbours_are_the_nearest_before_a_face(seed: int, count: int, least: float, most: int) -> None:
    vectors, _ = people(count, 1, seed=seed)
    scores = vectors @ vectors.T
    wanted = set()
    for one in range(count):
        near = [int(other) for other in np.argsort(-scores[one, :one]) if scores[one, other] >= least]
        wanted |= {(one, other) for other in near[:most]} | {(other, one) for other in near[:most]}
    edges = clustering.near(vectors, least, most=most)
    assert list(zip(edges.source.tolist(), edges.target.tolist(), strict=True)) == sorted(wanted)
    assert np.allclose(edges.cosine, scores[edges.source, edges.target], atol=1e-6)


def test_blocks_give_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = people(9, 5)
    whole = clustering.near(vectors, 0.3, most=4)
    monkeypatch.setattr(clustering, "_BLOCK_SCORES", 100)
    parted = clustering.near(vectors, 0.3, most=4)
    assert np.array_equal(whole.source, parted.source) and np.array_equal(whole.target, parted.target)


def test_the_frames_of_bursts_are_one_person() -> None:
    """More of them than a face has neighbours, nearer to each other than to the same person at another time."""
    times, _ = people(1, 5, spread=0.75)
    chance = np.random.default_rng(0)
    frames = np.repeat(times, 80, axis=0) + 0.02 * chance.standard_normal((400, DIM)) / np.sqrt(DIM)
    frames = (frames / np.linalg.norm(frames, axis=1, keepdims=True)).astype(np.float32)
    strangers, _ = people(50, 1, seed=5)
    groups = grouped(np.vstack([frames, strangers]).astype(np.float32), 0.45)
    assert len(set(groups[:400].tolist())) == 1 and not set(groups[:400].tolist()) & set(groups[400:].tolist())
    edges = clustering.near(frames, 0.45)
    assert len(edges) < 2 * (400 + 5 * 5), "each frame has one neighbour, and each moment the others"


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
        edges.follows,
    )
    assert len(bridge) == len(edges) + 2
    assert partition(clustering.whisper(bridge, 24)) == partition(who)


def test_faces_of_low_quality_join_groups_and_join_none_together() -> None:
    vectors, who = people(2, 6)
    between = vectors[0] + vectors[6]
    vectors = np.vstack([vectors, np.repeat(between[None] / np.linalg.norm(between), 3, axis=0)]).astype(np.float32)
    seeds = np.arange(15) < 12
    groups = clustering.whisper(clustering.near(vectors, 0.5), 15, seeds=seeds)
    assert partition(groups[:12]) == partition(who)
    assert set(groups[12:].tolist()) <= set(groups[:12].tolist()), "what is blurred made a group of its own"
    alone = clustering.whisper(clustering.near(vectors, 0.5), 15, seeds=np.zeros(15, dtype=np.bool_))
    assert len(set(alone.tolist())) == 15, "they seed no group among themselves"


def test_of_two_faces_in_a_picture_the_nearer_to_the_group_stays() -> None:
    vectors, _ = people(1, 6, spread=0.3)
    stranger, _ = people(1, 1, seed=3)
    half = vectors[0] + stranger[0]
    all_of_them = np.vstack([vectors, half / np.linalg.norm(half)]).astype(np.float32)
    images = np.array([1, 2, 3, 4, 5, 6, 1])
    assert clustering.apart(np.zeros(7, np.int32), images, all_of_them).tolist() == [0, 0, 0, 0, 0, 0, 1]
    swapped = all_of_them[[6, 1, 2, 3, 4, 5, 0]]
    assert clustering.apart(np.zeros(7, np.int32), images, swapped).tolist() == [0, 1, 1, 1, 1, 1, 1]


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
    few, many = clustering.threshold(strangers), clustering.threshold(strangers, faces=1_000_000)
    assert 0.25 <= few < many <= clustering.HIGHEST
    share = np.mean(strangers[:1000] @ strangers[1000:].T >= few)
    assert share < 5 * clustering.FALSE_MATCH_RATE
    assert clustering.threshold(strangers[:1]) == clustering.threshold(strangers[:0]) == clustering.HIGHEST


@pytest.mark.parametrize("sizes", [[10] * 200, [500] * 4, [800] * 3, [1_000, 200, 200]])
def test_the_threshold_is_that_of_strangers_in_a_family_too(sizes: list[int]) -> None:
    strangers, _ = people(2_000, 1)
    family = [people(1, size, seed=number + 1)[0] for number, size in enumerate(sizes)]
    library = np.vstack([*family, strangers[:300]]).astype(np.float32)
    alone = clustering.threshold(strangers, faces=len(library))
    assert abs(clustering.threshold(library) - alone) < 0.13, "of few people there are few pairs of strangers"
    assert np.mean(family[0][:50] @ family[0][50:100].T >= clustering.threshold(library)) > 0.9 or len(family[0]) < 100


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


def test_of_several_confirmed_faces_three_have_to_be_near() -> None:
    vectors, _ = people(1, 6)
    far, _ = people(1, 2, seed=7)
    asked, two_near, three_near = vectors[:1], np.vstack([vectors[1:3], far]), np.vstack([vectors[1:4], far[:1]])
    whose = np.full(4, 8)
    assert not clustering.likely(asked, two_near, whose, least=0.4).sure[0]
    assert clustering.likely(asked, three_near, whose, least=0.4).sure[0]
    assert clustering.likely(asked, vectors[1:3], whose[:2], least=0.4).sure[0], "both, of a person with two"


def test_between_two_people_nobody_decides() -> None:
    vectors, who = people(2, 6)
    between = vectors[who == 0].mean(axis=0) + vectors[who == 1].mean(axis=0)
    between = (between / np.linalg.norm(between)).astype(np.float32)[None]
    found = clustering.likely(between, vectors, who, least=0.3)
    assert found.person[0] in (0, 1) and not found.sure[0]


def test_real_faces_are_grouped_by_person(shared: Path) -> None:
    """The ten people, each picture's face the one in its middle: the bar of the whole measurement, on these alone."""
    import PIL.Image

    if not (shared / "models" / "faces").is_dir() or not (shared / "photos" / "people" / "lfw").is_dir():
        pytest.skip(f"no face networks or no people at {shared}")

    from faces.insightface_pack import InsightFacePack

    pack = InsightFacePack(shared / "models" / "faces")
    vectors, names = [], []
    for file in sorted((shared / "photos" / "people" / "lfw").glob("*/*.jpg"))[::2]:
        found = pack.find(PIL.Image.open(file))
        middle = min(found, key=lambda one: abs(one.box.left + one.box.width / 2 - 0.5))
        vectors.append(middle.vector)
        names.append(file.parent.name)
    array = np.stack(vectors)
    groups = grouped(array, 0.46)
    for one in np.unique(groups):
        assert len({names[face] for face in np.flatnonzero(groups == one)}) == 1, "a group holds two people"
    assert len(np.unique(groups)) <= 12, "ten people, at most two faces that found nobody"
