"""Vectors leave as npz, npy with a list, or JSON; what left can be adopted again, bit for bit."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from search import curation, spaces
from search.models import Embedding
from search.vectors import get_store
from tests import patterns
from tests.factories import make_user
from tests.test_adoption import call, counters_are_true, forget_all, report

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = patterns.folder_of(tmp_path / "photos", 12)
    os.rename(folder / "photo0003.jpg", os.fsencode(folder) + b"/odd \xff.jpg")
    call("index", folder)
    return folder


def rows() -> dict[int, bytes]:
    space = spaces.look_space()
    ids = np.array(list(Embedding.objects.filter(space=space).order_by("image_id").values_list("image_id", flat=True)))
    return {int(i): row.tobytes() for i, row in zip(ids, get_store(space).get(ids), strict=True)}


@pytest.mark.parametrize("ending", ["npz", "npy", "json"])
@pytest.mark.parametrize("line_feed", [False, True])
def test_what_was_exported_is_adopted_again(folder: Path, tmp_path: Path, ending: str, line_feed: bool) -> None:
    if line_feed:
        os.rename(folder / "photo0004.jpg", folder / "two\nlines.jpg")
        call("crawl", folder)
    file, before = tmp_path / f"out.{ending}", rows()
    found = report("export_embeddings", file)
    assert (found["rows"], found["dim"], found["mismatched"]) == (12, spaces.look_space().dim, 0)
    forget_all()
    assert not rows()
    whose = ["--paths", tmp_path / "out.paths.txt"] if ending == "npy" else []
    assert report("import_embeddings", file, *whose)["accepted"] == 12
    assert rows() == before and counters_are_true()


def test_the_files_are_what_numpy_and_anyone_reads(folder: Path, tmp_path: Path) -> None:
    for ending in ("npz", "npy", "json"):
        call("export_embeddings", tmp_path / f"out.{ending}")
    matrix = np.load(tmp_path / "out.npy")
    paths = (tmp_path / "out.paths.txt").read_bytes().splitlines()
    assert matrix.dtype == np.float32 and len(paths) == len(matrix) == 12
    with np.load(tmp_path / "out.npz") as bundle:
        assert np.array_equal(bundle["vectors"], matrix) and bundle["ids"].tolist() == sorted(rows())
        assert bundle["paths.txt"].splitlines() == paths
    found = json.loads((tmp_path / "out.json").read_text())
    assert np.array_equal(np.array([one["vector"] for one in found["images"]], dtype=np.float32), matrix)
    assert [os.fsencode(one["path"]) for one in found["images"]] == paths
    assert os.fsencode(folder) + b"/odd \xff.jpg" in paths and not list(tmp_path.glob(".*.new"))


def test_only_believed_rows_that_match_their_checksum_leave(folder: Path, tmp_path: Path) -> None:
    space = spaces.look_space()
    first, second = sorted(rows())[:2]
    Embedding.objects.filter(space=space, image_id=first).delete()
    store = get_store(space)
    store.upsert(np.array([second]), -store.get(np.array([second])))
    out, err = call("export_embeddings", tmp_path / "out.npz")
    assert "10 vectors of look" in out and "the checksum does not match: 1 row" in err
    with np.load(tmp_path / "out.npz") as bundle:
        assert not {first, second} & set(bundle["ids"].tolist())


def test_a_filter_and_a_person_narrow_it(folder: Path, tmp_path: Path) -> None:
    ids = sorted(rows())
    curation.tag(ids[:4], ["beach"], None)
    curation.hide(ids[:1], None)
    assert report("export_embeddings", tmp_path / "a.npz", "--filter", "tag:beach")["rows"] == 3
    assert report("export_embeddings", tmp_path / "b.npz")["rows"] == 12
    make_user("second")
    with pytest.raises(CommandError, match="has no vectors of these images; nothing was written"):
        call("export_embeddings", tmp_path / "c.npz", "--user", "second")
    assert not (tmp_path / "c.npz").exists()
    with pytest.raises(CommandError, match="takes filters such as tag:beach"):
        call("export_embeddings", tmp_path / "c.npz", "--filter", "a dog")
    with pytest.raises(CommandError, match="rating"):
        call("export_embeddings", tmp_path / "c.npz", "--filter", "rating:many")


def test_bad_destinations_get_a_sentence_and_change_nothing(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npz"
    kept.write_bytes(b"mine")
    with pytest.raises(CommandError, match="is there already"):
        call("export_embeddings", kept)
    with pytest.raises(CommandError, match="say the format with --format"):
        call("export_embeddings", tmp_path / "out.bin")
    with pytest.raises(CommandError, match=r"cannot be written: No such file.*Nothing was changed"):
        call("export_embeddings", tmp_path / "none" / "out.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(CommandError, match="is a folder"):
        call("export_embeddings", tmp_path / "folder.npz")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))  # the disk is full after 1,000 bytes
    try:
        with pytest.raises(CommandError, match="cannot be written: File too large"):
            call_command("export_embeddings", str(kept), "--overwrite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert kept.read_bytes() == b"mine" and not list(tmp_path.glob(".*.new"))
    call("export_embeddings", kept, "--overwrite")
    assert kept.stat().st_size > 3_000
    assert report("export_embeddings", tmp_path / "plain", "--format", "json")["rows"] == 12


def test_more_images_cost_no_more_queries(folder: Path, tmp_path: Path) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as few:
        call("export_embeddings", tmp_path / "few.npz", "--filter", "name:photo0005")
    with CaptureQueriesContext(connection) as many:
        call("export_embeddings", tmp_path / "many.npz", "--filter", "name:photo00")
    assert len(few) == len(many)
