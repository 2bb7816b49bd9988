"""Sidecars as files: beside the originals, or in a folder of their own; merged, atomic, never half written.

The one place that writes among a person's own files, and only sidecars, and only when a person at the command line
says so.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from search import exports, sidecars
from search.archives import Names, portions
from search.errors import SearchError
from search.exports import Chosen
from search.models import Image
from search.originals import require_within
from search.sidecars import LIGHTROOM, BadSidecar, Said, extension_meant, sidecar, sidecar_name

Tell = Callable[["Report"], None]


class ExportFault(SearchError):
    """An export cannot go on, or cannot begin; the message says what to do."""


@dataclass
class Report:
    """How many sidecars were written, were right already, had nothing to say, were not ours to write, or failed."""

    written: int = 0
    unchanged: int = 0
    nothing: int = 0
    not_allowed: int = 0
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        return {
            "written": self.written, "unchanged": self.unchanged, "nothing_to_say": self.nothing,
            "not_allowed": self.not_allowed, "problems": self.problems,
        }  # fmt: skip


def write_sidecars(chosen: Chosen, naming: str, *, folder: str | None = None, tell: Tell | None = None) -> Report:
    """Write a sidecar for each chosen image of which there is anything to say.

    With `folder` beneath it, in one folder for each source and the folders of the originals; without, beside the
    originals, where the person may edit them. What is there already is merged (see `sidecars`); what cannot be
    understood is left alone and named in `problems`. Raises ExportFault when there is no room left.
    """
    report, names = Report(), Names()
    for portion in portions(exports.rows(chosen)):
        images = {row.image.pk: row.image for row in portion}
        if folder is None:
            allowed = set(Image.objects.editable_by(chosen.user).filter(pk__in=images).values_list("pk", flat=True))
            report.not_allowed += len(images) - len(allowed)
            images = {pk: image for pk, image in images.items() if pk in allowed}
        said = exports.said_of([row for row in portion if row.image.pk in images])
        for pk, image in images.items():
            try:
                _write_one(image, said[pk], naming, folder, names, report)
            except (OSError, BadSidecar) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise ExportFault(
                        f"There is no room left: {report.written:,} sidecars were written, whole. "
                        "Make room and run the same command again."
                    ) from error
                reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
                report.problems.append(f"{image.absolute_path_text}: {reason}")
        if tell:
            tell(report)
    return report


def _write_one(image: Image, said: Said, naming: str, folder: str | None, names: Names, report: Report) -> None:
    if folder is None:
        original = os.fsencode(image.absolute_path)
        if not os.path.lexists(original):
            raise FileNotFoundError(errno.ENOENT, "The original is not there, so nothing was written beside it")
    else:
        place = image.source.name.replace("/", "_").replace("\0", "_")
        parts = [part for part in image.path.split(b"/") if part not in (b"", b".", b"..")]
        original = os.path.join(os.fsencode(folder), os.fsencode(place if place.strip(".") else "_"), *parts)
    target, extension = _target(original, naming, names)
    require = image if folder is None else None
    if require is not None:
        require_within(image, os.path.dirname(os.fsdecode(target)))
    before = _stand(target)
    if said.nothing and (before is None or (said.title is None and not said.refused)):
        report.nothing += 1
        return
    existing = _read(target) if before is not None else None
    made = sidecar(said, existing=existing, extension=extension)
    if made == existing:
        report.unchanged += 1
        return
    if folder is not None:
        os.makedirs(os.path.dirname(target), exist_ok=True)
    _put(target, made, before)
    report.written += 1


def _target(original: bytes, naming: str, names: Names) -> tuple[bytes, str]:
    """The sidecar's path, and the extension it says that it is for: see `archives.sidecar_path`."""
    head, name = os.path.split(original)
    extension = os.path.splitext(name)[1][1:].decode("utf-8", "replace")
    if naming == LIGHTROOM and extension:
        short = os.path.join(head, sidecar_name(name, LIGHTROOM))
        if _is_for(short, extension) and names.take(short.decode("utf-8", "backslashreplace")):
            return short, extension
    return os.path.join(head, sidecar_name(name, sidecars.DIGIKAM)), ""


def _is_for(path: bytes, extension: str) -> bool:
    if _stand(path) is None:
        return True
    return extension_meant(_read(path)) in ("", extension.upper())


def _stand(path: bytes) -> os.stat_result | None:
    """How the sidecar stands there; None where there is none. Raises OSError for what is no plain file."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "What stands in the sidecar's place is no plain file; it was left alone")
    return found


def _read(path: bytes) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        return file.read(sidecars.MOST_BYTES + 1)


def _put(target: bytes, data: bytes, before: os.stat_result | None) -> None:
    """Write beside, flush, put in place; not over what changed, or came, meanwhile."""
    head = os.path.dirname(target)
    beside = os.path.join(head, b".imagesearch-" + uuid.uuid4().hex.encode() + b".tmp")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if before is not None:
                os.fchmod(handle, stat.S_IMODE(before.st_mode))
                with suppress(OSError):
                    os.fchown(handle, before.st_uid, before.st_gid)
            os.fsync(handle)
        now = _stand(target)
        if _identity(now) != _identity(before):
            raise OSError(errno.EBUSY, "The sidecar was changed by another program meanwhile; run the command again")
        if before is None:
            _place_new(beside, target)
        else:
            os.replace(beside, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside)
    with suppress(OSError):
        folder = os.open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _place_new(beside: bytes, target: bytes) -> None:
    try:
        os.link(beside, target)  # unlike a rename it never replaces what came meanwhile
    except FileExistsError:
        raise OSError(errno.EEXIST, "A sidecar came meanwhile; run the command again") from None
    except OSError:  # a file system without links
        os.rename(beside, target)


def _identity(found: os.stat_result | None) -> tuple[int, int, int] | None:
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)
