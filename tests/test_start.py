"""`manage.py start`: everything under one command, a clean stop, no orphans, ports and folders said in a sentence."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

import pytest
from PIL import Image as Picture

from ingestion import children, listening
from ingestion.console import Completion, Console, duration, progress_text
from ingestion.progress import StageProgress
from ingestion.supervisor import Supervisor

PATIENCE = 90


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def waited(condition, *, seconds: float = PATIENCE):
    """What `condition` answers once it is true; the test fails when it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.1)
    raise AssertionError("it never came true")


def processes_of(data: Path) -> dict[int, str]:
    """The processes that belong to an installation: those with its data folder in their environment."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = (entry / "environ").read_bytes()
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"IMAGESEARCH_DATA={data}\0".encode() in environ and state != "Z":
            found[int(entry.name)] = line
    return found


class Started:
    """A running `start` whose output goes into a file."""

    def __init__(self, sandbox, folder: Path, *arguments: str, **env: str) -> None:
        self.box = sandbox
        self.data = sandbox.data
        self.output = folder / "output.txt"
        with open(self.output, "w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "start", "--no-browser", *arguments],
                cwd=Path(__file__).resolve().parent.parent, env={**sandbox.env, **env},
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def said(self) -> str:
        return self.output.read_text()

    def ready(self) -> str:
        """The address, once it was printed."""

        def address():
            if self.process.poll() is not None:
                raise AssertionError(f"it ended: {self.said()}")
            return re.search(r"http://[\w.\[\]:]+:\d+", self.said())

        return waited(address)[0]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)


@pytest.fixture
def start(sandbox, tmp_path) -> Iterator:
    running: list[Started] = []

    def begin(*arguments: str, installation=None, **env: str) -> Started:
        box = installation or sandbox(IMAGESEARCH_ENCODER="look")
        folder = tmp_path / f"start{len(running)}"
        folder.mkdir()
        running.append(Started(box, folder, *arguments, **env))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        for pid in processes_of(one.data):
            os.kill(pid, signal.SIGKILL)


def get(address: str, path: str) -> http.client.HTTPResponse:
    client = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    client.request("GET", path)
    return client.getresponse()


linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes through /proc")


@linux
def test_photos_are_found_served_and_searchable_and_ctrl_c_leaves_nothing_behind(start, tmp_path):
    photos = tmp_path / "my photos é"
    photos.mkdir()
    for number in range(3):
        Picture.new("RGB", (80, 60), (200, 40 * number, 30)).save(photos / f"red {number}.jpg")
    program = start("--photos", str(photos), "--port", str(free_port()))
    address = program.ready()
    assert get(address, "/health").status == 200
    link = re.findall(r"/welcome/\S+", program.said())[0]
    assert get(address, link).status == 200, "the one-time link is good"
    assert get(address, "/").status == 302, "every page needs a sign-in"
    waited(lambda: program.box.report("stats")["readable"] == 3)
    assert "3 registered" in program.said()
    waited(lambda: "Everything found so far is done: 3 pictures can be searched." in program.said(), seconds=30)
    running = " ".join(processes_of(program.data).values())
    for part in ("gunicorn", "qcluster", "process --forever", "lifeline.py"):
        assert part in running
    assert program.stop() == 0
    assert "Stopped." in program.said()
    assert program.said().count("Everything found so far is done") == 1
    assert not processes_of(program.data)
    assert (program.data / "logs" / "worker-1.log").is_file()


@linux
def test_no_orphans_when_the_supervisor_is_killed(start):
    program = start("--port", str(free_port()))
    program.ready()
    waited(lambda: len(processes_of(program.data)) >= 6)
    program.process.kill()
    program.process.wait()
    waited(lambda: not processes_of(program.data), seconds=30)


@linux
def test_a_dead_child_is_said_and_started_again(start):
    program = start("--port", str(free_port()))
    program.ready()

    def worker():
        return [pid for pid, line in processes_of(program.data).items() if "process --forever" in line]

    (first,) = waited(worker)
    os.kill(first, signal.SIGKILL)
    waited(lambda: "Worker 1: ended by SIGKILL; it starts again" in program.said())
    waited(lambda: worker() and worker() != [first])
    web = [pid for pid, line in processes_of(program.data).items() if "gunicorn" in line]
    for pid in web:
        os.kill(pid, signal.SIGKILL)
    waited(lambda: "The web server: ended by SIGKILL" in program.said())
    address = program.ready()
    assert waited(lambda: get(address, "/health")).status == 200, "the port was kept through the restart"
    assert program.stop() == 0
    assert not processes_of(program.data)


@linux
@pytest.mark.once
def test_sigterm_stops_as_cleanly_as_ctrl_c(start):
    program = start("--port", str(free_port()))
    program.ready()
    program.process.terminate()
    assert program.process.wait(timeout=30) == 0
    assert not processes_of(program.data)


@pytest.mark.once
def test_a_second_start_on_the_same_data_names_the_first(start):
    program = start("--port", str(free_port()))
    address = program.ready()
    second = program.box.manage("start", "--no-browser", check=False)
    assert second.returncode == 1
    assert f"process {program.process.pid}, at {address}" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.once
def test_a_busy_port_asked_for_is_refused_with_the_next_free_one(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = sandbox(IMAGESEARCH_ENCODER="look").manage("start", "--port", str(port), check=False)
    assert done.returncode == 1
    assert f"Port {port} is taken by another program. The next free one: --port {port + 1}" in done.stderr


@pytest.mark.once
def test_without_a_terminal_the_default_port_falls_to_the_next_free_one_aloud(start, monkeypatch):
    try:
        held = socket.create_server(("127.0.0.1", 8000))
    except OSError:
        held = None  # somebody else holds it, which is as good
    try:
        program = start()
        address = program.ready()
    finally:
        if held:
            held.close()
    assert "Port 8000 is taken by another program. Using" in program.said()
    assert not address.endswith(":8000")
    assert program.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--photos", "/nowhere/at all"], "The folder of photos /nowhere/at all is not there"),
        (["--photos", ""], "--photos is empty: give the path of an existing folder"),
        (["--photos", __file__], "is a file: give the path of an existing folder"),
        (["--workers", "99"], "--workers is 99, but it accepts a whole number from 0 to 64"),
        (["--host", "not-a-host.invalid"], "is not known here"),
        (["--host", "192.0.2.1"], "This machine cannot listen at 192.0.2.1"),
    ],
)
@pytest.mark.once
def test_wrong_arguments_give_one_sentence(sandbox, arguments, sentence):
    done = sandbox(IMAGESEARCH_ENCODER="look").manage("start", *arguments, check=False)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_of_a_newer_version_is_refused(sandbox):
    box = sandbox(IMAGESEARCH_ENCODER="look")
    code = (
        "from django.db.migrations.recorder import MigrationRecorder as R; from django.db import connection;"
        "R(connection).record_applied('search', '0999_from_the_future')"
    )
    box.manage("shell", "-c", code)
    done = box.manage("start", check=False)
    assert done.returncode == 1
    assert "newer version of the program (it has search.0999_from_the_future)" in done.stderr


@pytest.mark.once
def test_listening_beyond_this_machine_says_what_else_must_be_set(start):
    program = start("--host", "0.0.0.0", "--port", str(free_port()))
    program.ready()
    assert "IMAGESEARCH_ALLOWED_HOSTS" in program.said() and "IMAGESEARCH_HTTPS=1" in program.said()
    assert program.stop() == 0


@pytest.mark.once
def test_a_model_that_cannot_be_downloaded_is_said_once_and_everything_else_runs(start, sandbox):
    dead = free_port()
    box = sandbox(HF_ENDPOINT=f"http://127.0.0.1:{dead}", HF_HUB_OFFLINE="0")
    box.env.pop("IMAGESEARCH_ENCODER", None)
    program = start("--port", str(free_port()), installation=box)
    address = program.ready()
    assert re.search(r"downloading it \(\d+ MB\)", program.said()), "the size is said before"
    waited(lambda: "could not be downloaded" in program.said())
    assert get(address, "/health").status == 200
    assert program.stop() == 0
    assert program.said().count("could not be downloaded") == 1
    assert "Traceback" not in program.said()


# --- parts ------------------------------------------------------------------------------------------


class Screen:
    """Stands for a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        return

    def isatty(self) -> bool:
        return True


