"""Decoding in killable child processes: what hangs is stopped, what crashes takes only itself along.

The children (`search.decoder_process`) import Pillow and the decoder, nothing else; they are started when first
needed, reused, and end with this process. Requests and replies go over pipes; see `decoder_process` for their form.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image as PilImage

from search import errors
from search.decoder_process import HEADER, READY
from search.decoding import Decoded, Limits

_ROOT = Path(__file__).resolve().parent.parent
_FILES_PER_CHILD = 2000
"""A child is replaced after so many files: decoders leak now and then, and memory fragments."""
_START_SECONDS = 60.0
_CHUNK = 1 << 20

_STOPPED = "Reading took longer than {seconds:g} seconds and was stopped (IMAGESEARCH_FILE_SECONDS)."
_CRASHED = "The decoder crashed on this file."
_KILLED = "The system stopped the decoder while it read this file, most likely because memory ran out."


def decode_guarded(
    source: bytes | str | os.PathLike[str],
    *,
    min_side: int | None,
    name: bytes | str = b"",
    seconds: float | None = None,
    limits: Limits | None = None,
) -> Decoded:
    """`decoding.decode` of a file's bytes, or of the file at a path (str), in a child process.

    `seconds` of wall-clock time are allowed (default: IMAGESEARCH_FILE_SECONDS), counted from when a child has taken
    the file. Thread-safe: as many files at once as there are cores, further callers wait their turn. Raises
    Unreadable (TooLarge, TooSmall); TooSlow when the child had to be stopped; OSError when no child can be started.
    """
    limits = limits or Limits.from_settings()
    if seconds is None:
        from django.conf import settings

        seconds = float(settings.IMAGESEARCH_FILE_SECONDS)
    data = source if isinstance(source, bytes) else None
    path = None if data is not None else os.fspath(source)  # type: ignore[arg-type]
    request = {
        "min_side": min_side,
        "name": os.fsdecode(name),
        "path": path,
        "bytes": len(data) if data is not None else 0,
        "seconds": seconds,
        "limits": [limits.min_side, limits.max_pixels],
    }
    return _pool().run(request, data or b"", seconds)


def busy_children() -> list[int]:
    """Process ids of the children that are decoding a file right now."""
    return _pool().busy()


def stop_children() -> None:
    """End all children that are idle; the next file starts a fresh one."""
    _pool().stop()


class _Child:
    """One decoder process and the pipes to it."""

    def __init__(self, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self.files = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "search.decoder_process", str(max_pixels)],
            cwd=_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONSAFEPATH": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.into, self.out = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.into, False)
        os.set_blocking(self.out, False)
        try:
            greeting = self.receive(len(READY), time.monotonic() + _START_SECONDS)
        except (EOFError, TimeoutError) as fault:
            self.kill()
            raise OSError("The decoder process did not start.") from fault
        if greeting != READY:
            self.kill()
            raise OSError("The decoder process did not start.")

    def send(self, data: bytes, until: float) -> None:
        """Raises BrokenPipeError when the child is gone, TimeoutError when it does not take the data in time."""
        rest = memoryview(data)
        with selectors.DefaultSelector() as selector:
            selector.register(self.into, selectors.EVENT_WRITE)
            while rest:
                if not selector.select(_time_left(until)):
                    raise TimeoutError
                try:
                    rest = rest[os.write(self.into, rest[:_CHUNK]) :]
                except BlockingIOError:
                    continue

    def receive(self, length: int, until: float) -> bytes:
        """Exactly so many bytes. Raises EOFError when the child is gone, TimeoutError when they do not come in time."""
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self.out, selectors.EVENT_READ)
            while len(received) < length:
                if not selector.select(_time_left(until)):
                    raise TimeoutError
                try:
                    piece = os.read(self.out, min(_CHUNK, length - len(received)))
                except BlockingIOError:
                    continue
                if not piece:
                    raise EOFError
                received += piece
        return bytes(received)

    def kill(self) -> int:
        """End it and say how it ended (as `Popen.returncode` after our own SIGKILL, or before)."""
        before = self.process.poll()
        if before is None:
            self.process.kill()
        after = self.process.wait()
        self.close()
        return after

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def ended(self) -> int:
        """How a child that closed its pipe ended; waits for it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        return self.kill()


def _time_left(until: float) -> float:
    return max(0.0, until - time.monotonic())


class _Pool:
    """Idle children and those at work; at most one for each core at a time."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self.size = max(2, min(16, os.cpu_count() or 2))
        self._turns = threading.BoundedSemaphore(self.size)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()

    def run(self, request: dict[str, Any], data: bytes, seconds: float) -> Decoded:
        with self._turns:
            child = self._take(request["limits"][1])
            keep = False
            try:
                reply, pixels = self._ask(child, request, data, time.monotonic() + seconds)
                keep = True
            except TimeoutError:
                raise errors.TooSlow(_STOPPED.format(seconds=seconds)) from None
            except (EOFError, BrokenPipeError):
                ended = child.ended()
                # SIGALRM is the child's own limit on a file: it fires when this process was stopped meanwhile.
                if ended == -signal.SIGALRM:
                    raise errors.TooSlow(_STOPPED.format(seconds=seconds)) from None
                raise errors.Unreadable(_KILLED if ended == -signal.SIGKILL else _CRASHED) from None
            finally:
                self._give_back(child, keep=keep)
        if "error" in reply:
            raise getattr(errors, reply["error"])(reply["message"])
        image = PilImage.frombytes("RGB", tuple(reply["size"]), pixels)
        return Decoded(image, reply["format"], reply["width"], reply["height"])

    def _ask(self, child: _Child, request: dict[str, Any], data: bytes, until: float) -> tuple[dict[str, Any], bytes]:
        text = json.dumps(request).encode()
        child.send(HEADER.pack(len(text)) + text, until)
        child.send(data, until)
        (length,) = HEADER.unpack(child.receive(HEADER.size, until))
        reply = json.loads(child.receive(length, until))
        return reply, child.receive(reply.get("bytes", 0), until)

    def _take(self, max_pixels: int) -> _Child:
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None:
                child = _Child(max_pixels)
            elif child.process.poll() is not None or child.max_pixels != max_pixels or child.files >= _FILES_PER_CHILD:
                child.kill()
                continue
            child.files += 1
            with self._lock:
                self._busy.add(child)
            return child

    def _give_back(self, child: _Child, *, keep: bool) -> None:
        with self._lock:
            self._busy.discard(child)
            if keep:
                self._idle.append(child)
        if not keep:
            child.kill()

    def busy(self) -> list[int]:
        with self._lock:
            return [child.process.pid for child in self._busy]

    def stop(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def forget(self) -> None:
        """After a fork: the children are the parent's; only close our copies of the pipes, so that they see its end."""
        for child in [*self._idle, *self._busy]:
            for handle in (child.into, child.out):
                os.close(handle)
            child.process.returncode = 0  # so that nothing here waits for, or warns of, another's child


_the_pool: _Pool | None = None
_pool_lock = threading.Lock()
_inherited: list[_Pool] = []


def _pool() -> _Pool:
    global _the_pool
    with _pool_lock:
        if _the_pool is None:
            _the_pool = _Pool()
            atexit.register(_the_pool.stop)
        return _the_pool


def _after_fork() -> None:
    global _the_pool, _pool_lock
    _pool_lock = threading.Lock()
    if _the_pool is not None:
        _the_pool.forget()
        _inherited.append(_the_pool)  # kept, so that its pipes' objects are not closed a second time
        atexit.unregister(_the_pool.stop)
        _the_pool = None


os.register_at_fork(after_in_child=_after_fork)
