"""Reviewing in a real browser: by mouse, by keyboard alone, by touch, and without a script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from tests.browser.conftest import Installation, expect, settled
from tests.sandbox import Sandbox

pytestmark = pytest.mark.slow

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def strips(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Six strips, far longer than high, waiting among the extreme shapes; and two good pictures."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(3)
    for number in range(6):
        colours = random.integers(40, 255, (1, 12, 3), dtype=np.uint8)
        strip = PilImage.fromarray(colours).resize((1200, 200), PilImage.Resampling.BICUBIC)
        strip.save(folder / f"strip{number}.png")
    for number in range(2):
        PilImage.fromarray(random.integers(0, 255, (300, 400, 3), dtype=np.uint8)).save(folder / f"good{number}.png")
    sandbox = Sandbox(tmp_path_factory.mktemp("review"))
    sandbox.manage("index", folder)
    made = Installation(sandbox, browser)
    made.make_owner()
    yield made
    made.close()


UNTOUCHED = """
from django.db import transaction
from search import changes, review
from search.models import Change, Favourite, Image, ImageTag, Reviewed, Selection
with transaction.atomic():
    for model in (Favourite, ImageTag, Reviewed, Selection):
        model.objects.all().delete()
    Image.objects.update(hidden=False, flagged=False, rating=0, state="ready")
    every = list(Image.objects.values_list("id", flat=True))
    changes.record(Change.Kind.IMAGES, every)  # the server's kept filters follow the change log
    changes.record(Change.Kind.FACTS, every)
