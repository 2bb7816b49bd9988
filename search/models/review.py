from __future__ import annotations

from django.db import models

from search.models.image import Image


class Reviewed(models.Model):
    """A person looked at the image in this review queue and kept it: it does not come back there."""

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="reviews")
    queue = models.CharField(max_length=20)
    """See `search.review.SORTED`."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "reviewed"
        constraints = [models.UniqueConstraint(fields=["image", "queue"], name="one_review_per_image_and_queue")]

    def __str__(self) -> str:
        return f"{self.image_id}: {self.queue}"
