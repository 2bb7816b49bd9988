"""Spaces beside the one that serves: built from originals or thumbnails, paused, switched, rolled back, removed."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from ingestion import building, ledger, removal, stages
from ingestion.models import StageCount, Work
from ingestion.register import crawl
from ingestion.repair import repair
from ingestion.worker import Summary, Worker
from search import spaces, switching, thumbnails
from search.encoders import get_encoder, reset_encoders
from search.errors import EncoderUnavailable, SwitchRefused
from search.models import Embedding, EmbeddingSpace, Image
from search.query import parse
from search.retrieval import find
from search.vectors import get_store
from search.verification import verify
from tests import patterns
from tests.factories import make_source

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _fresh_encoders() -> Iterator[None]:
    yield
    reset_encoders()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures larger than their thumbnails, so that the two inputs differ."""
    root = tmp_path / "photos"
    for number in range(6):
        patterns.write(root / f"photo{number:04}.jpg", number, size=(700, 520), mtime=1_700_000_000 + number)
    return root


@pytest.fixture
def library(folder: Path) -> Path:
    """Six pictures, read and in `look`."""
    crawl(make_source(folder))
    assert process().finished
    return folder


def process(**options) -> Summary:
    return Worker(threads=2, **options).run()


def manage(*args: str, capsys) -> dict:
    call_command("spaces", *args, "--json")
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def assert_sound() -> None:
    assert ledger.counts() == {
        stage: numbers for stage, numbers in ledger.count_anew().items() if stage in ledger.counts() or any(numbers)
    }
    assert not Work.objects.exclude(lease_owner="").exists()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


class Working:
    """A worker in a thread that goes on until the block ends."""

    def __init__(self, **options) -> None:
        self.worker = Worker(threads=2, forever=True, **options)
        self.failures: list[BaseException] = []

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.failures.append(error)
        finally:
            connection.close()

    def __enter__(self) -> Working:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.worker.stop()
        self.thread.join(60)
        assert not self.failures and not self.thread.is_alive()


# --- building ---------------------------------------------------------------------------------------------


def test_a_space_that_was_added_is_filled_and_waits_to_be_chosen(library: Path, dev_clip: str, capsys) -> None:
    added = manage("add", dev_clip, capsys=capsys)["space"]
    encoder = get_encoder(dev_clip)
    assert (added["key"], added["dim"], added["embedded"]) == (encoder.key, encoder.dim, 0)
    space = spaces.named(added["name"])
    assert process().done == {space.stage: 6}
    assert not EmbeddingSpace.objects.filter(active=True).exists(), "what a person added waits for a person"
    patterns.write(library / "new.jpg", 99, mtime=1_800_000_000)
    crawl(Image.objects.first().source)
    process()
    assert Embedding.objects.filter(space=space).count() == 7, "new files are put in as well"
    assert_sound()


def test_build_takes_a_setting_or_a_name_and_goes_on(library: Path, dev_clip: str, capsys) -> None:
    first = manage("build", dev_clip, capsys=capsys)
    assert first["finished"] and first["space"]["coverage_percent"] == 100.0
    name = first["space"]["name"]
    space = spaces.named(name)
    gone = list(Image.objects.values_list("pk", flat=True))[:2]
    from search.embeddings import forget

    forget(space, gone, ahead=lambda ids: ledger.queue(ids, [space.stage]))
    again = manage("build", name, capsys=capsys)
    assert again["space"]["embedded"] == 6
    assert_sound()


def test_build_in_the_background_is_left_to_the_workers(library: Path, dev_clip: str, capsys) -> None:
    name = manage("build", dev_clip, "--background", capsys=capsys)["space"]["name"]
    assert ledger.counts()[f"embed:{name}"] == (6, 0, 0)
    with Working():
        wait_for(lambda: ledger.counts()[f"embed:{name}"] == (0, 6, 0))
    assert_sound()


def test_a_model_that_is_not_here_says_how_to_bring_it(library: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="model fetch"):
        building.add("ViT-B-16/datacomp_xl_s13b_b90k")
    with pytest.raises(building.NotBuilt, match="it accepts"):
        building.add("nonsense:thing")
    with pytest.raises(CommandError, match=r"no space 'nothing'.*adds one"):
        call_command("spaces", "build", "nothing")
    assert EmbeddingSpace.objects.count() == 1


# --- from thumbnails --------------------------------------------------------------------------------------


def test_a_space_is_built_from_thumbnails_while_the_originals_are_away(
    library: Path, dev_clip: str, capsys, tmp_path: Path
) -> None:
    library.rename(tmp_path / "away")
    said = manage("build", dev_clip, "--from", "thumbnails", capsys=capsys)
    assert said["finished"] and said["space"]["embedded"] == 6 and said["space"]["from_thumbnails"]
    space = spaces.named(said["space"]["name"])
    encoder = get_encoder(dev_clip)
    for image in Image.objects.all():
        alone = encoder.encode_images([encoder.prepare(thumbnails.pixels(image.pk))])[0]
        assert float(alone @ get_store(space).get(np.array([image.pk]))[0]) > 0.9999
    verdict = next(one for one in verify(sample=6) if one.space == space.name)
    assert verdict.ok and verdict.sampled == 6 and not verdict.sample_skipped, "compared with the thumbnails"
    assert Image.objects.filter(state=Image.State.READY).count() == 6
    assert_sound()


