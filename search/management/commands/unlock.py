"""`manage.py unlock`: end the wait of somebody who typed too many wrong passwords."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.core.management.base import CommandError, CommandParser

from search import audit, signin_limit
from search.asking import is_address
from search.management.base import DomainCommand


class Command(DomainCommand):
    help = (
        "List who has to wait at the sign-in page after too many wrong passwords; with a NAME, an --address or --all, "
        "let them try again at once."
    )
    reports = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("name", nargs="?", default="", metavar="NAME", help="Who may try again.")
        parser.add_argument("--address", default="", metavar="IP", help="Only, or everybody, from this address.")
        parser.add_argument("--all", action="store_true", help="Everybody.")

    def run(self, **options: Any) -> int | None:
        name, address, everybody = options["name"], options["address"], options["all"]
        if everybody and (name or address):
            raise CommandError("--all goes without a name and an address.")
        if address and not is_address(address):
            raise CommandError(f"{address!r} is no IP address, such as 192.0.2.7 or 2001:db8::7.")
        if name or address or everybody:
            count = signin_limit.unlock(username=name, address=address)
            if count:
                whom = name or (f"everybody from {address}" if address else "everybody")
                audit.record(audit.Kind.UNLOCKED, None, text=f"Let {whom} sign in again")
            if options["json"]:
                self.print_json({"forgotten": count})
            else:
                self.stdout.write("They can sign in again." if count else "Nobody like that has to wait.")
            return 0 if count else 1
        waiting = [dataclasses.asdict(one) for one in signin_limit.locked()]
        if options["json"]:
            self.print_json({"waiting": waiting})
            return 0
        for one in waiting:
            self.stdout.write(
                f"{one['name'] or 'everybody'} from {one['address'] or 'no address'}: {one['seconds']} s left"
            )
        if not waiting:
            self.stdout.write("Nobody has to wait.")
        return 0
