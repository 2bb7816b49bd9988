"""SIGKILL while an archive is adopted: run again, it goes on; nothing wrong is believed and no sample is paid twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests import patterns
from tests.sandbox import Sandbox

pytestmark = pytest.mark.slow

COUNT = 30
POINTS = ["rows-looked-up", "samples-kept", "rows-flushed", "before-embedding-commit", "after-embedding-commit",
          "rows-adopted"]  # fmt: skip

CHECK = """
import json
from ingestion import ledger
from ingestion.models import Work
from search.models import Embedding
said = {k: v for k, v in ledger.counts().items() if any(v)}
real = {k: v for k, v in ledger.count_anew().items() if any(v)}
print(json.dumps({"true": said == real, "believed": Embedding.objects.count(),
                  "waiting": Work.objects.filter(stage="embed:look").count()}))
"""


def check(home: Sandbox) -> dict:  # type: ignore[type-arg]
    found = json.loads(home.manage("shell", "-v", "0", "-c", CHECK).stdout.strip().splitlines()[-1])
    checked = home.manage("verify", "--sample", str(COUNT), check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return found


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(folder, .npz of its vectors, of which the last ten have slid)"""
    import numpy as np

    place = tmp_path_factory.mktemp("archive")
    folder = patterns.folder_of(place / "photos", COUNT)
    home = Sandbox(place / "first", IMAGESEARCH_ENCODER="look")
    try:
        home.manage("index", folder)
        home.manage("export_embeddings", place / "out.npy")
    finally:
        home.close()
    vectors = np.load(place / "out.npy")
    np.save(place / "slid.npy", np.concatenate([vectors[:20], vectors[21:], vectors[:1]]))
    return folder, place


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point_and_run_again_it_is_whole(sandbox, archive: tuple[Path, Path], point: str) -> None:
    folder, place = archive
    home = sandbox(IMAGESEARCH_ENCODER="look", IMAGESEARCH_BATCH_SIZE="8")
    arguments = ["import_embeddings", place / "slid.npy", "--paths", place / "out.paths.txt", "--root", folder]
    killed = home.manage(*arguments, check=False, IMAGESEARCH_FAULT=f"{point}:1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    between = check(home)
    assert between["true"] and between["believed"] in (0, 20)
    found = home.report(*arguments)
    assert (found["accepted"], found["queued"], found["asked"]) == (20, 10, COUNT)
    if point != "rows-looked-up":
        assert found["computed"] == (COUNT - 8 if point == "samples-kept" else 0)
    assert check(home) == {"true": True, "believed": 20, "waiting": 10}
    home.manage("process")
    assert check(home) == {"true": True, "believed": COUNT, "waiting": 0}
    assert not [one for one in (home.data / "adoptions").iterdir() if one.suffix != ".json"]
