"""What the tests of crawling share: a folder, a crawl of it, and rows as the read stage leaves them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestion import inspection, ledger
from ingestion.crawlreport import FILE_COUNTS, CrawlReport
from ingestion.models import Work
from ingestion.register import crawl, source_for
from search import embeddings, spaces
from search.models import Image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def go(root: Path) -> Callable[..., CrawlReport]:
    def run(**options: Any) -> CrawlReport:
        report = crawl(source_for(root)[0], **options)
        assert report.found == sum(getattr(report, name) for name in FILE_COUNTS)
        return report

    return run


def only(report: CrawlReport, **counts: int) -> None:
    """The report counts exactly this, and nothing else."""
    said = {name: number for name, number in report.counts().items() if number and name != "found"}
    assert said == counts, (said, report.message, report.problems)


def row(path: str | bytes) -> Image:
    return Image.objects.get(path=os.fsencode(path))


def as_read() -> None:
    """Every waiting image as the read stage leaves it: digest of the real bytes, ready, no work."""
    for image in Image.objects.filter(state="waiting").select_related("source"):
        digest = inspection.sha256_of(os.fsencode(image.absolute_path), size=image.size, mtime_ns=image.mtime_ns)
        assert digest is not None
        image.sha256, image.state, image.read_at = digest, "ready", image.created_at
        image.save()
    ledger.drop(Image.objects.values_list("pk", flat=True))


def work() -> set[tuple[bytes, str]]:
    return {(bytes(path), stage) for path, stage in Work.objects.values_list("image__path", "stage")}


def embed(image: Image) -> None:
    space = spaces.look_space()
    vector = np.zeros((1, space.dim), dtype=np.float32)
    vector[0, image.pk % space.dim] = 1
    embeddings.record(space, np.array([image.pk], dtype=np.int64), vector)
