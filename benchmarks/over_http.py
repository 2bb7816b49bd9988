"""The program over HTTP at size: searches, filters, lists and people, asked of a real server as browsers ask it.

    python -m benchmarks.over_http --data FOLDER [--size 1000000] [--people 20] [--seconds 60]

The folder holds a library of `benchmarks.library`, or is made into one. The server is gunicorn as `manage.py start`
runs it. Prints JSON; every figure is of this one run: milliseconds as the client sees them, page and all, over a
connection that is kept, and beside them the server's processor time for each, to compare by on a busy machine.
"""

from __future__ import annotations

import argparse
import html
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from benchmarks import library

ROOT = Path(__file__).resolve().parent.parent
PAGE = 60
WARM_UP, ASKED = 12, 120
_HIT = re.compile(r'data-image="(\d+)"')
_COSINE = re.compile(r"cosine (-?[0-9.]+)")


class Server:
    """gunicorn with the library's data folder, from its start until `close`."""

    def __init__(self, data: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = data / "bench-web.log"
        env = {**os.environ, **library.environment(data)}
        collect = [sys.executable, "manage.py", "collectstatic", "--noinput", "--verbosity", "0"]
        subprocess.run(collect, cwd=ROOT, env=env, check=True)
        began = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "imagesearch.wsgi:application", "--bind", f"127.0.0.1:{self.port}",
                 "--workers", "1", "--worker-class", "gthread", "--threads", "12", "--timeout", "120",
                 "--keep-alive", "75", "--no-control-socket", "--log-level", "warning"],
                cwd=ROOT, stdout=log, stderr=log, env=env,
            )  # fmt: skip
        try:
            self.ready_seconds = self._wait(began)
        except BaseException:
            self.close()
            raise

    def _wait(self, began: float) -> float:
        while time.perf_counter() - began < 600:
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                client.request("GET", "/health/ready")
                if client.getresponse().status == 200:
                    return time.perf_counter() - began
            except OSError:
                if self.process.poll() is not None:
                    break
            finally:
                client.close()
            time.sleep(0.05)
        raise RuntimeError(f"The server does not get ready: see {self.log}")

    def worker_pid(self) -> int:
        """The process that answers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def anonymous_mb(self) -> float:
        """Memory that is this process's own (RssAnon), in MB."""
        status = Path(f"/proc/{self.worker_pid()}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else float("nan")

    def processor_seconds(self) -> float:
        """What the process that answers has used of the processor, in all its threads."""
        parts = Path(f"/proc/{self.worker_pid()}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


class Browser:
    """One signed-in person with one connection that is kept open."""

    def __init__(self, server: Server, cookie: str) -> None:
        self._server = server
        self._client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self._headers = {"Cookie": cookie, "Host": "localhost", "Accept": "text/html"}

    def get(self, path: str, **query: Any) -> tuple[float, str]:
        """(seconds, the page). Raises RuntimeError for anything but 200."""
        address = f"{path}?{urlencode(query, doseq=True)}" if query else path
        began = time.perf_counter()
        self._client.request("GET", address, headers=self._headers)
        answer = self._client.getresponse()
        body = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{address}: {answer.status}")
        return took, body.decode()

    def timed(self, asks: Sequence[Callable[[], tuple[float, str]]]) -> dict[str, float]:
        """Percentiles of what some pages take, and the processor time that the server spends on one of them."""
        before = self._server.processor_seconds()
        took = [ask()[0] for ask in asks]
        spent = (self._server.processor_seconds() - before) / len(took)
        return {**milliseconds(took), "processor_ms": round(1000 * spent, 1)}


def cookie_of(name: str) -> str:
    """A session of this person, as a browser would keep it."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client()
    client.force_login(get_user_model().objects.get(username=name))
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """{p50, p95, most} of some durations."""
    return {
        "p50_ms": round(1000 * float(np.percentile(seconds, 50)), 1),
        "p95_ms": round(1000 * float(np.percentile(seconds, 95)), 1),
        "most_ms": round(1000 * max(seconds), 1),
    }


def searches(browser: Browser) -> dict[str, Any]:
    """Words that were not asked before, the same again, and what the text encoder alone takes for such."""
    from search.encoders import get_encoder

    asked = library.phrases(WARM_UP + ASKED)
    for text in asked[:WARM_UP]:
        browser.get("/", q=text, min=0)
    asks = [partial(browser.get, "/", q=text, min=0) for text in asked[WARM_UP:]]
    fresh, again = browser.timed(asks), browser.timed(asks)
    assert len(set(_HIT.findall(asks[0]()[1]))) >= PAGE, "a page of results"
    encoder = get_encoder(library.ENCODER)
    alone = []
    for text in library.phrases(WARM_UP + 60, seed=6):
        began = time.perf_counter()
        encoder.encode_texts([text])
        alone.append(time.perf_counter() - began)
    return {
        "not cached": fresh,
        "cached": again,
        "text encoder alone": milliseconds(alone[WARM_UP:]),
    }


def filters_of_every_share(size: int) -> dict[str, list[list[str]]]:
    """{share: filters that pass about so much}, each a list of `name:value` as typed."""
    from django.db.models import Count

    from search.models import Tag

    counted = list(Tag.objects.annotate(n=Count("image_links")).order_by("-n").values_list("name", "n"))

    def near(share: float, many: int) -> list[list[str]]:
        by_distance = sorted(counted, key=lambda one: abs(np.log(max(one[1], 0.5) / (share * size))))
        return [[f'tag:"{name}"'] for name, _ in by_distance[:many]]

    common = [name for name, n in counted if n < 0.09 * size][:8]
    return {
        "90 %": [["format:jpeg", f'-tag:"{name}"'] for name in common[:4]]
        + [[f'-tag:"{name}"'] for name in common[4:]],
        "10 %": [['source:"Disk 3"'], ["format:heif"], ["rating:>=1"], ['camera:"Camera 3"'], *near(0.08, 2)],
        "1 %": near(0.01, 6),
        "0.1 %": near(0.001, 6),
        "through the database": [["folder:2019"], ["name:IMG_12"], ["size:>=5MB"], ["date:2019-05"], ["before:2012"]],
        "0.001 %": [[f"id:{n}..{n + max(1, size // 100_000)}"] for n in (500, 7_000, 11_000, 20_000)],
    }


def filtered(browser: Browser, size: int) -> dict[str, Any]:
    """Words not asked before under filters: the first time a filter is used, and from then on."""
    from search import filters as registry
    from search import query as queries

    report: dict[str, Any] = {}
    texts = iter(library.phrases(2_000, seed=8))
    for share, several in filters_of_every_share(size).items():
        first, later, passing = [], [], []
        for terms in several:
            text = " ".join(terms)
            passing.append(registry.filtered(queries.parse(text, {}).filters, None).count() / size)
            first.append(browser.get("/", q=f"{next(texts)} {text}", min=0)[0])
            later += [partial(browser.get, "/", q=f"{next(texts)} {text}", min=0) for _ in range(10)]
        report[share] = {
            "really passing %": round(100 * float(np.mean(passing)), 4),
            "first use most_ms": round(1000 * max(first), 1),
            "seen": browser.timed(later),
        }
    return report


def far_filter(browser: Browser, size: int) -> dict[str, Any]:
    """A tag on the half of the library that is furthest from one picture, and pictures like that one asked for."""
    from benchmarks import bulk
    from search.bitmaps import get_library
    from search.models import ImageTag, Tag
    from search.spaces import active_space
    from search.vectors import get_store

    space = active_space()
    store = get_store(space)
    like = int(np.flatnonzero(get_library().visible(None))[0])
    tag, made = Tag.objects.get_or_create(name="elsewhere", defaults={"key": "elsewhere"})
    if made:
        query = store.get(np.array([like]))[0]
        scores = store.file.rows()[: size + 1] @ query
        far = np.flatnonzero((scores < np.median(scores[1:])) & get_library().embedded(space.pk)[: size + 1])
        with bulk.hurried():
            bulk.put(
                ImageTag,
                {"image": far.tolist(), "tag": tag.pk, "origin": "person", "created_at": tag.created_at},
            )
    ask = partial(browser.get, "/", like=like, tag="elsewhere", min=0)
    return {"first use most_ms": round(1000 * ask()[0], 1), "seen": browser.timed([ask] * 20)}


def lists(browser: Browser, size: int) -> dict[str, Any]:
    """Browsing with three filters, a deep page, the administration's list of images."""
    from search.models import Album, Image, Tag
    from search.views.browse import written

    album, tag = Album.objects.order_by("pk")[2], Tag.objects.order_by("pk")[2]
    deep = Image.objects.listed().newest_first()[int(size * 0.7)]
    page = max(1, min(150, Image.objects.filter(rating=5).count() // 50))
    cases: dict[str, Callable[[], tuple[float, str]]] = {
        "browse": lambda: browser.get("/browse/"),
        "browse, three filters": lambda: browser.get("/browse/", format="JPEG", rating=">=4", tag="dog"),
        "browse, a deep page": lambda: browser.get("/browse/", older=written(deep)),
        "browse, a deep page with three filters": lambda: browser.get(
            "/browse/", format="JPEG", rating=">=4", tag="dog", older=written(deep)
        ),
        "filter panel": lambda: browser.get("/filters/"),
        "image": lambda: browser.get(f"/image/{deep.pk}/"),
        "tags": lambda: browser.get("/tags/"),
        "progress": lambda: browser.get("/progress/"),
        "problems": lambda: browser.get("/problems/"),
        "review": lambda: browser.get("/review/"),
        "duplicates": lambda: browser.get("/copies/"),
        "albums": lambda: browser.get("/albums/"),
        "album": lambda: browser.get(f"/albums/{album.pk}/"),
        "image, among the oldest": lambda: browser.get("/image/500/"),
        "tag": lambda: browser.get(f"/tags/{tag.pk}/"),
        "tag suggestions": lambda: browser.get("/tags/suggest/", tag="be"),
        "review queue": lambda: browser.get("/review/unrated/"),
        "selection": lambda: browser.get("/selection/"),
        "slides": lambda: browser.get("/slides/", **{"from": deep.pk, "in": "browse"}),
        "files left alone": lambda: browser.get("/problems/", kind="kind 3", why="unsupported"),
        "identify": lambda: browser.get("/identify/"),
        "history": lambda: browser.get("/history/"),
        "spaces": lambda: browser.get("/spaces/"),
        "admin: images": lambda: browser.get("/admin/search/image/"),
        "admin: images, deep and filtered": lambda: browser.get("/admin/search/image/", p=page, rating=5),
        "admin: front page": lambda: browser.get("/admin/"),
    }
    report: dict[str, Any] = {}
    for name, ask in cases.items():
        try:
            ask()
            report[name] = browser.timed([ask] * 12)
        except RuntimeError as error:
            report[name] = {"failed": str(error)}
    return report


@contextmanager
def a_worker_embedding(data: Path, pictures: int) -> Iterator[None]:
    """New pictures on a disk of their own, and a niced worker that reads and embeds them meanwhile. The library keeps
    their rows: one that is measured again is larger by them, as the report's first line says."""
    from benchmarks.pipeline import make_photos
    from ingestion.register import crawl, source_for

    with tempfile.TemporaryDirectory(prefix="imagesearch-new-") as scratch:
        source, _ = source_for(os.fsencode(make_photos(Path(scratch) / "new", pictures, seed=int(time.time()))))
        crawl(source)
        worker = subprocess.Popen(
            ["nice", "-n", "19", sys.executable, "manage.py", "process", "--forever"], cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **library.environment(data)},
        )  # fmt: skip
        try:
            yield
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)


def crowd(server: Server, data: Path, people: int, seconds: float, pictures: int = 900) -> dict[str, Any]:
    """`people` who search, look at the second page and think for two seconds, while a worker embeds new pictures."""
    from ingestion.models import StageCount
    from search.encoders import get_encoder
    from search.spaces import active_space
    from search.vectors import get_store

    cookie = cookie_of("owner")
    took: list[float] = []
    pages: list[tuple[str, str]] = []
    errors: list[str] = []

    def person(number: int, until: float) -> None:
        browser, texts = Browser(server, cookie), library.phrases(200, seed=100 + number)
        chance = random.Random(number)
        time.sleep(chance.random() * 2)
        while time.monotonic() < until:
            text = texts.pop()
            filter = chance.choice(["", "", "format:jpeg", "tag:dog", "rating:>=4", 'source:"Disk 3"'])
            try:
                seconds, page = browser.get("/", q=f"{text} {filter}".strip(), min=0)
                took.append(seconds)
                pages.append((text, page))
            except (RuntimeError, OSError, http.client.HTTPException) as error:
                errors.append(str(error))
            time.sleep(2)

    def embedded() -> int:
        return int(StageCount.objects.get(stage=active_space().stage).done)

    with a_worker_embedding(data, pictures):
        before = embedded()
        waited = time.monotonic()
        while embedded() == before and time.monotonic() - waited < 120:
            time.sleep(0.5)
        before, began = embedded(), time.monotonic()
        threads = [threading.Thread(target=person, args=(n, began + seconds)) for n in range(people)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        lasted, done = time.monotonic() - began, embedded() - before
    encoder, store = get_encoder(library.ENCODER), get_store(active_space())
    hits = wrong = 0
    for text, page in pages:
        ids = [int(one) for one in dict.fromkeys(_HIT.findall(page))]
        said = [float(one) for one in _COSINE.findall(html.unescape(page))]
        true = store.get(np.array(ids)) @ encoder.encode_texts([text])[0]
        hits += len(said)
        wrong += abs(len(said) - len(ids)) + int((np.abs(true[: len(said)] - said[: len(true)]) > 0.00151).sum())
    return {
        "searches": len(took), "errors": len(errors), "first error": errors[0] if errors else "",
        **milliseconds(took), "embedded meanwhile a second": round(done / lasted, 2), "hits": hits, "hits wrong": wrong,
    }  # fmt: skip


def while_loading(browser: Browser, seconds: float = 5) -> dict[str, float]:
    """Searches of the first seconds, while the server still loads what pages count and what images are called."""
    took, until = [], time.monotonic() + seconds
    for text in library.phrases(1_000, seed=10):
        took.append(browser.get("/", q=text, min=0)[0])
        if time.monotonic() > until:
            break
    return milliseconds(took)


def rest(server: Server, patience: float = 300) -> float | None:
    """Wait until the server has nothing left to load: two seconds of hardly any processor time. Returns the seconds
    before these, or None when it goes on for longer than `patience`."""
    began, quiet = time.monotonic(), 0
    while quiet < 2 and time.monotonic() - began < patience:
        before = server.processor_seconds()
        time.sleep(1)
        quiet = quiet + 1 if server.processor_seconds() - before < 0.05 else 0
    return round(time.monotonic() - began - quiet, 1) if quiet == 2 else None


def measure(data: Path, size: int, people: int, seconds: float) -> dict[str, Any]:
    """The whole report."""
    from search.models import Image

    size = Image.objects.count()
    report: dict[str, Any] = {"images": size}
    before = Server(data)  # files into the page cache
    rest(before)
    before.close()
    server = Server(data)
    try:
        browser = Browser(server, cookie_of("owner"))
        report["start to ready s"] = round(server.ready_seconds, 2)
        report["first search ms"] = round(1000 * browser.get("/", q="a dog on the beach", min=0)[0], 1)
        report["search in the first seconds"] = while_loading(browser)
        report["all loaded after another s"] = rest(server)
        _say(report)
        for name, part in {
            "search": lambda: searches(browser), "filters": lambda: filtered(browser, size),
            "filter far from the query": lambda: far_filter(browser, size), "lists": lambda: lists(browser, size),
        }.items():  # fmt: skip
            report[name] = part()
            _say({name: report[name]})
        report["memory"] = memory(browser, server)
        _say(report["memory"])
        report["people"] = crowd(server, data, people, seconds)
    finally:
        server.close()
    return report


def memory(browser: Browser, server: Server, count: int = 1_000) -> dict[str, float]:
    """RssAnon of the process that answers, after a hundred searches and after a thousand."""
    found = {}
    for n, text in enumerate(library.phrases(count, seed=9), 1):
        browser.get("/", q=text, min=0)
        if n in (100, count // 2, count):
            found[f"RssAnon MB after {n:,} searches"] = round(server.anonymous_mb(), 1)
    return found


def _say(found: Any) -> None:
    print(json.dumps(found), file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="A library that is kept; without it one is made in a scratch folder.")
    parser.add_argument("--size", type=int, default=1_000_000, help="Images of a library that is made.")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with library.settings_of(options.data) as data:
        library.make(options.size)
        print(json.dumps(measure(data, options.size, options.people, options.seconds), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
