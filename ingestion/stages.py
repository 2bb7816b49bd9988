"""The stages that a file goes through: `read`, one `embed:<space>` for each space being filled, and what other
apps register. A stage is a small object; the worker alone knows in which order things happen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import PIL.Image
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Q, QuerySet

from ingestion import ledger
from ingestion.errors import BadStage
from ingestion.pictures import Picture
from ingestion.reading import ReadStage
from search import embeddings, spaces, thumbnails
from search.arrays import Ids
from search.encoders import Availability, availability, get_encoder
from search.encoders.base import Encoder
from search.errors import EncoderUnavailable, NoSuchSpace, SpaceMismatch, Unreadable
from search.models import EmbeddingSpace

log = logging.getLogger(__name__)


class Stage(Protocol):
    """One step of the work. `prepare` and `compute` run in compute threads, `commit` in the one writer thread."""

    name: str
    side: int
    """Shortest side in pixels to decode at; 0 for a stage that needs no pixels."""
    batch: int
    """How many prepared inputs `compute` takes at once; 0 when `prepare` already gives the result."""

    def prepare(self, picture: Picture) -> Any:
        """One input or, without batches, the result. Raises Unreadable with the reason this file fails."""
        ...

    def compute(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Results of prepared inputs, in order."""
        ...

    def commit(self, owner: str, ids: Sequence[int], results: Sequence[Any]) -> None:
        """Record the results and finish the work in one transaction, where the owner's claims still stand."""
        ...