@pytest.mark.once
def test_lines_appear_above_the_status_line_which_stays():
    screen = Screen()
    console = Console(cast(TextIO, screen))
    console.status("half done")
    console.say("a line")
    assert screen.text.endswith("\r\033[Ka line\nhalf done")
    console.clear()
    assert screen.text.endswith("\r\033[K")


@pytest.mark.once
def test_progress_names_stage_pace_and_remaining_time():
    rows = [
        StageProgress("read", "Reading files", waiting=600, done=1_400, failed=0, per_second=12.34, eta_seconds=48.6),
        StageProgress("embed:x", "Embedding", waiting=0, done=5, failed=0, per_second=None, eta_seconds=0.0),
    ]
    assert progress_text(rows) == "Reading files: 1,400 of 2,000, 12.3 a second, 49 s left"
    assert [duration(s) for s in (0.2, 89, 600, 7_200, 400_000)] == ["1 s", "89 s", "10 min", "2 h", "5 days"]


def stage(waiting: int, done: int, *, failed: int = 0) -> StageProgress:
    return StageProgress("read", "Reading files", waiting, done, failed, per_second=None, eta_seconds=None)


@pytest.mark.once
def test_that_everything_is_done_is_said_once_after_work_was_seen():
    completion = Completion()
    looks = [[], [stage(3, 0)], [stage(1, 2)], [stage(0, 3)], [stage(0, 3)]]
    assert [completion.reached(rows) for rows in looks] == [False, False, False, True, False]


