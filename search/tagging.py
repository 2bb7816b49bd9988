"""The tags themselves: renamed, merged, coloured, put under each other, deleted.

A tag's name is one for the whole catalogue, so a change of the tag itself asks for the right to edit every image
that has it. Where somebody may edit only some of them, renaming, merging and deleting do to those what they say,
and leave the tag to the others; nobody learns from it that there are others. Every verb is one transaction with
one `Action`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from search import steps
from search.arrays import Ids
from search.atomically import atomically
from search.curation import listed, tag_names, tags_named
from search.errors import BadValue, NotAllowed
from search.history import count_of, record
from search.models import Action, Image, ImageTag, RefusedKeyword, Tag, tag_key
from search.row_steps import SetRow, may_change_tag, row_of

_PERSON, _FILE = Image.Origin.PERSON.value, Image.Origin.FILE.value
DEEPEST = 20


@atomically
def rename(tag: Tag, name: str, user: Any) -> Action | None:
    """Give a tag another name; one that is there already takes its images over (see `merge`).

    Where file keywords brought the tag, the new name is a tag of its own and the keyword is remembered as not
    wanted on these images, so that reading the files again changes nothing.
    """
    (wanted,) = tag_names(name)
    tag = _locked(tag)
    key = tag_key(wanted)
    if key == tag.key and wanted == tag.name:
        return None
    other = Tag.objects.filter(key=key).exclude(pk=tag.pk).first()
    from_files = ImageTag.objects.filter(tag=tag, origin=_FILE).exists() or (
        RefusedKeyword.objects.filter(tag=tag).exists()
    )
    if key == tag.key or (other is None and not from_files and may_change_tag(tag.pk, user)):
        if not may_change_tag(tag.pk, user):
            raise NotAllowed("You may not change how this tag is written: others use it too.")
        after = {"name": wanted, "key": key}
        outcome = steps.run([SetRow("tag", tag.pk, before={"name": tag.name, "key": tag.key}, after=after)])
        return record(user, "rename tag", outcome, summary=f"Renamed the tag “{tag.name}” to “{wanted}”", skipped=0)
    planned: list[steps.Step] = []
    if other is None:
        other = tags_named([wanted], user)[0]
        fields = {"colour": tag.colour, "parent_id": tag.parent_id}
        Tag.objects.filter(pk=other.pk).update(**fields)
        planned += [_row(child, {"parent_id": other.pk}) for child in Tag.objects.filter(parent=tag)]
        summary = f"Renamed the tag “{tag.name}” to “{wanted}”"
    else:
        summary = f"Merged the tag “{tag.name}” into “{other.name}”"
    return _merged([tag], other, user, planned, verb="rename tag", summary=summary)


@atomically
def merge(tags: Iterable[Tag], into: str, user: Any) -> Action | None:
    """Put the tag `into` (made if need be) on all images that have one of these tags, and take these away."""
    (wanted,) = tag_names(into)
    target = tags_named([wanted], user)[0]
    sources = [_locked(one) for one in {one.pk: one for one in tags}.values() if one.pk != target.pk]
    if not sources:
        raise BadValue("Choose a tag other than the one it becomes part of.")
    return _merged(
        sources, target, user, [], verb="merge tags", summary=f"Merged {listed(sources)} into “{target.name}”"
    )


@atomically
def delete(tag: Tag, user: Any) -> Action | None:
    """Take a tag off all images one may edit, and forget it when no image has it any more."""
    tag = _locked(tag)
    links = _editable_links(tag, user)
    _require_any(tag, links, user)
    planned: list[steps.Step] = _off(tag, links)
    if may_change_tag(tag.pk, user):
        planned += [_row(child, {"parent_id": tag.parent_id}) for child in Tag.objects.filter(parent=tag)]
        planned.append(SetRow("tag", tag.pk, before=row_of(Tag, tag.pk), after=None))
    outcome = steps.run(planned)
    summary = f"Deleted the tag “{tag.name}” from {count_of(len(outcome.changed))}"
    return record(user, "delete tag", outcome, summary=summary, skipped=0)


@atomically
def set_colour(tag: Tag, colour: str, user: Any) -> Action | None:
    """Give a tag one of the colours of `Tag.Colour`, or "" for none."""
    if colour and colour not in Tag.Colour.values:
        raise BadValue(f"A tag's colour is one of {', '.join(Tag.Colour.values)}, not {colour[:40]!r}.")
    tag = _changeable(tag, user)
    if tag.colour == colour:
        return None
    outcome = steps.run([_row(tag, {"colour": colour})])
    summary = f"Made the tag “{tag.name}” {colour}" if colour else f"Took the colour off the tag “{tag.name}”"
    return record(user, "colour tag", outcome, summary=summary, skipped=0)


@atomically
def set_parent(tag: Tag, parent: str, user: Any) -> Action | None:
    """Put a tag under another (made if need be), or at the top with "". No tag stands above itself."""
    tag = _changeable(tag, user)
    above: Tag | None = None
    if parent.strip():
        (wanted,) = tag_names(parent)
        above = tags_named([wanted], user)[0]
        chain = 0
        one: Tag | None = above
        while one is not None:
            if one.pk == tag.pk:
                raise BadValue(f"“{tag.name}” stands above “{above.name}”: move “{above.name}” elsewhere first.")
            chain, one = chain + 1, one.parent
            if chain > DEEPEST:
                raise BadValue(f"Tags stand at most {DEEPEST} deep under each other.")
    if tag.parent_id == (above.pk if above else None):
        return None
    outcome = steps.run([_row(tag, {"parent_id": above.pk if above else None})])
    summary = f"Put the tag “{tag.name}” under “{above.name}”" if above else f"Put the tag “{tag.name}” at the top"
    return record(user, "move tag", outcome, summary=summary, skipped=0)


def _merged(
    sources: Sequence[Tag], target: Tag, user: Any, planned: list[steps.Step], *, verb: str, summary: str
) -> Action | None:
    links = {one.pk: _editable_links(one, user) for one in sources}
    if not any(len(ids) for of_one in links.values() for ids in of_one.values()):
        for one in sources:
            _require_any(one, links[one.pk], user)
    for one in sources:
        everywhere = np.unique(np.concatenate(list(links[one.pk].values())))
        planned.append(steps.Link(everywhere, target.pk, target.name, _PERSON))
        planned += _off(one, links[one.pk])
        if may_change_tag(one.pk, user):
            # Their children go along, unless that would put the target above itself.
            for child in Tag.objects.filter(parent=one):
                if child.pk != target.pk:
                    planned.append(_row(child, {"parent_id": target.pk}))
                else:
                    planned.append(_row(child, {"parent_id": one.parent_id}))
            planned.append(SetRow("tag", one.pk, before=row_of(Tag, one.pk), after=None))
    outcome = steps.run(planned)
    return record(user, verb, outcome, summary=f"{summary} on {count_of(len(outcome.changed))}", skipped=0)


def _off(tag: Tag, links: dict[str, Ids]) -> list[steps.Step]:
    """What takes a tag off; a keyword of the file is remembered as not wanted."""
    planned: list[steps.Step] = []
    for origin, ids in links.items():
        if len(ids):
            planned.append(steps.Unlink(ids, tag.pk, tag.name, origin))
            if origin == _FILE:
                planned.append(steps.Refuse(ids, tag.pk, tag.name))
    return planned


def _editable_links(tag: Tag, user: Any) -> dict[str, Ids]:
    """By origin, the images with this tag that one may edit, locked."""
    images = Image.objects.editable_by(user).filter(pk__in=ImageTag.objects.filter(tag=tag).values("image"))
    ids = np.fromiter(images.order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True), dtype=np.int64)
    return {
        origin: steps.having(ImageTag.objects.filter(tag=tag, origin=origin), ids) for origin in Image.Origin.values
    }


def _require_any(tag: Tag, links: dict[str, Ids], user: Any) -> None:
    if not any(len(ids) for ids in links.values()) and not may_change_tag(tag.pk, user):
        raise NotAllowed("You may not change this tag: none of the pictures that have it is yours to edit.")


def _row(tag: Tag, after: dict[str, Any]) -> SetRow:
    return SetRow("tag", tag.pk, before={name: getattr(tag, name) for name in after}, after=after)


def _changeable(tag: Tag, user: Any) -> Tag:
    tag = _locked(tag)
    if not may_change_tag(tag.pk, user):
        raise NotAllowed(
            "You may not change this tag itself: others use it too. Tag your pictures with one of your own."
        )
    return tag


def _locked(tag: Tag) -> Tag:
    found = Tag.objects.select_for_update(no_key=True).filter(pk=tag.pk).first()
    if found is None:
        raise BadValue(f"The tag “{tag.name}” is not there any more.")
    return found
