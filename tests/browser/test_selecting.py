"""Selecting with mouse, keyboard and without a script; what is done to the selection, and its undo."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Installation, expect, settled


def ticks(page: Any) -> list[int]:
    return page.eval_on_selector_all(".tick input", "all => all.flatMap((one, place) => one.checked ? [place] : [])")


def count(page: Any, number: int) -> None:
    expect(page.locator("#selection-count")).to_have_text(f"{number} selected")


def test_click_range_drag_and_keys_select_and_the_server_remembers(library: Installation) -> None:
    page = library.open().sign_in()
    page.goto(f"{library.base}/browse/")
    box = page.locator(".tick input")
    box.nth(1).click()
    count(page, 1)
    box.nth(4).click(modifiers=["Shift"])
    count(page, 4)
    assert ticks(page) == [1, 2, 3, 4]
    page.locator(".tile").nth(6).scroll_into_view_if_needed()
    start, end = box.nth(6).bounding_box(), page.locator(".tile").nth(8).bounding_box()
    page.mouse.move(start["x"] + 8, start["y"] + 8)
    page.mouse.down()
    page.mouse.move(end["x"] + 60, end["y"] + 30, steps=12)
    page.mouse.up()
    count(page, 7)
    page.locator(".tile > a:first-child").nth(10).focus()
    page.keyboard.press("x")
    page.locator(".tile > a:first-child").nth(12).focus()
    page.keyboard.press("Shift+X")
    count(page, 10)
    assert ticks(page) == [1, 2, 3, 4, 6, 7, 8, 10, 11, 12]
    page.goto(f"{library.base}/")
    count(page, 10)
    page.keyboard.press("Escape")
    expect(page.locator("#selection.none")).to_have_count(1)
    page.reload()
    assert ticks(page) == []


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, {"width": 390, "height": 844}])
def test_a_tag_on_the_selection_is_undone_from_the_toast(library: Installation, viewport: dict[str, int]) -> None:
    page = library.open(viewport=viewport).sign_in()
    page.goto(f"{library.base}/browse/")
    for place in (0, 2):
        page.locator(".tick input").nth(place).click()
    page.click("#selection summary:has-text('Tag')")
    page.fill("#selection-tag", "browser test")
    page.keyboard.press("Enter")
    expect(page.locator(".toast")).to_contain_text("Tagged 2 pictures “browser test”")
    settled(page)
    page.click(".toast button:has-text('Undo')")
    expect(page.locator(".toast")).to_contain_text("Undid")
    page.click(".select-all button")
    count(page, 100)
    assert len(ticks(page)) == page.locator(".tick").count()
    page.click("[data-select-none]")
    expect(page.locator(".tick input:checked")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"


def test_without_a_script_ticks_travel_with_the_form(library: Installation) -> None:
    page = library.open(java_script_enabled=False).sign_in()
    page.goto(f"{library.base}/browse/")
    for place in (1, 3):
        page.locator(".tick input").nth(place).check()
    page.click("#selection summary:has-text('Rate')")
    page.select_option("#selection-rating", "5")
    page.click("#selection button:has-text('Rate')")
    expect(page.locator(".toast")).to_contain_text("Rated 2 pictures 5 stars")
    assert page.locator(".tick input:checked").count() == 2
    page.click(".toast button:has-text('Undo')")
    expect(page.locator(".toast")).to_contain_text("Undid")
    page.click("[data-select-none]")
    assert page.locator(".tick input:checked").count() == 0


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, {"width": 390, "height": 640}])
def test_menus_lie_over_toasts_can_be_reached_and_close_without_the_selection(
    library: Installation, viewport: dict[str, int]
) -> None:
    page = library.open(viewport=viewport).sign_in()
    page.goto(f"{library.base}/browse/")
    for place in (0, 2):
        page.locator(".tick input").nth(place).click()
    count(page, 2)
    for summary in ("Tag", "More"):  # the second with the toast of the first standing
        page.click(f"#selection summary:has-text('{summary}')")
        sheet = page.locator("#selection details[open] > .sheet")
        for button in sheet.locator("button:visible").all():
            button.click(trial=True)
        assert sheet.evaluate("one => one.getBoundingClientRect().top") >= 0
        if summary == "Tag":
            page.fill("#selection-tag", "over and under")
            page.keyboard.press("Enter")
            expect(page.locator(".toast")).to_contain_text("Tagged 2 pictures")
            settled(page)
    page.keyboard.press("Escape")
    expect(page.locator("#selection details[open]")).to_have_count(0)
    count(page, 2)
    assert page.locator(".toast").is_visible()
    page.click(".toast button:has-text('Undo')")
    expect(page.locator(".toast")).to_contain_text("Undid")
    page.click("[data-select-none]")
    page.click("header .menu:not(.by-picture) > summary")
    page.locator("header .menu[open] button:has-text('Sign out')").click(trial=True)
    page.keyboard.press("Escape")
