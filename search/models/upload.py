from __future__ import annotations

from django.conf import settings
from django.db import models


class Upload(models.Model):
    """A picture someone searches with: private to its owner, gone when it expires."""

    token = models.CharField(max_length=43, primary_key=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="uploads")
    name = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.name or self.token
