from __future__ import annotations

from django.conf import settings
from django.db import models

from search.models.fields import BytesField


class Action(models.Model):
    """One thing a person did, with what undoes it: the history, the undo and the audit trail in one.

    `ids` are the images that changed (see `search.compact`). `inverse` is a list of
    steps `{"verb": ..., "value": ..., "ids": <base64 of packed ids>}` that restore what was.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="actions"
    )
    verb = models.CharField(max_length=40)
    summary = models.CharField(max_length=300)
    details = models.JSONField(default=dict, blank=True)
    ids = BytesField(editable=False)
    count = models.PositiveIntegerField()
    inverse = models.JSONField(default=list, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    undone_at = models.DateTimeField(null=True, blank=True)
    undone_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["created_at", "id"], name="action_by_time"),
            models.Index(fields=["user", "created_at"], name="action_by_user"),
        ]

    def __str__(self) -> str:
        return self.summary
