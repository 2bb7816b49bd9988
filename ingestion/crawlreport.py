"""What a crawl found, in numbers that add up, and which rows it left waiting."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from search.models import Image

FILE_COUNTS = (
    "registered", "unchanged", "moved", "unreadable", "too_small", "unsupported", "excluded", "vanished",
)  # fmt: skip
MOST_PROBLEMS = 200


class IdRuns:
    """Row ids in the order they came, kept as runs: neighbouring ids cost nothing, others 16 bytes."""

    def __init__(self) -> None:
        self._ends = array("q")

    def add(self, ids: Iterable[int]) -> None:
        ends = self._ends
        for i in ids:
            if ends and ends[-1] == i - 1:
                ends[-1] = i
            else:
                ends.extend((i, i))

    def __len__(self) -> int:
        return sum(self._ends[k + 1] - self._ends[k] + 1 for k in range(0, len(self._ends), 2))

    def chunks(self, length: int = 500) -> Iterator[list[int]]:
        chunk: list[int] = []
        for k in range(0, len(self._ends), 2):
            for i in range(self._ends[k], self._ends[k + 1] + 1):
                chunk.append(i)
                if len(chunk) == length:
                    yield chunk
                    chunk = []
        if chunk:
            yield chunk


@dataclass
class CrawlReport:
    """Each file found is in exactly one of the counts of `FILE_COUNTS`; the rest stands beside that sum.

    While the crawl runs, the counts say what was seen so far. Changed and returning files that have to be
    read again count as registered.
    """

    source_id: int
    source: str
    registered: int = 0
    unchanged: int = 0
    moved: int = 0
    unreadable: int = 0
    too_small: int = 0
    unsupported: int = 0
    excluded: int = 0
    vanished: int = 0

    missing: int = 0
    """Images newly marked missing."""
    errors: int = 0
    """Folders and files that could not be seen."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each of the first `MOST_PROBLEMS` of them."""
    guarded: bool = False
    """Something looks like an unplugged disk: nothing (or nothing beneath it) was marked missing."""
    message: str = ""
    """What the guard says; "" when there is nothing to say."""
    crawl_id: int = 0
    folder: str = ""
    """Where the walk is, for people."""
    held: set[bytes] = field(default_factory=set, repr=False)
    """Folders with files so new that they may still be being written: to be looked at again."""
    queued: IdRuns = field(default_factory=IdRuns, repr=False)
    """Rows that count as registered: they wait to be read."""
    pending: IdRuns = field(default_factory=IdRuns, repr=False)
    """Rows that count as unchanged and still wait from before."""

    @property
    def found(self) -> int:
        return sum(getattr(self, name) for name in FILE_COUNTS)

    def counts(self) -> dict[str, int]:
        """`found` and what it is made of."""
        return {"found": self.found, **{name: getattr(self, name) for name in FILE_COUNTS}}

    def stored(self) -> dict[str, int]:
        """The counts as the Crawl row keeps them."""
        return {**self.counts(), "missing": self.missing, "errors": self.errors}

    def as_dict(self) -> dict[str, Any]:
        """The counts with what stands beside them, as `crawl --json` prints them."""
        return {**self.stored(), "guarded": self.guarded, "message": self.message}

    def settled_counts(self) -> dict[str, int]:
        """The counts as they are once processing is over: what turned out unreadable, or went away, is moved there.

        Memory stays flat; one query for every 500 rows that waited.
        """
        counts = self.counts()
        for kind, runs in (("registered", self.queued), ("unchanged", self.pending)):
            for ids in runs.chunks():
                rows = Image.objects.filter(pk__in=ids)
                unreadable = rows.filter(state=Image.State.UNREADABLE).count()
                vanished = rows.filter(state=Image.State.MISSING).count()
                counts[kind] -= unreadable + vanished
                counts["unreadable"] += unreadable
                counts["vanished"] += vanished
        return counts

    def trouble(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self.errors += 1
            if len(self.problems) < MOST_PROBLEMS:
                self.problems.append(sentence)
