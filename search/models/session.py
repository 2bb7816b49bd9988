from __future__ import annotations

from django.conf import settings
from django.db import models


class SignedIn(models.Model):
    """Where somebody is signed in: what the account page lists of a session, and what ends it."""

    session_key = models.CharField(max_length=40, unique=True, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="signed_in")
    browser = models.CharField(max_length=300, blank=True)
    """What the browser says of itself (User-Agent)."""
    address = models.GenericIPAddressField(null=True, blank=True)
    created_at = models.DateTimeField()
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["-seen_at", "-id"]
        verbose_name = "session"

    def __str__(self) -> str:
        return f"{self.user}, {self.address or 'no address'}"
