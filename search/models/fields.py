"""Model fields shared by the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models


class BytesField(models.BinaryField):  # type: ignore[type-arg]
    """A BinaryField that always reads back as `bytes` (PostgreSQL's driver answers memoryview).

    Used for file paths, which are bytes on disk and need not be UTF-8, and for digests.
    """

    if TYPE_CHECKING:
        _pyi_private_get_type: bytes  # what django-stubs reads

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> bytes | None:
        return None if value is None else bytes(value)
