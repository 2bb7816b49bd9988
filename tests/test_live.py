"""Live photos: which film belongs to which picture, how a crawl keeps that true, and how it is played."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestion.models import Crawl, SeenFile
from ingestion.movies import Film, films_of
from ingestion.register import crawl, source_for
from ingestion.stacking import File
from search import archives, audit, changes, exports, ranges, retrieval
from search.models import Change, Event, Image, Movie
from search.query import parse
from tests.crawling import as_read, go, root  # noqa: F401
from tests.factories import make_image, make_source, make_user
from tests.photos import jpeg, put

pytestmark = pytest.mark.django_db
FILM = (Path(__file__).parent / "files" / "live.mov").read_bytes()


def film(number: int = 0) -> bytes:
    """A film whose bytes and size depend on `number`: what follows a film's last box is left aside by players."""
    return FILM + b"\0\0\0\x08free" * number


def paired(*names: str) -> dict[str, str]:
    """{name: the name of its film}, in every order the same."""
    found: list[dict[str, str]] = []
    for seed in range(5):
        mixed = random.Random(seed).sample(names, len(names))
        films = [Film(name, name.encode(), 1, 1) for name in mixed]
        files = [File(number, name) for number, name in enumerate(mixed)]
        movies = [one for one in films if one.name.rpartition(".")[2].lower() in ("mov", "mp4", "mp")]
        found.append({mixed[pk]: one.name for pk, one in films_of(files, movies).items()})
    assert all(one == found[0] for one in found)
    return found[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["IMG_1.HEIC", "IMG_1.MOV"], {"IMG_1.HEIC": "IMG_1.MOV"}),
        (["img_1.jpg", "IMG_1.mp4"], {"img_1.jpg": "IMG_1.mp4"}),
        (["IMG_1.HEIC", "IMG_2.MOV"], {}),
        (["IMG_1.DNG", "IMG_1.MOV"], {}),
        (["IMG_1.png", "IMG_1.MOV"], {}),
        (["IMG_1.HEIC", "IMG_1.MP4", "IMG_1.MOV"], {"IMG_1.HEIC": "IMG_1.MOV"}),
        (["a.jpg", "A.jpg", "a.mov", "A.mov"], {"a.jpg": "a.mov", "A.jpg": "A.mov"}),
        (["IMG_1.HEIC", "IMG_1.JPG", "IMG_1.MOV"], {"IMG_1.HEIC": "IMG_1.MOV", "IMG_1.JPG": "IMG_1.MOV"}),
        (["IMG_1234.HEIC", "IMG_E1234.HEIC", "IMG_1234.MOV"],
         {"IMG_1234.HEIC": "IMG_1234.MOV", "IMG_E1234.HEIC": "IMG_1234.MOV"}),
        (["IMG_1234.HEIC", "IMG_E1234.HEIC", "IMG_1234.MOV", "IMG_E1234.MOV"],
         {"IMG_1234.HEIC": "IMG_1234.MOV", "IMG_E1234.HEIC": "IMG_E1234.MOV"}),
        (["PXL_1.MP.jpg", "PXL_1.MP"], {"PXL_1.MP.jpg": "PXL_1.MP"}),
        (["PXL_1.MP.jpg", "PXL_1.MP4"], {"PXL_1.MP.jpg": "PXL_1.MP4"}),
        (["PXL_1.MP.jpg", "PXL_1.MP.mp4"], {"PXL_1.MP.jpg": "PXL_1.MP.mp4"}),
        (["PXL_1.MP.jpg", "PXL_1.MP-edited.jpg", "PXL_1.MP"],
         {"PXL_1.MP.jpg": "PXL_1.MP", "PXL_1.MP-edited.jpg": "PXL_1.MP"}),
    ],
)  # fmt: skip
def test_the_film_of_a_picture_is_known_by_its_name(names: list[str], expected: dict[str, str]) -> None:
    assert paired(*names) == expected


# --- the crawl


