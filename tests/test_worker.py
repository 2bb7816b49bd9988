"""The worker: files become pictures that are found, whatever the files are and whatever happens to it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from django.db import connection
from django.utils import timezone

from ingestion import ledger, presence, readers, stages
from ingestion.errors import BadStage, WorkerStopped
from ingestion.ledger import Claimed
from ingestion.models import Work
from ingestion.pictures import Picture
from ingestion.register import crawl
from ingestion.worker import Summary, Worker
from search import spaces, thumbnails
from search.decoding import read_pixels
from search.encoders import get_encoder, reset_encoders
from search.errors import EncoderFault, Unreadable
from search.models import Change, Embedding, EmbeddingSpace, Image, ImageTag, RefusedKeyword, Tag
from search.vectors import get_store
from tests import patterns
from tests.factories import make_image, make_source

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _fresh_encoders():
    yield
    reset_encoders()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return patterns.folder_of(tmp_path / "photos", 6)


def process(**options) -> Summary:
    return Worker(threads=2, **options).run()


def assert_sound() -> None:
    """Counters as counted anew, nobody's lease left, every vector believed is the one on disk."""
    said = {stage: numbers for stage, numbers in ledger.counts().items() if any(numbers)}
    assert said == {stage: numbers for stage, numbers in ledger.count_anew().items() if any(numbers)}
    assert not Work.objects.exclude(lease_owner="").exists()
    assert presence.owners() == []


def image_named(name: str) -> Image:
    return Image.objects.get(name=name)


# --- the way of a file -----------------------------------------------------------------------------------


def test_files_become_ready_with_everything_known_of_them(folder: Path, dev_clip: str, settings) -> None:
    settings.IMAGESEARCH_ENCODER = dev_clip
    source = make_source(folder)
    crawl(source)
    assert ledger.counts()["read"] == (6, 0, 0)
    summary = process()
    assert summary.finished and summary.done["read"] == 6 and not summary.failed and not summary.waiting
    clip = EmbeddingSpace.objects.get(encoder=dev_clip)
    assert summary.done[clip.stage] == 6 and clip.active
    for image in Image.objects.all():
        data = Path(image.absolute_path).read_bytes()
        assert image.state == "ready" and image.sha256 == hashlib.sha256(data).digest()
        assert (image.format, image.width, image.height) == ("JPEG", 96, 80)
        assert image.perceptual_hash is not None and image.colours and image.read_at is not None
        assert thumbnails.path_of(image.pk).is_file()
    assert Work.objects.count() == 0
    assert_sound()


def test_each_row_holds_the_vector_of_its_own_image(folder: Path, dev_clip: str, settings) -> None:
    settings.IMAGESEARCH_ENCODER = dev_clip
    crawl(make_source(folder))
    process(batch_size=4)
    encoder = get_encoder(dev_clip)
    space = EmbeddingSpace.objects.get(encoder=dev_clip)
    for image in Image.objects.all():
        pixels = read_pixels(Path(image.absolute_path).read_bytes(), min_side=2 * encoder.side).pixels
        alone = encoder.encode_images([encoder.prepare(pixels)])[0]
        assert float(alone @ get_store(space).get(np.array([image.pk]))[0]) > 0.999
    assert Embedding.objects.count() == 12


def test_the_newest_files_come_first(folder: Path) -> None:
    crawl(make_source(folder))
    process(limit=2)
    ready = Image.objects.filter(state="ready").values_list("name", flat=True)
    assert sorted(ready) == ["photo0004.jpg", "photo0005.jpg"]
    assert ledger.counts()["read"] == (4, 2, 0)
    assert_sound()
    assert process().finished
    assert ledger.counts()["read"] == (0, 6, 0)


def test_running_again_does_nothing(folder: Path) -> None:
    crawl(make_source(folder))
    process()
    before = list(Embedding.objects.values_list("pk", "crc32"))
    assert process().done == {}
    assert list(Embedding.objects.values_list("pk", "crc32")) == before


