"""What is done to many images at once: a page asks what is needed and shows what will happen, then a verb does it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from django import forms
from django.contrib import messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html

from search import albums, curation, errands, panels
from search.admin.base import asking
from search.arrays import Ids
from search.errors import SearchError
from search.forms import TagForm
from search.models import Action, Album, Errand, Image
from search.selection import Selected
from search.steps import chunks
from search.wording import agreeing, counted

SHOWN = 24
"""So many of the images are shown before anything is done to them."""
ASKED = "deed"
"""Prefix of the fields of the page that asks."""


class TagsForm(TagForm):
    prefix = ASKED

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["tag"]
        field.label, field.help_text = "Tags", "Commas separate several."
        field.widget.attrs |= {"autocomplete": "off", "data-suggest": reverse("tag_suggestions"), "size": 50}
        field.error_messages["required"] = "Type at least one tag; commas separate several."

    def arguments(self, user: Any) -> dict[str, Any]:
        return {"names": self.cleaned_data["tag"]}


class StarsForm(forms.Form):
    prefix = ASKED
    rating = forms.TypedChoiceField(
        label="Rating",
        coerce=int,
        widget=forms.RadioSelect,
        choices=[("0", "no rating"), *((str(n), counted(n, "star")) for n in range(1, 6))],
        error_messages={"required": "Choose a rating.", "invalid_choice": "A rating is a whole number from 0 to 5."},
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def arguments(self, user: Any) -> dict[str, Any]:
        return {"rating": self.cleaned_data["rating"]}


class TitleForm(forms.Form):
    prefix = ASKED
    title = forms.CharField(
        required=False, max_length=curation.MAX_TITLE, help_text="Nothing takes the title off.",
        widget=forms.TextInput(attrs={"size": 60}),
    )  # fmt: skip

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def arguments(self, user: Any) -> dict[str, Any]:
        return {"title": self.cleaned_data["title"]}


class AlbumForm(forms.Form):
    """One of the albums this person may change, or the name of a new one."""

    prefix = ASKED
    album = forms.ModelChoiceField(Album.objects.none(), required=False, empty_label="a new one")
    name = forms.CharField(required=False, max_length=200, label="Name of the new album")

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["album"].queryset = Album.objects.editable_by(user).order_by("name", "pk")  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors and bool(data.get("album")) == bool(data.get("name", "").strip()):
            raise forms.ValidationError("Choose an album, or type the name of a new one.")
        return data

    def arguments(self, user: Any) -> dict[str, Any]:
        album = self.cleaned_data["album"] or albums.create(self.cleaned_data["name"], user)[0]
        return {"album": album.pk}


@dataclass(frozen=True)
class Deed:
    """One thing that can be done to images: an action of the list."""

    name: str
    label: str
    promise: str
    """What happens, to be read before it does."""
    form: type[Any] | None = None
    already: Callable[[], tuple[Q, str, str]] | None = None
    """What to count among the images, and what to say of one and of several such."""
    destroys: bool = False


DEEDS = [
    Deed("tag", "Tag…", "The pictures get these tags. Tags that do not exist are made.", TagsForm),
    Deed("untag", "Take tags off…", "These tags are taken off the pictures that have them.", TagsForm),
    Deed(
        "rate", "Rate…", "All of the pictures get this rating.", StarsForm,
        lambda: (Q(rating__gt=0), "is rated already and is rated anew", "are rated already and are rated anew"),
    ),
    Deed(
        "title", "Set the title…", "All of the pictures get this title.", TitleForm,
        lambda: (~Q(title=""), "has a title already, which is replaced", "have a title already, which is replaced"),
    ),
    Deed("album", "Add to an album…", "The pictures are added to the end of the album.", AlbumForm),
    Deed("flag", "Flag", "The pictures are flagged: somebody wants to come back to them."),
    Deed("unflag", "Take the flag off", "The flag is taken off the pictures that have one."),
    Deed(
        "hide", "Hide", "The pictures are hidden from every list and search.", None,
        lambda: (Q(hidden=True), "is hidden already", "are hidden already"),
    ),
    Deed(
        "unhide", "Show again", "Hidden pictures are shown again.", None,
        lambda: (Q(hidden=False), "is not hidden and stays as it is", "are not hidden and stay as they are"),
    ),
    Deed(
        "remove", "Remove from the catalogue", "The pictures leave the catalogue and never match again. The files stay "
        "where they are, and reading the folder again does not bring them back.", None,
        lambda: (Q(state="removed"), "is removed already", "are removed already"), destroys=True,
    ),
    Deed(
        "restore", "Bring removed pictures back", "Removed pictures are in the catalogue again.", None,
        lambda: (~Q(state="removed"), "is not removed and stays as it is", "are not removed and stay as they are"),
    ),
]  # fmt: skip


def deeds() -> list[Deed]:
    """Everything that the list of images offers: the verbs, and what other apps registered for selections."""
    promise = "This is queued for the workers. What people said of the pictures stays."
    asked = [Deed(f"{errands.CHORE}{chore.name}", chore.label, promise) for chore in panels.chores()]
    return [*DEEDS, *asked]


def carry_out(model_admin: Any, request: HttpRequest, rows: QuerySet[Image], deed: Deed) -> HttpResponse | None:
    """Ask, and once the person said yes do it to exactly the images that the page spoke of.

    The page carries a digest of the ids: where the list finds other images by then, it is shown again and says so.
    """
    ids = _ids(rows)
    digest = hashlib.blake2b(ids.tobytes(), digest_size=16).hexdigest()
    saying_yes = "confirmed" in request.POST
    form = deed.form(request.POST if saying_yes else None, user=request.user) if deed.form else None
    if not len(ids):
        model_admin.message_user(request, "The list finds none of these pictures any more.", messages.WARNING)
        return None
    if saying_yes and request.POST.get("of") != digest:
        said = f"The list changed meanwhile: it finds {counted(len(ids), 'image')} now. Look again before you go on."
        model_admin.message_user(request, said, messages.WARNING)
    elif saying_yes and (form is None or form.is_valid()):
        try:
            _tell(model_admin, request, _do(deed, ids, form, request.user))
        except SearchError as error:
            model_admin.message_user(request, error.said_to(request.user), messages.ERROR)
        return None
    shown = Image.objects.visible_to(request.user).in_order_of(ids[:SHOWN].tolist())
    context = {
        **asking(model_admin, request, ("of", *(f"{ASKED}-{name}" for name in (form.fields if form else ())))),
        "title": deed.label.rstrip("…"),
        "deed": deed,
        "form": form,
        "count": len(ids),
        "number": counted(len(ids), "picture"),
        "images": shown,
        "others": max(0, len(ids) - len(shown)),
        "notes": _notes(deed, ids),
        "of": digest,
    }
    return TemplateResponse(request, "admin/deed.html", context)


def _ids(rows: QuerySet[Image]) -> Ids:
    """The ids in the list's order, int64: eight bytes an image however many there are."""
    return np.fromiter(rows.values_list("pk", flat=True).iterator(chunk_size=10_000), dtype=np.int64)


