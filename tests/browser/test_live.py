"""A live photo in the browser: its badge, and its film that plays on the page and in the lightbox."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Installation, expect
from tests.sandbox import Sandbox

pytestmark = pytest.mark.slow

FILM = Path(__file__).parents[1] / "files" / "live.mov"


@pytest.fixture
def moving(
    photos: Path, tmp_path: Path, sandbox: Callable[..., Sandbox], installed: Callable[..., Installation]
) -> Installation:
    folder = tmp_path / "holidays"
    folder.mkdir()
    for number, photo in enumerate(sorted(photos.iterdir())[:3]):
        shutil.copy(photo, folder / f"IMG_{number}.jpg")
    shutil.copy(FILM, folder / "IMG_0.MOV")
    one = sandbox(IMAGESEARCH_ENCODER="look")
    one.manage("index", folder)
    installation = installed(one)
    installation.make_owner()
    return installation


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, {"width": 390, "height": 844}])
def test_a_live_photo_says_so_and_plays(moving: Installation, viewport: dict[str, int], tmp_path: Path) -> None:
    page: Any = moving.open(viewport=viewport).sign_in()
    page.goto(f"{moving.base}/browse/")
    expect(page.locator(".stack-badge")).to_have_text("Live photo")
    tile = page.locator(".tile[data-live] > a").first
    address = tile.evaluate("one => one.href")

    page.goto(address)
    film = page.locator(".about .movie video")
    expect(film).to_have_js_property("readyState", 0)
    film.evaluate("one => one.play()")
    expect(film).to_have_js_property("ended", True)
    expect(film).to_have_js_property("videoWidth", 64)
    film.evaluate("one => { one.currentTime = 1; }")
    expect(film).to_have_js_property("seeking", False)
    expect(film).to_have_js_property("currentTime", 1)
    expect(page.locator(".movie [role=status]")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"

    page.goto(f"{moving.base}/browse/")
    page.click(".tile:not([data-live]) > a")
    expect(page.locator(".lightbox.ready")).to_be_visible()
    expect(page.locator(".lightbox button.live")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator(".lightbox")).to_have_count(0)
    page.click(".tile[data-live] > a")
    page.click(".lightbox button.live")
    beside = page.locator(".lightbox-panel .movie video")
    expect(beside).to_be_visible()
    expect(beside).to_have_js_property("ended", True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"


def test_a_film_that_is_gone_is_a_sentence(moving: Installation, tmp_path: Path) -> None:
    page: Any = moving.open().sign_in()
    (tmp_path / "holidays" / "IMG_0.MOV").unlink()
    page.goto(f"{moving.base}/browse/")
    page.goto(page.locator(".tile[data-live] > a").first.evaluate("one => one.href"))
    expect(page.locator(".movie [role=status]")).to_be_hidden()
    page.locator(".movie video").evaluate("one => { one.play().catch(() => {}); }")
    expect(page.locator(".movie [role=status]")).to_contain_text("not where it was")
    page.click(".movie figcaption a")
    expect(page.locator("body")).to_contain_text("The movie is not where it was. The next crawl looks for it.")
