from __future__ import annotations

import unicodedata

from django.conf import settings
from django.db import models

from search.models.image import Image


def tag_key(name: str) -> str:
    """The form under which tag names are equal: NFC, case folded, single spaces."""
    return unicodedata.normalize("NFC", " ".join(name.split())).casefold()


class Tag(models.Model):
    class Colour(models.TextChoices):
        """A few that can be told apart on light and dark pages; the pages' stylesheet says what they look like."""

        RED = "red", "Red"
        ORANGE = "orange", "Orange"
        YELLOW = "yellow", "Yellow"
        GREEN = "green", "Green"
        TEAL = "teal", "Teal"
        BLUE = "blue", "Blue"
        PURPLE = "purple", "Purple"
        PINK = "pink", "Pink"

    name = models.CharField(max_length=200)
    key = models.CharField(max_length=255, unique=True, editable=False)
    colour = models.CharField(max_length=7, blank=True, choices=Colour.choices)
    parent = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="children")
    made_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", editable=False
    )
    """Who made it: they find it on their tags' page also while no image has it."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["key"]

    def __str__(self) -> str:
        return self.name

    def save(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.name = unicodedata.normalize("NFC", " ".join(self.name.split()))
        self.key = tag_key(self.name)
        super().save(*args, **kwargs)


class ImageTag(models.Model):
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="tag_links")
    tag = models.ForeignKey(Tag, on_delete=models.CASCADE, related_name="image_links")
    origin = models.CharField(max_length=6, choices=Image.Origin.choices, default=Image.Origin.PERSON)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["image", "tag"], name="one_link_per_image_and_tag")]
        indexes = [models.Index(fields=["tag", "image"], name="images_of_a_tag")]

    def __str__(self) -> str:
        return f"{self.image_id}: {self.tag_id}"


class RefusedKeyword(models.Model):
    """A person took this keyword of the file off the image: reading the file again does not bring it back."""

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="refused_keywords")
    tag = models.ForeignKey(Tag, on_delete=models.CASCADE, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["image", "tag"], name="one_refusal_per_image_and_tag")]

    def __str__(self) -> str:
        return f"{self.image_id}: not {self.tag_id}"
