"""SIGKILL while a space is built or removed: run again it is whole, and the counters are true."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests import patterns
from tests.test_kill import shell

pytestmark = pytest.mark.slow

BUILDING = ["queued-a-range", "after-claim-commit", "rows-written", "before-embedding-commit", "after-embedding-commit"]
REMOVING = ["space-removal-begun", "space-partly-removed", "space-files-removed"]

CHECK = """
import json
from ingestion import ledger
from ingestion.models import Work
from search.models import Embedding, EmbeddingSpace
print(json.dumps({
    "drift": [pair for pair in (ledger.counts(), ledger.count_anew()) if ledger.counts() != ledger.count_anew()],
    "work": list(Work.objects.values_list("stage", "state")),
    "spaces": [[s.name, s.embeddings.count(), s.removing] for s in EmbeddingSpace.objects.all()],
}))
"""


@pytest.fixture
def home(sandbox, tmp_path: Path):
    one = sandbox(IMAGESEARCH_ENCODER="look", IMAGESEARCH_THREADS="2")
    one.manage("index", patterns.folder_of(tmp_path / "photos", 30))
    return one


@pytest.fixture
def network(shared: Path) -> str:
    return f"onnx:{shared / 'models' / 'mobilenetv2'}"


@pytest.mark.parametrize("source", ["originals", "thumbnails"])
def test_killed_while_building_and_run_again_the_space_is_whole(
    home, network: str, source: str, tmp_path: Path
) -> None:
    if source == "thumbnails":
        (tmp_path / "photos").rename(tmp_path / "away")
    killed = 0
    for point in BUILDING:
        done = home.manage(
            "spaces", "build", network, "--from", source, "--batch-size", "4", check=False, IMAGESEARCH_FAULT=point
        )
        killed += done.returncode == -signal.SIGKILL
    assert killed >= 3, "the points were hardly ever reached"
    said = home.report("spaces", "build", network, "--from", source)
    assert said["finished"] and said["space"]["embedded"] == 30
    found = json.loads(shell(home, CHECK))
    assert not found["drift"] and not found["work"]
    assert [count for _, count, _ in found["spaces"]] == [30, 30]
    checked = home.report("verify", "--sample", "30")
    assert checked["ok"] and {space["sampled"] for space in checked["spaces"]} <= {0, 30}
    assert checked["spaces"][1]["sampled"] == 30


def test_killed_while_removing_and_run_again_nothing_is_left(home, network: str) -> None:
    for point in REMOVING:
        name = home.report("spaces", "build", network)["space"]["name"]
        assert home.manage("spaces", "remove", name, check=False, IMAGESEARCH_FAULT=point).returncode == -signal.SIGKILL
        found = json.loads(shell(home, CHECK))
        assert not found["drift"] and [row[2] for row in found["spaces"]] == [False, True]
        refused = home.manage("spaces", "activate", name, "--anyway", check=False)
        assert refused.returncode == 1 and "being removed" in refused.stderr
        assert home.report("verify")["ok"]
        assert home.report("spaces", "remove", name)["removed"] == name
        found = json.loads(shell(home, CHECK))
        assert not found["drift"] and not found["work"] and len(found["spaces"]) == 1
        assert not (home.data / "spaces" / name).exists()
