from __future__ import annotations

from django.conf import settings
from django.db import models

from search.models.image import Image


class Difference(models.Model):
    """A person said of some images that look alike that they are different ones: any two with the same `mark`."""

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="differences")
    mark = models.CharField(max_length=16)
    """Which decision it was: the same for all images of which it was made."""
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["mark", "image"], name="one_difference_per_mark_and_image")]

    def __str__(self) -> str:
        return f"{self.image_id}: {self.mark}"
