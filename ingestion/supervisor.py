"""Keeps the program's processes alive, and stops them all: what `manage.py start` is once it is under way.

One process, one thread: a selector over the children's output and over signals, and a look at each
child twice a second. The terminal gets calm lines; what the children say goes into rotated files.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ingestion.children import Child, Job, LogFile, describe_end
from ingestion.console import Console

TICK_SECONDS = 0.5
GRACE_SECONDS = 8.0
"""How long a clean stop may take; whoever is not done then is killed (what was finished is kept)."""


class Supervisor:
    """Runs jobs until it is told to stop.

    `lasting` jobs are restarted whenever they end. Each list of `errands` (crawls, a download) is done one
    after the other, beside the other lists, once `ready` is true; `on_done` gets an errand's exit status and
    last lines and may answer after how many seconds it is to be tried again. `on_tick` is called about twice
    a second from the loop; it must be quick.
    """

    def __init__(
        self,
        lasting: Sequence[Job],
        errands: Sequence[Sequence[Job]] = (),
        *,
        logs: Path,
        json_logs: bool,
        cwd: Path,
        console: Console,
        on_tick: Callable[[], None] = lambda: None,
        on_done: Callable[[Job, int, list[str]], float | None] = lambda job, status, words: None,
    ) -> None:
        self.ready = False
        self._console = console
        self._logs = logs
        self._json_logs = json_logs
        self._cwd = cwd
        self._on_tick = on_tick
        self._on_done = on_done
        self._files: dict[str, LogFile] = {}
        self._selector = selectors.DefaultSelector()
        self._stops = 0
        self._lifeline: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._start_lifeline()
        self._children = [self._child(job) for job in lasting]
        self._errands = [[self._child(job) for job in jobs] for jobs in errands]

    def run(self) -> int:
        """Until SIGINT, SIGTERM or SIGHUP; returns the exit status: 0 after a clean stop."""
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        self._selector.register(woken, selectors.EVENT_READ, None)
        previous = {number: signal.signal(number, self._stop_asked) for number in self._signals()}
        previous_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        try:
            while not self._stops:
                self._wait(TICK_SECONDS)
                self._look_after_lifeline()
                self._look_after_children()
                if self.ready:
                    self._look_after_errands()
                self._on_tick()
            return self._stop()
        finally:
            for child in self._everyone():
                child.signal_group(signal.SIGKILL)
            signal.set_wakeup_fd(previous_wake)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(woken)
            os.close(wake)
            os.close(self._pipe)
            if self._lifeline is not None:
                self._lifeline.wait(timeout=GRACE_SECONDS + 5)
            self._selector.close()

    @staticmethod
    def _signals() -> list[signal.Signals]:
        return [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

    def _stop_asked(self, number: int, frame: object) -> None:
        self._stops += 1

    def _everyone(self) -> list[Child]:
        return [*self._children, *(child for children in self._errands for child in children)]

    def _child(self, job: Job) -> Child:
        if job.log not in self._files:
            self._files[job.log] = LogFile(self._logs / f"{job.log}.log", json_lines=self._json_logs)
        return Child(job, self._files[job.log], lifeline=self._pipe, cwd=self._cwd)

    def _wait(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                os.read(key.fd, 4096)
            elif not key.data.listen():
                self._selector.unregister(key.fd)

    # --- the lifeline -----------------------------------------------------------------------------

    def _start_lifeline(self) -> None:
        read_end, self._pipe = os.pipe()
        self._lifeline = subprocess.Popen(
            [sys.executable, "-S", "-E", str(Path(__file__).with_name("lifeline.py"))],
            stdin=read_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_end)

    def _look_after_lifeline(self) -> None:
        if self._lifeline is None or self._lifeline.poll() is None:
            return
        self._console.say("The process that guards against orphans was ended; it starts again.")
        os.close(self._pipe)
        self._start_lifeline()
        for child in self._everyone():
            child.adopt(self._pipe)

    # --- children ---------------------------------------------------------------------------------

    def _look_after_children(self) -> None:
        for child in self._children:
            status = self._ended(child)
            if status is not None:
                words = child.last_words()
                pause = child.schedule_restart()
                self._console.say(
                    f"{child.job.name}: {describe_end(status)}; it starts again in {pause:.0f} s."
                    + (f" Its last words: {words}" if words else "")
                    + f" ({self._logs / child.job.log}.log)"
                )
            if not child.running and child.restart_at is not None and time.monotonic() >= child.restart_at:
                self._start(child)

    def _look_after_errands(self) -> None:
        for children in self._errands:
            if not children:
                continue
            child = children[0]
            if not child.running and child.restart_at is not None and time.monotonic() >= child.restart_at:
                self._start(child)
            status = self._ended(child)
            if status is None:
                continue
            if status < 0:
                pause: float | None = child.schedule_restart()
                self._console.say(f"{child.job.name}: {describe_end(status)}; it goes on in {pause:.0f} s.")
                continue
            pause = self._on_done(child.job, status, list(child.words))
            if pause is None:
                children.pop(0)
            else:
                child.restart_at = time.monotonic() + pause

    def doing(self) -> dict[str, str]:
        """The errands under way: name -> the last line each said."""
        return {c[0].job.name: c[0].words[-1] if c[0].words else "" for c in self._errands if c and c[0].running}

    def _start(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:
            pause = child.schedule_restart()
            self._console.say(f"{child.job.name} could not be started ({error.strerror}); again in {pause:.0f} s.")
            return
        assert child.output is not None
        self._selector.register(child.output, selectors.EVENT_READ, child)

    def _ended(self, child: Child) -> int | None:
        output = child.output
        status = child.ended()
        if status is not None and output is not None and output in self._selector.get_map():
            self._selector.unregister(output)
        return status

    # --- the stop ---------------------------------------------------------------------------------

    def _stop(self) -> int:
        """Ask everyone to stop, wait, kill who is left. A second signal kills at once."""
        self._console.clear()
        self._console.say("Stopping (Ctrl-C again to stop at once).")
        asked = self._stops
        for child in self._everyone():
            child.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        while any(child.running for child in self._everyone()):
            self._wait(0.1)
            if self._stops > asked or time.monotonic() > deadline:
                for child in self._everyone():
                    child.signal_group(signal.SIGKILL)
                deadline = float("inf")
            for child in self._everyone():
                self._ended(child)
        self._console.say("Stopped. What was finished is kept; the same command goes on from there.")
        return 0
