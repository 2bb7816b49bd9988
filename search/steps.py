"""Reversible steps: the few ways in which curation writes to images, each of which answers what takes it back.

A step speaks of many images at once and says for each what it expects to find and what it leaves. Images
that are found otherwise are left alone: whoever changed them later wins.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import connection
from django.utils import timezone

from search import review
from search.arrays import Ids
from search.compact import pack_ids, unpack_ids
from search.models import Change, Image, ImageTag, RefusedKeyword, Tag, tag_key
from search.signals import image_states_changed

CHUNK = 10_000
"""Ids in one statement: SQLite takes 32,766 parameters."""
_FEW_VALUES = 20
_State = Image.State
_Indices = npt.NDArray[np.int32]


@dataclass
class Outcome:
    """What running steps did: ids that changed, ids that were found otherwise, and the steps that take it back."""

    changed: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    left: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    inverse: list[Step] = field(default_factory=list)
    listed: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Of the changed ones those whose state, hidden flag or stack changed: the change log speaks of them."""
    rows: int = 0
    """Rows that are no image's and changed: tags, albums, shares."""
    kinds: set[Change.Kind] = field(default_factory=set)
    """Of what kind these are for the change log."""


class Step:
    """One reversible write. `ids` are ascending int64; subclasses hold what is written."""

    verb = ""
    ids: Ids
    by_images = True
    """Whether who may edit an image may run the step on it; else `permitted` says who may run the whole step."""

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> Step:
        """The step whose `value` this is."""
        raise NotImplementedError

    def permitted(self, user: Any) -> bool:
        """Whether this person may run a step that does not go by images."""
        return True

    def only(self, ids: Ids) -> Step:
        """The same step for some of its images."""
        raise NotImplementedError

    def run(self, outcome: Outcome) -> None:
        """Write, inside a transaction in which the images are locked, and add to the outcome."""
        raise NotImplementedError

    def value(self) -> dict[str, Any]:
        raise NotImplementedError

    def pack(self) -> dict[str, Any]:
        """The step as JSON."""
        return {"verb": self.verb, "value": self.value(), "ids": base64.b64encode(pack_ids(self.ids)).decode()}


def unpack(packed: dict[str, Any]) -> Step:
    """The step that `Step.pack` wrote."""
    ids = unpack_ids(base64.b64decode(packed["ids"]))
    return KINDS[packed["verb"]].from_value(ids, packed["value"])


def run(steps: Iterable[Step]) -> Outcome:
    """Run steps one after the other. The inverse steps stand in the order in which they must run."""
    outcome = Outcome()
    for step in steps:
        step.run(outcome)
    outcome.inverse.reverse()
    for part in ("changed", "left", "listed"):
        setattr(outcome, part, np.unique(getattr(outcome, part)))
    return outcome


def chunks(ids: Ids) -> Iterator[list[int]]:
    """Ids in portions that fit one statement."""
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK].tolist()