@pytest.mark.once
def test_work_that_came_and_went_between_two_looks_counts_too():
    completion = Completion()
    assert [completion.reached([stage(0, n)]) for n in (5, 5, 9, 9)] == [False, False, True, False]
    assert completion.reached([stage(0, 9, failed=2)]), "failed is finished as well"


@pytest.mark.once
def test_a_finished_crawl_is_answered_once_no_other_is_under_way():
    completion = Completion()
    completion.expect()
    assert not completion.reached([stage(0, 4)], more_comes=True)
    assert completion.reached([stage(0, 4)])
    assert not completion.reached([stage(0, 4)])


@pytest.mark.once
def test_addresses_for_people():
    assert listening.address_for_people("0.0.0.0", 8000) == "http://127.0.0.1:8000"
    assert listening.address_for_people("::1", 80) == "http://[::1]:80"
    assert listening.is_loopback("127.0.0.1") and listening.is_loopback("::1") and listening.is_loopback("localhost")
    assert not listening.is_loopback("0.0.0.0") and not listening.is_loopback("photos.example.org")


def run_jobs(tmp_path: Path, *jobs: children.Job, until, **options) -> str:
    """Supervise jobs until `until(text on the screen)`; what the screen showed."""
    screen = Screen()
    supervisor: list[Supervisor] = []
    deadline = time.monotonic() + PATIENCE

    def tick():
        if until(screen.text) or time.monotonic() > deadline:
            os.kill(os.getpid(), signal.SIGTERM)

    supervisor.append(
        Supervisor(
            jobs, logs=tmp_path, json_logs=options.pop("json_logs", False), cwd=tmp_path,
            console=Console(cast(TextIO, screen)), on_tick=tick, **options,  # type: ignore[arg-type]
        )
    )  # fmt: skip
    supervisor[0].ready = True
    assert supervisor[0].run() == 0
    assert time.monotonic() < deadline, screen.text
    return screen.text


