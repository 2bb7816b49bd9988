"""Twenty switches under load: no search fails, and every answer is wholly of one space.

A real server with two processes; the first switch meets processes that have not loaded the new space.
"""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest

from search.views.grid import score_text
from tests.sandbox import ROOT, Sandbox

pytestmark = pytest.mark.slow

SWITCHES = 20
EVERY = 0.05
QUERY = "red"
PICTURES = 40


class Visitor:
    """A signed-in person over plain HTTP."""

    def __init__(self, port: int, cookies: str = "") -> None:
        self.port, self.cookies = port, cookies

    def ask(self, method: str, path: str, body: dict[str, str] | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Cookie": self.cookies, "Content-Type": "application/x-www-form-urlencoded"}
            headers["X-CSRFToken"] = (re.findall(r"csrftoken=([^;]+)", self.cookies) or [""])[-1]
            connection.request(method, path, urlencode(body or {}), headers)
            response = connection.getresponse()
            said = response.read().decode()
            set_cookies = [value.split(";")[0] for name, value in response.getheaders() if name == "Set-Cookie"]
            if set_cookies and path == "/signin":
                self.cookies = "; ".join([*self.cookies.split("; "), *set_cookies]).strip("; ")
            return response.status, said
        finally:
            connection.close()

    def sign_in(self, name: str, password: str) -> None:
        self.ask("GET", "/signin")
        status, _ = self.ask("POST", "/signin", {"username": name, "password": password})
        assert status == 302


class Server:
    def __init__(self, home: Sandbox) -> None:
        home.manage("collectstatic", "--noinput", "--verbosity", "0")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = home.data / "gunicorn.log"
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "--workers", "2", "--threads", "4", "--bind",
                f"127.0.0.1:{self.port}", "--log-level", "warning", "imagesearch.wsgi:application",
            ],
            env={**home.env, "OMP_NUM_THREADS": "1"}, cwd=ROOT, stdout=self.log.open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        end = time.monotonic() + 120
        while True:
            try:
                Visitor(self.port).ask("GET", "/signin")
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
                time.sleep(0.2)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def home(sandbox, shared: Path, dev_clip: str, tmp_path: Path) -> Iterator[Sandbox]:
    root = tmp_path / "photos"
    root.mkdir()
    for photo in sorted((shared / "photos" / "captioned" / "flickr").rglob("*.jpg"))[:PICTURES]:
        shutil.copy(photo, root)
    one = sandbox(IMAGESEARCH_ENCODER="look", IMAGESEARCH_THREADS="2")
    one.manage("index", root)
    one.manage("spaces", "build", dev_clip, "--from", "thumbnails")
    one.manage(
        "shell", "-v", "0", "-c",
        "from django.contrib.auth import get_user_model as users\n"
        "users().objects.create_superuser('anna', password='pass-word-1')",
    )  # fmt: skip
    yield one


def answer(page: str) -> tuple[str, tuple[str, ...]]:
    """(label of the space, each tile as it stands in the page: picture, place and score)."""
    label = re.search(r"by ([^<]+)<span class=\"timing\"", page)
    assert label, page[:2000]
    return label[1].strip(), tuple(re.findall(r'<li class="tile .*?</li>', page, re.DOTALL))


def ids(tiles: tuple[str, ...]) -> list[int]:
    return [int(re.search(r"/image/(\d+)/", tile)[1]) for tile in tiles]  # type: ignore[index]


def test_no_search_fails_or_mixes_while_spaces_are_switched(home: Sandbox) -> None:
    names = [space["name"] for space in home.report("spaces")["spaces"]]
    assert names[0] == "look" and len(names) == 2
    compared = home.report("spaces", "compare", QUERY, "--with", names[1], "--limit", str(PICTURES))
    order = {side["space"]: [hit["id"] for hit in side["hits"]] for side in compared["spaces"]}
    matches = {side["space"]: [score_text(hit["match"]) for hit in side["hits"]] for side in compared["spaces"]}
    assert order["look"] != order[names[1]], "both spaces give one order: a mixture could not be seen"
    labels = {space["label"]: space["name"] for space in home.report("spaces")["spaces"]}
    server = Server(home)
    try:
        visitor = Visitor(server.port)
        visitor.sign_in("anna", "pass-word-1")
        assert answer(visitor.ask("GET", f"/?q={QUERY}&min=0")[1])[0] == "look"
        said, late = under_load(server.port, visitor.cookies, names)
        statuses = {status for status, _, _ in said}
        assert statuses == {200}, [(status, page[:300]) for status, page, _ in said if status != 200][:3]
        found: dict[str, set[tuple[str, ...]]] = {}
        for _, page, _ in said:
            label, tiles = answer(page)
            found.setdefault(labels[label], set()).add(tiles)
        assert set(found) == set(names), "only one of the spaces ever answered"
        for name, answers in found.items():
            assert len(answers) == 1, f"{len(answers)} different answers of {name}"
            tiles = next(iter(answers))
            assert ids(tiles) == order[name], "the order is not that of the space's own vectors"
            shown = [re.search(r"</span>([^<]*%)</span>", tile) for tile in tiles]
            assert [one and unescape(one[1]) for one in shown] == matches[name], "the scores are not that space's"
        assert late < 10, "a process did not go over"
        slowest = max(seconds for _, _, seconds in said)
        print(f"{len(said)} searches, {SWITCHES} switches, slowest {slowest:.2f} s, last process over in {late:.1f} s")
    finally:
        server.close()


def under_load(port: int, cookies: str, names: list[str]) -> tuple[list[tuple[int, str, float]], float]:
    """Every answer as (status, page, seconds), and the seconds from the last switch to the last old answer."""
    said: list[tuple[int, str, float]] = []
    times: list[tuple[float, str]] = []
    done = threading.Event()

    def search() -> None:
        began = time.monotonic()
        status, page = Visitor(port, cookies).ask("GET", f"/?q={QUERY}&min=0")
        said.append((status, page, time.monotonic() - began))
        times.append((began, page))

    with ThreadPoolExecutor(8) as pool:

        def keep_asking() -> None:
            while not done.is_set():
                if pool._work_queue.qsize() < 8:  # the server is slower than we ask: do not pile up
                    pool.submit(search)
                time.sleep(EVERY)

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            staff = Visitor(port, cookies)
            last = 0.0
            for number in range(SWITCHES):
                wanted = names[(number + 1) % 2]
                status, page = staff.ask("POST", f"/spaces/{wanted}/activate/", {"anyway": "1"})
                last = time.monotonic()
                assert status == 302, page[:500]
                if number == 0:  # until both processes have loaded the new one, the old one answers
                    end = time.monotonic() + 60
                    while sum("from thumbnails" in page for _, page, _ in said[-10:]) < 10:
                        assert time.monotonic() < end, "the new space never served"
                        time.sleep(0.1)
                time.sleep(0.4)
            time.sleep(2)
        finally:
            done.set()
            asking.join()
    final = names[SWITCHES % 2]
    olds = [began for began, page in times if began > last and (answer(page)[0] == "look") != (final == "look")]
    return said, max(olds, default=last) - last
