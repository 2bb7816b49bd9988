"""Tags: made and renamed here; put on images and taken off through `search.curation`."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from search import changes, curation
from search.admin.base import CatalogueAdmin, OfAnImage, ReadOnlyAdmin, confirmed
from search.admin.paging import at_most, bounded_counts
from search.models import Change, Image, ImageTag, RefusedKeyword, Tag, tag_key
from search.wording import counted


class TagForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Tag
        fields = ("name", "colour", "parent")

    def clean_name(self) -> str:
        name = " ".join(self.cleaned_data["name"].split())
        if not name or len(tag_key(name)) > 255:
            raise forms.ValidationError("A tag's name has 1 to 200 characters.")
        if Tag.objects.filter(key=tag_key(name)).exclude(pk=self.instance.pk).exists():
            raise forms.ValidationError(f"There is a tag of that name already: {name}")
        return name

    def clean_parent(self) -> Tag | None:
        above = parent = self.cleaned_data["parent"]
        while above is not None:
            if above.pk == self.instance.pk:
                raise forms.ValidationError(f"No tag stands above itself: {parent} stands under this one.")
            above = above.parent
        return parent


@admin.register(Tag)
class TagAdmin(CatalogueAdmin):
    form = TagForm
    list_display = ("name", "images_shown", "created_at")
    search_fields = ("name", "key")
    list_filter = ("created_at",)
    ordering = ("key",)
    fields = ("name", "colour", "parent")
    autocomplete_fields = ("parent",)
    actions = ("take_off", "delete_unused")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # it would take the tag off its images without a way back

    def dress(self, rows: list[Any]) -> None:
        number = bounded_counts(ImageTag, "tag_id", [tag.pk for tag in rows])
        for tag in rows:
            tag.number = number[tag.pk]

    @admin.display(description="Images")
    def images_shown(self, tag: Any) -> SafeString:
        address = f"{reverse('admin:search_image_changelist')}?{urlencode({'tag': tag.name})}"
        return format_html('<a href="{}">{}</a>', address, at_most(tag.number))

    @admin.action(description="Take these tags off all images")
    def take_off(self, request: HttpRequest, rows: QuerySet[Tag]) -> HttpResponse | None:
        question = "Take these tags off every image? It can be undone under Actions."
        if page := confirmed(self, request, rows, question=question, button="Take them off"):
            return page
        for tag in rows:
            done = curation.untag(Image.objects.filter(tag_links__tag=tag), [tag.name], request.user)
            said = done.summary if done else f"No image has the tag “{tag.name}”"
            self.message_user(request, f"{said}.", messages.SUCCESS if done else messages.INFO)
        return None

    @admin.action(description="Delete those that no image has")
    def delete_unused(self, request: HttpRequest, rows: QuerySet[Tag]) -> HttpResponse | None:
        question = "Delete those of these tags that no image has? The others stay."
        if page := confirmed(self, request, rows, question=question, button="Delete them"):
            return page
        used = Exists(ImageTag.objects.filter(tag=OuterRef("pk")))
        refused = Exists(RefusedKeyword.objects.filter(tag=OuterRef("pk")))
        with transaction.atomic():
            locked = list(rows.order_by("pk").select_for_update().values_list("pk", flat=True))
            unused = list(Tag.objects.filter(~used, ~refused, pk__in=locked).values_list("pk", flat=True))
            Tag.objects.filter(pk__in=unused).delete()
            changes.record(Change.Kind.TAGS)
        self.message_user(request, f"Deleted {counted(len(unused), 'tag')}.", messages.SUCCESS)
        return None


@admin.register(ImageTag)
class ImageTagAdmin(OfAnImage, ReadOnlyAdmin):
    list_display = ("picture", "image_id", "tag", "origin", "created_at")
    list_display_links = ("image_id",)
    list_select_related = ("tag",)
    list_filter = ("origin",)
    search_fields = ("=tag__key",)
    search_help_text = "A whole tag, in small letters."
    ordering = ("-id",)
    raw_id_fields = ("image", "tag")


@admin.register(RefusedKeyword)
class RefusedKeywordAdmin(OfAnImage, ReadOnlyAdmin):
    list_display = ("picture", "image_id", "tag")
    list_display_links = ("image_id",)
    list_select_related = ("tag",)
    search_fields = ("=tag__key",)
    search_help_text = "A whole tag, in small letters."
    ordering = ("-id",)
    raw_id_fields = ("image", "tag")
