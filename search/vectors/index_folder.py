"""The folder of an index: one is the current one; the others go when nobody makes or reads them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from search.faultpoints import reach

FOLDER = "index"
_CURRENT = "current.json"


def current_file(folder: Path) -> Path:
    """The file that names the index to be used: replaced whenever another one is."""
    return folder / FOLDER / _CURRENT


def current(folder: Path) -> Path | None:
    """The folder of the index that is to be used now; None when there is none."""
    try:
        name = json.loads(current_file(folder).read_text())["index"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder / FOLDER / str(name)


def forget(folder: Path) -> None:
    """Delete every index of this folder: searches are exact from then on."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(current_file(folder))
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete what makers left that were killed: one index at a time is made of a folder."""
    now = current(folder)
    for other in (folder / FOLDER).glob("*"):
        if other != now:
            shutil.rmtree(other, ignore_errors=True)


def take(made: Path, folder: Path) -> None:
    """Make this the current index, in one step; what was current before is deleted (open maps of it go on)."""
    ready = made.with_suffix("")
    os.rename(made, ready)
    reach("index-renamed")
    write(current_file(folder), {"index": ready.name})
    reach("index-current")
    sweep(folder)


def drop(made: Path, folder: Path) -> None:
    """Take away what was made and did not become the current index."""
    shutil.rmtree(made, ignore_errors=True)
    if current(folder) != made.with_suffix(""):
        shutil.rmtree(made.with_suffix(""), ignore_errors=True)


def write(path: Path, said: dict[str, Any]) -> None:
    """A small JSON file, whole or not at all, on stable storage."""
    beside = path.with_name(path.name + ".new")
    with beside.open("w") as file:
        json.dump(said, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    flush(path.parent, only_itself=True)


def flush(folder: Path, *, only_itself: bool = False) -> None:
    for path in [*([] if only_itself else sorted(folder.iterdir())), folder]:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
