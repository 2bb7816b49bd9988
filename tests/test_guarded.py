"""Killable decoder processes: what hangs is stopped, what crashes takes only itself along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from search import guarded
from search.decoding import Limits, decode, read_pixels
from search.errors import TooLarge, TooSlow, TooSmall, Unreadable
from search.guarded import busy_children, decode_guarded, stop_children
from tests.picture_files import encoded, jpeg_of_many_scans, png, scene

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on broken files
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_children_left() -> Iterator[None]:
    yield
    stop_children()
    assert busy_children() == []


@pytest.fixture(scope="module")
def hours_long() -> bytes:
    """A JPEG of a few megabytes that libjpeg works on for hours."""
    return jpeg_of_many_scans(4000, 100_000)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("min_side", [None, 100])
@pytest.mark.parametrize("format", ["TIFF", "GIF", "JPEG2000", "JPEG"])
def test_a_child_gives_the_same_pixels(format: str, min_side: int | None, tmp_path: Path) -> None:
    data = encoded(scene(), format)
    here = decode(data, min_side=min_side)
    there = decode_guarded(data, min_side=min_side)
    assert np.array_equal(np.asarray(here.pixels), np.asarray(there.pixels))
    assert (here.format, here.width, here.height) == (there.format, there.width, there.height)
    path = tmp_path / os.fsdecode(b"odd \xff\n name.jpg")
    path.write_bytes(data)
    assert np.array_equal(np.asarray(decode_guarded(path, min_side=min_side).pixels), np.asarray(here.pixels))


def test_errors_of_a_child_keep_their_class_and_sentence(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="3600 megapixels"):
        decode_guarded(png(60_000, 60_000), min_side=None)
    with pytest.raises(TooSmall, match="2 x 2 pixels"):
        decode_guarded(png(2, 2), min_side=None, limits=Limits(min_side=3, max_pixels=100))
    with pytest.raises(Unreadable, match=r"^The file is named like a JPEG picture but holds a PDF document\.$"):
        decode_guarded(b"%PDF-1.3", min_side=None, name=b"\xff.jpg")
    with pytest.raises(Unreadable, match="cut off"):
        decode_guarded(encoded(scene(), "JPEG")[:2000], min_side=None)
    with pytest.raises(Unreadable, match=r"cannot be opened .No such file"):
        decode_guarded(tmp_path / "gone.jpg", min_side=None)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(Unreadable, match="not a regular file"):
        decode_guarded(fifo, min_side=None)


def test_a_file_that_takes_too_long_is_stopped_and_the_next_one_is_read(hours_long: bytes) -> None:
    with pytest.raises(TooSlow, match=r"longer than 0\.5 seconds and was stopped .IMAGESEARCH_FILE_SECONDS"):
        decode_guarded(hours_long, min_side=None, seconds=0.5)
    assert decode_guarded(encoded(scene(), "TIFF"), min_side=None).width == 320


def test_read_pixels_sends_what_can_hang_to_a_child(hours_long: bytes, settings) -> None:
    settings.IMAGESEARCH_FILE_SECONDS = 1.0
    with pytest.raises(TooSlow):
        read_pixels(hours_long, min_side=256)


@pytest.mark.parametrize(
    ("ending", "words"), [(signal.SIGSEGV, "The decoder crashed on this file"), (signal.SIGKILL, "memory ran out")]
)
def test_a_crash_is_a_sentence_and_the_next_file_gets_a_fresh_child(
    hours_long: bytes, ending: signal.Signals, words: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(decode_guarded, hours_long, min_side=None, seconds=120)
        wait_until(lambda: len(busy_children()) == 1)
        (pid,) = busy_children()
        os.kill(pid, ending)
        with pytest.raises(Unreadable, match=words):
            waiting.result()
    assert decode_guarded(encoded(scene(), "GIF"), min_side=None).width == 320
    assert not is_running(pid)


def test_a_child_that_died_while_idle_is_replaced() -> None:
    data = encoded(scene(), "TIFF")
    decode_guarded(data, min_side=None)
    (child,) = guarded._pool()._idle
    os.kill(child.process.pid, signal.SIGKILL)
    wait_until(lambda: child.process.poll() is not None)
    assert decode_guarded(data, min_side=None).width == 320


def test_several_threads_share_the_children(shared: Path) -> None:
    folder = shared / "photos/formats/pillow"
    files = [path.read_bytes() for path in sorted(folder.rglob("*.tif"))[:60]]

    def outcome(data: bytes, read: Callable = decode) -> str:
        try:
            return str(np.asarray(read(data, min_side=None, limits=Limits(1, 10**8)).pixels).sum())
        except Unreadable as fault:
            return str(fault)

    with ThreadPoolExecutor(8) as pool:
        there = list(pool.map(lambda data: outcome(data, decode_guarded), files))
    assert there == [outcome(data) for data in files]


def test_a_child_has_a_ceiling_on_its_memory() -> None:
    if sys.platform != "linux":
        pytest.skip("RLIMIT_AS is Linux's")
    decode_guarded(encoded(scene(), "TIFF"), min_side=None, limits=Limits(1, 50_000_000))
    (child,) = guarded._pool()._idle
    limits = Path(f"/proc/{child.process.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max address space")]
    assert int(line.split()[3]) == (2 << 30) + 16 * 50_000_000


def test_a_child_imports_neither_django_nor_models() -> None:
    code = (
        "import sys, io; sys.path.insert(0, '.');"
        "from search import decoding; from PIL import Image; out = io.BytesIO();"
        "Image.new('RGB', (64, 64)).save(out, 'TIFF');"
        "decoding.decode(out.getvalue(), min_side=None, limits=decoding.Limits(1, 10**6));"
        "print([m for m in ('django', 'torch', 'numpy', 'cv2', 'faiss', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PARENT = """
