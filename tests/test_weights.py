"""Where models are found, how they are downloaded, and what is said when they are not there."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from search.encoders import (
    DEFAULT_BYTES,
    availability,
    fetch,
    get_encoder,
    hub,
    reset_encoders,
    specification,
    transfer,
    weights,
)  # fmt: skip
from search.encoders.specification import Kind, parse
from search.errors import EncoderUnavailable
from tests.conftest import ROOT
from tests.hub_server import COMMIT, HubServer

SPEC = "hf-hub:test/model"
WEIGHTS = "open_clip_model.safetensors"
CONFIG = b'{"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}}'


def safetensors(numbers: int = 600_000) -> bytes:
    """A valid file of that many floats."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    return len(header).to_bytes(8, "little") + header + os.urandom(4 * numbers)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_TOKEN", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    reset_encoders()
    yield
    reset_encoders()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({weights.CONFIG: CONFIG, WEIGHTS: safetensors()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield server


def target(settings: Any) -> Path:
    return Path(settings.IMAGESEARCH_MODELS) / "test--model" / WEIGHTS


# --- settings ---------------------------------------------------------------------------------------------


def test_the_table_of_weights_is_that_of_the_installed_openclip() -> None:
    from open_clip.pretrained import _PRETRAINED

    expected = {
        name: {tag: known.get("hf_hub") or known.get("url") for tag, known in tags.items()}
        for name, tags in _PRETRAINED.items()
    }
    assert specification.known_weights() == expected
    assert all(place and not place.startswith("http") for tags in expected.values() for place in tags.values())


def test_the_size_of_the_default_model_is_that_of_its_architecture() -> None:
    import open_clip
    import torch

    with torch.device("meta"):
        model = open_clip.create_model("ViT-B-32-256", load_weights=False, device="meta")
    tensors = 4 * sum(tensor.numel() for tensor in model.state_dict().values())
    assert 0 <= DEFAULT_BYTES["ViT-B-32-256", "datacomp_s34b_b86k"] - tensors < 200_000


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("nonsense", "hf-hub:ORGANISATION/NAME"),
        ("", "look"),
        ("ViT-B-32-265/datacomp_s34b_b86k", "ViT-B-32-256"),
        ("ViT-B-32-256/no_such_tag", "datacomp_s34b_b86k"),
        ("hf-hub:alone", "hf-hub:ORGANISATION/NAME"),
        ("local-dir:", "local-dir:FOLDER"),
        ("random:ViT-X", "no architecture 'ViT-X'"),
    ],
)
def test_a_wrong_setting_names_itself_its_value_and_what_it_accepts(value: str, says: str, settings: Any) -> None:
    settings.IMAGESEARCH_ENCODER = value
    for ask in (availability, get_encoder, fetch):
        with pytest.raises(ImproperlyConfigured) as caught:
            ask()
        assert str(caught.value).startswith(f"IMAGESEARCH_ENCODER is {value!r}, but it accepts ")
        assert says in str(caught.value)


def test_settings_are_read_into_their_parts(settings: Any) -> None:
    checkpoint = parse("ViT-B-32//models/mine.pt")
    assert (checkpoint.kind, checkpoint.path) == (Kind.CHECKPOINT, Path("/models/mine.pt"))
    assert parse("local-dir:some/where").path == (Path(settings.BASE_DIR) / "some/where").resolve()
    assert parse("ViT-L-14/openai").repository == "timm/vit_large_patch14_clip_224.openai"
    with_file = parse("ViTamin-S/datacomp1b")
    assert (with_file.repository, with_file.file) == ("jienengchen/ViTamin-S", "pytorch_model.bin")


# --- finding ----------------------------------------------------------------------------------------------


