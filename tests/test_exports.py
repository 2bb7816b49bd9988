"""Exports: what is in them, for whom, in flat memory, and sidecars as files beside originals that are never harmed."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import stat
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from search import archives, changes, curation, embeddings, exports
from search.models import Album, AlbumEntry, AlbumShare, Change, Image, Tag
from search.query import parse
from search.retrieval import find, reset_rankings
from search.sidecar_files import ExportFault, write_sidecars
from search.spaces import look_space
from tests.factories import make_image, make_source, make_user
from tests.photos import jpeg, put

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> Any:
    return make_user("ann")


@pytest.fixture
def library(tmp_path: Path, ann: Any) -> list[Image]:
    """Three pictures in folders, one of them with an odd name; newest last."""
    source = make_source(tmp_path / "photos", owner=ann, name="Photos")
    paths = [b"a.jpg", b"trip/b \xc3\xa4.jpg", b"trip/c\xff\n.jpg"]
    for number, path in enumerate(paths):
        put(os.path.join(os.fsencode(tmp_path / "photos"), path), number)
    images = [make_image(source, path, size=len(jpeg(n))) for n, path in enumerate(paths)]
    changes.record(Change.Kind.IMAGES, [image.pk for image in images])
    curation.tag([images[0].pk], ["beach", "Rome"], ann)
    Tag.objects.filter(name="Rome").update(parent=Tag.objects.create(name="Italy"))
    curation.rate([images[0].pk], 4, ann)
    curation.set_title([images[0].pk], '=HYPERLINK("x"), "quoted"', ann)
    curation.rate([images[1].pk], 5, ann)
    curation.rate([images[1].pk], 0, ann)
    return images


def whole(stream) -> bytes:
    return b"".join(stream)


def unzipped(stream) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(whole(stream))) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def everything(user: Any = None, text: str = "") -> exports.Chosen:
    return exports.of_query(parse(text, {}), user)


# --- JSON and CSV -----------------------------------------------------------------------------------


def test_json_holds_every_image_and_what_is_known_of_it(library, ann) -> None:
    found = json.loads(whole(exports.as_json(everything(ann, "order:oldest"))))
    assert found["count"] == 3 and [one["id"] for one in found["images"]] == sorted(image.pk for image in library)
    first, second, odd = found["images"]
    assert first["title"] == '=HYPERLINK("x"), "quoted"' and first["rating"] == 4
    assert first["tags"] == ["beach", "Italy/Rome"] and first["source"] == "Photos" and first["path"] == "a.jpg"
    assert second["path"] == "trip/b ä.jpg" and "path_hex" not in second
    assert bytes.fromhex(odd["path_hex"]) == b"trip/c\xff\n.jpg"
    assert "file" not in first  # where the folder lies is for those who run the server
    assert json.loads(whole(exports.as_json(everything())))["images"][0]["file"].endswith(".jpg")


def test_csv_is_read_back_and_no_cell_is_a_formula(library, ann) -> None:
    text = whole(exports.as_csv(everything(ann, "order:oldest"))).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert (
        len(rows) == 3 and rows[0]["title"] == '\'=HYPERLINK("x"), "quoted"' and rows[0]["tags"] == "beach; Italy/Rome"
    )
    assert rows[1]["rating"] == "0" and rows[0]["favourite"] == "no" and rows[0]["latitude"] == ""
    assert not [cell for row in rows for cell in row.values() if cell[:1] in "=+-@" and cell]


def test_a_ranked_query_comes_in_its_order_with_scores_beyond_the_first_page(ann, settings) -> None:
    source = make_source(owner=ann)
    images = [make_image(source) for _ in range(70)]
    space = look_space()
    rows = np.random.default_rng(1).standard_normal((70, space.dim)).astype(np.float32)
    embeddings.record(
        space, np.array([image.pk for image in images]), rows / np.linalg.norm(rows, axis=1, keepdims=True)
    )
    query = parse("blue", {})
    page = find(query, ann)
    found = list(exports.rows(exports.of_query(query, ann)))
    assert page.total == len(found) == 70 > len(page.hits)
    assert [row.image.pk for row in found[:60]] == [hit.id for hit in page.hits]
    assert [row.score for row in found[:60]] == [hit.score for hit in page.hits]
    best = exports.rows(exports.of_query(query, ann).best(3))
    assert [row.image.pk for row in best] == [hit.id for hit in page.hits[:3]]
    settings.IMAGESEARCH_MAX_RESULTS = 10
    reset_rankings()
    assert "10 best" in exports.of_query(query, ann).notices[-1]
    assert len(everything(ann)) == 70  # without a ranking nothing is left out, whatever that setting says


def test_only_what_the_person_may_see_and_what_is_listed(library, ann) -> None:
    bob = make_user("bob")
    for choose in (everything, lambda user: exports.of_images([image.pk for image in library], user)):
        assert json.loads(whole(exports.as_json(choose(bob))))["images"] == []
        assert unzipped(archives.originals(choose(bob))) == unzipped(archives.of_sidecars(choose(bob), "digikam")) == {}
        assert len(list(exports.rows(choose(ann)))) == 3
    chosen = exports.of_images([image.pk for image in library], ann)
    curation.remove([library[0].pk], ann)
    library[1].source.access.all().delete()  # taken away after the choice was made
    assert list(exports.rows(chosen)) == []


def test_an_album_comes_in_its_order_to_those_it_is_shared_with(library, ann) -> None:
    bob, album = make_user("bob"), Album.objects.create(owner=ann, name="Best of")
    for position, (image, score) in enumerate(zip(reversed(library), [0.5, None, 0.25], strict=True)):
        AlbumEntry.objects.create(album=album, image=image, position=position, score=score)
    rows = list(exports.rows(exports.of_album(exports.album_named("Best of", ann), ann)))
    assert [(row.image.pk, row.score) for row in rows] == [
        (library[2].pk, 0.5), (library[1].pk, None), (library[0].pk, 0.25)
    ]  # fmt: skip
    with pytest.raises(Exception, match="no album"):
        exports.album_named("Best of", bob)
    AlbumShare.objects.create(album=album, user=bob)
    assert exports.album_named(str(album.pk), bob) == album
    assert list(exports.rows(exports.of_album(album, bob))) == []  # the album, but not the source


def test_rows_cost_the_same_queries_for_any_number_of_tags(library, ann) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            list(exports.rows(exports.of_images([image.pk for image in library], ann)))
        return len(captured)

    cost()
    before = cost()
    curation.tag([image.pk for image in library], [f"tag {n}" for n in range(20)], ann)
    assert cost() == before


# --- archives ---------------------------------------------------------------------------------------


def test_originals_come_in_their_folders_and_what_lacks_is_listed(library, ann, tmp_path) -> None:
    (tmp_path / "photos" / "a.jpg").unlink()
    found = unzipped(archives.originals(everything(ann)))
    assert found["Photos/trip/b ä.jpg"] == jpeg(1)
    assert found["Photos/trip/c\\xff_.jpg".replace("\\", "_")] == jpeg(2)
    assert "Photos/a.jpg" not in found
    assert "Photos/a.jpg: the file is not there any more" in found[archives.MISSING].decode()
    with zipfile.ZipFile(io.BytesIO(whole(archives.originals(everything(ann))))) as archive:
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_link_out_of_the_source_is_no_original(library, ann, tmp_path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    (tmp_path / "photos" / "a.jpg").unlink()
    (tmp_path / "photos" / "a.jpg").symlink_to(secret)
    data = whole(archives.originals(everything(ann)))
    assert b"secret" not in data.replace(b"secret.jpg", b"")


def test_names_in_an_archive_are_unique_also_where_capitals_do_not_count(ann, tmp_path) -> None:
    source = make_source(tmp_path / "photos", owner=ann, name="..")
    paths = [b"A.JPG", b"a.jpg", b"x:y.jpg", b"x?y.jpg", b"not-included.txt", b"e\xcc\x81.jpg", b"\xc3\xa9.jpg"]
    for number, path in enumerate(paths):
        put(os.path.join(os.fsencode(tmp_path / "photos"), path), number)
        make_image(source, path)
    found = unzipped(archives.originals(everything(ann)))
    assert len({name.casefold() for name in found}) == len(paths)
    assert set(found.values()) == {jpeg(n) for n in range(len(paths))}
    assert not [name for name in found if name.startswith("/") or ".." in name.split("/")]


def test_a_file_that_shrinks_or_fails_while_it_is_read_is_named(library, ann, tmp_path, monkeypatch) -> None:
    large = tmp_path / "photos" / "a.jpg"
    large.write_bytes(os.urandom(3 * archives.BLOCK))
    stream = archives.originals(exports.of_images([library[0].pk, library[1].pk], ann))
    parts = [next(stream)]
    os.truncate(large, archives.BLOCK)
    found = unzipped([*parts, *stream])
    assert len(found["Photos/a.jpg"]) == archives.BLOCK and found["Photos/trip/b ä.jpg"] == jpeg(1)
    assert "cut off in the archive" in found[archives.MISSING].decode()


def test_an_archive_takes_flat_memory(ann, tmp_path) -> None:
    source = make_source(tmp_path / "photos", owner=ann)
    block = os.urandom(1 << 20)
    for number in range(6):
        with open(_made(tmp_path / "photos" / f"{number}.jpg"), "wb") as file:
            for _ in range(32):
                file.write(block)
        make_image(source, f"{number}.jpg")
    chosen = everything(ann)
    tracemalloc.start()
    total = sum(len(part) for part in archives.originals(chosen))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > 6 * 32 * len(block) and peak < 16 << 20, peak


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_flat_memory(ann) -> None:
    source = make_source(owner=ann)
    template = make_image(source)
    fields = {f.attname: getattr(template, f.attname) for f in Image._meta.concrete_fields if f.name != "id"}
    from search.models import path_digest

    for start in range(0, 100_000, 5_000):
        Image.objects.bulk_create(
            [
                Image(**{**fields, "path": b"%d.jpg" % n, "path_digest": path_digest(b"%d.jpg" % n)})
                for n in range(start, start + 5_000)
            ]
        )
    chosen = everything(ann)
    next(exports.as_csv(chosen))
    for stream in (exports.as_json, exports.as_csv):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        total = sum(len(part) for part in stream(chosen))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kilobytes (bytes on macOS)
        assert total > 10_000_000 and grown < 20_000 * (1024 if sys.platform == "darwin" else 1), grown


@pytest.mark.slow
def test_more_than_four_gigabytes_in_one_file_are_sound(ann, tmp_path) -> None:
    """A sparse file: ZIP64 sizes, and an archive that the standard library reads back."""
    source = make_source(tmp_path / "photos", owner=ann)
    with open(_made(tmp_path / "photos" / "big.jpg"), "wb") as file:
        file.truncate((4 << 30) + 12345)
    make_image(source, "big.jpg")
    (tmp_path / "out.zip").touch()
    with open(tmp_path / "out.zip", "r+b") as out:
        for part in archives.originals(everything(ann)):
            if part.count(0) == len(part):
                out.seek(len(part), os.SEEK_CUR)  # keeps the test's file sparse as well
            else:
                out.write(part)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.infolist()[0].file_size == (4 << 30) + 12345 and archive.testzip() is None


# --- sidecars as files ------------------------------------------------------------------------------


def beside(user: Any, naming: str = "digikam", **options: Any):
    return write_sidecars(everything(user), naming, **options)


def test_sidecars_beside_the_originals_touch_nothing_else(library, ann, tmp_path) -> None:
    root = tmp_path / "photos"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*.jpg")}
    report = beside(ann)
    assert (report.written, report.nothing, report.problems) == (2, 1, [])
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*.jpg")} == before
    made = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path not in before)
    assert made == ["a.jpg.xmp", "trip/b ä.jpg.xmp"]
    assert b'Rating="0"' in (root / "trip" / "b ä.jpg.xmp").read_bytes()
    stamp = (root / "a.jpg.xmp").stat().st_mtime_ns
    assert beside(ann).unchanged == 2 and (root / "a.jpg.xmp").stat().st_mtime_ns == stamp


def test_a_raw_file_and_its_jpeg_do_not_share_a_sidecar(ann, tmp_path) -> None:
    source = make_source(tmp_path / "photos", owner=ann)
    for name in ("x.JPG", "x.CR2"):
        put(tmp_path / "photos" / name, 1)
    raw, picture = make_image(source, "x.CR2"), make_image(source, "x.JPG")
    curation.rate([raw.pk], 1, ann)
    curation.rate([picture.pk], 2, ann)
    for order in ("", "order:oldest"):
        write_sidecars(everything(ann, order), "lightroom")
        texts = {path.name: path.read_text() for path in (tmp_path / "photos").glob("*.xmp")}
        assert len(texts) == 2 and 'Rating="' in texts["x.xmp"]
        short = "1" if 'SidecarForExtension="CR2"' in texts["x.xmp"] else "2"
        other = texts.get("x.JPG.xmp", texts.get("x.CR2.xmp", ""))
        assert f'Rating="{short}"' in texts["x.xmp"] and f'Rating="{3 - int(short)}"' in other
    assert len(unzipped(archives.of_sidecars(everything(ann), "lightroom"))) == 2


def test_what_is_no_sidecar_of_ours_is_merged_or_left_alone(library, ann, tmp_path) -> None:
    root = tmp_path / "photos"
    (root / "a.jpg.xmp").write_bytes(b"not xml at all")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (root / "trip" / "b ä.jpg.xmp").symlink_to(victim)
    report = beside(ann)
    assert report.written == 0 and len(report.problems) == 2
    assert (root / "a.jpg.xmp").read_bytes() == b"not xml at all" and victim.read_bytes() == b"precious"
    assert "no whole XML" in " ".join(report.problems) and "no plain file" in " ".join(report.problems)
    assert not list(root.rglob(".imagesearch*"))


def test_a_sidecar_that_changes_meanwhile_is_not_written_over(library, ann, tmp_path, monkeypatch) -> None:
    from search import sidecar_files

    path = tmp_path / "photos" / "a.jpg.xmp"
    write_sidecars(exports.of_images([library[0].pk], ann), "digikam")
    curation.rate([library[0].pk], 1, ann)
    real = sidecar_files.sidecar

    def slow(said, *, existing=None, extension=""):
        made = real(said, existing=existing, extension=extension)
        path.write_bytes(b"somebody else's")
        return made

    monkeypatch.setattr(sidecar_files, "sidecar", slow)
    report = write_sidecars(exports.of_images([library[0].pk], ann), "digikam")
    assert report.written == 0 and "changed by another program" in report.problems[0]
    assert path.read_bytes() == b"somebody else's" and not list(path.parent.glob(".imagesearch*"))


def test_mode_is_kept_and_an_original_that_is_gone_gets_no_sidecar(library, ann, tmp_path) -> None:
    root = tmp_path / "photos"
    beside(ann)
    os.chmod(root / "a.jpg.xmp", 0o600)
    curation.rate([library[0].pk], 2, ann)
    assert beside(ann).written == 1 and stat.S_IMODE((root / "a.jpg.xmp").stat().st_mode) == 0o600
    (root / "a.jpg").unlink()
    curation.rate([library[0].pk], 3, ann)
    assert "not there" in beside(ann).problems[0]


def test_no_room_left_is_said_and_leaves_no_half_file(library, ann, tmp_path, monkeypatch) -> None:
    import errno

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportFault, match="no room left"):
        beside(ann)
    assert not [path for path in (tmp_path / "photos").rglob("*") if path.is_file() and path.suffix != ".jpg"]


def test_viewers_may_not_write_beside_but_into_a_folder_of_their_own(library, ann, tmp_path) -> None:
    from search.models import SourceAccess

    eve = make_user("eve")
    SourceAccess.objects.create(source=library[0].source, user=eve, role="viewer")
    report = beside(eve)
    assert (report.written, report.not_allowed) == (0, 3) and not list((tmp_path / "photos").rglob("*.xmp"))
    assert beside(eve, folder=str(tmp_path / "out")).written == 2
    assert (tmp_path / "out" / "Photos" / "a.jpg.xmp").is_file()


# --- the command ------------------------------------------------------------------------------------


def command(*args: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command("export", *map(str, args), stdout=out, stderr=io.StringIO(), **options)
    return out.getvalue()


def test_the_command_writes_each_format(library, tmp_path) -> None:
    command("tag:beach", "--format", "json", "--to", tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_bytes())["count"] == 1
    command("--format", "csv", "--to", tmp_path / "x.csv", "--user", "ann")
    assert (tmp_path / "x.csv").read_bytes().count(b"\r\n") == 4
    command("--format", "zip", "--to", tmp_path / "x.zip", "--best", 2)
    assert len(zipfile.ZipFile(tmp_path / "x.zip").namelist()) == 2
    command("--format", "xmp", "--to", tmp_path / "s.zip", "--names", "lightroom")
    assert sorted(zipfile.ZipFile(tmp_path / "s.zip").namelist()) == ["Photos/a.xmp", "Photos/trip/b ä.xmp"]
    assert json.loads(command("--format", "xmp", "--to", tmp_path / "out", "--json"))["written"] == 2
    assert "2 sidecars written" in command("--format", "xmp", "--beside")
    command("--ids", library[2].pk, library[0].pk, "--format", "json", "--to", tmp_path / "ids.json")
    found = json.loads((tmp_path / "ids.json").read_bytes())["images"]
    assert [one["id"] for one in found] == [library[2].pk, library[0].pk]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--format", "json"], "Say where to"),
        (["--format", "json", "--beside"], "--beside goes with"),
        (["--format", "xmp", "--beside", "--to", "x"], "--beside goes with"),
        (["x", "--album", "y", "--format", "json", "--to", "-"], "exclude each other"),
        (["--album", "y", "--format", "json", "--to", "-"], "no album 'y'"),
        (["rating:9", "--format", "json", "--to", "-"], "0 to 5"),
        (["--format", "json", "--to", "/nowhere/x.json"], "cannot be written"),
        (["--format", "json", "--to", "/"], "is there already"),
        (["--format", "zip", "--to", __file__], "is there already"),
        (["--format", "zip", "--to", "/", "--overwrite"], "is a folder"),
        (["--format", "xmp", "--to", __file__], "is a file"),
        (["--format", "json", "--to", "-", "--best", "0"], "from 1"),
        (["--format", "json", "--to", "-", "--user", "carl"], "no user named"),
    ],
)
def test_bad_input_is_one_sentence(args: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        command(*args)


def test_the_command_of_a_stranger_sees_nothing(library, tmp_path) -> None:
    make_user("bob")
    command("--format", "json", "--to", tmp_path / "x.json", "--user", "bob")
    assert json.loads((tmp_path / "x.json").read_bytes())["count"] == 0


def test_a_failed_export_leaves_the_file_that_was_there(library, tmp_path, monkeypatch) -> None:
    target = tmp_path / "x.json"
    target.write_bytes(b"old")

    def fails(*_: Any, **__: Any):
        yield b"half"
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(exports, "as_json", fails)
    with pytest.raises(CommandError, match="Input/output error"):
        command("--format", "json", "--to", target, "--overwrite")
    assert target.read_bytes() == b"old" and os.listdir(tmp_path).count("x.json") == 1
    assert not list(tmp_path.glob(".imagesearch*"))


def test_an_export_of_what_nothing_matches_well_says_how_to_take_the_nearest(library, tmp_path, settings) -> None:
    settings.IMAGESEARCH_MIN_MATCH = 100
    space, rng = look_space(), np.random.default_rng(1)
    rows = rng.normal(size=(len(library), space.dim)).astype(np.float32)
    embeddings.record(space, [one.pk for one in library], rows / np.linalg.norm(rows, axis=1, keepdims=True))
    said, target = io.StringIO(), tmp_path / "x.json"
    call_command("export", "red", "--format", "json", "--to", str(target), stdout=io.StringIO(), stderr=said)
    assert json.loads(target.read_bytes())["count"] == 0 and "--min 0" in said.getvalue()
    command("red", "--min", 0, "--best", 2, "--format", "json", "--to", target, "--overwrite")
    assert json.loads(target.read_bytes())["count"] == 2
