"""Letting another space serve, and going back: what a person decides, and what has to be true first."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from search.errors import SwitchRefused
from search.models import Embedding, EmbeddingSpace, Image
from search.spaces import activate, active_space, encoder_of, image_spaces
from search.wording import counted

LEAST_PERCENT = 95.0
"""Below this share of the readable images a space serves only when told `anyway`."""


def coverage(space: EmbeddingSpace) -> tuple[int, int]:
    """(readable images that have a vector in the space, readable images), counted."""
    ready = Image.State.READY
    covered = Embedding.objects.filter(space=space, image__state=ready).count()
    return covered, Image.objects.filter(state=ready).count()


def switch_to(space: EmbeddingSpace, *, anyway: bool = False) -> list[str]:
    """A person lets this space serve from now on; returns sentences about what is worth knowing.

    The encoder is loaded first, so that a space whose model is not here, or is another one, never serves. Raises
    EncoderUnavailable, SpaceMismatch, and SwitchRefused for a space that is being removed or that covers too little
    (unless `anyway`).
    """
    if space.removing:
        raise SwitchRefused(f"The space {space.name} is being removed. Add it again to use it.")
    try:
        encoder_of(space)
    except ImproperlyConfigured as error:
        raise SwitchRefused(str(error)) from error
    covered, of = coverage(space)
    if not anyway and 100 * covered < LEAST_PERCENT * of:
        raise SwitchRefused(
            f"The space {space.name} holds {covered:,} of {counted(of, 'readable picture')} "
            f"({100 * covered / of:.1f} %, and {LEAST_PERCENT:.0f} % are asked): searches would miss the others. "
            f"Fill it first (`manage.py spaces build {space.name}`), or switch anyway (`--anyway`).",
            for_guests="This space does not hold enough of the pictures yet.",
        )
    activate(space, chosen=True)
    notes = []
    if covered < of:
        notes.append(f"{counted(of - covered, 'readable picture')} of {of:,} cannot be found in it yet.")
    if not space.text:
        notes.append(f"{space.label} compares pictures and knows no words: another space answers those.")
    return notes


def before() -> EmbeddingSpace | None:
    """The space that served before the one that serves now; None when none did, or it is gone."""
    rows = image_spaces().filter(served_until__isnull=False, removing=False).exclude(pk=active_space().pk)
    return rows.order_by("-served_until").first()


def roll_back() -> tuple[EmbeddingSpace, list[str]]:
    """Let the space serve again that served before, however much it covers; returns it, and what is worth knowing.

    Raises SwitchRefused when there is none, and what `switch_to` raises.
    """
    space = before()
    if space is None:
        raise SwitchRefused(
            f"No other space has served before {active_space().name}. `manage.py spaces` lists those there are; "
            "`manage.py spaces activate NAME` lets one serve."
        )
    return space, switch_to(space, anyway=True)
