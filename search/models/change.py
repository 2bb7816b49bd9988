from __future__ import annotations

from django.db import models

from search.models.fields import BytesField


class Change(models.Model):
    """One entry of the change log: these rows changed; look at them again. FACTS without ids: of any image.

    Numbers come from `search.changes.record`, under a lock inside the writing transaction, so they
    become visible in order and a reader that has seen number n has missed nothing before it.
    """

    class Kind(models.TextChoices):
        IMAGES = "images", "State, visibility or source of images"
        EMBEDDINGS = "embeddings", "Embeddings of a space"
        ACCESS = "access", "Who may see which source, and what sources are called"
        SPACES = "spaces", "Spaces or which one is active"
        FACTS = "facts", "What filters ask of images: stars, tags, titles, albums, favourites, comments, reviews"
        TAGS = "tags", "Tags themselves: their names and which stands under which"
        ALBUMS = "albums", "Albums themselves: their names and whom they are shared with"

    number = models.BigIntegerField(primary_key=True)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    space = models.BigIntegerField(null=True)
    """Id of the space, for EMBEDDINGS. No foreign key: the log outlives what it speaks of."""
    ids = BytesField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["number"]
        indexes = [models.Index(fields=["created_at"], name="change_by_age")]

    def __str__(self) -> str:
        return f"{self.number} {self.kind}"


class Counter(models.Model):
    """Named numbers that are moved inside transactions: the change log's last number, id high-water marks."""

    name = models.CharField(max_length=60, primary_key=True)
    value = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name} = {self.value}"
