"""Building a space beside the one that serves: added, filled by the workers, paused, let go on.

How far it is stands in the ledger's counters. `remove` is in `ingestion.removal`, the switch in `search.switching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from ingestion import progress, tally
from ingestion.errors import IngestionError
from search import changes, indexing, spaces
from search.encoders import availability, get_encoder
from search.encoders.specification import parse
from search.errors import EncoderUnavailable, NoSuchSpace
from search.models import Change, EmbeddingSpace
from search.switching import LEAST_PERCENT


class NotBuilt(IngestionError):
    """The space cannot be added or filled; the message says why and what to do."""


def add(spec: str, *, from_thumbnails: bool = False) -> EmbeddingSpace:
    """The space of this encoder, made where it is not there, and wanted from now on: workers fill it.

    `spec` is what IMAGESEARCH_ENCODER accepts. The encoder is loaded, which tells its key and dimension. Raises
    NotBuilt for a spec that cannot be understood or a space that is being removed, EncoderUnavailable, which says
    what brings the weights.
    """
    try:
        spec = parse(spec).text
        there = availability(spec)
        if not there.ready:
            raise EncoderUnavailable(there.sentence)
        encoder = get_encoder(spec)
    except ImproperlyConfigured as error:
        raise NotBuilt(str(error)) from error
    if spec == spaces.LOOK:
        if from_thumbnails:
            raise NotBuilt("The space look is always made from small pictures, and is filled by itself.")
        return spaces.look_space()
    space = spaces.ensure_space(encoder, spec, from_thumbnails=from_thumbnails)
    want(space)
    return space


def find_or_add(name: str, *, from_thumbnails: bool | None = None) -> EmbeddingSpace:
    """The space called so, or that of an encoder setting, which is added.

    With `from_thumbnails` the same encoder's space of that kind: what is made from originals and what is made from
    thumbnails never share a space. Raises NotBuilt, EncoderUnavailable.
    """
    try:
        space = spaces.named(name)
    except NoSuchSpace as error:
        if "/" not in name and ":" not in name:
            raise NotBuilt(f"{error} A setting such as IMAGESEARCH_ENCODER accepts adds one.") from error
        return add(name, from_thumbnails=bool(from_thumbnails))
    if from_thumbnails is None or space.from_thumbnails == from_thumbnails:
        want(space)
        return space
    return add(space.encoder, from_thumbnails=from_thumbnails)


def want(space: EmbeddingSpace) -> None:
    """Let the workers fill this space from now on, whatever IMAGESEARCH_ENCODER says."""
    _require_standing(space)
    if space.encoder != spaces.LOOK:
        _set(space, wanted=True)


def pause(space: EmbeddingSpace) -> None:
    """Workers stop claiming its work within seconds; what they have in hand is finished, and new files are queued."""
    _require_standing(space)
    _set(space, paused=True)


def resume(space: EmbeddingSpace) -> None:
    """Workers go on with it."""
    _require_standing(space)
    _set(space, paused=False)


def _require_standing(space: EmbeddingSpace) -> None:
    if space.removing:
        raise NotBuilt(f"The space {space.name} is being removed; wait for that, then add it again.")


def _set(space: EmbeddingSpace, **fields: bool) -> None:
    with transaction.atomic():
        if not spaces.image_spaces().filter(pk=space.pk).update(**fields):
            raise NotBuilt(f"The space {space.name} is not there any more.")
        changes.record(Change.Kind.SPACES, [space.pk])
    for name, value in fields.items():
        setattr(space, name, value)


@dataclass(frozen=True)
class Building:
    """One space as the page and `spaces --json` show it, from counters: quick at any size."""

    space: EmbeddingSpace
    serves: bool
    configured: bool
    """Of the model that IMAGESEARCH_ENCODER names."""
    done: int
    waiting: int
    failed: int
    read: int
    """Images that were read: what could be in it."""
    per_second: float | None
    eta_seconds: float | None
    bytes: int
    """What its files take on the disk."""
    index: indexing.State
    """Its approximate index."""

    @property
    def percent(self) -> int:
        """Rounded down, so that 100 means all."""
        of = max(self.read, self.done)
        return 100 * self.done // of if of else 100

    @property
    def filled(self) -> bool:
        """Workers fill it, unless it is paused."""
        return self.space.wanted or self.configured or self.space.encoder == spaces.LOOK

    @property
    def going_on(self) -> bool:
        return bool(self.waiting) and self.filled and not (self.space.paused or self.space.removing)

    @property
    def ready(self) -> bool:
        """It covers enough to serve."""
        return self.done >= LEAST_PERCENT / 100 * self.read

    @property
    def removable(self) -> bool:
        return not (self.serves or self.configured or self.space.encoder == spaces.LOOK)


def buildings() -> list[Building]:
    """Every image space, oldest first. A constant number of queries."""
    numbers = tally.counts()
    pace = {row.stage: row for row in progress.report()}
    serving = spaces.active_space()
    read = numbers.get(tally.READ, (0, 0, 0))[1]
    rows = []
    for space in spaces.image_spaces():
        waiting, done, failed = numbers.get(space.stage, (0, 0, 0))
        row = pace.get(space.stage)
        rows.append(
            Building(
                space=space, serves=space.pk == serving.pk,
                configured=space.encoder == settings.IMAGESEARCH_ENCODER and not space.from_thumbnails,
                done=done, waiting=waiting, failed=failed, read=read,
                per_second=row.per_second if row else None, eta_seconds=row.eta_seconds if row else None,
                bytes=_bytes_of(space), index=indexing.state(space),
            )
        )  # fmt: skip
    return rows


def _bytes_of(space: EmbeddingSpace) -> int:
    folder = Path(settings.IMAGESEARCH_SPACES) / space.name
    try:
        return sum(file.stat().st_blocks * 512 for file in folder.rglob("*"))
    except OSError:
        return 0
