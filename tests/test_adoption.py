"""Adopting an archive with real files and real encoders: what is proven goes in, the rest is queued."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from ingestion import ledger
from ingestion.models import Work
from ingestion.register import crawl, source_for
from search import embeddings, spaces
from search.models import Embedding, EmbeddingSpace, Image, Source
from search.vectors import get_store
from search.verification import verify
from tests import patterns
from tests.factories import make_source, make_user

pytestmark = pytest.mark.django_db(transaction=True)

COUNT = 40


def call(*args, status: int = 0, **options):  # type: ignore[no-untyped-def]
    out, err = StringIO(), StringIO()
    try:
        call_command(*map(str, args), stdout=out, stderr=err, **options)
        ended: object = 0
    except SystemExit as exit_:
        ended = exit_.code
    assert ended == status, (ended, out.getvalue(), err.getvalue())
    return out.getvalue(), err.getvalue()


def report(*args, status: int = 0):  # type: ignore[no-untyped-def]
    return json.loads(call(*args, "--json", status=status)[0].splitlines()[-1])


def counters_are_true() -> bool:
    said, real = ledger.counts(), ledger.count_anew()
    return {k: v for k, v in said.items() if any(v)} == {k: v for k, v in real.items() if any(v)}


def names(folder: Path) -> list[str]:
    return sorted(os.path.relpath(path, folder) for path in folder.rglob("*.jpg"))


def computed(folder: Path) -> np.ndarray:
    """The `look` vectors of a folder's pictures, by name, computed by the program itself and then forgotten again."""
    call("index", folder)
    space = spaces.look_space()
    ids = [Image.objects.get(path=os.fsencode(name)).pk for name in names(folder)]
    vectors = get_store(space).get(np.array(ids))
    return vectors.copy()


def forget_all(*, unread: bool = False) -> None:
    """As if the images had never been embedded (nor read): the work is queued, the vectors are gone."""
    space = spaces.look_space()
    ids = np.array(list(Image.objects.order_by("pk").values_list("pk", flat=True)))
    embeddings.forget(space, ids, ahead=lambda some: ledger.queue(some, [space.stage]))
    if unread:
        ledger.queue(ids, ["read"])
        Image.objects.update(read_at=None, sha256=None, state="waiting")
        ledger.recount()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return patterns.folder_of(tmp_path / "photos", COUNT)


@pytest.fixture
def vectors(folder: Path) -> np.ndarray:
    found = computed(folder)
    forget_all()
    return found


def save(tmp_path: Path, vectors: np.ndarray, lines: list[str] | list[bytes]) -> list[object]:
    """The archive as arguments of the command."""
    np.save(tmp_path / "archive.npy", vectors)
    (tmp_path / "paths.txt").write_bytes(b"".join(os.fsencode(line) + b"\n" for line in lines))
    return ["import_embeddings", tmp_path / "archive.npy", "--paths", tmp_path / "paths.txt"]


def believed() -> dict[str, np.ndarray]:
    """{file name: vector} of what the database believes; `verify` must agree."""
    space = spaces.look_space()
    verdict = next(one for one in verify(sample=COUNT) if one.space == space.name)
    assert verdict.ok, verdict
    ids = dict(Embedding.objects.filter(space=space).values_list("image_id", "image__name"))
    rows = get_store(space).get(np.array(sorted(ids), dtype=np.int64))
    return {ids[i]: row for i, row in zip(sorted(ids), rows, strict=True)}


def test_a_right_archive_is_accepted_bit_for_bit(folder: Path, tmp_path: Path, vectors) -> None:
    listed = names(folder)
    found = report(*save(tmp_path, vectors, listed), "--root", folder)
    assert (found["accepted"], found["queued"], found["wrong"], found["most_wrong"]) == (COUNT, 0, 0, 0)
    kept = believed()
    assert all(np.array_equal(kept[name], vector) for name, vector in zip(listed, vectors, strict=True))
    assert counters_are_true() and not Work.objects.exists()
    assert not list((tmp_path / "data" / "adoptions").glob("*/"))
    assert json.loads(Path(found["kept_at"]).read_text())["accepted"] == COUNT


