"""Whether pictures can be searched by meaning yet, said for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings

from search.encoders import availability
from search.encoders.specification import parse
from search.models import EmbeddingSpace
from search.spaces import LOOK, active_space


@dataclass(frozen=True)
class Meaning:
    """The model that serves searches, what waits, and how far it is."""

    label: str
    """Name of the model that serves."""
    waits: bool
    """A model is set, and something else serves until it is there."""
    words: bool
    """Whether the model that is set knows words."""
    model_here: bool
    sentence: str
    """What brings the model, "" when it is here."""
    covered: int
    of: int

    @property
    def partial(self) -> bool:
        return not self.waits and self.covered < self.of


def meaning(space: EmbeddingSpace, covered: int, of: int, user: Any) -> Meaning:
    """What the results page says to `user` of the space that served: `covered` of `of` visible pictures are in it."""
    setting = settings.IMAGESEARCH_ENCODER
    # `look` answers words also where a model that knows none serves: then nothing is waited for.
    waits = space.encoder == LOOK and not space.chosen and setting != LOOK and active_space().encoder == LOOK
    state = availability(setting) if waits else None
    return Meaning(
        label=space.label,
        waits=waits,
        words=parse(setting).words if waits else space.text,
        model_here=state is None or state.ready,
        sentence="" if state is None else state.said_to(user),
        covered=covered,
        of=of,
    )
