"""The flows of daily use, each by mouse, by finger on a phone, and by the keyboard alone."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import networks, patterns
from tests.browser.conftest import PASSWORD, Installation, expect, settled
from tests.browser.hands import Keys, Mouse
from tests.sandbox import Sandbox

pytestmark = pytest.mark.slow
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
WAYS = {"mouse": (Mouse, DESKTOP), "phone": (Mouse, PHONE), "keys": (Keys, DESKTOP)}
HELD = 8


@pytest.fixture(scope="module")
def home(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Eight pictures that `look` has read; anna owns the installation, ben has an account and nothing else."""
    folder = patterns.folder_of(tmp_path_factory.mktemp("flows") / "Holidays", HELD)
    sandbox = Sandbox(tmp_path_factory.mktemp("home"), IMAGESEARCH_ENCODER="look")
    sandbox.manage("index", folder)
    installation = Installation(sandbox, browser)
    installation.make_owner()
    sandbox.manage(
        "shell", "--verbosity", "0", "-c",
        f"from django.contrib.auth import get_user_model as u; u().objects.create_user('ben', password={PASSWORD!r})",
    )  # fmt: skip
    yield installation
    installation.close()


@pytest.fixture
def visit(home: Installation) -> Iterator[Callable[..., Any]]:
    """`visit(way, name)` signs somebody in; nothing wrong may have happened in any of the browsers at the end."""

    def make(way: str, name: str = "anna") -> tuple[Any, Any]:
        hand, viewport = WAYS[way]
        page = home.open(viewport=viewport).sign_in(name)
        if page.locator("#selection:not(.none)").count():  # what an earlier test left
            page.locator("[data-select-none]").click()
            expect(page.locator("#selection.none")).to_have_count(1)
        return page, hand(page)

    yield make
    assert not home.close_contexts()


def toast(page: Any, text: str | re.Pattern[str]) -> None:
    expect(page.locator(".toast")).to_contain_text(text)
    settled(page)


def undo(page: Any, hand: Any) -> None:
    hand.press(page.locator(".toast button:has-text('Undo')"))
    toast(page, "Undid: ")


@pytest.mark.parametrize("way", WAYS)
def test_an_album_is_made_filled_ordered_shared_and_deleted(home: Installation, visit: Any, way: str) -> None:
    page, hand = visit(way)
    name = f"Coast {way}"
    page.goto(f"{home.base}/albums/")
    hand.write(page.locator("#album-name"), name)
    hand.press(page.locator("button:has-text('Make it')"))
    expect(page.locator("main h1")).to_have_text(name)
    page.goto(f"{home.base}/browse/")
    hand.select(0, 1, 3)
    expect(page.locator("#selection-count")).to_have_text("3 selected")
    hand.press(page.locator("#selection summary:has-text('Album')"))
    hand.choose(page.locator("#selection-album"), name)
    hand.press(page.locator("#selection button:has-text('Add to it')"))
    toast(page, f"Added 3 pictures to the album “{name}”")
    page.goto(f"{home.base}/albums/")
    hand.press(page.locator(f".card a:has-text('{name}')"))
    expect(page.locator(".tile")).to_have_count(3)
    names = page.locator(".tile > a:first-child img")
    before = [names.nth(place).get_attribute("alt") for place in range(3)]
    hand.press(page.locator("summary:has-text('Change the album')"))
    hand.choose(page.locator("#by"), "by file name")
    hand.press(page.locator("button:has-text('Put in order')"))
    toast(page, f"Changed the order of the album “{name}”")
    assert [names.nth(place).get_attribute("alt") for place in range(3)] == sorted(str(one) for one in before)
    hand.press(page.locator("[data-select-none]"))
    expect(page.locator(".tick input:checked")).to_have_count(0)
    hand.select(2)
    last = names.nth(2).get_attribute("alt")
    expect(page.locator("#selection-count")).to_have_text("1 selected")
    hand.press(page.locator("summary:has-text('Change the album')"))
    hand.press(page.locator(".album-settings button:text-is('Move')"))
    expect(names.first).to_have_attribute("alt", str(last))
    hand.press(page.locator("summary:has-text('Change the album')"))
    hand.write(page.locator("#person"), "ben")
    hand.press(page.locator("button:text-is('Share')"))
    toast(page, f"Shared the album “{name}” with ben")
    theirs, _ = visit(way, "ben")
    theirs.goto(f"{home.base}/albums/")
    expect(theirs.locator(f".card:has-text('{name}')")).to_contain_text("of anna")
    hand.press(page.locator("#selection summary:has-text('Album')"))
    hand.press(page.locator("#selection button:has-text('Take out of it')"))
    expect(page.locator(".tile")).to_have_count(2)
    hand.press(page.locator("summary:has-text('Change the album')"))
    hand.press(page.locator("button:has-text('Delete this album')"))
    toast(page, f"Deleted the album “{name}”")
    expect(page.locator(f".card:has-text('{name}')")).to_have_count(0)
    undo(page, hand)
    expect(page.locator(f".card:has-text('{name}')")).to_have_count(1)


