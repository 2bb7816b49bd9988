"""The OpenCLIP encoder and the factory, on small real models."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.encoders import encode_plan, get_encoder, load_anew, reset_encoders, set_threads, thread_budget, threads
from search.encoders.openclip import OpenClipEncoder
from search.encoders.precision import cpu_has_bf16
from search.encoders.specification import parse
from search.errors import EncoderFault
from tests.conftest import ROOT
from tests.contracts.encoder import EncoderContract, pictures

RANDOM = "random:ViT-B-32"
WORDS = ["a dog running on grass", "two people in the snow, by night", "日本語の文"]


@pytest.fixture(autouse=True)
def _plain_threads() -> Iterator[None]:
    yield
    set_threads(None)


def load(spec: str, precision: str, settings: Any) -> OpenClipEncoder:
    settings.IMAGESEARCH_PRECISION = precision
    encoder = load_anew(parse(spec))
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


_kept: dict[tuple[str, str], OpenClipEncoder] = {}


def kept(spec: str, precision: str, settings: Any) -> OpenClipEncoder:
    """One for all tests of this file: loading takes longer than using."""
    if (spec, precision) not in _kept:
        _kept[spec, precision] = load(spec, precision, settings)
    return _kept[spec, precision]


class OpenClipContract(EncoderContract):
    precision = "fp32"

    @pytest.fixture
    def encoder(self, spec: str, settings: Any) -> OpenClipEncoder:
        encoder = kept(spec, self.precision, settings)
        settings.IMAGESEARCH_PRECISION = self.precision
        return encoder

    @pytest.fixture
    def words(self) -> list[str]:
        return WORDS


class TestDevClip(OpenClipContract):
    @pytest.fixture
    def spec(self, dev_clip: str) -> str:
        return dev_clip


class TestDevClipInBf16(TestDevClip):
    precision = "bf16"


class TestRandomWeights(OpenClipContract):
    @pytest.fixture
    def spec(self) -> str:
        return RANDOM


class TestRandomWeightsInBf16(TestRandomWeights):
    precision = "bf16"


# --- preprocessing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["dev-clip", RANDOM])
def test_pictures_reach_the_model_exactly_as_its_own_preprocessing_makes_them(
    spec: str, request: pytest.FixtureRequest, settings: Any
) -> None:
    import open_clip
    import torch

    spec = request.getfixturevalue("dev_clip") if spec == "dev-clip" else spec
    encoder = kept(spec, "fp32", settings)
    name = spec if spec.startswith("local-dir:") else parse(spec).architecture
    _, _, preprocess = open_clip.create_model_and_transforms(name, load_weights=spec.startswith("local-dir:"))
    for picture in pictures():
        prepared = encoder.prepare(picture)
        finished = encoder._finish(torch.from_numpy(np.stack([prepared])))
        assert torch.equal(finished[0], preprocess(picture))


@pytest.mark.parametrize(("mode", "size"), [("squash", 48), ("longest", 48), ("shortest", [40, 48])])
def test_every_way_of_resizing_is_that_of_openclip(mode: str, size: Any) -> None:
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from search.encoders.openclip import split

    preprocess = image_transform_v2(PreprocessCfg(size=size, resize_mode=mode, interpolation="bilinear"), False)
    pixels, finish = split(preprocess, torch)
    for picture in pictures():
        assert torch.equal(finish(torch.from_numpy(np.stack([pixels(picture)])))[0], preprocess(picture))


def test_a_transform_of_another_shape_is_used_as_it_is() -> None:
    import torch
    from torchvision.transforms import Compose, Resize, ToTensor

    from search.encoders.openclip import split

    preprocess = Compose([Resize((8, 8)), ToTensor()])
    pixels, finish = split(preprocess, torch)
    picture = pictures(1)[0]
    assert torch.equal(finish(torch.from_numpy(np.stack([pixels(picture)])))[0], preprocess(picture))


def test_long_texts_are_cut_and_not_refused(dev_clip: str, settings: Any) -> None:
    rows = kept(dev_clip, "fp32", settings).encode_texts(["dog " * 500, "", "\n\t", "x" * 10_000])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("spec", ["dev-clip", RANDOM])
@pytest.mark.parametrize(("format", "least"), [("fp32", 0.999999), ("bf16", 0.9995)])
def test_texts_without_their_padding_have_the_same_vectors(
    spec: str, format: str, least: float, request: pytest.FixtureRequest, settings: Any
) -> None:
    import torch

    spec = request.getfixturevalue("dev_clip") if spec == "dev-clip" else spec
    encoder = kept(spec, format, settings)
    texts = ["a dog", "", "two children and a red kite on the beach at sunset", "word " * 300]
    assert encoder._encode_text != encoder._model.encode_text, "this tower is causal"
    with torch.inference_mode():
        whole = encoder._unit(encoder._model.encode_text(encoder._tokenizer(texts)))
    for some in (texts, texts[:1], texts[:3]):
        assert ((encoder.encode_texts(some) * whole[: len(some)]).sum(axis=1) > least).all()


@pytest.mark.parametrize(
    ("options", "causal"),
    [
        ({}, True), ({"proj_bias": True}, True), ({"proj_type": "none"}, True), ({"pool_type": "last"}, False),
        ({"no_causal_mask": True}, False), ({"embed_cls": True}, False),
        ({"use_pad_mask": True, "no_causal_mask": True}, False),
    ],
)  # fmt: skip
def test_only_the_padding_of_causal_towers_is_left_away(options: dict[str, Any], causal: bool) -> None:
    import torch
    from open_clip.transformer import TextTransformer

    from search.encoders.causal_texts import shortened

    torch.manual_seed(3)
    tower = TextTransformer(context_length=12, vocab_size=50, width=32, heads=2, layers=2, output_dim=16, **options)
    encode = shortened(types.SimpleNamespace(text=tower.eval()), torch)
    assert (encode is not None) == causal
    if encode is not None:
        tokens = torch.tensor([[48, 5, 49] + [0] * 9, [48, 5, 7, 9, 11, 49] + [0] * 6])
        with torch.inference_mode():
            assert torch.allclose(encode(tokens), tower(tokens), atol=1e-5)


# --- weights of tags --------------------------------------------------------------------------------------


def test_a_tag_brings_its_own_preprocessing_and_activation(settings: Any, tmp_path: Path) -> None:
    """RN50's yfcc15m and cc12m weights want QuickGELU or not by tag: here the random weights stand in for the file."""
    import open_clip
    import torch

    settings.IMAGESEARCH_MODELS = tmp_path
    model = open_clip.create_model("ViT-B-32", load_weights=False, force_quick_gelu=True)
    torch.save(model.state_dict(), tmp_path / "ViT-B-32--openai.pt")
    torch.save(model.state_dict(), tmp_path / "ViT-B-32--laion2b_s34b_b79k.pt")
    openai = load("ViT-B-32/openai", "fp32", settings)
    laion = load("ViT-B-32/laion2b_s34b_b79k", "fp32", settings)
    layers = [{type(layer).__name__ for layer in one._model.modules()} for one in (openai, laion)]
    assert "QuickGELU" in layers[0] and "QuickGELU" not in layers[1]
    assert openai.key != laion.key
    file = load(f"ViT-B-32/{tmp_path}/ViT-B-32--laion2b_s34b_b79k.pt", "fp32", settings)
    assert file.key == laion.key and file.label == "ViT-B-32, ViT-B-32--laion2b_s34b_b79k.pt"


