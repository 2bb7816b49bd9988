"""What belongs to one person: comments, favourites, saved searches, what is selected and what is being done to it."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from search.models.fields import BytesField
from search.models.image import Image


class Comment(models.Model):
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="comments")
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    edited_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["created_at", "id"]
        indexes = [models.Index(fields=["author", "created_at", "image"], name="comment_by_author_and_time")]

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"


class Favourite(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="favourites")
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="favourites")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "image"], name="one_favourite_per_user_and_image")]

    def __str__(self) -> str:
        return f"{self.user}: {self.image_id}"


class SavedSearch(models.Model):
    """A query somebody comes back to: its address, under a name."""

    class Page(models.TextChoices):
        SEARCH = "search", "Search"
        BROWSE = "browse", "Browse"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_searches")
    name = models.CharField(max_length=200)
    query = models.TextField(blank=True)
    """The query as the address of its page carries it: `Query.params()`, encoded."""
    page = models.CharField(max_length=6, choices=Page.choices, default=Page.SEARCH)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "id"]
        verbose_name_plural = "saved searches"
        constraints = [models.UniqueConstraint(fields=["user", "name"], name="one_saved_search_per_user_and_name")]

    def __str__(self) -> str:
        return self.name


class Selection(models.Model):
    """The images a person has chosen to do something with: fixed ids, whatever is indexed later."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="selection"
    )
    ids = BytesField(editable=False)
    """See `search.compact.pack_ordered`: in the order in which they were chosen or ranked."""
    scores = BytesField(null=True, editable=False)
    """Scores of the search they were chosen from, float32 in the order of `ids`; NaN where there is none."""
    count = models.PositiveIntegerField(default=0)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.user_id}: {self.count}"


class Errand(models.Model):
    """A verb on so many images that it is done in portions: how far it is, and the one Action it makes.

    A portion, its place here and its part of the Action are one transaction, so that an errand that was cut off
    goes on exactly where it was.
    """

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        STOPPED = "stopped", "Stopped"
        FAILED = "failed", "Failed"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="errands")
    verb = models.CharField(max_length=40)
    arguments = models.JSONField(default=dict)
    ids = BytesField(editable=False)
    """See `search.compact.pack_ordered`."""
    total = models.PositiveIntegerField()
    done = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=7, choices=State.choices, default=State.RUNNING)
    message = models.CharField(max_length=500, blank=True)
    action = models.ForeignKey(
        "search.Action", on_delete=models.SET_NULL, null=True, blank=True, related_name="errands"
    )
    started_at = models.DateTimeField(auto_now_add=True)
    beat_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.verb} {self.done}/{self.total} {self.state}"