@dataclass
class EmbedStage:
    """Fills one space with one encoder's vectors."""

    space: EmbeddingSpace
    encoder: Encoder
    batch: int

    def __post_init__(self) -> None:
        self.name = self.space.stage
        self.small = self.space.encoder == spaces.LOOK
        self.from_thumbnails = self.space.from_thumbnails
        self.side = 0 if self.from_thumbnails else 2 * self.encoder.side
        self._resizes_alike = not (self.small or self.from_thumbnails) and _resizes_as_thumbnails_do(self.encoder)

    def prepare(self, picture: Picture) -> Any:
        if self.from_thumbnails:
            return self.encoder.prepare(picture.stored_thumbnail)
        # `look` is made for small pictures: the thumbnail, which is there already, saves it a resize. So does an
        # encoder whose own first step is the very resize that made the thumbnail.
        if self.small or (self._resizes_alike and _has_the_encoders_size(picture, self.encoder.side)):
            return self.encoder.prepare(picture.thumbnail)
        return self.encoder.prepare(picture.pixels)

    def compute(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Rows of unit length; `Unreadable` in the place of a picture of which the encoder makes nothing usable."""
        vectors = self.encoder.encode_images(inputs)
        lengths = np.linalg.norm(vectors, axis=1)
        return [
            row if abs(length - 1) < 1e-3 else Unreadable(f"{self.encoder.label} gives no usable vector for it.")
            for row, length in zip(vectors, lengths, strict=True)
        ]

    def commit(self, owner: str, ids: Sequence[int], results: Sequence[Any]) -> None:
        def within(kept: Ids) -> None:
            ledger.finish(owner, self.name, kept)

        embeddings.record(
            self.space,
            np.asarray(ids, dtype=np.int64),
            np.stack(results),
            still_mine=lambda some: ledger.still_mine(owner, self.name, some),
            within=within,
        )


def _resizes_as_thumbnails_do(encoder: Encoder) -> bool:
    """Whether preparing a thumbnail gives, bit for bit, what preparing the picture gives: tried on noise."""
    if encoder.side != thumbnails.SHORT_SIDE:
        return False
    noise = np.random.default_rng(0)
    for height, width in ((600, 800), (900, 600), (512, 512)):
        picture = PIL.Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        if not np.array_equal(encoder.prepare(picture), encoder.prepare(thumbnails.make(picture))):
            return False
    return True


def _has_the_encoders_size(picture: Picture, side: int) -> bool:
    """The thumbnail is as long as the encoder's resize would make it (encoders cut fractions off, it rounds)."""
    short, long = sorted(picture.pixels.size)
    return short >= side and sorted(picture.thumbnail.size) == [side, side * long // short]


@dataclass(frozen=True)
class OtherStage:
    """How another app adds a stage: its name, and what makes it ready (None: it cannot run just now)."""

    name: Callable[[], str | None]
    """The ledger's name of the stage, or None while it is not wanted."""
    ready: Callable[[], Stage | None]


_others: dict[str, OtherStage] = {}


def register_stage(key: str, stage: OtherStage) -> None:
    """Add a stage; its images get it beside the built-in ones. Registering a key again replaces it."""
    _others[key] = stage


def wanted() -> list[str]:
    """The names of the stages that a new or changed file needs: cheap, without loading an encoder."""
    names = [ledger.READ, *(space.stage for space in _spaces_being_filled())]
    return names + [name for other in _others.values() if (name := other.name())]


def needs_file(stage: Stage) -> bool:
    """Whether a stage asks for the original; one that works from the stored thumbnails does not."""
    return not (isinstance(stage, EmbedStage) and stage.from_thumbnails)


def situation(only: str | None = None) -> tuple[object, ...]:
    """Changes when `ready(only)` would load something else: a space was added, paused or removed, weights came.

    Cheap: one query and a look at the weights' files.
    """
    if only is not None and not only.startswith("embed"):
        return ()
    rows = spaces.image_spaces().filter(name=only.removeprefix(ledger.EMBED)) if only and ":" in only else filled()
    specs = [settings.IMAGESEARCH_ENCODER, *(row.encoder for row in rows)]
    return tuple((row.pk, row.paused) for row in rows), tuple(_availability(spec).ready for spec in specs)


def filled() -> QuerySet[EmbeddingSpace]:
    """The spaces that are kept filled: `look`, that of the configured model, and those that a person added."""
    by_setting = Q(encoder__in={spaces.LOOK, settings.IMAGESEARCH_ENCODER}, from_thumbnails=False)
    return spaces.image_spaces().filter(by_setting | Q(wanted=True), removing=False)


def _spaces_being_filled() -> list[EmbeddingSpace]:
    found = list(filled())
    if not any(space.encoder == spaces.LOOK for space in found):
        found.insert(0, spaces.look_space())
    return found


@dataclass
class Ready:
    """The stages that can run now, and one sentence for each that has to wait."""

    stages: list[Stage]
    waiting: list[str]
    situation: tuple[object, ...] = ()
    """What `situation()` answered when they were loaded."""


def ready(only: str | None = None, *, batch_size: int | None = None) -> Ready:
    """Load what can run now: `read`, the spaces that are kept filled where their weights are here, other apps' stages.

    `only` names one stage: "read", "embed" (the spaces being filled) or "embed:<space>" (any space). Embedding
    brings `read` along, so that a file that waits for both is read once. Raises BadStage for an unknown name.
    """
    answer = Ready([], [])
    size = batch_size or settings.IMAGESEARCH_BATCH_SIZE
    if only in (None, ledger.READ, "embed") or only.startswith(ledger.EMBED):
        answer.stages.append(ReadStage())
    if only in (None, "embed") or only.startswith(ledger.EMBED):
        some = _named(only, answer.waiting) if only and ":" in only else _being_filled(answer.waiting)
        for space, encoder in some:
            answer.stages.append(EmbedStage(space, encoder, 64 if space.encoder == spaces.LOOK else size))
    for other in _others.values():
        if (name := other.name()) and only in (None, name) and (stage := other.ready()):
            answer.stages.append(stage)
    if not answer.stages:
        raise BadStage(f"There is no stage {only!r}. Stages: {', '.join(['embed', *wanted()])}.")
    answer.situation = situation(only)  # after loading, which may have found that weights are no good
    return answer


def _named(only: str, waiting: list[str]) -> list[tuple[EmbeddingSpace, Encoder]]:
    try:
        space = spaces.named(only.removeprefix(ledger.EMBED))
    except NoSuchSpace as error:
        raise BadStage(str(error)) from error
    if space.paused or space.removing:
        waiting.append(_why_not(space))
        return []
    return [(space, spaces.encoder_of(space))]


def _being_filled(waiting: list[str]) -> list[tuple[EmbeddingSpace, Encoder]]:
    """The spaces to fill now with their encoders, `look` first; a sentence for each that has to wait."""
    some = [spaces.look_space()]
    spec = settings.IMAGESEARCH_ENCODER
    if spec != spaces.LOOK:
        try:
            some.append(spaces.ensure_space(_loaded(spec), spec))
        except EncoderUnavailable as error:
            waiting.append(str(error))
    some += [space for space in filled().filter(wanted=True) if space not in some]
    found = []
    for space in some:
        if space.paused or space.removing:
            waiting.append(_why_not(space))
            continue
        try:
            _loaded(space.encoder)
            found.append((space, spaces.encoder_of(space)))
        except (EncoderUnavailable, SpaceMismatch) as error:
            if str(error) not in waiting:
                waiting.append(str(error))
    return found


def _loaded(spec: str) -> Encoder:
    """The encoder, or EncoderUnavailable with what brings it, without trying what failed before."""
    there = _availability(spec)
    if not there.ready:
        raise EncoderUnavailable(there.sentence)
    return get_encoder(spec)


def _why_not(space: EmbeddingSpace) -> str:
    if space.removing:
        return f"The space {space.name} is being removed."
    return f"The space {space.name} is paused; `manage.py spaces resume {space.name}` lets it go on."


def _availability(spec: str) -> Availability:
    """`availability`, where a setting that cannot be understood (any more) is one that is not here."""
    try:
        return availability(spec)
    except ImproperlyConfigured as error:
        if spec == settings.IMAGESEARCH_ENCODER:
            raise
        return Availability(spec, False, spec, str(error))


def activate_when_searchable(stages: Sequence[Stage], stage: str) -> None:
    """After a commit: the configured model's space, where it understands words, serves from its first batch on; when
    it follows another it takes over when nothing of it waits any more. One that compares pictures only takes over from
    `look` then, and from no other: words would be answered by a space that is no longer filled. None takes over from a
    space that a person chose, and one that a person added waits until somebody chooses it."""
    for one in stages:
        if not isinstance(one, EmbedStage) or one.name != stage or one.small or one.space.active:
            continue
        if one.from_thumbnails or one.space.encoder != settings.IMAGESEARCH_ENCODER:
            continue
        serving = spaces.image_spaces().filter(active=True).first()
        if serving is not None and serving.pk == one.space.pk:
            one.space.active = True
        elif serving is not None and serving.chosen:
            continue
        elif not one.space.text:
            if serving is None and not ledger.waits([stage]):
                spaces.activate(one.space)
        elif serving is None or not serving.text or not ledger.waits([stage]):
            spaces.activate(one.space)
