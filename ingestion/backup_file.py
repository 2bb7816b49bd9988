"""The file that a backup is: a plain tar, so that any system opens it without this program.

    about.json              what this is, and who made it when
    database/TABLE/N.jsonl.gz   rows, an array a line, in the columns that the manifest names
    manifest.json           columns, counts and SHA-256 of all that stands before it: from here on the database is whole
    spaces/NAME/...         vectors.npy and space.json
    thumbnails/N/ID.jpg     if wanted
    end.json                SHA-256 of the manifest and of what stands after it: the backup is whole

Only the rows are compressed (gzip, from the standard library: every system reads it, and rows shrink to about a fifth);
vectors are noise to a compressor and JPEG is compressed already.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ingestion.errors import IngestionError

FORMAT = 1
PROGRAM = "imagesearch"
ABOUT, MANIFEST, END = "about.json", "manifest.json", "end.json"
_LEVEL = 4
_BLOCK = 1 << 20
_MOST_JSON = 64 << 20
_NAMES = re.compile(
    r"about\.json|manifest\.json|end\.json|database/[a-z0-9_]+\.[a-z0-9_]+/\d+\.jsonl\.gz"
    r"|spaces/[-A-Za-z0-9_]+/(?:vectors\.npy|space\.json)|thumbnails/\d{4,}/\d+\.jpg"
)


class BadArchive(IngestionError):
    """This file is no whole backup; the message says what it is and what can be done."""


class _Hashed:
    """A file that is read once, with the SHA-256 of what was read."""

    def __init__(self, file: IO[bytes] | Member, *digests: Any) -> None:
        self.file, self.digests = file, digests

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        for digest in self.digests:
            digest.update(data)
        return data


class Writer:
    """Writes an archive into an open, empty file; the caller flushes and names it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self.members: dict[str, dict[str, Any]] = {}
        """{name: {"size", "sha256"}} since the last `turn_page`."""
        self._thumbnails = hashlib.sha256()
        self.thumbnails = self.thumbnail_bytes = 0

    def add(self, name: str, data: bytes) -> None:
        self.add_stream(name, io.BytesIO(data), len(data))

    def add_json(self, name: str, value: Any) -> None:
        self.add(name, json.dumps(value, indent=1).encode() + b"\n")

    def add_lines(self, name: str, lines: list[bytes]) -> None:
        """Lines of one chunk of rows, compressed."""
        self.add(name, gzip.compress(b"".join(lines), compresslevel=_LEVEL, mtime=0))

    def add_stream(self, name: str, file: IO[bytes], size: int) -> None:
        """Exactly `size` bytes of an open file. Raises OSError when it ends before."""
        digest = hashlib.sha256()
        self._tar.addfile(self._entry(name, size), _Hashed(file, digest))  # type: ignore[arg-type]
        self.members[name] = {"size": size, "sha256": digest.hexdigest()}

    def add_thumbnail(self, name: str, data: bytes) -> None:
        """One of very many small files: they share one SHA-256, over `name NUL size NUL bytes` of each in order."""
        self._thumbnails.update(_thumbnail_line(name, len(data)) + data)
        self._tar.addfile(self._entry(name, len(data)), io.BytesIO(data))
        self.thumbnails += 1
        self.thumbnail_bytes += len(data)

    def turn_page(self) -> dict[str, dict[str, Any]]:
        """The members since the last call, for the manifest that follows them."""
        members, self.members = self.members, {}
        return members

    def end(self, **more: Any) -> None:
        """Write the closing list; the archive is whole from here."""
        self.add_json(
            END,
            {
                "members": self.turn_page(),
                "thumbnails": {
                    "count": self.thumbnails,
                    "bytes": self.thumbnail_bytes,
                    "sha256": self._thumbnails.hexdigest(),
                },
                **more,
            },
        )
        self._tar.close()

    @staticmethod
    def _entry(name: str, size: int) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime, entry.mode = size, int(time.time()), 0o600
        return entry


@dataclass
class Checked:
    """What an archive holds, after every byte of it was read and compared."""

    about: dict[str, Any]
    manifest: dict[str, Any]
    whole: bool
    """Everything is there, as it was written."""
    damage: list[str] = field(default_factory=list)
    """Members after the manifest that are not what was written."""
    thumbnails: int = 0
    thumbnails_whole: bool = True
    size: int = 0
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """{name: (offset of its bytes, size)} of all but thumbnails."""


