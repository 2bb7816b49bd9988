"""Backups between installations: from SQLite to PostgreSQL and back, and killed at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox import Sandbox

FILL = """
from pathlib import Path
from ingestion import ledger
from tests.test_backup import curated
from search import highwater, thumbnails
from search.models import Image
path = Path({path!r})
curated(path)
for pk in Image.objects.values_list("pk", flat=True):
    thumbnails.save(pk, b"thumbnail %d" % pk)
ledger.recount()
highwater.mend()
"""

MORE = """
from ingestion import ledger
from search import curation, highwater
from search.models import EmbeddingSpace, Image
from tests.factories import make_image
from tests.test_backup import embed
first = Image.objects.order_by("pk").first()
ids = [make_image(first.source, f"more/{n}.jpg").pk for n in range(5)]
space = EmbeddingSpace.objects.get(name="toy")
embed(space, ids)
embed(space, list(range(first.pk, first.pk + 3)), salt=1)
curation.rate(ids, 5, None)
ledger.recount()
highwater.mend()
"""

LOOK = """
import hashlib, json
from ingestion import ledger, tables
from ingestion.models import Work
from search import highwater, thumbnails
from search.models import Counter, Embedding, EmbeddingSpace, Image
from search.vectors import get_store
from search.vectors.embedding_file import row_crc
from tests.test_backup import HUMAN
models = tables.kept_models()
said = {}
for label in HUMAN:
    digest = hashlib.sha256()
    for lines in tables.lines_of(models[label], using="default"):
        for line in sorted(json.dumps(json.loads(line), sort_keys=True) for line in lines):
            digest.update(line.encode())
    said[label] = digest.hexdigest()
wrong = []
for space in EmbeddingSpace.objects.all():
    rows = get_store(space).file.rows()
    for pk, crc in Embedding.objects.filter(space=space).values_list("image_id", "crc32"):
        if pk >= len(rows) or row_crc(rows[pk]) != crc:
            wrong.append(pk)
