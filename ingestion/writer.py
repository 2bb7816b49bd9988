"""The one thread of a worker that writes to the database and to the embedding files: batch by batch, in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from django.db import DatabaseError, OperationalError, close_old_connections, connection

from ingestion import ledger
from ingestion.pipeline import Outcome
from ingestion.reading import mark_missing, mark_unreadable, read_first
from ingestion.stages import Stage, wanted

log = logging.getLogger(__name__)

_FIRST_SECONDS = 0.5
_MOST_SECONDS = 4.0
"""Outcomes are committed together, at first soon, later every so many seconds ..."""
_MOST_OUTCOMES = 1024
"""... or when so many have gathered."""
_TRIES = 5


class Writer:
    """Gathers outcomes and commits them, `read` first, stage by stage.

    `committed(ids, stage, done, failed, closed)` is called after each commit; `closed` are the images of
    which nothing is left in this worker's hands. What cannot be written ends the writer and stands in `fault`.
    """

    def __init__(
        self,
        owner: str,
        stages: Sequence[Stage],
        committed: Callable[[Sequence[int], str, int, int, Sequence[int]], None],
    ) -> None:
        self.fault: Exception | None = None
        self._owner, self._stages, self._committed = owner, list(stages), committed
        self._change = threading.Condition()
        self._outcomes: list[Outcome] = []
        self._gone: list[int] = []
        self._held: list[tuple[int, float]] = []
        self._changed: list[int] = []
        self._expected: dict[int, set[str]] = {}
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def expect(self, claimed: Sequence[tuple[int, tuple[str, ...]]]) -> None:
        """These images, each with these stages, are on their way."""
        with self._change:
            for image_id, stages in claimed:
                self._expected[image_id] = set(stages)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """What became of stages of images; from any thread."""
        with self._change:
            self._outcomes.extend(outcomes)
            self._change.notify()

    def gone(self, image_id: int) -> None:
        """The image's file is not there any more."""
        with self._change:
            self._gone.append(image_id)
            self._change.notify()

    def changed(self, image_id: int) -> None:
        """The file is not what the catalogue says: all its work is to be done anew."""
        with self._change:
            self._changed.append(image_id)
            self._change.notify()

    def hold_back(self, image_id: int, seconds: float) -> None:
        """Hand the image back; nobody takes it for so many seconds."""
        with self._change:
            self._held.append((image_id, seconds))
            self._change.notify()

    def finish(self) -> Exception | None:
        """Commit what has gathered and end; answers the fault, if any."""
        with self._change:
            self._ending = True
            self._change.notify()
        self._thread.join()
        return self.fault

    def _run(self) -> None:
        pause, last = _FIRST_SECONDS, time.monotonic()
        try:
            while True:
                with self._change:
                    while not self._ending and not self._due(pause, last):
                        self._change.wait(pause / 4)
                    outcomes, self._outcomes = self._outcomes, []
                    gone, self._gone = self._gone, []
                    held, self._held = self._held, []
                    changed, self._changed = self._changed, []
                    ending = self._ending
                self._give_back(gone, held, changed)
                self._commit(outcomes)
                pause, last = min(pause * 1.5, _MOST_SECONDS), time.monotonic()
                if ending:
                    return
        except Exception as error:
            log.debug("The writer ends", exc_info=True)
            self.fault = error
        finally:
            connection.close()

    def _due(self, pause: float, last: float) -> bool:
        """Enough has gathered, or the oldest has waited long enough, or nothing else is on its way."""
        gathered = len(self._outcomes) + len(self._gone) + len(self._held) + len(self._changed)
        if not gathered:
            return False
        return gathered >= _MOST_OUTCOMES or time.monotonic() - last >= pause or gathered >= self._count_expected()

    def _count_expected(self) -> int:
        return sum(len(stages) for stages in self._expected.values())

    def _give_back(self, gone: list[int], held: list[tuple[int, float]], changed: list[int]) -> None:
        """What could not be begun: missing files, files to be tried later, files to be read anew."""
        for image_id, seconds in held:
            self._again(lambda i=image_id, s=seconds: ledger.release(self._owner, [i], wait_seconds=s))  # type: ignore[misc]
            self._close([image_id], ledger.READ, 0, 0, everything=True)
        if gone:
            self._again(lambda: mark_missing(self._owner, gone))
            self._close(gone, ledger.READ, 0, 0, everything=True)
        if changed:
            self._again(lambda: ledger.queue(changed, wanted()))
            self._close(changed, ledger.READ, 0, 0, everything=True)

    def _commit(self, outcomes: list[Outcome]) -> None:
        failures: dict[str, list[ledger.Failure]] = {}
        if unread := sorted({one.image_id for one in outcomes if one.unread}):
            self._again(lambda: read_first(self._owner, unread))
            self._close(unread, ledger.READ, 0, 0, everything=True)
        for one in outcomes:
            if one.reason:
                failure = ledger.Failure(one.image_id, one.stage, one.reason, one.size or None, one.mtime_ns or None)
                failures.setdefault(one.stage, []).append(failure)
        for stage in self._stages:
            done = [one for one in outcomes if one.stage == stage.name and not (one.reason or one.unread)]
            if done:
                ids = [one.image_id for one in done]
                results = [one.result for one in done]
                self._again(lambda s=stage, i=ids, r=results: s.commit(self._owner, i, r))  # type: ignore[misc]
                self._close(ids, stage.name, len(done), 0)
            if failed := failures.pop(stage.name, []):
                self._fail(stage.name, failed)

    def _fail(self, stage: str, failed: list[ledger.Failure]) -> None:
        if stage == ledger.READ:
            self._again(lambda: mark_unreadable(self._owner, failed))
        else:
            self._again(lambda: ledger.fail(failed, self._owner))
        self._close([one.image_id for one in failed], stage, 0, len(failed), everything=stage == ledger.READ)

    def _close(self, ids: Sequence[int], stage: str, done: int, failed: int, *, everything: bool = False) -> None:
        closed = []
        with self._change:
            for image_id in ids:
                left = self._expected.get(image_id)
                if left is None:
                    continue
                left.discard(stage)
                if everything or not left:
                    del self._expected[image_id]
                    closed.append(image_id)
        self._committed(ids, stage, done, failed, closed)

    def _again(self, write: Callable[[], object]) -> None:
        """Run one transaction; a deadlock or a busy database is tried again, as nothing of it was kept."""
        for number in range(1, _TRIES + 1):
            try:
                write()
                return
            except OperationalError as error:
                if number == _TRIES or _is_full(error):
                    raise
                log.info("The database was busy (%s); trying again", error)
                close_old_connections()
                time.sleep(0.2 * number)


def _is_full(error: DatabaseError) -> bool:
    text = str(error).lower()
    return "full" in text or "no space" in text
