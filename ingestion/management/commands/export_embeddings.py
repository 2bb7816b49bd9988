"""`manage.py export_embeddings`: the vectors of a space, with the paths they belong to."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from search.management.base import DomainCommand
from search.wording import counted

_BY_SUFFIX = {".npz": "npz", ".npy": "npy+paths", ".json": "json"}


class Command(DomainCommand):
    help = (
        "Write the vectors of a space with the paths of their pictures: npz (arrays vectors and ids, and paths.txt), "
        "npy+paths (FILE.npy, and FILE.paths.txt whose line n is row n) or json. Only rows that are believed and still "
        "match their checksum. `import_embeddings` takes each of them."
    )
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("file", metavar="FILE", help="Where to write; its ending says the format.")
        parser.add_argument("--format", choices=sorted(_BY_SUFFIX.values()), help="The format, whatever the ending.")
        parser.add_argument("--space", metavar="NAME", help="The space (see `spaces`; default: the one that serves).")
        parser.add_argument(
            "--filter",
            default="",
            metavar="TEXT",
            help="Only images that pass, as in the search box: tag:beach.",
        )
        parser.add_argument("--overwrite", action="store_true", help="Replace FILE when it is there.")

    def run(self, **options: Any) -> int | None:
        from ingestion.adoption import serving_space
        from ingestion.bars import Steps
        from ingestion.vector_export import export
        from search import filters
        from search.models import Image
        from search.query import parse

        path = Path(options["file"]).expanduser()
        format = options["format"] or _BY_SUFFIX.get(path.suffix.lower())
        if format is None:
            raise CommandError(f"{path} does not end in .npz, .npy or .json; say the format with --format.")
        query = parse(options["filter"])
        if query.ranked:
            raise CommandError("--filter takes filters such as tag:beach or date:2019, not words to search by.")
        if self.user is None and not query.filters:
            images = Image.objects.visible_to(None)
        else:
            images = filters.filtered(query.filters, self.user)
        steps = Steps(quiet=options["json"] or not sys.stderr.isatty())
        try:
            done = export(
                path, serving_space(options["space"]), images, format=format, overwrite=options["overwrite"],
                tell=steps.show,
            )  # fmt: skip
        finally:
            steps.close()
        if options["json"]:
            self.print_json(dataclasses.asdict(done))
            return None
        files = " and ".join(done.files).encode("utf-8", "backslashreplace").decode()
        self.stdout.write(f"{counted(done.rows, 'vector')} of {done.space} written to {files}.")
        if done.separator == "NUL" and format != "json":
            self.stdout.write("A path holds a line feed, so the paths end with NUL instead.")
        if done.mismatched:
            self.stderr.write(
                f"Left out, because the checksum does not match: {counted(done.mismatched, 'row')}. `manage.py repair` "
                "has them computed again."
            )
        return None