def test_originals_and_thumbnails_of_one_model_never_share_a_space(library: Path, dev_clip: str, capsys) -> None:
    originals = spaces.named(manage("build", dev_clip, capsys=capsys)["space"]["name"])
    small = spaces.named(manage("build", originals.name, "--from", "thumbnails", capsys=capsys)["space"]["name"])
    assert originals.pk != small.pk and originals.key == small.key and "from thumbnails" in small.label
    ids = np.array(sorted(Image.objects.values_list("pk", flat=True)))
    cosines = (get_store(originals).get(ids) * get_store(small).get(ids)).sum(axis=1)
    assert (cosines < 0.99999).any(), "the two inputs give the same vectors: this test proves nothing"


def test_new_files_enter_a_space_of_thumbnails_in_the_pass_that_reads_them(library: Path, dev_clip: str) -> None:
    space = building.add(dev_clip, from_thumbnails=True)
    process()
    new = patterns.write(library / "new.jpg", 99, size=(900, 640), mtime=1_800_000_000)
    crawl(Image.objects.first().source)
    process()
    image = Image.objects.get(name=new.name)
    encoder = get_encoder(dev_clip)
    alone = encoder.encode_images([encoder.prepare(thumbnails.pixels(image.pk))])[0]
    assert float(alone @ get_store(space).get(np.array([image.pk]))[0]) > 0.9999
    assert_sound()


def test_a_lost_or_broken_thumbnail_is_made_again_first(library: Path, dev_clip: str) -> None:
    lost, broken = Image.objects.order_by("pk")[:2]
    thumbnails.path_of(lost.pk).unlink()
    thumbnails.path_of(broken.pk).write_bytes(b"\0" * 5000)
    space = building.add(dev_clip, from_thumbnails=True)
    assert process().finished
    assert Embedding.objects.filter(space=space).count() == 6
    assert thumbnails.pixels(lost.pk) is not None and thumbnails.pixels(broken.pk) is not None
    assert not Work.objects.exists()
    assert_sound()


def test_a_lost_thumbnail_waits_for_its_original(library: Path, dev_clip: str, tmp_path: Path) -> None:
    thumbnails.path_of(Image.objects.first().pk).unlink()
    space = building.add(dev_clip, from_thumbnails=True)
    library.rename(tmp_path / "away")
    summary = process()
    assert not summary.finished and any("is not there" in sentence for sentence in summary.waiting)
    assert Embedding.objects.filter(space=space).count() == 5
    assert_sound()
    (tmp_path / "away").rename(library)
    assert process().finished
    assert Embedding.objects.filter(space=space).count() == 6
    assert_sound()


# --- pausing ----------------------------------------------------------------------------------------------


def test_a_paused_space_is_left_alone_within_seconds_and_goes_on(library: Path, dev_clip: str, monkeypatch) -> None:
    space = building.add(dev_clip)
    real = stages.EmbedStage.compute

    def slow(self, inputs):
        time.sleep(0.4)
        return real(self, inputs)

    monkeypatch.setattr(stages.EmbedStage, "compute", slow)
    monkeypatch.setattr("ingestion.worker._FIRST_CLAIM", 1)
    monkeypatch.setattr("ingestion.worker._CLAIM", 2)
    monkeypatch.setattr("ingestion.worker._GLANCE_SECONDS", 0.1)
    count = Embedding.objects.filter(space=space).count
    with Working(batch_size=1) as one:
        wait_for(lambda: count() >= 1)
        building.pause(space)
        wait_for(lambda: not Work.objects.exclude(lease_owner="").exists(), 10)
        standing = count()
        assert standing < 6, "nothing was left to be paused"
        time.sleep(1.5)
        assert count() == standing
        assert any("is paused" in sentence for sentence in one.worker._summary.waiting)
        patterns.write(library / "new.jpg", 99, mtime=1_800_000_000)
        crawl(Image.objects.first().source)
        wait_for(lambda: Image.objects.filter(state="ready").count() == 7)
        assert count() == standing, "new files are read, and wait for the space"
        building.resume(space)
        wait_for(lambda: count() == 7)
    assert_sound()


def test_a_worker_takes_up_a_space_that_is_added_while_it_runs(library: Path, dev_clip: str) -> None:
    with Working():
        space = building.add(dev_clip, from_thumbnails=True)
        wait_for(lambda: Embedding.objects.filter(space=space).count() == 6)
    assert_sound()


# --- switching --------------------------------------------------------------------------------------------


def test_a_space_that_covers_too_little_serves_only_anyway(library: Path, dev_clip: str) -> None:
    space = building.add(dev_clip)
    process(only=space.stage, limit=3)
    with pytest.raises(SwitchRefused, match=r"3 of 6 readable pictures \(50\.0 %.*--anyway"):
        switching.switch_to(space)
    assert spaces.active_space().name == spaces.LOOK
    assert any("3 readable pictures of 6" in note for note in switching.switch_to(space, anyway=True))
    assert spaces.active_space().pk == space.pk
    with pytest.raises(CommandError, match="nothing"):
        call_command("spaces", "activate", "nothing")


