"""Browsing, problems, progress, and the frame of every page (see tests/browser for the rest)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from ingestion.models import Crawl, SeenFile, StageCount, Work
from search import selection
from search.changes import record
from search.models import Change, Image, SourceAccess, path_digest
from search.views import grid
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parent.parent.parent


# --- browsing ---------------------------------------------------------------------------------------


def test_browse_walks_forward_and_back_over_everything_once(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    moment = datetime(2020, 3, 1, tzinfo=UTC)
    rows = [make_image(source, shown_at=moment - timedelta(hours=n // 7)) for n in range(200)]  # many share an instant
    expected = [image.pk for image in sorted(rows, key=lambda one: (one.shown_at, one.pk), reverse=True)]
    seen: list[int] = []
    address = "/browse/"
    pages = []
    while address:
        context = signed_in.get(address).context
        pages.append([tile.image.pk for tile in context["tiles"]])
        seen += pages[-1]
        last, address = address, context["more_href"]
    assert seen == expected
    back = signed_in.get(signed_in.get(last).context["newer_href"]).context
    assert [tile.image.pk for tile in back["tiles"]] == expected[200 - len(pages[-1]) - 80 : 200 - len(pages[-1])]


def test_browse_names_each_month_once_across_fragments(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    for number in range(120):
        make_image(source, shown_at=datetime(2020, 3, 30, tzinfo=UTC) - timedelta(hours=12 * number))
    first = signed_in.get("/browse/")
    rest = signed_in.get(first.context["more_href"], headers={"HX-Request": "true"})
    headings = re.findall(r"<h2>(\w+ \d{4})</h2>", first.content.decode() + rest.content.decode())
    assert headings == ["March 2020", "February 2020", "January 2020"]


@pytest.mark.parametrize(
    "query", ["source=Holidays", "format=png", "date=2020-02-01..2020-02-28", "rating=4", "tag=beach"]
)
def test_browse_filters(signed_in: Client, owner: Any, query: str) -> None:
    from search import curation

    wanted = make_image(
        make_source(owner=owner, name="Holidays"), format="PNG", rating=4, shown_at=datetime(2020, 2, 3, tzinfo=UTC)
    )
    curation.tag([wanted.pk], ["beach"], None)
    make_image(make_source(owner=owner), shown_at=datetime(2019, 2, 3, tzinfo=UTC))
    tiles = signed_in.get(f"/browse/?{query}").context["tiles"]
    assert [tile.image.pk for tile in tiles] == [wanted.pk]


@pytest.mark.parametrize("address", ["/browse/", "/browse/?camera=%22%3Cb%3E", "/?q=rating:4"])
def test_names_and_addresses_in_tiles_are_words_and_never_markup(signed_in: Client, owner: Any, address: str) -> None:
    said = """"><b onload='x'>&amp;"""
    image = make_image(make_source(owner=owner), title=said, rating=4, name=said, camera='"<b>')
    page = signed_in.get(address).content.decode()
    assert f'data-image="{image.pk}"' in page
    assert 'alt="&#34;&gt;&lt;b onload=&#39;x&#39;&gt;&amp;amp;"' in page
    assert "<b " not in page and "<b>" not in page


@pytest.mark.parametrize("query", ["older=yesterday", "older=2020-01-01,1", "newer=,", "rating=9", "source=Nowhere"])
def test_browse_says_what_it_cannot_understand(signed_in: Client, query: str) -> None:
    response = signed_in.get(f"/browse/?{query}")
    assert response.status_code == 422 and 'role="alert"' in response.content.decode()


# --- problems and progress --------------------------------------------------------------------------