@pytest.mark.once
def test_a_child_that_dies_again_and_again_is_started_with_growing_pauses(tmp_path):
    job = children.Job("The thing", "thing", [sys.executable, "-c", "print('it broke'); raise SystemExit(3)"])
    said = run_jobs(tmp_path, job, until=lambda text: text.count("starts again") >= 3)
    pauses = [int(number) for number in re.findall(r"starts again in (\d+) s", said)]
    assert pauses[:3] == [1, 2, 4]
    assert "The thing: ended with status 3" in said and "Its last words: it broke" in said
    assert (tmp_path / "thing.log").read_text().splitlines()[:2] == ["it broke", "it broke"]


@pytest.mark.once
def test_a_child_that_will_not_stop_is_killed_with_its_own_children(tmp_path, monkeypatch):
    monkeypatch.setattr("ingestion.supervisor.GRACE_SECONDS", 1.0)
    stubborn = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "open('pids', 'w').write(str(p.pid)); time.sleep(600)"
    )
    job = children.Job("Stubborn", "stubborn", [sys.executable, "-c", stubborn])
    run_jobs(tmp_path, job, until=lambda text: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    grandchild = int((tmp_path / "pids").read_text())

    def gone():
        try:
            return Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    waited(gone, seconds=10)


@pytest.mark.once
def test_errands_run_one_after_the_other_and_can_ask_to_be_tried_again(tmp_path):
    ended = []

    def done(job, status, words):
        ended.append((job.name, status, words))
        return 0.1 if len(ended) == 1 else None

    errands = [
        [
            children.Job("first", "errand", [sys.executable, "-c", "print('one'); raise SystemExit(1)"]),
            children.Job("second", "errand", [sys.executable, "-c", "print('two')"]),
        ]
    ]
    run_jobs(tmp_path, until=lambda text: len(ended) == 3, errands=errands, on_done=done)
    assert ended == [("first", 1, ["one"]), ("first", 1, ["one"]), ("second", 0, ["two"])]


@pytest.mark.once
def test_json_logs_hold_json_only(tmp_path):
    text = "print('plain words'); print('{\"message\": \"structured\"}'); import time; time.sleep(600)"
    job = children.Job("Talker", "talker", [sys.executable, "-c", text])
    log = tmp_path / "talker.log"
    run_jobs(tmp_path, job, json_logs=True, until=lambda _: log.exists() and log.read_text().count("\n") >= 2)
    assert [json.loads(line)["message"] for line in log.read_text().splitlines()] == ["plain words", "structured"]


@pytest.mark.once
def test_logs_are_rotated_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "LOG_BYTES", 2_000)
    log = children.LogFile(tmp_path / "web.log", json_lines=False)
    for number in range(100):
        log.line(f"line {number:03d} " + "x" * 50)
    log.close()
    files = sorted(tmp_path.glob("web.log*"))
    assert 1 < len(files) <= children.LOG_FILES + 1
    kept = "".join(path.read_text() for path in reversed(files))
    assert "line 099" in kept and max(path.stat().st_size for path in files) <= 2_000


@pytest.mark.once
def test_a_guard_that_was_killed_is_replaced_and_still_knows_the_children(tmp_path):
    killed: list[int] = []
    job = children.Job("Sleeper", "sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
    screen = Screen()

    def lifeline():
        assert supervisor._lifeline is not None
        return supervisor._lifeline

    def tick():
        if not killed:
            guard = lifeline()
            killed.append(guard.pid)
            guard.kill()
        elif "it starts again" in screen.text:
            os.kill(os.getpid(), signal.SIGTERM)

    supervisor = Supervisor(
        [job], logs=tmp_path, json_logs=False, cwd=tmp_path, console=Console(cast(TextIO, screen)), on_tick=tick
    )
    assert supervisor.run() == 0
    assert lifeline().pid != killed[0]