def test_rollback_lets_the_one_before_serve_and_no_other_takes_over(
    library: Path, dev_clip: str, settings, capsys
) -> None:
    with pytest.raises(CommandError, match="No other space has served before look"):
        call_command("spaces", "rollback")
    settings.IMAGESEARCH_ENCODER = dev_clip
    process()
    clip = spaces.active_space()
    assert clip.encoder == dev_clip and not clip.chosen, "the first one serves by itself"
    assert manage("rollback", capsys=capsys)["space"]["name"] == spaces.LOOK
    ledger.queue(list(Image.objects.values_list("pk", flat=True)), [clip.stage])
    process()
    assert spaces.active_space().name == spaces.LOOK, "what a person chose stays"
    assert manage("rollback", capsys=capsys)["space"]["name"] == clip.name
    assert find(parse("dog", {}), None).space.pk == clip.pk


def test_an_encoder_that_cannot_be_loaded_never_serves(library: Path, dev_clip: str, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(dev_clip.removeprefix("local-dir:"), copy)
    space = building.add(f"local-dir:{copy}")
    process()
    shutil.rmtree(copy)
    reset_encoders()
    with pytest.raises(EncoderUnavailable):
        switching.switch_to(space)
    assert spaces.active_space().name == spaces.LOOK


# --- removing ---------------------------------------------------------------------------------------------


def test_removing_leaves_nothing_of_the_space_and_everything_else(library: Path, dev_clip: str, capsys) -> None:
    space = building.add(dev_clip)
    process(limit=4)
    folder = django_settings.IMAGESEARCH_SPACES / space.name
    assert folder.is_dir() and Work.objects.filter(stage=space.stage).exists()
    assert manage("remove", space.name, capsys=capsys) == {"removed": space.name, "vectors": 4}
    assert not folder.exists()
    assert not EmbeddingSpace.objects.filter(pk=space.pk).exists()
    assert not Work.objects.filter(stage=space.stage).exists()
    assert not StageCount.objects.filter(stage=space.stage).exists()
    assert Embedding.objects.count() == 6
    assert process().finished and all(one.ok for one in verify(sample=6))
    assert_sound()


def test_what_serves_or_is_needed_is_never_removed(library: Path, dev_clip: str, settings) -> None:
    with pytest.raises(removal.NotRemoved, match="built in"):
        removal.begin(spaces.look_space())
    space = building.add(dev_clip)
    process()
    switching.switch_to(space)
    with pytest.raises(CommandError, match="serves searches"):
        call_command("spaces", "remove", space.name)
    switching.roll_back()
    space.refresh_from_db()
    with pytest.raises(removal.NotRemoved, match=r"Try again in 1[12]\d seconds"):
        removal.begin(space)
    EmbeddingSpace.objects.filter(pk=space.pk).update(served_until=timezone.now() - timedelta(hours=1))
    settings.IMAGESEARCH_ENCODER = dev_clip
    with pytest.raises(removal.NotRemoved, match="IMAGESEARCH_ENCODER"):
        removal.begin(space)
    settings.IMAGESEARCH_ENCODER = "look"
    removal.begin(space)
    with pytest.raises(SwitchRefused, match="being removed"):
        switching.switch_to(space)
    with pytest.raises(building.NotBuilt, match="being removed"):
        building.resume(space)
    removal.finish(space)
    assert_sound()


def test_what_a_worker_has_in_hand_is_not_recorded_after_the_removal(library: Path, dev_clip: str, monkeypatch) -> None:
    space = building.add(dev_clip)
    real = stages.EmbedStage.compute
    held, go = threading.Event(), threading.Event()

    def waits(self, inputs):
        if self.space.pk == space.pk:
            held.set()
            assert go.wait(30)
        return real(self, inputs)

    monkeypatch.setattr(stages.EmbedStage, "compute", waits)
    with Working():
        assert held.wait(30)
        removal.begin(space)
        removal.finish(space)
        ledger.queue(list(Image.objects.values_list("pk", flat=True)), [space.stage])  # by somebody who was late
        go.set()
        wait_for(lambda: not Work.objects.filter(stage=space.stage).exists())
    assert not Embedding.objects.filter(space_id=space.pk).exists()
    assert not (django_settings.IMAGESEARCH_SPACES / space.name / "vectors.npy").exists()
    again = building.add(dev_clip)
    assert again.name == space.name and process().done[again.stage] == 6
    assert all(one.ok for one in verify(sample=6))
    assert_sound()


def test_repair_fills_what_a_person_wants_filled(library: Path, dev_clip: str) -> None:
    space = building.add(dev_clip)
    process()
    victim = Image.objects.first()
    with open(get_store(space).file.path, "r+b") as file:
        file.seek(128 + victim.pk * space.dim * 4)
        file.write(os.urandom(16))
    done = repair()
    assert (done.wrong_rows, done.counters) == (1, 0)
    assert process().done == {space.stage: 1}
    assert_sound()
