"""The progress bar of commands on a terminal; nothing at all elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ingestion import progress


class Bars:
    """One line for each stage that has work, renewed by `show()`; only where stderr is a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._on = not quiet and sys.stderr.isatty()
        self._bars: dict[str, Any] = {}
        self._began: dict[str, int] = {}
        self._crawl: Any = None

    def show(self) -> None:
        """Draw how far the stages are."""
        if not self._on:
            return
        self._draw(progress.report())

    def crawled(self, counts: dict[str, int]) -> None:
        """Draw how far the walk is."""
        if not self._on:
            return
        from tqdm import tqdm

        if self._crawl is None:
            self._crawl = tqdm(unit=" files", desc="Looking for files", file=sys.stderr, dynamic_ncols=True)
        self._crawl.n = counts["found"]
        self._crawl.refresh()

    def close(self) -> None:
        for bar in [*self._bars.values(), self._crawl]:
            if bar is not None:
                bar.close()

    def _draw(self, rows: Sequence[progress.StageProgress]) -> None:
        from tqdm import tqdm

        for row in rows:
            bar = self._bars.get(row.stage)
            if bar is None:
                self._began[row.stage] = row.done
                bar = self._bars[row.stage] = tqdm(
                    desc=row.label, unit=" images", file=sys.stderr, dynamic_ncols=True, position=len(self._bars) + 1
                )
            bar.total = row.waiting + row.done + row.failed - self._began[row.stage]
            bar.n = row.done + row.failed - self._began[row.stage]
            if row.failed:
                bar.set_postfix_str(f"{row.failed} failed", refresh=False)
            bar.refresh()


class Steps:
    """One bar for each step of a long command, the earlier one closed when the next begins."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._on = not quiet
        self._what = ""
        self._bar: Any = None

    def show(self, what: str, done: int, of: int) -> None:
        """`done` of `of` of the step `what`; 0 for an unknown total."""
        if not self._on:
            return
        from tqdm import tqdm

        if what != self._what:
            self.close()
            self._what = what
            self._bar = tqdm(desc=what, file=sys.stderr, dynamic_ncols=True)
        self._bar.total, self._bar.n = of or None, done
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
