"""Taking pictures along: from the results to a file, with and without a script, on a phone, in the dark."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Installation, expect


@pytest.mark.parametrize(
    "options",
    [{}, {"java_script_enabled": False}, {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}],
    ids=["desktop", "no script", "phone"],
)
def test_a_search_is_exported(library: Installation, tmp_path: Path, options: dict[str, Any]) -> None:
    watched = library.open(accept_downloads=True, **options)
    page = watched.sign_in()
    page.goto(f"{library.base}/?q=a+dog+running+on+grass")
    number = page.locator(".summary strong").first.inner_text()
    assert int(number) >= 5
    page.click("#export")
    expect(page.locator("h1")).to_contain_text(f"Export {number} pictures")
    width = page.locator("main").bounding_box()["width"]
    assert page.locator(".export").bounding_box()["width"] <= width <= page.viewport_size["width"]
    page.fill("#best", "5")
    expect(page.locator(".of-sidecars")).to_be_hidden()
    page.check("input[name=as][value=xmp]")
    expect(page.locator(".of-sidecars")).to_be_visible()
    page.check("input[name=as][value=zip]")
    with page.expect_download() as waiting:
        page.click(".export button")
    saved = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(saved)
    with zipfile.ZipFile(saved) as archive:
        assert len(archive.namelist()) == 5 and archive.testzip() is None
    page.check("input[name=as][value=json]")
    with page.expect_download() as waiting:
        page.click(".export button")
    waiting.value.save_as(tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_bytes())
    assert found["count"] == 5 and found["images"][0]["score"] >= found["images"][4]["score"]
