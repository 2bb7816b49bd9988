from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
from django.core.management.base import CommandError, CommandParser
from django.db.models import prefetch_related_objects

from search import uploads
from search.errors import BadQuery, Unreadable
from search.management.base import DomainCommand
from search.query import Query, from_params
from search.retrieval import Page, find, min_match
from search.wording import agreeing, counted


class Command(DomainCommand):
    help = (
        "Find images by words, by example, or both. TEXT is what one types in the search box: phrases parted by "
        "semicolons, -word, tag:beach, rating:>=3, date:2019 and so on. A TEXT that begins with a minus sign follows "
        "after --. Prints score (cosine), match %, number and path of each image, best first; paths that are not valid "
        "text are shown with \\xNN for their odd bytes."
    )
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("text", nargs="?", default="", metavar="TEXT", help="What to find, in words.")
        parser.add_argument(
            "--image",
            action="append",
            default=[],
            metavar="FILE",
            help="Find what looks like this picture (repeatable).",
        )
        parser.add_argument(
            "--like", action="append", default=[], metavar="ID", help="Find what looks like this image (repeatable)."
        )
        parser.add_argument(
            "--not",
            action="append",
            default=[],
            dest="without",
            metavar="TEXT",
            help="Move away from this (repeatable).",
        )
        parser.add_argument("--limit", type=whole_number, default=20, metavar="N", help="At most so many (default 20).")
        parser.add_argument(
            "--min", type=percent, default=0, metavar="PERCENT", help="Only what matches at least so well (default 0)."
        )
        super().add_arguments(parser)

    def run(self, **options: Any) -> int | None:
        query = from_params(
            {"q": options["text"], "like": options["like"], "not": options["without"], "min": options["min"]}
        )
        pictures = [picture_in(name) for name in options["image"]]
        if query.empty and not pictures:
            raise CommandError("Say what to find: words, or an example with --image FILE or --like ID.")
        page = find(query, self.user, limit=options["limit"], pictures=pictures)
        prefetch_related_objects([hit.image for hit in page.hits], "source")  # their paths begin with its folder
        if options["json"]:
            self.print_json(_report(page))
        else:
            self._print(page, query)
            if self._nothing_well(page, query, pictures):
                self.stderr.write("Nothing matches well; these are the nearest.")
        return None

    def _nothing_well(self, page: Page, query: Query, pictures: Sequence[PIL.Image.Image]) -> bool:
        """Whether nothing that was found by its looks would have passed the cut-off that a results page has."""
        usual = replace(query, min=None)
        matches = [hit.match for hit in page.hits if hit.match is not None]
        if not matches or max(matches) >= min_match(usual, pictures):
            return False
        # Hits that carry words which the encoder does not know have a match as well, but were found by name.
        return not page.unknown_words or not find(usual, self.user, limit=1, pictures=pictures).hits

    def _print(self, page: Page, query: Query) -> None:
        for hit in page.hits:
            score = "     -" if hit.score is None else f"{hit.score:6.3f}"
            match = "    -" if hit.match is None else f"{hit.match:4.0f}%"
            self.stdout.write(f"{score}  {match}  {hit.id:>8}  {one_line(hit.image.absolute_path_text)}")
        for notice in page.notices:
            self.stderr.write(notice)
        if page.unknown_words:
            words = ", ".join(page.unknown_words)
            self.stderr.write(f"Not known to {page.space.label}, so looked for in names and tags: {words}.")
        if query.ranked and page.covered < page.of:
            others = agreeing(page.of - page.covered, "the other is", "the others are")
            self.stderr.write(f"Searched {page.covered:,} of {counted(page.of, 'image')}; {others} still to be read.")
        if not page.hits:
            nothing = f"Nothing matches at least {page.min_match} %." if page.below else "Nothing was found."
            self.stderr.write(nothing)


def _report(page: Page) -> dict[str, Any]:
    return {
        "hits": [
            {"id": hit.id, "path": hit.image.absolute_path_text, "score": hit.score, "match": _rounded(hit.match)}
            for hit in page.hits
        ],
        "took_ms": round(page.took_ms, 3),
        "total": page.total,
        "space": page.space.name,
        "unknown_words": page.unknown_words,
        "covered": page.covered,
        "of": page.of,
        "min_match": page.min_match,
        "below": page.below,
        "notices": page.notices,
    }


def _rounded(match: float | None) -> float | None:
    return None if match is None else round(match, 2)


def picture_in(name: str) -> PIL.Image.Image:
    try:
        with Path(name).expanduser().open("rb") as file:
            return uploads.reduced(uploads.read(file))
    except OSError as error:
        raise BadQuery(f"{name} cannot be opened: {error.strerror or error}.") from error
    except Unreadable as error:
        raise BadQuery(f"{name} cannot be searched with. {error}") from error


def percent(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) <= 100):
        raise argparse.ArgumentTypeError(f"takes a whole number from 0 to 100, not {value!r}")
    return int(value)


def whole_number(value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"takes a whole number from 1, not {value!r}")
    return number


def one_line(path: str) -> str:
    """A path with line breaks and other control characters escaped, so that each hit stays one line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in path)