@pytest.mark.parametrize("way", WAYS)
def test_tags_are_given_coloured_put_under_each_other_renamed_and_merged(
    home: Installation, visit: Any, way: str
) -> None:
    page, hand = visit(way)
    dog, cat, animals = (f"{one} {way}" for one in ("dog", "cat", "animals"))
    for place, words in [(0, dog), (1, f"{cat}, {animals}")]:
        page.goto(f"{home.base}/browse/")
        hand.select(place)
        expect(page.locator("#selection-count")).to_have_text("1 selected")
        hand.press(page.locator("#selection summary:has-text('Tag')"))
        hand.write(page.locator("#selection-tag"), words)
        page.keyboard.press("Enter")
        toast(page, "Tagged 1 picture")
        page.goto(f"{home.base}/browse/")
        hand.press(page.locator("[data-select-none]"))
        expect(page.locator("#selection.none")).to_have_count(1)
    page.goto(f"{home.base}/tags/?part={way}")
    hand.press(page.locator(f"a.mend:has-text('{dog}')"))
    expect(page.locator("main h1")).to_have_text(dog)
    hand.choose(page.locator("#tag-colour"), "Red")
    hand.press(page.locator("button:text-is('Set')"))
    toast(page, f"Made the tag “{dog}” red")
    hand.write(page.locator("#tag-parent"), animals)
    hand.press(page.locator("button:text-is('Move')"))
    toast(page, f"Put the tag “{dog}” under “{animals}”")
    page.goto(f"{home.base}/browse/?tag={animals}")
    expect(page.locator(".tile")).to_have_count(2)
    page.goto(f"{home.base}/tags/?part={dog}")
    hand.press(page.locator(f"a.mend:has-text('{dog}')"))
    hand.write(page.locator("#tag-name"), f"hound {way}")
    hand.press(page.locator("button:text-is('Rename')"))
    toast(page, f"Renamed the tag “{dog}” to “hound {way}”")
    expect(page.locator("main h1")).to_have_text(f"hound {way}")
    hand.write(page.locator("#tag-into"), cat)
    hand.press(page.locator("button:text-is('Merge')"))
    toast(page, f"into “{cat}”")
    page.goto(f"{home.base}/browse/?tag={cat}")
    expect(page.locator(".tile")).to_have_count(2)
    page.goto(f"{home.base}/tags/?part={cat}")
    hand.press(page.locator(f"a.mend:has-text('{cat}')"))
    hand.press(page.locator("button:has-text('Delete this tag')"))
    toast(page, f"Deleted the tag “{cat}” from 2 pictures")
    undo(page, hand)
    page.goto(f"{home.base}/browse/?tag={cat}")
    expect(page.locator(".tile")).to_have_count(2)


@pytest.mark.parametrize("way", WAYS)
def test_a_search_is_saved_opened_and_deleted(home: Installation, visit: Any, way: str) -> None:
    page, hand = visit(way)
    page.goto(f"{home.base}/?q=red&min=0")
    hand.press(page.locator(".save-search > summary"))
    hand.write(page.locator("#save-name"), f"Red things {way}")
    page.keyboard.press("Enter")
    toast(page, "Saved the search")
    page.goto(f"{home.base}/searches/")
    hand.press(page.locator(f"a:has-text('Red things {way}')"))
    expect(page.locator(".chip").first).to_contain_text("red")
    page.goto(f"{home.base}/searches/")
    hand.press(page.locator(f".change:has-text('Red things {way}') button"))
    toast(page, "Deleted the saved search")
    expect(page.locator(f".change:has-text('Red things {way}')")).to_have_count(0)


