"""A crawl that is killed at its named points: the next one finishes the job, and nothing is done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.photos import put

pytestmark = pytest.mark.slow

CODE = """
import json
from search.models import Image
images = Image.objects.order_by("pk").values_list("pk", "path", "state")
print(json.dumps([[i, path.decode(), state] for i, path, state in images]))
"""


def rows(box: Any) -> list[list[Any]]:
    done = box.manage("shell", "--verbosity", "0", "-c", CODE)
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def kill_at(box: Any, point: str, *args: Any) -> None:
    done = box.manage("crawl", *args, "--json", check=False, IMAGESEARCH_FAULT=point)
    assert done.returncode == -signal.SIGKILL, (point, done.stdout, done.stderr)


@pytest.mark.parametrize("count", [1, 3])
def test_killed_while_registering(sandbox: Any, tmp_path: Path, count: int) -> None:
    root = tmp_path / "photos"
    for number in range(1_100):
        put(root / str(number % 7) / f"{number}.jpg", b"\xff\xd8\xff" + b"%d" % number)
    box = sandbox()
    kill_at(box, f"before-register-commit:{count}", root)
    before = rows(box)
    assert len(before) == 500 * (count - 1)
    report = box.report("crawl", root)
    assert (report["registered"], report["unchanged"]) == (1_100 - len(before), len(before))
    after = rows(box)
    assert after[: len(before)] == before and len({path for _, path, _ in after}) == 1_100
    assert box.report("crawl", root)["unchanged"] == 1_100


def test_killed_while_moving_changing_and_marking_missing(sandbox: Any, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number in range(30):
        put(root / "in" / f"{number}.jpg", number)
    box = sandbox()
    box.report("crawl", root)
    ids = {path: i for i, path, _ in rows(box)}
    os.makedirs(root / "out")
    for number in range(10):
        os.rename(root / "in" / f"{number}.jpg", root / "out" / f"{number}.jpg")
    for number in range(10, 14):
        os.unlink(root / "in" / f"{number}.jpg")
    put(root / "in" / "20.jpg", 99)
    for point in ("before-changed-commit", "before-move-commit", "before-missing-commit"):
        kill_at(box, f"{point}:1", root)
    report = box.report("crawl", root)
    assert (report["missing"], report["errors"], report["guarded"]) == (4, 0, False)
    found = {path: (i, state) for i, path, state in rows(box)}
    assert len(found) == 30
    for number in range(10):
        assert found[f"out/{number}.jpg"] == (ids[f"in/{number}.jpg"], "waiting")
    for number in range(10, 14):
        assert found[f"in/{number}.jpg"] == (ids[f"in/{number}.jpg"], "missing")
    report = box.report("crawl", root)
    assert (report["unchanged"], report["found"]) == (26, 26)
    shutil.rmtree(root)
