"""The worker: the only file that knows the order in which files become searchable.

    ledger -> claims -> readers -> compute threads -> writer -> ledger
              (ids)     (bytes)    (pixels, vectors)  (one transaction a stage)

Work flows: new claims are made before the old ones are through, and what is through is committed every few
seconds, so a crash costs only what is in hand, and pictures become searchable while the rest is on its way.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection

from ingestion import ledger, pausing
from ingestion.errors import WorkerStopped
from ingestion.offline import Offline
from ingestion.pictures import Picture
from ingestion.pipeline import Outcome, Pipeline
from ingestion.presence import Presence
from ingestion.readers import ChangedWhileRead, DiskStuck, Readers, Vanished
from ingestion.removal import sweep
from ingestion.stages import Ready, Stage, activate_when_searchable, needs_file, ready, situation
from ingestion.writer import Writer
from search.encoders.threads import before_torch, set_threads, usable_cpus
from search.models import Image

log = logging.getLogger(__name__)

_FIRST_CLAIM = 64
_CLAIM = 256
_MOST_OPEN = 4096
"""Images claimed and not yet committed: bounds the memory, and what a crash costs."""
_READERS = 4
_HELD_BYTES = 96 * 2**20
_WAIT_AGAIN_SECONDS = 15.0
"""A file that was being written while it was read is left alone for so long."""
_CHANGED_TOO_OFTEN = 4
_LOOK_AGAIN_SECONDS = 5.0
"""How often a worker looks for dead workers and for sources that came back ..."""
_GLANCE_SECONDS = 2.0
"""... and whether spaces were added, paused or removed, or an encoder's weights came."""


@dataclass
class Summary:
    """How a run ended."""

    finished: bool = True
    """Nothing that can be done is left, as far as this worker knows."""
    done: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    """One sentence for each thing that had to wait."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Thread-seconds spent in each kind of work."""


