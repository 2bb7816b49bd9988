"""`verify` finds every wrong row and names it; `repair` queues exactly that."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from django.core.management import CommandError, call_command

from ingestion import ledger
from ingestion.models import Work
from ingestion.repair import Repairs, repair
from search import embeddings, spaces, thumbnails, verification
from search.encoders import get_encoder
from search.errors import StoreFault
from search.models import Embedding, EmbeddingSpace, Image
from search.vectors import get_store
from search.vectors.embedding_file import HEADER_BYTES, header
from search.verification import verify
from tests.factories import make_image, make_source

pytestmark = pytest.mark.django_db


@pytest.fixture
def library(tmp_path: Path) -> list[Image]:
    """Twelve pictures on disk, read and embedded in `look` the way the worker does it."""
    root = tmp_path / "photos"
    root.mkdir()
    source = make_source(root)
    encoder = get_encoder("look")
    images = []
    for number in range(12):
        pixels = PIL.Image.fromarray(np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(
            (320, 240)
        )
        path = root / f"{number}.png"
        pixels.save(path)
        found = path.stat()
        images.append(make_image(source, path.name, size=found.st_size, mtime_ns=found.st_mtime_ns))
        thumbnails.save(images[-1].pk, thumbnails.encode(thumbnails.make(pixels)))
        vectors = encoder.encode_images([encoder.prepare(pixels)])
        embeddings.record(spaces.look_space(), np.array([images[-1].pk]), vectors)
    return images


def the_verdict(**options):
    (verdict,) = verify(**options)
    return verdict


def spoil(image: Image) -> None:
    """Flip a bit of this image's row on the disk."""
    file = get_store(spaces.look_space()).file
    with open(file.path, "r+b") as raw:
        raw.seek(HEADER_BYTES + image.pk * file.dim * 4 + 10)
        byte = raw.read(1)
        raw.seek(-1, os.SEEK_CUR)
        raw.write(bytes([byte[0] ^ 1]))


def test_a_sound_library_verifies(library) -> None:
    verdict = the_verdict(sample=12)
    assert verdict.ok and verdict.rows == 12 and verdict.sampled == 12 and verdict.sample_skipped == 0
    ledger.recount()
    assert repair([verdict]) == Repairs()
    assert not Work.objects.exists()


def test_a_flipped_bit_is_named_and_repaired(library, capsys) -> None:
    victim = library[4]
    spoil(victim)
    with pytest.raises(SystemExit) as status:
        call_command("verify", "--json", "--sample", "0")
    assert status.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert said["spaces"][0]["mismatched"] == [victim.pk]
    assert said["paths"][str(victim.pk)] == victim.absolute_path_text
    done = repair()
    assert done.wrong_rows == 1
    assert list(Work.objects.values_list("image_id", "stage")) == [(victim.pk, spaces.look_space().stage)]
    assert not Embedding.objects.filter(image=victim).exists()
    assert the_verdict(sample=0).ok


