"""The overview on the front page of the administration."""

from __future__ import annotations

from typing import Any

from django import template

from ingestion import dashboard as standing
from search.models import EmbeddingSpace

register = template.Library()


@register.inclusion_tag("ingestion/_dashboard.html", takes_context=True)
def overview(context: Any) -> dict[str, Any]:
    """How everything stands, for staff who may see what it speaks of."""
    user = context["request"].user
    if not user.has_perm("search.view_image"):
        return {"board": None}
    return {"board": standing.dashboard(user), "csrf_token": context.get("csrf_token"), "request": context["request"]}


@register.filter
def verification(space: EmbeddingSpace) -> str:
    """What the last verification of a space found, in a few words."""
    return standing.said_of_verification(space)
