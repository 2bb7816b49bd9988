"""The one table of keys: it drives `static/js/keyboard.js` and makes the help sheet.

A place is a part of a page that stands in an element with `data-keys="NAME"`; its keys work while that element is
there and can be seen. Where several are, the one with the focus goes first, then the first one in the table; a modal
place shuts out the others. What a key does is done by a script that took it (`imagesearch.keys.on(place, act, ...)`),
else by the element of that place with `data-act="ACT"` (and `data-key="KEY"`, where the keys of a row differ): a
button or link is pressed, a field gets the focus. So the mouse, the finger and the key press the same thing.

No key works while somebody types, nor with Ctrl, Alt or Meta.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where keys work."""

    name: str
    label: str
    """The heading in the help sheet."""
    order: int
    """Which goes first where the focus is in none of them, and in the help sheet."""
    modal: bool = False


@dataclass(frozen=True)
class Key:
    """One row: any of `keys`, as KeyboardEvent.key names them ("ArrowLeft", "x"; "X" is Shift and x), does `act`."""

    place: str
    keys: tuple[str, ...]
    act: str
    does: str
    """What it does, for people, without a full stop."""


@dataclass(frozen=True)
class Section:
    """A part of the help sheet."""

    place: Place
    rows: list[Key]


SPOKEN = {
    " ": "Space", "ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓", "Escape": "Esc",
    "PageUp": "Page up", "PageDown": "Page down",
}  # fmt: skip
RATINGS = ("0", "1", "2", "3", "4", "5")

_places: dict[str, Place] = {}
_keys: list[Key] = []


def register(place: Place, *rows: Key) -> None:
    """Add a place with its keys, or more keys to one that is there. Raises ValueError where a key is taken already."""
    known = _places.setdefault(place.name, place)
    if known != place:
        raise ValueError(f"the place {place.name!r} is there already, and is another one")
    for row in rows:
        if row.place != place.name:
            raise ValueError(f"{row.act!r} belongs to {row.place!r}, not to {place.name!r}")
        if row in _keys:
            continue
        taken = {key for one in _keys if one.place == place.name for key in one.keys}
        if twice := taken.intersection(row.keys):
            raise ValueError(f"in {place.name!r} the key {sorted(twice)} does something already")
        _keys.append(row)


def registered() -> tuple[int, int]:
    """How many places and keys there are: the same for as long as nobody registers more."""
    return len(_places), len(_keys)


def sections() -> list[Section]:
    """The whole table, place by place, as the help sheet shows it."""
    places = sorted(_places.values(), key=lambda place: place.order)
    return [Section(place, [row for row in _keys if row.place == place.name]) for place in places]


def table() -> dict[str, Any]:
    """The whole table for the script: places in order, each with (keys, act)."""
    return {
        "places": [
            {
                "name": section.place.name,
                "modal": section.place.modal,
                "rows": [{"keys": list(row.keys), "act": row.act} for row in section.rows],
            }
            for section in sections()
        ]
    }


def spoken(row: Key) -> Iterator[str]:
    """How the keys of a row are written for people: "←", "Shift X", "0 to 5"."""
    keys = list(row.keys)
    digits = [key for key in keys if key.isdigit()]
    if len(digits) > 2:
        yield f"{digits[0]} to {digits[-1]}"
        keys = [key for key in keys if key not in digits]
    for key in keys:
        if len(key) == 1 and key.isalpha():
            yield f"Shift {key}" if key.isupper() else key.upper()
        else:
            yield SPOKEN.get(key, key)


ANYWHERE = Place("anywhere", "Everywhere", 100)
LIGHTBOX = Place("lightbox", "In the lightbox", 10, modal=True)
GRID = Place("grid", "Among pictures", 30)
COPIES = Place("copies", "Among exact copies and look-alikes", 40)
IMAGE = Place("image", "On the page of a picture", 20)
REVIEW = Place("review", "In a review queue", 25)