class SetFields(Step):
    """Set columns of images from one row of a table of values to another.

    `before` and `after` hold for each id which row of `table` it is expected to have, and gets.
    """

    verb = "set"

    def __init__(
        self, ids: Ids, fields: tuple[str, ...], table: list[tuple[Any, ...]], before: _Indices, after: _Indices
    ) -> None:
        self.ids, self.fields, self.table, self.before, self.after = ids, fields, table, before, after

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> SetFields:
        table = [tuple(row) for row in value["table"]]
        indices = (_unpack_indices(value[end], len(ids)) for end in ("from", "to"))
        return cls(ids, tuple(value["fields"]), table, *indices)

    def only(self, ids: Ids) -> SetFields:
        return self._masked(np.isin(self.ids, ids))

    def _masked(self, keep: npt.NDArray[np.bool_]) -> SetFields:
        return SetFields(self.ids[keep], self.fields, self.table, self.before[keep], self.after[keep])

    def value(self) -> dict[str, Any]:
        used = np.unique(np.concatenate([self.before, self.after]))
        return {
            "fields": list(self.fields),
            "table": [list(self.table[row]) for row in used],
            "from": _pack_indices(np.searchsorted(used, self.before)),
            "to": _pack_indices(np.searchsorted(used, self.after)),
        }

    def run(self, outcome: Outcome) -> None:
        row_of = {row: n for n, row in enumerate(self.table)}
        found = np.full(len(self.ids), -1, dtype=np.int32)
        for chunk in chunks(self.ids):
            rows = list(Image.objects.filter(pk__in=chunk).values_list("pk", *self.fields))
            places = np.searchsorted(self.ids, np.fromiter((row[0] for row in rows), np.int64, len(rows)))
            found[places] = np.fromiter((row_of.get(tuple(row[1:]), -1) for row in rows), np.int32, len(rows))
        as_expected = found == self.before
        done = self._masked(as_expected)
        if self.fields == ("state",):
            done._settle()
        done._write()
        outcome.left = np.concatenate([outcome.left, self.ids[~as_expected]])
        outcome.changed = np.concatenate([outcome.changed, done.ids])
        if len(done.ids):
            outcome.inverse.append(SetFields(done.ids, self.fields, done.table, before=done.after, after=done.before))
            if not {"state", "hidden", "stack_of_id"}.isdisjoint(self.fields):
                outcome.listed = np.concatenate([outcome.listed, done.ids])
            if "state" in self.fields:
                done._tell()

    def _settle(self) -> None:
        """Bring the states that are set up to date: a removed image goes on being read, or may have failed since."""
        table, after = list(self.table), self.after.copy()
        for chunk in chunks(self.ids):
            for pk, reason, sha256 in Image.objects.filter(pk__in=chunk).values_list("pk", "reason", "sha256"):
                place = int(np.searchsorted(self.ids, pk))
                state = (standing(self.table[after[place]][0], failed=bool(reason), read=sha256 is not None),)
                if state != table[after[place]]:
                    if state not in table:
                        table.append(state)
                    after[place] = table.index(state)
        self.table, self.after = table, after

    def _write(self) -> None:
        values = np.unique(self.after)
        if len(values) <= _FEW_VALUES:
            for row in values:
                columns = dict(zip(self.fields, self.table[row], strict=True))
                for chunk in chunks(self.ids[self.after == row]):
                    Image.objects.filter(pk__in=chunk).update(**columns)
            self._sort()
            return
        images = [
            Image(pk=int(i), **dict(zip(self.fields, self.table[row], strict=True)))
            for i, row in zip(self.ids, self.after, strict=True)
        ]
        Image.objects.bulk_update(images, self.fields, batch_size=500)
        self._sort()

    def _sort(self) -> None:
        if "rating" in self.fields:
            review.settle(self.ids, ["unrated"])

    def _tell(self) -> None:
        position = self.fields.index("state")
        for row in np.unique(self.after):
            image_states_changed.send(
                sender=Image, ids=self.ids[self.after == row], state=str(self.table[row][position])
            )


def standing(wanted: str, *, failed: bool, read: bool) -> str:
    """The state that an image which shall be `wanted` can truly have: `read` says that its file as it is was read."""
    if wanted in (_State.REMOVED, _State.MISSING):
        return wanted
    if failed:
        return _State.UNREADABLE.value
    if read:
        return _State.READY.value
    return _State.WAITING.value if wanted == _State.UNREADABLE else wanted


class _TagStep(Step):
    """A step about one tag, which is found by its id, else by its name (a tag that was deleted is made again)."""

    def __init__(self, ids: Ids, tag: int, name: str, origin: str = "") -> None:
        self.ids, self.tag, self.name, self.origin = ids, tag, name, origin

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> _TagStep:
        return cls(ids, value["tag"], value["name"], value.get("origin", ""))

    def only(self, ids: Ids) -> _TagStep:
        return type(self)(self.ids[np.isin(self.ids, ids)], self.tag, self.name, self.origin)

    def value(self) -> dict[str, Any]:
        return {"tag": self.tag, "name": self.name, "origin": self.origin}

    def found_tag(self) -> Tag | None:
        return Tag.objects.filter(pk=self.tag).first() or Tag.objects.filter(key=tag_key(self.name)).first()

    def _opposite(self, ids: Ids, tag: Tag) -> Step:
        return LINKS[OPPOSITES[self.verb]](ids, tag.pk, tag.name, self.origin)

    def _free(self, tag: Tag) -> Ids:
        """The images that do not carry the tag now."""
        return np.setdiff1d(self.ids, having(ImageTag.objects.filter(tag=tag), self.ids))


class Link(_TagStep):
    """Put a tag, with an origin, on images that do not carry it."""

    verb = "link"

    def run(self, outcome: Outcome) -> None:
        tag = self.found_tag() or Tag.objects.create(name=self.name)
        there = having(ImageTag.objects.filter(tag=tag), self.ids)
        new = np.setdiff1d(self.ids, there)
        insert(ImageTag, new, {"tag_id": tag.pk, "origin": self.origin, "created_at": timezone.now()})
        for chunk in chunks(new):
            Image.objects.filter(pk__in=chunk, untagged=True).update(untagged=False)
        outcome.left = np.concatenate([outcome.left, there])
        outcome.changed = np.concatenate([outcome.changed, new])
        if len(new):
            outcome.inverse.append(self._opposite(new, tag))


