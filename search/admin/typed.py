"""List filters whose value is typed, for what has too many values for a list of links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

_NOT_KEPT = {"p", "e", "all"}


class TypedFilter(admin.SimpleListFilter):
    """A filter with a field to type in, and links for the few values that `links` names."""

    template = "admin/typed_filter.html"
    placeholder = ""
    kind = "text"
    numeric = False
    suggest = ""
    """Name of the address that answers the options of what is typed, as `tag_suggestions` does."""
    links: tuple[tuple[str, str], ...] = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("", "")]  # there is always something to choose

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        def address(value: str | None) -> str:
            return str(changelist.get_query_string({self.parameter_name: value, "p": None}))

        yield {
            "value": self.value() or "",
            "kept": [
                (name, value)
                for name, values in changelist.filter_params.items()
                if name not in _NOT_KEPT and name != self.parameter_name
                for value in (values if isinstance(values, list) else [values])
            ],
            "without": address(None),
            "links": [(address(value), label, self.value() == value) for value, label in self.links],
        }
