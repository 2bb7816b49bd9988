from __future__ import annotations

from django.conf import settings
from django.db import models


class Event(models.Model):
    """One line of the audit: what somebody looked at, took along, or tried, beside what Actions say they changed.

    `name` is who it was at that time, and outlives the account. The foreign key has no constraint in the database:
    a line about somebody whose account goes away in the same moment must not fail the page that writes it.
    """

    class Kind(models.TextChoices):
        OPENED = "opened", "Opened"
        DOWNLOADED = "downloaded", "Downloaded"
        EXPORTED = "exported", "Exported"
        SIGNED_IN = "signed-in", "Signed in"
        SIGNED_OUT = "signed-out", "Signed out"
        SIGN_IN_FAILED = "sign-in-failed", "Failed sign-in"
        LOCKED_OUT = "locked-out", "Locked out"
        UNLOCKED = "unlocked", "Unlocked"
        SESSION_ENDED = "session-ended", "Session ended"
        ACCESS_CHANGED = "access-changed", "Access changed"
        ACCOUNT_CHANGED = "account-changed", "Account changed"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    name = models.CharField(max_length=150, blank=True)
    """Who it was; of a failed sign-in the name that was typed; empty for the command line."""
    image_id = models.BigIntegerField(null=True, blank=True)
    """The image it was about, which may be gone since; ids are never used again."""
    count = models.PositiveIntegerField(null=True, blank=True)
    text = models.CharField(max_length=300, blank=True)
    address = models.GenericIPAddressField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["created_at", "id"], name="event_by_time"),
            models.Index(fields=["user", "created_at"], name="event_by_user"),
            models.Index(fields=["kind", "created_at"], name="event_by_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.text or self.name}"
