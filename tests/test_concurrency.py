"""Curation, undo, crawls and workers in many processes at once, on either database: nothing acknowledged is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import patterns
from tests.sandbox import ROOT, Sandbox


def stressed(home: Sandbox, tmp_path: Path, *, images: int, **config: Any) -> dict[str, Any]:
    """Let `tests.stress` loose on a library of so many images, and look at everything afterwards."""
    kept, growing, journals = (tmp_path / name for name in ("kept", "growing", "journals"))
    journals.mkdir()
    patterns.folder_of(growing, 10)
    home.manage("index", patterns.folder_of(kept, images))
    config |= {"growing": str(growing), "journals": str(journals)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress", json.dumps(config)],
        env=home.env,
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert not said["problems"], "\n".join(said["problems"])[:20_000]
    assert said["acknowledged"] == config["people"] * config["operations"]
    assert said["changes"] > said["acknowledged"] // 4
    verified = home.report("verify", "--sample", "20", check=False)
    assert verified["ok"], verified
    return said


def test_many_processes_lose_nothing(sandbox: Any, tmp_path: Path) -> None:
    home = sandbox(IMAGESEARCH_ENCODER="look", IMAGESEARCH_THREADS="1")
    stressed(home, tmp_path, images=24, people=4, operations=20, workers=2, crawls=2, new=4, seed=1)


@pytest.mark.slow
def test_many_processes_lose_nothing_for_longer(sandbox: Any, tmp_path: Path) -> None:
    home = sandbox(IMAGESEARCH_ENCODER="look", IMAGESEARCH_THREADS="1")
    stressed(home, tmp_path, images=120, people=7, operations=30, workers=3, crawls=5, new=8, seed=2)
