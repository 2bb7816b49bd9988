from __future__ import annotations

from django.db import models

from search.models.fields import BytesField
from search.models.image import Image


class Movie(models.Model):
    """The moving part of a live photo: a film beside the picture, in the same folder. A crawl keeps it true.

    The film is no image of the catalogue; several files of one picture may have the same one.
    """

    image = models.OneToOneField(Image, on_delete=models.CASCADE, primary_key=True, related_name="movie")
    name = BytesField(editable=False)
    """The film's file name, in the folder of the image."""
    size = models.BigIntegerField(editable=False)
    mtime_ns = models.BigIntegerField(editable=False)

    def __str__(self) -> str:
        return self.name_text

    @property
    def name_text(self) -> str:
        """The file name as text, odd bytes shown as \\xNN."""
        return bytes(self.name).decode("utf-8", "backslashreplace")

    @property
    def version(self) -> str:
        """Differs when the file does."""
        return f"{self.size:x}-{self.mtime_ns & (1 << 64) - 1:x}"
