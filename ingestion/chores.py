"""What can be asked for a selection besides curation: reading the files again, computing their vectors again."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from ingestion import ledger, stages
from search.arrays import Ids
from search.history import editable
from search.panels import Chore, register_chore
from search.wording import agreeing, counted


def read_again(ids: Ids, user: Any) -> str:
    """Queue the reading of these files, whatever the catalogue knows of them. What people said stays."""
    return _queue(ids, [ledger.READ], user, "to be read again")


def embed_again(ids: Ids, user: Any) -> str:
    """Queue the vectors of these images in every space that is being filled."""
    return _queue(ids, [name for name in stages.wanted() if name.startswith("embed:")], user, "for new vectors")


@transaction.atomic
def _queue(ids: Ids, names: list[str], user: Any, what: str) -> str:
    mine, skipped = editable(ids, user)
    ledger.queue(mine, names)
    left = f"; {counted(skipped, 'picture')} left out, not yours to change" if skipped else ""
    return f"{counted(len(mine), 'picture')} {agreeing(len(mine), 'waits', 'wait')} {what}{left}."


def register_chores() -> None:
    """Offer these to the selection."""
    register_chore(Chore("read_again", "Read the files again", read_again))
    register_chore(Chore("embed_again", "Compute the vectors again", embed_again))
