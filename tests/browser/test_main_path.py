"""From a folder of photos to a found picture, as a person does it in a browser."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PASSWORD, PATIENCE, Installation, expect, settled
from tests.sandbox import Sandbox


def found_names(page: Any, number: int = 8) -> list[str]:
    """The file names of the first pictures of a grid."""
    return page.eval_on_selector_all(".tile > a:first-child img", f"all => all.slice(0, {number}).map(one => one.alt)")


def dogs_among(names: list[str], captions: dict[str, list[str]]) -> int:
    return sum(any("dog" in said for said in captions[name]) for name in names)


def test_one_time_link_to_found_opened_rated_tagged_and_undone(
    installed: Callable[..., Installation],
    sandbox: Callable[..., Sandbox],
    photos: Path,
    dev_clip: str,
    captions: dict[str, list[str]],
) -> None:
    box = sandbox(IMAGESEARCH_ENCODER=dev_clip)
    box.manage("index", photos)
    site = installed(box)
    page = site.open().page()

    page.goto(site.base)
    expect(page.locator("main")).to_contain_text("one-time link")
    link = site.one_time_link()
    page.goto(link)
    page.fill("#id_username", "anna")
    page.fill("#id_password", PASSWORD)
    page.fill("#id_again", PASSWORD)
    page.click("main button")
    page.wait_for_url(f"{site.base}/")

    page.fill("#box", "a dog running on grass")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/\?q=a(\+|%20)dog(\+|%20)running(\+|%20)on(\+|%20)grass$"))
    page.wait_for_selector(".score")
    settled(page)
    expect(page.locator("#box"), "the box keeps the focus").to_be_focused()
    expect(page.locator("#announce")).to_contain_text("best first")
    expect(page.locator(".summary"), "the active model is named").to_contain_text("dev-clip")
    names = found_names(page)
    assert len(names) == 8 and dogs_among(names, captions) >= 6, names
    scores = [float(re.sub(r"[^0-9]", "", text)) for text in page.locator(".tile .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1]

    page.locator(".tile > a:first-child").first.click()
    page.wait_for_url("**/image/*/?q=*&at=0")
    expect(page.locator(".lightbox")).to_be_visible()
    page.keyboard.press("Enter")
    picture = page.locator(".stage img")
    assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    similar = found_names(page)
    assert names[0] not in similar and dogs_among(similar, captions) >= 6, similar

    page.click("label[for=rating-4]")
    page.wait_for_selector(".toast:has-text('Rated')")
    settled(page)
    page.fill("#tag-box", "running dog")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tags .chip:has-text('running dog')")
    settled(page)
    expect(page.locator("#tag-box"), "one goes on typing tags").to_be_focused()
    expect(page.locator("#rating-4")).to_be_checked()
    page.click(".toast button:has-text('Undo')")
    page.wait_for_selector(".tags:has-text('No tags')")
    page.reload()
    expect(page.locator(".tags")).to_contain_text("No tags")
    expect(page.locator(".tags .chip")).to_have_count(0)
    expect(page.locator("#rating-4")).to_be_checked()

    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/image/*/?q=*&at=1")
    page.click("text=Back to the results")
    page.wait_for_url(re.compile(r"/\?q=a(\+|%20)dog(\+|%20)running(\+|%20)on(\+|%20)grass$"))

    page.goto(f"{site.base}/?q=rating:4")
    assert found_names(page) == [names[0]]
    page.goto(f"{site.base}/history/")
    page.click("li:has-text('Rated') button")
    page.wait_for_selector(".toast:has-text('Undid')")
    page.goto(f"{site.base}/?q=rating:4")
    assert found_names(page) == []

    page.goto(link)
    expect(page.locator("main"), "the link works once").to_contain_text("no longer good")


def test_look_serves_until_the_model_arrives_and_then_words_work(
    installed: Callable[..., Installation],
    sandbox: Callable[..., Sandbox],
    photos: Path,
    shared: Path,
    captions: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    model = tmp_path / "carried" / "dev-clip"
    box = sandbox(IMAGESEARCH_ENCODER=f"local-dir:{model}")
    box.manage("index", photos, check=False)
    site = installed(box)
    site.make_owner()
    page = site.open().sign_in()

    page.goto(f"{site.base}/?q=green")
    said = page.inner_text("main")
    assert "Searching by meaning waits for its model" in said and str(model) in said
    assert page.locator(".score").count() >= 8, "colour words are known"
    name = sorted(captions.keys() & {one.name for one in photos.iterdir()})[0]
    page.goto(f"{site.base}/?q={name.removesuffix('.jpg')}")
    assert found_names(page)[0] == name, "file names are found"
    page.goto(site.base + page.locator(".tile > a:first-child").first.get_attribute("href"))
    page.fill("#tag-box", "treasure")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tags .chip")
    page.goto(f"{site.base}/?q=treasure")
    assert found_names(page)[0] == name and "does not know" in page.inner_text("main"), (
        "tags are found, and it says how"
    )
    page.goto(f"{site.base}/?q=tag:treasure")
    assert found_names(page) == [name]

    worker = box.popen("process", "--forever")
    try:
        page.goto(f"{site.base}/progress/")
        page.wait_for_selector("text=is not here yet")
        carried = shutil.copytree(shared / "models" / "dev-clip", tmp_path / "on-the-way")
        model.parent.mkdir()
        carried.rename(model)
        page.wait_for_selector("text=is not here yet", state="detached")  # the page asks again by itself
        end = time.monotonic() + PATIENCE
        while True:
            page.goto(f"{site.base}/?q=a+dog+running+on+grass")
            said = page.inner_text("main")
            if "waits" not in said and "can be searched by meaning yet" not in said and page.locator(".score").count():
                break
            assert time.monotonic() < end and worker.poll() is None, said
            time.sleep(1)
    finally:
        worker.terminate()
        worker.wait(60)
    names = found_names(page)
    assert dogs_among(names, captions) >= 6, names
    expect(page.locator(".summary")).to_contain_text("dev-clip")


def test_everything_works_without_a_script(opened: Callable[..., Any], captions: dict[str, list[str]]) -> None:
    """Every step loads a page: `press` waits for the new one, as the old one could pass for it."""
    site = opened(java_script_enabled=False)
    page = site.sign_in()

    def press(selector: str) -> None:
        with page.expect_navigation():
            page.locator(selector).first.click()

    page.fill("#box", "dog")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=dog")
    assert dogs_among(found_names_plain(page), captions) >= 6
    page.click("text=Show the nearest anyway")
    page.wait_for_url("**/?q=dog&min=0")
    page.click("text=More pictures")
    page.wait_for_url("**offset=60")
    expect(page.locator(".tile")).to_have_count(40)
    page.click("text=Filters")
    page.wait_for_url("**/filters/**")
    page.select_option("#filter-format", "jpeg")
    page.click("text=Apply")
    page.wait_for_url("**/?q=dog+format%3Ajpeg&min=0")
    page.locator(".chip .off").first.click()
    page.wait_for_url("**/?q=format%3Ajpeg&min=0")

    page.goto(f"{site.base}/browse/")
    page.locator(".tile > a:first-child").nth(3).click()
    page.wait_for_url("**/image/**")
    page.check("#rating-5", force=True)
    press("button:has-text('Rate')")
    expect(page.locator(".toast")).to_contain_text("Rated")
    expect(page.locator("#rating-5")).to_be_checked()
    press(".toast button:has-text('Undo')")
    expect(page.locator("#rating-0")).to_be_checked()
    page.fill("#tag-box", "no script")
    press("button:has-text('Add')")
    expect(page.locator(".tags")).to_contain_text("no script")
    press("button[aria-label='Remove the tag no script']")
    expect(page.locator(".tags")).to_contain_text("No tags")
    press("button:has-text('Remove')")
    expect(page.locator("#curation")).to_contain_text("Removed from the pictures")
    press(".toast button:has-text('Undo')")
    expect(page.locator(".toast")).to_contain_text("Undid")
    expect(page.locator("#curation")).not_to_contain_text("Removed from the pictures")
    here = page.url
    press("a[rel=next]")
    assert page.url != here and "/image/" in page.url

    page.goto(f"{site.base}/history/")
    rows = page.locator(".change")
    for place in (1, 2):  # above them the removal, below them the rating: both were undone before
        press(".change .button.first")
        expect(rows.nth(place)).to_have_class("change undone")
        expect(rows.nth(place).locator("button")).to_contain_text("Redo")
    for place in range(4):
        expect(rows.nth(place)).to_have_class("change undone")
    press(".toast button:has-text('Redo')")
    expect(rows.nth(2).locator("button")).to_contain_text("Undo")
    expect(rows.nth(2)).to_have_class("change")
    press(".change .button.first")
    expect(rows.nth(2)).to_have_class("change undone")

    page.click(".by-picture > summary")
    page.set_input_files("#picture", [{"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}])
    press("text=Search with it")
    expect(page.locator(".toast.error")).to_have_count(1)
    page.click(".menu:not(.by-picture) > summary")
    page.click("text=Sign out anna")
    page.wait_for_url("**/signin")


def found_names_plain(page: Any) -> list[str]:
    return [page.locator(".tile > a:first-child img").nth(n).get_attribute("alt") for n in range(8)]


def test_everything_works_from_the_keyboard(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    page.goto(f"{site.base}/browse/")
    page.keyboard.press("/")
    page.keyboard.type("snow")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=snow")
    page.wait_for_selector(".score")
    settled(page)
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.tile > a:first-child')"):
            break
    tile = page.locator(".tile:has(> a:first-child:focus)")
    expect(tile, "a tile has the focus").to_have_count(1)
    edge = tile.evaluate("one => getComputedStyle(one, '::after').borderTopWidth")
    assert edge == "4px", "the focus can be seen"
    page.keyboard.press("Enter")
    page.wait_for_url("**/image/*/?q=snow&at=0")
    expect(page.locator(".lightbox")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator(".stage img"), "the page of the picture").to_be_visible()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**at=1")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**at=0")
    page.keyboard.press("3")
    page.wait_for_selector(".toast:has-text('Rated')")
    settled(page)
    page.focus("#rating-3")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".toast:has-text('4 stars')")
    settled(page)
    expect(page.locator("#rating-4"), "the radio group keeps the focus").to_be_focused()
    page.keyboard.press("0")
    page.wait_for_selector(".toast:has-text('Took the rating off')")
    settled(page)
    page.keyboard.press("t")
    expect(page.locator("#tag-box")).to_be_focused()


def test_scrolling_goes_on_to_the_honest_end_without_shifting(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    page.add_init_script(
        "window.shift = 0;"
        "new PerformanceObserver(list => list.getEntries().forEach(one => { window.shift += one.value }))"
        ".observe({type: 'layout-shift', buffered: true})"
    )
    page.goto(f"{site.base}/?q=dog&min=0")
    expect(page.locator(".tile")).to_have_count(60)
    end = time.monotonic() + PATIENCE
    while "The end." not in page.inner_text("#more"):
        assert time.monotonic() < end, page.inner_text("#more")
        page.mouse.wheel(0, 1500)
        page.wait_for_timeout(100)
    expect(page.locator(".tile")).to_have_count(100)
    settled(page)
    places = page.eval_on_selector_all(".tile > a:first-child", "all => all.map(one => new URL(one.href).pathname)")
    assert len(set(places)) == 100, "no picture twice"
    rows = page.eval_on_selector_all(
        ".tile",
        "all => all.map(one => one.getBoundingClientRect()).map(box => [Math.round(box.top), box.right, box.height])",
    )
    tops = sorted({row[0] for row in rows})
    for top in tops:
        heights = [row[2] for row in rows if row[0] == top]
        assert max(heights) - min(heights) < 1.5, "one height a row"
    widest = max(row[1] for row in rows)
    for top in tops[:-1]:
        assert max(row[1] for row in rows if row[0] == top) == pytest.approx(widest, abs=1.5), (
            "every row fills the width"
        )
    assert page.evaluate("window.shift") < 0.02


def test_dropped_and_pasted_pictures_search(opened: Callable[..., Any], photos: Path) -> None:
    site = opened()
    page = site.sign_in()
    picture = sorted(photos.iterdir())[0]
    make = """async address => {
        const data = await (await fetch(address)).blob();
        const carried = new DataTransfer();
        carried.items.add(new File([data], 'dropped.jpg', {type: 'image/jpeg'}));
        return carried;
    }"""
    page.goto(f"{site.base}/?q=name:{picture.stem}")
    own = page.locator(".tile img").first.get_attribute("src")
    for kind, target in [("drop", "#main"), ("paste", "#box")]:
        page.goto(f"{site.base}/?q=-snow")
        carried = page.evaluate_handle(make, own)
        if kind == "drop":
            page.dispatch_event(target, "drop", {"dataTransfer": carried})
        else:
            page.evaluate(
                "([selector, carried]) => document.querySelector(selector).dispatchEvent("
                "new ClipboardEvent('paste', {clipboardData: carried, bubbles: true, cancelable: true}))",
                [target, carried],
            )
        page.wait_for_url("**upload=*")
        assert "not%3A%22snow%22" in page.url, "it joins the query that was there"
        expect(page.locator(".chip:has-text('your picture') img")).to_have_count(1)
        page.goto(re.sub(r"q=[^&]*&", "", page.url))
        assert found_names(page)[0] == picture.name, "the very picture comes first"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_no_page_is_wider_than_the_window_or_breaks_the_policy(
    opened: Callable[..., Any], width: int, scheme: str
) -> None:
    site = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = site.sign_in()
    room, needed = page.evaluate(
        """() => {
            const box = document.getElementById("box"), own = getComputedStyle(box);
            const hint = getComputedStyle(box, "::placeholder");
            const pen = document.createElement("canvas").getContext("2d");
            pen.font = `${hint.fontSize} ${hint.fontFamily}`;
            const room = box.clientWidth - parseFloat(own.paddingLeft) - parseFloat(own.paddingRight);
            return [room, pen.measureText(box.placeholder).width];
        }"""
    )
    assert 0 < needed < room, "the hint in the box can be read whole"
    image = page.locator(".tile > a:first-child").first.get_attribute("href")
    addresses = [
        "/", "/?q=dog+-snow+tag:beach", "/?q=rating:9", "/?q=name:nothing-is-called-so", image, "/browse/",
        "/progress/",
        "/problems/", "/history/", "/filters/", "/nothing-here",
    ]  # fmt: skip
    for address in addresses:
        page.goto(f"{site.base}{address}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(251, 250, 248)" if scheme == "light" else "rgb(19, 20, 22)"), address


def test_the_administration_keeps_the_policy(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    page.goto(f"{site.base}/admin/")
    links = page.eval_on_selector_all("#content-main th a", "all => all.map(one => one.href)")
    assert len(links) >= 8
    for link in links:
        answer = page.goto(link)
        assert answer.ok, link
        first = page.locator("#result_list tbody th a, #result_list tbody td.field-__str__ a").first
        if first.count():
            assert page.goto(site.base + first.get_attribute("href")).ok


def test_theme_is_kept_and_never_flashes(opened: Callable[..., Any]) -> None:
    site = opened(color_scheme="light")
    page = site.sign_in()
    page.click(".menu:not(.by-picture) > summary")
    page.click("text=Dark pages")
    page.goto(f"{site.base}/browse/", wait_until="commit")
    page.wait_for_selector("body", state="attached")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark", "set before the body is drawn"
    page.wait_for_load_state()
    expect(page.locator("body")).to_have_css("background-color", "rgb(19, 20, 22)")


def test_going_back_shows_the_results_again(opened: Callable[..., Any]) -> None:
    site = opened()
    page = site.sign_in()
    for words in ["dog", "snow"]:
        page.fill("#box", words)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/?q={words}")
        page.wait_for_selector(f".chip:has-text('{words}')")
        settled(page)
    page.go_back()
    page.wait_for_url("**/?q=dog")
    page.wait_for_selector(".chip:has-text('dog')")
    expect(page.locator("#box")).to_have_value("dog")
