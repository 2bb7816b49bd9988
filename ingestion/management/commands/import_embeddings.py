"""`manage.py import_embeddings`: adopt an archive of vectors, as far as it can be proven."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from search.management.base import DomainCommand


class Command(DomainCommand):
    help = (
        "Adopt vectors that were computed elsewhere: VECTORS is a .npy or .npz file with one row for each picture, and "
        "--paths or --ids says whose each row is. Nothing of that is believed: pictures drawn at random are embedded "
        "again, places where the rows have slid are found, and only the ranges that are proven are accepted; the "
        "others are queued. Stopped and started again, it goes on. Exit status 1 when nothing could be accepted."
    )
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("vectors", metavar="VECTORS", help="The .npy or .npz file.")
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--paths", metavar="FILE", help="A list of paths: line n is row n, counted from 0.")
        whose.add_argument(
            "--ids", metavar="FILE", help="A table (CSV with a header, JSON or SQLite) of path and row, or id and row."
        )
        parser.add_argument("--root", metavar="FOLDER", help="Where relative paths start; crawled when it is new.")
        parser.add_argument("--source", metavar="NAME", help="The source in whose folder relative paths start.")
        parser.add_argument(
            "--map", action="append", default=[], metavar="OLD=NEW",
            help="Paths that begin with OLD begin with NEW on this machine (repeatable).",
        )  # fmt: skip
        parser.add_argument("--table", metavar="NAME", help="The table of a SQLite file.")
        parser.add_argument("--row-column", metavar="NAME", help="Its column with the row number.")
        parser.add_argument("--path-column", metavar="NAME", help="Its column with the path.")
        parser.add_argument("--id-column", metavar="NAME", help="Its column with the image's number in this catalogue.")
        parser.add_argument(
            "--offset", type=int, default=0, metavar="N", help="Entry n of the list is row n + N (default 0)."
        )
        parser.add_argument("--space", metavar="NAME", help="The space (see `spaces`; default: the one that serves).")
        parser.add_argument(
            "--sample", type=int, metavar="N",
            help="Pictures embedded again to begin with (default: a tenth of the rows, but 1,000 to 4,000); in all it "
            "may become three times as many.",
        )  # fmt: skip
        parser.add_argument("--exhaustive", action="store_true", help="Embed every picture again.")
        parser.add_argument("--no-crawl", action="store_true", help="Do not crawl for files that are not known yet.")
        parser.add_argument("--dry-run", action="store_true", help="Prove and report; accept, queue and crawl nothing.")

    def run(self, **options: Any) -> int | None:
        from ingestion.adoption import Request, adopt, space_for
        from ingestion.bars import Steps
        from search.highwater import require_sound_ids

        if options["sample"] is not None and options["sample"] < 1:
            raise CommandError(f"--sample is {options['sample']}; it accepts whole numbers from 1.")
        if options["root"] and options["source"]:
            raise CommandError("--root and --source both say where relative paths start; give one of them.")
        require_sound_ids()
        steps = Steps(quiet=options["json"] or not sys.stderr.isatty())
        request = Request(
            vectors=Path(options["vectors"]).expanduser(), row_map=_row_map(options), space=space_for(options["space"]),
            user=self.user, root=options["root"], source=self._source(options["source"]),
            moved=[_moved(one) for one in options["map"]], offset=options["offset"], sample=options["sample"],
            exhaustive=options["exhaustive"], crawl=not options["no_crawl"], dry_run=options["dry_run"],
            tell=steps.show, say=self.stderr.write,
        )  # fmt: skip
        try:
            report = adopt(request)
        finally:
            steps.close()
        if options["json"]:
            self.print_json(report.as_dict())
        else:
            for sentence in report.sentences():
                self.stdout.write(sentence.encode("utf-8", "backslashreplace").decode())
            self.stdout.write(f"The report is kept at {report.kept_at}.")
        return 1 if report.refused else 0

    def _source(self, name: str | None) -> Any:
        from search.access import editable_sources
        from search.models import Source

        if name is None:
            return None
        sources = Source.objects.all() if self.user is None or self.user.is_staff else editable_sources(self.user)
        source = sources.filter(name=name).first()
        if source is None:
            listed = ", ".join(sources.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"There is no source named {name!r}. Sources: {listed}.")
        return source


def _row_map(options: dict[str, Any]) -> Any:
    from ingestion import rowmaps

    if options["paths"]:
        return rowmaps.lines(Path(options["paths"]).expanduser())
    if options["ids"]:
        return rowmaps.table(
            Path(options["ids"]).expanduser(), name=options["table"], row=options["row_column"],
            path_column=options["path_column"], id_column=options["id_column"],
        )  # fmt: skip
    return None


def _moved(text: str) -> tuple[bytes, bytes]:
    old, sign, new = text.partition("=")
    if not (sign and old and new):
        raise CommandError(f"--map is {text!r}; it takes OLD=NEW, the beginnings of paths there and here.")
    return os.fsencode(old), os.fsencode(new)
