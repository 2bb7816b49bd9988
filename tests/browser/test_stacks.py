"""A RAW file and its JPEG in the browser: one tile, a stack on the page of the picture, apart and together again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Installation, expect
from tests.raw_files import dng
from tests.sandbox import Sandbox

pytestmark = pytest.mark.slow


@pytest.fixture
def paired(
    photos: Path, tmp_path: Path, sandbox: Callable[..., Sandbox], installed: Callable[..., Installation]
) -> Installation:
    folder = tmp_path / "holidays"
    folder.mkdir()
    for number, photo in enumerate(sorted(photos.iterdir())[:3]):
        shutil.copy(photo, folder / f"IMG_{number}.jpg")
    (folder / "IMG_0.dng").write_bytes(dng())
    one = sandbox(IMAGESEARCH_ENCODER="look")
    one.manage("index", folder)
    installation = installed(one)
    installation.make_owner()
    return installation


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, {"width": 390, "height": 844}])
def test_a_pair_is_one_tile_and_can_be_taken_apart_and_put_together(
    paired: Installation, viewport: dict[str, int]
) -> None:
    page: Any = paired.open(viewport=viewport).sign_in()
    page.goto(f"{paired.base}/browse/")
    expect(page.locator(".tile")).to_have_count(3)
    expect(page.locator(".stack-badge")).to_have_text("Stack of RAW+JPEG")
    page.goto(page.locator(".tile:has(.stack-badge) > a").first.evaluate("one => one.href"))
    expect(page.locator("#stack li")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    page.locator("#stack button:has-text('Make it the cover')").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#stack li").first).to_contain_text("IMG_0.dng")
    page.goto(page.locator("#stack li a").first.evaluate("one => one.href"))
    page.click("#stack button:has-text('Take the stack apart')")
    expect(page.locator("#stack")).to_have_count(0)
    page.goto(f"{paired.base}/browse/")
    expect(page.locator(".tile")).to_have_count(4)
    for name in ("IMG_0.jpg", "IMG_0.dng"):
        page.get_by_label(f"Select {name}").check(force=True)
    expect(page.locator("#selection-count")).to_contain_text("2")
    page.click("#selection summary:has-text('More')")
    page.click("#selection button:has-text('Put them in one stack')")
    expect(page.locator(".tile")).to_have_count(3)
    expect(page.locator(".toast")).to_contain_text("Stacked 2 pictures")