def test_asking_for_availability_imports_no_torch_and_opens_no_connection(tmp_path: Path) -> None:
    code = """
import socket, sys
def refuse(*args, **kwargs): raise SystemExit("a connection was opened")
socket.socket.connect = socket.getaddrinfo = refuse
import django; django.setup()
from search.encoders import availability
for spec in (None, "look", "ViT-L-14/openai", "hf-hub:org/name", "local-dir:/nowhere", "random:ViT-B-32"):
    availability(spec)
heavy = {"torch", "open_clip", "torchvision", "huggingface_hub", "skimage", "cv2"} & set(sys.modules)
assert not heavy, heavy
print(availability().sentence)
"""
    environment = {
        **os.environ, "IMAGESEARCH_DATA": str(tmp_path / "d"), "PYTHONPATH": str(ROOT),
        "IMAGESEARCH_ENCODER": "ViT-B-32-256/datacomp_s34b_b86k",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "`manage.py model fetch`" in done.stdout
    assert str(tmp_path / "d" / "models" / "ViT-B-32-256--datacomp_s34b_b86k.safetensors") in done.stdout


@pytest.mark.parametrize(
    "place",
    [
        "models/ViT-B-32-256--datacomp_s34b_b86k.safetensors",
        "models/ViT-B-32-256--datacomp_s34b_b86k/any-name.safetensors",
        "models/laion--CLIP-ViT-B-32-256x256-DataComp-s34B-b86K/open_clip_model.safetensors",
        "models/laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K/open_clip_model.safetensors",
        f"models/models--laion--CLIP-ViT-B-32-256x256-DataComp-s34B-b86K/snapshots/{COMMIT}/open_clip_model.safetensors",
        f"cache/models--laion--CLIP-ViT-B-32-256x256-DataComp-s34B-b86K/snapshots/{COMMIT}/open_clip_model.safetensors",
    ],
)
def test_weights_are_found_where_they_may_lie(place: str, tmp_path: Path, settings: Any, monkeypatch: Any) -> None:
    settings.IMAGESEARCH_MODELS = tmp_path / "models"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    settings.IMAGESEARCH_ENCODER = "ViT-B-32-256/datacomp_s34b_b86k"
    assert not availability().ready
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_bytes(safetensors(10))
    assert availability().ready
    found = weights.locate(parse())
    assert found is not None and found.checkpoint == file


def test_the_hand_carried_folder_comes_before_the_cache(tmp_path: Path, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "models--test--model" / "snapshots" / COMMIT
    for folder in (cached, target(settings).parent):
        folder.mkdir(parents=True)
        (folder / weights.CONFIG).write_bytes(CONFIG)
        (folder / WEIGHTS).write_bytes(safetensors(10))
    found = weights.locate(parse(SPEC))
    assert found is not None and found.checkpoint == target(settings)


def test_the_revision_that_the_cache_calls_main_is_taken(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--test--model"
    for commit in ("a" * 40, "b" * 40):
        folder = repository / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / weights.CONFIG).write_bytes(CONFIG)
        (folder / WEIGHTS).write_bytes(safetensors(10))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    found = weights.locate(parse(SPEC))
    assert found is not None and found.checkpoint.parent.name == "a" * 40


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (safetensors(1000)[:-7], "is incomplete"),
        (b"", "is empty"),
        (b"\xff" * 100, "is not a safetensors file or is incomplete"),
        ((20).to_bytes(8, "little") + b"no json in this head", "cannot be read"),
        ((2).to_bytes(8, "little") + b"[]", "cannot be read"),
    ],
)
def test_incomplete_weights_are_said_without_loading_them(content: bytes, says: str, settings: Any) -> None:
    target(settings).parent.mkdir(parents=True)
    (target(settings).parent / weights.CONFIG).write_bytes(CONFIG)
    target(settings).write_bytes(content)
    state = availability(SPEC)
    assert not state.ready and says in state.sentence and str(target(settings)) in state.sentence
    with pytest.raises(EncoderUnavailable, match=says):
        get_encoder(SPEC)
    target(settings).write_bytes(safetensors(1000))
    assert availability(SPEC).ready


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("local-dir:/nowhere/at/all", "There is no folder /nowhere/at/all"),
        ("ViT-B-32//nowhere.pt", "There is no file /nowhere.pt"),
        (SPEC, "manage.py model fetch"),
    ],
)
def test_a_missing_model_says_what_brings_it(spec: str, says: str) -> None:
    assert says in availability(spec).sentence
    with pytest.raises(EncoderUnavailable, match=says.split(".")[0]):
        get_encoder(spec)


