"""`manage.py copies`: groups of files with the very same bytes, and hiding all but one of each."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from search import copies, errands
from search.access import editable_sources
from search.copies import Group
from search.management.base import DomainCommand
from search.management.commands.search import one_line
from search.models import Source
from search.wording import counted

PAGE = 200


class Command(DomainCommand):
    help = (
        "List the groups of exact copies, in each the one that would be kept first, and why. With --hide-others --yes "
        "hide all the others; nothing is deleted, and the history takes it back."
    )
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--hide-others", action="store_true", help="Hide all but one of every group.")
        parser.add_argument("--yes", action="store_true", help="Do it; without it --hide-others says what it would do.")
        parser.add_argument("--prefer", metavar="SOURCE", help="Keep copies in the source of this name before others.")
        super().add_arguments(parser)

    def run(self, **options: Any) -> int | None:
        prefer = self._source(options["prefer"]) if options["prefer"] else None
        if options["hide_others"]:
            self._hide(prefer, yes=options["yes"], json=options["json"])
            return None
        tally = copies.tally(self.user)
        everything = self._everything(prefer)
        if options["json"]:
            groups = [_as_dict(group) for group in everything]
            self.print_json({"groups": groups, "count": tally.groups, "to_hide": tally.hiding})
            return None
        for group in everything:
            self.stdout.write(one_line(f"{counted(group.total, 'copy', 'copies')}. {group.reason}"))
            for copy in group.copies:
                mark = "keep" if copy is group.keeper else "hide" if copy.editable else "stay"
                self.stdout.write(one_line(f"  {mark}  {copy.image.pk:>8}  {copy.image.absolute_path_text}"))
        said = counted(tally.groups, "group"), counted(tally.hiding, "copy", "copies")
        self.stdout.write(f"{said[0]} of exact copies; {said[1]} could be hidden." if tally.groups else "No copies.")
        return None

    def _hide(self, prefer: int | None, *, yes: bool, json: bool) -> None:
        tally = copies.tally(self.user)
        hidden = 0
        if yes:
            ids = copies.representatives(self.user)
            size = errands.PORTIONS["copies"]
            for start in range(0, len(ids), size):
                action = copies.hide_others(ids[start : start + size], self.user, prefer=prefer)
                hidden += action.details["tally"]["hidden"] if action else 0
        if json:
            self.print_json({"count": tally.groups, "to_hide": tally.hiding, "hidden": hidden})
        elif yes:
            self.stdout.write(f"Hid {counted(hidden, 'copy', 'copies')}. “Your changes” takes it back.")
        else:
            said = counted(tally.hiding, "copy", "copies")
            self.stdout.write(f"{said} would be hidden. Run it again with --yes to hide them.")

    def _everything(self, prefer: int | None) -> list[Group]:
        found: list[Group] = []
        older, more = None, True
        while more:
            part, more = copies.groups(self.user, older=older, limit=PAGE, prefer=prefer)
            older = part[-1].key if part else 0
            found += part
            more = more and bool(part)
        return found

    def _source(self, name: str) -> int:
        known = Source.objects.all() if self.user is None or self.user.is_staff else editable_sources(self.user)
        found = known.filter(name=name).first()
        if found is None:
            names = ", ".join(known.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"There is no source named {name!r} that you may change; there are: {names}.")
        return int(found.pk)


def _as_dict(group: Group) -> dict[str, Any]:
    return {
        "sha256": group.keeper.image.sha256.hex() if group.keeper.image.sha256 else None,
        "total": group.total,
        "keep": group.keeper.image.pk,
        "reason": group.reason,
        "copies": [
            {
                "id": copy.image.pk, "path": copy.image.absolute_path_text, "source": copy.image.source.name,
                "rating": copy.image.rating, "tags": list(copy.facts.tags), "albums": copy.facts.albums,
                "comments": copy.facts.comments, "favourites": copy.facts.favourites, "yours": copy.editable,
            }
            for copy in group.copies
        ],
    }  # fmt: skip
