"""Identify, on real photos: what is in the collection is found, what is not is said to be not."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from search import changes, curation, embeddings, identification, references
from search.encoders import get_encoder
from search.errors import BadQuery, EncoderUnavailable
from search.identification import identify
from search.likeness import Finding
from search.models import Album, AlbumEntry, Change, EmbeddingSpace, Image
from search.spaces import activate, ensure_space, look_space
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db
CLAIMS = {Finding.LIKELY, Finding.ALIKE}


def opened(path: Path) -> PIL.Image.Image:
    with PIL.Image.open(path) as picture:
        return picture.convert("RGB")


def fill(space: EmbeddingSpace, pictures: dict[Image, PIL.Image.Image]) -> None:
    encoder = get_encoder(space.encoder)
    vectors = encoder.encode_images([encoder.prepare(picture) for picture in pictures.values()])
    embeddings.record(space, np.array([image.pk for image in pictures], dtype=np.int64), vectors)
    changes.record(Change.Kind.IMAGES, [image.pk for image in pictures])


@pytest.fixture
def owner() -> Any:
    return make_user("anna")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    identification.reset_samples()


@pytest.fixture
def mobilenet(shared: Path) -> EmbeddingSpace:
    spec = f"onnx:{shared / 'models' / 'mobilenetv2'}"
    space = ensure_space(get_encoder(spec), spec)
    activate(space)
    return space


@pytest.fixture
def things(shared: Path, owner: Any, mobilenet: EmbeddingSpace) -> dict[str, Image]:
    """Ten photos of things as the source to look in."""
    folder = shared / "photos" / "duplicates" / "base_images"
    source = make_source(folder, owner=owner, name="Things")
    images = {path.name: make_image(source, path.name) for path in sorted(folder.glob("*.jpg"))}
    fill(mobilenet, {image: opened(folder / name) for name, image in images.items()})
    return images


@pytest.fixture
def holidays(shared: Path, owner: Any, mobilenet: EmbeddingSpace) -> list[Path]:
    """Forty other photos in the library, beside twenty that are not in it, which come back."""
    paths = sorted((shared / "photos/captioned/flickr").glob("*.jpg"))
    source = make_source(paths[0].parent, owner=owner, name="Holidays")
    fill(mobilenet, {make_image(source, path.name): opened(path) for path in paths[:40]})
    return paths[40:60]


def in_source(name: str = "Things", user: Any = None) -> references.Collection:
    return references.by_name("source", name, user)


@pytest.mark.parametrize("library", ["alone", "among others"])
def test_resized_turned_and_mirrored_copies_are_identified(
    library: str, things: dict[str, Image], shared: Path, request: pytest.FixtureRequest
) -> None:
    if library == "among others":
        request.getfixturevalue("holidays")
    folder = shared / "photos" / "duplicates" / "mixed_images"
    for name in ("ukbench00120", "ukbench00120_resize", "ukbench00120_rotation", "ukbench00120_hflip"):
        found = identify(in_source(), None, picture=opened(folder / f"{name}.jpg"))
        assert found.best.image == things["ukbench00120.jpg"], name
        assert found.margin is not None and found.margin > 0.2
        strict = {Finding.LIKELY} if library == "among others" or name == "ukbench00120" else {*CLAIMS, Finding.MAYBE}
        assert found.finding in strict, (name, found.finding, found.best)
    assert identify(in_source(), None, picture=opened(folder / "ukbench00120.jpg")).sentence == (
        "This is very likely “ukbench00120.jpg”."
    )


def test_a_picture_that_lies_on_its_side_is_turned(
    things: dict[str, Image], holidays: list[Path], shared: Path
) -> None:
    turned: dict[int, int] = {}
    for name, image in things.items():
        upright = opened(shared / "photos/duplicates/base_images" / name)
        found = identify(in_source(), None, picture=upright.transpose(PIL.Image.Transpose.ROTATE_270))
        assert found.best.image == image and found.finding is Finding.LIKELY
        turned[found.turned] = turned.get(found.turned, 0) + 1
    assert set(turned) <= {0, 90} and turned[90] >= 5


def test_other_photos_match_nothing_and_it_is_said(things: dict[str, Image], holidays: list[Path]) -> None:
    found = [identify(in_source(), None, picture=opened(path)) for path in holidays]
    assert [one.finding for one in found].count(Finding.NONE) >= 19 and not [
        1 for one in found if one.finding in CLAIMS
    ]
    none = next(one for one in found if one.finding is Finding.NONE)
    assert none.sentence.startswith("No good match. The nearest is “ukbench") and none.best.percent < 50
    assert [match.cosine for match in none.matches] == sorted((match.cosine for match in none.matches), reverse=True)


def test_an_image_of_the_library_is_compared_without_itself(things: dict[str, Image], holidays: list[Path]) -> None:
    one = things["ukbench00120.jpg"]
    found = identify(in_source(), None, like=one.pk)
    assert one.pk not in [match.image.pk for match in found.matches] and found.of == found.references == 9
    assert found.finding is Finding.NONE


def test_copies_and_pictures_of_one_title_are_one_thing_and_look_alikes_are_named(
    things: dict[str, Image], holidays: list[Path], shared: Path, mobilenet: EmbeddingSpace
) -> None:
    picture = opened(shared / "photos/duplicates/base_images/ukbench00120.jpg")
    twin = make_image(things["ukbench00120.jpg"].source, "twin.jpg", sha256=b"2" * 32)
    fill(mobilenet, {twin: picture})
    found = identify(in_source(), None, picture=picture)
    assert found.finding is Finding.ALIKE and found.margin == pytest.approx(0, abs=1e-6)
    assert "too much alike" in found.sentence and "twin.jpg" in found.sentence
    Image.objects.filter(pk=things["ukbench00120.jpg"].pk).update(sha256=b"2" * 32)
    found = identify(in_source(), None, picture=picture)
    assert found.finding is Finding.LIKELY and found.runner_up and found.runner_up.image != twin
    Image.objects.filter(pk=twin.pk).update(sha256=b"3" * 32, title="Cup ")
    Image.objects.filter(pk=things["ukbench00120.jpg"].pk).update(title="cup ")
    assert identify(in_source(), None, picture=picture).finding is Finding.LIKELY


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_small_collections_claim_nothing_of_strangers(
    count: int, things: dict[str, Image], shared: Path, owner: Any
) -> None:
    """Nothing else is in the library, so that hardly anything is known of how near other things come."""
    for image in list(things.values())[count:]:
        image.delete()
    changes.record(Change.Kind.IMAGES, [image.pk or 0 for image in things.values()])
    names = list(things)[:count]
    for path in sorted((shared / "photos/captioned/flickr").glob("*.jpg"))[:6]:
        assert identify(in_source(), owner, picture=opened(path)).finding is Finding.NONE
    folder = shared / "photos/duplicates/base_images"
    for name in names:
        assert identify(in_source(), owner, picture=opened(folder / name)).finding is Finding.LIKELY


# --- who may see what -------------------------------------------------------------------------------------


def test_only_what_one_may_see_is_compared_and_named(
    things: dict[str, Image], holidays: list[Path], owner: Any
) -> None:
    stranger = make_user("mallory")
    with pytest.raises(BadQuery, match="no source named 'Things'; there are: none"):
        in_source(user=stranger)
    collection = in_source()
    for key in (collection.key, "source:99", "source:x", "tag:1", "", "source:" + "9" * 30):
        with pytest.raises(BadQuery, match="not there, or you may not see it"):
            references.by_key(key, stranger)
    with pytest.raises(BadQuery, match="no other picture that you may see"):
        identify(collection, stranger, picture=PIL.Image.new("RGB", (64, 64)))
    with pytest.raises(BadQuery, match="no picture"):
        identify(collection, stranger, like=things["ukbench00120.jpg"].pk)
    assert references.choices(stranger) == []
    # An album that is shared gives no more of its images than their sources do.
    album = Album.objects.create(owner=owner, name="Cups")
    for place, image in enumerate(things.values()):
        AlbumEntry.objects.create(album=album, image=image, position=place)
    with pytest.raises(BadQuery, match="no album named"):
        references.by_name("album", "Cups", stranger)
    album.shared_with.add(stranger)
    shared_album = references.by_name("album", "Cups", stranger)
    with pytest.raises(BadQuery, match="no other picture that you may see"):
        identify(shared_album, stranger, picture=PIL.Image.new("RGB", (64, 64)))
    assert identify(references.by_name("album", "Cups", owner), owner, like=Image.objects.last().pk).of == 10
    curation.hide([things["ukbench00120.jpg"].pk], owner)
    assert identify(references.by_name("album", "Cups", owner), owner, like=Image.objects.last().pk).of == 9


def test_what_others_have_does_not_move_ones_match(things: dict[str, Image], owner: Any, mobilenet: Any) -> None:
    picture = PIL.Image.effect_noise((120, 90), 90).convert("RGB")
    before = identify(in_source(), owner, picture=picture)
    theirs = make_source(owner=make_user("bert"))
    near = {make_image(theirs): opened_noise(number) for number in range(12)}
    fill(mobilenet, near)
    after = identify(in_source(), owner, picture=picture)
    assert after.level == before.level and after.best.percent == before.best.percent
    assert identify(in_source(), None, picture=picture).level != before.level, "the command line sees them"


def opened_noise(number: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(number).integers(0, 256, (90, 120, 3), dtype=np.uint8))


def test_tags_are_references_too(things: dict[str, Image], holidays: list[Path], owner: Any) -> None:
    chosen = list(things.values())[:4]
    curation.tag([image.pk for image in chosen], ["Crockery"], owner)
    found = identify(references.by_name("tag", "crockery", owner), owner, like=Image.objects.last().pk)
    assert {match.image.pk for match in found.matches} == {image.pk for image in chosen}
    keys = [one.key for _, group in references.choices(owner) for one in group]
    assert found.collection.key in keys and in_source().key in keys


# --- spaces, and what is not there ------------------------------------------------------------------------


def test_another_space_may_be_asked_for_and_look_stands_in(
    things: dict[str, Image], shared: Path, mobilenet: EmbeddingSpace, owner: Any
) -> None:
    folder = shared / "photos/duplicates/base_images"
    with pytest.raises(BadQuery, match="None of the 10 pictures of “Things” has been read by look yet"):
        identify(in_source(), owner, picture=opened(folder / "ukbench00120.jpg"), space=look_space())
    fill(look_space(), {image: opened(folder / name) for name, image in things.items()})
    small = opened(folder / "ukbench09060.jpg").resize((160, 120))
    assert identify(in_source(), owner, picture=small, space=look_space()).finding is Finding.LIKELY
    EmbeddingSpace.objects.filter(pk=mobilenet.pk).update(encoder="onnx:/nowhere")
    found = identify(in_source(), owner, picture=small)
    assert found.space == look_space() and found.notices[0].startswith("Compared by colours and layout only.")
    assert "/nowhere" not in found.notices[0] and found.finding is Finding.LIKELY
    mobilenet.refresh_from_db()
    with pytest.raises(EncoderUnavailable):
        identify(in_source(), owner, picture=small, space=mobilenet)
    like = things["ukbench00120.jpg"].pk
    assert identify(in_source(), owner, like=like).space == mobilenet, "its vector is stored"


def test_the_number_of_queries_is_the_same_for_few_and_many(
    things: dict[str, Image], holidays: list[Path], owner: Any
) -> None:
    def queries(name: str) -> int:
        identification.reset_samples()
        with CaptureQueriesContext(
            connection,
        ) as caught:
            identify(in_source(name, owner), owner, like=Image.objects.last().pk)
        return len(caught)

    queries("Things")
    assert queries("Things") == queries("Holidays")


# --- the command ------------------------------------------------------------------------------------------


def run(*args: object) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("identify", *map(str, args), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_the_command_prints_matches_margin_and_verdict(
    things: dict[str, Image], holidays: list[Path], shared: Path, owner: Any
) -> None:
    file = shared / "photos/duplicates/mixed_images/ukbench00120_resize.jpg"
    out, _ = run(file, "--source", "Things", "--user", "anna", "--limit", 3)
    lines = out.splitlines()
    assert len(lines) == 5 and "ukbench00120.jpg" in lines[0] and "%" in lines[0]
    assert lines[3] == "This is very likely “ukbench00120.jpg”." and "nearer than the runner-up" in lines[4]
    said = json.loads(run(file, "--source", "Things", "--json")[0])
    assert said["finding"] == "likely" and said["matches"][0]["id"] == things["ukbench00120.jpg"].pk
    assert said["matches"][0]["match"] >= 90 > said["runner_up"]["match"]
    assert said["margin"] == pytest.approx(said["matches"][0]["cosine"] - said["runner_up"]["cosine"])
    other = json.loads(run(holidays[0], "--source", "Things", "--json")[0])
    assert other["finding"] == "none" and other["sentence"].startswith("No good match.")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--source", "Things"], "Say what to identify"),
        (["a.jpg", "--like", "1", "--source", "Things"], "Say what to identify"),
        (["/nowhere.jpg", "--source", "Things"], "/nowhere.jpg cannot be opened"),
        (["--like", "1"], "one of the arguments --source --album --tag is required"),
        (["--like", "1", "--album", "Gone"], "There is no album named 'Gone'; there are: none."),
        (["--like", "99999", "--source", "Empty"], "holds no other picture|no picture 99999"),
        (["--like", "1", "--source", "Empty", "--space", "x"], "There is no space named 'x'"),
    ],
)  # fmt: skip
def test_the_command_says_what_is_wrong(args: list[str], sentence: str) -> None:
    make_source(name="Things")
    make_source(name="Empty")
    with pytest.raises(CommandError, match=sentence):
        run(*args)


def test_an_album_of_one_name_of_two_people_asks_whose() -> None:
    for name in ("ann", "bob"):
        Album.objects.create(owner=make_user(name), name="Cups")
    with pytest.raises(CommandError, match="say whose with --user"):
        run("--like", 1, "--album", "Cups")