def test_a_folder_without_weights_or_configuration_says_which(tmp_path: Path) -> None:
    assert "lacks open_clip_config.json" in availability(f"local-dir:{tmp_path}").sentence
    (tmp_path / weights.CONFIG).write_bytes(CONFIG)
    assert "lacks weights such as open_clip_model.safetensors" in availability(f"local-dir:{tmp_path}").sentence


def test_weights_of_another_architecture_are_a_sentence_and_not_tried_again_until_they_change(
    settings: Any, monkeypatch: Any
) -> None:
    """RN50 is small to build; the weights are a valid file with nothing in it that fits."""
    spec = "RN50/openai"
    file = Path(settings.IMAGESEARCH_MODELS) / "RN50--openai.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(safetensors(10))
    with pytest.raises(EncoderUnavailable, match=r"cannot be loaded from .*belongs to another architecture") as first:
        get_encoder(spec)
    assert availability(spec).sentence == str(first.value)
    with monkeypatch.context() as patch:
        patch.setattr("search.encoders.openclip.load", lambda *_: pytest.fail("loaded again"))
        with pytest.raises(EncoderUnavailable):
            get_encoder(spec)
    file.write_bytes(safetensors(20))
    assert availability(spec).ready


def test_a_configuration_that_openclip_cannot_read_is_a_sentence(settings: Any) -> None:
    target(settings).parent.mkdir(parents=True)
    (target(settings).parent / weights.CONFIG).write_bytes(b'{"model_cfg": {"embed_dim": 8}}')
    target(settings).write_bytes(safetensors(10))
    with pytest.raises(EncoderUnavailable, match="cannot be loaded"):
        get_encoder(SPEC)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is installed")
def test_a_model_that_needs_another_package_says_so_before_anything_is_downloaded(
    server: HubServer, settings: Any, tmp_path: Path
) -> None:
    config = json.dumps({"model_cfg": {"embed_dim": 8, "text_cfg": {"hf_tokenizer_name": "org/words"}}}).encode()
    server.files[weights.CONFIG] = config
    for spec in (SPEC, "ViT-B-16-SigLIP/webli", "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k"):
        with pytest.raises(EncoderUnavailable, match="needs the package transformers, which is not installed"):
            fetch(spec)
    assert not server.gets(WEIGHTS)
    (tmp_path / weights.CONFIG).write_bytes(config)
    (tmp_path / WEIGHTS).write_bytes(safetensors(10))
    for spec in (f"local-dir:{tmp_path}", "random:ViT-B-16-SigLIP"):
        with pytest.raises(EncoderUnavailable, match="needs the package transformers"):
            get_encoder(spec)
    assert "needs the package transformers" in availability(f"local-dir:{tmp_path}").sentence


# --- identity ---------------------------------------------------------------------------------------------


def test_the_same_weights_found_in_two_places_have_one_key(dev_clip: str, settings: Any, tmp_path: Path) -> None:
    folder = target(settings).parent
    shutil.copytree(parse(dev_clip).path or "", folder)
    settings.IMAGESEARCH_PRECISION = "fp32"
    carried = get_encoder(SPEC)
    settings.IMAGESEARCH_PRECISION = "bf16"
    assert carried.key == get_encoder(dev_clip).key
    assert carried.label == "test/model"


