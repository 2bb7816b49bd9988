"""Images: looked at in full; title, rating, hiding and tags are changed through `search.curation`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from search import curation
from search.admin import finding
from search.admin.base import BelowFilter, CatalogueAdmin, OfAnImage, ReadOnlyAdmin, thumbnail
from search.admin.doing import Deed, carry_out, deeds
from search.admin.image_filters import BeforeFilter, FormatFilter, QueueFilter, RatingFilter, SpaceFilter, TagFilter
from search.errors import SearchError
from search.models import Difference, Image, ImageMetadata, Movie, Reviewed, tag_key

EDITABLE = ("title", "rating", "hidden", "tag_names")
SHOWN = (
    "picture", "source", "path_shown", "state", "reason", "format", "pixels", "size", "shown_at", "captured_at",
    "captured_offset", "camera", "lens", "exposure_time", "aperture", "iso", "focal_length", "latitude", "longitude",
    "altitude", "description", "title_origin", "rating_origin", "sha256_shown", "sharpness", "uniformity", "colours",
    "exif_shown", "created_at", "read_at",
)  # fmt: skip


class ImageForm(forms.ModelForm):  # type: ignore[type-arg]
    """The few fields of an image that people change."""

    title = forms.CharField(required=False, max_length=curation.MAX_TITLE)
    rating = forms.IntegerField(min_value=0, max_value=5, help_text="Stars from 1 to 5; 0 for none.")
    tag_names = forms.CharField(
        required=False, label="Tags", widget=forms.Textarea(attrs={"rows": 6, "cols": 40}), help_text="One a line."
    )

    class Meta:
        model = Image
        fields = ("title", "rating", "hidden")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            names = self.instance.tags.order_by("key").values_list("name", flat=True)
            self.initial["tag_names"] = "\n".join(names)

    def clean_tag_names(self) -> str:
        names = [" ".join(line.split()) for line in self.cleaned_data["tag_names"].splitlines()]
        for name in names:
            if len(name) > 200 or len(tag_key(name)) > 255:
                raise forms.ValidationError(f"A tag has at most 200 characters; this one has more: {name[:40]}…")
        return "\n".join(name for name in names if name)


@admin.register(Image)
class ImageAdmin(CatalogueAdmin):
    form = ImageForm
    list_display = ("picture", "id", "name", "folder", "source", "state", "format", "shown", "rating", "hidden")
    list_display_links = ("id", "name")
    list_select_related = ("source",)
    list_filter = (
        "state", "hidden", "flagged", QueueFilter, RatingFilter, TagFilter, SpaceFilter, FormatFilter, "source",
        BeforeFilter, BelowFilter,
    )  # fmt: skip
    search_fields = ("name", "folder", "title")
    search_help_text = "Part of a file name, folder or title; a whole path or tag; or a number."
    ordering = ("-shown_at", "-id")
    sortable_by = ("id", "shown")
    fields = (*EDITABLE, *SHOWN)
    readonly_fields = SHOWN
    further = "before"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # removing is a verb, can be undone, and is remembered

    def get_queryset(self, request: HttpRequest) -> QuerySet[Image]:
        rows: Any = super().get_queryset(request)
        match = request.resolver_match
        if match and (match.url_name or "").endswith("_changelist"):
            rows = rows.only("id", "name", "folder", "source__name", "state", "format", "shown_at", "rating", "hidden")
        return rows.visible_to(request.user)

    def place_of(self, row: Any) -> str:
        return row.shown_at.isoformat()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Image], search_term: str
    ) -> tuple[QuerySet[Image], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        found = finding.find(term, start=finding.start_of(request))
        finding.say_how_far(request, found)
        return queryset.filter(pk__in=found.ids), False

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        found = super().get_actions(request)
        if self.has_verb_permission(request):
            for deed in deeds():
                found[deed.name] = (_action(deed), deed.name, deed.label)
        return found

    # --- what is shown -----------------------------------------------------------------------------

    @admin.display(description="Picture")
    def picture(self, image: Image) -> SafeString | str:
        return thumbnail(image.pk)

    @admin.display(description="Shown at", ordering="shown_at")
    def shown(self, image: Image) -> str:
        return f"{timezone.localtime(image.shown_at):%Y-%m-%d %H:%M}"

    @admin.display(description="Path")
    def path_shown(self, image: Image) -> str:
        return image.absolute_path_text

    @admin.display(description="Pixels")
    def pixels(self, image: Image) -> str:
        return f"{image.width} × {image.height}" if image.width else ""

    @admin.display(description="SHA-256")
    def sha256_shown(self, image: Image) -> str:
        return image.sha256.hex() if image.sha256 else ""

    @admin.display(description="EXIF")
    def exif_shown(self, image: Image) -> SafeString:
        return format_html("<pre>{}</pre>", json.dumps(image.exif, indent=2, ensure_ascii=False, default=str))

    # --- what is changed ---------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: Image, form: Any, change: bool) -> None:
        """Change what was changed through the verbs, so that history, undo and the change log hold."""
        ids, user, data = [obj.pk], request.user, form.cleaned_data
        try:
            if "title" in form.changed_data:
                curation.set_title(ids, data["title"], user)
            if "rating" in form.changed_data:
                curation.rate(ids, data["rating"], user)
            if "hidden" in form.changed_data:
                (curation.hide if data["hidden"] else curation.unhide)(ids, user)
            if "tag_names" in form.changed_data:
                before = {tag_key(name): name for name in form.initial["tag_names"].splitlines()}
                after = {tag_key(name): name for name in data["tag_names"].splitlines()}
                if new := [name for key, name in after.items() if key not in before]:
                    curation.tag(ids, new, user)
                if gone := [name for key, name in before.items() if key not in after]:
                    curation.untag(ids, gone, user)
        except SearchError as error:
            self.message_user(request, str(error), messages.ERROR)


def _action(deed: Deed) -> Callable[..., HttpResponse | None]:
    def run(model_admin: Any, request: HttpRequest, rows: QuerySet[Image]) -> HttpResponse | None:
        return carry_out(model_admin, request, rows, deed)

    return run


@admin.register(ImageMetadata)
class ImageMetadataAdmin(OfAnImage, ReadOnlyAdmin):
    """All EXIF, kept apart from the image rows; it says what the file says and is not edited."""

    list_display = ("picture", "image_id")
    list_display_links = ("image_id",)
    search_fields = ("=image__id",)
    search_help_text = "The id of an image."
    ordering = ("-image",)
    sortable_by = ()
    raw_id_fields = ("image",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        match = request.resolver_match
        return rows.defer("exif") if match and (match.url_name or "").endswith("_changelist") else rows


@admin.register(Movie)
class MovieAdmin(OfAnImage, ReadOnlyAdmin):
    """The films of live photos, as the crawls found them."""

    list_display = ("picture", "image_id", "name_text", "size")
    list_display_links = ("image_id",)
    search_fields = ("=image__id",)
    search_help_text = "The id of an image."
    ordering = ("-image",)
    sortable_by = ()
    raw_id_fields = ("image",)
    fields = readonly_fields = ("image", "name_text", "size", "mtime_ns")


@admin.register(Difference)
class DifferenceAdmin(OfAnImage, ReadOnlyAdmin):
    """Look-alikes of which somebody said that they are different; undoing that is a matter of the history."""

    list_display = ("picture", "image_id", "mark", "by", "created_at")
    list_display_links = ("image_id",)
    search_fields = ("=image__id", "=mark")
    search_help_text = "The number of an image, or of a decision."
    ordering = ("-id",)
    sortable_by = ()
    raw_id_fields = ("image", "by")
    list_select_related = ("by",)


@admin.register(Reviewed)
class ReviewedAdmin(OfAnImage, ReadOnlyAdmin):
    """What a person kept in a review queue; undoing that is a matter of the history."""

    list_display = ("picture", "image_id", "queue", "created_at")
    list_display_links = ("image_id",)
    search_fields = ("=image__id",)
    search_help_text = "The number of an image."
    ordering = ("-id",)
    sortable_by = ()
    raw_id_fields = ("image",)
