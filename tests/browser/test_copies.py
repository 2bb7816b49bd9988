"""Exact copies in the browser: by mouse, by key alone, on a phone, and without a script."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Installation, expect, settled
from tests.sandbox import Sandbox

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}


@pytest.fixture
def copied(
    photos: Path, tmp_path: Path, sandbox: Callable[..., Sandbox], installed: Callable[..., Installation]
) -> Installation:
    """Four photos, of which three have copies in another folder; one copy is named like one."""
    folder = tmp_path / "holidays"
    (folder / "Backup 2019").mkdir(parents=True)
    for number, photo in enumerate(sorted(photos.iterdir())[:4]):
        kept = folder / f"IMG_{number}.jpg"
        shutil.copy(photo, kept)
        if number < 3:
            shutil.copy2(kept, folder / "Backup 2019" / kept.name)
        if number == 0:
            shutil.copy2(kept, folder / f"IMG_{number} copy.jpg")
    one = sandbox(IMAGESEARCH_ENCODER="look")
    one.manage("index", folder)
    installation = installed(one)
    installation.make_owner()
    return installation


def tally(page: Any, said: str) -> None:
    expect(page.locator("#copies-count")).to_have_text(said)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_by_mouse_one_is_kept_and_undo_brings_the_group_back(copied: Installation, viewport: dict[str, int]) -> None:
    page = copied.open(viewport=viewport).sign_in()
    page.goto(f"{copied.base}/copies/")
    tally(page, "3 groups, 4 copies to hide")
    expect(page.locator(".because").first).to_contain_text("Kept because")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    group = page.locator(".copy-group").first
    group.locator(".copy label").nth(1).click()
    expect(group.locator(".copy input").nth(1)).to_be_checked()
    group.locator("button:has-text('Keep this one')").click()
    expect(page.locator(".copy-group.done").first).to_contain_text("exact cop")
    expect(page.locator("#copies-count")).to_contain_text("2 groups,")
    settled(page)
    page.locator(".copy-group.done button").click()
    tally(page, "3 groups, 4 copies to hide")
    page.click("a:has-text('Hide the others of all groups')")
    page.click("main button:has-text('Hide 4 copies')")
    expect(page.locator("main h2")).to_have_text("No exact copies")
    expect(page.locator(".toast")).to_contain_text("Hid 4 exact copies of 3 pictures")
    page.click(".toast button:has-text('Undo')")
    tally(page, "3 groups, 4 copies to hide")


def test_by_key_alone(copied: Installation) -> None:
    page = copied.open().sign_in()
    page.goto(f"{copied.base}/copies/")
    groups = page.locator(".copy-group")
    expect(groups.nth(0)).to_have_class("copy-group panel current")
    page.keyboard.press("2")
    expect(groups.nth(0).locator("input[type=radio]").nth(1)).to_be_checked()
    page.keyboard.press("1")
    page.keyboard.press("k")
    expect(page.locator(".copy-group.done")).to_have_count(1)
    expect(groups.nth(1)).to_have_class("copy-group panel current")
    settled(page)
    page.keyboard.press("s")
    expect(groups.nth(2)).to_have_class("copy-group panel current")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.locator(".copy-group.done")).to_have_count(2)
    settled(page)
    expect(page.locator("#copies-count")).to_contain_text("1 group,")
    page.keyboard.press("u")
    expect(page.locator("#copies-count")).to_contain_text("2 groups,")
    expect(page.locator(".copy-group.done")).to_have_count(0)
    expect(page.locator(".copy-group.current")).to_have_count(1)
    page.goto(f"{copied.base}/browse/")
    expect(page.locator(".tile")).to_have_count(7)


def test_without_a_script(copied: Installation) -> None:
    page = copied.open(java_script_enabled=False).sign_in()
    page.goto(f"{copied.base}/copies/")
    page.locator(".copy-group").first.locator("input[type=radio]").nth(1).check()
    page.locator(".copy-group").first.locator("button:has-text('Keep this one')").click()
    expect(page.locator(".toast")).to_contain_text("exact cop")
    expect(page.locator(".copy-group")).to_have_count(2)
    page.click(".toast button:has-text('Undo')")
    expect(page.locator(".copy-group")).to_have_count(3)
