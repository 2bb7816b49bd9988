"""Who signed in where, who has to wait at the sign-in page, and the audit."""

from __future__ import annotations

from typing import Any

from axes.models import AccessAttempt
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from search import audit, sessions, signin_limit
from search.admin.base import ReadOnlyAdmin, confirmed
from search.models import Event, SignedIn
from search.wording import counted


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "kind", "name", "text", "image_id", "count", "address")
    list_display_links = ("created_at",)
    list_filter = ("kind", "created_at")
    search_fields = ("=name", "=address")
    search_help_text = "A whole name, or an address."
    ordering = ("-created_at", "-id")
    sortable_by = ()
    fields = ("created_at", "kind", "name", "user", "text", "image_id", "count", "address")


@admin.register(SignedIn)
class SignedInAdmin(ReadOnlyAdmin):
    list_display = ("user", "browser_shown", "address", "created_at", "seen_at")
    list_select_related = ("user",)
    list_filter = ("seen_at",)
    search_fields = ("user__username", "=address")
    ordering = ("-seen_at", "-id")
    sortable_by = ()
    fields = ("user", "browser", "address", "created_at", "seen_at")
    actions = ("end_selected",)

    @admin.display(description="Browser")
    def browser_shown(self, row: SignedIn) -> str:
        return sessions.browser_name(row.browser)

    @admin.action(description="End these sessions", permissions=["verb"])
    def end_selected(self, request: HttpRequest, rows: QuerySet[SignedIn]) -> HttpResponse | None:
        question = "End these sessions? Whoever uses them has to sign in again."
        if page := confirmed(self, request, rows, question=question, button="End them"):
            return page
        ended = sum(sessions.end(row.user, pk=row.pk) for row in rows.select_related("user"))
        audit.record(audit.Kind.SESSION_ENDED, request.user, count=ended, text="Ended sessions in the administration")
        self.message_user(request, f"Ended {counted(ended, 'session')}.", messages.SUCCESS)
        return None


@admin.register(AccessAttempt)
class AccessAttemptAdmin(ReadOnlyAdmin):
    """Wrong passwords that still count; unlocking forgets them."""

    list_display = ("attempt_time", "username", "ip_address", "failures_since_start", "user_agent")
    list_filter = ("attempt_time",)
    search_fields = ("=username", "=ip_address")
    ordering = ("-attempt_time", "-id")
    sortable_by = ()
    fields = ("attempt_time", "username", "ip_address", "failures_since_start", "user_agent", "path_info")
    actions = ("unlock_selected",)

    @admin.action(description="Let these sign in again", permissions=["verb"])
    def unlock_selected(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        for name in set(rows.values_list("username", flat=True)):
            if not name:
                continue
            signin_limit.unlock(username=name)
            audit.record(audit.Kind.UNLOCKED, request.user, text=f"Let {name} sign in again")
            self.message_user(request, f"{name} can sign in again.", messages.SUCCESS)