class Worker:
    """One worker process: `run()` claims, reads, computes and commits until nothing is left (or for ever).

    `only` names one stage; `limit` ends after so many images; `sources` names the only sources to work on;
    `more()` says whether a crawl is still adding work; `tell()` is called about once a second. Other workers'
    unfinished work is waited for. `stop()` may be called from any thread or signal handler.
    """

    def __init__(
        self,
        *,
        only: str | None = None,
        limit: int | None = None,
        forever: bool = False,
        threads: int | None = None,
        batch_size: int | None = None,
        sources: Sequence[int] | None = None,
        more: Callable[[], bool] = lambda: False,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        before_torch()
        self._only, self._left, self._forever, self._batch_size = only, limit, forever, batch_size
        self._sources = None if sources is None else tuple(sources)
        self.threads = threads or settings.IMAGESEARCH_THREADS or usable_cpus()
        self._more, self._tell = more, tell
        self._stop = threading.Event()
        self._open: dict[int, Picture] = {}
        self._lock = threading.Lock()
        self._paths: queue.SimpleQueue[Picture | None] = queue.SimpleQueue()
        self._reading = 0
        self._offline = Offline()
        self._resting = ""
        self._summary = Summary()
        self._stages: list[Stage] = []
        self._without_files: list[str] = []
        self._claimed = 0

    def stop(self) -> None:
        """Finish what is in hand, hand the rest back, return from `run()`."""
        self._stop.set()

    def run(self) -> Summary:
        """Work. Raises WorkerStopped, with nothing lost, when something other than a file stands in the way."""
        self._presence = Presence()
        beat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beat_stop = self._beat_stop = threading.Event()
        beat.start()
        try:
            self._work()
        except DatabaseError as error:
            raise WorkerStopped(f"The database does not take part: {_sentence(error)} The worker stopped.") from error
        finally:
            beat_stop.set()
            beat.join()
            with contextlib.suppress(DatabaseError):  # the leases are released when others see that we are gone
                ledger.release(self._presence.owner)
            self._presence.close()
        return self._summary

    # --- the flow ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stop.is_set():
            if self._rests():
                self._idle()
                continue
            opened = self._get_ready()
            self._flow(opened)
            if self._stop.is_set() or self._finished():
                break
            self._idle()
        self._summary.finished = not self._stop.is_set() and not self._left_over()

    def _get_ready(self) -> Ready:
        opened = ready(self._only, batch_size=self._batch_size)
        if opened.waiting != self._summary.waiting:
            for sentence in opened.waiting:
                log.warning("%s", sentence)
        self._summary.waiting = list(opened.waiting)
        names = [stage.name for stage in self._stages]
        self._stages = opened.stages
        self._without_files = [stage.name for stage in opened.stages if not needs_file(stage)]
        sweep()
        for stage in opened.stages:
            if stage.name not in names and stage.name != ledger.READ and not self._stop.is_set():
                ledger.queue_all(stage.name, lambda queued: not self._stop.is_set())
        ledger.release_dead()
        return opened

    def _flow(self, opened: Ready) -> None:
        """Run the pipeline until nothing can be claimed any more."""
        names = [stage.name for stage in self._stages]
        self._offline.look()
        if not names or not self._is_there(ledger.claimable, names):
            return
        self._writer = Writer(self._presence.owner, self._stages, self._committed)
        callers = self._callers()
        self._pipeline = Pipeline(
            self._stages, self._presence, threads=max(self.threads, callers), callers=callers,
            finished=self._writer.add, spared=lambda picture: self._readers.free(picture.size),
            busy_upstream=lambda: self._reading > 0,
        )  # fmt: skip
        self._readers = Readers(
            self._paths.get, self._read, self._not_read,
            threads=_READERS, max_bytes=_HELD_BYTES, seconds=settings.IMAGESEARCH_FILE_SECONDS,
        )  # fmt: skip
        self._writer.start()
        fault: Exception | None = None
        try:
            self._feed(names, opened)
        except DiskStuck as error:
            fault = error
        finally:
            self._readers.stop()
            for _ in range(_READERS * 4):
                self._paths.put(None)
            self._pipeline.stop()
            unwritten = self._writer.finish()  # commits what is through, whatever stopped the rest
            fault = self._pipeline.fault or unwritten or fault
            self._paths = queue.SimpleQueue()
            for what, seconds in self._pipeline.seconds.items():
                self._summary.seconds[what] = self._summary.seconds.get(what, 0.0) + seconds
            with self._lock:
                if self._left is not None:
                    self._left += len(self._open)  # claimed and handed back: they do not count
                self._open.clear()
                self._reading = 0
            if fault is not None or self._stop.is_set() or self._resting:
                ledger.release(self._presence.owner)
        if fault is not None:
            raise WorkerStopped(f"{_sentence(fault)} The worker stopped; what was finished is kept.") from fault

    def _feed(self, names: Sequence[str], opened: Ready) -> None:
        """Claim ahead of the compute threads until nothing is left, and watch over everybody."""
        dry = False
        looked = told = glanced = time.monotonic()
        while not self._stop.is_set() and self._pipeline.fault is None and self._writer.fault is None:
            now = time.monotonic()
            if self._wants_more():
                dry = self._left == 0 or not self._claim(names)
            if dry and not self._open and not self._more():
                return
            self._readers.watch()
            if now - told > 1:
                told = now
                self._tell()
            if now - looked > _LOOK_AGAIN_SECONDS:
                looked = now
                ledger.release_dead()
                self._offline.look()
            if now - glanced > _GLANCE_SECONDS:
                glanced = now
                if self._rests():
                    return
                if situation(self._only) != opened.situation:
                    self._drain()
                    return
            self._wait(0.02 if self._open and not dry else 0.2)

    def _rests(self) -> bool:
        """Whether a person paused the work, or quiet hours are now; said once at either end."""
        rest = pausing.rest()
        sentence = rest.sentence if rest else ""
        if sentence != self._resting:
            log.warning("%s", sentence or "The work goes on.")
        self._resting = sentence
        return bool(sentence)

    def _drain(self) -> None:
        """Let what is claimed run through."""
        while self._open and not self._stop.is_set() and not (self._pipeline.fault or self._writer.fault):
            self._readers.watch()
            self._wait(0.1)

    def _wants_more(self) -> bool:
        """The compute threads will soon have nothing to decode, and not too much waits for its commit."""
        if self._claimed == 0:
            return not self._open
        return self._reading + self._pipeline.waiting < _CLAIM // 2 and len(self._open) < _MOST_OPEN

    def _claim(self, names: Sequence[str]) -> bool:
        """Take the next images; False when there are none."""
        size = _FIRST_CLAIM if self._claimed == 0 else _CLAIM
        if self._left is not None:
            size = min(size, self._left)
        with self._lock:
            besides = frozenset(self._open)
        batch = ledger.claim(
            self._presence.owner, names, size, scope=self._scope(), leading=self._leading(names), besides=besides
        )
        if not batch.items and self._without_files:  # sources that are away do not matter to these
            batch = ledger.claim(
                self._presence.owner, self._without_files, size, scope=self._scope_without_files(), besides=besides
            )
        rows = Image.objects.select_related("source").defer("colours", "description")
        images = rows.in_bulk([item.image_id for item in batch.items])
        pictures = []
        for item in batch.items:
            image = images.get(item.image_id)
            if image is None:
                continue
            side = max((stage.side for stage in self._stages if stage.name in item.stages), default=0)
            needs = not set(item.stages) <= set(self._without_files)
            pictures.append(Picture(image, item, side, needs_file=needs))
        here = self._offline.sort_out([picture.image for picture in pictures if picture.needs_file])
        away = [picture.id for picture in pictures if picture.needs_file and picture.image.source_id not in here]
        pictures = [picture for picture in pictures if not picture.needs_file or picture.image.source_id in here]
        if away:
            ledger.release(self._presence.owner, away)
        self._claimed += len(pictures)
        if self._left is not None:
            self._left -= len(pictures)
        with self._lock:
            for picture in pictures:
                self._open[picture.id] = picture
            self._reading += len(pictures)
        self._writer.expect([(picture.id, picture.claimed.stages) for picture in pictures])
        for picture in pictures:
            self._paths.put(picture)
        return bool(batch.items)

    # --- what the threads report ------------------------------------------------------------------------

    def _read(self, picture: Picture) -> None:
        row = picture.image
        reads = ledger.READ in picture.claimed.stages or not picture.needs_file
        if reads or (picture.size, picture.mtime_ns) == (row.size, row.mtime_ns):
            self._pipeline.add(picture)
        else:  # other bytes than the catalogue speaks of: all of it anew, so that they go on belonging together
            self._readers.free(picture.size)
            self._writer.changed(picture.id)
        with self._lock:
            self._reading -= 1

    def _not_read(self, picture: Picture, error: Exception) -> None:
        with self._lock:
            self._reading -= 1
        if isinstance(error, ChangedWhileRead) and picture.claimed.attempts < _CHANGED_TOO_OFTEN:
            self._writer.hold_back(picture.id, _WAIT_AGAIN_SECONDS)
        elif isinstance(error, Vanished):
            if self._offline.lies_away(picture.image):
                self._writer.hold_back(picture.id, 0)
            else:
                self._writer.gone(picture.id)
        else:
            reason = str(error)
            if isinstance(error, ChangedWhileRead):
                reason = "Somebody keeps writing this file; it is tried again when a crawl sees it changed."
            stages = picture.claimed.stages
            first = ledger.READ if ledger.READ in stages else stages[0]
            some = [first] if first == ledger.READ else list(stages)
            self._writer.add([Outcome(picture.id, stage, reason=reason) for stage in some])
        self._pipeline.wake()

    def _committed(self, ids: Sequence[int], stage: str, done: int, failed: int, closed: Sequence[int]) -> None:
        """Called by the writer after each commit."""
        for counts, number in ((self._summary.done, done), (self._summary.failed, failed)):
            if number:
                counts[stage] = counts.get(stage, 0) + number
        with self._lock:
            for image_id in closed:
                self._open.pop(image_id, None)
        if done:
            activate_when_searchable(self._stages, stage)

    # --- around it --------------------------------------------------------------------------------------

    def _callers(self) -> int:
        """How many threads encode at once, each with one processor; one when a GPU does the work."""
        from search.encoders import encode_plan

        callers, inner = encode_plan()
        set_threads(inner)
        return max(1, min(callers, self.threads))

    def _beat(self) -> None:
        try:
            while not self._beat_stop.wait(ledger.LEASE_SECONDS / 4):
                try:
                    ledger.renew(self._presence.owner)
                except Exception:
                    log.exception("The leases could not be renewed; trying again")
                    close_old_connections()
        finally:
            connection.close()

    def _finished(self) -> bool:
        if self._forever or self._more():
            return False
        if self._left == 0:
            return True
        names = [stage.name for stage in self._stages]
        return not self._is_there(ledger.waits, names)

    def _left_over(self) -> bool:
        names = [stage.name for stage in self._stages]
        self._summary.waiting += self._offline.sentences()
        return self._left != 0 and ledger.waits(self._leading(names), scope=ledger.Scope(self._sources))

    def _scope(self) -> ledger.Scope:
        return self._offline.scope(self._sources)

    def _scope_without_files(self) -> ledger.Scope:
        return ledger.Scope(self._sources, read_already=True)

    def _is_there(self, asked: Callable[..., bool], names: Sequence[str]) -> bool:
        """Whether there is work that this worker can do; `asked` is `ledger.waits` or `ledger.claimable`."""
        if asked(self._leading(names), scope=self._scope()):
            return True
        return bool(self._without_files) and asked(self._without_files, scope=self._scope_without_files())

    def _leading(self, names: Sequence[str]) -> list[str]:
        """The stages whose work is looked for: where only an embedding is asked, `read` comes along, not in front."""
        embeds = [name for name in names if name.startswith(ledger.EMBED)]
        return embeds if (self._only or "").startswith("embed") else list(names)

    def _idle(self) -> None:
        close_old_connections()
        self._tell()
        self._stop.wait(0.2 if self._more() else 1.0)

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)


def _sentence(fault: Exception) -> str:
    text = str(fault).strip() or type(fault).__name__
    if isinstance(fault, OSError) and fault.strerror:
        text = f"{fault.strerror}: {os.fsdecode(fault.filename) if fault.filename else 'the data folder'}."
    return text if text.endswith((".", "!", "?")) else text + "."
