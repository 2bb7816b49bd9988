"""What the admin pages share: the gate, thumbnails, rows that are only looked at, actions that ask first."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from search import panels
from search.admin.paging import FURTHER, BoundedChangeList, BoundedPaginator
from search.admin.typed import TypedFilter
from search.models import Image


def thumbnail(image_id: int | None) -> SafeString | str:
    """The picture, linked to its page."""
    if image_id is None:
        return ""
    return format_html(
        '<a href="{}"><img src="{}" alt="Image {}" height="64" loading="lazy"></a>',
        reverse("image", args=[image_id]),
        reverse("thumbnail", args=[image_id]),
        image_id,
    )


def seen_by(user: Any, rows: QuerySet[Any], path: str = "image") -> QuerySet[Any]:
    """Those of the rows whose image, at the end of the foreign key `path`, this person may see."""
    images = Image.objects.visible_to(user)
    if not images.query.where:  # they may see every image: nothing to ask of each row
        return rows
    return rows.filter(**{f"{path}__in": images.order_by().values("pk")})


class BelowFilter(TypedFilter):
    """Where a list goes on: rows with this number or a lower one."""

    title = "number, from here down"
    parameter_name = FURTHER
    placeholder = "A number"
    numeric = True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        return queryset.filter(pk__lte=int(value)) if value.isdecimal() and len(value) < 19 else queryset


class CatalogueAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Bounded counting and the same few queries whatever the number of rows.

    Lists in the order of their ids can be gone on with from any row (`?below=`).
    """

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they would count the table once for each choice
    list_per_page = 50
    list_max_show_all = 200
    empty_value_display = "–"
    further = FURTHER

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:
        return BoundedChangeList

    @property
    def goes_on(self) -> bool:
        """Whether the list is in the order of ids, newest first, so that it can go on from one."""
        return tuple(self.ordering or ()) in (("-id",), ("-number",), ("-image",), ("-created_at", "-id"))

    def get_list_filter(self, request: HttpRequest) -> Any:
        return [*super().get_list_filter(request), *([BelowFilter] if self.goes_on else [])]

    def place_of(self, row: Any) -> str:
        """What the address says to go on after this row."""
        return str(row.pk - 1) if self.goes_on else ""

    def dress(self, rows: list[Any]) -> None:
        """Give the rows of one page what the columns show of other tables, in a query or two for all of them."""

    def has_verb_permission(self, request: HttpRequest) -> bool:
        """Who may let the program do something to these rows, also where nobody edits them by hand."""
        options = self.model._meta
        return request.user.has_perm(f"{options.app_label}.change_{options.model_name}")

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        found = super().get_actions(request)
        if not self.has_verb_permission(request):
            return found
        for one in panels.admin_actions(self.model._meta.label_lower):
            found[one.name] = (one.run, one.name, one.description)
        return found


class ReadOnlyAdmin(CatalogueAdmin):
    """Rows that the program keeps true itself: a hand edit would break a promise."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class OfAnImage(admin.ModelAdmin):  # type: ignore[type-arg]
    """For models with a foreign key `image`: its thumbnail in the list, and only of images that one may see."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[models.Model]:
        return seen_by(request.user, super().get_queryset(request))

    @admin.display(description="Picture")
    def picture(self, row: Any) -> SafeString | str:
        return thumbnail(row.image_id)


def confirmed(
    model_admin: admin.ModelAdmin[Any], request: HttpRequest, rows: QuerySet[Any], *, question: str, button: str
) -> HttpResponse | None:
    """None once the person said yes; until then the page that asks. For the start of a destructive action."""
    if request.POST.get("confirmed"):
        return None
    count = rows.count()
    context = {
        **asking(model_admin, request),
        "title": "Are you sure?",
        "question": question,
        "button": button,
        "count": count,
        "rows": rows[:20],
        "others": max(0, count - 20),
    }
    return TemplateResponse(request, "admin/confirm_action.html", context)


def asking(model_admin: admin.ModelAdmin[Any], request: HttpRequest, besides: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a page that comes between an action and its doing needs: it sends again what was sent, but `besides`."""
    left = {"csrfmiddlewaretoken", "confirmed", *besides}
    return {
        **model_admin.admin_site.each_context(request),
        "posted": [(name, value) for name in request.POST if name not in left for value in request.POST.getlist(name)],
        "checkbox": ACTION_CHECKBOX_NAME,
        "opts": model_admin.model._meta,
        "media": model_admin.media,
        "back": request.get_full_path(),
    }