def test_what_is_not_a_picture_fails_with_a_sentence_and_the_rest_goes_on(folder: Path) -> None:
    good = (folder / "photo0000.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "paper.jpg").write_bytes(b"%PDF-1.4\n%...")
    crawl(make_source(folder))
    summary = process()
    assert summary.finished and summary.done["read"] == 6 and summary.failed == {"read": 3}
    for name in ("cut.jpg", "empty.jpg", "paper.jpg"):
        image = image_named(name)
        (row,) = Work.objects.filter(image=image)
        assert image.state == "unreadable" and image.reason == row.reason and row.stage == "read"
        assert row.reason[0].isupper() and row.reason.endswith(".")
        assert (row.size, row.mtime_ns) == (image.size, image.mtime_ns)
    assert "PDF" in image_named("paper.jpg").reason
    assert_sound()


def test_a_failed_file_is_left_alone_until_it_changes_or_someone_says_retry(folder: Path) -> None:
    broken = folder / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 nothing")
    source = make_source(folder)
    crawl(source)
    process()
    crawl(source)
    assert process().done == {}
    patterns.write(broken, 99)
    crawl(source)
    assert process().done["read"] == 1
    assert image_named("broken.jpg").state == "ready" and image_named("broken.jpg").reason == ""
    assert_sound()


def test_a_stage_that_breaks_on_one_file_fails_that_file_alone(folder: Path, monkeypatch) -> None:
    crawl(make_source(folder))
    victim = image_named("photo0003.jpg").pk
    real = stages.EmbedStage.prepare

    def prepare(self, picture):
        if picture.id == victim:
            raise KeyError("surprise")
        return real(self, picture)

    monkeypatch.setattr(stages.EmbedStage, "prepare", prepare)
    summary = process()
    assert summary.finished and sum(summary.failed.values()) == 1
    row = Work.objects.get()
    assert row.image_id == victim and "KeyError" in row.reason
    assert Image.objects.get(pk=victim).state == "ready"
    assert_sound()


def test_a_batch_that_breaks_is_tried_one_by_one(folder: Path, monkeypatch) -> None:
    crawl(make_source(folder))
    real = stages.EmbedStage.compute
    poison = {image_named("photo0002.jpg").pk}
    prepared: dict[int, int] = {}
    real_prepare = stages.EmbedStage.prepare

    def prepare(self, picture):
        value = real_prepare(self, picture)
        prepared[id(value)] = picture.id
        return value

    def compute(self, inputs):
        if any(prepared.get(id(one)) in poison for one in inputs):
            raise RuntimeError("this input")
        return real(self, inputs)

    monkeypatch.setattr(stages.EmbedStage, "prepare", prepare)
    monkeypatch.setattr(stages.EmbedStage, "compute", compute)
    summary = process()
    assert summary.finished and Embedding.objects.count() == 5
    assert Work.objects.get().image_id in poison
    assert_sound()


def test_a_vector_that_is_not_of_unit_length_is_never_recorded(folder: Path, monkeypatch) -> None:
    crawl(make_source(folder))
    encoder = get_encoder("look")
    real = type(encoder).encode_images
    monkeypatch.setattr(type(encoder), "encode_images", lambda self, batch: real(self, batch) * np.float32("nan"))
    summary = process()
    assert summary.finished and summary.failed and not Embedding.objects.exists()
    assert all("no usable vector" in reason for reason in Work.objects.values_list("reason", flat=True))
    assert_sound()


# --- keywords, titles, ratings ---------------------------------------------------------------------------


def test_keywords_title_and_rating_come_from_the_file_and_a_persons_stay(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    path = patterns.write(root / "a.jpg", 1, xmp=patterns.xmp("Dog", "beach  walk", title="Holiday", rating=4))
    source = make_source(root)
    crawl(source)
    process()
    image = image_named("a.jpg")
    assert (image.title, image.title_origin, image.rating, image.rating_origin) == ("Holiday", "file", 4, "file")
    links = dict(image.tag_links.values_list("tag__name", "origin"))
    assert links == {"Dog": "file", "beach walk": "file"}

    cat = Tag.objects.create(name="Cat", key="cat")
    ImageTag.objects.create(image=image, tag=cat)
    ImageTag.objects.filter(image=image, tag__key="dog").delete()
    RefusedKeyword.objects.create(image=image, tag=Tag.objects.get(key="dog"))
    Image.objects.filter(pk=image.pk).update(title="Mine", title_origin="person", rating=1, rating_origin="person")
    patterns.write(path, 2, xmp=patterns.xmp("dog", "forest", title="Other", rating=5), mtime=1_800_000_000)
    crawl(source)
    process()
    image.refresh_from_db()
    assert (image.title, image.rating) == ("Mine", 1)
    assert dict(image.tag_links.values_list("tag__name", "origin")) == {"Cat": "person", "forest": "file"}
    assert_sound()


def test_absurd_keywords_are_shortened(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    patterns.write(root / "a.jpg", 1, xmp=patterns.xmp("ß" * 300, "x" * 1000))
    crawl(make_source(root))
    process()
    assert image_named("a.jpg").state == "ready"
    assert all(len(key) <= 255 for key in Tag.objects.values_list("key", flat=True))
    assert Tag.objects.count() == 2


def test_a_removed_image_stays_removed_and_can_come_back_whole(folder: Path) -> None:
    crawl(make_source(folder))
    Image.objects.filter(name="photo0001.jpg").update(state="removed")
    process()
    image = image_named("photo0001.jpg")
    assert image.state == "removed" and image.read_at is not None and image.embeddings.count() == 1
    assert_sound()


# --- files that change, vanish, hang ----------------------------------------------------------------------


def test_what_changed_since_the_crawl_is_recorded_as_it_was_read(folder: Path) -> None:
    source = make_source(folder)
    crawl(source)
    patterns.write(folder / "photo0000.jpg", 77, size=(120, 64), mtime=1_750_000_000)
    process()
    image = image_named("photo0000.jpg")
    stat = os.stat(image.absolute_path)
    assert (image.width, image.size, image.mtime_ns) == (120, stat.st_size, stat.st_mtime_ns)
    assert crawl(source).unchanged == 6


def test_an_embedding_of_changed_bytes_makes_the_file_be_read_anew(folder: Path) -> None:
    crawl(make_source(folder))
    process(only="read")
    stage = spaces.look_space().stage
    ledger.queue_all(stage)
    patterns.write(folder / "photo0000.jpg", 77, size=(120, 64), mtime=1_750_000_000)
    assert process().finished
    image = image_named("photo0000.jpg")
    assert image.width == 120 and image.sha256 == hashlib.sha256(Path(image.absolute_path).read_bytes()).digest()
    assert_sound()


def test_a_worker_that_is_stopped_while_it_queues_ends_after_the_range_in_hand(folder: Path, monkeypatch) -> None:
    crawl(make_source(folder))
    process(only="read")
    Work.objects.all().delete()
    ledger.recount()
    monkeypatch.setattr(ledger, "_RANGE", 2)
    worker = Worker()

    def reach(point: str) -> None:
        if point == "queued-a-range" and Work.objects.exists():
            worker.stop()

    monkeypatch.setattr(ledger, "reach", reach)
    assert not worker.run().finished
    assert Work.objects.filter(stage=spaces.look_space().stage).count() in (1, 2)
    assert process().finished and not Work.objects.exists()
    assert_sound()


def test_a_file_queued_anew_while_it_is_in_hand_is_never_taken_for_done(folder: Path, monkeypatch) -> None:
    """Its old bytes are thrown away, and it is processed once more."""
    crawl(make_source(folder))
    image = image_named("photo0005.jpg")
    real = stages.ReadStage.prepare
    done: list[int] = []

    def prepare(self, picture):
        result = real(self, picture)
        if picture.id == image.pk and not done:
            done.append(1)
            patterns.write(folder / "photo0005.jpg", 501, size=(200, 100), mtime=1_850_000_000)
            ledger.queue([image.pk], stages.wanted())  # what the crawl does when it sees the change
            connection.close()
        return result

    monkeypatch.setattr(stages.ReadStage, "prepare", prepare)
    assert process().finished
    image.refresh_from_db()
    assert image.width == 200 and image.sha256 == hashlib.sha256((folder / "photo0005.jpg").read_bytes()).digest()
    assert_sound()


def test_a_file_written_while_it_is_read_waits(tmp_path: Path) -> None:
    path = patterns.write(tmp_path / "a.jpg", 1)

    def somebody_writes(size: int) -> None:
        with open(path, "ab") as file:
            file.write(b"more")

    with pytest.raises(readers.ChangedWhileRead):
        readers.read_file(str(path), somebody_writes)


def test_a_file_that_keeps_changing_is_handed_back_then_failed(folder: Path, monkeypatch) -> None:
    crawl(make_source(folder))
    victim = image_named("photo0005.jpg")
    real = readers.read_file

    def read_file(path, reserve):
        if path == victim.absolute_path:
            raise readers.ChangedWhileRead
        return real(path, reserve)

    monkeypatch.setattr(readers, "read_file", read_file)
    process(limit=6)
    row = Work.objects.get(image=victim, stage="read")
    assert (row.state, row.attempts, row.lease_owner) == ("waiting", 1, "")
    assert row.lease_until is not None and row.lease_until > timezone.now()
    Work.objects.filter(image=victim).update(attempts=4, lease_until=None)
    assert process().finished
    row.refresh_from_db()
    assert row.state == "failed" and "keeps writing" in row.reason
    assert_sound()


def test_a_vanished_file_is_missing_and_no_failure(folder: Path) -> None:
    crawl(make_source(folder))
    (folder / "photo0002.jpg").unlink()
    summary = process()
    assert summary.finished and not summary.failed
    assert image_named("photo0002.jpg").state == "missing"
    assert Change.objects.filter(kind="images").exists()
    assert Work.objects.count() == 0
    assert_sound()


def test_a_source_that_is_away_makes_nothing_missing_and_is_waited_for(folder: Path) -> None:
    other = patterns.folder_of(folder.parent / "other", 2, first=50)
    crawl(make_source(folder))
    crawl(make_source(other))
    folder.rename(folder.parent / "unplugged")
    summary = process()
    assert not summary.finished and str(folder) in summary.waiting[0]
    assert set(Image.objects.values_list("state", flat=True)) == {"waiting", "ready"}
    assert Image.objects.filter(state="ready").count() == 2
    assert_sound()
    (folder.parent / "unplugged").rename(folder)
    assert process().finished
    assert Image.objects.filter(state="ready").count() == 8


def test_a_file_that_became_a_pipe_does_not_hang_the_worker(folder: Path) -> None:
    crawl(make_source(folder))
    (folder / "photo0001.jpg").unlink()
    os.mkfifo(folder / "photo0001.jpg")
    assert process().finished
    assert image_named("photo0001.jpg").reason == "This is not a regular file any more."


def a_picture() -> Picture:
    image = make_image(make_source("/nowhere/" + os.urandom(4).hex()))
    return Picture(image, Claimed(image.pk, ("read",), 0), 512)


class Reading:
    """Drives `Readers` with a read that hangs until it is let go."""

    def __init__(self, monkeypatch, pictures: list[Picture], seconds: float = 0.05) -> None:
        self.go = threading.Event()
        self.given: list[Picture] = []
        self.failed: list[tuple[Picture, Exception]] = []
        waiting = list(pictures)
        lock = threading.Lock()

        def take() -> Picture | None:
            with lock:
                return waiting.pop(0) if waiting else None

        def hang(path: str, reserve: Callable[[int], None]):
            reserve(10)
            assert self.go.wait(30)
            return b"0123456789", 10, 1

        monkeypatch.setattr(readers, "read_file", hang)
        self.readers = readers.Readers(
            take, self.given.append, lambda p, e: self.failed.append((p, e)), threads=2, max_bytes=1000, seconds=seconds
        )

    def watch_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            self.readers.watch()
            time.sleep(0.01)


def test_a_read_that_hangs_is_given_up_and_the_next_file_goes_on(monkeypatch) -> None:
    reading = Reading(monkeypatch, [a_picture() for _ in range(4)])
    reading.watch_until(lambda: len(reading.failed) == 4)
    assert all("longer than 0.05 seconds" in str(error) for _, error in reading.failed)
    reading.go.set()
    assert reading.given == []


def test_too_many_hanging_reads_say_that_the_disk_is_gone(monkeypatch) -> None:
    reading = Reading(monkeypatch, [a_picture() for _ in range(30)])
    with pytest.raises(readers.DiskStuck, match="disk does not answer"):
        reading.watch_until(lambda: False)
    reading.readers.stop()
    reading.go.set()


def test_reading_waits_for_room_and_lets_one_large_file_through(tmp_path: Path) -> None:
    image = make_image(make_source(tmp_path), "big.bin", size=5000)
    for name in ("big.bin", "small.bin"):
        (tmp_path / name).write_bytes(b"x" * 5000)
    small = make_image(image.source, "small.bin", size=5000)
    pictures = [Picture(one, Claimed(one.pk, ("read",), 0), 0) for one in (image, small)]
    given: list[Picture] = []
    held = readers.Readers(
        lambda: pictures.pop(0) if pictures else None, given.append, lambda *_: None,
        threads=2, max_bytes=100, seconds=30,
    )  # fmt: skip
    end = time.monotonic() + 10
    while not given and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(given) == 1
    held.free(5000)
    while len(given) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(given) == 2


# --- things that are no file's fault ----------------------------------------------------------------------


def test_a_broken_encoder_stops_the_worker_and_loses_nothing(folder: Path, monkeypatch) -> None:
    crawl(make_source(folder))

    def broken(self, inputs):
        raise EncoderFault("The encoder does not fit into the memory of the GPU, even for one picture.")

    monkeypatch.setattr(stages.EmbedStage, "compute", broken)
    with pytest.raises(WorkerStopped, match="does not fit into the memory"):
        process()
    assert not [thread for thread in threading.enumerate() if thread.name in ("writer", "heartbeat")]
    assert Image.objects.filter(state="ready").exists(), "what was through before was not kept"
    assert not Work.objects.filter(state="failed").exists()
    assert_sound()
    monkeypatch.undo()
    assert process().finished and Embedding.objects.count() == 6


def test_a_full_disk_stops_the_worker_and_blames_no_file(folder: Path, monkeypatch) -> None:
    crawl(make_source(folder))

    def full(image_id: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(thumbnails, "write_beside", full)
    with pytest.raises(WorkerStopped, match="No space left on device"):
        process()
    assert not Work.objects.filter(state="failed").exists()
    assert set(Image.objects.values_list("state", flat=True)) == {"waiting"}
    assert_sound()


def test_stopping_hands_the_rest_back(tmp_path: Path) -> None:
    crawl(make_source(patterns.folder_of(tmp_path / "photos", 150)))
    worker = Worker(threads=1)
    worker._tell = worker.stop
    summary = worker.run()
    done = summary.done.get("read", 0)
    assert not summary.finished or done == 150
    assert ledger.counts()["read"] == (150 - done, done, 0)
    assert not Work.objects.filter(attempts__gt=0).exists()
    assert_sound()


def test_an_unknown_stage_or_space_is_named(folder: Path) -> None:
    with pytest.raises(BadStage, match="no stage 'raed'"):
        process(only="raed")
    with pytest.raises(BadStage, match="no space 'nothing'"):
        process(only="embed:nothing")


# --- stages and spaces --------------------------------------------------------------------------------------


def test_reading_alone_leaves_the_embedding_waiting(folder: Path) -> None:
    crawl(make_source(folder))
    assert process(only="read").done == {"read": 6}
    stage = spaces.look_space().stage
    assert ledger.counts()[stage] == (6, 0, 0)
    assert process(only=stage).done == {stage: 6}


def test_embedding_brings_reading_along_so_that_a_file_is_read_once(folder: Path) -> None:
    crawl(make_source(folder))
    assert process(only="embed").done == {"read": 6, spaces.look_space().stage: 6}


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1000, 661), (300, 300), (2600, 260), (200, 150)])
def test_sharing_the_thumbnails_resize_changes_no_bit(size: tuple[int, int], tmp_path: Path) -> None:
    """An encoder with a side of 256 starts from the thumbnail where that is what its own resize would give."""
    encoder = get_encoder("random:ViT-B-32-256")
    space = EmbeddingSpace(name="x", encoder="x", key=encoder.key, label="x", dim=encoder.dim, text=True)
    stage = stages.EmbedStage(space, encoder, 1)
    assert stage._resizes_alike
    path = patterns.write(tmp_path / "a.png", 3, size=size)
    image = make_image(make_source(tmp_path), "a.png")
    shared = Picture(image, Claimed(image.pk, ("read",), 0), stage.side, path.read_bytes())
    alone = encoder.prepare(read_pixels(path.read_bytes(), min_side=stage.side).pixels)
    assert np.array_equal(stage.prepare(shared), alone)


def test_a_new_space_gets_the_images_that_were_there_before(folder: Path, dev_clip: str, settings) -> None:
    crawl(make_source(folder))
    process()
    settings.IMAGESEARCH_ENCODER = dev_clip
    summary = process()
    clip = EmbeddingSpace.objects.get(encoder=dev_clip)
    assert summary.done == {clip.stage: 6} and clip.active
    assert_sound()


def test_while_the_weights_are_away_everything_else_goes_on_and_then_they_come(
    folder: Path, dev_clip: str, settings, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    settings.IMAGESEARCH_ENCODER = f"local-dir:{model}"
    crawl(make_source(folder))
    worker = Worker(threads=2, forever=True)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_for(lambda: Image.objects.filter(state="ready").count() == 6)
        look = spaces.look_space()
        wait_for(lambda: Embedding.objects.filter(space=look).count() == 6)
        assert EmbeddingSpace.objects.count() == 1 and worker._summary.waiting
        shutil.copytree(dev_clip.removeprefix("local-dir:"), model)
        wait_for(lambda: EmbeddingSpace.objects.filter(active=True, text=True).exists(), 60)
        wait_for(lambda: Embedding.objects.exclude(space=look).count() == 6, 60)
    finally:
        worker.stop()
        thread.join(60)
    assert not failures and not thread.is_alive()
    assert_sound()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def test_another_apps_stage_shares_the_pixels(folder: Path, monkeypatch) -> None:
    """What `faces` will do: register a stage, get the decoded picture, record a result."""
    seen: dict[int, tuple[int, int]] = {}

    class Sizes:
        name, side, batch = "sizes", 0, 0

        def prepare(self, picture):
            return picture.pixels.size

        def compute(self, inputs):
            return inputs

        def commit(self, owner, ids, results) -> None:
            from django.db import transaction

            with transaction.atomic():
                mine = set(ledger.still_mine(owner, self.name, np.array(ids)).tolist())
                seen.update({i: size for i, size in zip(ids, results, strict=True) if i in mine})
                ledger.finish(owner, self.name, ids)

    from django.db.models import Q

    from ingestion import tally

    monkeypatch.setitem(stages._others, "sizes", stages.OtherStage(lambda: "sizes", Sizes))
    monkeypatch.setitem(tally._results, "sizes", lambda stage: Q(pk__in=list(seen)))
    crawl(make_source(folder))
    assert process().done["sizes"] == 6
    assert set(seen.values()) == {(96, 80)} and len(seen) == 6
    assert_sound()


# --- several processes, and dying ------------------------------------------------------------------------------


def test_several_processes_share_the_work_and_nothing_is_done_twice(sandbox, tmp_path: Path) -> None:
    home = sandbox(IMAGESEARCH_THREADS="1")
    folder = patterns.folder_of(tmp_path / "photos", 120)
    home.manage("crawl", folder)
    report = home.report("process", "--workers", "3")
    assert report["finished"]
    numbers = home.report("stats")
    assert numbers["total"] == numbers["readable"] == 120
    assert list(numbers["embedded"].values()) == [120]
    code = (
        "from django.db.models import Sum; from ingestion.models import StageTick; from ingestion import ledger;"
        "print(StageTick.objects.filter(stage='read').aggregate(n=Sum('done'))['n'], ledger.recount())"
    )
    assert home.manage("shell", "-v", "0", "-c", code).stdout.split() == ["120", "0"]


def test_a_term_signal_ends_the_worker_with_status_0_and_no_lease(sandbox, tmp_path: Path) -> None:
    home = sandbox(IMAGESEARCH_THREADS="1")
    home.manage("crawl", patterns.folder_of(tmp_path / "photos", 30))
    process_ = home.popen("process", "--forever")
    code = (
        "from ingestion.models import Work; print(Work.objects.count(), Work.objects.exclude(lease_owner='').count())"
    )
    end = time.monotonic() + 60
    while home.manage("shell", "-v", "0", "-c", code).stdout.split()[0] != "0":
        assert time.monotonic() < end
    assert os.getpriority(os.PRIO_PROCESS, process_.pid) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    process_.send_signal(signal.SIGTERM)
    assert process_.wait(30) == 0
    assert home.manage("shell", "-v", "0", "-c", code).stdout.split() == ["0", "0"]
    assert list((home.data / "workers").iterdir()) == []


@pytest.mark.slow
def test_a_picture_that_kills_the_worker_is_decoded_apart_and_given_up_in_the_end(sandbox, tmp_path: Path) -> None:
    """The process dies with the picture in hand, again and again, as a crash in native code would end it."""
    home = sandbox(IMAGESEARCH_THREADS="1")
    home.manage("crawl", patterns.folder_of(tmp_path / "photos", 1))
    attempts = (
        "from ingestion import ledger; ledger.release_dead(); from ingestion.models import Work;"
        "print(sorted(Work.objects.filter(stage='read', state='waiting').values_list('attempts', flat=True)))"
    )
    for died in range(1, 6):
        assert home.manage("process", check=False, IMAGESEARCH_FAULT="picture-in-hand:1").returncode == -signal.SIGKILL
        assert home.manage("shell", "-v", "0", "-c", attempts).stdout.strip() == str([died])
    assert home.report("process")["finished"]
    (problem,) = [one for one in home.report("problems") if one["stage"] == "read"]
    assert problem["path"].endswith("photo0000.jpg") and "5 times" in problem["reason"]
    assert home.report("problems", "--retry") == {"retried": 2}
    assert home.report("process")["finished"]
    assert home.report("stats")["readable"] == 1


def test_a_cautious_picture_is_decoded_in_a_child_process(folder: Path, monkeypatch) -> None:
    crawl(make_source(folder))
    Work.objects.filter(image=image_named("photo0005.jpg")).update(attempts=2)
    said: dict[int, bool] = {}
    from search import decoding

    real = decoding.read_pixels

    def read_pixels(data, *, min_side, name, cautious):
        said[len(said)] = cautious
        return real(data, min_side=min_side, name=name, cautious=cautious)

    monkeypatch.setattr(decoding, "read_pixels", read_pixels)
    assert process().finished
    assert sorted(said.values()) == [False] * 5 + [True]
    assert image_named("photo0005.jpg").state == "ready"


def test_unreadable_is_what_the_stages_raise() -> None:
    """The reasons shown to people come from this one family."""
    assert issubclass(Unreadable, Exception) and readers.TooSlow.__mro__[1] is Unreadable


def test_a_file_dated_after_what_the_database_can_hold_is_read_once(folder: Path) -> None:
    late = sorted(folder.iterdir())[0]
    os.utime(late, (13_569_465_600, 13_569_465_600))  # in the year 2400
    if late.stat().st_mtime < 13_000_000_000:
        pytest.skip("this file system cannot hold a date in the year 2400")
    source = make_source(folder)
    crawl(source)
    process()
    assert image_named(late.name).state == Image.State.READY
    assert crawl(source).unchanged == len(list(folder.iterdir()))
    assert_sound()
