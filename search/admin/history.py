"""What was done, and what it takes back: the history, the change log and the named numbers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from search import errands
from search.admin.base import ReadOnlyAdmin, confirmed
from search.admin.typed import TypedFilter
from search.errors import SearchError
from search.models import Action, Change, Counter, Errand


class VerbFilter(TypedFilter):
    title = "verb"
    parameter_name = "verb"
    placeholder = "tag, rate, hide, …"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Action]) -> QuerySet[Action]:
        return queryset.filter(verb=self.value()) if self.value() else queryset


@admin.register(Action)
class ActionAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "user", "verb", "summary", "count", "undone_at", "undone_by")
    list_display_links = ("summary",)
    list_select_related = ("user", "undone_by")
    list_filter = (VerbFilter, "created_at", ("undone_at", admin.EmptyFieldListFilter))
    search_fields = ("summary", "user__username")
    ordering = ("-id",)
    sortable_by = ("created_at",)
    fields = ("created_at", "user", "verb", "summary", "count", "details", "undone_at", "undone_by")
    actions = ("undo_selected",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        match = request.resolver_match
        rows = super().get_queryset(request)
        listed = bool(match and (match.url_name or "").endswith("_changelist"))
        return rows.defer("ids", "inverse") if listed and request.method == "GET" else rows

    @admin.action(description="Undo", permissions=["verb"])
    def undo_selected(self, request: HttpRequest, rows: QuerySet[Action]) -> HttpResponse | None:
        question = "Undo these actions, the newest first? Images changed since then stay as they are."
        if page := confirmed(self, request, rows, question=question, button="Undo them"):
            return page
        for action in rows.order_by("-pk"):
            try:
                done = errands.undo(action, request.user)
            except SearchError as error:
                self.message_user(request, f"{action.summary}: {error}", messages.ERROR)
                continue
            if isinstance(done, Errand):
                said = f"{action.summary}: it is being undone, which takes a moment and goes on by itself"
                self.message_user(request, f"{said}.", messages.INFO)
                continue
            said = done.summary if done else f"{action.summary}: nothing is left to undo"
            self.message_user(request, f"{said}.", messages.SUCCESS if done else messages.INFO)
        return None


@admin.register(Change)
class ChangeAdmin(ReadOnlyAdmin):
    list_display = ("number", "kind", "space", "created_at")
    list_filter = ("kind", "created_at")
    search_fields = ("=number",)
    search_help_text = "A number of the log."
    ordering = ("-number",)
    fields = ("number", "kind", "space", "created_at")


@admin.register(Counter)
class CounterAdmin(ReadOnlyAdmin):
    list_display = ("name", "value")
    search_fields = ("name",)
