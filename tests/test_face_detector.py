"""Faces are found and told apart by real networks, of both kinds; what cannot serve says so in a sentence."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from faces import detector, networks
from faces.detector import Box, Detector
from faces.errors import DetectorFault, DetectorUnavailable
from faces.insightface_pack import InsightFacePack
from faces.opencv_pair import OpenCvPair

RECOGNISER = "face_reid_retail_0095.onnx"
SEVERAL = 6
"""Pictures of each person that are compared."""


@pytest.fixture(scope="module")
def pack(shared_models: Path) -> InsightFacePack:
    return InsightFacePack(shared_models / "faces")


@pytest.fixture(scope="module")
def shared_models() -> Path:
    from tests.conftest import SHARED

    if not (SHARED / "models" / "faces").is_dir():
        pytest.skip(f"no shared photos and models at {SHARED} (set IMAGESEARCH_SHARED)")
    return SHARED / "models"


@pytest.fixture(scope="module")
def pair(shared_models: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenCvPair:
    """YuNet as it is; in SFace's place, which could not be had, a network of its shape that averages colours."""
    import onnx
    from onnx import TensorProto, helper

    if not (shared_models / "face_detection_yunet_2023mar.onnx").is_file():
        pytest.skip(f"no face_detection_yunet_2023mar.onnx at {shared_models}")
    folder = tmp_path_factory.mktemp("opencv")
    shutil.copy(shared_models / "face_detection_yunet_2023mar.onnx", folder)
    nodes = [
        helper.make_node("AveragePool", ["data"], ["pooled"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Flatten", ["pooled"], ["fc1"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("data", [1, 3, 112, 112]), ("fc1", [1, 192]))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "sface", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 11)], ir_version=8
    )
    onnx.save(model, folder / "face_recognition_sface_2021dec.onnx")
    return OpenCvPair(folder)


@pytest.fixture(params=["pack", "pair"])
def networks_here(request: pytest.FixtureRequest) -> Detector:
    found: Detector = request.getfixturevalue(request.param)
    return found


def portraits(shared: Path, people: int = 4) -> list[tuple[str, PIL.Image.Image]]:
    folders = sorted((shared / "photos" / "people" / "lfw").iterdir())[:people]
    files = [file for folder in folders for file in sorted(folder.glob("*.jpg"))[:SEVERAL]]
    return [(file.parent.name, PIL.Image.open(file).convert("RGB")) for file in files]


def test_faces_are_found_and_told_apart(networks_here: Detector, shared: Path) -> None:
    assert isinstance(networks_here, Detector)
    names, vectors = [], []
    for name, picture in portraits(shared):
        found = networks_here.find(picture)
        assert found, f"no face in a portrait of {name}"
        middle = min(found, key=lambda one: abs(one.box.left + one.box.width / 2 - 0.5))
        box = middle.box
        assert 0 <= box.left < box.left + box.width <= 1 and 0 <= box.top < box.top + box.height <= 1
        assert box.left < 0.5 < box.left + box.width and 0 < middle.score <= 1
        eyes, mouth = middle.landmarks[:2], middle.landmarks[3:]
        assert eyes[0, 0] < eyes[1, 0] and eyes[:, 1].max() < mouth[:, 1].min()
        assert middle.vector.shape == (networks_here.dim,) and abs(np.linalg.norm(middle.vector) - 1) < 1e-5
        names.append(name)
        vectors.append(middle.vector)
    scores = np.stack(vectors) @ np.stack(vectors).T
    same = np.equal.outer(names, names) & ~np.eye(len(names), dtype=bool)
    others = scores[~np.equal.outer(names, names)]
    assert np.median(scores[same]) > np.median(others)
    if isinstance(networks_here, InsightFacePack):
        assert np.median(scores[same]) > 0.5 > 0.3 > np.median(others)


def test_no_face_is_no_face(networks_here: Detector) -> None:
    for size in ((400, 300), (3, 2), (1, 1), (3_000, 40), (20, 4_000)):
        assert networks_here.find(PIL.Image.new("RGB", size, "teal")) == []


def test_faces_lie_where_the_picture_has_them_however_long_it_is(networks_here: Detector, shared: Path) -> None:
    [(_, face)] = portraits(shared, 1)[:1]
    [alone] = networks_here.find(face)
    panorama = PIL.Image.new("RGB", (250 * 24, 250), "grey")
    for column in (0, 11, 23):
        panorama.paste(face, (250 * column, 0))
    found = sorted(networks_here.find(panorama), key=lambda one: one.box.left)
    assert len(found) == 3
    shifts = range(3_960, 4_060, 12) if isinstance(networks_here, InsightFacePack) else ()
    for shift in shifts:  # across the border of a part, which would cut it
        panorama = PIL.Image.new("RGB", (10_000, 250), "grey")
        panorama.paste(face, (shift, 0))
        assert len(networks_here.find(panorama)) == 1, f"at {shift}"
    for one, column in zip(found, (0, 11, 23), strict=True):
        wanted = Box((column + alone.box.left) / 24, alone.box.top, alone.box.width / 24, alone.box.height)
        assert one.box.overlap(wanted) > 0.7
        assert one.vector @ alone.vector > 0.8


def test_a_crowd_is_found_with_a_vector_for_each(networks_here: Detector, shared: Path) -> None:
    faces = [picture.resize((96, 96)) for _, picture in portraits(shared, 10)]
    crowd = PIL.Image.new("RGB", (96 * 20, 96 * 10))
    for number in range(200):
        crowd.paste(faces[number % len(faces)], (96 * (number % 20), 96 * (number // 20)))
    found = networks_here.find(crowd)
    assert len(found) >= 150
    assert all(one.vector.shape == (networks_here.dim,) for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_small_and_blurred_faces_are_of_low_quality(pack: InsightFacePack, shared: Path) -> None:
    import PIL.ImageFilter

    [(_, face)] = portraits(shared, 1)[:1]
    [sharp] = pack.find(face)
    [blurred] = pack.find(face.filter(PIL.ImageFilter.GaussianBlur(4)))
    assert not sharp.low_quality and blurred.low_quality and blurred.sharpness < sharp.sharpness
    small = PIL.Image.new("RGB", (640, 640), "grey")
    small.paste(face.resize((64, 64)), (300, 300))
    [far] = pack.find(small)
    assert far.low_quality and far.pixels < detector.FEWEST_PIXELS


def test_a_face_that_is_turned_says_so() -> None:
    facing = np.array([[30, 50], [70, 50], [50, 70], [35, 90], [65, 90]], dtype=np.float32)
    assert detector.angles(facing) == (0.0, 0.0)
    leaning = facing @ np.array([[0.8, 0.6], [-0.6, 0.8]], dtype=np.float32)
    roll, turn = detector.angles(leaning)
    assert abs(roll - 36.87) < 0.1 and turn < 0.01
    profile = facing.copy()
    profile[2, 0] = 80
    assert detector.angles(profile)[1] > detector.MOST_TURNED
    assert detector.angles(np.zeros((5, 2), dtype=np.float32)) == (0.0, 2.0)


def test_boxes_overlap_by_intersection_over_union() -> None:
    one = Box(0.1, 0.1, 0.2, 0.2)
    assert one.overlap(one) == pytest.approx(1)
    assert one.overlap(Box(0.2, 0.1, 0.2, 0.2)) == pytest.approx(1 / 3)
    assert one.overlap(Box(0.31, 0.1, 0.2, 0.2)) == 0 == one.overlap(Box(0.1, 0.5, 0.2, 0.2))


def test_a_thread_of_pixels_is_not_looked_through() -> None:
    assert detector.parts(60_000, 1) == detector.parts(15, 9_000) == []


@pytest.mark.parametrize(("width", "height"), [(100, 100), (800, 100), (801, 100), (100, 5_000), (16, 1_000)])
def test_the_parts_of_a_long_picture_cover_it_and_overlap(width: int, height: int) -> None:
    found = detector.parts(width, height)
    long, across = (0, 2) if width >= height else (1, 3), max(width, height)
    assert found[0][long[0]] == 0 and found[-1][long[1]] == across
    for before, after in pairwise(found):
        assert before[long[1]] - after[long[0]] >= min(width, height)
    assert (len(found) == 1) == (across <= detector.LONGEST * min(width, height))


def test_the_key_is_that_of_the_files(pack: InsightFacePack, pair: OpenCvPair, shared_models: Path) -> None:
    assert pack.key == InsightFacePack(shared_models / "faces").key != pair.key
    assert (pack.dim, pair.dim) == (256, 192)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "There is no folder"),
        ([], "holds no network"),
        (["det_500m.onnx"], "no network that tells faces apart"),
        ([RECOGNISER], "no network that finds faces"),
    ],
)
def test_a_pack_that_lacks_something_says_what(
    tmp_path: Path, shared_models: Path, files: list[str] | None, said: str
) -> None:
    folder = tmp_path / "pack"
    if files is not None:
        folder.mkdir()
    for name in files or []:
        shutil.copy(shared_models / "faces" / name, folder)
    with pytest.raises(DetectorUnavailable, match=said):
        InsightFacePack(folder)


def test_a_network_cut_short_says_so(tmp_path: Path, shared_models: Path) -> None:
    for name in ("det_500m.onnx", RECOGNISER):
        content = (shared_models / "faces" / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DetectorUnavailable, match=r"cannot be loaded|no network that"):
        InsightFacePack(tmp_path)


def test_opencv_says_which_of_its_files_is_missing(tmp_path: Path, shared_models: Path) -> None:
    with pytest.raises(DetectorUnavailable, match=r"finds faces.*yunet"):
        OpenCvPair(tmp_path / "nowhere")
    shutil.copy(shared_models / "face_detection_yunet_2023mar.onnx", tmp_path)
    with pytest.raises(DetectorUnavailable, match=r"tells faces apart.*sface"):
        OpenCvPair(tmp_path)
    (tmp_path / "face_recognition_sface_2021dec.onnx").write_bytes(b"no network")
    with pytest.raises(DetectorUnavailable, match="cannot be loaded"):
        OpenCvPair(tmp_path)


def test_another_network_in_the_place_of_sface_says_so(tmp_path: Path, shared_models: Path) -> None:
    shutil.copy(shared_models / "face_detection_yunet_2023mar.onnx", tmp_path)
    shutil.copy(shared_models / "faces" / RECOGNISER, tmp_path / "face_recognition_sface_2021dec.onnx")
    with pytest.raises(DetectorUnavailable, match="does not take faces as SFace does"):
        OpenCvPair(tmp_path)


def _one_face(pixels: Any) -> networks.Found:
    box = np.array([[10, 10, 60, 60]], dtype=np.float32)
    points = np.array([[[20, 30], [50, 30], [35, 40], [25, 50], [45, 50]]], dtype=np.float32)
    return box, np.array([0.9], dtype=np.float32), points


@pytest.mark.parametrize("row", [[np.nan, 1.0], [0.0, 0.0]])
def test_numbers_that_are_none_are_a_fault_of_the_network(row: list[float]) -> None:
    picture = PIL.Image.new("RGB", (100, 100))
    with pytest.raises(DetectorFault, match="gave a vector that is none"):
        networks.faces_of(picture, _one_face, lambda *_: np.array([row], dtype=np.float32), label="It")


def test_a_network_that_fails_is_named() -> None:
    def fail(pixels: Any) -> networks.Found:
        raise RuntimeError("no such operator")

    with pytest.raises(DetectorFault, match=r"It failed .RuntimeError: no such operator"):
        networks.faces_of(PIL.Image.new("RGB", (99, 99)), fail, lambda *_: np.zeros((0, 2), np.float32), label="It")
