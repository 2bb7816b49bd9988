"""The lightbox in a real browser: by mouse, by key alone, by finger; every key of its table has its effect."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search import keys
from tests.browser.conftest import expect, settled

pytestmark = pytest.mark.slow

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TILES = "#grid > .tile:not(.gone) > a:first-child"


def watched(page: Any) -> list[str]:
    """What the console complains of (besides what a test says that must fail)."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
    return said


def opened_at(page: Any, address: str, place: int = 0) -> None:
    page.goto(address)
    page.locator(TILES).nth(place).click()
    shown(page)


def shown(page: Any) -> None:
    """The lightbox is there, its picture too, and it knows the pictures around."""
    expect(page.locator(".lightbox .pswp--open")).to_be_visible()
    expect(page.locator(".lightbox .pswp__item[aria-hidden=false] img.pswp__img").last).to_be_visible()
    expect(page.locator(".lightbox .count")).to_have_text(re.compile(r"\d"))
    expect(page.locator(".lightbox.ready")).to_have_count(1)


def name(page: Any) -> Any:
    return page.locator(".lightbox .name")


def button(page: Any, act: str) -> Any:
    return page.locator(f".lightbox-bar button[data-act={act}]")


def pressed(page: Any, act: str, on: bool) -> None:
    expect(button(page, act)).to_have_attribute("aria-pressed", str(on).lower())


