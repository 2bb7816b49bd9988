"""Embedding spaces: made for an encoder, opened only with that encoder, one of them active."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from django.utils.text import slugify

from search import changes
from search.encoders import get_encoder
from search.encoders.base import Encoder
from search.errors import NoSuchSpace, SpaceMismatch
from search.models import Change, EmbeddingSpace, Image

LOOK = "look"


def look_space() -> EmbeddingSpace:
    """The space of the built-in encoder, which always exists."""
    encoder = get_encoder(LOOK)
    return ensure_space(encoder, LOOK)


def image_spaces() -> QuerySet[EmbeddingSpace]:
    """The spaces of images, oldest first."""
    return EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE).order_by("pk")


def named(name: str) -> EmbeddingSpace:
    """The image space of this name. Raises NoSuchSpace, naming those there are."""
    found = look_space() if name == LOOK else image_spaces().filter(name=name).first()
    if found is None:
        names = ", ".join(image_spaces().values_list("name", flat=True)) or "none yet"
        raise NoSuchSpace(f"There is no space {name!r}. Spaces: {names}.")
    return found


def ensure_space(encoder: Encoder, spec: str, *, from_thumbnails: bool = False) -> EmbeddingSpace:
    """The space of this encoder, made when it is not there; found by the encoder's key, wherever its weights lie.

    `spec` is how to load the encoder again (what IMAGESEARCH_ENCODER holds). What an encoder makes of the
    originals and what it makes of the thumbnails are two spaces.
    """
    label = f"{encoder.label}, from thumbnails" if from_thumbnails else encoder.label
    found = image_spaces().filter(key=encoder.key, from_thumbnails=from_thumbnails).first()
    if found is None:
        with transaction.atomic():
            found, made = EmbeddingSpace.objects.get_or_create(
                kind=EmbeddingSpace.Kind.IMAGE,
                key=encoder.key,
                from_thumbnails=from_thumbnails,
                defaults={
                    "name": _free_name(label),
                    "encoder": spec,
                    "label": label,
                    "dim": encoder.dim,
                    "text": encoder.text,
                },
            )
            if made:
                changes.record(Change.Kind.SPACES, [found.pk])
    elif found.encoder != spec:
        EmbeddingSpace.objects.filter(pk=found.pk).update(encoder=spec)
        found.encoder = spec
    _keep_description(found)
    return found


def active_space() -> EmbeddingSpace:
    """The space that serves searches: the active one, else `look`."""
    active = image_spaces().filter(active=True).first()
    return active or look_space()


def activate(space: EmbeddingSpace, *, chosen: bool = False) -> None:
    """Make this the space that serves: one transaction, so a search sees the old one or the new one whole.

    `chosen`: a person did it, so that no other space takes over by itself afterwards. Each process goes over when
    it has loaded the new space (see `search.serving`); `search.switching` asks first whether that is wise.
    """
    before = active_space()
    with transaction.atomic():
        rows = {row.pk: row for row in image_spaces().select_for_update()}  # all of them: switches queue up
        if space.pk not in rows or rows[space.pk].removing:
            raise NoSuchSpace(f"The space {space.name!r} is not there any more.")
        before = next((row for row in rows.values() if row.active), before)
        if before.pk != space.pk:
            EmbeddingSpace.objects.filter(pk=before.pk).update(active=False, chosen=False, served_until=timezone.now())
        EmbeddingSpace.objects.filter(pk=space.pk).update(active=True, chosen=chosen, served_until=None)
        changes.record(Change.Kind.SPACES, [space.pk])
    space.active, space.chosen, space.served_until = True, chosen, None


def encoder_of(space: EmbeddingSpace) -> Encoder:
    """The space's own encoder, loaded.

    Raises EncoderUnavailable when its weights are not here, SpaceMismatch when what loads under the space's
    setting is another encoder than the one that made its vectors.
    """
    encoder = get_encoder(space.encoder)
    require_same(space, encoder)
    return encoder


def require_same(space: EmbeddingSpace, encoder: Encoder) -> None:
    """Raise SpaceMismatch, naming both, unless this is the encoder the space was made with."""
    described = _description(space)
    for key, label, dim in [(space.key, space.label, space.dim), described or (space.key, space.label, space.dim)]:
        if key != encoder.key or dim != encoder.dim:
            raise SpaceMismatch(
                f"The space {space.name!r} holds vectors of {label} ({key}), but {encoder.label} ({encoder.key}) was "
                "given. Vectors of two encoders cannot be compared: set IMAGESEARCH_ENCODER back to the first, or let "
                "the second fill a space of its own (`manage.py process` makes it).",
                for_guests=f"The pictures were read by {label}, but another model is here now ({encoder.label}), and "
                "the two cannot be compared. Whoever runs this installation can mend it.",
            )


@dataclass(frozen=True)
class SpaceReport:
    """One space for people and for `--json`."""

    name: str
    label: str
    encoder: str
    key: str
    dim: int
    text: bool
    from_thumbnails: bool
    active: bool
    chosen: bool
    paused: bool
    removing: bool
    embedded: int
    readable: int

    @property
    def coverage_percent(self) -> float:
        """Share of the readable images that have a vector here, in percent."""
        return round(100 * self.embedded / self.readable, 2) if self.readable else 100.0


def list_spaces() -> list[SpaceReport]:
    """Every image space with its coverage, oldest first."""
    readable = Image.objects.filter(state=Image.State.READY).count()
    here = Q(embeddings__image__state=Image.State.READY)
    serving = active_space()
    return [
        SpaceReport(
            name=row.name, label=row.label, encoder=row.encoder, key=row.key, dim=row.dim, text=row.text,
            from_thumbnails=row.from_thumbnails, active=row.pk == serving.pk, chosen=row.chosen, paused=row.paused,
            removing=row.removing, embedded=row.rows, readable=readable,
        )
        for row in image_spaces().annotate(rows=Count("embeddings", filter=here))
    ]  # fmt: skip


def _free_name(label: str) -> str:
    base = slugify(label)[:80] or "space"
    name, number = base, 2
    while EmbeddingSpace.objects.filter(name=name).exists():
        name, number = f"{base}-{number}", number + 1
    return name


def _description_file(space: EmbeddingSpace) -> Path:
    return Path(settings.IMAGESEARCH_SPACES) / space.name / "space.json"


def _description(space: EmbeddingSpace) -> tuple[str, str, int] | None:
    try:
        said = json.loads(_description_file(space).read_text())
        return said["key"], said["label"], said["dim"]
    except (OSError, ValueError, KeyError):
        return None


def _keep_description(space: EmbeddingSpace) -> None:
    """Write beside the vectors whose they are, once: the folder explains itself without the database."""
    file = _description_file(space)
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix="space-", suffix=".new", dir=file.parent)
    with os.fdopen(handle, "w") as out:
        json.dump(
            {
                "name": space.name, "kind": space.kind, "key": space.key, "label": space.label, "dim": space.dim,
                "from_thumbnails": space.from_thumbnails,
            },
            out,
        )  # fmt: skip
        out.flush()
        os.fsync(out.fileno())
    os.rename(temporary, file)
