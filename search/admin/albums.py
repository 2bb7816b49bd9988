"""What belongs to people: albums, comments, favourites, saved searches, selections, uploads.

Their owners change them on the site, where history and undo hold; here they are looked at, and what must go is deleted
through the verbs, so that it can come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from search import albums, personal
from search.admin.base import OfAnImage, ReadOnlyAdmin, confirmed
from search.admin.paging import at_most, bounded_counts
from search.errors import SearchError
from search.models import (
    Action,
    Album,
    AlbumEntry,
    AlbumShare,
    Comment,
    Errand,
    Favourite,
    SavedSearch,
    Selection,
    Upload,
)

MOST_DELETED = 1_000


def delete_each(
    model_admin: Any, request: HttpRequest, rows: QuerySet[Any], verb: Callable[[Any, Any], Action | None], what: str
) -> HttpResponse | None:
    """Ask, then delete row by row through its verb; each is one Action of the history."""
    question = f"Delete these {what}? Each can be brought back under Actions."
    if page := confirmed(model_admin, request, rows, question=question, button="Delete them"):
        return page
    some = list(rows[: MOST_DELETED + 1])
    if len(some) > MOST_DELETED:
        model_admin.message_user(request, f"Choose at most {MOST_DELETED:,} at a time.", messages.ERROR)
        return None
    for row in some:
        try:
            done = verb(row, request.user)
        except SearchError as error:
            model_admin.message_user(request, f"{row}: {error.said_to(request.user)}", messages.ERROR)
            continue
        if done is not None:
            model_admin.message_user(request, f"{done.summary}.", messages.SUCCESS, extra_tags=f"action-{done.pk}")
    return None


@admin.register(Album)
class AlbumAdmin(ReadOnlyAdmin):
    list_display = ("name", "owner", "number_shown", "created_at", "on_the_site")
    list_select_related = ("owner",)
    list_filter = ("created_at",)
    search_fields = ("name", "description", "owner__username")
    sortable_by = ("name", "created_at")
    raw_id_fields = ("cover",)
    fields = ("name", "owner", "description", "cover", "created_at", "on_the_site")
    actions = ("delete_selected_albums",)

    def dress(self, rows: list[Any]) -> None:
        number = bounded_counts(AlbumEntry, "album_id", [album.pk for album in rows])
        for album in rows:
            album.number = number[album.pk]

    @admin.display(description="Images")
    def number_shown(self, album: Any) -> str:
        return at_most(album.number)

    @admin.display(description="On the site")
    def on_the_site(self, album: Album) -> SafeString:
        return format_html('<a href="{}">open</a>', reverse("album", args=[album.pk]))

    @admin.action(description="Delete these albums (their images stay)", permissions=["verb"])
    def delete_selected_albums(self, request: HttpRequest, rows: QuerySet[Album]) -> HttpResponse | None:
        return delete_each(self, request, rows, albums.delete, "albums")


@admin.register(AlbumShare)
class AlbumShareAdmin(ReadOnlyAdmin):
    list_display = ("album", "user", "role", "created_at")
    list_select_related = ("album", "user")
    list_filter = ("role", "created_at")
    search_fields = ("album__name", "user__username")
    ordering = ("-id",)
    sortable_by = ()


@admin.register(AlbumEntry)
class AlbumEntryAdmin(OfAnImage, ReadOnlyAdmin):
    list_display = ("picture", "image_id", "album", "position", "score", "created_at")
    list_display_links = ("image_id",)
    list_select_related = ("album",)
    search_fields = ("=album__name",)
    search_help_text = "The whole name of an album."
    ordering = ("-id",)
    sortable_by = ()
    raw_id_fields = ("image",)


@admin.register(Comment)
class CommentAdmin(OfAnImage, ReadOnlyAdmin):
    list_display = ("picture", "image_id", "author", "text", "created_at", "edited_at")
    list_display_links = ("image_id",)
    list_select_related = ("author",)
    list_filter = ("created_at",)
    search_fields = ("text", "author__username")
    ordering = ("-id",)
    sortable_by = ()
    raw_id_fields = ("image",)
    actions = ("delete_selected_comments",)

    @admin.action(description="Delete these comments", permissions=["verb"])
    def delete_selected_comments(self, request: HttpRequest, rows: QuerySet[Comment]) -> HttpResponse | None:
        return delete_each(self, request, rows, personal.delete_comment, "comments")


@admin.register(Favourite)
class FavouriteAdmin(OfAnImage, ReadOnlyAdmin):
    list_display = ("picture", "image_id", "user", "created_at")
    list_display_links = ("image_id",)
    list_select_related = ("user",)
    search_fields = ("user__username",)
    ordering = ("-id",)
    sortable_by = ()
    raw_id_fields = ("image",)


@admin.register(SavedSearch)
class SavedSearchAdmin(ReadOnlyAdmin):
    list_display = ("name", "user", "page", "query", "created_at")
    list_select_related = ("user",)
    list_filter = ("page", "created_at")
    search_fields = ("name", "user__username")


@admin.register(Selection)
class SelectionAdmin(ReadOnlyAdmin):
    """How much somebody has selected; it is theirs to act on."""

    list_display = ("user", "count", "updated_at")
    list_select_related = ("user",)
    search_fields = ("user__username",)
    ordering = ("-updated_at",)
    fields = ("user", "count", "updated_at")


@admin.register(Errand)
class ErrandAdmin(ReadOnlyAdmin):
    list_display = ("started_at", "user", "verb", "done", "total", "state", "message")
    list_select_related = ("user",)
    list_filter = ("state", "started_at")
    search_fields = ("user__username",)
    ordering = ("-id",)
    fields = ("started_at", "beat_at", "user", "verb", "done", "total", "state", "message", "action")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Errand]:
        return super().get_queryset(request).defer("ids", "arguments")


@admin.register(Upload)
class UploadAdmin(ReadOnlyAdmin):
    """Private to their owners: the list says that they are there, not what they show."""

    list_display = ("created_at", "owner", "expires_at")
    list_select_related = ("owner",)
    list_filter = ("created_at", "expires_at")
    search_fields = ("owner__username",)
    ordering = ("-created_at",)
    fields = ("owner", "created_at", "expires_at")