def standing() -> dict[str, tuple[str, int]]:
    """{path of the picture: (name of its film, its size)}."""
    rows = Movie.objects.values_list("image__path", "name", "size")
    return {os.fsdecode(path): (os.fsdecode(name), size) for path, name, size in rows}


def from_scratch(folder: Path) -> dict[str, tuple[str, int]]:
    """The same, as the names of what is there say, folder by folder."""
    found = {}
    for place in [folder, *(one for one in folder.rglob("*") if one.is_dir())]:
        names = sorted(one.name for one in place.iterdir() if one.is_file())
        for name, film_name in paired(*names).items():
            found[str((place / name).relative_to(folder))] = (film_name, (place / film_name).stat().st_size)
    return found


PATHS = [f"{folder}{name}" for folder in ("", "a/") for name in ("x.jpg", "x.mov", "x.MP4", "x-edited.jpg", "y.mov")]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "drop", "move", "crawl"]), st.sampled_from(PATHS), st.sampled_from(PATHS)),
        min_size=4, max_size=14,
    )
)  # fmt: skip
def test_any_arrivals_moves_and_deletions_end_where_a_first_crawl_would(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "a").mkdir()
    put(folder / "keep.jpg", jpeg(99))
    with transaction.atomic():
        sid = transaction.savepoint()
        source = source_for(folder)[0]
        for number, (what, path, other) in enumerate(steps):
            if what == "put":
                put(folder / path, jpeg(number) if path.endswith("jpg") else film(number))
            elif what == "drop":
                (folder / path).unlink(missing_ok=True)
            elif what == "move" and (folder / path).exists() and path.endswith("jpg") == other.endswith("jpg"):
                (folder / path).replace(folder / other)
            elif what == "crawl":
                crawl(source, accept_missing=True)
                as_read()
        crawl(source, accept_missing=True)
        assert standing() == from_scratch(folder)
        transaction.savepoint_rollback(sid)


def test_a_film_comes_changes_moves_along_and_goes(root: Path, go: Any) -> None:  # noqa: F811
    put(root / "IMG_1.jpg", jpeg(1))
    put(root / "other.jpg", jpeg(2))
    go()
    as_read()
    assert standing() == {}
    put(root / "IMG_1.MOV", film(1))
    before = Change.objects.count()
    report = go()
    assert standing() == {"IMG_1.jpg": ("IMG_1.MOV", len(film(1)))}
    assert Change.objects.count() > before, "open lists and the filters hear of it"
    assert report.unsupported == 1 and SeenFile.objects.get().kind == "QuickTime video", "it is no picture"
    put(root / "IMG_1.MOV", film(5))
    go()
    assert standing() == {"IMG_1.jpg": ("IMG_1.MOV", len(film(5)))}
    (root / "new").mkdir()
    for ending in ("jpg", "MOV"):
        (root / f"IMG_1.{ending}").rename(root / "new" / f"IMG_2.{ending}")
    number = Image.objects.get(name="IMG_1.jpg").pk
    go()
    assert standing() == {"new/IMG_2.jpg": ("IMG_2.MOV", len(film(5)))}
    assert Movie.objects.get().pk == number, "the picture is the one that it was"
    (root / "new" / "IMG_2.MOV").unlink()
    go()
    assert standing() == {}


def test_what_is_only_named_like_a_film_is_none(root: Path, go: Any) -> None:  # noqa: F811
    put(root / "x.jpg", jpeg(1))
    put(root / "x.mov", b"%PDF-1.4 and so on")
    go()
    assert standing() == {}


def test_a_name_that_is_no_text_is_kept_as_it_is(root: Path, go: Any) -> None:  # noqa: F811
    (Path(os.fsdecode(os.fsencode(root) + b"/f\xe9te.jpg"))).write_bytes(jpeg(1))
    (Path(os.fsdecode(os.fsencode(root) + b"/f\xe9te.mov"))).write_bytes(FILM)
    go()
    movie = Movie.objects.get()
    assert bytes(movie.name) == b"f\xe9te.mov" and movie.name_text == "f\\xe9te.mov"