def test_by_mouse(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    said = watched(page)
    page.goto(f"{site.base}/browse/")
    names = page.eval_on_selector_all(f"{TILES} > img", "all => all.map(one => one.alt)")
    opened_at(page, f"{site.base}/browse/", 2)
    expect(name(page)).to_have_text(names[2])
    expect(page.locator(".lightbox .count")).to_have_text("3 of 100")
    page.wait_for_url("**/image/*/?in=browse")
    page.click(".lightbox-turn.on")
    expect(name(page)).to_have_text(names[3])
    page.click(".lightbox-turn.back")
    page.click(".lightbox-turn.back")
    expect(name(page)).to_have_text(names[1])
    button(page, "rate").nth(3).click()
    expect(page.locator(".lightbox-stars .lit")).to_have_count(4)
    expect(page.locator("#grid > .tile").nth(1), "the tile beneath shows it at once").to_have_attribute(
        "data-rating", "4"
    )
    page.click(".toast button:has-text('Undo')")
    expect(page.locator(".lightbox-stars .lit")).to_have_count(0)
    expect(page.locator("#grid > .tile").nth(1)).to_have_attribute("data-rating", "0")
    for act in ("favourite", "select"):
        button(page, act).click()
        pressed(page, act, True)
        button(page, act).click()
        pressed(page, act, False)
    button(page, "info").click()
    expect(page.locator(".lightbox-panel")).to_contain_text("Dimensions")
    page.fill("#lightbox-tag-box", "by mouse")
    page.click("#lightbox-curation button:has-text('Add') >> nth=0")
    expect(page.locator("#lightbox-curation .tags")).to_contain_text("by mouse")
    settled(page)
    page.click("#lightbox-curation button[aria-label='Remove the tag by mouse']")
    expect(page.locator("#lightbox-curation .tags")).to_contain_text("No tags")
    settled(page)
    button(page, "zoom").click()
    expect(page.locator(".lightbox.zoomed")).to_have_count(1)
    button(page, "info").click()
    expect(page.locator(".lightbox-panel")).to_be_hidden()
    button(page, "close").click()
    expect(page.locator(".lightbox")).to_have_count(0)
    page.wait_for_url("**/browse/")
    expect(page.locator(TILES).nth(1), "the focus is where one looked last").to_be_focused()
    assert not said


def test_every_key_of_the_lightbox_has_its_effect(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    said = watched(page)
    page.clock.install()
    page.goto(f"{site.base}/?q=dog&min=0")
    page.locator(TILES).first.focus()
    page.keyboard.press("Enter")
    shown(page)
    pushed: set[str] = set()

    def press(key: str) -> None:
        pushed.add("X" if key == "Shift+X" else " " if key == "Space" else key)
        page.keyboard.press(key)

    first = name(page).inner_text()
    press("ArrowRight")
    expect(name(page)).not_to_have_text(first)
    second = name(page).inner_text()
    press("Space")
    expect(page.locator(".lightbox .count")).to_have_text("3 of 100")
    press("ArrowLeft")
    expect(name(page)).to_have_text(second)
    page.wait_for_url("**/image/*/?q=dog&min=0&at=1")
    for stars in "12345":
        press(stars)
        expect(page.locator(".lightbox-stars .lit")).to_have_count(int(stars))
    press("0")
    expect(page.locator(".lightbox-stars .lit")).to_have_count(0)
    for key, act in [("f", "favourite"), ("x", "select")]:
        press(key)
        pressed(page, act, True)
        press(key)
        pressed(page, act, False)
    press("h")
    expect(page.locator(".lightbox .count"), "hidden, and on to the next").to_have_text("3 of 100")
    press("ArrowLeft")
    expect(page.locator(".lightbox .state")).to_have_text("Hidden")
    press("h")
    expect(page.locator(".lightbox .state")).to_be_hidden()
    press("i")
    expect(page.locator(".lightbox-panel")).to_contain_text("Dimensions")
    press("i")
    expect(page.locator(".lightbox-panel")).to_be_hidden()
    for key, field in [("t", "lightbox-tag-box"), ("c", "lightbox-comment-box")]:
        press(key)
        page.clock.run_for(500)
        expect(page.locator(f"#{field}")).to_be_focused()
        page.keyboard.type("5fh")
        expect(page.locator(f"#{field}"), "no key fires while one types").to_have_value("5fh")
        press("Escape")
        expect(page.locator(".lightbox"), "out of the field, not of the lightbox").to_be_focused()
    expect(page.locator(".lightbox-stars .lit")).to_have_count(0)
    press("a")
    expect(page.locator("#lightbox-curation details[data-act=album]")).to_have_attribute("open", "")
    page.locator("#lightbox-album-name").fill("From the lightbox")
    page.keyboard.press("Enter")
    expect(page.locator("#lightbox-curation")).to_contain_text("From the lightbox")
    settled(page)
    page.locator(".lightbox").focus()
    press("i")
    for key, zoomed in [("z", 1), ("z", 0), ("+", 1), ("-", 0), ("=", 1)]:
        press(key)
        page.clock.run_for(500)
        expect(page.locator(".lightbox.zoomed"), key).to_have_count(zoomed)
    for _ in range(4):  # nearer than the window is high
        press("=")
        page.clock.run_for(500)
    inner = ".lightbox .pswp__item[aria-hidden=false] .pswp__zoom-wrap"
    at = page.locator(inner).get_attribute("style")
    press("ArrowDown")
    expect(page.locator(inner)).not_to_have_attribute("style", at)
    moved = page.locator(inner).get_attribute("style")
    press("ArrowUp")
    expect(page.locator(inner)).not_to_have_attribute("style", moved)
    press("p")
    pressed(page, "play", True)
    before = page.locator(".lightbox .count").inner_text()
    page.clock.run_for(6_000)
    expect(page.locator(".lightbox .count"), "it goes on by itself").not_to_have_text(before)
    press("Escape")
    pressed(page, "play", False)
    here = page.locator(".lightbox .count").inner_text()
    page.clock.run_for(20_000)
    expect(page.locator(".lightbox .count"), "stopped, and not closed").to_have_text(here)
    press("Escape")
    expect(page.locator(".lightbox")).to_have_count(0)
    page.wait_for_url("**/?q=dog&min=0")
    expect(page.locator("#grid > .tile:focus-within")).to_have_count(1)
    page.keyboard.press("Enter")
    shown(page)
    press("Enter")
    expect(page.locator(".stage img"), "its page").to_be_visible()
    table = next(section for section in keys.sections() if section.place.name == "lightbox")
    assert pushed == {key for row in table.rows for key in row.keys}, "every key of the table was pressed"
    assert not said


def test_next_and_previous_go_through_the_whole_result(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    page.goto(f"{site.base}/?q=dog&min=0&offset=60")
    expect(page.locator(TILES)).to_have_count(40)
    page.locator(TILES).first.click()
    shown(page)
    expect(page.locator(".lightbox .count")).to_have_text("61 of 100")
    seen = {name(page).inner_text()}
    for number in range(60, 0, -1):
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".lightbox .count")).to_have_text(f"{number} of 100")
        seen.add(name(page).inner_text())
    assert len(seen) == 61, "each picture once, also before the loaded page"
    expect(page.locator(".lightbox-turn.back")).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".lightbox [role=status]")).to_have_text("This is the first picture.")
    for number in range(2, 101):
        page.keyboard.press("ArrowRight")
        expect(page.locator(".lightbox .count")).to_have_text(f"{number} of 100")
        seen.add(name(page).inner_text())
    assert len(seen) == 100
    expect(page.locator(".lightbox-turn.on")).to_be_hidden()