import sys, threading, time, json
sys.path.insert(0, {root!r})
from search import guarded
from search.decoding import Limits
data = open({path!r}, "rb").read()
limits = Limits(1, 10**9)
decode = lambda: guarded.decode_guarded(data, min_side=None, seconds=600, limits=limits)
threading.Thread(target=decode, daemon=True).start()
while not guarded.busy_children():
    time.sleep(0.01)
time.sleep(0.5)
print(json.dumps(guarded.busy_children()), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="the prompt end of an orphan is Linux's; elsewhere its time limit ends it"
)
def test_children_die_with_their_parent_even_inside_a_codec(hours_long: bytes, tmp_path: Path) -> None:
    path = tmp_path / "slow.jpg"
    path.write_bytes(hours_long)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=str(ROOT), path=str(path))], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        (child,) = json.loads(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_running(child))


def test_a_forked_process_uses_children_of_its_own() -> None:
    data = encoded(scene(), "TIFF")
    decode_guarded(data, min_side=None)
    (mine,) = guarded._pool()._idle
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            width = decode_guarded(data, min_side=None).width
            (theirs,) = guarded._pool()._idle
            os.write(writer, json.dumps([width, theirs.process.pid]).encode())
            stop_children()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        width, theirs = json.loads(answer.read())
    os.waitpid(pid, 0)
    assert width == 320
    assert theirs != mine.process.pid
    assert decode_guarded(data, min_side=None).width == 320
    assert [child.process.pid for child in guarded._pool()._idle] == [mine.process.pid]


def test_waiting_for_a_turn_does_not_count(hours_long: bytes) -> None:
    """More files at once than there are children: those that wait are read, whatever the others do."""
    turns = guarded._pool().size
    slow = [threading.Thread(target=_ignore_slow, args=(hours_long,)) for _ in range(turns)]
    for thread in slow:
        thread.start()
    wait_until(lambda: len(busy_children()) == turns)
    assert decode_guarded(encoded(scene(), "GIF"), min_side=None, seconds=30).width == 320
    for thread in slow:
        thread.join()


def _ignore_slow(data: bytes) -> None:
    with pytest.raises(TooSlow):
        decode_guarded(data, min_side=None, seconds=2)
