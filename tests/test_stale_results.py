"""What was made of old bytes never passes for the new: vectors, thumbnails and states follow the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestion import ledger, offline
from ingestion.models import Work
from ingestion.reading import ReadStage
from ingestion.register import crawl
from ingestion.worker import Worker
from search import embeddings, spaces, thumbnails
from search.decoding import decode
from search.encoders import reset_encoders
from search.errors import Unreadable
from search.models import Embedding, EmbeddingSpace, Image, Source
from search.querysets import ImageQuerySet
from search.vectors import get_store
from tests import patterns
from tests.factories import make_source

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _fresh_encoders():
    yield
    reset_encoders()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return patterns.folder_of(tmp_path / "photos", 2)


@pytest.fixture
def source(folder: Path) -> Source:
    """Two pictures, read and embedded."""
    made = make_source(folder)
    crawl(made)
    process()
    return made


def process(**options: Any) -> None:
    Worker(threads=2, **options).run()


def first(folder: Path) -> Path:
    return sorted(folder.iterdir())[0]


def assert_vector_is_of_the_file(image: Image) -> None:
    """What the database believes of this image is what its file gives now."""
    image.refresh_from_db()
    space = spaces.look_space()
    encoder = spaces.encoder_of(space)
    pixels = decode(Path(image.absolute_path).read_bytes(), min_side=512).pixels
    fresh = encoder.encode_images([encoder.prepare(thumbnails.make(pixels))])[0]
    assert Embedding.objects.filter(image=image, space=space).exists()
    assert float(fresh @ get_store(space).get(np.array([image.pk]))[0]) > 0.999


def test_a_changed_file_that_could_not_be_read_at_first_gets_a_vector_of_its_own(folder, source, monkeypatch) -> None:
    path = first(folder)
    image = Image.objects.get(name=path.name)
    patterns.write(path, 99, size=(120, 90))
    crawl(source)
    real = ReadStage.prepare

    def closed(self: ReadStage, picture: Any) -> Any:
        raise Unreadable("The file cannot be opened: Permission denied.")

    monkeypatch.setattr(ReadStage, "prepare", closed)
    process()
    image.refresh_from_db()
    assert image.state == "unreadable"
    monkeypatch.setattr(ReadStage, "prepare", real)
    assert ledger.retry() == 1
    process()
    assert not Work.objects.exists()
    assert_vector_is_of_the_file(image)
    assert ledger.counts() == ledger.count_anew()


def test_a_changed_file_that_goes_before_it_is_embedded_gets_a_new_vector_when_it_is_back(folder, source) -> None:
    path = first(folder)
    image = Image.objects.get(name=path.name)
    patterns.write(path, 99, size=(120, 90))
    crawl(source)
    process(only="read")
    path.rename(folder.parent / "away")
    crawl(source, accept_missing=True)
    image.refresh_from_db()
    assert image.state == "missing"
    (folder.parent / "away").rename(path)
    crawl(source)
    process()
    assert_vector_is_of_the_file(image)
    assert ledger.counts() == ledger.count_anew()


def test_a_changed_file_loses_its_vectors_in_spaces_that_nobody_fills(folder, source) -> None:
    other = EmbeddingSpace.objects.create(name="other", encoder="x/y", key="k", label="Other", dim=8, text=True)
    path = first(folder)
    image = Image.objects.get(name=path.name)
    rest = Image.objects.exclude(pk=image.pk).get()
    vectors = np.eye(2, 8, dtype=np.float32)
    embeddings.record(other, np.array(sorted([image.pk, rest.pk])), vectors)
    patterns.write(path, 99, size=(120, 90))
    crawl(source)
    process()
    assert list(Embedding.objects.filter(space=other).values_list("image_id", flat=True)) == [rest.pk]


def test_a_thumbnail_of_old_bytes_never_replaces_the_new_one(folder, monkeypatch) -> None:
    source = make_source(folder)
    crawl(source)
    path = first(folder)
    image = Image.objects.get(name=path.name)
    Image.objects.exclude(pk=image.pk).delete()
    Work.objects.exclude(image=image).delete()
    ledger.recount()
    real = ReadStage.prepare
    expected: list[bytes] = []

    def held_up(self: ReadStage, picture: Any) -> Any:
        """A second worker does all of the file's new bytes while the first is busy with the old ones."""
        monkeypatch.setattr(ReadStage, "prepare", real)
        _ = picture.thumbnail
        patterns.write(path, 99, size=(120, 90))
        crawl(source)
        process()
        expected.append(thumbnails.read(image.pk) or b"")
        return real(self, picture)

    monkeypatch.setattr(ReadStage, "prepare", held_up)
    process(limit=1)
    image.refresh_from_db()
    assert (image.state, image.width) == ("ready", 120)
    assert thumbnails.read(image.pk) == expected[0]
    assert not list(thumbnails.path_of(image.pk).parent.glob(".*"))


