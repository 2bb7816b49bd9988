from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from search import archives, exports, sidecars
from search.exports import Chosen
from search.management.base import DomainCommand
from search.management.commands.search import percent
from search.query import Query, from_params
from search.sidecar_files import ExportFault, Report, write_sidecars
from search.wording import counted

NAMED = 20


class Command(DomainCommand):
    help = (
        "Write the images of a QUERY (as typed in the search box; nothing: every image), of an album, or of numbers, "
        "to a file: their data as JSON or CSV, their originals as ZIP, or XMP sidecars with rating, title and tags, "
        "which digiKam and Lightroom read."
    )
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("query", nargs="?", default="", metavar="QUERY", help="What to export, as in the box.")
        parser.add_argument("--format", required=True, choices=["json", "csv", "zip", "xmp"])
        parser.add_argument(
            "--to", metavar="PATH", help="The file to make; - is the standard output. For xmp a folder, or a .zip file."
        )
        parser.add_argument("--album", metavar="NAME", help="An album, by its name or number, in its order.")
        parser.add_argument("--ids", nargs="+", type=int, metavar="ID", help="These images, in this order.")
        parser.add_argument("--best", type=int, metavar="N", help="Only the first N.")
        parser.add_argument(
            "--min",
            type=percent,
            metavar="PERCENT",
            help="Only what matches at least so well (as on the results page).",
        )
        parser.add_argument("--overwrite", action="store_true", help="Replace the file when it is there already.")
        parser.add_argument(
            "--beside",
            action="store_true",
            help="With xmp: write the sidecars beside the originals. Existing ones keep all that is not ours.",
        )
        parser.add_argument(
            "--names", choices=list(sidecars.NAMINGS), default=sidecars.DIGIKAM,
            help="; ".join(f"{name}: {text}" for name, text in sidecars.NAMINGS.items()),
        )  # fmt: skip
        super().add_arguments(parser)

    def run(self, **options: Any) -> int | None:
        self._require_sense(options)
        chosen = self._chosen(options)
        for notice in chosen.notices:
            self.stderr.write(notice)
        if not len(chosen):
            self.stderr.write(self._why_nothing(options))
        kinds = {"json": "JSON", "csv": "a table", "zip": "originals", "xmp": "sidecars"}
        exports.note(chosen, kinds[options["format"]] + (" beside the originals" if options["beside"] else ""))
        if options["format"] == "xmp" and (options["beside"] or not options["to"].endswith((".zip", "-"))):
            return self._sidecars(chosen, options)
        stream = {
            "json": lambda: exports.as_json(chosen),
            "csv": lambda: exports.as_csv(chosen),
            "zip": lambda: archives.originals(chosen),
            "xmp": lambda: archives.of_sidecars(chosen, options["names"]),
        }[options["format"]]()
        if options["to"] == "-":
            for block in stream:
                sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            return None
        size = _write(Path(options["to"]).expanduser(), stream, overwrite=options["overwrite"])
        if options["json"]:
            self.print_json({"images": len(chosen), "to": options["to"], "bytes": size})
        else:
            self.stdout.write(f"{options['to']}: {counted(len(chosen), 'image')}, {size:,} bytes.")
        return None

    def _require_sense(self, options: dict[str, Any]) -> None:
        if options["beside"] and (options["format"] != "xmp" or options["to"]):
            raise CommandError("--beside goes with --format xmp and without --to: it writes beside the originals.")
        if not options["to"] and not options["beside"]:
            raise CommandError("Say where to with --to PATH, or - for the standard output.")
        if sum(bool(options[name]) for name in ("query", "album", "ids")) > 1:
            raise CommandError("A QUERY, --album and --ids exclude each other. Leave all but one away.")
        if options["min"] is not None and not options["query"]:
            raise CommandError("--min goes with a QUERY.")
        if options["best"] is not None and options["best"] < 1:
            raise CommandError("--best takes a whole number from 1.")

    def _chosen(self, options: dict[str, Any]) -> Chosen:
        if options["album"]:
            chosen = exports.of_album(exports.album_named(options["album"], self.user), self.user)
        elif options["ids"]:
            chosen = exports.of_images(list(dict.fromkeys(options["ids"])), self.user)
        else:
            chosen = exports.of_query(self._query(options), self.user)
        return chosen.best(options["best"]) if options["best"] else chosen

    def _query(self, options: dict[str, Any]) -> Query:
        return from_params({"q": options["query"], **({} if options["min"] is None else {"min": options["min"]})})

    def _why_nothing(self, options: dict[str, Any]) -> str:
        if options["query"] and self._query(options).ranked and options["min"] != 0:
            return "Nothing matches well. --min 0 takes along what comes nearest, --best N only the first of it."
        return "There is no picture in this."

    def _sidecars(self, chosen: Chosen, options: dict[str, Any]) -> int:
        folder = None
        if not options["beside"]:
            folder = os.path.abspath(os.path.expanduser(options["to"]))
            if os.path.lexists(folder) and not os.path.isdir(folder):
                raise CommandError(f"{folder} is a file. Name a folder for the sidecars, or a file that ends in .zip.")
        report = write_sidecars(chosen, options["names"], folder=folder)
        if options["json"]:
            self.print_json(report.as_dict())
        else:
            self._say(report)
        return 1 if report.problems else 0

    def _say(self, report: Report) -> None:
        said = [f"{counted(report.written, 'sidecar')} written"]
        for number, text in [
            (report.unchanged, "right already"),
            (report.nothing, "with nothing to say"),
            (report.not_allowed, "not yours to edit"),
            (len(report.problems), "left alone"),
        ]:
            said += [f"{number:,} {text}"] if number else []
        self.stdout.write(", ".join(said) + ".")
        for problem in report.problems[:NAMED]:
            self.stderr.write(problem)
        if len(report.problems) > NAMED:
            self.stderr.write(f"... and {len(report.problems) - NAMED:,} more; --json names each.")


def _write(path: Path, stream: Iterator[bytes], *, overwrite: bool) -> int:
    """A whole file or none: written beside, flushed, put in place. Returns its size."""
    if path.exists() and not overwrite:
        raise ExportFault(f"{path} is there already. Name another file, or add --overwrite.")
    if path.is_dir():
        raise ExportFault(f"{path} is a folder. Name a file in it.")
    try:
        handle, beside = tempfile.mkstemp(prefix=".imagesearch-", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                for block in stream:
                    file.write(block)
                size = file.tell()
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(beside)
    except OSError as error:
        raise ExportFault(f"{path} cannot be written: {error.strerror or error}. Nothing was left there.") from error
    return size
