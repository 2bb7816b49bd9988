"""How well pictures have to match: moved by keyboard with its live count, and as a plain form."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.browser.conftest import Watched, expect, settled


def test_the_sensitivity_moves_the_limit_and_counts_live(opened: Callable[..., Watched]) -> None:
    site = opened()
    page = site.sign_in()
    page.goto(f"{site.base}/?q=dog")
    before = page.locator(".tile").count()
    assert before and page.input_value("#min") == "40"
    page.focus("#min")
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile(r"/\?q=dog&min=10$"))
    settled(page)
    expect(page.locator("#min")).to_be_focused()
    expect(page.locator("#min")).to_have_value("10")
    more = page.locator(".tile").count()
    assert more > before
    # The count goes on ahead of the results.
    page.evaluate("const m = document.getElementById('min'); m.value = 20; m.dispatchEvent(new Event('input'))")
    expect(page.locator("#passing")).to_contain_text("20 %:")
    assert int(re.findall(r"(\d+) picture", page.inner_text("#passing"))[0]) <= more
    assert page.locator(".tile").count() == more, "the results move when it is let go"
    page.goto(f"{site.base}/?q=eigenvalues of a symmetric matrix")
    expect(page.locator("main")).to_contain_text("Nothing matches well")
    assert page.locator(".tile").count() == 0
    page.click("text=Show the nearest anyway")
    expect(page.locator(".tile")).to_have_count(60)


def test_the_sensitivity_is_a_form_without_a_script(opened: Callable[..., Watched]) -> None:
    site = opened(java_script_enabled=False)
    page = site.sign_in()
    page.goto(f"{site.base}/?q=dog")
    before = page.locator(".tile").count()
    page.focus("#min")
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    page.click(".sensitivity button")
    page.wait_for_url("**/?q=dog&min=10")
    assert page.locator(".tile").count() > before
