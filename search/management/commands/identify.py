"""`manage.py identify`: which image of a source, album or tag a picture shows."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from search import references
from search.errors import BadQuery
from search.identification import Identification, identify, report
from search.management.base import DomainCommand
from search.management.commands.search import one_line, picture_in, whole_number
from search.models import EmbeddingSpace
from search.wording import counted


class Command(DomainCommand):
    help = (
        "Say which image of a reference collection (a source, an album or a tag) FILE shows: the best matches with "
        "match % and cosine, the margin to the runner-up, and a verdict, which may be that there is no good match."
    )
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", metavar="FILE", help="The picture.")
        parser.add_argument("--like", type=whole_number, metavar="ID", help="An image of the library instead of FILE.")
        among = parser.add_mutually_exclusive_group(required=True)
        for kind in references.KINDS:
            among.add_argument(f"--{kind}", metavar="NAME", help=f"Look among the images of this {kind}.")
        parser.add_argument("--space", metavar="NAME", help="Compare in this space (default: the one that serves).")
        parser.add_argument("--limit", type=whole_number, default=10, metavar="N", help="At most so many (default 10).")
        super().add_arguments(parser)

    def run(self, **options: Any) -> int | None:
        if (options["file"] is None) == (options["like"] is None):
            raise CommandError("Say what to identify: a FILE, or an image of the library with --like ID.")
        kind = next(kind for kind in references.KINDS if options[kind] is not None)
        collection = references.by_name(kind, options[kind], self.user)
        found = identify(
            collection,
            self.user,
            picture=picture_in(options["file"]) if options["file"] is not None else None,
            like=options["like"],
            space=_space(options["space"]) if options["space"] else None,
            limit=options["limit"],
        )
        if options["json"]:
            self.print_json(report(found))
        else:
            self._print(found)
        return None

    def _print(self, found: Identification) -> None:
        for match in found.matches:
            path = one_line(match.image.absolute_path_text)
            self.stdout.write(f"{match.percent_text:>9}  {match.cosine:6.3f}  {match.image.pk:>8}  {path}")
        self.stdout.write(one_line(found.sentence))
        if found.margin_text:
            self.stdout.write(one_line(f"It is {found.margin_text}."))
        for notice in found.notices:
            self.stderr.write(notice)
        if found.references < found.of:
            of = counted(found.of, "image")
            self.stderr.write(f"Compared with {found.references:,} of {of}; the others are still to be read.")


def _space(name: str) -> EmbeddingSpace:
    spaces = EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE)
    found = spaces.filter(name=name).first()
    if found is None:
        names = ", ".join(spaces.values_list("name", flat=True)) or "none yet"
        raise BadQuery(f"There is no space named {name!r}; there are: {names}.")
    return found