def test_what_a_cut_off_crawl_left_is_mended_by_the_next(root: Path, go: Any, monkeypatch: Any) -> None:  # noqa: F811
    from ingestion import register

    put(root / "x.jpg", jpeg(1))
    put(root / "x.mov", FILM)

    def cut(*args: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(register, "match_films", cut)
        with pytest.raises(KeyboardInterrupt):
            go()
    assert Crawl.objects.get().state == "failed" and standing() == {}
    go()
    assert set(standing()) == {"x.jpg"}


def test_an_unchanged_folder_costs_no_look_at_its_films(root: Path, go: Any, monkeypatch: Any) -> None:  # noqa: F811
    from ingestion import register

    put(root / "x.jpg", jpeg(1))
    put(root / "x.mov", FILM)
    go()
    as_read()
    asked: list[Any] = []
    monkeypatch.setattr(register, "match_films", lambda source, some: asked.append(list(some)))
    go()
    assert asked == []


def test_with_stacks_off_there_are_no_live_photos(root: Path, go: Any, settings: Any, client: Client) -> None:  # noqa: F811
    settings.IMAGESEARCH_STACKS = False
    put(root / "x.jpg", jpeg(1))
    put(root / "x.mov", FILM)
    go()
    assert standing() == {}
    settings.IMAGESEARCH_STACKS = True
    go(rehash=True)
    as_read()
    image = Image.objects.get()
    assert set(standing()) == {"x.jpg"}
    client.force_login(make_user(staff=True))
    assert client.get(f"/movie/{image.pk}/").status_code == 200
    settings.IMAGESEARCH_STACKS = False
    assert client.get(f"/movie/{image.pk}/").status_code == 404
    assert "<video" not in client.get(f"/image/{image.pk}/").content.decode()
    assert "stack-badge" not in client.get("/browse/").content.decode()
    assert retrieval.find(parse("is:live", {}), None).total == 0


# --- pages


@pytest.fixture
def anna() -> Any:
    cache.clear()
    return make_user("anna")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    (place / "trip").mkdir(parents=True)
    return place


@pytest.fixture
def source(anna: Any, folder: Path) -> Any:
    return make_source(folder, owner=anna, name="photos")


def live(source: Any, folder: Path, name: str = "trip/x.jpg", data: bytes = FILM, **fields: Any) -> Image:
    """A live photo whose files really lie there."""
    put(folder / name, jpeg(1))
    image = make_image(source, name, **fields)
    movie = os.path.splitext(os.path.basename(name))[0] + ".mov"
    put(folder / os.path.dirname(name) / movie, data)
    Movie.objects.create(image=image, name=movie.encode(), size=len(data), mtime_ns=1)
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, [image.pk])
    return image


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


