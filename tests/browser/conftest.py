"""A real browser (Debian's Chromium through Playwright) against a real installation served by gunicorn."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.sandbox import ROOT, Sandbox

CHROMIUM = os.environ.get("IMAGESEARCH_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-quic",
]  # fmt: skip
PASSWORD = "a-long-word"
PATIENCE = 120  # seconds; on a busy machine the model takes its time to load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all browser tests; they are skipped, loudly, where there is none."""
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"no Chromium at {CHROMIUM} (apt-get install chromium, or set IMAGESEARCH_CHROMIUM)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    playwright.expect.set_options(timeout=PATIENCE * 500)
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


def expect(what: Any, why: str | None = None) -> Any:
    """Playwright's assertions, which ask again until they hold: `page.click` does not wait for what it brings."""
    from playwright.sync_api import expect as asking_again

    return asking_again(what, why)


def settled(page: Any) -> None:
    """Wait until htmx has wired what it swapped in and put the focus there (some milliseconds after the swap)."""
    expect(page.locator(".htmx-added, .htmx-swapping, .htmx-settling, .htmx-request")).to_have_count(0)


class Watched:
    """A browser context that notes what must never happen: policy violations, script errors, foreign requests."""

    def __init__(self, context: Any, base: str) -> None:
        self.context = context
        self.base = base
        self.wrong: list[str] = []
        context.set_default_timeout(PATIENCE * 500)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.wrong.append(f"script error: {error.error}"))
        context.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if "Content Security Policy" in message.text or "evalDisallowed" in message.text:
            self.wrong.append(message.text)

    def _asked(self, request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme not in {"data", "blob"} and f"{address.scheme}://{address.netloc}" != self.base:
            self.wrong.append(f"request to another host: {request.url}")

    def page(self) -> Any:
        return self.context.new_page()

    def sign_in(self, name: str = "anna") -> Any:
        page = self.page()
        page.goto(f"{self.base}/signin")
        page.fill("#id_username", name)
        page.fill("#id_password", PASSWORD)
        page.click("main button")
        page.wait_for_url(f"{self.base}/")
        return page


class Installation:
    """A sandbox with its pages served, and browser contexts onto it."""

    def __init__(self, sandbox: Sandbox, browser: Any) -> None:
        self.sandbox = sandbox
        self.browser = browser
        self.sandbox.manage("collectstatic", "--noinput", "--verbosity", "0")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.base = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.log = sandbox.data / "gunicorn.log"
        self._server = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "--threads", "4", "--bind", self.base.removeprefix("http://"),
                "--log-level", "warning", "imagesearch.wsgi:application",
            ],
            env={**sandbox.env, "OMP_NUM_THREADS": "1"}, cwd=ROOT, stdout=self.log.open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._watched: list[Watched] = []
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.base}/signin", timeout=5).close()
                return
            except OSError:
                assert self._server.poll() is None, self.log.read_text()
                time.sleep(0.2)
        raise AssertionError(f"gunicorn does not answer:\n{self.log.read_text()}")

    def one_time_link(self) -> str:
        """What `start` prints at its first start."""
        said = self.sandbox.manage(
            "shell", "--verbosity", "0", "-c", "from search import welcome; print(welcome.issue())"
        )
        return self.base + said.stdout.strip().splitlines()[-1]

    def make_owner(self, name: str = "anna") -> None:
        code = (
            "from django.contrib.auth import get_user_model as users\n"
            "from search.welcome import adopt_sources\n"
            f"adopt_sources(users().objects.create_superuser({name!r}, password={PASSWORD!r}))"
        )
        self.sandbox.manage("shell", "--verbosity", "0", "-c", code)

    def open(self, **options: Any) -> Watched:
        """A fresh browser context; `close` fails the test when something went wrong in it."""
        options.setdefault("viewport", {"width": 1280, "height": 800})
        self._watched.append(Watched(self.browser.new_context(**options), self.base))
        return self._watched[-1]

    def close_contexts(self) -> list[str]:
        for one in self._watched:
            one.context.close()  # before its notes are read: what the browser said last still arrives
        wrong = [line for one in self._watched for line in one.wrong]
        self._watched.clear()
        return wrong

    def close(self) -> None:
        self._server.terminate()
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self.sandbox.close()


@pytest.fixture(scope="session")
def captions(shared: Path) -> dict[str, list[str]]:
    """File name -> its five captions, in lower case."""
    found: dict[str, list[str]] = defaultdict(list)
    with (shared / "photos/captioned/flickr/captions.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            found[row["file"]].append(row["caption"].lower())
    return dict(found)


@pytest.fixture(scope="session")
def photos(shared: Path, captions: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 photos with dogs and 60 without."""
    folder = tmp_path_factory.mktemp("photos")
    dogs = [name for name, said in captions.items() if sum("dog" in one for one in said) >= 4][:40]
    others = [name for name, said in captions.items() if not any("dog" in one for one in said)][:60]
    for name in dogs + others:
        found = next((shared / "photos/captioned/flickr").rglob(name))
        shutil.copy(found, folder / name)
    return folder


@pytest.fixture(scope="session")
def library(
    browser: Any, photos: Path, dev_clip: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation whose photos are all read and embedded by the small real model; its owner is anna."""
    sandbox = Sandbox(tmp_path_factory.mktemp("library"), IMAGESEARCH_ENCODER=dev_clip)
    sandbox.manage("index", photos)
    installation = Installation(sandbox, browser)
    installation.make_owner()
    yield installation
    installation.close()


@pytest.fixture
def installed(browser: Any, sandbox: Callable[..., Sandbox]) -> Iterator[Callable[..., Installation]]:
    """`installed(sandbox)` serves an installation of one's own."""
    made: list[Installation] = []

    def make(one: Sandbox) -> Installation:
        made.append(Installation(one, browser))
        return made[-1]

    yield make
    wrong = [line for one in made for line in one.close_contexts()]
    for one in made:
        one.close()
    assert not wrong


@pytest.fixture
def opened(library: Installation) -> Iterator[Callable[..., Watched]]:
    """`opened(**options)` opens the common library; nothing wrong may have happened in the browser at the end."""
    yield library.open
    assert not library.close_contexts()
