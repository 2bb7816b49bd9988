"""Long tables, page by page: counted no further than anybody turns pages, estimated beyond, and gone on from a row."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import connection, models
from django.db.models import Max, QuerySet
from django.utils.functional import cached_property
from django.utils.http import urlencode
from django.utils.text import capfirst

from search.wording import counted

MOST_COUNTED = 10_000
"""Rows beyond that are not counted, and no page number reaches them: the lists go on from a row instead."""
FURTHER = "below"
"""The field of an address that says from which row a list goes on."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than 10,000 rows: a page of a table of millions costs what a page of a small one does."""

    object_list: QuerySet[Any]

    @cached_property
    def _found(self) -> int:
        return int(self.object_list.order_by()[: MOST_COUNTED + 1].count())

    @cached_property
    def count(self) -> int:
        return min(self._found, MOST_COUNTED)

    @property
    def more(self) -> bool:
        """Whether there are more rows than pages reach."""
        return self._found > MOST_COUNTED

    @property
    def said(self) -> str:
        """How many rows there are, for people; an estimate is said to be one."""
        options = self.object_list.model._meta
        one, many = str(options.verbose_name), str(options.verbose_name_plural)
        if not self.more:
            return counted(self.count, one, many)
        about = estimate(self.object_list)
        if about is None or about <= MOST_COUNTED:
            return f"More than {counted(MOST_COUNTED, one, many)}"
        return f"About {counted(_rounded(about), one, many)}, of which pages show {MOST_COUNTED:,}"


def estimate(rows: QuerySet[Any]) -> int | None:
    """About how many rows there are, from what the database knows without reading them; None when it knows nothing.

    PostgreSQL's planner estimates any list. SQLite keeps no such numbers: there the highest id stands for a whole
    table (ids are never used again, so purged rows make it too high), and of a filtered list nothing is known.
    """
    if connection.vendor == "postgresql":
        plan = json.loads(rows.order_by().explain(format="json"))
        return int(plan[0]["Plan"]["Plan Rows"])
    if rows.query.where or not isinstance(rows.model._meta.pk, models.AutoField | models.BigIntegerField):
        return None
    return rows.model._default_manager.aggregate(last=Max("pk"))["last"]


def bounded_counts(model: type[models.Model], column: str, values: list[int], most: int = 1_000) -> dict[int, int]:
    """{value: rows of the table with this value in the column, at most `most`}, in one query.

    Needs an index that begins with the column: what half of a library has is counted as quickly as what is rare.
    """
    if not values:
        return {}
    table, quoted = model._meta.db_table, connection.ops.quote_name(column)
    one = f"SELECT %s, (SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE {quoted} = %s LIMIT {int(most)}) n)"
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join([one] * len(values)), [part for value in values for part in (value, value)])
        return {int(value): int(number) for value, number in cursor.fetchall()}


def at_most(number: int, most: int = 1_000) -> str:
    """A bounded count for people."""
    return f"{number:,}" if number < most else f"{most:,} or more"


def _rounded(number: int) -> int:
    """Two digits that count, as befits an estimate."""
    step = 10 ** max(0, len(str(number)) - 2)
    return round(number / step) * step


class BoundedChangeList(ChangeList):
    """A list whose pages end at 10,000 rows, and that goes on from its last row with a link."""

    model_admin: Any  # a CatalogueAdmin

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.is_popup:
            self.title = str(capfirst(self.opts.verbose_name_plural))

    def get_results(self, request: Any) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        self.model_admin.dress(self.result_list)

    @property
    def further(self) -> str:
        """The address of what comes after the last row of this page, as a first page; "" where pages reach it all."""
        paginator = getattr(self, "paginator", None)
        if not getattr(paginator, "more", False) or not self.result_list:
            return ""
        value = self.model_admin.place_of(self.result_list[-1])
        if not value or self.get_ordering_field_columns() != self._default_columns:
            return ""
        kept = {
            name: values for name, values in self.filter_params.items() if name not in ("p", self.model_admin.further)
        }
        return "?" + urlencode([*((k, v) for k, v in kept.items()), (self.model_admin.further, value)], doseq=True)

    @cached_property
    def _default_columns(self) -> Any:
        asked, self.params = self.params, {k: v for k, v in self.params.items() if k != "o"}
        try:
            return self.get_ordering_field_columns()
        finally:
            self.params = asked
