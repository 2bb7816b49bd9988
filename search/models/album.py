from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q

from search.models.image import Image


class AlbumQuerySet(models.QuerySet["Album"]):
    def visible_to(self, user: Any) -> AlbumQuerySet:
        """The albums this person owns or that are shared with them (None: the command line, all).

        An album shows each person only those of its images that this person may see anyway.
        """
        if user is None:
            return self
        if not user.is_active or user.pk is None:
            return self.none()
        return self.filter(Q(owner=user.pk) | Q(pk__in=AlbumShare.objects.filter(user=user.pk).values("album")))

    def editable_by(self, user: Any) -> AlbumQuerySet:
        """The albums whose images and order this person may change: owners, and those it is shared with to edit."""
        if user is None:
            return self
        if not user.is_active or user.pk is None:
            return self.none()
        shares = AlbumShare.objects.filter(user=user.pk, role=AlbumShare.Role.EDITOR)
        return self.filter(Q(owner=user.pk) | Q(pk__in=shares.values("album")))


class Album(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="albums")
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    cover = models.ForeignKey(Image, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    shared_with = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="search.AlbumShare", blank=True, related_name="shared_albums"
    )
    images = models.ManyToManyField(Image, through="search.AlbumEntry", related_name="albums")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AlbumQuerySet.as_manager()

    class Meta:
        ordering = ["name", "id"]
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="one_album_per_owner_and_name")]

    def __str__(self) -> str:
        return self.name


class AlbumShare(models.Model):
    """Somebody besides the owner who finds an album among their own."""

    class Role(models.TextChoices):
        VIEWER = "viewer", "may look"
        EDITOR = "editor", "may look and change"

    album = models.ForeignKey(Album, on_delete=models.CASCADE, related_name="shares")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="album_shares")
    role = models.CharField(max_length=6, choices=Role.choices, default=Role.VIEWER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["album", "user"], name="one_share_per_album_and_user")]

    def __str__(self) -> str:
        return f"{self.album_id}: {self.user_id} {self.role}"


class AlbumEntry(models.Model):
    album = models.ForeignKey(Album, on_delete=models.CASCADE, related_name="entries", db_index=False)
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="album_entries")
    position = models.BigIntegerField()
    """Ascending in the album's order; gaps are fine, and of two that are equal the lower image id comes first."""
    score = models.FloatField(null=True, blank=True)
    """The score with which the image was found when it was put here."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["position", "image"]
        verbose_name_plural = "album entries"
        constraints = [models.UniqueConstraint(fields=["album", "image"], name="one_entry_per_album_and_image")]
        indexes = [models.Index(fields=["album", "position", "image"], name="album_in_order")]

    def __str__(self) -> str:
        return f"{self.album_id}: {self.image_id}"
