"""SIGKILL while work flows, at every named point and at random moments: nothing lost, nothing done twice.

What must hold after the killed commands were simply run again: every file is ready or unreadable with its reason,
every ready image has its one vector and the vector is its own, `verify` is clean, the counters equal a recount
without one having been made, and no lease and no trace of a dead worker is left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests import patterns
from tests.sandbox import Sandbox

pytestmark = pytest.mark.slow

POINTS = [
    "before-register-commit", "queued-a-range", "before-claim-commit", "after-claim-commit", "picture-in-hand",
    "before-read-commit", "after-read-commit", "before-failure-commit", "old-embedding-deleted", "file-created",
    "grown", "rows-written", "rows-flushed", "before-embedding-commit", "after-embedding-commit",
    "before-changed-commit", "before-move-commit", "before-missing-commit",
]  # fmt: skip
OF_FILES = {"picture-in-hand", "file-created", "grown", "rows-written", "rows-flushed"}
"""Those at which no transaction of the database is open or about to end."""
CHECK = """
import json
from django.db.models import Sum
from ingestion import ledger, presence
from ingestion.models import StageTick, Work
from search import thumbnails
from search.models import Embedding, EmbeddingSpace, Image
said = {k: v for k, v in ledger.counts().items() if any(v)}
real = {k: v for k, v in ledger.count_anew().items() if any(v)}
ready = set(Image.objects.filter(state="ready").values_list("pk", flat=True))
print(json.dumps({
    "drift": said != real, "said": said, "real": real,
    "states": {s: Image.objects.filter(state=s).count() for s in ("waiting", "ready", "unreadable")},
    "lacking": [[s.name, sorted(ready - set(s.embeddings.values_list("image_id", flat=True)))]
                for s in EmbeddingSpace.objects.all()],
    "waiting_work": Work.objects.filter(state="waiting").count(),
    "leases": Work.objects.exclude(lease_owner="").count(),
    "workers": presence.owners(),
    "no_thumbnail": [i for i in ready if not thumbnails.path_of(i).exists()],
    "unread": Image.objects.filter(state="ready", sha256=None).count(),
    "read_ticks": StageTick.objects.filter(stage="read").aggregate(n=Sum("done"))["n"] or 0,
}))
"""

REQUEUE = """
import random
from ingestion import ledger, stages
from ingestion.models import Work
from search.models import Image
done = sorted(set(Image.objects.filter(state="ready").values_list("pk", flat=True))
              - set(Work.objects.values_list("image_id", flat=True)))
