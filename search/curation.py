"""What people do with images: tag, rate, title, hide, remove, and the ways back.

Every verb takes a queryset of images or their ids, changes only what `user` may edit (None: the command line,
everything) and only what really changes, in one transaction and a few statements for each 10,000 images. It
writes one `Action`, from which `undo` takes it back, and returns it; None when nothing changed.

Every verb raises NotAllowed when there are images but `user` may edit none of them, and BadValue for a value
that cannot be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from search import review, steps
from search.arrays import Ids
from search.atomically import atomically
from search.errors import BadValue
from search.history import Images, count_of, editable, record
from search.models import Action, Image, ImageTag, Reviewed, Tag, tag_key
from search.review_steps import Review
from search.signals import image_states_changed
from search.text import clean
from search.undoing import undo

__all__ = [
    "flag", "hide", "image_states_changed", "keep", "rate", "remove", "restore", "review_again", "set_title", "tag",
    "undo", "unflag", "unhide", "untag",
]  # fmt: skip

_PERSON = Image.Origin.PERSON.value
_FILE = Image.Origin.FILE.value
_State = Image.State
MAX_TITLE = 1_000


@atomically
def tag(images: Images, names: str | Iterable[str], user: Any) -> Action | None:
    """Put tags on images; tags that do not exist are made. One name or several; compared without case."""
    wanted = tag_names(names)
    ids, skipped = editable(images, user)
    if not len(ids):
        return None
    found = tags_named(wanted, user)
    new = [
        steps.Link(np.setdiff1d(ids, steps.having(ImageTag.objects.filter(tag=one), ids)), one.pk, one.name, _PERSON)
        for one in found
    ]
    outcome = steps.run(step for step in new if len(step.ids))
    summary = f"Tagged {count_of(len(outcome.changed))} {listed(found)}"
    return record(user, "tag", outcome, summary=summary, skipped=skipped, details={"tags": [t.name for t in found]})


@atomically
def untag(images: Images, names: str | Iterable[str], user: Any) -> Action | None:
    """Take tags off images. They are remembered as not wanted: neither the file's keywords nor those of a sidecar,
    which may hold what was exported there, bring them back when it is read again."""
    keys = [tag_key(name) for name in tag_names(names)]
    ids, skipped = editable(images, user)
    found = list(Tag.objects.filter(key__in=keys))
    planned: list[steps.Step] = []
    for one in found:
        for origin in Image.Origin.values:
            there = steps.having(ImageTag.objects.filter(tag=one, origin=origin), ids)
            if len(there):
                planned.append(steps.Unlink(there, one.pk, one.name, origin))
                planned.append(steps.Refuse(there, one.pk, one.name))
    outcome = steps.run(planned)
    summary = f"Took {listed(found)} off {count_of(len(outcome.changed))}"
    return record(user, "untag", outcome, summary=summary, skipped=skipped, details={"tags": [t.name for t in found]})


@atomically
def rate(images: Images, rating: int, user: Any) -> Action | None:
    """Give images 1 to 5 stars, or 0 to take the rating away. A person's rating outlives what the file says."""
    if isinstance(rating, bool) or not isinstance(rating, int) or not 0 <= rating <= 5:
        raise BadValue(f"A rating is a whole number from 0 (none) to 5, not {rating!r}.")
    ids, skipped = editable(images, user)

    def target(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return row if row[0] == rating and row[1] != _FILE else (rating, _PERSON)

    outcome = set_fields(ids, ("rating", "rating_origin"), target)
    stars = f"{rating} star{'' if rating == 1 else 's'}"
    number = count_of(len(outcome.changed))
    summary = f"Rated {number} {stars}" if rating else f"Took the rating off {number}"
    return record(user, "rate", outcome, summary=summary, skipped=skipped, details={"rating": rating})


@atomically
def set_title(images: Images, title: str, user: Any) -> Action | None:
    """Give images a title, or "" to take it away. A person's title outlives what the file says."""
    title = clean(title)
    if len(title) > MAX_TITLE:
        raise BadValue(f"A title has at most {MAX_TITLE:,} characters; this one has {len(title):,}. Shorten it.")
    ids, skipped = editable(images, user)

    def target(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return row if row[0] == title and row[1] != _FILE else (title, _PERSON)

    outcome = set_fields(ids, ("title", "title_origin"), target)
    number = count_of(len(outcome.changed))
    summary = f"Titled {number} “{title}”" if title else f"Took the title off {number}"
    return record(user, "title", outcome, summary=summary, skipped=skipped, details={"title": title})


@atomically
def hide(images: Images, user: Any) -> Action | None:
    """Hide images from every list; those who may edit them find them with `is:hidden`."""
    return _set_hidden(images, True, user)


@atomically
def unhide(images: Images, user: Any) -> Action | None:
    """Show hidden images again."""
    return _set_hidden(images, False, user)


def _set_hidden(images: Images, hidden: bool, user: Any) -> Action | None:
    ids, skipped = editable(images, user)
    outcome = set_fields(ids, ("hidden",), lambda row: (hidden,))
    number = count_of(len(outcome.changed))
    verb, summary = ("hide", f"Hid {number}") if hidden else ("unhide", f"Showed {number} again")
    return record(user, verb, outcome, summary=summary, skipped=skipped)


@atomically
def remove(images: Images, user: Any) -> Action | None:
    """Take images out of the catalogue; the files stay, and reading the folder again does not bring them back."""
    ids, skipped = editable(images, user)
    outcome = set_fields(ids, ("state",), lambda row: (_State.REMOVED.value,))
    summary = f"Removed {count_of(len(outcome.changed))}"
    return record(user, "remove", outcome, summary=summary, skipped=skipped)


@atomically
def restore(images: Images, user: Any) -> Action | None:
    """Bring removed images back: ready when their files were read, unreadable when that failed, else waiting."""
    ids, skipped = editable(images, user)
    removed = _State.REMOVED.value
    outcome = set_fields(ids, ("state",), lambda row: (_State.WAITING.value,) if row[0] == removed else row)
    summary = f"Restored {count_of(len(outcome.changed))}"
    return record(user, "restore", outcome, summary=summary, skipped=skipped)


@atomically
def flag(images: Images, user: Any) -> Action | None:
    """Flag images, to come back to them: they wait in the review queue of flagged ones."""
    return _set_flag(images, True, user)


@atomically
def unflag(images: Images, user: Any) -> Action | None:
    """Take the flag off images."""
    return _set_flag(images, False, user)


def _set_flag(images: Images, flagged: bool, user: Any) -> Action | None:
    ids, skipped = editable(images, user)
    outcome = set_fields(ids, ("flagged",), lambda row: (flagged,))
    number = count_of(len(outcome.changed))
    verb, summary = ("flag", f"Flagged {number}") if flagged else ("unflag", f"Took the flag off {number}")
    return record(user, verb, outcome, summary=summary, skipped=skipped)


@atomically
def keep(images: Images, queue: str, user: Any) -> Action | None:
    """Say that images which wait in a review queue are all right: they leave it for good.

    Those that do not wait there are left alone. In the queue of flagged images this takes the flag off.
    """
    if queue == "flagged":
        return unflag(images, user)
    if queue not in review.SORTED:
        raise BadValue(f"There is no review queue {queue!r} to keep pictures in: {', '.join(review.NAMES)}.")
    ids, skipped = editable(images, user)
    parts = [
        np.fromiter(Image.objects.filter(pk__in=chunk, **{queue: True}).values_list("pk", flat=True), dtype=np.int64)
        for chunk in steps.chunks(ids)
    ]
    outcome = steps.run([Review(np.unique(np.concatenate([ids[:0], *parts])), queue, True)])
    summary = f"Kept {count_of(len(outcome.changed))} of the queue “{review.LABELS[queue][0]}”"
    return record(user, "keep", outcome, summary=summary, skipped=skipped, details={"queue": queue})


@atomically
def review_again(images: Images, user: Any) -> Action | None:
    """Let images that were kept wait again, in every review queue that they belong to."""
    ids, skipped = editable(images, user)
    planned = [Review(steps.having(Reviewed.objects.filter(queue=one), ids), one, False) for one in review.SORTED]
    outcome = steps.run(step for step in planned if len(step.ids))
    summary = f"Put {count_of(len(outcome.changed))} back into the review queues"
    return record(user, "review again", outcome, summary=summary, skipped=skipped)


def set_fields(
    ids: Ids, fields: tuple[str, ...], target: Callable[[tuple[Any, ...]], tuple[Any, ...]]
) -> steps.Outcome:
    """Set `fields` of the (locked) images to what `target` makes of their values, where that differs."""
    table: list[tuple[Any, ...]] = []
    row_of: dict[tuple[Any, ...], int] = {}
    becomes: list[int] = []

    def row(values: tuple[Any, ...]) -> int:
        if values not in row_of:
            row_of[values] = len(table)
            table.append(values)
            becomes.append(-1)
        return row_of[values]

    before = np.zeros(len(ids), dtype=np.int32)
    for chunk in steps.chunks(ids):
        for pk, *values in Image.objects.filter(pk__in=chunk).values_list("pk", *fields).iterator():
            before[np.searchsorted(ids, pk)] = row(tuple(values))
    for known in list(table):
        becomes[row_of[known]] = row(target(known))
    after = np.array(becomes, dtype=np.int32)[before] if len(ids) else before
    differ = before != after
    if not differ.any():
        return steps.Outcome()
    return steps.run([steps.SetFields(ids[differ], fields, table, before[differ], after[differ])])


def tag_names(names: str | Iterable[str]) -> list[str]:
    """Cleaned names, each once. Raises BadValue."""
    cleaned: dict[str, str] = {}
    for given in [names] if isinstance(names, str) else names:
        name = clean(given)
        if not name:
            raise BadValue("A tag needs a name of at least one character.")
        if len(name) > 200 or len(tag_key(name)) > 255:
            raise BadValue(f"The tag “{name[:40]}…” is too long: a tag has at most 200 characters.")
        cleaned.setdefault(tag_key(name), name)
    if not cleaned:
        raise BadValue("Name at least one tag.")
    return list(cleaned.values())


def tags_named(names: list[str], user: Any) -> list[Tag]:
    """The tags of these names in this order; those that are not there are made."""
    keys = [tag_key(name) for name in names]
    known = set(Tag.objects.filter(key__in=keys).values_list("key", flat=True))
    maker = None if user is None else user.pk
    new = [Tag(name=name, key=key, made_by_id=maker) for name, key in zip(names, keys, strict=True) if key not in known]
    new.sort(key=lambda one: one.key)  # two who make the same tags do so in one order
    Tag.objects.bulk_create(new, ignore_conflicts=True)
    found = {one.key: one for one in Tag.objects.filter(key__in=keys)}
    return [found[key] for key in keys]


def listed(tags: list[Tag]) -> str:
    return ", ".join(f"“{one.name}”" for one in tags)
