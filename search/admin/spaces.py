"""Embedding spaces and their rows: how full they are, what verifying found, and which one serves."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from search import panels, switching
from search.admin.base import OfAnImage, ReadOnlyAdmin, confirmed
from search.errors import SearchError
from search.models import Embedding, EmbeddingSpace
from search.spaces import active_space
from search.wording import counted


class SpaceFilter(admin.SimpleListFilter):
    """Spaces by name, without the join that their foreign key would make."""

    title = "space"
    parameter_name = "space"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(pk), label) for pk, label in EmbeddingSpace.objects.order_by("pk").values_list("pk", "label")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        return queryset.filter(space=int(value)) if value.isdecimal() and len(value) < 19 else queryset


@admin.register(EmbeddingSpace)
class EmbeddingSpaceAdmin(ReadOnlyAdmin):
    list_display = ("name", "label", "coverage", "state", "verified", "dim", "text", "from_thumbnails", "created_at")
    list_filter = ("kind", "active", "text")
    search_fields = ("name", "label", "encoder")
    sortable_by = ()
    fields = (
        "name", "label", "kind", "encoder", "key", "dim", "text", "from_thumbnails", "coverage", "state", "verified",
        "chosen", "wanted", "created_at", "served_until", "on_the_site",
    )  # fmt: skip
    actions = ("make_active",)

    def dress(self, rows: list[EmbeddingSpace]) -> None:
        progress = {one.stage: one for one in panels.progress_rows()}
        serving = active_space()
        for row in rows:
            row.serves = row.pk == serving.pk  # type: ignore[attr-defined]
            row.progress = progress.get(row.stage)  # type: ignore[attr-defined]

    @admin.display(description="Coverage")
    def coverage(self, space: Any) -> SafeString | str:
        if not hasattr(space, "progress"):
            self.dress([space])
        if space.progress is None:
            return ""
        found = space.progress
        whole = found.waiting + found.done + found.failed
        percent = 100 * found.done // whole if whole else 100
        said = f"{found.done:,} of {whole:,}" + (f", {found.failed:,} failed" if found.failed else "")
        bar = '<progress class="bar" max="100" value="{}" aria-label="Coverage of {}"></progress> {} %<br>{}'
        return format_html(bar, percent, space.name, percent, said)

    @admin.display(description="State")
    def state(self, space: Any) -> str:
        if not hasattr(space, "serves"):
            self.dress([space])
        said = [
            ("serves searches", space.serves), ("paused", space.paused), ("being removed", space.removing),
        ]  # fmt: skip
        return ", ".join(word for word, holds in said if holds)

    @admin.display(description="Verified")
    def verified(self, space: EmbeddingSpace) -> SafeString | str:
        asked = ""
        if space.verify_asked_at is not None:
            asked = f"asked for at {timezone.localtime(space.verify_asked_at):%Y-%m-%d %H:%M}, not done yet"
        if space.verified_at is None:
            return asked or "never"
        wrong = space.verified_fault or f"{counted(space.verified_bad, 'row')} wrong"
        bad = bool(space.verified_bad or space.verified_fault)
        said = f"{timezone.localtime(space.verified_at):%Y-%m-%d %H:%M}: " + (
            wrong if bad else f"all {counted(space.verified_rows, 'row')} right"
        )
        mend = " Run manage.py repair to mend it." if bad else ""
        return format_html("{}{}{}", said, mend, f"; {asked}" if asked else "")

    @admin.display(description="Build, compare, remove")
    def on_the_site(self, space: EmbeddingSpace) -> SafeString | str:
        try:
            return format_html('<a href="{}">The spaces page</a>', reverse("spaces"))
        except NoReverseMatch:  # without the app that fills spaces there is no such page
            return ""

    @admin.action(description="Let this space serve searches", permissions=["verb"])
    def make_active(self, request: HttpRequest, rows: QuerySet[EmbeddingSpace]) -> HttpResponse | None:
        if rows.count() != 1:
            self.message_user(request, "Choose exactly one space.", messages.ERROR)
            return None
        question = "Let this space serve searches from now on? It must hold nearly all readable images."
        if page := confirmed(self, request, rows, question=question, button="Let it serve"):
            return page
        space = rows.get()
        try:
            notes = switching.switch_to(space)
        except SearchError as error:
            self.message_user(request, error.said_to(request.user), messages.ERROR)
            return None
        self.message_user(request, " ".join([f"{space.label} serves searches now.", *notes]), messages.SUCCESS)
        return None


@admin.register(Embedding)
class EmbeddingAdmin(OfAnImage, ReadOnlyAdmin):
    """A row says that the vector is on disk: only the program may say so."""

    list_display = ("picture", "image_id", "space", "crc32", "created_at")
    list_display_links = ("image_id",)
    list_select_related = ()  # joined, SQLite may begin with the few spaces and sort all rows
    list_filter = (SpaceFilter,)
    search_fields = ("=image__id",)
    search_help_text = "The number of an image."
    ordering = ("-id",)
    sortable_by = ()
    raw_id_fields = ("image",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("space")
