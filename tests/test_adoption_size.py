"""An archive of 50,000 rows with planted slides, of real files; and all captioned photos with the real model. Prints
what it took."""

from __future__ import annotations

import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from ingestion import adoption, ledger, rowmaps
from ingestion.pictures import Picture
from ingestion.register import crawl, source_for
from ingestion.stages import EmbedStage
from search import decoding, embeddings, spaces
from search.models import Embedding, EmbeddingSpace, Image
from tests import patterns
from tests.test_adoption import counters_are_true, report, save

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

ROWS, DISTINCT = 50_000, 500


def look_vectors(files: list[Path]) -> np.ndarray:
    """As a worker would compute them."""
    from ingestion.ledger import Claimed

    stage = EmbedStage(spaces.look_space(), spaces.encoder_of(spaces.look_space()), 64)
    prepared = []
    for file in files:
        picture = Picture(Image(), Claimed(0, (), 0), 512)
        picture.__dict__["decoded"] = decoding.read_pixels(file.read_bytes(), min_side=512, name=os.fsencode(file))
        prepared.append(stage.prepare(picture))
    return np.stack(stage.compute(prepared))


def test_fifty_thousand_rows_right_then_slid_then_garbage(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    made = [patterns.write(tmp_path / "made" / f"{i}.jpg", i) for i in range(DISTINCT)]
    vectors = look_vectors(made)
    for row in range(ROWS):
        folder = tmp_path / "photos" / f"{row // 1_000:03}"
        if row % 1_000 == 0:
            folder.mkdir(parents=True)
        os.link(made[row * 7 % DISTINCT], folder / f"{row:06}.jpg")
    source, _ = source_for(tmp_path / "photos")
    crawl(source)
    assert Image.objects.count() == ROWS
    holds = np.arange(ROWS)
    holds[30_000:45_000] += 1
    archive = vectors[holds * 7 % DISTINCT]
    archive[45_000:] = np.random.default_rng(0).standard_normal((5_000, archive.shape[1]))
    np.save(tmp_path / "archive.npy", archive)
    listed = tmp_path / "paths.txt"
    listed.write_text("".join(f"{row // 1_000:03}/{row:06}.jpg\n" for row in range(ROWS)))

    seconds: dict[str, float] = {}
    last = ["Looking up", time.monotonic()]

    def tell(what: str, done: int, of: int) -> None:
        now = time.monotonic()
        seconds[what] = seconds.get(what, 0.0) + now - last[1]  # type: ignore[operator]
        last[:] = [what, now]

    found = adoption.adopt(
        adoption.Request(tmp_path / "archive.npy", rowmaps.lines(listed), source=source, tell=tell)
    )  # fmt: skip
    with capsys.disabled():
        parts = ", ".join(f"{what} {took:.1f} s" for what, took in seconds.items())
        print(f"\n50,000 rows: {found.accepted:,} accepted, {found.asked:,} embedded again; {parts}")
    assert found.accepted == 30_000 and found.queued == 20_000 and found.asked < 8_000
    assert [(one.first, one.stop) for one in found.ranges if one.proven and one.rows > 100] == [(0, 30_000)]
    accepted = set(Embedding.objects.values_list("image__name", flat=True))
    assert accepted == {f"{row:06}.jpg" for row in range(30_000)}
    assert counters_are_true() and ledger.counts()["embed:look"] == (20_000, 30_000, 0)


def test_all_captioned_photos_with_the_real_model(
    shared: Path, dev_clip: str, tmp_path: Path, settings, capsys
) -> None:  # type: ignore[no-untyped-def]
    """The program's own vectors leave and come back with a slide behind row 800 and a copy of it behind row 1,100."""
    settings.IMAGESEARCH_ENCODER = dev_clip
    shutil.copytree(shared / "photos" / "captioned", tmp_path / "photos")
    report("index", tmp_path / "photos")

    space = EmbeddingSpace.objects.get(encoder=dev_clip)
    report("export_embeddings", tmp_path / "out.npy", "--space", space.name)
    vectors, paths = np.load(tmp_path / "out.npy"), (tmp_path / "out.paths.txt").read_bytes().splitlines()
    ids = np.array(list(Image.objects.order_by("pk").values_list("pk", flat=True)))
    embeddings.forget(space, ids, ahead=lambda some: ledger.queue(some, [space.stage]))
    holds = np.arange(len(vectors))
    holds[800:1_100] += 1
    began = time.monotonic()
    found = report(*save(tmp_path, vectors[holds], paths), "--sample", "300", "--space", space.name)
    with capsys.disabled():
        print(
            f"\n{len(vectors):,} photos: {found['accepted']:,} accepted, {found['asked']:,} embedded again in "
            f"{time.monotonic() - began:.0f} s; right {found['median_right']:.5f}, lowest {found['lowest_right']:.4f}, "
            f"wrong {found['median_wrong']:.3f} (medians)"
        )
    right = {os.path.basename(os.fsdecode(path)) for i, path in enumerate(paths) if holds[i] == i}
    kept = set(space.embeddings.values_list("image__name", flat=True))
    assert kept <= right and found["accepted"] == len(kept) and counters_are_true()
    assert found["hints"][0]["shift"] == -1


def test_three_million_rows_need_little_memory(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    """The pure part and the archive's pass at the size of the known accident; float16, 64 numbers a row."""
    from ingestion.alignment import RIGHT, WRONG, Terms, align
    from ingestion.archive import Archive

    rows = 3_400_000
    matrix = np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.float16, shape=(rows, 64))
    chance = np.random.default_rng(0)
    block = chance.standard_normal((100_000, 64)).astype(np.float16)
    for start in range(0, rows, 100_000):
        matrix[start : start + 100_000] = block
    matrix.flush()
    del matrix, block
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    archive = Archive(tmp_path / "big.npy", tmp_path)
    usable = sum(int(good.sum()) for _, _, good in archive.blocks())
    read = time.monotonic() - began

    def ask(some: np.ndarray) -> np.ndarray:
        return np.where((some < 300_000) | (some >= 3_000_000), RIGHT, WRONG).astype(np.int8)

    found = align(rows, np.ones(rows, dtype=bool), ask, Terms.for_rows(rows), chance)
    took = time.monotonic() - began - read
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    with capsys.disabled():
        print(f"\n3.4 million rows: read {read:.0f} s, aligned {took:.1f} s, +{grown:.0f} MB")
    assert usable == rows and len(found.answers) <= 12_064
    assert np.array_equal(np.flatnonzero(~found.accepted), np.arange(300_000, 3_000_000))
    assert grown < 700  # the mapped file's own pages (435 MB) count here