def test_back_closes_forward_opens_and_a_reload_shows_the_page(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    opened_at(page, f"{site.base}/?q=dog", 1)
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**at=2")
    page.go_back()
    expect(page.locator(".lightbox")).to_have_count(0)
    page.wait_for_url("**/?q=dog")
    expect(page.locator(TILES).nth(2), "the grid was not loaded anew").to_be_focused()
    page.go_forward()
    shown(page)
    page.wait_for_url("**at=2")
    page.reload()
    expect(page.locator(".stage img")).to_be_visible()
    expect(page.locator(".lightbox")).to_have_count(0)
    page.go_back()
    page.wait_for_url("**/?q=dog")
    expect(page.locator("#grid > .tile").first).to_be_visible()
    page.locator(TILES).first.click(modifiers=["Control"])
    expect(page.locator(".lightbox"), "with Ctrl a link is a link").to_have_count(0)


def test_from_the_page_of_a_picture(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    page.goto(f"{site.base}/browse/")
    page.goto(site.base + page.locator(TILES).nth(4).get_attribute("href"))
    here = page.url
    page.keyboard.press("Enter")
    shown(page)
    expect(page.locator(".lightbox .count")).to_have_text("5 of 100")
    page.keyboard.press("4")
    expect(page.locator(".lightbox-stars .lit")).to_have_count(4)
    expect(page.locator("#rating-4"), "the page beneath follows").to_be_checked()
    page.keyboard.press("0")
    expect(page.locator("#rating-0")).to_be_checked()
    page.keyboard.press("Escape")
    expect(page.locator(".lightbox")).to_have_count(0)
    page.wait_for_url(here)
    page.click("a[data-lightbox]")
    shown(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    last = name(page).inner_text()
    page.keyboard.press("Escape")
    expect(page, "it is the page of the one that was shown last").to_have_title(f"{last} · Image search")
    expect(page.locator(".stage img")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_by_finger(opened: Callable[..., Any], scheme: str) -> None:
    site = opened(**PHONE, color_scheme=scheme)
    page = site.sign_in()
    said = watched(page)
    page.goto(f"{site.base}/browse/")
    page.locator(TILES).nth(1).tap()
    shown(page)
    first = name(page).inner_text()
    swipe(site, page, 330, 60)
    expect(name(page)).not_to_have_text(first)
    swipe(site, page, 60, 330)
    expect(name(page)).to_have_text(first)
    button(page, "favourite").tap()
    pressed(page, "favourite", True)
    button(page, "favourite").tap()
    pressed(page, "favourite", False)
    button(page, "info").tap()
    panel = page.locator(".lightbox-panel")
    expect(panel).to_contain_text("Dimensions")
    box, picture = (
        panel.bounding_box(),
        page.locator(".pswp__item[aria-hidden=false] img.pswp__img").last.bounding_box(),
    )
    assert picture["y"] + picture["height"] <= box["y"] + 1, "the picture stays in sight above the panel"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    panel.locator("label[for=lightbox-rating-3]").tap()
    expect(page.locator("#grid > .tile").nth(1)).to_have_attribute("data-rating", "3")
    settled(page)
    panel.locator("label[for=lightbox-rating-0]").tap()
    expect(page.locator("#grid > .tile").nth(1)).to_have_attribute("data-rating", "0")
    paper = panel.evaluate("one => getComputedStyle(one).backgroundColor")
    assert paper == ("rgb(251, 250, 248)" if scheme == "light" else "rgb(19, 20, 22)")
    button(page, "close").tap()
    expect(page.locator(".lightbox")).to_have_count(0)
    page.wait_for_url("**/browse/")
    assert not said


def swipe(site: Any, page: Any, start: int, end: int) -> None:
    hand = site.context.new_cdp_session(page)
    way = [start + (end - start) * step // 6 for step in range(7)]
    hand.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": way[0], "y": 400}]})
    for x in way[1:]:
        page.wait_for_timeout(40)  # a hand takes its time
        hand.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": 400}]})
    hand.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    hand.detach()


def test_a_file_that_is_gone_is_said_in_its_slide(opened: Callable[..., Any], photos: Path) -> None:
    site = opened()
    page = site.sign_in()
    page.goto(f"{site.base}/browse/")
    lost = photos / page.locator(f"{TILES} > img").nth(7).get_attribute("alt")
    away = lost.with_suffix(".away")
    lost.rename(away)
    try:
        page.locator(TILES).nth(7).click()
        expect(page.locator(".lightbox .pswp__error-msg")).to_contain_text("The file is not where it was.")
        page.keyboard.press("ArrowRight")
        expect(page.locator(".lightbox .pswp__item[aria-hidden=false] .pswp__error-msg")).to_have_count(0)
        shown(page)
    finally:
        away.rename(lost)


def test_slides_stand_still_where_motion_is_unwanted(opened: Callable[..., Any]) -> None:
    site = opened(reduced_motion="reduce")
    page = site.sign_in()
    opened_at(page, f"{site.base}/browse/")
    options = page.evaluate(
        "() => { const one = imagesearch.lightbox.current().pswp.options;"
        " return [one.showHideAnimationType, one.zoomAnimationDuration] }"
    )
    assert options == ["none", 0]
    page.keyboard.press("Escape")
    expect(page.locator(".lightbox")).to_have_count(0)


def test_a_long_set_is_held_as_a_window(opened: Callable[..., Any]) -> None:
    """The script's own store, fed with a set of 100,000: it forgets what lies far behind."""
    site = opened()
    page = site.sign_in()
    page.goto(f"{site.base}/browse/")
    kept, first, last, number = page.evaluate(
        """async () => {
            const {Slides, START} = imagesearch.slides;
            const one = n => ({id: n, name: `p${n}`, w: 30, h: 20, thumb: `/thumbnail/${n}.jpg`,
                               src: `/picture/${n}.jpg`, href: `/image/${n}/?q=a&at=${n}`});
            const real = window.fetch;
            window.fetch = address => {
                const asked = new URL(address, location.href).searchParams;
                const at = Number(asked.get("at")), way = asked.get("way");
                const from = way === "after" ? at + 1 : Math.max(0, at - 60);
                const to = way === "before" ? at - 1 : at + 60;
                const slides = Array.from({length: to - from + 1}, (_, n) => one(from + n));
                const data = {slides, before: from > 0, after: to < 99999, number: from + 1, total: 100000};
                return Promise.resolve(new Response(JSON.stringify(data)));
            };
            const set = new Slides([one(0)], 0, false, () => {}, sentence => { throw new Error(sentence); });
            await set.ask("around", START);
            for (let index = START; index < START + 5000; index++) {
                set.near(index);
                await Promise.all(Object.values(set.loading));
            }
            const end = START + 4999;
            const result = [set.items.size, set.at(START) === undefined, set.at(end).id, set.count(end)];
            window.fetch = real;
            return result;
        }"""
    )
    assert kept <= 700 and first and last == 4999 and number == "5,000 of 100,000"