class Unlink(_TagStep):
    """Take a tag off images that carry it with this origin."""

    verb = "unlink"

    def run(self, outcome: Outcome) -> None:
        tag = self.found_tag()
        links = ImageTag.objects.filter(tag=tag, origin=self.origin)
        there = having(links, self.ids) if tag else self.ids[:0]
        for chunk in chunks(there):
            links.filter(image__in=chunk).delete()
        review.settle(there, ["untagged"])
        outcome.left = np.concatenate([outcome.left, np.setdiff1d(self.ids, there)])
        outcome.changed = np.concatenate([outcome.changed, there])
        if tag and len(there):
            outcome.inverse.append(self._opposite(there, tag))


class Refuse(_TagStep):
    """Remember that this keyword of the file is not wanted on images: reading them again does not bring it back.

    Runs after `Unlink` (and `Allow` before `Link`): images that carry the tag now were changed since, and are left.
    """

    verb = "refuse"

    def run(self, outcome: Outcome) -> None:
        tag = self.found_tag() or Tag.objects.create(name=self.name)
        new = np.setdiff1d(self._free(tag), having(RefusedKeyword.objects.filter(tag=tag), self.ids))
        insert(RefusedKeyword, new, {"tag_id": tag.pk})
        if len(new):
            outcome.inverse.append(self._opposite(new, tag))


class Allow(_TagStep):
    """Forget such a refusal."""

    verb = "allow"

    def run(self, outcome: Outcome) -> None:
        tag = self.found_tag()
        refusals = RefusedKeyword.objects.filter(tag=tag)
        there = having(refusals, self._free(tag)) if tag else self.ids[:0]
        for chunk in chunks(there):
            refusals.filter(image__in=chunk).delete()
        if tag and len(there):
            outcome.inverse.append(self._opposite(there, tag))


LINKS: dict[str, type[_TagStep]] = {step.verb: step for step in (Link, Unlink, Refuse, Allow)}
KINDS: dict[str, type[Step]] = {SetFields.verb: SetFields, **LINKS}
"""Every kind of step by its verb; `personal_steps` and `row_steps` add theirs."""
OPPOSITES = {"link": "unlink", "unlink": "link", "refuse": "allow", "allow": "refuse"}


def having(links: Any, ids: Ids) -> Ids:
    """The ids that a queryset of rows with an `image` speaks of, ascending."""
    parts = [
        np.fromiter(links.filter(image__in=chunk).values_list("image_id", flat=True), dtype=np.int64)
        for chunk in chunks(ids)
    ]
    return np.unique(np.concatenate([ids[:0], *parts]))


def insert(model: Any, ids: Ids, columns: dict[str, Any]) -> None:
    """One row for each image that is there, by INSERT ... SELECT: 50,000 rows are five statements."""
    quote = connection.ops.quote_name
    fields = {field.attname: field for field in model._meta.concrete_fields}
    values = [fields[name].get_db_prep_save(value, connection) for name, value in columns.items()]
    names = ", ".join(quote(fields[name].column) for name in columns)
    with connection.cursor() as cursor:
        for chunk in chunks(ids):
            cursor.execute(
                f"INSERT INTO {quote(model._meta.db_table)} ({quote('image_id')}, {names}) "
                f"SELECT {quote('id')}, {', '.join(['%s'] * len(values))} FROM {quote(Image._meta.db_table)} "
                f"WHERE {quote('id')} IN ({', '.join(['%s'] * len(chunk))}) ON CONFLICT DO NOTHING",
                [*values, *chunk],
            )


def pack_array(array: npt.NDArray[Any]) -> str:
    """An array as text for JSON; `unpack_array` needs its dtype."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode()


def unpack_array(packed: str, dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype=dtype).copy()


def _pack_indices(indices: npt.NDArray[Any]) -> int | str:
    if len(indices) and (indices == indices[0]).all():
        return int(indices[0])
    return pack_array(indices.astype("<i4"))


def _unpack_indices(packed: int | str, count: int) -> _Indices:
    if isinstance(packed, int):
        return np.full(count, packed, dtype=np.int32)
    return unpack_array(packed, "<i4").astype(np.int32)
