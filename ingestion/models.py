"""The work ledger, its counters, and what the crawl saw that is no candidate."""

from __future__ import annotations

from django.db import models

from search.models import Image, Source
from search.models.fields import BytesField


class Work(models.Model):
    """One stage of one image that is still to be done or has failed. Done work has no row."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        FAILED = "failed", "Failed"

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="work", db_index=False)
    stage = models.CharField(max_length=120)
    state = models.CharField(max_length=7, choices=State.choices, default=State.WAITING)
    newest = models.BigIntegerField()
    """Newest first: the file's mtime in ns when the work was queued."""
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_owner = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True)
    reason = models.TextField(blank=True)
    size = models.BigIntegerField(null=True)
    mtime_ns = models.BigIntegerField(null=True)
    """The file's size and mtime when the work failed: it is tried again when they differ."""
    failed_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "work"
        constraints = [models.UniqueConstraint(fields=["image", "stage"], name="one_work_per_image_and_stage")]
        indexes = [
            models.Index(fields=["state", "stage", "-newest", "-image"], name="work_newest_first"),
            models.Index(fields=["lease_owner"], name="work_by_lease_owner"),
        ]

    def __str__(self) -> str:
        return f"{self.stage} of {self.image_id}: {self.state}"


class StageCount(models.Model):
    """Waiting, done and failed of one stage; moves in the transactions that move the work."""

    stage = models.CharField(max_length=120, primary_key=True)
    waiting = models.BigIntegerField(default=0)
    done = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.stage}: {self.waiting} waiting, {self.done} done, {self.failed} failed"


class StageTick(models.Model):
    """How many images a stage finished in a span of ten seconds: the rate and the ETA come from these."""

    stage = models.CharField(max_length=120)
    started_at = models.DateTimeField()
    done = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["stage", "started_at"], name="one_tick_per_stage_and_span")]

    def __str__(self) -> str:
        return f"{self.stage} {self.started_at}: {self.done}"


class SeenFile(models.Model):
    """A file that the crawl saw and that is no candidate; not opened again while size and mtime stand."""

    class Why(models.TextChoices):
        UNSUPPORTED = "unsupported", "Not a supported image format"
        TOO_SMALL = "too_small", "Too small"

    source = models.ForeignKey(Source, on_delete=models.CASCADE, related_name="seen_files")
    path = BytesField()
    path_digest = BytesField(max_length=16)
    directory = BytesField(max_length=16)
    size = models.BigIntegerField()
    mtime_ns = models.BigIntegerField()
    why = models.CharField(max_length=11, choices=Why.choices)
    kind = models.CharField(max_length=60)
    """What the file is, for people: "PDF document", "MP4 video", "JPEG 20x20"."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["source", "path_digest"], name="one_seen_file_per_path")]
        indexes = [
            models.Index(fields=["source", "directory"], name="seen_file_by_directory"),
            models.Index(fields=["why", "kind"], name="seen_file_by_kind"),
        ]

    def __str__(self) -> str:
        return self.path_text

    @property
    def path_text(self) -> str:
        return self.path.decode("utf-8", "backslashreplace")


class Crawl(models.Model):
    """One walk over a source: what it found, and how far it is."""

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        FINISHED = "finished", "Finished"
        GUARDED = "guarded", "Finished; nothing marked missing"
        FAILED = "failed", "Failed"

    source = models.ForeignKey(Source, on_delete=models.CASCADE, related_name="crawls")
    state = models.CharField(max_length=8, choices=State.choices, default=State.RUNNING)
    counts = models.JSONField(default=dict)
    message = models.TextField(blank=True)
    parts = models.TextField(blank=True)
    """Which folders were looked at, for people; "" when it was the whole source."""
    owner = models.CharField(max_length=120, blank=True)
    """host:pid of the process that walks."""
    beat_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.source} {self.started_at:%Y-%m-%d %H:%M}: {self.state}"


class Watch(models.Model):
    """How a source is kept up to date, as its watcher last said it."""

    source = models.OneToOneField(Source, on_delete=models.CASCADE, primary_key=True, related_name="watch")
    watched = models.BooleanField(default=False)
    """Changes are announced by the file system; else the source is looked through now and then."""
    why = models.TextField(blank=True)
    """Why it is not watched, the end of a sentence that begins with "because"."""
    folders = models.PositiveIntegerField(default=0)
    """How many folders are watched."""
    owner = models.CharField(max_length=120, blank=True)
    """host:pid of the watcher."""
    beat_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "watches"

    def __str__(self) -> str:
        return f"{self.source}: {'watched' if self.watched else 'not watched'}"
