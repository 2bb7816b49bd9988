"""What an adoption accepted and why, in numbers and in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ingestion.alignment import WRONG, Alignment, Range
from ingestion.archive import Archive
from ingestion.resampling import Samples, whereabouts
from search.verification import SAME
from search.wording import agreeing, counted

_HINTS = 32
"""Stretches of wrong rows that are looked into."""
_EACH = 8


@dataclass(frozen=True)
class Hint:
    """Where the vectors of a stretch of wrong rows really stand."""

    first: int
    stop: int
    """Rows first to stop - 1."""
    sampled: int
    shift: int | None
    """The vector of row r stands in row r + shift; None when no row holds it, or no one shift fits."""
    elsewhere: int
    """Sampled vectors that some row of the archive holds."""
    offset: int
    """The --offset with which this stretch would fit; only meaningful with a shift."""


@dataclass
class Report:
    """Rows are counted from 0, as in the file; ranges are half open."""

    vectors: str
    space: str
    label: str
    rows: int
    dim: int
    kind: str
    dry_run: bool
    exhaustive: bool
    confidence: float
    step: int
    bridge: int
    entries: int
    beyond: int
    repeated: int
    absent: int
    examples: list[str]
    unregistered: int
    without_image: int
    had_vector: int
    unreadable: int
    unusable: int
    conflicts: int
    copies: int
    askable: int
    asked: int
    computed: int
    right: int
    wrong: int
    unknown: int
    alike: int
    median_right: float | None
    lowest_right: float | None
    median_wrong: float | None
    unasked_reasons: dict[str, int]
    complete: bool
    proven_rows: int
    ranges: list[Range] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    accepted: int = 0
    busy: int = 0
    queued: int = 0
    kept_at: str = ""
    root: str = ""
    """What --root or --source said; empty without."""

    @property
    def refused(self) -> bool:
        """Nothing was accepted although there was something to accept."""
        return bool(self.askable and not self.accepted)

    @property
    def most_wrong(self) -> int:
        """At most so many wrong rows are among the accepted ones, each range at the report's confidence."""
        return 0 if self.exhaustive else sum(one.most_wrong for one in self.ranges if one.proven)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "most_wrong": self.most_wrong, "refused": self.refused}

    def sentences(self) -> Iterator[str]:
        """For people, in the order in which one asks."""
        yield f"{self.vectors}: {counted(self.rows, 'row')} of {self.dim} numbers ({self.kind}), for {self.label}."
        yield from self._matched()
        yield from self._sampled()
        yield from self._ranges()
        yield from (self._hint(one) for one in self.hints)
        yield from self._verdict()

    def _matched(self) -> Iterator[str]:
        if self.entries != self.rows or self.beyond:
            yield (
                f"The list has {counted(self.entries, 'entry', 'entries')} for {counted(self.rows, 'row')}"
                + (f", {self.beyond:,} of them for rows that are not there" if self.beyond else "")
                + ". That alone may be a slide; only what the samples prove counts."
            )
        if self.absent:
            said = ", ".join(self.examples[:3])
            yield f"{counted(self.absent, 'entry', 'entries')} name no image of the catalogue ({said}): left alone."
            if self.unregistered:
                yield f"At least {counted(self.unregistered, 'path')} are files that a crawl would register."
            elif not self.root:
                yield "If they lie in a folder that is not in the catalogue yet, `--root FOLDER` crawls it first."
            elif self.dry_run:
                yield "Without --dry-run a --root that is new is crawled first."
        rows = [
            (self.had_vector, "belong to images that have a vector already: that one stays."),
            (self.unreadable, "belong to files that cannot be read: left alone."),
            (self.unusable, "are no vectors (zero, or not finite): never accepted."),
            (self.copies, "name an image that an earlier row names with the same vector: the earlier one counts."),
            (self.conflicts, "name an image that other rows name with another vector: none of them is accepted."),
            (self.repeated, "of the list's entries name a row that an earlier entry gave to another image: left out."),
        ]
        yield from (f"{number:,} {what}" for number, what in rows if number)

    def _sampled(self) -> Iterator[str]:
        if not self.asked:
            return
        again = f" ({self.computed:,} just now, the others by an earlier run)" if self.computed != self.asked else ""
        yield (
            f"{counted(self.asked, 'picture')} {agreeing(self.asked, 'was', 'were')} embedded again{again}: "
            f"{self.right:,} right, {self.wrong:,} wrong, {self.unknown:,} could not be read. Right is a cosine of at "
            f"least {SAME}."
        )
        if self.median_right is not None:
            yield (
                f"Right rows agree with what this machine computes to {self.median_right:.5f} (median), "
                f"{self.lowest_right:.4f} (lowest)."
            )
        if self.median_wrong is not None:
            yield f"Wrong ones have a cosine of {self.median_wrong:.3f} (median)."
        for reason, number in self.unasked_reasons.items():
            yield f"Not readable, {number:,} times: {reason}"
        if self.alike:
            yield (
                f"{counted(self.alike, 'sampled row')} {agreeing(self.alike, 'resembles its', 'resemble their')} "
                "neighbours so much that a slide would hardly show there."
            )
        if not self.complete:
            yield "The samples were used up before everything was settled; --sample N allows more."

    def _ranges(self) -> Iterator[str]:
        for one in self.ranges:
            where = f"Rows {one.first:,} to {one.stop - 1:,}"
            were = agreeing(one.wrong, "was", "were")
            share = f"{one.wrong:,} of {counted(one.sampled, 'row')} drawn at random {were} wrong"
            if one.proven and one.whole:
                yield f"{where}: every readable row was looked at; the right ones are accepted."
            elif one.proven:
                yield (
                    f"{where}: accepted. {share}, so with {self.confidence:.0%} confidence at most "
                    f"{one.most_wrong:,} of its {one.rows:,} rows are, and no {self.bridge:,} in a row."
                )
            elif one.rows > self.bridge:
                yield f"{where}: not accepted. {share}, which does not prove the others."

    def _hint(self, one: Hint) -> str:
        where = f"Rows {one.first:,} to {one.stop - 1:,} are wrong"
        if one.shift is not None:
            way = "further on" if one.shift > 0 else "further back"
            return (
                f"{where}: they have slid. The vectors of their pictures stand {counted(abs(one.shift), 'row')} {way}; "
                f"the same command with --offset {one.offset} would prove and accept them."
            )
        if one.elsewhere:
            return f"{where}: {one.elsewhere} of {one.sampled} vectors stand in other rows, without one common shift."
        return f"{where}: no row of the archive holds the vectors of their pictures."

    def _verdict(self) -> Iterator[str]:
        would = "would be" if self.dry_run else agreeing(self.accepted, "was", "were")
        yield f"{counted(self.accepted, 'row')} {would} accepted" + (
            f"; single wrong rows among them cannot be ruled out by sampling: at most {self.most_wrong:,} at "
            f"{self.confidence:.0%} confidence. --sample N narrows that, --exhaustive looks at every row."
            if self.accepted and self.most_wrong
            else "."
        )
        if self.busy:
            were = agreeing(self.busy, "was", "were")
            yield f"{counted(self.busy, 'image')} {were} in a worker's hands or changed meanwhile: left to workers."
        if self.refused and self.right == 0 and self.wrong and not any(one.elsewhere for one in self.hints):
            near = self.median_wrong is not None and self.median_wrong > 0.8
            yield (
                "The archive was made by the same model, but with other preprocessing or precision: its vectors are "
                f"near, but not within {SAME}, so they are not mixed with this space's."
                if near
                else f"These are not vectors of {self.label}, or not of these pictures. If another model made them, "
                "name its space with --space."
            )
        if not self.dry_run:
            wait = f"{counted(self.queued, 'image')} of the archive {agreeing(self.queued, 'waits', 'wait')}"
            yield f"{wait} to be computed" + (": `manage.py process` does it." if self.queued else ".")


