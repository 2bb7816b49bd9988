"""What pages accept: each form checks its fields and answers in plain sentences."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import get_user_model, password_validation
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, SetPasswordForm

PASSWORD_RULES = "At least 10 characters, not only digits, not a common password, and not like your name."
"""AUTH_PASSWORD_VALIDATORS in one sentence."""


class ChoosePasswordForm(SetPasswordForm):
    """A new password, twice."""

    error_messages = {"password_mismatch": "The two passwords differ."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["new_password1"].label, self.fields["new_password2"].label = "New password", "New password again"
        self.fields["new_password1"].help_text = PASSWORD_RULES
        self.fields["new_password2"].help_text = ""


class ChangePasswordForm(ChoosePasswordForm, PasswordChangeForm):
    """The old password, and a new one twice."""

    error_messages = {**ChoosePasswordForm.error_messages, "password_incorrect": "That is not your password."}
    field_order = ["old_password", "new_password1", "new_password2"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["old_password"].label = "Your password"


class SignInForm(AuthenticationForm):
    error_messages = {
        "invalid_login": "That name and password do not belong together. Both are case-sensitive.",
        "inactive": "This account has been switched off. Ask the owner of this installation.",
    }


class WelcomeForm(forms.Form):
    """Name and password of the owner."""

    username = forms.CharField(
        label="Name",
        max_length=150,
        strip=True,
        widget=forms.TextInput(attrs={"autocomplete": "username", "autofocus": True, "autocapitalize": "none"}),
        help_text="Letters, digits and @ . + - _",
    )
    password = forms.CharField(
        label="Password",
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=PASSWORD_RULES,
    )
    again = forms.CharField(
        label="Password again", strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"})
    )

    def clean_username(self) -> str:
        name = self.cleaned_data["username"]
        get_user_model()._meta.get_field("username").run_validators(name)  # type: ignore[union-attr]
        return name

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        password, again = data.get("password"), data.get("again")
        if password and again and password != again:
            self.add_error("again", "The two passwords differ.")
        elif password:
            user = get_user_model()(username=data.get("username", ""))
            try:
                password_validation.validate_password(password, user)
            except forms.ValidationError as error:
                self.add_error("password", error)
        return data


class TagForm(forms.Form):
    """One or more tags, separated by commas."""

    tag = forms.CharField(label="Tag", max_length=1000)

    def clean_tag(self) -> list[str]:
        names = [" ".join(name.split()) for name in self.cleaned_data["tag"].split(",")]
        names = [name for name in names if name]
        if not names:
            raise forms.ValidationError("Type at least one tag; commas separate several.")
        for name in names:
            if len(name) > 200:
                raise forms.ValidationError(f"A tag has at most 200 characters; “{name[:30]}…” has {len(name)}.")
        return names


class RatingForm(forms.Form):
    rating = forms.IntegerField(
        min_value=0, max_value=5, error_messages={"invalid": "A rating is a whole number from 0 to 5."}
    )


class TitleForm(forms.Form):
    title = forms.CharField(required=False, max_length=1000, strip=True)


class ExportForm(forms.Form):
    """As what something is exported, how much of it, and how sidecars are named."""

    FORMATS = (
        ("zip", "Originals", "The files themselves in a ZIP archive, in their folders."),
        ("csv", "Table", "A CSV file for a spreadsheet: names, dates, ratings, tags, cameras, places."),
        ("json", "JSON", "The same for other programs."),
        (
            "xmp",
            "Sidecars",
            "XMP files with rating, title and tags, for digiKam and Lightroom, in a ZIP archive.",
        ),
    )
    NAMINGS = (("digikam", "IMG.jpg.xmp (digiKam, darktable)"), ("lightroom", "IMG.xmp (Lightroom)"))

    def __init__(self, data: Any = None) -> None:
        super().__init__(data)
        names = ", ".join(name for name, _, _ in self.FORMATS)
        self.fields["as"] = forms.ChoiceField(
            choices=[(name, label) for name, label, _ in self.FORMATS],
            error_messages=dict.fromkeys(("required", "invalid_choice"), f"Choose what to export as: {names}."),
        )
        self.fields["naming"] = forms.ChoiceField(
            choices=self.NAMINGS,
            required=False,
            error_messages={"invalid_choice": "Sidecars are named as digikam or as lightroom does it."},
        )
        number = "How many to export is a whole number from 1, or nothing for all of them."
        self.fields["best"] = forms.IntegerField(
            required=False, min_value=1, max_value=10**12,
            error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), number),
        )  # fmt: skip

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        data["naming"] = data.get("naming") or "digikam"
        return data


class IdentifyForm(forms.Form):
    """A picture to identify (or the one that is there already), where, and in which space."""

    picture = forms.FileField(required=False, error_messages={"empty": "That file is empty. Choose another picture."})
    among = forms.CharField(max_length=40, error_messages={"required": "Choose the source, album or tag to look in."})
    space = forms.CharField(required=False, max_length=100)
    upload = forms.CharField(required=False, max_length=100)
    like = forms.CharField(required=False, max_length=20)


class UploadForm(forms.Form):
    """A picture to search with, and the words that stay with it."""

    picture = forms.FileField(
        error_messages={
            "required": "Choose, drop or paste a picture first.",
            "empty": "That file is empty. Choose another picture.",
        }
    )
    query = forms.CharField(required=False, max_length=8000)
    """The query string of the page it was dropped on: the picture joins that query."""
