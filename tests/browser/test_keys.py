"""The keys of the one table, pressed in a real browser: each has its effect, none fires while somebody types."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.browser.conftest import expect, settled

FOCUSED = ".tile:has(> a:first-child:focus)"


def names(page: Any) -> list[str]:
    return page.eval_on_selector_all("#grid > .tile:not(.gone) > a > img", "all => all.map(one => one.alt)")


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.querySelector('img').alt")


def grid_of(page: Any, base: str, address: str = "/browse/") -> list[str]:
    page.goto(f"{base}{address}")
    expect(page.locator("#grid > .tile").first).to_be_visible()
    settled(page)
    return names(page)


def test_arrows_go_through_the_grid_in_two_dimensions(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    shown = grid_of(page, site.base)
    page.keyboard.press("ArrowRight")
    assert focused(page) == shown[0], "the first arrow enters the grid"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert focused(page) == shown[2]
    page.keyboard.press("ArrowLeft")
    assert focused(page) == shown[1]
    place = "() => { const at = document.activeElement.getBoundingClientRect(); return [at.left, at.right] }"
    left, right = page.evaluate(place)
    page.keyboard.press("ArrowDown")
    below = page.evaluate(place)
    assert below[0] < right and below[1] > left and shown.index(focused(page)) > 2, "the one below it"
    page.keyboard.press("ArrowUp")
    assert focused(page) == shown[1], "and back to the same one"
    page.keyboard.press("End")
    assert focused(page) == shown[-1]
    expect(page.locator(".tile").nth(len(shown)), "the end of the page brings the next one").to_be_attached()
    settled(page)
    page.keyboard.press("ArrowRight")
    assert focused(page) == names(page)[len(shown)]
    page.keyboard.press("Home")
    assert focused(page) == shown[0]
    page.keyboard.press("PageDown")
    paged = shown.index(focused(page))
    page.keyboard.press("PageUp")
    assert paged > 3 and focused(page) == shown[0]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#grid') === null"), "the grid is one stop, with its parts"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.closest('.tile').querySelector('img').alt") == shown[0]


def test_what_the_keys_do_to_a_picture_shows_in_its_tile(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    shown = grid_of(page, site.base)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    tile = page.locator(FOCUSED)
    for stars in "12345":
        page.keyboard.press(stars)
        expect(tile).to_have_attribute("data-rating", stars)
        expect(tile.locator(".marks")).to_contain_text(f"{stars} ★")
    page.keyboard.press("0")
    expect(tile).to_have_attribute("data-rating", "0")
    expect(page.locator(".toast")).to_contain_text("rating")
    page.keyboard.press("f")
    expect(tile.locator(".marks")).to_contain_text("♥")
    page.keyboard.press("f")
    expect(tile.locator(".marks")).not_to_contain_text("♥")
    page.keyboard.press("h")
    expect(page.locator(".tile.gone")).to_have_count(1)
    assert focused(page) == shown[2], "the focus goes on to the next"
    page.locator(".toast button:has-text('Undo')").click()
    expect(page.locator(".tile.gone")).to_have_count(0)
    assert names(page) == shown, "undone, it stands where it stood"


def test_keys_select_and_act_on_all_that_is_selected(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    grid_of(page, site.base)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+X")
    expect(page.locator("#selection-count")).to_contain_text("4")
    expect(page.locator(".tick input:checked")).to_have_count(4)
    page.keyboard.press("4")
    expect(page.locator(".toast")).to_contain_text("4 pictures")
    expect(page.locator(".tile[data-rating='4']")).to_have_count(4)
    settled(page)
    page.keyboard.press("f")
    expect(page.locator(".tile[data-favourite]")).to_have_count(4)
    settled(page)
    page.keyboard.press("f")
    expect(page.locator(".tile[data-favourite]")).to_have_count(0)
    settled(page)
    for key, field in [("t", "#selection-tag"), ("a", "#selection-album-name"), ("c", "#selection-comment")]:
        page.locator("#grid > .tile > a").first.focus()
        page.keyboard.press(key)
        focus = page.evaluate("document.activeElement.id")
        assert focus in {field.removeprefix("#"), "selection-album"}, (key, focus)
        page.keyboard.press("Escape")
        expect(page.locator("details.menu[open]")).to_have_count(0)
    page.locator("#grid > .tile > a").first.focus()
    page.keyboard.press("0")
    expect(page.locator(".tile[data-rating='4']")).to_have_count(0)
    settled(page)
    page.keyboard.press("Escape")
    expect(page.locator(".tick input:checked")).to_have_count(0)


def test_no_key_works_while_somebody_types_or_with_ctrl(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    grid_of(page, site.base)
    page.keyboard.press("/")
    expect(page.locator("#box")).to_be_focused()
    page.keyboard.type("x5fht?")
    expect(page.locator("#box")).to_have_value("x5fht?")
    page.fill("#box", "")
    page.keyboard.press("Escape")
    expect(page.locator("#box")).not_to_be_focused()
    page.keyboard.press("ArrowRight")
    for combination in ["Control+x", "Alt+x", "Meta+x"]:
        page.keyboard.press(combination)
    expect(page.locator(".tick input:checked")).to_have_count(0)
    expect(page.locator(".tile[data-rating='5']")).to_have_count(0)


def test_the_question_mark_shows_the_keys(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    grid_of(page, site.base)
    page.keyboard.press("?")
    sheet = page.locator("#keys-help")
    expect(sheet.locator("kbd").first).to_be_visible()
    expect(sheet).to_contain_text("Among pictures")
    page.keyboard.press("ArrowRight")
    expect(page.locator(FOCUSED), "the page beneath rests").to_have_count(0)
    page.keyboard.press("?")
    expect(sheet).to_be_hidden()
    page.click("nav .menu > summary")
    page.click("[data-keys-help]")
    expect(sheet).to_be_visible()
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()


def test_the_keys_of_the_page_of_a_picture(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    grid_of(page, site.base)
    page.goto(site.base + page.locator(".tile > a").nth(2).get_attribute("href"))
    here = page.url
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda address: address != here)
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(here)
    for stars in "12345":
        page.keyboard.press(stars)
        expect(page.locator(".toast")).to_contain_text(f"{stars} star")
        settled(page)
    page.keyboard.press("0")
    expect(page.locator(".toast")).to_contain_text("Took the rating off")
    settled(page)
    for key, on, off in [
        ("f", "Your favourite", "Favourite"),
        ("x", "Selected", "Select"),
        ("h", "Show again", "Hide"),
    ]:
        for said in (on, off):
            page.keyboard.press(key)
            expect(page.locator("#curation button").filter(has_text=re.compile(rf"^\s*{said}\s*$"))).to_have_count(1)
            settled(page)
    for key, field in [("t", "tag-box"), ("c", "comment-box")]:
        page.keyboard.press(key)
        expect(page.locator(f"#{field}")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator(f"#{field}")).not_to_be_focused()
    page.keyboard.press("a")
    expect(page.locator("#curation details[data-act=album]")).to_have_attribute("open", "")
    expect(page.locator("#curation details[data-act=album] :focus"), "one can choose or type at once").to_have_count(1)
    page.fill("#album-name", "From the keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("#curation")).to_contain_text("In the album From the keyboard")
    settled(page)
    page.keyboard.press("i")
    expect(page.locator(".facts")).to_be_focused()
    page.keyboard.press("Escape")
    page.wait_for_url("**/browse/")