def test_repair_of_one_wrong_row_reports_that_row_alone(library, capsys) -> None:
    """The work is queued ahead of forgetting the vector, so the counters were never wrong."""
    ledger.recount()
    spoil(library[4])
    call_command("repair", "--json", "--sample", "0")
    assert json.loads(capsys.readouterr().out) == dataclasses.asdict(Repairs(wrong_rows=1))
    assert ledger.counts() == ledger.count_anew()
    assert ledger.counts()[spaces.look_space().stage] == (1, 11, 0)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_wrong_is_found_in_blocks_of_any_length(
    library: list[Image], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(seed)
    space = spaces.look_space()
    store, ids = get_store(space), np.array([image.pk for image in library])
    monkeypatch.setattr(verification, "_BLOCK_BYTES", 4 * space.dim * int(chance.integers(1, 9)))
    wrong, unbelieved = np.split(chance.permutation(ids)[: chance.integers(0, 9)], [3])
    for image in library:
        if image.pk in wrong:
            spoil(image)
    Embedding.objects.filter(image__in=unbelieved.tolist()).delete()
    store.close()
    verdict = the_verdict(sample=12)
    assert verdict.mismatched == sorted(wrong.tolist()) and verdict.strays_zeroed == len(unbelieved)
    assert verdict.rows == 12 - len(unbelieved) and verdict.sampled == 12 - len(unbelieved) - len(wrong)
    assert not store.get(unbelieved).any()
    assert the_verdict(sample=0).strays_zeroed == 0


def test_a_sound_file_is_read_without_being_mapped(library: list[Image]) -> None:
    file = get_store(spaces.look_space()).file
    file.close()
    assert the_verdict(sample=0).rows == 12
    assert file._map is None


def test_rows_slid_by_one_are_all_found(library) -> None:
    """The failure this product must never have."""
    file = get_store(spaces.look_space()).file
    ids = np.array([image.pk for image in library])
    rows = file.get(ids)
    file.write(ids + 1, rows)
    verdict = the_verdict(sample=0)
    assert verdict.mismatched == ids[1:].tolist()
    assert verdict.strays_zeroed == 1


def test_a_vector_of_another_picture_with_a_right_crc_is_found_by_the_sample(library) -> None:
    space = spaces.look_space()
    embeddings.record(space, np.array([library[0].pk]), get_store(space).get(np.array([library[7].pk])))
    verdict = the_verdict(sample=12)
    assert [one for one, _ in verdict.drifted] == [library[0].pk] and not verdict.ok
    assert repair([verdict]).wrong_rows == 1


def test_rows_nobody_believes_are_zeroed(library) -> None:
    space = spaces.look_space()
    Embedding.objects.filter(image=library[2]).delete()
    verdict = the_verdict(sample=0)
    assert verdict.ok and verdict.strays_zeroed == 1
    assert not get_store(space).get(np.array([library[2].pk])).any()
    assert repair().never_embedded == 1


def test_files_that_changed_or_are_away_are_not_compared(library) -> None:
    os.unlink(library[0].absolute_path)
    os.utime(library[1].absolute_path)
    verdict = the_verdict(sample=12)
    assert verdict.ok and verdict.sampled == 10 and verdict.sample_skipped == 2


def test_a_cut_off_file_is_a_sentence_and_is_repaired(library) -> None:
    space = spaces.look_space()
    file = get_store(space).file
    os.truncate(file.path, HEADER_BYTES + (library[5].pk + 1) * file.dim * 4 + 7)
    verdict = the_verdict(sample=0)
    assert "cut off" in verdict.fault and "repair" in verdict.fault
    assert verdict.lost == verdict.mismatched == [image.pk for image in library[6:]]
    assert f"Past its end: 6 images ({library[6].pk}, " in verdict.fault and "and 1 more" in verdict.fault
    done = repair()
    assert done.cut_off == 1 and done.wrong_rows == 6
    assert the_verdict(sample=0).ok
    assert sorted(Work.objects.values_list("image_id", flat=True)) == [image.pk for image in library[6:]]


def test_a_missing_file_means_that_everything_is_computed_again(library) -> None:
    file = get_store(spaces.look_space()).file
    file.path.unlink()
    verdict = the_verdict(sample=0)
    assert verdict.mismatched == [image.pk for image in library]
    assert verdict.lost == verdict.mismatched
    assert str(file.path) in verdict.loss and "mount" in verdict.loss
    assert verdict.loss.endswith(f"of 12 images ({', '.join(str(image.pk) for image in library[:5])} and 7 more).")
    assert repair().wrong_rows == 12


def verified(*options: str, capsys) -> str:
    """What `manage.py verify` prints when something is wrong."""
    with pytest.raises(SystemExit) as status:
        call_command("verify", "--sample", "0", *options)
    assert status.value.code == 1
    return capsys.readouterr().out


def test_a_file_that_is_gone_is_one_sentence_and_each_image_on_demand(library, capsys) -> None:
    get_store(spaces.look_space()).file.path.unlink()
    said = verified(capsys=capsys)
    assert said.count("vectors.npy is not there") == 1 and "12 rows checked, 12 wrong" in said
    assert "wrong row" not in said and len(said.splitlines()) == 3
    everything = verified("--all", capsys=capsys)
    assert all(f"wrong row: {image.pk} {image.absolute_path_text}" in everything for image in library)
    (space,) = json.loads(verified("--json", capsys=capsys))["spaces"]
    assert space["lost"] == space["mismatched"] == [image.pk for image in library]


def test_a_shortened_file_is_one_sentence_and_rows_that_are_wrong_in_it_are_named(library, capsys) -> None:
    file = get_store(spaces.look_space()).file
    spoil(library[0])
    os.truncate(file.path, HEADER_BYTES + (library[9].pk + 1) * file.dim * 4)
    file.mend_length()
    said = verified(capsys=capsys)
    lost = f"{library[10].pk}, {library[11].pk}"
    assert f"{file.path} ends before the vectors of 2 images ({lost}): it was shortened" in said
    assert said.count("wrong row: ") == 1 and f"wrong row: {library[0].pk} " in said
    assert repair().wrong_rows == 3


def test_of_many_wrong_rows_the_first_are_named_and_the_others_counted(library, capsys, monkeypatch) -> None:
    monkeypatch.setattr("search.management.commands.verify.MOST_NAMED", 4)
    for image in library[1:]:
        spoil(image)
    said = verified(capsys=capsys)
    assert [f"wrong row: {image.pk} " in said for image in library] == [False] + 4 * [True] + 7 * [False]
    assert "wrong row: and 7 more; --all or --json names each" in said
    everything = verified("--all", capsys=capsys)
    assert everything.count("wrong row: ") == 11 and "and 7 more" not in everything
    assert json.loads(verified("--json", capsys=capsys))["spaces"][0]["mismatched"] == [i.pk for i in library[1:]]


def test_a_foreign_file_is_a_sentence_and_untouched(library) -> None:
    file = get_store(spaces.look_space()).file
    np.save(file.path, np.zeros((3, 3)))
    before = file.path.read_bytes()
    assert "is not an embedding file" in the_verdict().fault
    assert file.path.read_bytes() == before


def test_a_file_of_another_dimension_is_a_sentence_and_untouched(library) -> None:
    file = get_store(spaces.look_space()).file
    file.path.write_bytes(header(1024, file.dim // 2) + bytes(1024 * file.dim * 2))
    before = file.path.read_bytes()
    verdict = the_verdict()
    assert f"but its space has {file.dim}" in verdict.fault and not verdict.mismatched
    with pytest.raises(StoreFault, match="but its space has"):
        repair()
    assert file.path.read_bytes() == before


def test_lost_work_lost_thumbnails_and_wrong_counters_are_repaired(library) -> None:
    Image.objects.filter(pk=library[0].pk).update(state=Image.State.WAITING)
    thumbnails.delete([library[1].pk])
    ledger.queue([library[2].pk], ["read"])
    Work.objects.all().delete()
    done = repair()
    assert (done.never_read, done.no_thumbnail) == (1, 1)
    assert done.counters >= 1
    assert set(Work.objects.filter(stage="read").values_list("image_id", flat=True)) == {library[0].pk, library[1].pk}


def test_a_space_whose_encoder_is_away_is_checked_without_a_sample(library) -> None:
    EmbeddingSpace.objects.update(encoder="local-dir:/nowhere/at/all")
    verdict = the_verdict(sample=5)
    assert verdict.ok and verdict.sampled == 0 and "embedded again" in verdict.notes[0]


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_a_sample_below_none_is_refused(library, command) -> None:
    with pytest.raises(CommandError, match="--sample is -1; it accepts whole numbers from 0"):
        call_command(command, "--sample", "-1")