review.refresh()
"""


@pytest.fixture
def site(strips: Installation) -> Iterator[Installation]:
    """The installation as if nobody had reviewed anything; nothing wrong may happen in the browser."""
    strips.sandbox.manage("shell", "--verbosity", "0", "-c", UNTOUCHED)
    yield strips
    assert not strips.close_contexts()


def left(page: Any, number: int) -> None:
    expect(page.locator("#review-left")).to_have_text(str(number))
    settled(page)


def name(page: Any) -> str:
    return page.locator(".review-name strong").inner_text()


def begin(site: Any, **options: Any) -> Any:
    page = site.open(**options).sign_in()
    page.goto(f"{site.base}/review/")
    page.click(".queue:has-text('Extreme shape') .queue-door")
    left(page, 6)
    return page


@pytest.mark.parametrize("options", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_queue_is_gone_through_by_mouse_or_finger(site: Any, options: dict[str, Any]) -> None:
    page = begin(site, **options)
    press = page.tap if options.get("has_touch") else page.click
    shown = page.locator(".review-name strong")
    for number, (button, said) in enumerate(
        [("#review-keep", "Kept 1 picture"), ("#review-hide", "Hid 1 picture"), ("#review-remove", "Removed 1 picture")]
    ):
        before = name(page)
        press(button)
        left(page, 5 - number)
        expect(page.locator("#review-done")).to_contain_text(said)
        expect(shown).not_to_have_text(before)
    before = name(page)
    press("#review-rate-4")
    expect(page.locator(".review-words")).to_contain_text("4 ★")
    settled(page)
    press("#review-favourite")
    expect(page.locator("#review-favourite[aria-pressed=true]")).to_be_visible()
    settled(page)
    page.fill("#review-tag", "panorama")
    press(".review-bar button:has-text('Tag')")
    expect(page.locator(".review-words .chip")).to_have_text("panorama")
    expect(shown).to_have_text(before)
    settled(page)
    press("#review-later")
    expect(shown).not_to_have_text(before)
    settled(page)
    press("#review-back")
    expect(shown).to_have_text(before)
    settled(page)
    for _ in range(3):  # the tag, the favourite, the stars; then the three decisions
        press("#review-undo")
        settled(page)
    expect(page.locator("#review-done")).to_contain_text("Removed 1 picture")
    left(page, 3)
    for number in (4, 5, 6):
        press("#review-undo")
        left(page, number)
    expect(page.locator("#review-undo")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"


def test_a_queue_is_gone_through_by_keyboard_alone(site: Any) -> None:
    page = begin(site)
    press = page.keyboard.press
    shown = page.locator(".review-name strong")
    first = name(page)
    press("Space")
    expect(shown).not_to_have_text(first)
    settled(page)
    second = name(page)
    press("ArrowLeft")
    expect(shown).to_have_text(first)
    settled(page)
    press("ArrowRight")
    expect(shown).to_have_text(second)
    settled(page)
    press("k")
    left(page, 5)
    press("h")
    left(page, 4)
    press("r")
    left(page, 3)
    press("Delete")
    left(page, 2)
    press("3")
    expect(page.locator("#review-rate-3[aria-pressed=true]")).to_be_visible()
    settled(page)
    press("0")
    expect(page.locator("#review-rate-0[aria-pressed=true]")).to_be_visible()
    settled(page)
    press("f")
    expect(page.locator("#review-favourite[aria-pressed=true]")).to_be_visible()
    settled(page)
    press("t")
    expect(page.locator("#review-tag")).to_be_focused()
    page.keyboard.type("keep this k h r")  # no key fires while somebody types
    press("Enter")
    expect(page.locator(".review-words .chip")).to_have_text("keep this k h r")
    settled(page)
    left(page, 2)
    press("Escape")  # out of the field
    press("u")
    expect(page.locator(".review-words .chip")).to_have_count(0)
    settled(page)
    press("k")
    left(page, 1)
    expect(page.locator("#announce")).to_contain_text("The end of the queue, 1 left")
    expect(page.locator(".review .empty")).to_contain_text("1 that you skipped is still in it")
    page.reload()  # where one is stands in the address, and so does what can be undone
    expect(page.locator("#review-done")).to_contain_text("Kept 1 picture")
    press("u")
    left(page, 2)
    press("Escape")
    expect(page).to_have_url(f"{site.base}/review/")
    expect(page.locator(".queue:has-text('Extreme shape') .queue-count")).to_have_text("2")


def test_the_end_of_a_queue_is_said(site: Any) -> None:
    page = begin(site)
    for number in range(5, -1, -1):
        page.keyboard.press("k")
        if number:
            left(page, number)
    expect(page.locator(".review .empty")).to_contain_text("Nothing waits here")
    expect(page.locator("#review-left")).to_have_text("0")
    page.keyboard.press("u")
    left(page, 1)
    page.keyboard.press("Space")
    expect(page.locator(".review .empty")).to_contain_text("The end of this queue")
    page.click(".review .empty .first")
    left(page, 1)
    expect(page.locator("#review-picture")).to_be_visible()


def test_space_after_a_click_skips_and_does_not_press_again(site: Any) -> None:
    page = begin(site)
    page.click("#review-keep")
    left(page, 5)
    before = name(page)
    page.keyboard.press("Space")
    expect(page.locator(".review-name strong")).not_to_have_text(before)
    left(page, 5)
    page.focus("#review-hide")  # who comes to a button by Tab presses it with Space, and stays on it
    page.keyboard.press("Space")
    left(page, 4)
    expect(page.locator("#review-hide")).to_be_focused()


def test_without_a_script_forms_and_links_do_it_all(site: Any) -> None:
    page = begin(site, java_script_enabled=False)
    first = name(page)
    page.click("#review-hide")
    expect(page.locator("#review-left")).to_have_text("5")
    expect(page.locator("#review-done")).to_contain_text("Hid 1 picture")
    page.click("#review-later")
    page.fill("#review-tag", "strip")
    page.keyboard.press("Enter")
    expect(page.locator(".review-words .chip")).to_have_text("strip")
    page.click("#review-undo")
    expect(page.locator(".review-words .chip")).to_have_count(0)
    page.click("#review-undo")
    expect(page.locator("#review-left")).to_have_text("6")
    expect(page.locator(".review-name strong")).to_have_text(first)


def test_all_of_a_queue_is_kept_at_once_from_its_grid(site: Any) -> None:
    page = site.open().sign_in()
    page.goto(f"{site.base}/review/")
    page.click(".queue:has-text('Extreme shape') a:has-text('Show all')")
    expect(page.locator(".tile")).to_have_count(6)
    page.click(".select-all button")
    expect(page.locator("#selection-count")).to_have_text("6 selected")
    settled(page)
    page.click("#selection button:has-text('Keep')")
    expect(page.locator(".tile")).to_have_count(0)
    expect(page.locator(".toast")).to_contain_text("Kept 6 pictures of the queue “Extreme shape”")
    page.click(".toast button:has-text('Undo')")
    expect(page.locator(".toast")).to_contain_text("Undid")
    page.goto(f"{site.base}/review/")
    expect(page.locator(".queue:has-text('Extreme shape') .queue-count")).to_have_text("6")
