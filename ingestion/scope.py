"""Which part of the work is meant."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Exists, OuterRef, QuerySet

from ingestion.models import Work


@dataclass(frozen=True)
class Scope:
    """Which sources' work is meant: all, unless `sources` names them, and never `without`, nor what lies in a folder
    (source, path) of `beneath`; with `read_already` only images whose reading is not waiting."""

    sources: tuple[int, ...] | None = None
    without: tuple[int, ...] = ()
    beneath: tuple[tuple[int, bytes], ...] = ()
    read_already: bool = False

    def of(self, rows: QuerySet[Work]) -> QuerySet[Work]:
        if self.sources is not None:
            rows = rows.filter(image__source_id__in=self.sources)
        for source, folder in self.beneath:
            rows = rows.exclude(
                image__source_id=source, image__path__gte=folder + b"/", image__path__lt=folder + b"0"
            )  # "0" follows "/"
        if self.read_already:
            reading = Work.objects.filter(image_id=OuterRef("image_id"), stage="read", state=Work.State.WAITING)
            rows = rows.filter(~Exists(reading))
        return rows.exclude(image__source_id__in=self.without) if self.without else rows