chosen = random.Random({seed}).sample(done, min(len(done), {most}))
ledger.queue(chosen, stages.wanted())
print(len(chosen))
"""


def shell(home: Sandbox, code: str) -> str:
    return home.manage("shell", "-v", "0", "-c", code).stdout.strip().splitlines()[-1]


def assert_whole(home: Sandbox, *, ready: int, unreadable: int) -> dict:
    """See the module's text."""
    found = json.loads(shell(home, CHECK))
    assert not found["drift"], (found["said"], found["real"])
    assert found["states"] == {"waiting": 0, "ready": ready, "unreadable": unreadable}
    assert found["waiting_work"] == found["leases"] == found["unread"] == 0
    assert found["workers"] == [] and found["no_thumbnail"] == []
    assert found["lacking"] and all(lacking == [] for _, lacking in found["lacking"]), found["lacking"]
    checked = home.manage("verify", "--sample", str(ready), check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return found


def broken_folder(root: Path, count: int) -> Path:
    """`count` good pictures and two broken ones."""
    patterns.folder_of(root, count)
    (root / "cut.jpg").write_bytes((root / "photo0000.jpg").read_bytes()[:500])
    (root / "empty.jpg").write_bytes(b"")
    return root


def change(root: Path) -> None:
    """One file changed, one moved, one gone, one new; the same however often it is called."""
    patterns.write(root / "photo0001.jpg", 1001, mtime=1_800_000_000)
    if (root / "photo0002.jpg").exists():
        (root / "photo0002.jpg").rename(root / "moved.jpg")
    (root / "photo0003.jpg").unlink(missing_ok=True)
    patterns.write(root / "new.jpg", 1002, mtime=1_800_000_001)


@pytest.mark.parametrize(
    "point", [pytest.param(one, marks=[pytest.mark.once] if one in OF_FILES else []) for one in POINTS]
)
def test_killed_at_a_point_and_run_again_everything_is_whole(sandbox, tmp_path: Path, point: str) -> None:
    home = sandbox(IMAGESEARCH_ENCODER="look", IMAGESEARCH_THREADS="2")
    root = broken_folder(tmp_path / "photos", 20)
    killed = 0
    for number in (2, 1):  # some points are passed once in a run, and some only once files have changed
        fault = f"{point}:{number}"
        killed += home.manage("index", root, check=False, IMAGESEARCH_FAULT=fault).returncode == -signal.SIGKILL
        change(root)
    if not killed:
        home = sandbox(IMAGESEARCH_ENCODER="look", IMAGESEARCH_THREADS="2")
        killed += home.manage("index", root, check=False, IMAGESEARCH_FAULT=f"{point}:1").returncode == -signal.SIGKILL
    assert killed, "the point was never reached"
    counts = home.report("index", root)
    assert counts["found"] == 22
    assert_whole(home, ready=20, unreadable=2)


def test_fifty_random_kills_lose_nothing_and_repeat_nothing(sandbox, tmp_path: Path) -> None:
    """One worker and a second beside it; the first is killed at a random moment, again and again."""
    seed = int(os.environ.get("TEST_SEED", "7"))
    chance = random.Random(seed)
    home = sandbox(IMAGESEARCH_ENCODER="look", IMAGESEARCH_THREADS="1")
    root = broken_folder(tmp_path / "photos", 250)
    home.manage("crawl", root)
    expected, busy, kill = 250, 0, 0
    span = 1.5  # seconds from a worker's first sign until it has nothing left to do, as last seen: kills fall within
    while busy < 50:
        kill += 1
        assert kill <= 120, f"only {busy} of {kill} kills met a working process (seed {seed})"
        if kill % 2:
            expected += int(shell(home, REQUEUE.format(seed=seed + kill, most=200)))
        victim = home.popen("process")
        beside = home.popen("process") if kill % 5 == 4 else None
        began = time.monotonic()
        while not any(str(victim.pid) in path.name for path in (home.data / "workers").glob("*.worker")):
            if victim.poll() is not None or time.monotonic() - began > 60:
                break
            time.sleep(0.01)
        seen = time.monotonic()
        moment = seen + chance.uniform(0, span)
        while victim.poll() is None and time.monotonic() < moment:
            time.sleep(0.005)
        if victim.poll() is None:
            busy += 1
            victim.kill()
            span = min(1.5, span * 1.1)
        else:
            span = max(0.05, time.monotonic() - seen)
        victim.communicate()
        if beside is not None:
            said, _ = beside.communicate(timeout=300)
            assert beside.returncode == 0, said
    assert home.report("process")["finished"]
    found = assert_whole(home, ready=250, unreadable=2)
    assert found["read_ticks"] == expected, "an image was recorded twice, or a record was lost"


@pytest.mark.once
def test_killed_with_the_real_encoder_in_flight(sandbox, tmp_path: Path, dev_clip: str) -> None:
    home = sandbox(IMAGESEARCH_ENCODER=dev_clip, IMAGESEARCH_THREADS="2")
    root = broken_folder(tmp_path / "photos", 60)
    for number, point in enumerate(("after-read-commit", "rows-written", "before-embedding-commit"), 1):
        done = home.manage("index", root, check=False, IMAGESEARCH_FAULT=f"{point}:{number}")
        assert done.returncode in (0, -signal.SIGKILL)
    home.report("index", root)
    assert_whole(home, ready=60, unreadable=2)
    spaces = home.report("stats")
    assert set(spaces["embedded"].values()) == {60} and len(spaces["embedded"]) == 2