def _notes(deed: Deed, ids: Ids) -> list[str]:
    """What is to be known beforehand, counted among the first of the images only when there are very many."""
    notes = []
    if deed.already is not None:
        condition, one, many = deed.already()
        looked = ids[: errands.AT_ONCE]
        parts = [
            Image.objects.filter(pk__in=part).filter(condition).aggregate(n=Count("pk"))["n"] for part in chunks(looked)
        ]
        if number := sum(parts):
            among = "" if len(looked) == len(ids) else f"Among the first {len(looked):,}: "
            notes.append(f"{among}{number:,} {agreeing(number, one, many)}.")
    if len(ids) > errands.AT_ONCE:
        notes.append("So many pictures take a moment: it is done in portions and goes on by itself.")
    if not deed.name.startswith(errands.CHORE):
        notes.append("It can be undone.")
    return notes


def _do(deed: Deed, ids: Ids, form: Any, user: Any) -> Action | Errand | str | None:
    if deed.name.startswith(errands.CHORE):
        return errands.do_chore(deed.name, ids, user)
    selected = Selected(ids, np.full(len(ids), np.nan, dtype=np.float32))
    return errands.do(deed.name, selected, form.arguments(user) if form else {}, user)


def _tell(model_admin: Any, request: HttpRequest, made: Action | Errand | str | None) -> None:
    if isinstance(made, Action):
        model_admin.message_user(request, f"{made.summary}.", messages.SUCCESS, extra_tags=f"action-{made.pk}")
    elif isinstance(made, Errand):
        said = format_html(
            '{}: this takes a moment, and goes on by itself. <a href="{}">See how far it is</a>',
            counted(made.total, "picture"), reverse("admin:search_errand_change", args=[made.pk]),
        )  # fmt: skip
        model_admin.message_user(request, said, messages.INFO)
    elif made is None:
        model_admin.message_user(request, "That is so already: nothing had to be changed.", messages.INFO)
    else:
        model_admin.message_user(request, made, messages.SUCCESS)
