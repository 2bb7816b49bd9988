"""One file over HTTP: resumed where it stopped, checked, and only then under its final name.

HF_ENDPOINT and HF_TOKEN are read when asked, not at import.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from search.errors import EncoderUnavailable

STALL_SECONDS = 20.0
"""A download that brings nothing for so long is taken up anew."""
ATTEMPTS = 5
"""Connections in a row that bring nothing new before giving up."""
PIECE = 1 << 20

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Announcement:
    """What the hub says of a file before sending it."""

    name: str
    url: str
    size: int | None
    etag: str
    """SHA-256 for large files, a Git object's SHA-1 for small ones, or anything else."""

    @property
    def sha256(self) -> str | None:
        return self.etag if re.fullmatch(r"[0-9a-f]{64}", self.etag) else None


class Interrupted(Exception):
    """The connection broke off; what came is kept."""


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"


def hub_host() -> str:
    return urllib.parse.urlsplit(endpoint()).netloc


def request(url: str, *, method: str = "GET", start: int = 0) -> urllib.request.Request:
    try:
        asked = urllib.request.Request(url, method=method)
    except ValueError:
        raise EncoderUnavailable(
            f"HF_ENDPOINT is {os.environ.get('HF_ENDPOINT')!r}, but it accepts an address such as "
            "https://huggingface.co."
        ) from None
    asked.add_header("User-Agent", "imagesearch")
    asked.add_header("Accept-Encoding", "identity")
    if start:
        asked.add_header("Range", f"bytes={start}-")
    token = os.environ.get("HF_TOKEN", "").strip()
    if token and urllib.parse.urlsplit(url).netloc == hub_host():
        asked.add_unredirected_header("Authorization", f"Bearer {token}")  # never to the storage behind the hub
    return asked


def open_url(asked: urllib.request.Request, seconds: float) -> Any:
    try:
        return urllib.request.urlopen(asked, timeout=seconds)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            raise
        if error.code == 429 or error.code >= 500:
            raise Interrupted(f"status {error.code}") from error
        raise EncoderUnavailable(f"{asked.full_url} answers with status {error.code}; try again later.") from error
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(reason_of(error)) from error


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def download(file: Announcement, target: Path, progress: Progress) -> None:
    """One file, resumed where an earlier attempt stopped, checked, and put under its final name."""
    if target.is_file() and (file.size is None or target.stat().st_size == file.size):
        return
    part, note = part_of(target), target.with_name(target.name + ".part.json")
    is_what = {"etag": file.etag, "size": file.size}
    try:
        known = json.loads(note.read_text()) == is_what
    except (OSError, ValueError):
        known = False
    if not known:
        part.unlink(missing_ok=True)
        note.write_text(json.dumps(is_what))
    idle = 0
    while idle < ATTEMPTS:
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(file, part, progress)
            break
        except Interrupted as error:
            after = part.stat().st_size if part.exists() else 0
            idle = 0 if after > before else idle + 1
            why = str(error)
            time.sleep(min(2.0, 0.2 * 2**idle))
    else:
        raise EncoderUnavailable(
            f"The download of {file.name} from {endpoint()} was interrupted at {after:,} bytes"
            f"{f' of {file.size:,}' if file.size else ''} ({why}). `manage.py model fetch` goes on from there."
        )
    if file.sha256:
        with open(part, "rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        if digest != file.sha256:
            part.unlink()
            note.unlink(missing_ok=True)
            raise EncoderUnavailable(
                f"What came from {file.url} is not the file that was announced (its SHA-256 differs), so it was "
                "deleted. Run `manage.py model fetch` again; if that repeats, something between changes the file."
            )
    with open(part, "rb+") as whole:
        os.fsync(whole.fileno())
    os.replace(part, target)
    note.unlink(missing_ok=True)


def _transfer(file: Announcement, part: Path, progress: Progress) -> None:
    """Bring the rest of the file. Raises Interrupted when the connection ends early."""
    here = part.stat().st_size if part.exists() else 0
    if file.size is not None and here == file.size:
        return
    if file.size is not None and here > file.size:
        part.unlink()
        here = 0
    try:
        answer = open_url(request(file.url, start=here), STALL_SECONDS)
    except urllib.error.HTTPError:  # 416: what is here cannot be continued
        part.unlink(missing_ok=True)
        raise Interrupted("the server cannot continue the file") from None
    with contextlib.closing(answer), open(part, "ab") as out:
        goes_on = answer.status == 206 and _starts_at(answer.headers) == here
        if here and not goes_on:  # the server sends the whole file again
            out.truncate(0)
            here = 0
        size = file.size
        if size is None and (length := answer.headers.get("Content-Length", "")).isdigit():
            size = here + int(length)
        for piece in _pieces(answer):
            out.write(piece)
            here += len(piece)
            progress(file.name, here, size)
    if size is not None and here < size:
        raise Interrupted("the connection was closed early")
    if size is not None and here > size:
        part.unlink()
        raise Interrupted("more came than was announced")


def _starts_at(headers: Message) -> int:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found.group(1)) if found else -1


def _pieces(answer: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            piece = answer.read1(PIECE) if hasattr(answer, "read1") else answer.read(PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(reason_of(error)) from error
        if not piece:
            return
        yield piece


def reason_of(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    if isinstance(inner, BaseException):
        return reason_of(inner)
    return str(inner or getattr(error, "strerror", None) or error or type(error).__name__)
