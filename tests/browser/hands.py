"""The two ways to use a page: with the mouse (or a finger), and with the keyboard alone."""

from __future__ import annotations

import re
from typing import Any

from tests.browser.conftest import expect

MOST_STOPS = 300
FOCUSED = "() => [...document.querySelectorAll('.tile > a:first-child')].indexOf(document.activeElement)"


class Mouse:
    """Points and clicks."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def press(self, target: Any) -> None:
        target.first.click()

    def write(self, target: Any, text: str) -> None:
        target.first.fill(text)

    def choose(self, target: Any, label: str) -> None:
        target.first.select_option(label=label)

    def select(self, *places: int) -> None:
        for place in places:
            self.page.locator(".tick input").nth(place).click()


class Keys(Mouse):
    """Reaches everything with Tab, presses with Enter, writes letter by letter: no pointer, no script."""

    def reach(self, target: Any) -> None:
        target = target.first
        expect(target).to_be_attached()
        for _ in range(MOST_STOPS):
            if target.evaluate("one => one === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {target}")

    def press(self, target: Any) -> None:
        self.reach(target)
        kind = target.first.evaluate("one => one.type || ''")
        self.page.keyboard.press("Space" if kind in {"checkbox", "radio"} else "Enter")

    def write(self, target: Any, text: str) -> None:
        self.reach(target)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.press("Delete")
        self.page.keyboard.type(text)
        expect(target.first).to_have_value(text)

    def choose(self, target: Any, label: str) -> None:
        self.reach(target)
        labels = [re.sub(r"\s+", " ", one).strip() for one in target.first.locator("option").all_inner_texts()]
        self.page.keyboard.press("Home")
        for _ in range(labels.index(label)):
            self.page.keyboard.press("ArrowDown")
        expect(target.first.locator("option:checked")).to_have_text(label)

    def select(self, *places: int) -> None:
        """A grid is one stop of Tab; inside it the arrows lead on."""
        for place in places:
            for _ in range(MOST_STOPS):
                if (at := self.page.evaluate(FOCUSED)) >= 0:
                    break
                self.page.keyboard.press("Tab")
            else:
                raise AssertionError("Tab does not lead to the grid")
            for _ in range(abs(place - at)):
                self.page.keyboard.press("ArrowRight" if place > at else "ArrowLeft")
            expect(self.page.locator(".tile > a:first-child").nth(place)).to_be_focused()
            self.page.keyboard.press("x")
