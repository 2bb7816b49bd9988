from __future__ import annotations

import hashlib
import os
from typing import Any

from django.db import models
from django.db.models import Q

from search.models.fields import BytesField
from search.models.source import Source
from search.querysets import ImageQuerySet


def path_digest(path: bytes) -> bytes:
    """16-byte BLAKE2b digest of a path relative to its source's root; what uniqueness is kept on."""
    return hashlib.blake2b(path, digest_size=16).digest()


class Image(models.Model):
    """One file: a source and a path relative to its root. Row i of every image space is image id i."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting to be read"
        READY = "ready", "Ready"
        UNREADABLE = "unreadable", "Unreadable"
        MISSING = "missing", "File is missing"
        REMOVED = "removed", "Removed"

    class Origin(models.TextChoices):
        NONE = "", "Nobody"
        FILE = "file", "The file"
        PERSON = "person", "A person"

    id = models.BigAutoField(primary_key=True)
    # No index of its own: several below begin with it, and SQLite would prefer the bare one and then sort every row.
    source = models.ForeignKey(Source, on_delete=models.PROTECT, related_name="images", db_index=False)
    path = BytesField(editable=False)
    path_digest = BytesField(max_length=16, editable=False)
    directory = BytesField(max_length=16, editable=False)
    """Digest of the folder part of `path` (b"" for the root): the walk compares folder by folder."""
    name = models.TextField(editable=False)
    """File name as text, odd bytes shown as \\xNN: for people and for search by name."""
    folder = models.TextField(blank=True, editable=False)
    """Folder relative to the root as text, "" for the root itself, no slash at either end."""

    size = models.BigIntegerField(editable=False)
    mtime_ns = models.BigIntegerField(editable=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    reason = models.TextField(blank=True)
    """Why the file is unreadable, in one sentence."""
    sha256 = BytesField(max_length=32, null=True, editable=False)

    format = models.CharField(max_length=16, blank=True)
    width = models.PositiveIntegerField(null=True)
    height = models.PositiveIntegerField(null=True)
    """Pixels after EXIF orientation."""

    shown_at = models.DateTimeField()
    """What "newest first" sorts by: the capture date, else the file's modification time."""
    captured_at = models.DateTimeField(null=True, blank=True)
    """Capture time; an instant where `captured_offset` is known, else the camera's wall clock kept as if UTC."""
    captured_offset = models.SmallIntegerField(null=True, blank=True, help_text="Minutes east of UTC.")
    camera = models.CharField(max_length=200, blank=True)
    lens = models.CharField(max_length=200, blank=True)
    exposure_time = models.FloatField(null=True, blank=True, help_text="Seconds.")
    aperture = models.FloatField(null=True, blank=True, help_text="f-number.")
    iso = models.PositiveIntegerField(null=True, blank=True)
    focal_length = models.FloatField(null=True, blank=True, help_text="Millimetres.")
    latitude = models.FloatField(null=True, blank=True)
    longitude = models.FloatField(null=True, blank=True)
    altitude = models.FloatField(null=True, blank=True, help_text="Metres.")
    description = models.TextField(blank=True)

    perceptual_hash = models.BigIntegerField(null=True, editable=False)
    """64-bit pHash as a signed integer."""
    sharpness = models.FloatField(null=True, editable=False)
    """Variance of the Laplacian of the grey thumbnail."""
    uniformity = models.FloatField(null=True, editable=False)
    """Share of pixels within a small distance of the mean colour: 1.0 is all one colour."""
    colours = models.JSONField(default=list, blank=True)
    """Main colours, largest share first: [["#rrggbb", share], ...]."""

    title = models.TextField(blank=True)
    title_origin = models.CharField(max_length=6, choices=Origin.choices, default=Origin.NONE, blank=True)
    rating = models.PositiveSmallIntegerField(default=0)
    rating_origin = models.CharField(max_length=6, choices=Origin.choices, default=Origin.NONE, blank=True)
    hidden = models.BooleanField(default=False)
    flagged = models.BooleanField(default=False)
    """A person wants to come back to it."""

    # The review queues in which the image waits. They follow from other columns, the tags, the settings and from what
    # a person kept (`Reviewed`): `search.review.settle` writes them, nothing else does.
    wide = models.BooleanField(default=False, editable=False)
    small = models.BooleanField(default=False, editable=False)
    blurred = models.BooleanField(default=False, editable=False)
    plain = models.BooleanField(default=False, editable=False)
    unrated = models.BooleanField(default=False, editable=False)
    untagged = models.BooleanField(default=False, editable=False)
    tags = models.ManyToManyField("search.Tag", through="search.ImageTag", related_name="images")

    stack_of = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="beneath", db_index=False
    )
    """The cover of the stack in which this image lies beneath it; None for covers and for images by themselves."""
    stack_origin = models.CharField(
        max_length=6, choices=Origin.choices, default=Origin.NONE, blank=True, editable=False
    )
    """Who put it there: a crawl by the files' names, or a person, whose word stands (also that it is in no stack)."""

    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True, editable=False)

    objects = ImageQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["source", "path_digest"], name="one_image_per_path"),
            models.CheckConstraint(condition=Q(rating__lte=5), name="rating_is_0_to_5"),
        ]
        indexes = [
            # All that a re-crawl asks for, so that it never touches the wide rows themselves.
            models.Index(
                fields=["source", "directory", "name", "size", "mtime_ns", "state"], name="image_by_directory"
            ),
            models.Index(fields=["-shown_at", "-id"], name="image_newest_first"),
            models.Index(fields=["source", "-shown_at", "-id"], name="image_newest_in_source"),
            models.Index(fields=["size"], name="image_by_size"),
            models.Index(fields=["sha256"], name="image_by_sha256"),
            models.Index(fields=["state", "-shown_at", "-id"], name="image_by_state"),
            models.Index(fields=["-shown_at", "-id"], condition=Q(hidden=True), name="image_hidden"),
            models.Index(fields=["stack_of"], condition=Q(stack_of__isnull=False), name="image_by_stack"),
            models.Index(fields=["rating", "-shown_at", "-id"], name="image_by_rating"),
            models.Index(fields=["format", "-shown_at", "-id"], name="image_by_format"),
            # The review queues: only what waits in one, with all that its counter asks for.
            *(
                models.Index(
                    fields=["-shown_at", "-id", "source", "hidden", "state"],
                    condition=Q(**{queue: True}),
                    name=f"image_review_{queue}",
                )
                for queue in ("wide", "small", "blurred", "plain", "unrated", "untagged", "flagged")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.name}"

    @property
    def exif(self) -> dict[str, Any]:
        """All EXIF of the file, {} when there is none (see `ImageMetadata`)."""
        return self.metadata.exif if hasattr(self, "metadata") else {}

    @property
    def absolute_path(self) -> str:
        """The file's path on this machine, as a str that `os` functions take (surrogateescape)."""
        return os.path.join(self.source.root_path, os.fsdecode(self.path))

    @property
    def path_text(self) -> str:
        """Path relative to the source's root, safe to print, log and store as text."""
        return self.path.decode("utf-8", "backslashreplace")

    @property
    def absolute_path_text(self) -> str:
        """The file's full path for people."""
        return os.path.join(self.source.root_text, self.path_text)
