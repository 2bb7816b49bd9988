"""Sidecars beside the originals: read with them, read again when they come, change or go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingestion import ledger
from ingestion.register import crawl, source_for
from ingestion.worker import Worker
from search import curation, exports
from search.models import Image, ImageTag
from search.query import parse
from search.sidecar_files import write_sidecars
from search.sidecars import Said, sidecar
from tests.factories import make_user
from tests.photos import put
from tests.test_worker import assert_sound

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    put(folder / "trip" / "IMG.jpg", 1)
    put(folder / "trip" / "IMG2.jpg", 2)
    return folder


def settle(root: Path) -> dict[str, Image]:
    crawl(source_for(root)[0])
    Worker(threads=2).run()
    assert_sound()
    return {image.name: image for image in Image.objects.all()}


def tags(image: Image) -> list[str]:
    return sorted(ImageTag.objects.filter(image=image).values_list("tag__name", flat=True))


def later(path: Path, data: bytes) -> None:
    """Write with another modification time than before, as a while later would."""
    before = path.stat().st_mtime_ns if path.exists() else None
    path.write_bytes(data)
    if before is not None:
        os.utime(path, ns=(before + 10**9, before + 10**9))


def test_a_sidecar_is_read_with_its_picture_and_the_full_name_comes_first(root: Path) -> None:
    (root / "trip" / "IMG.xmp").write_bytes(sidecar(Said(2, "From Lightroom", (("lr",),))))
    (root / "trip" / "IMG.jpg.xmp").write_bytes(sidecar(Said(5, None, (("dk",), ("A", "b")))))
    found = settle(root)
    one, other = found["IMG.jpg"], found["IMG2.jpg"]
    assert (one.rating, one.title, one.rating_origin) == (5, "From Lightroom", "file") and tags(one) == ["b", "dk"]
    assert other.rating == 0 and tags(other) == []


def test_a_sidecar_for_another_extension_says_nothing_here(root: Path) -> None:
    (root / "trip" / "IMG.xmp").write_bytes(sidecar(Said(2, "Of the raw file"), extension="CR2"))
    assert settle(root)["IMG.jpg"].title == ""


def test_sidecars_that_come_change_and_go_are_noticed(root: Path) -> None:
    path = root / "trip" / "IMG.jpg.xmp"
    first = settle(root)
    read_at = first["IMG2.jpg"].read_at
    path.write_bytes(sidecar(Said(3, "One", (("a",),))))
    assert settle(root)["IMG.jpg"].title == "One"
    later(path, sidecar(Said(1, "Two", (("b",),))))
    found = settle(root)["IMG.jpg"]
    assert (found.title, found.rating, tags(found)) == ("Two", 1, ["b"])
    path.unlink()
    found = settle(root)
    assert (found["IMG.jpg"].title, found["IMG.jpg"].rating, tags(found["IMG.jpg"])) == ("", 0, [])
    assert found["IMG2.jpg"].read_at == read_at  # nobody else was read again
    assert found["IMG.jpg"].pk == first["IMG.jpg"].pk and found["IMG.jpg"].state == "ready"


def test_a_person_has_the_last_word(root: Path) -> None:
    owner = make_user("root", staff=True)
    path = root / "trip" / "IMG.jpg.xmp"
    path.write_bytes(sidecar(Said(3, "Theirs", (("a",), ("b",)))))
    image = settle(root)["IMG.jpg"]
    curation.rate([image.pk], 0, owner)
    curation.set_title([image.pk], "", owner)
    curation.untag([image.pk], ["a"], owner)
    later(path, sidecar(Said(4, "Theirs again", (("a",), ("b",), ("c",)))))
    image = settle(root)["IMG.jpg"]
    assert (image.rating, image.title, tags(image)) == (0, "", ["b", "c"])


def test_what_was_exported_and_taken_away_does_not_come_back(root: Path) -> None:
    owner = make_user("root", staff=True)
    image = settle(root)["IMG.jpg"]
    curation.tag([image.pk], ["mine", "stays"], owner)
    curation.rate([image.pk], 4, owner)

    def export() -> None:
        report = write_sidecars(exports.of_query(parse("", {}), owner), "digikam")
        assert report.problems == []

    export()
    assert tags(settle(root)["IMG.jpg"]) == ["mine", "stays"]
    curation.untag([image.pk], ["mine"], owner)
    path = root / "trip" / "IMG.jpg.xmp"
    os.utime(path, ns=(1, 1))  # touched: read again, and the sidecar still has the tag
    assert tags(settle(root)["IMG.jpg"]) == ["stays"]
    export()
    assert b"mine" not in path.read_bytes() and tags(settle(root)["IMG.jpg"]) == ["stays"]


def test_the_catalogue_made_anew_reads_everything_back_from_the_sidecars(root: Path) -> None:
    owner = make_user("root", staff=True)
    found = settle(root)
    curation.tag([found["IMG.jpg"].pk], ["a & b", "日本"], owner)
    curation.rate([found["IMG2.jpg"].pk], 5, owner)
    curation.set_title([found["IMG.jpg"].pk], "<Title>", owner)
    write_sidecars(exports.of_query(parse("", {}), owner), "lightroom")
    from search.models import Embedding

    ImageTag.objects.all().delete()
    Embedding.objects.all().delete()
    Image.objects.all().delete()
    ledger.recount()
    again = settle(root)
    assert (again["IMG.jpg"].title, tags(again["IMG.jpg"])) == ("<Title>", ["a & b", "日本"])
    assert again["IMG2.jpg"].rating == 5


@pytest.mark.parametrize(
    "data", [b"", b"not xml", b"\x00" * 100, b"<x:xmpmeta", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"]
)
def test_a_broken_sidecar_never_harms_its_picture(root: Path, data: bytes) -> None:
    (root / "trip" / "IMG.jpg.xmp").write_bytes(data)
    assert settle(root)["IMG.jpg"].state == "ready"


def test_a_sidecar_that_is_a_link_a_folder_or_a_pipe_is_not_read(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.xmp").write_bytes(sidecar(Said(5)))
    (root / "trip" / "IMG.jpg.xmp").symlink_to(tmp_path / "elsewhere.xmp")
    os.mkfifo(root / "trip" / "IMG.xmp")
    (root / "trip" / "IMG2.jpg.xmp").mkdir()
    found = settle(root)
    assert found["IMG.jpg"].rating == 0 and found["IMG2.jpg"].state == "ready"