def check(path: Path, tell: Callable[[int, int], None] | None = None) -> Checked:
    """Read all of an archive against its checksums; `tell(bytes read, bytes in all)`.

    Raises BadArchive when this is no backup of this program, or when its database is not whole. What is wrong
    after the database (vectors, thumbnails) is in the answer: it can be made again.
    """
    found: dict[str, tuple[int, str]] = {}
    places: dict[str, tuple[int, int]] = {}
    documents: dict[str, Any] = {}
    thumbnails, count = hashlib.sha256(), 0
    size = path.stat().st_size if path.is_file() else 0
    broken = ""
    try:
        for name, length, file in members(path):
            if tell:
                tell(file.data_offset, size)
            digest = hashlib.sha256()
            if name.startswith("thumbnails/"):
                thumbnails.update(_thumbnail_line(name, length))
                count += 1
            hashed = _Hashed(file, digest, *([thumbnails] if name.startswith("thumbnails/") else []))
            kept = io.BytesIO()
            read = 0
            while data := hashed.read(_BLOCK):
                read += len(data)
                if name in (ABOUT, MANIFEST, END) and read <= _MOST_JSON:
                    kept.write(data)
            if read != length:
                raise tarfile.ReadError("unexpected end of data")
            if name.startswith("thumbnails/"):
                continue
            found[name], places[name] = (length, digest.hexdigest()), (file.data_offset, length)
            if name in (ABOUT, MANIFEST, END):
                documents[name] = json.loads(kept.getvalue())
    except (tarfile.TarError, ValueError, EOFError) as error:
        broken = str(error)
    about, manifest, end = (documents.get(name) for name in (ABOUT, MANIFEST, END))
    _require_ours(path, about)
    if not manifest:
        raise BadArchive(
            f"{path} is cut off or damaged before the end of its database{f' ({broken})' if broken else ''}: nothing "
            "can be restored from it. Take another backup."
        )
    wrong = [name for name, said in manifest["members"].items() if found.get(name) != (said["size"], said["sha256"])]
    if wrong:
        raise BadArchive(
            f"{path} is damaged: {wrong[0]} is not what was written. Nothing was changed; take another backup."
        )
    assert about is not None
    checked = Checked(about, manifest, whole=end is not None, thumbnails=count, size=size, places=places)
    if end is None:
        checked.damage = [name for name in found if name.startswith("spaces/")][-1:]
        checked.thumbnails_whole = not count
        return checked
    if found[MANIFEST][1] != end["members"][MANIFEST]["sha256"]:
        raise BadArchive(f"{path} is damaged: its manifest is not what was written. Take another backup.")
    checked.damage = [
        name for name, said in end["members"].items() if found.get(name) != (said["size"], said["sha256"])
    ]
    said = end["thumbnails"]
    checked.thumbnails_whole = (count, thumbnails.hexdigest()) == (said["count"], said["sha256"])
    checked.whole = not checked.damage and checked.thumbnails_whole
    return checked


def read_about(path: Path) -> dict[str, Any]:
    """The first member alone: quick at any size. Raises BadArchive, OSError."""
    about = None
    try:
        for name, length, file in members(path):
            about = json.loads(file.read(min(length, _MOST_JSON))) if name == ABOUT else None
            break
    except (tarfile.TarError, ValueError, EOFError):
        about = None
    _require_ours(path, about)
    assert about is not None
    return about


class Member:
    """One member being read; `data_offset` is where its bytes begin in the archive."""

    def __init__(self, file: IO[bytes], data_offset: int, size: int) -> None:
        self._file, self.data_offset, self._left = file, data_offset, size
        file.seek(data_offset)

    def read(self, size: int = -1) -> bytes:
        """As of any file; where the archive was cut off, what there is and then b""."""
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def members(path: Path) -> Iterator[tuple[str, int, Member]]:
    """(name, size, open member) in the order of the archive; a member is to be read before the next is asked for.

    Only regular files with names that this program writes are given: nothing can lead out of the folders.
    Raises BadArchive for what is no tar, OSError, tarfile.TarError for damage.
    """
    if path.is_dir():
        raise BadArchive(f"{path} is a folder; name the file that `manage.py backup` wrote.")
    if not path.exists():
        raise BadArchive(f"There is no file {path}.")
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115
    except tarfile.ReadError:
        raise BadArchive(f"{path} is no backup of this program (or it is damaged from its first byte on).") from None
    with tar, open(path, "rb") as file:
        while entry := tar.next():
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every one of them
            if not entry.isreg() or not _NAMES.fullmatch(entry.name):
                continue
            yield entry.name, entry.size, Member(file, entry.offset_data, entry.size)


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a chunk of rows. Raises BadArchive."""
    try:
        return gzip.decompress(data).splitlines()
    except (OSError, EOFError, ValueError) as error:
        raise BadArchive(f"A part of the backup's database cannot be unpacked: {error}.") from None


def _thumbnail_line(name: str, size: int) -> bytes:
    return f"{name}\0{size}\0".encode()


def _require_ours(path: Path, about: Any) -> None:
    if not isinstance(about, dict) or about.get("program") != PROGRAM:
        raise BadArchive(f"{path} is no backup of this program (or it is damaged from its first byte on).")
    if about.get("format") != FORMAT:
        raise BadArchive(
            f"{path} is a backup of format {about.get('format')}, but this version reads format {FORMAT}. "
            "Restore it with the version that made it."
        )
