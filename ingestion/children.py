"""One supervised process: started, listened to, restarted with growing pauses, stopped with all its own children."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOG_BYTES = 10_000_000
LOG_FILES = 5
LONGEST_PAUSE = 60.0
SETTLED_SECONDS = 60.0
"""A process that lived this long starts again at once when it dies, not with the pause of the last time."""

ANNOUNCED = 'echo "+$$" >&0; exec "$@" </dev/null'
"""The shell line that announces the process to the lifeline (see there), then becomes the program."""


@dataclass(frozen=True)
class Job:
    """What is to run: its name for people, the log file's name, the command line."""

    name: str
    log: str
    command: Sequence[str]
    pass_fds: Sequence[int] = ()
    env: Mapping[str, str] = field(default_factory=dict)


class LogFile(logging.handlers.RotatingFileHandler):
    """One rotated file, written by the supervisor alone. A full disk loses lines, never the program."""

    def __init__(self, path: Path, *, json_lines: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(
            path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True, errors="backslashreplace"
        )
        self._json_lines = json_lines

    def line(self, text: str) -> None:
        if self._json_lines and not text.startswith("{"):
            text = json.dumps({"level": "OUTPUT", "message": text})
        self.emit(logging.LogRecord("", logging.INFO, "", 0, text, None, None))

    def handleError(self, record: logging.LogRecord) -> None:
        return


class Child:
    """A job and the process that does it at present."""

    def __init__(self, job: Job, log: LogFile, *, lifeline: int, cwd: Path) -> None:
        self.job = job
        self.words: deque[str] = deque(maxlen=30)
        """The last lines it said."""
        self.process: subprocess.Popen[bytes] | None = None
        self.output: int | None = None
        """The read end of its output, non-blocking."""
        self.restart_at: float | None = time.monotonic()
        """When it is to be started; None: not at all."""
        self._log = log
        self._lifeline = lifeline
        self._cwd = cwd
        self._started = 0.0
        self._pause = 0.5
        self._rest = b""

    @property
    def running(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        """Start the process in a process group of its own. Raises OSError when the system has no room for it."""
        self.restart_at = None
        self._started = time.monotonic()
        self.words.clear()
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", ANNOUNCED, "sh", *self.job.command],
            stdin=self._lifeline,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.job.env},
            pass_fds=self.job.pass_fds,
            process_group=0,
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout.fileno()
        os.set_blocking(self.output, False)

    def listen(self) -> bool:
        """Take what it has said into its log; False when its output has ended."""
        if self.output is None:
            return False
        try:
            data = os.read(self.output, 1 << 16)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        for raw in lines:
            text = raw.decode("utf-8", "backslashreplace").rstrip()
            if text:
                self.words.append(text)
                self._log.line(text)
        return bool(data)

    def ended(self) -> int | None:
        """The exit status (negative: the signal) once it has ended, and its leftovers with it; else None."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        group = self.process.pid
        self.signal_group(signal.SIGKILL)
        while self._more() and self.listen():
            pass
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = self.output = None
        # When the lifeline is gone the supervisor notices, and starts another.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._lifeline, b"-%d\n" % group)
        return status

    def _more(self) -> bool:
        return self.output is not None and bool(select.select([self.output], [], [], 0)[0])

    def schedule_restart(self) -> float:
        """Plan the next start; returns the pause in seconds, longer each time it dies soon after its start."""
        if time.monotonic() - self._started > SETTLED_SECONDS:
            self._pause = 0.5
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        self.restart_at = time.monotonic() + self._pause
        return self._pause

    def adopt(self, lifeline: int) -> None:
        """Announce the running process to a new lifeline."""
        self._lifeline = lifeline
        if self.process is not None:
            os.write(lifeline, b"+%d\n" % self.process.pid)

    def terminate(self) -> None:
        """Ask it to stop: its main process only, which knows how to stop its own children."""
        self.restart_at = None
        if self.process is not None:
            self.process.terminate()

    def signal_group(self, number: int) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except (ProcessLookupError, PermissionError):
                return

    def last_words(self) -> str:
        """The line that most likely says why it ended, or ""."""
        for text in reversed(self.words):
            if text.startswith("{"):
                with contextlib.suppress(ValueError):
                    text = str(json.loads(text).get("message", text))
            return text[:300]
        return ""


def describe_end(status: int) -> str:
    """How a process ended, for people."""
    if status < 0:
        try:
            return f"ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"ended by signal {-status}"
    return f"ended with status {status}"
