from __future__ import annotations

from django.db import models

from search.models.image import Image


class ImageMetadata(models.Model):
    """All EXIF of a file. A table of its own: kilobytes a row would make every scan over images slow."""

    image = models.OneToOneField(Image, on_delete=models.CASCADE, primary_key=True, related_name="metadata")
    exif = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "image metadata"

    def __str__(self) -> str:
        return f"Metadata of {self.image_id}"