@pytest.mark.parametrize("way", WAYS)
def test_one_picture_is_titled_commented_made_a_favourite_and_identified(
    home: Installation, visit: Any, way: str
) -> None:
    page, hand = visit(way)
    page.goto(f"{home.base}/browse/")
    page.goto(home.base + str(page.locator(".tile > a:first-child").nth(4).get_attribute("href")))
    hand.write(page.locator("#title-box"), f"The pier {way}")
    page.keyboard.press("Enter")
    toast(page, f"Titled 1 picture “The pier {way}”")
    expect(page).to_have_title(f"The pier {way} · Image search")
    hand.write(page.locator("#comment-box"), f"Low tide {way}")
    hand.press(page.locator("button:text-is('Write')"))
    toast(page, "Commented on 1 picture")
    said = page.locator(f".comments li:has-text('Low tide {way}')")
    hand.press(said.locator("summary"))
    hand.write(said.locator("textarea"), f"Low tide {way}, at noon")
    hand.press(said.locator("button:text-is('Save')"))
    toast(page, "Changed the comment")
    hand.press(said.locator("summary"))
    hand.press(said.locator("button:text-is('Delete')"))
    toast(page, "Deleted the comment")
    expect(said).to_have_count(0)
    hand.press(page.locator("button:has-text('Favourite')"))
    toast(page, "your favourite")
    undo(page, hand)
    hand.press(page.locator("a:text-is('Identify')"))
    expect(page.locator(".verdict .said")).to_be_visible()
    assert "among=source" in page.url


@pytest.mark.parametrize("way", WAYS)
def test_the_history_takes_back_and_does_again(home: Installation, visit: Any, way: str) -> None:
    page, hand = visit(way)
    page.goto(f"{home.base}/browse/")
    hand.select(5)
    expect(page.locator("#selection-count")).to_have_text("1 selected")
    hand.press(page.locator("#selection summary:has-text('Rate')"))
    hand.choose(page.locator("#selection-rating"), "4 stars")
    hand.press(page.locator("#selection button[value=rate]"))
    toast(page, "Rated 1 picture 4 stars")
    page.goto(f"{home.base}/history/")
    row = page.locator(".change").first
    hand.press(row.locator("button"))
    expect(row).to_have_class(re.compile("undone"))
    hand.press(row.locator("button:has-text('Redo')"))
    toast(page, "Did again: Rated 1 picture 4 stars")
    expect(row).not_to_have_class(re.compile("undone"))
    hand.press(row.locator("button:has-text('Undo')"))
    expect(row).to_have_class(re.compile("undone"))
    page.goto(f"{home.base}/browse/")
    hand.press(page.locator("[data-select-none]"))
    expect(page.locator("#selection.none")).to_have_count(1)


@pytest.mark.parametrize("way", WAYS)
def test_all_results_are_taken_along(home: Installation, visit: Any, way: str, tmp_path: Path) -> None:
    page, hand = visit(way)
    page.goto(f"{home.base}/browse/")
    hand.press(page.locator(f".select-all button:has-text('Select all {HELD}')"))
    expect(page.locator("#selection-count")).to_have_text(f"{HELD} selected")
    hand.press(page.locator("#selection summary:has-text('More')"))
    hand.press(page.locator("#selection button[value=export]"))
    expect(page.locator("main h1")).to_have_text(f"Export {HELD} pictures")
    with page.expect_download() as coming:
        hand.press(page.locator("form.export button"))
    coming.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as packed:
        assert len([one for one in packed.namelist() if one.endswith(".jpg")]) == HELD
    page.goto(f"{home.base}/browse/")
    hand.press(page.locator("[data-select-none]"))
    expect(page.locator("#selection.none")).to_have_count(1)


