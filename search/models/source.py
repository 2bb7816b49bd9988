from __future__ import annotations

import os

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import Q

from search.models.fields import BytesField


class Source(models.Model):
    """A folder whose pictures are searched. Sources do not nest.

    `root` holds the folder's path as bytes; mounting the folder elsewhere changes this one row.
    """

    name = models.CharField(max_length=200, unique=True)
    root = BytesField(max_length=4096, unique=True, editable=False)
    excludes = models.TextField(
        blank=True, help_text="More globs to leave out, one a line, relative to the folder (gitignore syntax)."
    )
    follow_symlinks = models.BooleanField(default=False)
    recrawl_minutes = models.PositiveIntegerField(
        default=60, help_text="Look for new and changed files every so many minutes; 0: only when asked."
    )
    root_device = models.BigIntegerField(null=True, editable=False)
    root_inode = models.DecimalField(max_digits=20, decimal_places=0, null=True, editable=False)
    mounts = models.JSONField(default=list, editable=False)
    """Folders beneath the root that were disks of their own at the last whole crawl: relative paths, percent-coded."""
    doubted_after = models.BigIntegerField(null=True, editable=False)
    """The last image id before a crawl that was not believed; what was registered since does not count as known
    there until a whole crawl is believed: the files of a wrong disk must not outvote the right ones the second time."""
    created_at = models.DateTimeField(auto_now_add=True)
    crawled_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def root_path(self) -> str:
        """The folder's path as a str that `os` functions take (surrogateescape for odd bytes)."""
        return os.fsdecode(self.root)

    @property
    def root_text(self) -> str:
        """The folder's path for people: safe to print, log and store as text."""
        return self.root.decode("utf-8", "backslashreplace")


class SourceAccess(models.Model):
    """What a user or a group may do with a source's images. Staff see every source."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        EDITOR = "editor", "Editor"
        VIEWER = "viewer", "Viewer"

    source = models.ForeignKey(Source, on_delete=models.CASCADE, related_name="access")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True)
    group = models.ForeignKey(Group, on_delete=models.CASCADE, null=True, blank=True)
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)

    class Meta:
        verbose_name_plural = "source access"
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=False, group__isnull=True) | Q(user__isnull=True, group__isnull=False),
                name="access_is_for_a_user_or_a_group",
            ),
            models.UniqueConstraint(
                fields=["source", "user"], condition=Q(user__isnull=False), name="one_access_per_source_and_user"
            ),
            models.UniqueConstraint(
                fields=["source", "group"], condition=Q(group__isnull=False), name="one_access_per_source_and_group"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group}: {self.role} of {self.source}"
