"""That making a space's index failed, and when it is worth trying again: kept beside the vectors."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

FIRST_SECONDS = 20 * 60.0
LONGEST_SECONDS = 24 * 3600.0
"""Every failure doubles the pause before the next try, up to this."""
_MOST = 500


@dataclass(frozen=True)
class Failure:
    """`tries` failed one after the other, the last of them at `at` (seconds since 1970)."""

    tries: int
    at: float
    why: str

    @property
    def again_at(self) -> float:
        """From when on it is tried again, in seconds since 1970."""
        return self.at + min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(self.tries - 1, 20))


def read(folder: Path) -> Failure | None:
    """The failure that stands in this space's folder; None when there is none that can be understood."""
    try:
        said = json.loads(_file(folder).read_text())
        return Failure(int(said["tries"]), float(said["at"]), str(said["why"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def note(folder: Path, why: str) -> Failure:
    """One more failure, for this reason. Raises OSError when it cannot be kept."""
    before = read(folder)
    failure = Failure(before.tries + 1 if before else 1, time.time(), why[-_MOST:])
    handle, beside = tempfile.mkstemp(prefix="index-", suffix=".new", dir=folder)
    try:
        with os.fdopen(handle, "w") as out:
            json.dump(asdict(failure), out)
        os.replace(beside, _file(folder))
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise
    return failure


def forget(folder: Path) -> None:
    """It was made, or is not wanted."""
    _file(folder).unlink(missing_ok=True)


def _file(folder: Path) -> Path:
    return folder / "index-failed.json"