@pytest.mark.parametrize("way", WAYS)
def test_a_person_is_invited_let_in_and_switched_off(home: Installation, visit: Any, way: str) -> None:
    page, hand = visit(way)
    name, group = f"cleo-{way}", f"family {way}"
    page.goto(f"{home.base}/accounts/")
    hand.write(page.locator("#group-name"), group)
    hand.press(page.locator("#groups ~ form button:text-is('Make it'), form:has(#group-name) button"))
    expect(page.locator(".change p", has_text=group)).to_have_count(1)
    hand.write(page.locator("#username"), name)
    hand.press(page.locator("button:text-is('Make the account')"))
    expect(page.locator("main h1")).to_have_text(name)
    link = page.locator("#link").input_value()
    hand.press(page.locator(f".change:has-text('{group}') button"))
    expect(page.locator(f".change:has-text('{group}') button")).to_contain_text("Take out")
    their_page = home.open(viewport=WAYS[way][1]).page()
    theirs = type(hand)(their_page)
    their_page.goto(link)
    for field in their_page.locator("main input[type=password]").all():
        theirs.write(field, "a-word-of-cleo")
    theirs.press(their_page.locator("button:has-text('Sign in with it')"))
    their_page.wait_for_url(f"{home.base}/")
    expect(their_page.locator(".tile")).to_have_count(0)
    page.goto(f"{home.base}/access/")
    hand.press(page.locator("a:has-text('Who may see it')"))
    hand.choose(page.locator("#whom"), "A group")
    hand.write(page.locator("#name"), group)
    hand.press(page.locator("button:text-is('Give access')"))
    expect(page.locator(".grants")).to_contain_text(group)
    their_page.goto(f"{home.base}/browse/")
    expect(their_page.locator(".tile")).to_have_count(HELD)
    expect(their_page.locator("#selection button[value=hide]"), "a viewer is offered no hiding").to_have_count(0)
    expect(their_page.locator("#selection button[value=favourite]")).to_have_count(1)
    page.goto(f"{home.base}/accounts/")
    hand.press(page.locator(f"a:text-is('{name}')"))
    hand.press(page.locator("button:has-text('Sign them out everywhere')"))
    expect(page.locator("#places")).to_have_count(0)
    their_page.goto(f"{home.base}/browse/")
    their_page.wait_for_url("**/signin**")
    hand.press(page.locator("button:has-text('Switch the account off')"))
    expect(page.locator("main")).to_contain_text("The account is switched off")


@pytest.mark.parametrize("way", WAYS)
def test_the_audit_is_filtered_and_exported(home: Installation, visit: Any, way: str, tmp_path: Path) -> None:
    page, hand = visit(way)
    page.goto(f"{home.base}/audit/")
    hand.write(page.locator("#person"), "anna")
    hand.choose(page.locator("#kind"), "Signed in")
    hand.press(page.locator("button:text-is('Show')"))
    page.wait_for_url("**kind=signed-in**")
    rows = page.locator("table.audit tbody tr")
    expect(rows.first).to_contain_text("Signed in")
    shown = rows.count()
    expect(page.locator("table.audit tbody tr:has-text('Signed in')")).to_have_count(shown)
    with page.expect_download() as coming:
        hand.press(page.locator("a:has-text('Export as CSV')"))
    coming.value.save_as(tmp_path / "audit.csv")
    lines = list(csv.reader(io.StringIO((tmp_path / "audit.csv").read_text("utf-8-sig"))))
    assert len(lines) >= shown and all("anna" in line for line in lines[1:])


@pytest.mark.parametrize("way", WAYS)
def test_a_space_is_added_filled_compared_used_and_left_again(
    home: Installation, visit: Any, way: str, tmp_path: Path
) -> None:
    page, hand = visit(way)
    network = networks.write_folder(
        tmp_path / f"tiny-{way}", said={"name": f"tiny {way}"}, factor=1 + list(WAYS).index(way) / 10
    )
    page.goto(f"{home.base}/spaces/")
    hand.write(page.locator("#encoder"), f"onnx:{network}")
    hand.press(page.locator("button:text-is('Add and fill it')"))
    spaces = page.locator("section.space")
    new = spaces.last
    toast(page, "is added")
    home.sandbox.manage("process", "--limit", "1")
    page.goto(f"{home.base}/spaces/")
    expect(new).to_contain_text(f"{HELD - 1} waiting")
    hand.press(new.locator("button:has-text('Pause')"))
    expect(new.locator(".state.warn")).to_have_text("paused")
    hand.press(new.locator("button:has-text('Go on')"))
    expect(new.locator(".state.warn")).to_have_count(0)
    home.sandbox.manage("process")
    page.goto(f"{home.base}/spaces/")
    expect(new).to_contain_text(f"{HELD} of {HELD} pictures, 100 %")
    hand.press(new.locator("a:has-text('Compare')"))
    first = page.locator("#compare-q")
    hand.write(first, "like:1")
    page.keyboard.press("Enter")
    expect(page.locator(".compare-list")).to_have_count(2)
    expect(page.locator(".compare-list").last.locator("li img").first).to_be_visible()
    page.goto(f"{home.base}/spaces/")
    hand.press(new.locator("button:has-text('Use it for searches')"))
    expect(page.locator("section.serves")).to_contain_text("100 %")
    expect(page.locator("section.serves button:has-text('again')")).to_be_visible()
    hand.press(page.locator("section.serves button:has-text('again')"))
    expect(page.locator("section.serves h2")).to_have_text("look")