@pytest.mark.parametrize("change", ["float16", "float64", "big endian", "fortran", "not normalised"])
def test_any_floating_type_and_layout_is_read(folder: Path, tmp_path: Path, vectors, change: str) -> None:
    made = {
        "float16": lambda: vectors.astype(np.float16),
        "float64": lambda: vectors.astype(np.float64),
        "big endian": lambda: vectors.astype(">f4"),
        "fortran": lambda: np.asfortranarray(vectors),
        "not normalised": lambda: vectors * np.linspace(0.5, 30, COUNT, dtype=np.float32)[:, None],
    }[change]()
    found = report(*save(tmp_path, made, names(folder)), "--root", folder)
    assert found["accepted"] == COUNT
    kept = believed()
    for name, vector in zip(names(folder), vectors, strict=True):
        assert float(kept[name] @ vector) > 0.9999


def test_a_slide_is_found_and_only_what_stands_before_it_accepted(folder: Path, tmp_path: Path, vectors) -> None:
    archive = np.concatenate([vectors[:25], vectors[26:], vectors[:1]])
    out, err = call(*save(tmp_path, archive, names(folder)), "--root", folder)
    kept = believed()
    assert sorted(kept) == names(folder)[:25]
    assert all(np.array_equal(kept[name], vectors[i]) for i, name in enumerate(names(folder)[:25]))
    assert counters_are_true() and Work.objects.filter(stage="embed:look", state="waiting").count() == 15
    assert "they have slid" in out and "1 row further back" in out and "--offset -1" in out
    assert f"{COUNT} rows are to be proven" in err.replace(",", "")
    again = report(*save(tmp_path, archive, names(folder)), "--root", folder, "--offset", "-1")
    assert again["accepted"] == 14 and again["queued"] == 1  # the vector of row 25 is nowhere
    call("process")
    assert len(believed()) == COUNT and counters_are_true()


def test_garbage_copies_of_one_vector_and_another_models_vectors_are_refused(
    folder: Path, tmp_path: Path, vectors
) -> None:
    noise = np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
    out, _ = call(*save(tmp_path, noise, names(folder)), "--root", folder, status=1)
    assert "These are not vectors of" in out and not Embedding.objects.exists()
    found = report(*save(tmp_path, np.tile(vectors[:1], (COUNT, 1)), names(folder)), "--root", folder)
    assert found["accepted"] == 1 and list(believed()) == ["photo0000.jpg"]
    with pytest.raises(CommandError, match=r"vectors of 32 numbers, but those of .* have 64|holds vectors of 32"):
        call(*save(tmp_path, noise[:, :32], names(folder)), "--root", folder)
    assert counters_are_true()


def test_rows_that_are_no_vectors_are_never_accepted(folder: Path, tmp_path: Path, vectors) -> None:
    archive = vectors.copy()
    archive[3], archive[7, 5], archive[9, 0] = 0, np.nan, np.inf
    found = report(*save(tmp_path, archive, names(folder)), "--root", folder)
    assert (found["unusable"], found["accepted"], found["queued"]) == (3, COUNT - 3, 3)
    assert counters_are_true()


def test_adopted_vectors_survive_the_first_reading_but_not_a_change_of_the_file(folder: Path, tmp_path: Path) -> None:
    vectors = computed(folder)
    forget_all(unread=True)
    call(*save(tmp_path, vectors, names(folder)), "--root", folder)
    assert counters_are_true() and set(Work.objects.values_list("stage", flat=True)) == {"read"}
    patterns.write(folder / "photo0001.jpg", 777, mtime=1_800_000_000)  # noticed by a crawl before it is read
    report("crawl", folder)
    assert "photo0001.jpg" not in believed() and counters_are_true()
    patterns.write(folder / "photo0002.jpg", 778, mtime=1_800_000_000)  # noticed only by reading
    made = dict(Embedding.objects.values_list("image__name", "created_at"))
    call("process")
    kept = believed()
    assert len(kept) == COUNT and counters_are_true() and not Work.objects.exists()
    now = dict(Embedding.objects.values_list("image__name", "created_at"))
    assert {name for name in now if now[name] != made.get(name)} == {"photo0001.jpg", "photo0002.jpg"}


