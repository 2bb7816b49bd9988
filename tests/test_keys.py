"""The table of keys, the help sheet made of it, and that every room registers well."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from django.test import Client

from search import keys
from search.keys import Key, Place
from tests.factories import make_user

ROOT = Path(__file__).resolve().parent.parent
LISTENS = re.compile(r"""addEventListener\(\s*["']key(?:down|up|press)["']""")
PROMISED = [
    "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Enter", "Escape", "x", "X", "f", "0", "1", "2", "3", "4", "5",
    "h", "t", "a", "c", "i", "/", "?",
]  # fmt: skip


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registering in a test leaves the real table as it is."""
    monkeypatch.setattr(keys, "_places", dict(keys._places))
    monkeypatch.setattr(keys, "_keys", list(keys._keys))


def test_every_promised_key_works_among_pictures_or_everywhere() -> None:
    there = {
        key for one in keys.sections() if one.place.name in {"grid", "anywhere"} for row in one.rows for key in row.keys
    }
    assert set(PROMISED) <= there


def test_a_key_does_one_thing_in_a_place() -> None:
    for section in keys.sections():
        all_keys = [key for row in section.rows for key in row.keys]
        assert len(all_keys) == len(set(all_keys)), section.place.name
        assert section.rows, f"{section.place.name} has no keys"


def test_a_place_takes_more_keys_but_none_twice(fresh: None) -> None:
    place = Place("shelf", "On the shelf", 50)
    keys.register(place, Key("shelf", ("k",), "keep", "Keep it"))
    keys.register(place, Key("shelf", ("s",), "skip", "Skip it"), Key("shelf", ("k",), "keep", "Keep it"))
    assert [row.act for row in next(one for one in keys.sections() if one.place == place).rows] == ["keep", "skip"]
    with pytest.raises(ValueError, match="does something already"):
        keys.register(place, Key("shelf", ("s", "n"), "next", "Go on"))
    with pytest.raises(ValueError, match="another one"):
        keys.register(Place("shelf", "Elsewhere", 50))
    with pytest.raises(ValueError, match="belongs to"):
        keys.register(place, Key("grid", ("q",), "quit", "Quit"))


def test_keys_are_written_as_people_read_them() -> None:
    def said(*names: str) -> list[str]:
        return list(keys.spoken(Key("grid", names, "act", "does")))

    assert said("X") == ["Shift X"]
    assert said("0", "1", "2", "3", "4", "5") == ["0 to 5"]
    assert said("ArrowLeft", " ", "?") == ["←", "Space", "?"]


@pytest.mark.django_db
def test_the_sheet_and_the_script_have_the_whole_table(client: Client) -> None:
    client.force_login(make_user())
    page = client.get("/keys/").content.decode()
    part = client.get("/keys/", headers={"HX-Request": "true"}).content.decode()
    assert "<html" in page and "<html" not in part
    for section in keys.sections():
        for row in section.rows:
            for text in (page, part):
                assert row.does.replace("'", "&#x27;") in text, row.does
    found = re.search(r'id="keys" hidden data-table="([^"]*)"', page)
    assert found is not None
    assert json.loads(html.unescape(found[1])) == keys.table()


def test_every_key_that_a_script_takes_is_in_the_table() -> None:
    rows = {(section.place.name, row.act) for section in keys.sections() for row in section.rows}
    taken = {
        pair
        for path in (ROOT / "static" / "js").glob("*.js")
        for pair in re.findall(r'\bon\("([a-z]+)", "([a-z-]+)"', path.read_text())
    }
    assert taken <= rows
    assert ("grid", "left") in taken


def test_no_other_script_listens_to_keys() -> None:
    listening = {path.name for path in (ROOT / "static" / "js").glob("*.js") if LISTENS.search(path.read_text())}
    assert listening == {"keyboard.js"}
