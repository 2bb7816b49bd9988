"""Downloading a model from the Hugging Face hub (or whatever HF_ENDPOINT names) into the models folder.

A small downloader of its own, because huggingface_hub 2.4 writes every download to a new temporary name and removes
it when it fails: an interrupted 600 MB starts again from nothing. Here the unfinished file stays beside its final
name (`.part`, with a note of what it is) and goes on with a Range request, in the same run or a later one.
HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read when asked, not at import. `search.encoders.transfer` brings one
file; here is what to ask for, where it goes, and who may.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

from search.encoders import weights
from search.encoders.extras import missing_for, missing_package
from search.encoders.specification import Kind, Specification
from search.encoders.transfer import (
    PIECE,
    STALL_SECONDS,
    Announcement,
    Interrupted,
    Progress,
    download,
    endpoint,
    open_url,
    part_of,
    reason_of,
    request,
)
from search.errors import EncoderUnavailable

ANSWER_SECONDS = 7.0
"""The hub must have answered the first question by then, looking up its name included."""
SPARE_BYTES = 100_000_000


class _NotThere(Exception):
    """The hub has no file of this name."""


def is_offline() -> bool:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").strip().upper() in {"1", "ON", "YES", "TRUE"} for name in names)


def announce(specification: Specification) -> list[Announcement]:
    """What would be downloaded for this model, weights last. Asks the hub; seconds at most.

    Raises EncoderUnavailable (a sentence) when the hub is out of reach or has no such model.
    """
    if specification.kind not in {Kind.TAG, Kind.HUB}:
        raise EncoderUnavailable(
            f"The model {specification.label} cannot be downloaded; {weights.how_to_bring(specification)}"
            if specification.kind in {Kind.CHECKPOINT, Kind.FOLDER, Kind.ONNX}
            else f"The encoder {specification.label} needs no download."
        )
    if is_offline():
        raise EncoderUnavailable(
            f"HF_HUB_OFFLINE is set, so nothing is downloaded. Unset it for the download. "
            f"{weights.how_to_bring(specification)}"
        )
    if specification.kind is Kind.TAG and (lacks := missing_package(specification, None)):
        raise EncoderUnavailable(lacks)
    needed = []
    if specification.kind is Kind.HUB:
        needed.append(_first_of(specification, (weights.CONFIG,)))
        needed += _tokenizer_of(specification, needed[0])
    names = (specification.file, *weights.PREFERRED) if specification.file else weights.PREFERRED
    needed.append(_first_of(specification, names))
    return needed


def fetch(specification: Specification, progress: Progress) -> None:
    """Download what is missing; returns at once when the model is here. Two processes: one does it, one waits.

    `progress(name, here, size)` is called for every file before its first byte, then after every piece.
    Raises EncoderUnavailable (a sentence).
    """
    if specification.kind in {Kind.LOOK, Kind.RANDOM} or _is_here(specification):
        return
    if specification.kind in {Kind.CHECKPOINT, Kind.FOLDER, Kind.ONNX} or is_offline():
        announce(specification)  # raises the sentence that says so
    folder = weights.download_folder(specification)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder, progress):
            if _is_here(specification):
                return
            files = announce(specification)
            _check_space(folder, files)
            for file in files:
                progress(file.name, _here(folder, file), file.size)
            for file in files:
                download(file, folder / file.name, progress)
    except OSError as error:
        raise EncoderUnavailable(
            f"The model {specification.label} cannot be written to {folder} ({error.strerror or error}): make room or "
            "set IMAGESEARCH_MODELS to another folder; then `manage.py model fetch` goes on."
        ) from error
    try:
        arrived = weights.locate(specification) is not None
    except EncoderUnavailable:
        for file in files:
            (folder / file.name).unlink(missing_ok=True)
        raise
    if not arrived:
        raise EncoderUnavailable(f"{endpoint()} has no weights of {specification.label} in a form that OpenCLIP reads.")


def _is_here(specification: Specification) -> bool:
    """Whether nothing is missing; what is here but damaged is named, not overwritten."""
    return weights.locate(specification) is not None


def _here(folder: Path, file: Announcement) -> int:
    for path in (folder / file.name, part_of(folder / file.name)):
        with contextlib.suppress(OSError):
            return path.stat().st_size
    return 0


def _first_of(specification: Specification, names: tuple[str, ...]) -> Announcement:
    """The first of these files that the repository has."""
    for name in names:
        with contextlib.suppress(_NotThere):
            return _ask(specification, name)
    where = f"{endpoint()}/{specification.repository}"
    raise EncoderUnavailable(
        f"{where} has no file {' or '.join(dict.fromkeys(names))}: check IMAGESEARCH_ENCODER, "
        f"which asks for {specification.label}."
    )


def _tokenizer_of(specification: Specification, config: Announcement) -> list[Announcement]:
    """Models whose text tower comes from elsewhere bring their tokenizer's files along."""
    try:
        with contextlib.closing(open_url(request(config.url), STALL_SECONDS)) as answer:
            text = json.loads(answer.read(PIECE))["model_cfg"].get("text_cfg", {})
    except (Interrupted, OSError) as error:
        raise EncoderUnavailable(f"{config.url} cannot be downloaded ({reason_of(error)}); try again later.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoderUnavailable(f"{config.url} is not a model configuration of OpenCLIP ({error}).") from error
    if lacks := missing_for(specification, text):
        raise EncoderUnavailable(lacks)
    found = []
    for name in weights.TOKENIZER_FILES if text.get("hf_tokenizer_name") else ():
        with contextlib.suppress(_NotThere):
            found.append(_ask(specification, name))
    return found


def _ask(specification: Specification, name: str) -> Announcement:
    """HEAD a file. The whole answer is waited for ANSWER_SECONDS, the look-up of the host's name included.

    Raises _NotThere, or EncoderUnavailable (a sentence).
    """
    url = f"{endpoint()}/{specification.repository}/resolve/main/{urllib.parse.quote(name)}"
    answers: list[Message | BaseException] = []

    def ask() -> None:
        try:
            answers.append(_head(url))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            answers.append(error)

    asking = threading.Thread(target=ask, daemon=True, name="hub")
    asking.start()
    asking.join(ANSWER_SECONDS)
    answer = answers[0] if answers else TimeoutError(f"no answer within {ANSWER_SECONDS:.0f} seconds")
    match answer:
        case EncoderUnavailable():
            raise answer
        case urllib.error.HTTPError() if answer.code in {404, 410}:
            raise _NotThere(url)
        case urllib.error.HTTPError() if answer.code in {401, 403}:
            raise EncoderUnavailable(
                f"{endpoint()} does not give out {specification.repository} (status {answer.code}): check the name in "
                "IMAGESEARCH_ENCODER, or accept the model's conditions there and set HF_TOKEN."
            )
        case BaseException():
            raise EncoderUnavailable(
                f"{endpoint()} is out of reach ({reason_of(answer)}). {weights.how_to_bring(specification)}"
            )
    size = answer.get("X-Linked-Size") or answer.get("Content-Length") or ""
    commit = answer.get("X-Repo-Commit") or "main"
    etag = answer.get("X-Linked-Etag") or answer.get("ETag") or ""
    return Announcement(
        name=name,
        url=f"{endpoint()}/{specification.repository}/resolve/{commit}/{urllib.parse.quote(name)}",
        size=int(size) if size.isdigit() else None,
        etag=etag.removeprefix("W/").strip('"'),
    )


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the hub's own headers are on the first answer, the storage's on the second."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


def _head(url: str) -> Message:
    """Headers of the first answer that tells the size; a redirect to the storage tells it in X-Linked-Size."""
    for _ in range(5):
        try:
            with urllib.request.build_opener(_Stay).open(
                request(url, method="HEAD"), timeout=ANSWER_SECONDS - 1
            ) as answer:
                return answer.headers  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            if error.code not in {301, 302, 303, 307, 308}:
                raise
            if error.headers.get("X-Linked-Size"):
                return error.headers
            url = urllib.parse.urljoin(url, error.headers.get("Location", ""))
    raise urllib.error.URLError("it redirects in a circle")


def _check_space(folder: Path, files: list[Announcement]) -> None:
    wanted = sum(max(0, (file.size or 0) - _here(folder, file)) for file in files)
    free = shutil.disk_usage(folder).free
    if wanted and free < wanted + SPARE_BYTES:
        raise EncoderUnavailable(
            f"{folder} has {free / 1e6:,.0f} MB free, but the model needs {wanted / 1e6:,.0f} MB and some to spare: "
            "make room or set IMAGESEARCH_MODELS to another folder."
        )


@contextlib.contextmanager
def _only_one(folder: Path, progress: Progress) -> Iterator[None]:
    """One process downloads; another waits here and shows how far the first one is."""
    with open(folder / ".lock", "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                for part in folder.glob("*.part"):
                    with contextlib.suppress(OSError, ValueError):
                        size = json.loads(part.with_name(part.name + ".json").read_text())["size"]
                        progress(part.name.removesuffix(".part"), part.stat().st_size, size)
                time.sleep(0.5)
        yield
