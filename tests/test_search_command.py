"""`manage.py search`: the whole way, in a process of its own and in this one."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from search import changes, embeddings
from search.encoders import get_encoder
from search.models import Change, Image
from search.spaces import look_space
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db

COLOURS = ["red", "green", "blue"]


@pytest.fixture
def library(tmp_path: Path) -> dict[str, Image]:
    owner = make_user("ann")
    source = make_source(tmp_path / "photos", owner=owner)
    encoder = get_encoder("look")
    images, inputs = {}, []
    for colour in COLOURS:
        picture = PIL.Image.new("RGB", (80, 60), colour)
        (tmp_path / "photos").mkdir(exist_ok=True)
        picture.save(tmp_path / "photos" / f"{colour}.png")
        images[colour] = make_image(source, f"{colour}.png")
        inputs.append(encoder.prepare(picture))
    ids = np.array([image.pk for image in images.values()])
    embeddings.record(look_space(), ids, encoder.encode_images(inputs))
    changes.record(Change.Kind.IMAGES, ids)
    return images


def search(*args: object, **options: object) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("search", *map(str, args), stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def report(*args: object) -> dict:
    out, _ = search(*args, "--json")
    assert out.count("\n") == 1
    return json.loads(out)


def test_the_report_is_one_line_of_json(library, tmp_path) -> None:
    found = report("blue")
    assert set(found) >= {"hits", "took_ms", "space", "unknown_words", "covered", "of"}
    assert found["hits"][0] == {
        "id": library["blue"].pk, "path": str(tmp_path / "photos" / "blue.png"), "score": found["hits"][0]["score"],
        "match": found["hits"][0]["match"],
    }  # fmt: skip
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert found["took_ms"] > 0 and found["covered"] == found["of"] == 3 and found["unknown_words"] == []


def test_it_costs_the_same_number_of_queries_for_few_and_many(library) -> None:
    report("blue")
    counts = set()
    for limit in (1, 3):
        with CaptureQueriesContext(connection) as queries:
            assert len(report("blue", "--limit", limit)["hits"]) == limit
        counts.add(len(queries))
    assert len(counts) == 1


def test_text_may_be_left_out_for_examples(library, tmp_path) -> None:
    red, green, blue = (library[colour].pk for colour in COLOURS)
    assert report("--image", tmp_path / "photos" / "red.png")["hits"][0]["id"] == red
    assert red not in [hit["id"] for hit in report("--like", red)["hits"]]
    both = report("--like", red, "--like", green, "--image", tmp_path / "photos" / "blue.png")
    assert [hit["id"] for hit in both["hits"]] == [blue]
    assert report("--not", "blue", "--not", "green")["hits"][0]["id"] == red
    assert report("red; green", "--not", "green", "--limit", "1")["hits"][0]["id"] == red
    assert len(report("blue", "--limit", 2)["hits"]) == 2


def test_filters_and_a_text_that_begins_with_a_minus_sign(library) -> None:
    library["red"].rating = 5
    library["red"].save()
    assert [hit["id"] for hit in report("rating:5")["hits"]] == [library["red"].pk]
    assert report("rating:5")["hits"][0]["score"] is None
    out = io.StringIO()
    call_command("search", "--json", "--", "-blue -green", stdout=out)
    assert json.loads(out.getvalue())["hits"][0]["id"] == library["red"].pk


def test_only_what_the_user_may_see(library) -> None:
    make_user("bob")
    assert len(report("blue", "--user", "ann")["hits"]) == 3
    assert report("blue", "--user", "bob")["hits"] == []
    with pytest.raises(CommandError, match="no user named 'carl'"):
        report("blue", "--user", "carl")


def test_people_read_score_number_and_path(library, tmp_path) -> None:
    out, err = search("blue")
    first = out.splitlines()[0].split(maxsplit=3)
    assert float(first[0]) > 0 and 0 <= int(first[1].removesuffix("%")) <= 100 and int(first[2]) == library["blue"].pk
    assert first[3] == str(tmp_path / "photos" / "blue.png") and err == ""
    out, err = search("zeppelin")
    assert out == "" and "looked for in names and tags: zeppelin." in err and "Nothing was found." in err


def test_it_says_when_nothing_matches_well(library, settings) -> None:
    nearest = "Nothing matches well; these are the nearest.\n"
    best = report("blue")["hits"][0]["match"]
    settings.IMAGESEARCH_MIN_MATCH = int(best)
    assert search("blue")[1] == ""
    settings.IMAGESEARCH_MIN_MATCH = int(best) + 1
    out, err = search("blue")
    assert out.count("\n") == 3 and err == nearest
    assert search("blue", "--json")[1] == "" and report("blue")["min_match"] == 0
    assert search("--like", library["blue"].pk)[1] == "", "who shows a picture asks for the nearest"
    assert search("rating:0")[1] == ""
    assert search("blue zeppelin")[1].endswith(nearest)
    zeppelin = make_image(library["red"].source, "zeppelin.jpg")
    embeddings.record(look_space(), np.array([zeppelin.pk]), np.eye(1, look_space().dim, dtype=np.float32))
    changes.record(Change.Kind.IMAGES, [zeppelin.pk])
    out, err = search("blue zeppelin")
    assert "zeppelin.jpg" in out.splitlines()[0] and nearest not in err, "found by its name"


def test_odd_names_stay_on_one_line_and_are_shown_with_escapes(library) -> None:
    source = library["red"].source
    odd = make_image(source, b"a\nb\xff zeppelin.jpg")
    changes.record(Change.Kind.IMAGES, [odd.pk])
    out, _ = search("zeppelin")
    assert out.splitlines() == [f"     -      -  {odd.pk:>8}  {source.root_text}/a\\nb\\xff zeppelin.jpg"]
    assert report("zeppelin")["hits"] == [
        {"id": odd.pk, "path": f"{source.root_text}/a\nb\\xff zeppelin.jpg", "score": None, "match": None}
    ]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "Say what to find"),
        (["  "], "Say what to find"),
        (["rating:9"], "0 to 5"),
        (["--like", "x"], "like:123"),
        (["--like", "99999"], "no picture 99999 that you may see"),
        (["--image", "/nowhere/x.jpg"], "/nowhere/x.jpg cannot be opened: No such file"),
        (["--image", "/"], "cannot be opened"),
        (["--image", __file__], "cannot be searched with"),
        (["x", "--limit", "0"], "from 1"),
        (["x", "--limit", "many"], "from 1"),
        (["source:nowhere"], "no source named"),
    ],
)
def test_bad_input_is_one_sentence(args: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        search(*args)


def test_the_command_in_a_process_of_its_own(sandbox) -> None:
    box = sandbox(IMAGESEARCH_ENCODER="look")
    done = box.manage("search", "blue", "--json")
    found = json.loads(done.stdout)
    assert found["hits"] == [] and found["covered"] == found["of"] == 0 and found["space"].startswith("look")
    failed = box.manage("search", "rating:9", check=False)
    assert failed.returncode == 1 and failed.stdout == "" and "Traceback" not in failed.stderr
    odd = box.manage("search", os.fsdecode(b"\xff\xfe"), "--json", check=False)
    assert odd.returncode == 0 and json.loads(odd.stdout)["hits"] == []