def test_other_preprocessing_and_other_weights_have_other_keys(dev_clip: str, settings: Any) -> None:
    folder = target(settings).parent
    shutil.copytree(parse(dev_clip).path or "", folder)
    os.chmod(folder, 0o755)
    config = json.loads((folder / weights.CONFIG).read_text())
    config["preprocess_cfg"]["mean"] = [0.4, 0.5, 0.5]
    os.chmod(folder / weights.CONFIG, 0o644)
    (folder / weights.CONFIG).write_text(json.dumps(config))
    assert get_encoder(SPEC).key.split(":")[:3] == get_encoder(dev_clip).key.split(":")[:3]
    assert get_encoder(SPEC).key != get_encoder(dev_clip).key


def test_digests_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(b"one")
    first = weights.sha256_of(file)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
        assert weights.sha256_of(file) == first
    file.write_bytes(b"three")
    assert weights.sha256_of(file) != first


# --- downloading ------------------------------------------------------------------------------------------


def test_a_download_says_its_size_before_shows_progress_and_is_whole(server: HubServer, settings: Any) -> None:
    seen: list[tuple[str, int, int | None]] = []
    state = fetch(SPEC, lambda *args: seen.append(args))
    assert state.ready
    size = len(server.files[WEIGHTS])
    assert seen[:2] == [(weights.CONFIG, 0, len(CONFIG)), (WEIGHTS, 0, size)]
    assert seen[-1] == (WEIGHTS, size, size)
    assert target(settings).read_bytes() == server.files[WEIGHTS]
    assert sorted(path.name for path in target(settings).parent.iterdir()) == sorted([".lock", weights.CONFIG, WEIGHTS])
    assert any(f"/resolve/{COMMIT}/" in path for method, path, _ in server.requests if method == "GET")
    count = len(server.requests)
    fetch(SPEC)
    assert len(server.requests) == count


