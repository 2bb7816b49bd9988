"""Sources and who may see them: roles are given and taken through `search.access`."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from search import access
from search.admin.base import CatalogueAdmin, ReadOnlyAdmin
from search.errors import NotAllowed
from search.models import Source, SourceAccess

OWNER = SourceAccess.Role.OWNER


class AccessForm(forms.ModelForm):  # type: ignore[type-arg]
    """One role: whose it is stands once it is given, what it is can be changed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            for name in ("user", "group"):
                if name in self.fields:
                    self.fields[name].disabled = True

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or self.cleaned_data
        if bool(data.get("user")) == bool(data.get("group")):
            raise forms.ValidationError("Choose either a user or a group.")
        return data


class AccessForms(BaseInlineFormSet):  # type: ignore[type-arg]
    def clean(self) -> None:
        """A source that has an owner keeps one; nobody is named twice."""
        super().clean()
        if any(form.errors for form in self.forms):
            return
        kept = [form.cleaned_data for form in self.forms if form.cleaned_data and not form.cleaned_data.get("DELETE")]
        whom = [(data.get("user"), data.get("group")) for data in kept]
        if len(set(whom)) < len(whom):
            raise forms.ValidationError("Somebody is named twice: one role each.")
        had = SourceAccess.objects.filter(source=self.instance, role=OWNER).exists()
        if had and not any(data.get("role") == OWNER for data in kept):
            raise forms.ValidationError(f"“{self.instance}” needs an owner: make somebody else one first.")


class AccessInline(admin.TabularInline):  # type: ignore[type-arg]
    model = SourceAccess
    form = AccessForm
    formset = AccessForms
    extra = 0
    autocomplete_fields = ("user", "group")
    verbose_name = "person or group"
    verbose_name_plural = "who may see it"


@admin.register(Source)
class SourceAdmin(CatalogueAdmin):
    """Sources are made by `crawl` or the program's start, which know whether folders nest."""

    list_display = ("name", "root_text", "recrawl_minutes", "follow_symlinks", "crawled_at", "crawls")
    search_fields = ("name",)
    list_filter = ("follow_symlinks", "crawled_at")
    fields = (
        "name", "root_text", "excludes", "follow_symlinks", "recrawl_minutes", "created_at", "crawled_at", "crawls",
    )  # fmt: skip
    readonly_fields = ("root_text", "created_at", "crawled_at", "crawls")
    inlines = (AccessInline,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="Folder")
    def root_text(self, source: Source) -> str:
        return source.root_text

    @admin.display(description="More")
    def crawls(self, source: Source) -> SafeString | str:
        pages = [("admin:search_image_changelist", "source__id__exact", "images")]
        pages.append(("admin:ingestion_crawl_changelist", "source__id__exact", "crawls"))
        links = []
        for name, field, label in pages:
            try:
                links.append(format_html('<a href="{}?{}={}">{}</a>', reverse(name), field, source.pk, label))
            except NoReverseMatch:  # that app is not installed
                continue
        return format_html_join(" · ", "{}", ((link,) for link in links))

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Give and take the roles through the verbs: who gets one first, so that an owner can be replaced."""
        formset.save(commit=False)
        try:
            with transaction.atomic():
                for row in [*formset.new_objects, *(row for row, _ in formset.changed_objects)]:
                    access.grant(row.source, row.role, by=request.user, user=row.user, group=row.group)
                for row in formset.deleted_objects:
                    access.revoke(row, by=request.user)
        except NotAllowed as error:
            self.message_user(request, f"The roles stay as they were. {error}", messages.ERROR)


@admin.register(SourceAccess)
class SourceAccessAdmin(ReadOnlyAdmin):
    """Every role of everybody; each is changed on the page of its source."""

    list_display = ("source", "user", "group", "role", "change_it")
    list_select_related = ("source", "user", "group")
    list_filter = ("role", "source")
    search_fields = ("source__name", "user__username", "group__name")
    ordering = ("source__name", "id")

    @admin.display(description="Change")
    def change_it(self, row: SourceAccess) -> SafeString:
        return format_html(
            '<a href="{}">at {}</a>', reverse("admin:search_source_change", args=[row.source_id]), row.source
        )
