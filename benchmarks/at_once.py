"""Writers and readers at once on one installation, each in a process of its own: does an error reach anybody?

    python -m benchmarks.at_once --data FOLDER [--size 1000000] [--seconds 20] [--bulk 50000]

The folder holds a library of `benchmarks.library`, or is made into one; as in `benchmarks.commands_at_size` nothing in
it is changed with SQLite. At once: a worker claims work and records vectors of the space look, a crawl goes over a
folder that grows, one person tags `--bulk` images and takes it back, one searches with filters, one looks at pages.
Prints JSON: of each what was done, the longest that one thing took (and which page that was), and every error; exit
status 1 when there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.commands_at_size import ROOT, copied, environment

TAG = "at once"
WORK = 20_000
"""Images that wait for the worker at the beginning."""
PAGES = ("/browse/", "/progress/", "/history/", "/problems/", "/albums/", "/review/", "/spaces/", "/health/")
QUERIES = (
    "like:{} rating:>=3",
    "like:{} tag:beach",
    "like:{} format:png",
    "tag:dog rating:>=1",
    "like:{} is:favourite",
)


def measure(data: Path, seconds: float, bulk: int) -> dict[str, Any]:
    """{name: {done, longest_ms, errors}} of everybody."""
    with copied(data) as (folder, scratch):
        env = {**os.environ, **environment(folder)}
        given = {"scratch": str(scratch), "seconds": seconds, "bulk": bulk}
        _inside(["prepare"], given, env)
        return _inside(sorted(PARTS), given, env)


def _inside(names: list[str], given: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.at_once", "--inside"]
    some = {
        name: subprocess.Popen([*command, json.dumps({**given, "name": name})], env=env, cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in names
    }  # fmt: skip
    found = {}
    for name, process in some.items():
        out, err = process.communicate()
        found[name] = json.loads(out) if process.returncode == 0 else {"errors": [err[-3000:]]}
    return found


def _prepare(given: dict[str, Any]) -> Callable[[], object]:
    """Work for the worker, and what this process says of itself."""
    from ingestion import ledger
    from search.models import Image
    from search.spaces import look_space

    ledger.queue(Image.objects.order_by("-pk").values_list("pk", flat=True)[:WORK], [look_space().stage])
    given["seconds"] = 0
    return lambda: None


def _worker(given: dict[str, Any]) -> Callable[[], object]:
    import numpy as np

    from ingestion import ledger
    from search import embeddings
    from search.spaces import look_space

    space, me, chance = look_space(), f"worker:{os.getpid()}", np.random.default_rng(1)

    def finish(kept: Any) -> None:
        ledger.finish(me, space.stage, kept)

    def batch() -> None:
        ids = np.array([one.image_id for one in ledger.claim(me, [space.stage], 256).items], dtype=np.int64)
        rows = chance.standard_normal((len(ids), space.dim)).astype(np.float32)
        embeddings.record(
            space, ids, rows / np.linalg.norm(rows, axis=1, keepdims=True),
            still_mine=lambda some: ledger.still_mine(me, space.stage, some),
            within=finish,
        )  # fmt: skip
        ledger.queue(ids, [space.stage])  # so that there is always something to do

    return batch


def _crawl(given: dict[str, Any]) -> Callable[[], object]:
    from ingestion.register import crawl, source_for

    root = Path(given["scratch"]) / "growing"
    root.mkdir()
    source, _ = source_for(os.fsencode(root))
    turn = iter(range(1_000_000))

    def grow() -> None:
        number = next(turn)
        folder = root / f"{number // 5:04d}"
        folder.mkdir(exist_ok=True)
        for file in range(100):
            (folder / f"{number}-{file}.jpg").write_bytes(b"\xff\xd8\xff\xe0 %d %d" % (number, file))
        crawl(source)

    return grow


def _curation(given: dict[str, Any]) -> Callable[[], object]:
    """As the pages do it: in portions when there are many."""
    import numpy as np
    from django.contrib.auth import get_user_model

    from search import errands
    from search.models import Action, Errand, Image
    from search.selection import Selected

    owner = get_user_model().objects.get(username="owner")
    ids = np.array(Image.objects.order_by("pk").values_list("pk", flat=True)[: given["bulk"]])
    selected = Selected(ids, np.full(len(ids), np.nan, dtype=np.float32))
    done: list[Action] = []

    def tag_or_undo() -> None:
        undoing = bool(done)
        begun = errands.undo(done.pop(), owner) if undoing else errands.do("tag", selected, {"names": TAG}, owner)
        while isinstance(begun, Errand) and begun.state == Errand.State.RUNNING:
            time.sleep(0.05)
            begun.refresh_from_db()
        if isinstance(begun, Errand):
            assert begun.state == Errand.State.DONE, begun.message
            begun = begun.action
        assert isinstance(begun, Action)
        if not undoing:
            done.append(begun)

    return tag_or_undo


def _searches(given: dict[str, Any]) -> Callable[[], object]:
    looked = iter(range(1_000_000))
    return _asking(lambda: ("/", {"q": QUERIES[(n := next(looked)) % len(QUERIES)].format(1 + n % 1_000)}))


def _pages(given: dict[str, Any]) -> Callable[[], object]:
    looked = iter(range(1_000_000))
    return _asking(lambda: (PAGES[next(looked) % len(PAGES)], {}))


def _asking(choose: Callable[[], tuple[str, dict[str, str]]]) -> Callable[[], object]:
    """Asks for a page as the signed-in owner; whatever is not a page raises."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client

    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "testserver"]
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    client = Client(raise_request_exception=True)
    client.force_login(get_user_model().objects.get(username="owner"))

    def ask() -> str:
        path, query = choose()
        answer = client.get(path, query, follow=True)
        if answer.status_code != 200 and path != "/health/":
            raise RuntimeError(f"{path} {query}: {answer.status_code}")
        if b"database is locked" in answer.content:
            raise RuntimeError(f"{path} {query}: says that the database is locked")
        return f"{path} {query.get('q', '')}".strip()

    return ask


PARTS = {"worker": _worker, "crawl": _crawl, "curation": _curation, "searches": _searches, "pages": _pages}


def _part(given: dict[str, Any]) -> dict[str, Any]:
    """One of them again and again until the time is over."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
    import django

    django.setup()
    once = (PARTS | {"prepare": _prepare})[given["name"]](given)
    errors: list[str] = []
    done, longest, what, end = 0, 0.0, None, time.monotonic() + given["seconds"]
    while time.monotonic() < end:
        began, which = time.monotonic(), None
        try:
            which = once()
        except Exception:  # noqa: BLE001 - whatever it is, somebody would have seen it
            errors.append(traceback.format_exc()[-2000:])
        done += 1
        if (took := time.monotonic() - began) > longest:
            longest, what = took, which
    return {"done": done, "longest_ms": round(1_000 * longest), "longest": what, "errors": errors[:5]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="A library's data folder, or where one is to be made; kept.")
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--bulk", type=int, default=50_000, help="Images that are tagged at once.")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(_part(json.loads(options.inside))))
        return 0
    if options.data is None:
        parser.error("--data names the library's folder")
    make = [sys.executable, "-m", "benchmarks.library", "--data", str(options.data), "--size", str(options.size)]
    subprocess.run([*make, "--no-index"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    found = measure(options.data, options.seconds, options.bulk)
    print(json.dumps(found))
    return 1 if any(one["errors"] for one in found.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
