from __future__ import annotations

from django.db import models
from django.db.models import Q

from search.models.image import Image


class EmbeddingSpace(models.Model):
    """One encoder (architecture, weights, preprocessing) and one dimension. Vectors of two spaces never meet."""

    class Kind(models.TextChoices):
        IMAGE = "image", "Images"
        FACE = "face", "Faces"

    name = models.SlugField(max_length=100, unique=True)
    """Also the folder's name under the spaces folder."""
    kind = models.CharField(max_length=5, choices=Kind.choices, default=Kind.IMAGE)
    encoder = models.CharField(max_length=500)
    """How to load the encoder: what IMAGESEARCH_ENCODER held when the space was made."""
    key = models.CharField(max_length=200)
    """The encoder's identity: architecture, fingerprint of the weights and of the preprocessing."""
    label = models.CharField(max_length=200)
    """The encoder's name for people, as shown on the results page."""
    dim = models.PositiveIntegerField()
    text = models.BooleanField()
    """Whether the encoder can encode words."""
    from_thumbnails = models.BooleanField(default=False)
    """Whether its vectors are made from the stored thumbnails, which are not quite those of the originals."""
    active = models.BooleanField(default=False)
    chosen = models.BooleanField(default=False)
    """A person made it serve: no other space takes over by itself."""
    wanted = models.BooleanField(default=False)
    """A person wants it filled, whatever IMAGESEARCH_ENCODER says."""
    paused = models.BooleanField(default=False)
    """Its work waits until somebody lets it go on."""
    removing = models.BooleanField(default=False)
    """It is being taken away, bit by bit."""
    served_until = models.DateTimeField(null=True)
    """When another space took over from it; None while it serves, or when it never did."""
    verify_asked_at = models.DateTimeField(null=True)
    """When somebody asked for its verification; None once that is done."""
    verified_at = models.DateTimeField(null=True)
    """When `verify` last read all of it."""
    verified_rows = models.BigIntegerField(default=0)
    verified_bad = models.BigIntegerField(default=0)
    """How many of the rows it read then were not what was written, or not of their picture."""
    verified_fault = models.TextField(blank=True)
    """What was wrong then with the file as a whole, in a sentence."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "key", "from_thumbnails"], name="one_space_per_kind_and_key_and_input"
            ),
            models.UniqueConstraint(fields=["kind"], condition=Q(active=True), name="one_active_space_per_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.label})"

    @property
    def stage(self) -> str:
        """The work-ledger stage that fills this space."""
        return f"embed:{self.name}"


class Embedding(models.Model):
    """A row that is on disk: inserted only after row `image_id` of the space's file was flushed."""

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="embeddings", db_index=False)
    space = models.ForeignKey(EmbeddingSpace, on_delete=models.CASCADE, related_name="embeddings", db_index=False)
    crc32 = models.BigIntegerField()
    """CRC-32 of the row's little-endian float32 bytes, 0 to 2**32 - 1."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["space", "image"], name="one_embedding_per_space_and_image"),
            models.CheckConstraint(condition=Q(crc32__gte=0, crc32__lt=2**32), name="crc32_is_32_bits"),
        ]
        indexes = [models.Index(fields=["image"], name="embeddings_of_an_image")]

    def __str__(self) -> str:
        return f"{self.space_id}: {self.image_id}"
