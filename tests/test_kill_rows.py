"""SIGKILL at every named point of the embedding file's writing, and at random moments: never a wrong row believed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.sandbox import ROOT, Sandbox

pytestmark = pytest.mark.slow

POINTS = [
    "file-created", "before-growth", "grown-before-header", "grown", "rows-partly-written", "rows-written",
    "rows-flushed", "old-embedding-deleted", "before-embedding-commit", "after-embedding-commit",
    "embedding-forgotten",
]  # fmt: skip

OF_THE_DATABASE = {"old-embedding-deleted", "before-embedding-commit", "after-embedding-commit"}
MAKE_ROWS = """
import os
from datetime import UTC, datetime
from search.models import EmbeddingSpace, Image, Source, path_digest
source = Source.objects.create(name="rows", root=b"/nowhere")
EmbeddingSpace.objects.create(name="rows", encoder="look", key="rows", label="Rows", dim=64, text=False)
Image.objects.bulk_create([
    Image(source=source, path=b"%d.jpg" % i, path_digest=path_digest(b"%d.jpg" % i), directory=path_digest(b""),
          name=f"{i}.jpg", size=1, mtime_ns=1, state="ready", shown_at=datetime.now(UTC))
    for i in range(2500)])
"""

CHECK_ROWS = """
import json
import numpy as np
from search.models import Embedding, EmbeddingSpace
from search.vectors import get_store
from search.vectors.embedding_file import row_crc
from tests.row_writer import vector
space = EmbeddingSpace.objects.get(name="rows")
rows = get_store(space).file.rows()
wrong, believed = [], 0
for image_id, crc in Embedding.objects.filter(space=space).values_list("image_id", "crc32"):
    believed += 1
    rights = [vector(image_id, r) for r in range(4)]
    if row_crc(rows[image_id]) != crc or not any(np.array_equal(rows[image_id], right) for right in rights):
        wrong.append(image_id)
print(json.dumps({"believed": believed, "wrong": wrong}))
"""


@pytest.fixture
def rows(sandbox) -> Sandbox:
    made: Sandbox = sandbox(IMAGESEARCH_ENCODER="look")
    made.manage("shell", "-v", "0", "-c", MAKE_ROWS)
    return made


def writer(rows: Sandbox, first: int, count: int, rounds: int, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.row_writer", str(first), str(count), str(rounds)],
        env={**rows.env, **env}, cwd=ROOT, text=True, stderr=subprocess.PIPE,
    )  # fmt: skip


def checked(rows: Sandbox) -> int:
    """How many rows are believed, after asserting that each is one that was written for its image."""
    import json

    said = json.loads(rows.manage("shell", "-v", "0", "-c", CHECK_ROWS).stdout.strip().splitlines()[-1])
    assert said["wrong"] == []
    return int(said["believed"])


def spaces_verdict(rows: Sandbox) -> dict:  # type: ignore[type-arg]
    report = rows.report("verify", "--sample", "0", check=False)
    return next(space for space in report["spaces"] if space["space"] == "rows")


@pytest.mark.parametrize(
    "point", [pytest.param(one, marks=[] if one in OF_THE_DATABASE else [pytest.mark.once]) for one in POINTS]
)
def test_a_kill_at_a_named_point_is_mended_by_going_on(rows: Sandbox, point: str) -> None:
    for count in (1, 2):
        process = writer(rows, 0, 1500, 2, IMAGESEARCH_FAULT=f"{point}:{count}")
        _, error = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            # Points that are passed once in a file's life.
            assert process.returncode == 0 and count == 2, error
        checked(rows)
        verdict = spaces_verdict(rows)
        assert verdict["ok"], verdict
    done = writer(rows, 0, 1500, 2)
    _, error = done.communicate(timeout=120)
    assert done.returncode == 0, error
    assert checked(rows) == 1500
    verdict = spaces_verdict(rows)
    assert verdict["ok"] and verdict["rows"] == 1500


def test_fifty_kills_at_random_moments_while_several_processes_write(rows: Sandbox) -> None:
    moments = random.Random(7)
    for number in range(25):
        processes = [writer(rows, 0, 1300, 3), writer(rows, 1200, 1300, 3)]
        for process in processes:
            time.sleep(moments.uniform(0.2, 1.2))
            process.kill()
        for process in processes:
            process.communicate(timeout=60)
        if number % 5 == 0:
            checked(rows)
    assert checked(rows) > 0
    for process in [writer(rows, 0, 1300, 1), writer(rows, 1200, 1300, 1)]:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    assert checked(rows) == 2500
    verdict = spaces_verdict(rows)
    assert verdict["ok"] and verdict["rows"] == 2500
    assert not [name for name in os.listdir(rows.data / "spaces" / "rows") if name.endswith(".new")]
