"""The grid's tiles are drawn by Jinja2: sixty of them through Django's own templates were half the time of a search."""

from __future__ import annotations

from typing import Any

from django.utils.dateformat import format as date_format
from django.utils.timezone import localtime
from jinja2 import Environment


def environment(**options: Any) -> Environment:
    """What `templates/**/*.jinja` know beside their context (settings.TEMPLATES)."""
    from search.templatetags.pages import icon

    made = Environment(trim_blocks=True, lstrip_blocks=True, **options)
    made.filters["date"] = lambda value, form: date_format(localtime(value), form)
    made.globals["icon"] = icon
    return made