register(
    ANYWHERE,
    Key("anywhere", ("/",), "box", "Go to the search box"),
    Key("anywhere", ("?",), "help", "Show these keys"),
    Key("anywhere", ("Escape",), "out", "Step out: of a field, a menu, a selection"),
)
register(
    LIGHTBOX,
    Key("lightbox", ("ArrowLeft",), "previous", "The picture before"),
    Key("lightbox", ("ArrowRight", " "), "next", "The picture after"),
    Key("lightbox", ("z",), "zoom", "Zoom in, or out again"),
    Key("lightbox", ("+", "="), "nearer", "Zoom in a little"),
    Key("lightbox", ("-",), "farther", "Zoom out a little"),
    Key("lightbox", ("ArrowUp",), "pan-up", "Zoomed in: look further up"),
    Key("lightbox", ("ArrowDown",), "pan-down", "Zoomed in: look further down"),
    Key("lightbox", ("p",), "play", "Start the slideshow; any key stops it"),
    Key("lightbox", ("x",), "select", "Select it, or no longer"),
    Key("lightbox", RATINGS, "rate", "Rate it"),
    Key("lightbox", ("f",), "favourite", "Make it a favourite, or no longer"),
    Key("lightbox", ("h",), "hide", "Hide it and go on, or show it again"),
    Key("lightbox", ("t",), "tag", "Add tags"),
    Key("lightbox", ("a",), "album", "Add it to an album"),
    Key("lightbox", ("c",), "comment", "Write a comment"),
    Key("lightbox", ("i",), "info", "What is known about it, beside it"),
    Key("lightbox", ("Enter",), "page", "Go to its page"),
    Key("lightbox", ("Escape",), "close", "Back to the grid"),
)
register(
    GRID,
    Key("grid", ("ArrowLeft",), "left", "The picture to the left"),
    Key("grid", ("ArrowRight",), "right", "The picture to the right"),
    Key("grid", ("ArrowUp",), "up", "The row above"),
    Key("grid", ("ArrowDown",), "down", "The row below"),
    Key("grid", ("Home",), "first", "The first picture"),
    Key("grid", ("End",), "last", "The last one on the page"),
    Key("grid", ("PageUp",), "page-up", "One screen up"),
    Key("grid", ("PageDown",), "page-down", "One screen down"),
    Key("grid", ("Enter",), "open", "Look at it large"),
    Key("grid", ("x",), "select", "Select it, or no longer"),
    Key("grid", ("X",), "range", "Select from the last one to this one"),
    Key("grid", RATINGS, "rate", "Rate it; when it is selected, all that are"),
    Key("grid", ("f",), "favourite", "Make it a favourite, or no longer"),
    Key("grid", ("h",), "hide", "Hide it, or show it again"),
    Key("grid", ("t",), "tag", "Add tags"),
    Key("grid", ("a",), "album", "Add it to an album"),
    Key("grid", ("c",), "comment", "Write a comment"),
    Key("grid", ("i",), "info", "What is known about it"),
)
register(
    IMAGE,
    Key("image", ("ArrowLeft",), "previous", "The picture before"),
    Key("image", ("ArrowRight",), "next", "The picture after"),
    Key("image", ("Enter",), "open", "Look at it large"),
    Key("image", ("x",), "select", "Select it, or no longer"),
    Key("image", RATINGS, "rate", "Rate it"),
    Key("image", ("f",), "favourite", "Make it a favourite, or no longer"),
    Key("image", ("h",), "hide", "Hide it, or show it again"),
    Key("image", ("t",), "tag", "Add tags"),
    Key("image", ("a",), "album", "Add it to an album"),
    Key("image", ("c",), "comment", "Write a comment"),
    Key("image", ("i",), "info", "Go to what is known about it"),
    Key("image", ("Escape",), "back", "Back to the results"),
)
register(
    COPIES,
    Key("copies", ("1", "2", "3", "4", "5", "6", "7", "8", "9"), "choose", "Choose which one to keep"),
    Key("copies", ("Enter", "k"), "keep", "Keep it and hide the others"),
    Key("copies", ("d",), "different", "They are different pictures (look-alikes only)"),
    Key("copies", ("s",), "skip", "Go on to the next group"),
    Key("copies", ("u",), "undo", "Take back the last one"),
    Key("copies", ("Escape",), "back", "Back"),
)
register(
    REVIEW,
    Key("review", ("k",), "keep", "Keep it: it leaves the queue for good"),
    Key("review", ("h",), "hide", "Hide it"),
    Key("review", ("r", "Delete"), "remove", "Remove it; the file stays"),
    Key("review", RATINGS, "rate", "Rate it"),
    Key("review", ("t",), "tag", "Add tags"),
    Key("review", ("f",), "favourite", "Make it a favourite, or no longer"),
    Key("review", (" ", "ArrowRight"), "skip", "Skip it for now"),
    Key("review", ("ArrowLeft",), "back", "The one before"),
    Key("review", ("u",), "undo", "Undo the last change"),
    Key("review", ("Escape",), "out", "Back to all queues"),
)
