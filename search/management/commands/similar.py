"""`manage.py similar`: groups of pictures that look alike, and looking for them anew."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import CommandError, CommandParser

from search import look_alike_pairs, look_alikes
from search.copies import Group
from search.management.base import DomainCommand
from search.management.commands.search import one_line
from search.wording import counted

PAGE = 200


class Command(DomainCommand):
    help = (
        "List the groups of pictures that look alike (other sizes, other qualities, small edits), in each the one that "
        "would be kept first, and why. Nothing is hidden: the page does that, one group at a time."
    )
    reports = True
    for_user = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--within", type=int, metavar="BITS",
            help="How many of 64 bits may differ (default, and at most: IMAGESEARCH_LOOK_ALIKES).",
        )  # fmt: skip
        parser.add_argument(
            "--refresh", action="store_true",
            help="Look for them anew first; otherwise what the background found last is listed.",
        )  # fmt: skip
        parser.add_argument("--no-list", action="store_true", help="Only count the groups.")
        super().add_arguments(parser)

    def run(self, **options: Any) -> None:
        within, asked = options["within"], look_alike_pairs.asked()
        if within is not None and not 0 <= within <= asked:
            raise CommandError(
                f"--within is {within}; it accepts 0 to {asked}. For more set IMAGESEARCH_LOOK_ALIKES (up to 10) and "
                "run it again with --refresh."
            )
        if options["refresh"]:
            os.nice(10)
            known: look_alike_pairs.Known | None = look_alike_pairs.refresh()
        else:
            known = look_alike_pairs.known()
        if known is None:
            raise CommandError("Look-alikes were not looked for yet: run this with --refresh.")
        tally = look_alikes.tally(self.user, within)
        everything = [] if options["no_list"] else self._everything(within)
        if options["json"]:
            self.print_json(
                {
                    "groups": [_as_dict(group) for group in everything], "count": tally.groups,
                    "to_hide": tally.hiding, "within": min(known.within, asked if within is None else within),
                    "made_at": known.made_at, "seconds": round(known.seconds, 3),
                }
            )  # fmt: skip
            return
        for group in everything:
            self.stdout.write(one_line(f"{counted(group.total, 'picture')} that look alike. {group.reason}"))
            for copy in group.copies:
                mark = "keep" if copy is group.keeper else "hide" if copy.editable else "stay"
                self.stdout.write(one_line(f"  {mark}  {copy.image.pk:>8}  {copy.image.absolute_path_text}"))
        said = counted(tally.groups, "group"), counted(tally.hiding, "picture")
        self.stdout.write(
            f"{said[0]} of look-alikes; {said[1]} could be hidden." if tally.groups else "No look-alikes."
        )

    def _everything(self, within: int | None) -> list[Group]:
        found, after = look_alikes.groups(self.user, within=within, limit=PAGE)
        while after is not None:
            part, after = look_alikes.groups(self.user, within=within, after=after, limit=PAGE)
            found += part
        return found


def _as_dict(group: Group) -> dict[str, Any]:
    return {
        "total": group.total,
        "keep": group.keeper.image.pk,
        "reason": group.reason,
        "pictures": [
            {
                "id": copy.image.pk, "path": copy.image.absolute_path_text, "source": copy.image.source.name,
                "width": copy.image.width, "height": copy.image.height, "size": copy.image.size,
                "rating": copy.image.rating, "yours": copy.editable,
            }
            for copy in group.copies
        ],
    }  # fmt: skip
