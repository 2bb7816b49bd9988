"""What people say for themselves: favourites and comments.

Asks for the right to see the images, not to edit them. Every verb is one transaction with one `Action`, as in
`search.curation`; it raises NotAllowed when none of the images may be seen and BadValue for what cannot be kept.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
from django.utils import timezone

from search import steps
from search.atomically import atomically
from search.errors import BadValue, NotAllowed, runs_the_server
from search.history import Images, count_of, record, seen
from search.models import Action, Comment, SavedSearch
from search.personal_steps import Favour, SetComment
from search.row_steps import SetRow, row_of
from search.text import clean, storable

MAX_COMMENT = 10_000


@atomically
def favourite(images: Images, user: Any) -> Action | None:
    """Make images favourites of this person; nobody else sees that."""
    return _favour(images, True, user)


@atomically
def unfavourite(images: Images, user: Any) -> Action | None:
    """Take images out of this person's favourites."""
    return _favour(images, False, user)


def _favour(images: Images, on: bool, user: Any) -> Action | None:
    require_person(user)
    ids, skipped = seen(images, user)
    outcome = steps.run([Favour(ids, user.pk, on)])
    number = count_of(len(outcome.changed))
    verb, summary = (
        ("favourite", f"Made {number} your favourite{'' if len(outcome.changed) == 1 else 's'}")
        if on
        else ("unfavourite", f"Took {number} out of your favourites")
    )
    return record(user, verb, outcome, summary=summary, skipped=skipped)


@atomically
def comment(images: Images, text: str, user: Any) -> Action | None:
    """Write the same comment on images, for everybody who may see them."""
    require_person(user)
    text = comment_text(text)
    ids, skipped = seen(images, user)
    outcome = steps.run([SetComment(ids, user.pk, timezone.now(), before=None, after=(text, None))])
    summary = f"Commented on {count_of(len(outcome.changed))}: “{_beginning(text)}”"
    return record(user, "comment", outcome, summary=summary, skipped=skipped)


@atomically
def edit_comment(written: Comment, text: str, user: Any) -> Action | None:
    """Change one's own comment. Raises NotAllowed for somebody else's."""
    text = comment_text(text)
    if user is not None and written.author_id != user.pk:
        raise NotAllowed("Only who wrote a comment can change it.")
    written = Comment.objects.select_for_update().get(pk=written.pk)
    if written.text == text:
        return None
    outcome = _set(written, (text, timezone.now()))
    summary = f"Changed the comment “{_beginning(written.text)}” to “{_beginning(text)}”"
    return record(user, "edit comment", outcome, summary=summary, skipped=0)


@atomically
def delete_comment(written: Comment, user: Any) -> Action | None:
    """Delete one's own comment (staff: anybody's)."""
    if not runs_the_server(user) and written.author_id != user.pk:
        raise NotAllowed("Only who wrote a comment can delete it.")
    written = Comment.objects.select_for_update().get(pk=written.pk)
    summary = f"Deleted the comment “{_beginning(written.text)}”"
    return record(user, "delete comment", _set(written, None), summary=summary, skipped=0)


def _set(written: Comment, after: Any) -> steps.Outcome:
    ids = np.array([written.image_id], dtype=np.int64)
    before = (written.text, written.edited_at)
    return steps.run([SetComment(ids, written.author_id, written.created_at, before=before, after=after)])


@atomically
def save_search(name: str, query: str, page: str, user: Any) -> Action | None:
    """Keep a query (as the address of `page` carries it) under a name of this person's."""
    require_person(user)
    name = clean(name)
    if not name or len(name) > 200:
        raise BadValue("A saved search needs a name of 1 to 200 characters.")
    if page not in SavedSearch.Page.values or len(query) > 20_000:
        raise BadValue("This search cannot be saved: it is too long.")
    if SavedSearch.objects.filter(user=user.pk, name=name).exists():
        raise BadValue(f"You have a saved search “{name}” already. Choose another name.")
    saved = SavedSearch.objects.create(user=user, name=name, query=query, page=page)
    gone = SetRow("search", saved.pk, before=row_of(SavedSearch, saved.pk), after=None)
    outcome = steps.Outcome(rows=1, inverse=[gone])
    return record(user, "save search", outcome, summary=f"Saved the search “{name}”", skipped=0)


@atomically
def delete_search(saved: SavedSearch, user: Any) -> Action | None:
    """Forget a saved search of one's own."""
    if not runs_the_server(user) and saved.user_id != user.pk:
        raise NotAllowed("This saved search is somebody else's.")
    outcome = steps.run([SetRow("search", saved.pk, before=row_of(SavedSearch, saved.pk), after=None)])
    return record(user, "delete search", outcome, summary=f"Deleted the saved search “{saved.name}”", skipped=0)


def comment_text(text: str) -> str:
    """A comment as it is kept: composed (NFC), lines as they were typed. Raises BadValue."""
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = "\n".join(storable(line).rstrip() for line in lines).strip("\n").strip()
    if not kept:
        raise BadValue("A comment needs at least one character.")
    if len(kept) > MAX_COMMENT:
        raise BadValue(f"A comment has at most {MAX_COMMENT:,} characters; this one has {len(kept):,}. Shorten it.")
    return kept


def _beginning(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


def require_person(user: Any) -> None:
    if user is None or user.pk is None:
        raise BadValue(
            "Favourites, comments and albums belong to a person: say who (on the command line: --user NAME)."
        )
