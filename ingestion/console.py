"""What a person sees of a long-running command: calm lines, and below them one line that renews itself."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ingestion.progress import StageProgress


class Console:
    """Lines and one status line. Without a terminal there is no status line, only lines."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self.terminal = self._out.isatty()
        self._status = ""

    def say(self, text: str = "") -> None:
        """Print a line above the status line."""
        self._write(("\r\033[K" if self._status else "") + text + "\n" + self._status)

    def status(self, text: str) -> None:
        """Replace the status line; does nothing without a terminal."""
        if not self.terminal:
            return
        text = text[: max(20, shutil.get_terminal_size().columns - 1)]
        if text != self._status:
            self._status = text
            self._write("\r\033[K" + text)

    def clear(self) -> None:
        if self._status:
            self._status = ""
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        """Write; a terminal that went away is no reason to stop."""
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):
            self.terminal = False


class Completion:
    """When to say that everything is done: once after there was something to do, however quickly it was done."""

    def __init__(self) -> None:
        self._owed = False
        self._finished: int | None = None

    def expect(self) -> None:
        """Somebody waits to hear it, also when nothing is left to do any more."""
        self._owed = True

    def reached(self, rows: Sequence[StageProgress], *, more_comes: bool = False) -> bool:
        """Look at the stages; True when it is to be said now. Work that came and went between two looks shows in
        what is finished; with `more_comes` it is too early to say so."""
        finished = sum(row.done + row.failed for row in rows)
        waits = any(row.waiting for row in rows)
        if waits or (self._finished is not None and finished > self._finished):
            self._owed = True
        self._finished = finished
        if waits or more_comes or not self._owed:
            return False
        self._owed = False
        return True


def progress_text(rows: Sequence[StageProgress]) -> str:
    """The stages that still have work, in one line: what, how far, how fast, how long; "" when nothing waits."""
    parts = []
    for row in rows:
        if not row.waiting:
            continue
        pace = f", {row.per_second:.1f} a second" if row.per_second else ""
        remaining = f", {duration(row.eta_seconds)} left" if row.eta_seconds else ""
        parts.append(f"{row.label}: {row.total - row.waiting:,} of {row.total:,}{pace}{remaining}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """About how long, in the largest unit that fits: "40 s", "12 min", "3 h", "2 days"."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (36 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{max(1, round(seconds / unit))} {name}"
    return f"{round(seconds / 86_400)} days"