ids = list(Image.objects.order_by("pk").values_list("pk", flat=True))
print(json.dumps({
    "human": said, "images": len(ids), "wrong": wrong, "vectors": Embedding.objects.count(), "ids": highwater.check(),
    "wrong_thumbnails": [pk for pk in ids if thumbnails.read(pk) not in (None, b"thumbnail %d" % pk)],
    "thumbnails": sum(thumbnails.read(pk) is not None for pk in ids),
    "counters": ledger.counts() == ledger.count_anew(),
    "marks": dict(Counter.objects.filter(name__startswith="highwater").values_list("name", "value")),
}))
"""


def look(one: Sandbox) -> dict:  # type: ignore[type-arg]
    said = json.loads(one.manage("shell", "-v", "0", "-c", LOOK).stdout.strip().splitlines()[-1])
    assert said.pop("wrong") == [] and said.pop("wrong_thumbnails") == [] and said.pop("ids") == []
    assert said.pop("counters")
    return said


def fill(one: Sandbox, tmp_path: Path) -> None:
    one.manage("shell", "-v", "0", "-c", FILL.format(path=str(tmp_path)))


@pytest.fixture
def postgres(sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    import psycopg

    if os.environ.get("DATABASE_URL", "").startswith("postgres"):
        pytest.skip("this test uses both databases: it runs with the tests on SQLite")
    server = "postgres://postgres@127.0.0.1:5432/postgres"
    try:
        psycopg.connect(server.rsplit("/", 1)[0] + "/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        pytest.skip("no PostgreSQL answers at 127.0.0.1:5432")
    with monkeypatch.context() as patched:
        patched.setenv("DATABASE_URL", server)
        made = sandbox(IMAGESEARCH_ENCODER="look")
    yield made


@pytest.fixture
def sqlite(sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    with monkeypatch.context() as patched:
        patched.delenv("DATABASE_URL", raising=False)
        made: Sandbox = sandbox(IMAGESEARCH_ENCODER="look")
    return made


def test_a_backup_of_either_database_is_restored_into_the_other(tmp_path, sqlite, postgres):
    fill(sqlite, tmp_path)
    before = look(sqlite)
    sqlite.manage("backup", tmp_path / "lite.tar", "--thumbnails")
    report = postgres.report("restore", tmp_path / "lite.tar")
    assert look(postgres) == before and before["vectors"] == 28
    assert report["dropped"] == {} and report["rows"]["search.image"] == 30
    postgres.manage("backup", tmp_path / "pg.tar", "--thumbnails")
    sqlite.manage("restore", tmp_path / "pg.tar", "--data", tmp_path / "third")
    assert (tmp_path / "third" / "imagesearch.sqlite3").is_file()
    sqlite.env["IMAGESEARCH_DATA"] = str(tmp_path / "third")
    assert look(sqlite) == before


BACKUP_POINTS = [
    "backup-snapshot", "backup-in-the-database", "backup-database-written", "backup-before-vectors",
    "backup-after-vectors", "backup-written", "backup-named",
]  # fmt: skip
BEFORE = [
    "restore-laying-out", "restore-laid-out", "restore-in-the-database", "restore-rows-inserted",
    "restore-before-commit",
]  # fmt: skip
AFTER = [
    "restore-after-commit", "restore-between-spaces", "restore-spaces-placed", "restore-thumbnails-placed",
]  # fmt: skip


@pytest.mark.slow
def test_a_killed_backup_leaves_no_half_file_under_its_name(sandbox, tmp_path):
    one: Sandbox = sandbox(IMAGESEARCH_ENCODER="look")
    fill(one, tmp_path)
    before = look(one)
    folder = tmp_path / "backups"
    folder.mkdir()
    for point in BACKUP_POINTS:
        killed = one.manage("backup", folder / "b.tar", check=False, IMAGESEARCH_FAULT=f"{point}:1")
        assert killed.returncode == -signal.SIGKILL, point
        assert (folder / "b.tar").exists() == (point == "backup-named"), point
        assert look(one) == before
    (folder / "b.tar").unlink()
    one.manage("backup", folder / "b.tar")
    assert [path.name for path in folder.iterdir()] == ["b.tar"], "what the killed ones left is swept up"
    assert one.report("restore", folder / "b.tar", "--dry-run")["whole"]


@pytest.mark.slow
@pytest.mark.parametrize("point", [*BEFORE, *AFTER])
def test_a_killed_restore_is_taken_back_or_finished(sandbox, tmp_path, point):
    one: Sandbox = sandbox(IMAGESEARCH_ENCODER="look")
    fill(one, tmp_path)
    first = look(one)
    one.manage("backup", tmp_path / "b.tar", "--thumbnails")
    one.manage("shell", "-v", "0", "-c", MORE)
    second = look(one)
    assert first["human"] != second["human"]
    killed = one.manage("restore", tmp_path / "b.tar", "--replace", check=False, IMAGESEARCH_FAULT=f"{point}:1")
    assert killed.returncode == -signal.SIGKILL
    found = look(one)
    marks = found.pop("marks")
    if point in BEFORE:
        assert {**found, "marks": marks} == second
    else:
        assert found == {name: value for name, value in first.items() if name != "marks"}
        assert marks == second["marks"], "ids given out meanwhile are not given out again"
    _nothing_left(one)
    one.manage("restore", tmp_path / "b.tar", "--replace")
    assert look(one)["human"] == first["human"]


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_one_state_or_the_other(sandbox, tmp_path):
    one: Sandbox = sandbox(IMAGESEARCH_ENCODER="look")
    fill(one, tmp_path)
    first = look(one)["human"]
    one.manage("backup", tmp_path / "first.tar")
    one.manage("shell", "-v", "0", "-c", MORE)
    second = look(one)["human"]
    one.manage("backup", tmp_path / "second.tar")
    began = time.monotonic()
    one.manage("restore", tmp_path / "first.tar", "--replace")
    whole = time.monotonic() - began
    moments, seen = random.Random(11), set()
    for number in range(12):
        name = "second.tar" if number % 2 else "first.tar"
        process = one.popen("restore", str(tmp_path / name), "--replace")
        time.sleep(moments.uniform(0.3, 1.0) * whole)
        process.kill()
        process.communicate(timeout=60)
        found = look(one)["human"]
        assert found in (first, second)
        seen.add(found == first)
    _nothing_left(one)


def _nothing_left(one: Sandbox) -> None:
    assert not (one.data / "restore.journal").exists()
    assert not list((one.data / "spaces").glob(".restore*")) and not list((one.data / "thumbnails").glob(".restore*"))
