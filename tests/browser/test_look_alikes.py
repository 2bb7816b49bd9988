"""Look-alikes in the browser: by mouse, by key alone, on a phone, and without a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PilImage

from tests.browser.conftest import Installation, expect, settled
from tests.sandbox import Sandbox

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}


@pytest.fixture
def alike(
    photos: Path, tmp_path: Path, sandbox: Callable[..., Sandbox], installed: Callable[..., Installation]
) -> Installation:
    """Four photos, of which three have a smaller version, and one of these another."""
    folder = tmp_path / "holidays"
    (folder / "web").mkdir(parents=True)
    for number, photo in enumerate(sorted(photos.iterdir())[:4]):
        with PilImage.open(photo) as opened:
            picture = opened.convert("RGB")
        picture.save(folder / f"IMG_{number}.jpg", quality=92)
        if number < 3:
            picture.reduce(2).save(folder / "web" / f"{number}.jpg", quality=80)
        if number == 0:
            picture.save(folder / "web" / "poor.jpg", quality=40)
    one = sandbox(IMAGESEARCH_ENCODER="look")
    one.manage("index", folder)
    one.manage("similar", "--refresh")
    installation = installed(one)
    installation.make_owner()
    return installation


def tally(page: Any, said: str) -> None:
    expect(page.locator("#copies-count")).to_have_text(said)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_by_mouse_one_is_kept_and_what_is_not_alike_stays(alike: Installation, viewport: dict[str, int]) -> None:
    page = alike.open(viewport=viewport).sign_in()
    page.goto(f"{alike.base}/similar/")
    tally(page, "3 groups, 4 pictures to hide")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    group = page.locator(".copy-group", has_text="3 pictures")
    expect(group.locator(".copy input[type=radio]").nth(0)).to_be_checked()
    group.locator("input[type=checkbox]").nth(2).uncheck()
    group.locator("button:has-text('Keep this one')").click()
    expect(page.locator(".copy-group.done")).to_contain_text("Hid 1 look-alike of 1 picture")
    tally(page, "3 groups, 3 pictures to hide")
    settled(page)
    page.locator(".copy-group.done button").click()
    tally(page, "3 groups, 4 pictures to hide")


def test_by_key_alone(alike: Installation) -> None:
    page = alike.open().sign_in()
    page.goto(f"{alike.base}/similar/")
    expect(page.locator(".copy-group.current")).to_have_count(1)
    page.keyboard.press("d")
    expect(page.locator(".copy-group.done")).to_contain_text("are different ones")
    settled(page)
    page.keyboard.press("2")
    page.keyboard.press("k")
    expect(page.locator(".copy-group.done")).to_have_count(2)
    settled(page)
    expect(page.locator("#copies-count")).to_contain_text("1 group,")
    page.keyboard.press("u")
    expect(page.locator("#copies-count")).to_contain_text("2 groups,")
    page.reload()
    expect(page.locator(".copy-group")).to_have_count(2)


def test_without_a_script(alike: Installation) -> None:
    page = alike.open(java_script_enabled=False).sign_in()
    page.goto(f"{alike.base}/similar/")
    page.locator(".copy-group").first.locator("button:has-text('They are different')").click()
    expect(page.locator(".toast")).to_contain_text("are different ones")
    expect(page.locator(".copy-group")).to_have_count(2)
    page.locator(".copy-group").first.locator("button:has-text('Keep this one')").click()
    expect(page.locator(".toast")).to_contain_text("Hid")
    expect(page.locator(".copy-group")).to_have_count(1)
