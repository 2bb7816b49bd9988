"""Whatever happens to the files between crawls, ids, curation and embeddings follow them: against a plain model.

The model knows files by the picture they hold (a number) and follows the rules of identity in the most naive
way there is; the crawl works on real files and the real database.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ingestion import inspection, ledger
from ingestion.crawlreport import FILE_COUNTS, CrawlReport
from ingestion.models import Work
from ingestion.register import crawl, source_for
from search import curation, embeddings, spaces
from search.models import Embedding, Image, ImageTag, Source
from search.vectors import get_store
from tests.photos import jpeg, put

FOLDERS = ["", "a", "a/b", "c"]
NAMES = ["1.jpg", "2.jpg", "x"]
PATHS = [f"{folder}/{name}".lstrip("/") for folder in FOLDERS for name in NAMES]
PICTURES = [0, 1, 2, 3]
HERE = ("waiting", "ready")

paths, pictures = st.sampled_from(PATHS), st.sampled_from(PICTURES)


@dataclass
class File:
    picture: int
    mtime: int


@dataclass
class Row:
    """What an image must be."""

    path: str
    picture: int
    mtime: int
    state: str = "waiting"
    read: bool = False
    """The file, as it was last seen, was read."""
    rating: int = 0
    tags: frozenset[str] = frozenset()
    restored: bool = False
    """Brought back by a person, and not met by a crawl since."""
    embedded: int | None = None
    """The picture whose embedding it has."""


class Crawls(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        Work.objects.all().delete()
        ImageTag.objects.all().delete()
        Embedding.objects.all().delete()
        Image.objects.all().delete()
        Source.objects.all().delete()
        self.scratch = Path(tempfile.mkdtemp(prefix="crawls-"))
        self.root = self.scratch / "root"
        self.root.mkdir()
        self.source = source_for(self.root)[0]
        self.files: dict[str, File] = {}
        self.rows: dict[int, Row] = {}
        self.clock = 1_000
        self.mounted = True
        self.standing: object = "disk"
        """Which folder stands in the root's place."""
        self.remembered: object | None = None
        self.doubted_after: int | None = None
        """The last id before a crawl that was not believed."""

    def teardown(self) -> None:
        shutil.rmtree(self.scratch)

    # --- what people do to files

    def _write(self, path: str, picture: int) -> None:
        self.clock += 1
        put(self.root / path, _bytes(picture), mtime=self.clock)
        self.files[path] = File(picture, self.clock)

    @precondition(lambda self: self.mounted)
    @rule(path=paths, picture=pictures)
    def add_or_change(self, path: str, picture: int) -> None:
        self._write(path, picture)

    @precondition(lambda self: self.mounted and self.files)
    @rule(data=st.data(), to=paths)
    def move(self, data: st.DataObject, to: str) -> None:
        path = data.draw(st.sampled_from(sorted(self.files)))
        (self.root / to).parent.mkdir(parents=True, exist_ok=True)
        os.rename(self.root / path, self.root / to)
        self.files[to] = self.files.pop(path)

    @precondition(lambda self: self.mounted and self.files)
    @rule(data=st.data(), to=paths, keep_time=st.booleans())
    def copy(self, data: st.DataObject, to: str, keep_time: bool) -> None:
        path = data.draw(st.sampled_from(sorted(self.files)))
        if path == to:
            return
        file = self.files[path]
        self._write(to, file.picture)
        if keep_time and (to not in {row.path for row in self.rows.values()}):
            os.utime(self.root / to, (file.mtime, file.mtime))
            self.files[to] = File(file.picture, file.mtime)

    @precondition(lambda self: self.mounted and self.files)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.files)))
        os.unlink(self.root / path)
        del self.files[path]

    @precondition(lambda self: self.mounted)
    @rule(folder=st.sampled_from(["a", "c"]), to=st.sampled_from(["d", "c", "a"]))
    def move_folder(self, folder: str, to: str) -> None:
        if not (self.root / folder).is_dir() or (self.root / to).exists():
            return
        os.rename(self.root / folder, self.root / to)
        for path in [path for path in self.files if path.startswith(folder + "/")]:
            self.files[to + path[len(folder) :]] = self.files.pop(path)

    @precondition(lambda self: self.mounted)
    @rule()
    def unmount(self) -> None:
        os.rename(self.root, self.scratch / "disk")
        self.root.mkdir()
        self.mounted, self.standing = False, object()

    @precondition(lambda self: not self.mounted)
    @rule()
    def remount(self) -> None:
        # The mount point is not removed but kept: its inode must not be given to a later one.
        os.rename(self.root, self.scratch / f"mount-point-{self.clock}")
        self.clock += 1
        os.rename(self.scratch / "disk", self.root)
        self.mounted, self.standing = True, "disk"

    # --- what people do to images

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), rating=st.integers(1, 5))
    def rate(self, data: st.DataObject, rating: int) -> None:
        i = data.draw(st.sampled_from(sorted(self.rows)))
        curation.rate(Image.objects.filter(pk=i), rating, None)
        self.rows[i].rating = rating

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), name=st.sampled_from(["sea", "snow"]))
    def tag(self, data: st.DataObject, name: str) -> None:
        i = data.draw(st.sampled_from(sorted(self.rows)))
        curation.tag(Image.objects.filter(pk=i), [name], None)
        self.rows[i].tags |= {name}

    @precondition(lambda self: any(row.state != "removed" for row in self.rows.values()))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        i = data.draw(st.sampled_from(sorted(i for i, row in self.rows.items() if row.state != "removed")))
        curation.remove(Image.objects.filter(pk=i), None)
        self.rows[i].state = "removed"

    @precondition(lambda self: any(row.state == "removed" for row in self.rows.values()))
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        i = data.draw(st.sampled_from(sorted(i for i, row in self.rows.items() if row.state == "removed")))
        curation.restore(Image.objects.filter(pk=i), None)
        self.rows[i].state = "ready" if self.rows[i].read else "waiting"
        self.rows[i].restored = True

    # --- what the program does

    @rule(only_even=st.booleans())
    def process(self, only_even: bool) -> None:
        """Read and embed what waits and whose file is still the one that was registered, as the worker does."""
        space = spaces.look_space()
        places = {i: place for place, i in enumerate(sorted(self.rows))}  # ids differ from run to run, places do not
        for i in sorted(set(Work.objects.values_list("image_id", flat=True))):
            image = Image.objects.select_related("source").get(pk=i)
            file = self.files.get(os.fsdecode(image.path)) if self.mounted else None
            row = self.rows[i]
            if (only_even and places[i] % 2) or file is None or (file.picture, file.mtime) != (row.picture, row.mtime):
                continue
            image.sha256 = inspection.sha256_of(
                os.fsencode(image.absolute_path), size=image.size, mtime_ns=image.mtime_ns
            )
            image.read_at = image.created_at
            if image.state != "removed":
                image.state = row.state = "ready"
            image.save()
            vector = np.zeros((1, space.dim), dtype=np.float32)
            vector[0, row.picture] = 1
            embeddings.record(space, np.array([i], dtype=np.int64), vector)
            ledger.drop([i])
            row.read = True
            row.embedded = row.picture

    @rule()
    def crawl_again(self) -> None:
        report = crawl(self.source)
        self.source.refresh_from_db()
        self._expect(report)
        assert report.found == len(self.files if self.mounted else {})
        assert report.found == sum(getattr(report, name) for name in FILE_COUNTS)

    @rule()
    def crawl_twice(self) -> None:
        self.crawl_again()
        before = list(Image.objects.order_by("pk").values())
        work = set(Work.objects.values_list("image_id", "stage"))
        again = crawl(self.source)
        assert not (again.registered or again.moved or again.missing)
        assert list(Image.objects.order_by("pk").values()) == before
        assert set(Work.objects.values_list("image_id", "stage")) == work

    def _expect(self, report: CrawlReport) -> None:
        files = self.files if self.mounted else {}
        known = {row.path: i for i, row in self.rows.items()}
        there = moved = 0
        trusted = max(self.rows, default=0) if self.doubted_after is None else self.doubted_after
        for path, file in files.items():
            if path not in known:
                continue
            row = self.rows[known[path]]
            same = row.picture == file.picture
            if row.state == "missing" and row.read and same:
                row.state = "ready"
            elif row.state == "missing" or (row.picture, row.mtime) != (file.picture, file.mtime):
                row.state = "removed" if row.state == "removed" else "waiting"
                row.read = False
            row.picture, row.mtime, row.restored = file.picture, file.mtime, False
            there += row.state != "removed" and known[path] <= trusted
        absent = {i: row for i, row in sorted(self.rows.items()) if row.path not in files}
        new = {path: files[path] for path in sorted(files) if path not in known}
        for fits in (
            lambda row, path, file: row.read and row.picture == file.picture and _name(row.path) == _name(path),
            lambda row, path, file: row.read and row.picture == file.picture,
            lambda row, path, file: (
                not row.read
                and (_name(row.path), _size(row.picture), row.mtime) == (_name(path), _size(file.picture), file.mtime)
            ),
        ):
            for path, file in list(new.items()):
                i = next((i for i, row in absent.items() if fits(row, path, file)), None)
                if i is None:
                    continue
                row = absent.pop(i)
                row.path, row.picture, row.mtime, row.restored = path, file.picture, file.mtime, False
                if row.state == "missing":
                    row.state = "ready" if row.read else "waiting"
                del new[path]
                moved += 1
                there += i <= trusted
        gone = [row for row in absent.values() if row.state in HERE]
        everything = there + len(gone)
        elsewhere = self.remembered not in (None, self.standing)
        doubt = bool(gone) and (
            not files or (len(gone) > 0.5 * everything and (len(gone) >= 10 or elsewhere))
        )  # fmt: skip
        assert report.guarded == doubt, report.message
        assert (report.moved, report.missing) == (moved, 0 if doubt else len(gone))
        if doubt:
            self.doubted_after = trusted
        else:
            self.remembered, self.doubted_after = self.standing, None
            for row in gone:
                row.state = "missing"
        fresh = {os.fsdecode(path): i for i, path in Image.objects.exclude(pk__in=self.rows).values_list("pk", "path")}
        assert fresh.keys() == new.keys()
        assert all(i > max(self.rows, default=0) for i in fresh.values()), "ids are never used twice"
        for path, i in fresh.items():
            self.rows[i] = Row(path, new[path].picture, new[path].mtime)

    @invariant()
    def every_row_is_what_the_model_says(self) -> None:
        images = {image.pk: image for image in Image.objects.all()}
        assert images.keys() == self.rows.keys()
        tags: dict[int, set[str]] = {}
        for i, name in ImageTag.objects.values_list("image_id", "tag__name"):
            tags.setdefault(i, set()).add(name)
        for i, row in self.rows.items():
            image = images[i]
            said = (os.fsdecode(image.path), image.state, image.rating, frozenset(tags.get(i, ())))
            assert said == (row.path, row.state, row.rating, row.tags), i
            assert (image.size, image.mtime_ns) == (_size(row.picture), row.mtime * 10**9)
            assert (image.sha256 is not None) == row.read
            assert (image.name, image.folder) == (_name(row.path), os.path.dirname(row.path))
        self._work_is_what_is_lacking()
        self._embeddings_are_of_their_pictures()

    def _work_is_what_is_lacking(self) -> None:
        """What is there and waits has work; what is missing has none."""
        waiting = set(Work.objects.filter(stage="read").values_list("image_id", flat=True))
        for i, row in self.rows.items():
            if row.state == "waiting":
                assert i in waiting or row.restored
            elif row.state == "missing":
                assert not Work.objects.filter(image_id=i).exists()
            elif row.state == "ready" and row.read:
                assert i not in waiting

    def _embeddings_are_of_their_pictures(self) -> None:
        space = spaces.look_space()
        embedded = {i: row.embedded for i, row in self.rows.items() if row.embedded is not None}
        assert set(Embedding.objects.filter(space=space).values_list("image_id", flat=True)) == embedded.keys()
        if embedded:
            ids = np.array(sorted(embedded), dtype=np.int64)
            assert get_store(space).get(ids).argmax(axis=1).tolist() == [embedded[i] for i in sorted(embedded)]


def _name(path: str) -> str:
    return os.path.basename(path)


def _bytes(picture: int) -> bytes:
    """Pictures 0 to 2 have one size, 3 another."""
    return jpeg(picture).ljust(800 if picture < 3 else 900, b"\0")


def _size(picture: int) -> int:
    return len(_bytes(picture))


def _run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Crawls,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_ids_curation_and_embeddings_follow_the_files() -> None:
    assert django_settings.IMAGESEARCH_MASS_CHANGE == 0.5
    _run(examples=12, steps=25)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("examples", [150, pytest.param(600, marks=pytest.mark.rare)])
def test_ids_curation_and_embeddings_follow_the_files_for_long(examples: int) -> None:
    _run(examples=examples, steps=50)


def test_pictures_of_the_model_share_sizes_and_differ_in_bytes() -> None:
    assert len({_bytes(n) for n in PICTURES}) == len(PICTURES)
    assert len({_size(n) for n in PICTURES}) < len(PICTURES)