def test_a_file_that_moves_while_a_worker_has_it_in_hand_is_not_missing(folder, monkeypatch) -> None:
    source = make_source(folder)
    crawl(source)
    path = first(folder)
    image = Image.objects.get(name=path.name)
    in_bulk = ImageQuerySet.in_bulk

    def read_rows(self: Any, *args: Any, **options: Any) -> Any:
        found = in_bulk(self, *args, **options)
        if image.pk in found and path.exists():
            (folder / "out").mkdir(exist_ok=True)
            path.rename(folder / "out" / path.name)
            assert crawl(source).moved == 1
        return found

    monkeypatch.setattr(ImageQuerySet, "in_bulk", read_rows)
    process()
    image.refresh_from_db()
    assert (image.folder, image.state) == ("out", "ready")
    assert_vector_is_of_the_file(image)
    assert ledger.counts() == ledger.count_anew()


def test_another_file_in_the_place_of_a_moved_one_is_never_taken_for_it(folder, monkeypatch) -> None:
    source = make_source(folder)
    crawl(source)
    path = first(folder)
    image = Image.objects.get(name=path.name)
    started: list[bool] = []
    in_bulk = ImageQuerySet.in_bulk

    def read_rows(self: Any, *args: Any, **options: Any) -> Any:
        found = in_bulk(self, *args, **options)
        if image.pk in found and not started:
            started.append(True)
            (folder / "out").mkdir(exist_ok=True)
            path.rename(folder / "out" / path.name)
            assert crawl(source).moved == 1
            patterns.write(path, 99, size=(120, 90))
        return found

    monkeypatch.setattr(ImageQuerySet, "in_bulk", read_rows)
    process()
    image.refresh_from_db()
    assert (image.folder, image.state, image.width) == ("out", "ready", 96)
    assert_vector_is_of_the_file(image)


def test_a_disk_within_the_folder_that_is_away_makes_nothing_missing(folder) -> None:
    inner = folder / "disk"
    patterns.write(inner / "inside.jpg", 7)
    patterns.write(folder / "disk0" / "beside.jpg", 8)
    source = make_source(folder)
    crawl(source)
    Source.objects.update(mounts=["disk"])
    os.unlink(inner / "inside.jpg")
    summary = Worker(threads=2).run()
    assert Image.objects.get(name="inside.jpg").state == "waiting"
    assert set(Image.objects.exclude(name="inside.jpg").values_list("state", flat=True)) == {"ready"}
    assert not summary.finished
    assert [line for line in summary.waiting if f"{inner} was a disk of its own" in line]
    patterns.write(inner / "inside.jpg", 7)
    assert Worker(threads=2).run().finished, "the files are there, whatever the disk"
    assert ledger.counts() == ledger.count_anew()


def test_the_work_on_a_disk_that_is_away_goes_on_when_it_is_back(folder, monkeypatch) -> None:
    patterns.write(folder / "disk" / "inside.jpg", 7)
    source = make_source(folder)
    crawl(source)
    image = Image.objects.select_related("source").get(name="inside.jpg")
    image.source.mounts = ["disk"]
    away = offline.Offline()
    assert away.lies_away(image)
    assert not away.lies_away(Image.objects.select_related("source").filter(folder="")[0])
    ids = away.scope().of(Work.objects.filter(stage="read")).values_list("image_id", flat=True)
    assert image.pk not in ids and len(ids) == 2
    monkeypatch.setattr(offline, "_is_a_disk", lambda root, path: (root, path) == (source.root, b"disk"))
    away.look()
    assert away.scope() == ledger.Scope() and not away.sentences()


def test_what_failed_keeps_its_reason_when_the_waiting_work_beside_it_is_dropped(folder, source) -> None:
    one, two = Image.objects.order_by("pk")
    look = spaces.look_space().stage
    ledger.queue([one.pk], ["read", look])
    ledger.queue([two.pk], ["read", look])
    ledger.fail([ledger.Failure(two.pk, look, "No usable vector.")])
    ledger.drop([one.pk, two.pk], waiting_only=True)
    assert list(Work.objects.values_list("image_id", "stage", "reason")) == [(two.pk, look, "No usable vector.")]