def test_problems_list_reasons_and_kinds_of_ones_own_sources(signed_in: Client, owner: Any) -> None:
    for user, word in [(owner, "mine"), (make_user("bert"), "theirs")]:
        source = make_source(owner=user)
        image = make_image(source, f"{word}.jpg", state=Image.State.UNREADABLE, reason=f"Broken, {word}.")
        Work.objects.create(image=image, stage="read", state=Work.State.FAILED, newest=1, reason=image.reason)
        path = f"{word}.pdf".encode()
        SeenFile.objects.create(
            source=source, path=path, path_digest=path_digest(path), directory=path_digest(b""), size=1, mtime_ns=1,
            why=SeenFile.Why.UNSUPPORTED, kind=f"PDF document, {word}",
        )  # fmt: skip
    page = signed_in.get("/problems/").content.decode()
    assert "Broken, mine." in page and "PDF document, mine" in page
    assert "theirs" not in page
    files = signed_in.get("/problems/?kind=PDF document, mine&why=unsupported").content.decode()
    assert "mine.pdf" in files
    assert "theirs.pdf" not in signed_in.get("/problems/?kind=PDF document, theirs&why=unsupported").content.decode()


def test_viewers_may_not_retry(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(viewer=owner), state=Image.State.UNREADABLE, reason="Broken.")
    Work.objects.create(image=image, stage="read", state=Work.State.FAILED, newest=1, reason="Broken.")
    page = signed_in.get("/problems/").content.decode()
    assert "1 file could not be finished" in page and "Try again" not in page and "Try all again" not in page
    signed_in.post("/problems/retry/", {"image": image.pk})
    assert Work.objects.filter(state=Work.State.FAILED).exists()
    mine = make_image(make_source(owner=owner), state=Image.State.UNREADABLE, reason="Broken.")
    Work.objects.create(image=mine, stage="read", state=Work.State.FAILED, newest=2, reason="Broken.")
    assert "Try all again" in signed_in.get("/problems/").content.decode()


def test_progress_says_how_far_each_stage_is(signed_in: Client, owner: Any) -> None:
    make_source(owner=owner)
    StageCount.objects.create(stage="read", waiting=50, done=149, failed=1)
    page = signed_in.get("/progress/").content.decode()
    assert "75 %" in page and "149 done, 50 waiting" in page and "no worker is running" in page
    fragment = signed_in.get("/progress/", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in fragment and 'id="progress"' in fragment


def test_progress_gives_no_numbers_of_folders_one_may_not_see(client: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    stranger = make_user("mallory")
    StageCount.objects.create(stage="read", waiting=50, done=149, failed=1)
    client.force_login(stranger)
    page = client.get("/progress/").content.decode()
    assert "shared with you" in page and "Reading files" not in page and "149" not in page
    SourceAccess.objects.create(source=make_source(), user=stranger)
    page = client.get("/progress/").content.decode()
    assert "75 %" in page and "149" not in page and "shared with you" not in page
    SourceAccess.objects.create(source=source, user=stranger)
    assert "149 done" in client.get("/progress/").content.decode()


def test_a_crawl_that_has_just_begun_is_shown(signed_in: Client, owner: Any) -> None:
    Crawl.objects.create(source=make_source(owner=owner, name="Holidays"))
    assert "Holidays" in signed_in.get("/progress/").content.decode()


def test_folders_of_the_server_are_named_to_staff_only(client: Client, owner: Any) -> None:
    source = make_source("/mnt/secret", viewer=owner, name="Holidays")
    Crawl.objects.create(source=source, state="guarded", message="/mnt/secret/2019 holds no files now.")
    image = make_image(source, "2019/a.jpg", state=Image.State.UNREADABLE, reason="Broken.")
    Work.objects.create(image=image, stage="read", state=Work.State.FAILED, newest=1, reason="Broken.")
    pages = ["/progress/", "/problems/", f"/image/{image.pk}/"]
    client.force_login(owner)
    said = [client.get(page).content.decode() for page in pages]
    assert "“Holidays”/2019 holds no files now." in said[0] and "Holidays: 2019/a.jpg" in said[1]
    assert not any("/mnt/secret" in one for one in said)
    client.force_login(make_user(staff=True))
    assert all("/mnt/secret" in client.get(page).content.decode() for page in pages)


def test_browse_says_how_many_pass_the_filters_and_what_all_means(signed_in: Client, owner: Any) -> None:
    source = make_source(owner=owner)
    for number in range(7):
        make_image(source, format="PNG" if number < 3 else "JPEG")
    make_image(make_source(), format="PNG")
    page = signed_in.get("/browse/?format=png").content.decode()
    assert "Pictures that pass the filters, newest first" in page and "<strong>3</strong> pictures" in page
    assert "Select all 3<" in page
    page = signed_in.get("/browse/").content.decode()
    assert "All pictures, newest first" in page and "Select all 7<" in page
    cover, raw = Image.objects.visible_to(owner).order_by("pk")[:2]
    Image.objects.filter(pk=raw.pk).update(stack_of=cover)
    record(Change.Kind.IMAGES, [cover.pk, raw.pk])
    page = signed_in.get("/browse/").content.decode()
    assert "Select all 6<" in page
    signed_in.post("/selection/all/", {"page": "browse", "query": ""})
    assert len(selection.of(owner)) == 6


# --- the frame --------------------------------------------------------------------------------------


def test_no_page_may_load_from_elsewhere_or_carries_inline_code(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner))
    for address in [
        "/",
        "/?q=red",
        "/browse/",
        f"/image/{image.pk}/",
        "/progress/",
        "/problems/",
        "/history/",
        "/nothing",
    ]:
        response = signed_in.get(address)
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        page = response.content.decode()
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=\"|javascript:", page), address
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", page), address


