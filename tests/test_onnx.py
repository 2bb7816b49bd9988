"""Image-only encoders from a folder: the shared MobileNetV2, and small networks made here for what can be wrong."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from search.encoders import availability, get_encoder, load_anew, reset_encoders, set_threads
from search.encoders.onnx import CHUNK, OnnxEncoder
from search.encoders.specification import Kind, parse
from search.errors import EncoderFault, EncoderUnavailable
from tests.contracts.encoder import WordlessContract, pictures
from tests.networks import SIDE, write_folder

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    reset_encoders()


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(folder, dropped fields, JSON fields, **network options)` -> the folder."""

    def made(name: str = "tiny", without: tuple[str, ...] = (), said: dict[str, Any] | None = None, **how: Any) -> Path:
        return write_folder(tmp_path / name, without, said, **how)

    return made


def load(folder: Path) -> OnnxEncoder:
    encoder = load_anew(parse(f"onnx:{folder}"))
    assert isinstance(encoder, OnnxEncoder)
    return encoder


def rows(encoder: OnnxEncoder, count: int = 7) -> Any:
    return encoder.encode_images([encoder.prepare(picture) for picture in pictures(count)])


class TestMobileNet(WordlessContract):
    @pytest.fixture
    def spec(self, shared: Path) -> str:
        return f"onnx:{shared / 'models' / 'mobilenetv2'}"

    @pytest.fixture
    def encoder(self, spec: str) -> Any:
        return get_encoder(spec)

    def test_it_gives_what_the_network_itself_gives(self, encoder: OnnxEncoder, shared: Path) -> None:
        """Its own preprocessing by torchvision, its own output, minus the mean, at unit length."""
        import onnxruntime
        import torch
        from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

        folder = shared / "models" / "mobilenetv2"
        steps = [Resize(224, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]
        photos = [PIL.Image.open(path) for path in sorted((shared / "photos/captioned/flickr").glob("*.jpg"))[:6]]
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        (raw,) = session.run(None, {"input": torch.stack([Compose(steps)(one) for one in photos]).numpy()})
        wanted = raw - np.load(folder / "mean.npy")
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        given = encoder.encode_images([encoder.prepare(one) for one in photos])
        np.testing.assert_allclose(given, wanted, atol=2e-5)

    def test_unrelated_photos_are_far_apart_and_a_smaller_copy_is_near(
        self, encoder: OnnxEncoder, shared: Path
    ) -> None:
        paths = sorted((shared / "photos/captioned/flickr").glob("*.jpg"))[:30]
        photos = [PIL.Image.open(path).convert("RGB") for path in paths]
        found = encoder.encode_images([encoder.prepare(one) for one in photos])
        among = (found @ found.T)[~np.eye(len(found), dtype=bool)]
        assert abs(float(np.median(among))) < 0.15
        small = encoder.encode_images(
            [encoder.prepare(one.resize((one.width // 2, one.height // 2))) for one in photos]
        )
        assert ((small * found).sum(1) > 0.6).all() and (small @ found.T).argmax(1).tolist() == list(range(30))


class TestTiny(WordlessContract):
    @pytest.fixture
    def spec(self, make: Make) -> str:
        folder = make(said={"dim": 6, "subtract": [0.1] * 6})
        return f"onnx:{folder}"

    @pytest.fixture
    def encoder(self, spec: str) -> OnnxEncoder:
        return load(parse(spec).path or Path())


class TestTinyOfOne(TestTiny):
    @pytest.fixture
    def spec(self, make: Make) -> str:
        return f"onnx:{make(batch=1)}"


class TestTinyOfThreeInFloat16(TestTiny):
    @pytest.fixture
    def spec(self, make: Make) -> str:
        return f"onnx:{make(batch=3, kind='float16')}"


def test_batches_of_every_kind_give_the_same_vectors(make: Make) -> None:
    count = 2 * CHUNK + 3
    wanted = rows(load(make("dynamic")), count)
    for batch in (1, 3, 40):
        np.testing.assert_allclose(rows(load(make(f"of{batch}", batch=batch)), count), wanted, atol=1e-6)


def test_any_number_of_threads_gives_the_same_vectors_and_one_session_is_kept(make: Make) -> None:
    encoder = load(make())
    wanted = rows(encoder)
    before = threading.active_count()
    for count in (1, 2, 1, None):
        set_threads(count)
        np.testing.assert_allclose(rows(encoder), wanted, atol=1e-6)
        threads, session = encoder._session or (0, None)
        assert session.get_session_options().intra_op_num_threads == threads
        if count:
            assert threads == count
    assert threading.active_count() == before


@pytest.mark.parametrize("size", [(300, 400), (400, 301), (257, 256), (33, 900), (1, 1), (16, 16), (7, 5)])
@pytest.mark.parametrize("resize", ["shortest side, bicubic, centre crop", "shortest side 20, bilinear", "squash, box"])
def test_pictures_are_prepared_as_torchvision_does(make: Make, size: tuple[int, int], resize: str) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(noise)
    steps = {
        "shortest side, bicubic, centre crop": [Resize(SIDE, InterpolationMode.BICUBIC), CenterCrop(SIDE)],
        "shortest side 20, bilinear": [Resize(20, InterpolationMode.BILINEAR), CenterCrop(SIDE)],
        "squash, box": [Resize((SIDE, SIDE), InterpolationMode.BOX)],
    }[resize]
    encoder = load(make(said={"resize": resize}))
    if max(size) <= 16 * min(size):
        np.testing.assert_array_equal(encoder.prepare(picture), np.asarray(Compose(steps)(picture)))
    assert encoder.prepare(picture).shape == (SIDE, SIDE, 3)


# --- the key ----------------------------------------------------------------------------------------------


def test_the_key_is_that_of_the_bytes_the_preprocessing_and_the_mean_and_of_nothing_else(make: Make) -> None:
    first = load(make("a")).key
    assert load(make("b")).key == first, "the same files elsewhere"
    assert load(make("c", said={"name": "other", "description": "for tests"})).key == first
    others = [
        load(make("d", factor=1.5)).key,
        load(make("e", said={"mean": [0.5, 0.4, 0.31]})).key,
        load(make("f", said={"std": [0.5, 0.2, 0.26]})).key,
        load(make("g", said={"resize": "squash"})).key,
        load(make("h", said={"resize": "shortest side, bilinear"})).key,
        load(make("i", said={"subtract": [0.0] * 6})).key,
        load(make("j", said={"subtract": [0.1] * 6})).key,
    ]
    assert len({first, *others}) == 8 and all(len(key) <= 200 for key in others)


def test_weights_in_a_file_of_their_own_are_part_of_the_key(make: Make) -> None:
    one, other = make("a", external=True), make("b", external=True, factor=2.0)
    assert (one / "model.onnx").read_bytes() == (other / "model.onnx").read_bytes()
    assert load(one).key != load(other).key
    (one / "weights.bin").unlink()
    with pytest.raises(EncoderUnavailable, match="lacks a file of weights beside it"):
        get_encoder(f"onnx:{one}")
    assert not availability(f"onnx:{one}").ready
    shutil.copy(other / "weights.bin", one / "weights.bin")
    assert availability(f"onnx:{one}").ready and get_encoder(f"onnx:{one}").key == load(other).key


# --- what may be wrong in the folder ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "said", "sentence"),
    [
        (("input",), {}, "lacks 'input'"),
        (("size", "std"), {}, "lacks 'size' and 'std'"),
        ((), {"substract": "mean.npy"}, "field 'substract' that means nothing here: did you mean 'subtract'"),
        ((), {"size": "16"}, "size '16'; it takes a whole number"),
        ((), {"size": 0}, "size 0; it takes a whole number"),
        ((), {"dim": True}, "dim True; it takes a whole number"),
        ((), {"mean": [0.5, 0.5]}, "three numbers, for red, green and blue"),
        ((), {"mean": [0.5, 0.5, float("nan")]}, "three numbers"),
        ((), {"std": [0.5, 0.5, 0]}, "give numbers above 0"),
        ((), {"resize": "longest side"}, "it takes \"shortest side, bicubic"),
        ((), {"resize": "shortest side 8"}, "it takes \"shortest side, bicubic"),
        ((), {"resize": 5}, "resize 5; it takes"),
        ((), {"output": ""}, "output ''; it takes a name"),
        ((), {"file": "gone.onnx"}, "lacks gone.onnx, the network"),
        ((), {"subtract": "gone.npy"}, "lacks gone.npy, the mean vector"),
        ((), {"subtract": [0.1, "a"]}, "is no mean vector"),
        ((), {"subtract": [0.1] * 5, "dim": 6}, "subtracts has 5 numbers, but the vectors have 6"),
    ],
)  # fmt: skip
def test_a_wrong_json_is_said_in_one_sentence_without_the_network(
    make: Make, without: tuple[str, ...], said: dict[str, Any], sentence: str
) -> None:
    folder = make(without=without, said=said)
    state = availability(f"onnx:{folder}")
    assert not state.ready and sentence in state.sentence and str(folder) in state.sentence
    with pytest.raises(EncoderUnavailable) as caught:
        get_encoder(f"onnx:{folder}")
    assert str(caught.value) == state.sentence


def test_files_that_are_missing_or_broken_are_named(make: Make, tmp_path: Path) -> None:
    def sentence(folder: Path) -> str:
        state = availability(f"onnx:{folder}")
        assert not state.ready
        return state.sentence

    assert "There is no folder" in sentence(tmp_path / "nowhere")
    folder = make()
    (folder / "model.onnx").write_bytes(b"")
    assert "model.onnx is empty" in sentence(folder)
    (folder / "model.onnx").unlink()
    assert "lacks model.onnx, the network" in sentence(folder)
    (folder / "model.json").write_text("[1]")
    assert "holds no JSON object" in sentence(folder)
    (folder / "model.json").write_text("{")
    assert "cannot be read as JSON" in sentence(folder)
    (folder / "model.json").unlink()
    assert "lacks model.json" in sentence(folder)
    folder = make("means", said={"subtract": "mean.npy"})
    for content, says in [(np.ones((2, 6)), "no mean vector"), (np.full(6, np.inf), "not finite")]:
        np.save(folder / "mean.npy", content)
        assert says in sentence(folder)
    np.save(folder / "mean.npy", np.array([{}]), allow_pickle=True)
    assert "cannot be read as a .npy of numbers" in sentence(folder)


@pytest.mark.parametrize(
    ("said", "how", "sentence"),
    [
        ({"input": "picture"}, {}, "has no input 'picture'; it has 'x'"),
        ({"output": "z"}, {}, "has no output 'z'; it has 'y'"),
        ({"size": 8}, {}, "wants an input of shape ['n', 3, 16, 16], not (pictures, 3, 8, 8)"),
        ({}, {"shape": (3, SIDE)}, "fails"),
        ({}, {"pool": False, "flat": False}, "gives 'y' of shape (pictures, 6, 16, 16)"),
        ({}, {"kind": "double"}, "of type tensor(double), not float or float16"),
        ({"dim": 7}, {}, "\"dim\": 7, but 'y' has 6 numbers"),
        ({"subtract": [0.1] * 5}, {}, "has 5 numbers, but the vectors have 6"),
        ({}, {"factor": float("nan")}, "gives numbers that are not finite for a grey picture"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_its_json_is_said(
    make: Make, said: dict[str, Any], how: dict[str, Any], sentence: str
) -> None:
    folder = make(said=said, **how)
    if sentence == "fails":
        sentence = "cannot be loaded"  # onnxruntime checks the ranks itself
    assert availability(f"onnx:{folder}").ready, "only running it can tell"
    with pytest.raises(EncoderUnavailable) as caught:
        get_encoder(f"onnx:{folder}")
    assert sentence in str(caught.value)
    assert availability(f"onnx:{folder}").sentence == str(caught.value), "kept until the files change"


def test_a_file_that_is_no_network_is_said(make: Make) -> None:
    folder = make()
    (folder / "model.onnx").write_bytes(b"this is not a network")
    with pytest.raises(EncoderUnavailable, match="cannot be loaded"):
        get_encoder(f"onnx:{folder}")


def test_a_vector_that_is_not_finite_is_a_fault(make: Make) -> None:
    encoder = load(make(kind="float16", factor=2_000.0, said={"mean": [128 / 255] * 3, "std": [0.001] * 3}))
    with pytest.raises(EncoderFault, match="not finite"):
        rows(encoder)


def test_a_batch_that_does_not_fit_the_memory_is_halved(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(make())
    wanted, whole = rows(encoder), encoder._run
    sizes: list[int] = []

    def cramped(part: Any) -> Any:
        sizes.append(len(part))
        if len(part) > room:
            raise MemoryError
        return whole(part)

    monkeypatch.setattr(encoder, "_run", cramped)
    room = 1
    np.testing.assert_allclose(rows(encoder), wanted, atol=1e-6)
    assert sizes[:3] == [4, 2, 1]
    room = 0
    with pytest.raises(EncoderFault, match="does not fit the memory"):
        rows(encoder)


# --- the setting ------------------------------------------------------------------------------------------


def test_the_setting_is_read_and_refused() -> None:
    read = parse("onnx:/models/mine")
    assert (read.kind, read.path, read.label) == (Kind.ONNX, Path("/models/mine"), "mine")
    with pytest.raises(ImproperlyConfigured, match="onnx:FOLDER"):
        parse("onnx: ")


def test_the_model_command_shows_it_and_says_that_it_cannot_be_downloaded(make: Make, tmp_path: Path) -> None:
    call_command("model", "show", "--encoder", f"onnx:{make()}")
    for options in ([], ["--dry-run"]):
        with pytest.raises((CommandError, SystemExit)):
            call_command("model", "fetch", "--encoder", f"onnx:{tmp_path / 'away'}", *options)