def test_what_was_downloaded_can_be_loaded(dev_clip: str, monkeypatch: Any) -> None:
    folder = parse(dev_clip).path
    assert folder is not None
    with HubServer({name: folder / name for name in (weights.CONFIG, WEIGHTS)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        assert fetch(SPEC).ready
    assert get_encoder(SPEC).encode_texts(["a dog"]).shape == (1, 256)


def test_the_weights_of_a_tag_are_downloaded_from_its_repository(settings: Any, monkeypatch: Any) -> None:
    settings.IMAGESEARCH_ENCODER = "ViT-B-32-256/datacomp_s34b_b86k"
    repository = "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K"
    with HubServer({WEIGHTS: safetensors()}, repository=repository) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        assert fetch().ready
    found = weights.locate(parse())
    assert found is not None
    assert found.checkpoint == Path(settings.IMAGESEARCH_MODELS) / repository.replace("/", "--") / WEIGHTS


def test_an_interrupted_download_goes_on_where_it_stopped(server: HubServer, settings: Any) -> None:
    server.cut_after = [1_000_000, 500_000]
    fetch(SPEC)
    assert server.gets(WEIGHTS) == [None, "bytes=1000000-", "bytes=1500000-"]
    assert server.sent == len(server.files[WEIGHTS])
    assert target(settings).read_bytes() == server.files[WEIGHTS]


def test_a_killed_download_goes_on_in_the_next_run(server: HubServer, settings: Any, tmp_path: Path) -> None:
    server.stall_after = 1_000_000
    environment = {
        **os.environ, "IMAGESEARCH_DATA": str(tmp_path / "data"), "IMAGESEARCH_ENCODER": SPEC, "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    command = [sys.executable, str(ROOT / "manage.py"), "model", "fetch"]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    part = transfer.part_of(target(settings))
    for _ in range(600):
        if part.exists() and part.stat().st_size >= 1_000_000:
            break
        threading.Event().wait(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = part.stat().st_size
    assert kept >= 1_000_000
    server.stall_after = None
    assert fetch(SPEC).ready
    assert server.gets(WEIGHTS) == [None, f"bytes={kept}-"]
    assert target(settings).read_bytes() == server.files[WEIGHTS]


def test_a_server_that_ignores_ranges_sends_the_file_anew(server: HubServer, settings: Any) -> None:
    server.cut_after, server.ignore_ranges = [1_000_000], True
    fetch(SPEC)
    assert target(settings).read_bytes() == server.files[WEIGHTS]


def test_a_new_version_on_the_hub_does_not_continue_the_old_one(server: HubServer, settings: Any, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    monkeypatch.setattr(transfer.time, "sleep", lambda _: None)
    server.cut_after = [1_000_000] + [0] * 9
    with pytest.raises(EncoderUnavailable, match="interrupted at 1,000,000 bytes of 2,400,"):
        fetch(SPEC)
    server.cut_after = []
    server.files[WEIGHTS] = safetensors()
    fetch(SPEC)
    assert server.gets(WEIGHTS)[-1] is None
    assert target(settings).read_bytes() == server.files[WEIGHTS]


def test_a_stalled_download_is_taken_up_anew_and_in_the_end_a_sentence(
    server: HubServer, settings: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(transfer, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    server.stall_after = 500_000
    with pytest.raises(EncoderUnavailable, match=r"`manage.py model fetch` goes on from there"):
        fetch(SPEC)
    assert transfer.part_of(target(settings)).stat().st_size >= 500_000
    assert len(server.gets(WEIGHTS)) >= 3


def test_wrong_bytes_are_noticed_and_deleted(server: HubServer, settings: Any) -> None:
    server.spoiled = {WEIGHTS}
    with pytest.raises(EncoderUnavailable, match=r"not the file that was announced .its SHA-256 differs."):
        fetch(SPEC)
    assert not target(settings).exists() and not transfer.part_of(target(settings)).exists()
    server.spoiled = set()
    assert fetch(SPEC).ready


def test_a_model_that_the_hub_does_not_have_is_named(server: HubServer) -> None:
    with pytest.raises(EncoderUnavailable, match=r"has no file open_clip_config.json: check IMAGESEARCH_ENCODER"):
        fetch("hf-hub:test/other")
    del server.files[WEIGHTS]
    with pytest.raises(EncoderUnavailable, match=f"has no file {WEIGHTS} or "):
        fetch(SPEC)


def test_weights_under_an_older_name_are_taken(server: HubServer, settings: Any) -> None:
    data = server.files.pop(WEIGHTS)
    server.files["open_clip_pytorch_model.bin"] = data
    assert fetch(SPEC).ready
    assert (target(settings).parent / "open_clip_pytorch_model.bin").read_bytes() == data


@pytest.mark.parametrize(("status", "says"), [(401, "set HF_TOKEN"), (403, "set HF_TOKEN"), (503, "status 503")])
def test_a_hub_that_refuses_is_a_sentence(server: HubServer, status: int, says: str) -> None:
    server.status = status
    with pytest.raises(EncoderUnavailable, match=says):
        fetch(SPEC)


def test_the_token_goes_to_the_hub_and_not_to_the_storage(server: HubServer, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(SPEC)
    hub_host, storage = server.url.split("//")[1], server.storage.split("//")[1]
    given = dict(server.authorization)
    assert given == {hub_host: "Bearer hf_secret", storage: None}


def test_a_hub_that_is_down_is_a_sentence(monkeypatch: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(EncoderUnavailable, match=r"out of reach .Connection refused.*model fetch"):
        fetch(SPEC)


def test_a_hub_that_never_answers_is_given_up(monkeypatch: Any) -> None:
    assert hub.ANSWER_SECONDS < 10
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 1.2)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hole.getsockname()[1]}")
        with pytest.raises(EncoderUnavailable, match=r"out of reach .*timed out"):
            fetch(SPEC)


def test_a_name_that_is_not_resolved_in_time_is_given_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(30))
    with pytest.raises(EncoderUnavailable, match=r"out of reach .no answer within"):
        fetch(SPEC)
    release.set()


@pytest.mark.parametrize("value", ["nonsense", "htp://x"])
def test_a_wrong_endpoint_is_a_sentence(value: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(EncoderUnavailable, match=value):
        fetch(SPEC)


def test_offline_makes_no_attempt(server: HubServer, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EncoderUnavailable, match="HF_HUB_OFFLINE is set, so nothing is downloaded"):
        fetch(SPEC)
    assert not server.requests


def test_models_that_lie_on_this_machine_cannot_be_downloaded() -> None:
    with pytest.raises(EncoderUnavailable, match="cannot be downloaded; There is no folder /nowhere"):
        fetch("local-dir:/nowhere")
    assert fetch("look").ready


def test_too_little_room_is_said_before_the_download(server: HubServer, monkeypatch: Any) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50_000_000))
    with pytest.raises(EncoderUnavailable, match="has 50 MB free, but the model needs 2 MB and some to spare"):
        fetch(SPEC)
    assert not server.gets(WEIGHTS)


def test_a_models_folder_that_cannot_be_made_is_a_sentence(server: HubServer, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    settings.IMAGESEARCH_MODELS = tmp_path / "file"
    with pytest.raises(EncoderUnavailable, match=r"cannot be written to .*set IMAGESEARCH_MODELS to another folder"):
        fetch(SPEC)


def test_a_disk_that_fills_up_is_a_sentence_and_what_came_is_kept(server: HubServer, tmp_path: Path) -> None:
    def limit() -> None:  # a file-size limit fails the same write that a full disk does
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))

    environment = {
        **os.environ, "IMAGESEARCH_DATA": str(tmp_path / "data"), "IMAGESEARCH_ENCODER": SPEC, "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "model", "fetch"], env=environment, cwd=ROOT, text=True,
        capture_output=True, preexec_fn=limit, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "data/models/test--model" / f"{WEIGHTS}.part").stat().st_size > 1_000_000


def test_two_processes_download_once(server: HubServer, tmp_path: Path) -> None:
    server.pause = 0.05
    environment = {
        **os.environ, "IMAGESEARCH_DATA": str(tmp_path / "data"), "IMAGESEARCH_ENCODER": SPEC, "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    command = [sys.executable, str(ROOT / "manage.py"), "model", "fetch"]
    both = [
        subprocess.Popen(command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert all("test/model is here." in out for out, _ in outputs)
    assert server.gets(WEIGHTS) == [None]


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_shows_the_model_and_what_would_be_downloaded(capsys: Any, settings: Any) -> None:
    from django.core.management import call_command

    settings.IMAGESEARCH_ENCODER = "ViT-B-32-256/datacomp_s34b_b86k"
    with pytest.raises(SystemExit) as ended:
        call_command("model", "--json")
    assert ended.value.code == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["ready"], report["label"]) == (False, "ViT-B-32-256, datacomp_s34b_b86k")
    assert report["download"]["bytes"] == DEFAULT_BYTES["ViT-B-32-256", "datacomp_s34b_b86k"]
    with pytest.raises(SystemExit):
        call_command("model")
    text = capsys.readouterr().out
    assert "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K (605 MB)" in text
    call_command("model", "--encoder", "look")
    assert "It is built in" in capsys.readouterr().out


def test_the_command_fetches_and_reports(server: HubServer, capsys: Any, settings: Any) -> None:
    from django.core.management import CommandError, call_command

    settings.IMAGESEARCH_ENCODER = SPEC
    call_command("model", "fetch", "--dry-run", "--json")
    files = json.loads(capsys.readouterr().out)["files"]
    assert [file["name"] for file in files] == [weights.CONFIG, WEIGHTS]
    call_command("model", "fetch", "--json")
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["ready"] and report["weights"] == str(target(settings))
    call_command("model")
    assert "It is here." in capsys.readouterr().out
    with pytest.raises(CommandError, match="it accepts look"):
        call_command("model", "--encoder", "wrong")
