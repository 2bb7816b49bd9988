"""The administration in a real browser: bulk changes by mouse and by keyboard, the overview, no policy broken."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import expect

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def test_tagging_and_undoing_by_mouse(opened):
    page = opened().sign_in()
    page.goto(page.url + "admin/")
    expect(page.locator(".overview h2")).to_have_count(5)
    expect(page.locator(".overview progress").first).to_be_visible()
    page.get_by_role("link", name="Images", exact=True).first.click()
    boxes = page.locator("input.action-select")
    expect(boxes).to_have_count(50)
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.select_option('select[name="action"]', label="Tag…")
    page.get_by_role("button", name="Go").click()
    expect(page.locator(".deed-number")).to_have_text("2 pictures")
    expect(page.locator(".deed-images img")).to_have_count(2)
    page.fill('input[name="deed-tag"]', "zebra crossing")
    page.locator(".deed-buttons button").click()
    expect(page.locator(".messagelist")).to_contain_text("Tagged 2 pictures")

    field = page.locator("#filter-tag")
    field.press_sequentially("zeb")
    expect(page.locator('datalist option[value="zebra crossing"]')).to_have_count(1)
    field.fill("Zebra crossing")
    field.press("Enter")
    expect(page.locator("input.action-select")).to_have_count(2)

    page.goto(re.sub(r"\?.*", "", page.url))
    page.goto(re.sub(r"image/.*", "action/", page.url))
    page.locator("input.action-select").first.check()
    page.select_option('select[name="action"]', label="Undo")
    page.get_by_role("button", name="Go").click()
    page.get_by_role("button", name="Undo them").click()
    expect(page.locator(".messagelist")).to_contain_text("Undid")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hiding_everything_found_and_undoing_by_keyboard_on_a_phone(opened, scheme):
    page = opened(**PHONE, color_scheme=scheme).sign_in()
    page.goto(page.url + "admin/search/image/")
    page.locator("#action-toggle").focus()
    page.keyboard.press("Space")
    expect(page.locator("tr.selected")).to_have_count(50)
    every = page.locator(".actions .question a")
    expect(every).to_be_visible()
    every.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".actions .all")).to_be_visible()
    page.locator('select[name="action"]').focus()
    page.keyboard.type("Hide")
    page.locator(".actions button").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".deed-number")).to_have_text("100 pictures")
    page.locator(".deed-buttons button").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_contain_text("Hid 100 pictures")
    undo = page.get_by_role("button", name="Undo")
    undo.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_contain_text("Undid")
    page.goto(re.sub(r"\?.*", "", page.url) + "?hidden__exact=1")
    expect(page.locator(".paginator")).to_contain_text("0 images")


def test_pages_fit_a_phone(opened):
    page = opened(**PHONE).sign_in()
    base = page.url
    for address in ("admin/", "admin/search/image/", "admin/search/embeddingspace/", "admin/ingestion/work/"):
        page.goto(base + address)
        expect(page.locator("#content")).to_be_visible()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 1, f"{address} is {wide} pixels wider than the phone"