def test_templates_hold_no_inline_styles_or_scripts() -> None:
    for template in (ROOT / "templates").rglob("*.html"):
        text = template.read_text()
        assert not re.search(r"\sstyle=|<style|<script(?![^>]* src=)|\son[a-z]+=\"|hx-on", text), template


def test_error_pages_need_no_request(settings: Any) -> None:
    from django.template.loader import get_template

    for name in ["400", "403", "404", "500", "403_csrf"]:
        assert "To the pictures" in get_template(f"{name}.html").render()


def test_a_refusal_says_its_own_sentence_escaped_or_a_general_one(rf: Any) -> None:
    from django.core.exceptions import PermissionDenied
    from django.views.defaults import permission_denied

    own = permission_denied(rf.get("/"), PermissionDenied("Only for <b>owners</b>.")).content.decode()
    assert "<p>Only for &lt;b&gt;owners&lt;/b&gt;.</p>" in own and "Your account may not do this" not in own
    assert "<p>Your account may not do this." in permission_denied(rf.get("/"), PermissionDenied()).content.decode()


def test_ratio_stylesheet_is_what_the_grid_says() -> None:
    assert (ROOT / "static/css/ratios.css").read_text() == grid.stylesheet()


@pytest.mark.parametrize(
    ("size", "ratio"), [((100, 100), 1.0), ((4000, 3000), 4 / 3), ((1, 10_000), 0.4), ((10_000, 1), 4.0), ((0, 0), 1.5)]
)
def test_ratio_class_is_within_two_percent(size: tuple[int, int], ratio: float) -> None:
    name = grid.ratio_class(*size)
    said = re.search(rf"\.{name} {{ --ratio: ([\d.]+); }}", grid.stylesheet())
    assert said and abs(float(said[1]) / ratio - 1) < 0.02


def test_vendored_libraries_carry_version_and_licence() -> None:
    for folder in (ROOT / "static/vendor").iterdir():
        assert (folder / "LICENSE").is_file() and (folder / "VERSION").is_file()
        assert folder.name.rpartition("-")[2] in (folder / "VERSION").read_text()


def test_addresses_of_the_pages_stay() -> None:
    assert reverse("search") == "/" and reverse("image", args=[7]) == "/image/7/"
    assert reverse("thumbnail", args=[7]) == "/thumbnail/7.jpg" and reverse("welcome", args=["t"]) == "/welcome/t/"