def hints(archive: Archive, alignment: Alignment, samples: Samples, offset: int) -> list[Hint]:
    """For the longest stretches of wrong rows: where their vectors stand, after one look through the archive."""
    stretches = sorted(_stretches(alignment), key=len, reverse=True)[:_HINTS]
    chosen: list[tuple[int, int]] = []
    for number, rows in enumerate(stretches):
        picked = np.unique(np.linspace(0, len(rows) - 1, min(_EACH, len(rows))).astype(int))
        chosen += [(number, rows[i]) for i in picked]
    vectors = [(number, row, vector) for number, row in chosen if (vector := samples.fresh(row)) is not None]
    if not vectors:
        return []
    places, cosines = whereabouts(archive, np.stack([vector for _, _, vector in vectors]))
    found = []
    for number, rows in enumerate(stretches):
        mine = [i for i, one in enumerate(vectors) if one[0] == number]
        there = [i for i in mine if cosines[i] >= SAME and places[i] != vectors[i][1]]
        shifts = Counter(int(places[i]) - vectors[i][1] for i in there)
        shift, times = shifts.most_common(1)[0] if shifts else (0, 0)
        fits = times >= 2 and times * 2 > len(mine)
        found.append(
            Hint(
                rows[0],
                rows[-1] + 1,
                len(mine),
                shift if fits else None,
                len(there),
                offset + shift if fits else offset,
            )
        )
    return sorted(found, key=lambda one: one.first)


def _stretches(alignment: Alignment) -> list[list[int]]:
    """Runs of at least two asked rows that were wrong, with no right one between."""
    runs: list[list[int]] = [[]]
    for row, answer in sorted(alignment.answers.items()):
        if answer == WRONG:
            runs[-1].append(row)
        elif answer != -1 and runs[-1]:
            runs.append([])
    return [run for run in runs if len(run) > 1]
