"""Reversible steps on single rows that are no image's: a tag's name, an album, whom it is shared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.db import IntegrityError, models, transaction

from search.errors import runs_the_server
from search.models import Album, AlbumEntry, AlbumShare, Change, Image, ImageTag, RefusedKeyword, SavedSearch, Tag
from search.steps import KINDS, Ids, Outcome, Step

MODELS: dict[str, type[models.Model]] = {"tag": Tag, "album": Album, "share": AlbumShare, "search": SavedSearch}
_KINDS = {"tag": Change.Kind.TAGS, "album": Change.Kind.ALBUMS, "share": Change.Kind.ALBUMS}
_NOBODY: Ids = np.zeros(0, dtype=np.int64)


class SetRow(Step):
    """Make, change or delete one row. `before` and `after` hold columns by name; None: the row is not there.

    A row whose columns are found otherwise, or that cannot become what it should (its name is taken, it is in
    use again), is left alone. A row that is made again has the id it had: ids are never given twice.
    """

    verb = "row"
    by_images = False

    def __init__(self, model: str, pk: int, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        self.ids, self.model, self.pk, self.before, self.after = _NOBODY, model, pk, before, after

    @classmethod
    def from_value(cls, ids: Ids, value: dict[str, Any]) -> SetRow:
        return cls(value["model"], value["pk"], value["from"], value["to"])

    def value(self) -> dict[str, Any]:
        return {"model": self.model, "pk": self.pk, "from": self.before, "to": self.after}

    def only(self, ids: Ids) -> SetRow:
        return self

    def permitted(self, user: Any) -> bool:
        if runs_the_server(user):
            return True
        if self.model == "tag":
            return may_change_tag(self.pk, user)
        if self.model == "album":
            album = Album.objects.filter(pk=self.pk).first()
            owner = album.owner_id if album else (self.after or self.before or {}).get("owner_id")
            if owner == user.pk:
                return True
            return (
                bool(album and self.before and self.after and set(self.after) <= {"cover_id"})
                and Album.objects.editable_by(user).filter(pk=self.pk).exists()
            )
        if self.model == "search":
            return bool((self.after or self.before or {}).get("user_id") == user.pk)
        share = AlbumShare.objects.filter(pk=self.pk).first()
        album_id = share.album_id if share else (self.after or self.before or {}).get("album_id", 0)
        return Album.objects.filter(pk=album_id, owner=user.pk).exists()

    def run(self, outcome: Outcome) -> None:
        model = MODELS[self.model]
        found = row_of(model, self.pk, list(self.before or self.after or {}))
        if found != self.before or not self._write(model):
            return
        outcome.rows += 1
        if self.model in _KINDS:
            outcome.kinds.add(_KINDS[self.model])
        outcome.inverse.append(SetRow(self.model, self.pk, before=self.after, after=self.before))

    def _write(self, model: type[models.Model]) -> bool:
        rows = model._default_manager.filter(pk=self.pk)
        if self.after is None:
            if _in_use(self.model, self.pk):
                return False
            rows.delete()
            return True
        if not _holds_together(self.model, self.pk, self.after):
            return False
        values = {}
        for name, value in self.after.items():
            column = _column(model, name)
            value = column.to_python(value)
            if value is not None and not _leads_somewhere(column, value):
                if not column.null:
                    return False
                value = None
            values[name] = value
        try:
            with transaction.atomic():
                if self.before is None:
                    model._default_manager.bulk_create([model(pk=self.pk, **values)])
                    rows.update(**values)  # what is set by itself on creation (created_at) is as it was, too
                else:
                    rows.update(**values)
        except IntegrityError:
            return False
        return True


def _leads_somewhere(column: models.Field[Any, Any], value: Any) -> bool:
    """Whether the row that a foreign key names is there; SQLite would only ask at the end of the transaction."""
    if not isinstance(column, models.ForeignKey):
        return True
    return column.related_model._default_manager.filter(pk=value).exists()


def _column(model: type[models.Model], name: str) -> models.Field[Any, Any]:
    return next(field for field in model._meta.concrete_fields if field.attname == name)


def row_of(model: type[models.Model], pk: int, names: list[str] | None = None) -> dict[str, Any] | None:
    """Columns of a row (None: all but its id) as JSON keeps them; None when the row is not there."""
    if not names:
        names = [field.attname for field in model._meta.concrete_fields if not field.primary_key]
    found = model._default_manager.filter(pk=pk).values(*names).first()
    if found is None:
        return None
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in found.items()}


def may_change_tag(tag: int, user: Any) -> bool:
    """Whether somebody may change a tag itself: they may edit every image that has it; without images, they made it."""
    if runs_the_server(user):
        return True
    links = ImageTag.objects.filter(tag=tag)
    if not links.exists():
        return not Tag.objects.filter(pk=tag).exclude(made_by=user.pk).exists()
    return not links.exclude(image__in=Image.objects.editable_by(user).values("pk")).exists()


def _in_use(model: str, pk: int) -> bool:
    if model == "album":
        return AlbumEntry.objects.filter(album=pk).exists() or AlbumShare.objects.filter(album=pk).exists()
    if model == "tag":
        return (
            ImageTag.objects.filter(tag=pk).exists()
            or RefusedKeyword.objects.filter(tag=pk).exists()
            or Tag.objects.filter(parent=pk).exists()
        )
    return False


def _holds_together(model: str, pk: int, values: dict[str, Any]) -> bool:
    """No tag stands above itself."""
    above = values.get("parent_id") if model == "tag" else None
    while above is not None:
        if above == pk:
            return False
        above = Tag.objects.filter(pk=above).values_list("parent", flat=True).first()
    return True


KINDS[SetRow.verb] = SetRow