def test_random_weights_are_the_same_each_time_and_leave_other_random_numbers_alone(settings: Any) -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load(RANDOM, "fp32", settings)
    assert torch.equal(torch.rand(3), expected)


# --- precision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("flags\t\t: fpu avx512f amx_bf16\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
    ],
)
def test_bf16_is_read_from_the_processors_flags(text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_has_bf16(tmp_path / "cpuinfo") is expected


def test_auto_takes_what_this_machine_is_quick_at(settings: Any, monkeypatch: Any) -> None:
    import torch

    from search.encoders import precision

    settings.IMAGESEARCH_PRECISION = "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precision, "cpu_has_bf16", lambda has=has: has)
        assert precision.choose(torch) == precision.Arithmetic("cpu", expected)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert precision.choose(torch) == precision.Arithmetic("mps", "fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision.choose(torch) == precision.Arithmetic("cuda", "fp16")
    settings.IMAGESEARCH_PRECISION = "fp32"
    assert precision.choose(torch) == precision.Arithmetic("cuda", "fp32")


@pytest.mark.parametrize("spec", ["dev-clip", RANDOM])
def test_both_towers_are_converted_and_batch_norm_keeps_its_statistics(
    spec: str, request: pytest.FixtureRequest, settings: Any
) -> None:
    import torch

    spec = request.getfixturevalue("dev_clip") if spec == "dev-clip" else spec
    exact, converted = kept(spec, "fp32", settings), kept(spec, "bf16", settings)
    originals = dict(exact._model.named_modules())
    for name, layer in converted._model.named_modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            kept_values, given = layer.state_dict(), originals[name].state_dict()
            assert all(torch.equal(kept_values[key], given[key]) for key in given)
        else:
            assert all(tensor.dtype == torch.bfloat16 for tensor in layer.parameters(recurse=False)), name


def test_a_vector_that_is_not_finite_is_a_fault(settings: Any) -> None:
    import torch

    encoder = load(RANDOM, "fp32", settings)
    with torch.no_grad():
        encoder._model.visual.proj.fill_(float("nan"))
    with pytest.raises(EncoderFault, match="not finite in fp32: set IMAGESEARCH_PRECISION=fp32"):
        encoder.encode_images([encoder.prepare(pictures(1)[0])])


# --- memory -----------------------------------------------------------------------------------------------


class Cramped:
    """A real model whose memory holds only batches up to `room`."""

    def __init__(self, model: Any, room: int, error: Exception) -> None:
        self._model, self.room, self.error = model, room, error
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_image(self, inputs: Any) -> Any:
        self.batches.append(len(inputs))
        if len(inputs) > self.room:
            raise self.error
        return self._model.encode_image(inputs)


def out_of_memory_errors() -> list[Exception]:
    import torch

    return [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_batch_that_does_not_fit_is_halved_and_later_ones_are_cut_to_what_fits(
    number: int, dev_clip: str, settings: Any, monkeypatch: Any
) -> None:
    encoder = load(dev_clip, "fp32", settings)
    prepared = [encoder.prepare(picture) for picture in pictures(13)]
    expected = encoder.encode_images(prepared)
    cramped = Cramped(encoder._model, 4, out_of_memory_errors()[number])
    monkeypatch.setattr(encoder, "_model", cramped)
    np.testing.assert_allclose(encoder.encode_images(prepared), expected, atol=1e-5)
    assert cramped.batches == [13, 6, 3, 3, 3, 3, 1]
    cramped.batches.clear()
    np.testing.assert_allclose(encoder.encode_images(prepared[:6]), expected[:6], atol=1e-5)
    assert cramped.batches == [3, 3]


def test_one_picture_that_does_not_fit_is_a_fault(dev_clip: str, settings: Any, monkeypatch: Any) -> None:
    encoder = load(dev_clip, "fp32", settings)
    cramped = Cramped(encoder._model, 0, out_of_memory_errors()[0])
    monkeypatch.setattr(encoder, "_model", cramped)
    prepared = [encoder.prepare(picture) for picture in pictures(4)]
    with pytest.raises(EncoderFault, match=r"One picture does not fit the memory .*choose a smaller model"):
        encoder.encode_images(prepared)
    cramped.room = 99  # somebody else's program ended
    assert encoder.encode_images(prepared).shape == (4, 256)


def test_larger_batches_are_tried_again_when_the_memory_is_free(dev_clip: str, settings: Any, monkeypatch: Any) -> None:
    from search.encoders import openclip

    monkeypatch.setattr(openclip, "TRY_LARGER_AFTER", 3)
    encoder = load(dev_clip, "fp32", settings)
    cramped = Cramped(encoder._model, 2, out_of_memory_errors()[0])
    monkeypatch.setattr(encoder, "_model", cramped)
    prepared = [encoder.prepare(picture) for picture in pictures(4)]
    encoder.encode_images(prepared)
    cramped.room = 99
    encoder.encode_images(prepared)
    cramped.batches.clear()
    encoder.encode_images(prepared)
    assert cramped.batches == [4]


def test_other_errors_are_not_taken_for_memory(dev_clip: str, settings: Any, monkeypatch: Any) -> None:
    encoder = load(dev_clip, "fp32", settings)
    monkeypatch.setattr(encoder, "_model", Cramped(encoder._model, 0, RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        encoder.encode_images([encoder.prepare(picture) for picture in pictures(4)])


# --- the factory ------------------------------------------------------------------------------------------


def test_one_instance_in_a_process_even_when_many_threads_ask_at_once(dev_clip: str, monkeypatch: Any) -> None:
    from search.encoders import openclip

    reset_encoders()
    loads: list[str] = []
    original = openclip.load

    def counted(specification: Any) -> Any:
        loads.append(specification.text)
        return original(specification)

    monkeypatch.setattr(openclip, "load", counted)
    found: list[Any] = []
    asking = [threading.Thread(target=lambda: found.append(get_encoder(dev_clip))) for _ in range(5)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert loads == [dev_clip] and len({id(one) for one in found}) == 1
    reset_encoders()
    assert get_encoder(dev_clip) is not found[0]


def test_the_setting_is_the_default(settings: Any) -> None:
    settings.IMAGESEARCH_ENCODER = "look"
    assert get_encoder() is get_encoder("look")


# --- threads ----------------------------------------------------------------------------------------------


def test_the_budget_is_the_setting_or_what_this_process_may_use(settings: Any, monkeypatch: Any) -> None:
    settings.IMAGESEARCH_THREADS = 7
    assert thread_budget() == 7
    settings.IMAGESEARCH_THREADS = 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(threads, "_quota", lambda _: None)
    assert thread_budget() == 3
    monkeypatch.setattr(threads, "_quota", lambda _: 2)
    assert thread_budget() == 2


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense\n"}, None),
        ({}, None),
    ],
)
def test_the_control_groups_quota_is_read(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads._quota(tmp_path) == expected


@pytest.mark.parametrize(("budget", "plan"), [(1, (1, 1)), (2, (2, 1)), (4, (4, 1)), (6, (4, 1)), (16, (4, 4))])
def test_the_plan_divides_the_budget_among_callers(
    budget: int, plan: tuple[int, int], settings: Any, monkeypatch: Any
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings.IMAGESEARCH_THREADS = budget
    assert encode_plan() == plan
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert encode_plan() == (1, budget)


def test_the_number_of_threads_holds_in_every_thread_that_encodes(dev_clip: str, settings: Any) -> None:
    import torch

    encoder = kept(dev_clip, "fp32", settings)
    seen: list[tuple[int, int]] = []

    def ask(wanted: Sequence[int]) -> None:
        for number in wanted:
            set_threads(number)
            encoder.encode_texts(["a dog", "a cat"])
            seen.append((number, torch.get_num_threads()))

    for _ in range(2):
        thread = threading.Thread(target=ask, args=([1, 2, 1],))
        thread.start()
        thread.join()
    ask([2, 1])
    assert all(wanted == got for wanted, got in seen)


def test_a_single_text_is_computed_with_no_more_threads_than_pay(dev_clip: str, settings: Any) -> None:
    import torch

    encoder = kept(dev_clip, "fp32", settings)
    set_threads(2)
    together = encoder.encode_texts(["a dog", "a cat"])
    for most, used in ((1, 1), (None, 2)):
        encoder._threads_of_a_text = most
        alone = encoder.encode_texts(["a dog"])
        assert torch.get_num_threads() == used
        assert np.abs(alone[0] - together[0]).max() < 1e-5
    set_threads(1)
    assert encoder._one_or_all() is None, "with one thread there is nothing to choose"


@pytest.mark.slow
def test_waiting_threads_do_not_spin_and_a_persons_own_choice_stays(tmp_path: Path) -> None:
    code = (
        "import django, os; django.setup()\n"
        "from search.encoders import get_encoder\n"
        "get_encoder('random:ViT-S-32-alt')\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['KMP_BLOCKTIME'])"
    )
    environment = {**os.environ, "IMAGESEARCH_DATA": str(tmp_path / "d"), "PYTHONPATH": str(ROOT)}
    for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME"):
        environment.pop(name, None)
    for given, said in (({}, "PASSIVE 0"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE 0")):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**environment, **given}, capture_output=True, text=True, timeout=120
        )
        assert done.stdout.strip() == said, done.stderr


def test_loading_writes_nothing_on_the_terminal(tmp_path: Path) -> None:
    code = (
        "import django; django.setup()\n"
        "from search.encoders import get_encoder\n"
        "e = get_encoder('random:ViT-S-32-alt')\n"
        "import PIL.Image; e.encode_images([e.prepare(PIL.Image.new('RGB', (300, 200)))])"
    )
    environment = {**os.environ, "IMAGESEARCH_DATA": str(tmp_path / "d"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