def test_unknown_files_are_registered_by_a_crawl_and_absent_ones_reported(folder: Path, tmp_path: Path) -> None:
    vectors = computed(folder)
    shutil.copytree(folder, tmp_path / "other")
    listed = [*names(folder)[:-1], "not-there.jpg"]
    arguments = [*save(tmp_path, vectors, listed), "--root", tmp_path / "other"]
    dry = report(*arguments, "--dry-run", status=0)
    assert dry["absent"] == COUNT and dry["accepted"] == 0 and Source.objects.count() == 1
    assert "a --root that is new is crawled first" in call(*arguments, "--dry-run")[0]
    without = report(*arguments, "--no-crawl")
    assert without["unregistered"] == COUNT and without["accepted"] == 0
    found = report(*arguments)
    assert found["accepted"] == COUNT - 1 and found["absent"] == 1 and found["examples"] == ["not-there.jpg"]
    other = Source.objects.get(root=os.fsencode(tmp_path / "other"))
    assert Embedding.objects.filter(image__source=other).count() == COUNT - 1
    assert counters_are_true()


def test_absolute_paths_of_a_folder_that_is_not_in_the_catalogue_are_crawled_with_root(
    folder: Path, tmp_path: Path, vectors
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    arguments = save(tmp_path, vectors, [str(tmp_path / "other" / name) for name in names(folder)])
    said = call(*arguments)[0]
    assert "40 entries name no image of the catalogue" in said and "`--root FOLDER` crawls it first." in said
    said = call(*arguments, "--root", tmp_path / "other")[0]
    assert "40 rows were accepted" in said and "--root" not in said


def test_paths_keep_their_bytes_and_may_be_absolute_moved_or_of_a_source(tmp_path: Path) -> None:
    folder = patterns.folder_of(tmp_path / "photos", 6)
    odd = os.fsencode(folder) + b"/odd \xff\\name\r.jpg"
    os.rename(os.fsencode(folder / "photo0000.jpg"), odd)
    os.rename(folder / "photo0001.jpg", folder / "two\nlines.jpg")
    call("index", folder)
    space, paths = spaces.look_space(), {}
    for image in Image.objects.all():
        paths[os.path.join(os.fsencode(folder), image.path)] = get_store(space).get(np.array([image.pk]))[0].copy()
    np.save(tmp_path / "archive.npy", np.stack(list(paths.values())))
    old = os.fsencode(folder)

    def adopted(lines: list[bytes], *more: object, end: bytes = b"\0") -> int:
        forget_all()
        (tmp_path / "paths.txt").write_bytes(end.join(lines) + end)
        arguments = ["import_embeddings", tmp_path / "archive.npy", "--paths", tmp_path / "paths.txt", *more]
        return int(report(*arguments)["accepted"])

    assert adopted(list(paths)) == 6
    assert adopted([b"/mnt/old" + path[len(old) :] for path in paths], "--map", f"/mnt/old={folder}") == 6
    relative = [b"./" + os.path.relpath(path, old) for path in paths]
    assert adopted(relative, "--source", Source.objects.get().name) == 6
    (tmp_path / "link").symlink_to(folder)
    assert adopted([os.fsencode(tmp_path / "link") + path[len(old) :] for path in paths]) == 6
    assert adopted([b"no/such/folder/x.jpg"] * 6, "--source", Source.objects.get().name) == 0
    with pytest.raises(CommandError, match=r"is relative: say from where with --root FOLDER or --source NAME"):
        adopted(relative)
    forget_all()
    os.rename(folder / "two\nlines.jpg", folder / "one line.jpg")
    call("crawl", folder)
    lines = [path.replace(b"two\nlines", b"one line") for path in paths]
    assert adopted(lines, end=b"\n") == 6


@pytest.mark.parametrize("kind", ["csv", "csv of ids", "json", "json list", "json objects", "sqlite", "sqlite named"])
def test_tables_say_which_row_is_whose(folder: Path, tmp_path: Path, vectors, kind: str) -> None:
    order = np.random.default_rng(1).permutation(COUNT)
    rows = {name: int(np.flatnonzero(order == i)[0]) for i, name in enumerate(names(folder))}
    ids = dict(Image.objects.values_list("name", "pk"))
    file, more = tmp_path / "map", []
    if kind.startswith("csv"):
        with open(file, "w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["id" if "ids" in kind else "path", "row"])
            writer.writerows((ids[name] if "ids" in kind else folder / name, row) for name, row in rows.items())
    elif kind == "json":
        file.write_text(json.dumps({str(folder / name): row for name, row in rows.items()}))
    elif kind == "json list":
        file.write_text(json.dumps([str(folder / names(folder)[i]) for i in order]))
    elif kind == "json objects":
        file.write_text(json.dumps([{"path": str(folder / name), "row": row} for name, row in rows.items()]))
    else:
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE other (a, b)")
            columns = "path TEXT, vector_row INT" if kind == "sqlite" else "p TEXT, n INT"
            database.execute(f"CREATE TABLE pictures ({columns})")
            pairs = [(str(folder / name), row) for name, row in rows.items()]
            database.executemany("INSERT INTO pictures VALUES (?, ?)", pairs)
        database.close()
        more = [] if kind == "sqlite" else ["--table", "pictures", "--row-column", "n", "--path-column", "p"]
    np.save(tmp_path / "archive.npy", vectors[order])
    found = report("import_embeddings", tmp_path / "archive.npy", "--ids", file, *more)
    assert found["accepted"] == COUNT
    assert all(np.array_equal(believed()[name], vectors[i]) for i, name in enumerate(names(folder)[:3]))


def test_rows_of_one_image_must_agree(folder: Path, tmp_path: Path, vectors) -> None:
    listed = [*names(folder), names(folder)[0], names(folder)[1]]
    archive = np.concatenate([vectors, vectors[:1], vectors[5:6]])
    found = report(*save(tmp_path, archive, listed), "--root", folder)
    assert (found["copies"], found["conflicts"], found["accepted"]) == (1, 2, COUNT - 1)
    assert names(folder)[1] not in believed() and counters_are_true()


def test_what_has_a_vector_keeps_it_and_what_a_worker_holds_is_left_to_it(
    folder: Path, tmp_path: Path, vectors
) -> None:
    first = Image.objects.get(name="photo0000.jpg").pk
    call("process", "--limit", "1")
    mine = next(iter(Embedding.objects.values_list("image_id", "created_at")))
    owner = "elsewhere:1:x"
    ledger.claim(owner, ["embed:look"], 3)
    found = report(*save(tmp_path, vectors, names(folder)), "--root", folder)
    assert found["had_vector"] == 1 and found["busy"] == 3 and found["accepted"] == COUNT - 4
    assert mine in Embedding.objects.values_list("image_id", "created_at") and mine[0] != first
    assert counters_are_true()
    ledger.release(owner)
    call("process")
    assert len(believed()) == COUNT and counters_are_true()


def test_images_whose_files_are_gone_are_proven_by_their_neighbours(folder: Path, tmp_path: Path, vectors) -> None:
    (folder / "photo0011.jpg").unlink()
    (folder / "photo0012.jpg").unlink()
    call("crawl", folder)
    (folder / "photo0030.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    call("index", folder)
    forget_all()
    ledger.drop(Image.objects.exclude(state="ready").values_list("pk", flat=True))
    listed = [*names(folder)[:11], "photo0011.jpg", "photo0012.jpg", *names(folder)[11:]]
    found = report(*save(tmp_path, vectors, listed), "--root", folder, "--no-crawl")
    assert found["unknown"] == 2 and found["unreadable"] == 1 and found["accepted"] == COUNT - 1
    assert {"photo0011.jpg", "photo0012.jpg"} < set(believed()) and counters_are_true()


def test_a_dry_run_changes_nothing_and_says_the_same(folder: Path, tmp_path: Path, vectors) -> None:
    archive = np.concatenate([vectors[:30], vectors[:10]])
    before = ledger.counts()
    out, _ = call(*save(tmp_path, archive, names(folder)), "--root", folder, "--dry-run")
    assert "30 rows would be accepted" in out and not Embedding.objects.exists() and ledger.counts() == before
    found = report(*save(tmp_path, archive, names(folder)), "--root", folder)
    assert found["accepted"] == 30


def test_another_persons_images_are_none_of_the_archive(folder: Path, tmp_path: Path, vectors) -> None:
    make_user("second")
    found = report(*save(tmp_path, vectors, names(folder)), "--root", folder, "--user", "second")
    assert found["accepted"] == 0 and found["absent"] == COUNT and not Embedding.objects.exists()
    assert not Source.objects.get().access.exists()
    with pytest.raises(CommandError, match="There is no source named"):
        call(*save(tmp_path, vectors, names(folder)), "--source", Source.objects.get().name, "--user", "second")


def test_the_real_model_on_real_photos(shared: Path, dev_clip: str, tmp_path: Path, settings) -> None:
    """Vectors made by plain open_clip in bf16 and kept as float16: the break is found, and searches are right."""
    import open_clip
    import PIL.Image
    import torch

    photos = sorted((shared / "photos" / "captioned" / "flickr").glob("*.jpg"))[:60]
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in photos:
        shutil.copy(photo, folder / photo.name)
    settings.IMAGESEARCH_ENCODER = dev_clip
    model, _, preprocess = open_clip.create_model_and_transforms(dev_clip)
    model = model.eval().to(torch.bfloat16)
    with torch.inference_mode():
        pixels = torch.stack([preprocess(PIL.Image.open(photo).convert("RGB")) for photo in photos])
        made = model.encode_image(pixels.to(torch.bfloat16)).float().numpy()
    archive = np.concatenate([made[:41], made[42:], made[:1]]).astype(np.float16)
    found = report(*save(tmp_path, archive, [photo.name for photo in photos]), "--root", folder)
    assert found["accepted"] == 41 and found["queued"] == 19
    assert found["hints"][0]["shift"] == -1 and found["hints"][0]["offset"] == -1
    assert found["median_right"] > 0.998 and found["lowest_right"] > 0.99 and found["median_wrong"] < 0.9
    space = EmbeddingSpace.objects.get(encoder=dev_clip)
    kept = {Image.objects.get(pk=pk).name for pk in space.embeddings.values_list("image_id", flat=True)}
    assert kept == {photo.name for photo in photos[:41]}
    assert spaces.active_space() == space and counters_are_true()
    wrong = np.random.default_rng(0).standard_normal(made.shape).astype(np.float32)
    out, _ = call(*save(tmp_path, wrong, [photo.name for photo in photos]), "--root", folder, status=1)
    assert "These are not vectors of" in out


# --- sentences -----------------------------------------------------------------------------------------


def test_bad_input_gets_a_sentence(folder: Path, tmp_path: Path, vectors) -> None:
    def refused(match: str, *args: object) -> None:
        with pytest.raises(CommandError, match=match):
            call("import_embeddings", *args)
        assert not Embedding.objects.exists()

    good, paths = save(tmp_path, vectors, names(folder))[1], tmp_path / "paths.txt"
    refused("cannot be opened: No such file", tmp_path / "none.npy", "--paths", paths)
    refused("is a folder; name the .npy", tmp_path, "--paths", paths)
    refused("does not say whose its rows are", good)
    refused("cannot be opened: No such file", good, "--paths", tmp_path / "none.txt")
    (tmp_path / "text.npy").write_text("1 2 3")
    refused("is no NumPy file of vectors", tmp_path / "text.npy", "--paths", paths)
    np.save(tmp_path / "flat.npy", np.zeros(5, dtype=np.float32))
    refused("not a matrix of one row for each picture", tmp_path / "flat.npy", "--paths", paths)
    np.save(tmp_path / "ints.npy", np.zeros((5, 4), dtype=np.int8))
    refused("Quantised vectors cannot be adopted", tmp_path / "ints.npy", "--paths", paths)
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    refused("is no NumPy file of vectors", tmp_path / "objects.npy", "--paths", paths)
    np.savez(tmp_path / "other.npz", labels=np.zeros(3))
    refused("holds labels; one array named vectors", tmp_path / "other.npz", "--paths", paths)
    (tmp_path / "half.npy").write_bytes(Path(str(good)).read_bytes()[:-4000])
    refused("is no NumPy file of vectors", tmp_path / "half.npy", "--paths", paths)
    refused("There is no space 'nowhere'", good, "--paths", paths, "--space", "nowhere")
    refused("--sample is 0", good, "--paths", paths, "--sample", "0")
    refused("--map is 'x'", good, "--paths", paths, "--map", "x")
    refused("give one of them", good, "--paths", paths, "--root", "/", "--source", "x")
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    refused("does not say which row is whose: columns a, b", good, "--ids", table)
    refused("has no column 'c'. Its columns: a, b", good, "--ids", table, "--row-column", "c")
    table.write_text("path,row\nx.jpg,first\n")
    refused("A row number and a path belong in line 2", good, "--ids", table)
    table.write_text("")
    refused("does not say which row is whose: columns none", good, "--ids", table)
    (tmp_path / "bad.json").write_text("{]")
    refused("is no JSON", good, "--ids", tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("[[1]]")
    refused("neither a path nor an object", good, "--ids", tmp_path / "bad.json")
    with sqlite3.connect(tmp_path / "two.db") as database:
        database.execute("CREATE TABLE one (path, row)")
        database.execute("CREATE TABLE two (path, row)")
    database.close()
    refused("Say with --table which table", good, "--ids", tmp_path / "two.db")
    refused("has no table 'three'. Its tables: one, two", good, "--ids", tmp_path / "two.db", "--table", "three")
    (tmp_path / "two.db").write_bytes((tmp_path / "two.db").read_bytes()[:1000])
    refused("cannot be read as a SQLite database", good, "--ids", tmp_path / "two.db")


def test_a_list_of_another_length_is_told_and_proven_all_the_same(folder: Path, tmp_path: Path, vectors) -> None:
    out, _ = call(*save(tmp_path, vectors, [*names(folder)[:-2]]), "--root", folder)
    assert "The list has 38 entries for 40 rows" in out and len(believed()) == 38


def test_files_changed_since_the_crawl_are_left_to_the_workers(folder: Path, tmp_path: Path, vectors) -> None:
    patterns.write(folder / "photo0020.jpg", 999, mtime=1_800_000_000)
    found = report(*save(tmp_path, vectors, names(folder)), "--root", folder)
    assert found["unasked_reasons"] == {"The file changed since the last crawl.": 1}
    source, _ = source_for(folder)
    crawl(source)
    call("process")
    kept = believed()
    assert len(kept) == COUNT and float(kept["photo0020.jpg"] @ vectors[20]) < 0.99 and counters_are_true()


def test_relative_paths_of_a_source_that_is_not_there(tmp_path: Path, vectors) -> None:
    away = make_source(tmp_path / "away")
    found = report(*save(tmp_path, vectors, ["a.jpg"] * COUNT), "--source", away.name)
    assert found["absent"] == COUNT and found["unregistered"] == 0
    with pytest.raises(CommandError, match="There is no folder"):
        call(*save(tmp_path, vectors, ["a.jpg"] * COUNT), "--root", tmp_path / "nowhere")
