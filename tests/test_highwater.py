"""Ids are never reused: the marks, the check, and the mending, in whichever database the tests run on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.db import connection, transaction

from search import highwater, spaces
from search.models import Counter, Image
from search.vectors import get_store
from tests.factories import make_image, make_source
from tests.photos import put

pytestmark = pytest.mark.django_db(transaction=True)


def raise_to(id: int, kind: str = "image") -> None:
    with transaction.atomic():
        highwater.raise_to(kind, id)


def kept() -> dict[str, int]:
    return json.loads(highwater.path().read_text())  # type: ignore[no-any-return]


def sequence_to(value: int) -> None:
    """Put the sequence where an old copy of the database would have it."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = 'search_image'")
            if value:
                cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('search_image', %s)", [value])
        else:
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence('search_image', 'id'), %s, %s)", [max(value, 1), value > 0]
            )


def test_the_mark_rises_in_the_database_and_after_the_commit_in_the_file() -> None:
    image = make_image()
    with transaction.atomic():
        highwater.raise_to("image", image.pk)
        assert not highwater.path().exists(), "never before the commit"
    assert kept() == {"image": image.pk} and Counter.objects.get(name="highwater:image").value == image.pk
    raise_to(image.pk - 1)
    assert kept() == {"image": image.pk}, "never lowered"
    assert highwater.check() == []
    highwater.require_sound_ids()


def test_a_rolled_back_insert_leaves_no_mark() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        highwater.raise_to("image", 10**9)
        raise ZeroDivisionError
    assert not highwater.path().exists() and not Counter.objects.filter(name="highwater:image").exists()


def test_the_mark_belongs_inside_a_transaction_and_to_a_known_kind() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        highwater.raise_to("image", 1)
    with pytest.raises(LookupError, match="'fish'"):
        raise_to(1, "fish")


@pytest.mark.parametrize("keeper", ["file", "counter", "rows"])
def test_an_old_database_beside_newer_files_is_refused_and_mended(keeper: str) -> None:
    source = make_source()
    last = [make_image(source).pk for _ in range(5)][-1]
    raise_to(last)
    if keeper != "rows":
        Image.objects.all().delete()
    if keeper != "counter":
        Counter.objects.all().delete()
    if keeper != "file":
        highwater.path().unlink()
    sequence_to(last - 4)
    [sentence] = highwater.check()
    assert f"would give the next image the id {last - 3:,}, but ids up to {last:,} were already given out" in sentence
    assert "manage.py repair --ids" in sentence
    with pytest.raises(highwater.UnsoundIds):
        highwater.require_sound_ids()
    assert highwater.mend() == [f"The next image gets the id {last + 1:,} instead of {last - 3:,}."]
    assert highwater.check() == [] and kept() == {"image": last}
    assert make_image(source).pk == last + 1
    assert highwater.mend() == []


def test_deleted_rows_do_not_give_their_ids_back() -> None:
    source = make_source()
    last = [make_image(source).pk for _ in range(3)][-1]
    raise_to(last)
    Image.objects.filter(pk=last).delete()
    assert make_image(source).pk == last + 1 and highwater.check() == []


def test_a_damaged_file_is_named_and_written_anew_from_what_is_there() -> None:
    space = spaces.look_space()
    vector = np.zeros((1, space.dim), dtype=np.float32)
    vector[0, 0] = 1
    top = make_image().pk + 50
    get_store(space).upsert(np.array([top], dtype=np.int64), vector)
    for damage in ("{half", "[1]", '{"image": "many"}'):
        highwater.path().write_text(damage)
        [sentence] = highwater.check()
        assert f"{highwater.path()} is damaged" in sentence and "repair --ids" in sentence
        with pytest.raises(highwater.UnsoundIds):
            highwater.require_sound_ids()
    done = highwater.mend()
    assert any("was damaged and is written anew" in sentence for sentence in done)
    assert kept() == {"image": top} and highwater.check() == []
    assert make_image().pk == top + 1, "the highest row of a vector file counts, whatever the database believes"


def test_no_crawl_registers_anything_while_ids_are_unsound(tmp_path: Path) -> None:
    from ingestion.register import crawl, source_for

    put(tmp_path / "photos" / "a.jpg")
    highwater.path().parent.mkdir(parents=True)
    given = make_image().pk + 20
    Image.objects.all().delete()
    highwater.path().write_text(json.dumps({"image": given}))
    with pytest.raises(highwater.UnsoundIds, match=f"ids up to {given:,} were already given out"):
        crawl(source_for(tmp_path / "photos")[0])
    assert not Image.objects.exists()
    call_command("repair", "--ids")
    crawl(source_for(tmp_path / "photos")[0])
    assert Image.objects.get().pk == given + 1


def test_many_processes_raise_the_file_and_none_lowers_it(settings: Any) -> None:
    code = (
        "import sys, django; django.setup(); from search import highwater\n"
        "for i in range(int(sys.argv[1]), 200, 4): highwater._raise_file({'image': i})"
    )
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "imagesearch.settings",
           "IMAGESEARCH_DATA": str(settings.IMAGESEARCH_DATA)}  # fmt: skip
    running = [subprocess.Popen([sys.executable, "-c", code, str(k)], env=env) for k in range(4)]
    assert [one.wait(timeout=120) for one in running] == [0, 0, 0, 0]
    assert kept() == {"image": 199}