def test_the_film_is_sent_whole_or_in_the_part_asked_for(anna: Any, source: Any, folder: Path, client: Client) -> None:
    image = live(source, folder)
    client.force_login(anna)
    address, size = f"/movie/{image.pk}/", len(FILM)
    whole = client.get(address)
    assert whole.status_code == 200 and body(whole) == FILM and whole["Content-Length"] == str(size)
    assert whole["Content-Type"] == "video/quicktime" and whole["Accept-Ranges"] == "bytes"
    assert whole["X-Content-Type-Options"] == "nosniff" and whole["Cache-Control"] == "private, no-cache"
    for asked, first, last in [("0-1", 0, 1), ("0-", 0, size - 1), ("100-199", 100, 199), ("-7", size - 7, size - 1)]:
        part = client.get(address, headers={"Range": f"bytes={asked}"})
        assert part.status_code == 206 and body(part) == FILM[first : last + 1], asked
        assert part["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert part["Content-Length"] == str(last + 1 - first) and part["Content-Type"] == "video/quicktime"
    beyond = client.get(address, headers={"Range": f"bytes={size}-"})
    assert beyond.status_code == 416 and beyond["Content-Range"] == f"bytes */{size}"
    for odd in ("bytes=0-1,5-6", "bytes=x-y", "bytes=9-3", "lines=1-2"):
        assert body(client.get(address, headers={"Range": odd})) == FILM, "what is no single range is left aside"
    old = client.get(address, headers={"Range": "bytes=0-1", "If-Range": '"of before"'})
    assert old.status_code == 200 and body(old) == FILM
    same = client.get(address, headers={"Range": "bytes=0-1", "If-Range": whole["ETag"]})
    assert same.status_code == 206 and body(same) == FILM[:2]
    assert client.get(address, headers={"If-None-Match": whole["ETag"]}).status_code == 304
    head = client.head(address, headers={"Range": "bytes=0-9"})
    assert head.status_code == 206 and head["Content-Length"] == "10"
    kept = client.get(f"{address}?download")
    assert kept["Content-Disposition"] == 'attachment; filename="x.mov"' and body(kept) == FILM


@given(header=st.from_regex(r"\A(bytes=)?[0-9]{0,3}-?[0-9]{0,3}\Z"), size=st.integers(0, 300))
def test_a_range_is_a_stretch_of_the_file_whatever_is_asked(header: str, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    try:
        found = ranges.asked(header, size)
    except ranges.NotThere:
        return
    if found is not None:
        first, length = found
        assert 0 <= first < size and 1 <= length <= size - first
        assert ranges.Part(io.BytesIO(data), first, length).read() == data[first : first + length]


def test_a_second_person_has_no_film_and_a_picture_without_one_neither(
    anna: Any, source: Any, folder: Path, client: Client
) -> None:
    image, still = live(source, folder), make_image(source, "still.jpg")
    bert = make_user("bert")
    client.force_login(bert)
    assert client.get(f"/movie/{image.pk}/").status_code == 404
    client.logout()
    assert client.get(f"/movie/{image.pk}/").status_code == 302
    client.force_login(anna)
    assert client.get(f"/movie/{still.pk}/").status_code == 404


def test_a_film_that_is_gone_or_is_none_any_more_is_a_sentence(
    anna: Any, source: Any, folder: Path, tmp_path: Path, client: Client
) -> None:
    image = live(source, folder)
    client.force_login(anna)
    there = folder / "trip" / "x.mov"

    def refused() -> bool:
        answer = client.get(f"/movie/{image.pk}/")
        return answer.status_code == 404 and "not where it was" in answer.content.decode()

    there.write_bytes(b"%PDF-1.4 secret")
    assert refused()
    there.unlink()
    assert refused()
    (tmp_path / "outside.mov").write_bytes(FILM)
    there.symlink_to(tmp_path / "outside.mov")
    assert refused(), "no way out of the source"
    there.unlink()
    os.mkfifo(there)
    assert refused(), "a pipe would hang"
    there.unlink()
    (folder / "x.mov").write_bytes(FILM)
    Movie.objects.update(name=b"../x.mov")
    assert refused(), "no way out of its folder"


def test_playing_is_one_line_of_the_audit_and_each_download_one(
    anna: Any, source: Any, folder: Path, client: Client
) -> None:
    image = live(source, folder)
    client.force_login(anna)
    client.head(f"/movie/{image.pk}/")
    for first in (0, 5, 100):
        body(client.get(f"/movie/{image.pk}/", headers={"Range": f"bytes={first}-"}))
    audit.flush()
    assert list(Event.objects.filter(image_id=image.pk).values_list("kind", "text")) == [
        ("opened", "photos: trip/x.mov")
    ]
    for _ in range(2):
        body(client.get(f"/movie/{image.pk}/?download"))
    audit.flush()
    assert Event.objects.filter(kind="downloaded", image_id=image.pk, user=anna).count() == 2


def test_tiles_slides_and_pages_say_that_a_photo_is_live(anna: Any, source: Any, folder: Path, client: Client) -> None:
    image, still = live(source, folder), make_image(source, "still.jpg")
    make_image(source, "trip/x.dng", stack_of=image, stack_origin="file", format="RAW")
    client.force_login(anna)
    text = client.get("/browse/").content.decode()
    assert text.count("data-live") == 1 and "RAW+JPEG · Live" in text
    slides = client.get(f"/slides/?ids={image.pk},{still.pk}").json()["slides"]
    assert [one["live"] for one in slides] == [True, False]
    for page in (f"/image/{image.pk}/", f"/image/{image.pk}/panel/"):
        said = client.get(page).content.decode()
        assert f'src="/movie/{image.pk}/?v=' in said and "x.mov" in said and 'preload="none"' in said
    assert "<video" not in client.get(f"/image/{still.pk}/").content.decode()
    assert "media-src 'self'" in client.get("/browse/")["Content-Security-Policy"]


def test_live_photos_are_found_by_a_filter(anna: Any, source: Any, folder: Path) -> None:
    image, still = live(source, folder), make_image(source, "still.jpg")
    with transaction.atomic():
        changes.record(Change.Kind.IMAGES, [still.pk])

    def found(text: str) -> list[int]:
        return [hit.id for hit in retrieval.find(parse(text, {}), anna).hits]

    assert found("is:live") == [image.pk] and found("-is:live") == [still.pk]


def test_the_archive_of_originals_holds_each_film_once(anna: Any, source: Any, folder: Path) -> None:
    image = live(source, folder)
    put(folder / "trip/x-edited.jpg", jpeg(2))
    edited = make_image(source, "trip/x-edited.jpg")
    Movie.objects.create(image=edited, name=b"x.mov", size=len(FILM), mtime_ns=1)
    gone = live(source, folder, "trip/gone.jpg")
    (folder / "trip" / "gone.mov").unlink()

    def packed() -> zipfile.ZipFile:
        chosen = exports.of_images([image.pk, edited.pk, gone.pk], anna)
        return zipfile.ZipFile(io.BytesIO(b"".join(archives.originals(chosen))))

    with packed() as archive:
        assert sorted(archive.namelist()) == [
            "not-included.txt", "photos/trip/gone.jpg", "photos/trip/x-edited.jpg", "photos/trip/x.jpg",
            "photos/trip/x.mov",
        ]  # fmt: skip
        assert archive.read("photos/trip/x.mov") == FILM
        assert "photos/trip/gone.mov: the file is not there any more" in archive.read("not-included.txt").decode()


def test_lists_and_exports_ask_as_much_for_many_live_photos_as_for_few(
    anna: Any, source: Any, folder: Path, client: Client
) -> None:
    client.force_login(anna)

    def asked(address: str) -> int:
        for _ in range(2):  # what is made once is made with the first
            with CaptureQueriesContext(connection) as context:
                if address:
                    assert client.get(address).status_code == 200
                else:
                    assert b"".join(archives.originals(exports.of_query(parse("is:live", {}), anna)))
        return len(context)

    addresses = ["/browse/", "/?q=is:live", ""]
    for number in range(2):
        live(source, folder, f"trip/{number}.jpg")
    few = [asked(address) for address in addresses]
    for number in range(2, 20):
        live(source, folder, f"trip/{number}.jpg")
    many = [asked(address) for address in addresses]
    assert all(more <= less for more, less in zip(many, few, strict=True)), (few, many)


def test_tiles_count_what_lies_beneath_instead_of_asking_whether_it_exists() -> None:
    """PostgreSQL reads every raw file and every film for an EXISTS of a page's rows, a million rows being possible."""
    asked = str(Image.objects.listed().newest_first().for_tiles()[:60].query)
    listed = str(Image.objects.listed().newest_first()[:60].query)
    assert asked.count("EXISTS") == listed.count("EXISTS") and asked.count("COUNT(") == 3
