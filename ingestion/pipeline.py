"""A pool of threads that never waits while there is something to do: a full batch is encoded, else the next
file is decoded and prepared.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingestion.pictures import NoThumbnail, Picture
from ingestion.presence import Presence
from ingestion.stages import Stage
from search.errors import EncoderFault, StoreFault, Unreadable
from search.faultpoints import reach

log = logging.getLogger(__name__)

_OLD_SECONDS = 5.0
"""A part of a batch is encoded when it has waited so long for the rest."""


@dataclass(frozen=True)
class Outcome:
    """What became of one stage of one image: its result, or the reason why there is none."""

    image_id: int
    stage: str
    result: Any = None
    reason: str = ""
    size: int | None = None
    mtime_ns: int | None = None
    unread: bool = False
    """There is no result because the file has to be read again first."""


@dataclass
class _Prepared:
    """Inputs of one stage that wait for their batch."""

    inputs: deque[tuple[int, Any]] = field(default_factory=deque)
    since: float = 0.0


class Pipeline:
    """Compute threads over two queues: files with their bytes, and prepared inputs of each stage with batches.

    `finished(outcomes)` is called from the compute threads; `spared(picture)` when a picture's bytes were let
    go. `busy_upstream()` says whether more files are on their way. At most `callers` threads encode at once.
    A fault that is no file's fault ends the pipeline and stands in `fault`.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        presence: Presence,
        *,
        threads: int,
        callers: int,
        finished: Callable[[list[Outcome]], None],
        spared: Callable[[Picture], None],
        busy_upstream: Callable[[], bool],
    ) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self.fault: Exception | None = None
        self.seconds: dict[str, float] = {}
        """Thread-seconds spent in each kind of work, for the benchmark's breakdown."""
        self._presence, self._finished, self._spared, self._busy_upstream = presence, finished, spared, busy_upstream
        self._callers = callers
        self._raw: deque[Picture] = deque()
        self._prepared = {stage.name: _Prepared() for stage in stages if stage.batch}
        self._most_prepared = {stage.name: stage.batch * (callers + 2) for stage in stages if stage.batch}
        self._decoding = self._encoding = 0
        self._stopped = False
        self._change = threading.Condition()
        self._threads = [threading.Thread(target=self._run, name=f"compute-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def add(self, picture: Picture) -> None:
        """A picture with its bytes, ready to be decoded."""
        with self._change:
            self._raw.append(picture)
            self._change.notify()

    def wake(self) -> None:
        """Something upstream changed: what waits for the rest of its batch may go now."""
        with self._change:
            self._change.notify_all()

    def stop(self, timeout: float = 30.0) -> None:
        """Finish what is in hand and end; what waits is not begun. Returns when the threads are done."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    @property
    def waiting(self) -> int:
        """Files that wait with their bytes."""
        return len(self._raw)

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._stopped and self.fault is None and (task := self._next()) is None:
                    self._change.wait(0.5)
                if self._stopped or self.fault is not None:
                    return
            try:
                if isinstance(task, Picture):
                    self._prepare(task)
                else:
                    self._encode(*task)  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - a thread must not die unseen: the worker raises this again
                with self._change:
                    self.fault = self.fault or error
                    self._change.notify_all()
                return

    def _next(self) -> Picture | tuple[Stage, list[tuple[int, Any]]] | None:
        """The next piece of work, under the lock: a full batch first, else a file, else what is left of a batch."""
        free = self._encoding < self._callers
        if free:
            for name, waiting in self._prepared.items():
                if len(waiting.inputs) >= self.stages[name].batch:
                    return self._take_batch(name, self.stages[name].batch)
        room = all(len(self._prepared[name].inputs) < most for name, most in self._most_prepared.items())
        if self._raw and room:
            self._decoding += 1
            return self._raw.popleft()
        if free:
            nothing_comes = not self._raw and not self._decoding and not self._busy_upstream()
            now = time.monotonic()
            for name, waiting in self._prepared.items():
                if waiting.inputs and (nothing_comes or now - waiting.since > _OLD_SECONDS):
                    # The rest is shared among the callers, so that none is left idle at the end.
                    share = -(-len(waiting.inputs) // (self._callers - self._encoding))
                    return self._take_batch(name, share if nothing_comes else len(waiting.inputs))
        return None

    def _take_batch(self, name: str, size: int) -> tuple[Stage, list[tuple[int, Any]]]:
        waiting = self._prepared[name]
        taken = [waiting.inputs.popleft() for _ in range(size)]
        waiting.since = time.monotonic()
        self._encoding += 1
        return self.stages[name], taken

    def _prepare(self, picture: Picture) -> None:
        """Decode one file and give it to its stages; whatever a file does, only this file fails."""
        began = time.thread_time()
        spent: dict[str, float] = {}
        outcomes: list[Outcome] = []
        inputs: list[tuple[str, Any]] = []
        try:
            with self._presence.in_hand(picture.id):
                reach("picture-in-hand")
                for name in (stage for stage in self.stages if stage in picture.claimed.stages):
                    outcome, value = self._prepare_stage(self.stages[name], picture, spent)
                    if outcome is not None:
                        outcomes.append(outcome)
                        if outcome.reason and name == "read":
                            break
                    else:
                        inputs.append((name, value))
        finally:
            self._spared(picture)
            picture.let_go()
        if outcomes:
            self._finished(outcomes)
        spent["prepare"] = time.thread_time() - began
        with self._change:
            for name, value in inputs:
                waiting = self._prepared[name]
                if not waiting.inputs:
                    waiting.since = time.monotonic()
                waiting.inputs.append((picture.id, value))
            self._decoding -= 1
            self._spend(spent)
            self._change.notify_all()

    def _prepare_stage(self, stage: Stage, picture: Picture, spent: dict[str, float]) -> tuple[Outcome | None, Any]:
        began = time.thread_time()
        try:
            value = stage.prepare(picture)
        except Unreadable as error:
            reason = str(error)
        except NoThumbnail:
            return Outcome(picture.id, stage.name, unread=True), None
        except (StoreFault, EncoderFault):
            raise
        except MemoryError:
            reason = "There is not enough memory for this picture."
        except Exception as error:
            log.exception("The stage %s failed on %s", stage.name, picture.image.absolute_path_text)
            reason = f"The file could not be processed ({type(error).__name__}: {error})."
        else:
            spent[stage.name] = time.thread_time() - began
            return (None, value) if stage.batch else (self._outcome(stage, picture, result=value), None)
        return self._outcome(stage, picture, reason=reason), None

    def _outcome(self, stage: Stage, picture: Picture, *, result: Any = None, reason: str = "") -> Outcome:
        if not picture.needs_file:
            return Outcome(picture.id, stage.name, result, reason)
        return Outcome(picture.id, stage.name, result, reason, picture.size, picture.mtime_ns)

    def _encode(self, stage: Stage, taken: list[tuple[int, Any]]) -> None:
        began = time.thread_time()
        try:
            results = self._compute(stage, [value for _, value in taken])
        finally:
            spent = {f"{stage.name} encode": time.thread_time() - began}
            with self._change:
                self._encoding -= 1
                self._spend(spent)
                self._change.notify_all()
        self._finished(
            [
                Outcome(image_id, stage.name, reason=str(result))
                if isinstance(result, Unreadable)
                else Outcome(image_id, stage.name, result)
                for (image_id, _), result in zip(taken, results, strict=True)
            ]
        )

    def _compute(self, stage: Stage, inputs: list[Any]) -> Sequence[Any]:
        """Results in order; when a batch fails, each input alone, so that one cannot fail the others."""
        try:
            return stage.compute(inputs)
        except (EncoderFault, StoreFault):
            raise
        except Exception as error:
            if len(inputs) == 1:
                log.exception("The stage %s failed on one input", stage.name)
                return [Unreadable(f"The stage {stage.name} failed ({type(error).__name__}: {error}).")]
        return [result for one in inputs for result in self._compute(stage, [one])]

    def _spend(self, spent: dict[str, float]) -> None:
        """Add to the breakdown, under the lock: once a picture, since whoever holds it holds up the others."""
        for what, seconds in spent.items():
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds
