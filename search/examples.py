"""What a query wants and does not want, as vectors of one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from search import naming, ranking, thumbnails, uploads
from search.arrays import Bitmap, Vectors
from search.background import Make
from search.bitmaps import Library
from search.encoders.base import Encoder
from search.errors import BadQuery, EncoderUnavailable, Unreadable
from search.models import EmbeddingSpace, Image
from search.query import Query
from search.serving import serving_space
from search.spaces import encoder_of, look_space
from search.vectors import get_store
from search.words import space_for_words

_Row = npt.NDArray[np.float32]


@dataclass
class Examples:
    """The space that is searched, the combined query vector in it (None: there is nothing to rank by), and words."""

    space: EmbeddingSpace
    vector: Vectors | None = None
    unknown_words: list[str] = field(default_factory=list)
    unknown_groups: list[list[str]] = field(default_factory=list)
    """For each phrase the words that the encoder does not know: looked for in names and tags."""
    unwanted_groups: list[list[str]] = field(default_factory=list)
    """The same for what is not wanted."""
    notices: list[str] = field(default_factory=list)
    make: Make = field(default_factory=Make)
    """How many texts and pictures went into the vector."""
    encoder: Encoder | None = None
    """The space's encoder; None where none was needed."""


def gather(
    query: Query,
    user: Any,
    pictures: Sequence[PIL.Image.Image],
    library: Library,
    space: EmbeddingSpace | None = None,
) -> Examples:
    """Everything that the query ranks by, in the serving space; words in one that knows words; in `look` when the
    serving model cannot be loaded.

    With `space` in that one, or EncoderUnavailable is raised. Raises BadQuery for an example that is not there or
    that the user may not see, StoreFault when the embedding file is gone: finding nothing would be a lie.
    """
    _check_examples([*query.like, *query.unlike], user)
    pictures = [*pictures, *([uploads.pixels(query.upload, user)] if query.upload else [])]
    asked, space, serving = space, space or serving_space(), None
    if asked is None and (query.phrases or query.negatives) and not space.text:
        space, serving = space_for_words(space, library), space
    embedded = library.embedded(space.pk)
    examples = Examples(space)
    if serving is not None:
        examples.notices.append(
            f"{serving.label} compares pictures and knows no words: {space.label} searched instead."
        )
    encoder: Encoder | None = None
    if query.phrases or query.negatives or pictures or not all(_has(embedded, i) for i in query.like + query.unlike):
        try:
            encoder = encoder_of(space)
        except EncoderUnavailable as error:
            examples.space = look_space()
            if asked is not None or examples.space.pk == space.pk:
                raise
            examples.notices.append(f"Searched by colours and layout only. {error.said_to(user)}")
            encoder = encoder_of(examples.space)
            embedded = library.embedded(examples.space.pk)
    examples.encoder = encoder
    if embedded.any():
        get_store(examples.space).file.require()
    positives, negatives = _Rows(examples, encoder, embedded), _Rows(examples, encoder, embedded)
    for phrase in query.phrases:
        positives.add_text(phrase, examples.unknown_groups)
    for phrase in query.negatives:
        negatives.add_text(phrase, examples.unwanted_groups)
    for picture in pictures:
        positives.add_picture(picture)
    for image_id in query.like:
        positives.add_image(image_id)
    for image_id in query.unlike:
        negatives.add_image(image_id)
    if positives.rows or negatives.rows:
        examples.vector = ranking.combined(positives.rows, negatives.rows)
        examples.make = Make(positives.texts, positives.pictures, negatives.texts, negatives.pictures)
    return examples


class _Rows:
    """The vectors of one side, wanted or not."""

    def __init__(self, examples: Examples, encoder: Encoder | None, embedded: Bitmap) -> None:
        self.rows: list[_Row] = []
        self.texts = 0
        self._examples, self._encoder, self._embedded = examples, encoder, embedded

    def add_text(self, phrase: str, groups: list[list[str]]) -> None:
        assert self._encoder is not None
        unknown = ranking.unknown_words(self._encoder, phrase)
        if unknown:
            groups.append([word for one in unknown for word in naming.words_of(one)])
            self._examples.unknown_words += [word for word in unknown if word not in self._examples.unknown_words]
        row = ranking.encoded(self._encoder, phrase)
        if row is not None:
            self.rows.append(row)
            self.texts += 1

    @property
    def pictures(self) -> int:
        return len(self.rows) - self.texts

    def add_picture(self, picture: PIL.Image.Image) -> None:
        assert self._encoder is not None
        self.rows.append(self._encoder.encode_images([self._encoder.prepare(picture)])[0])

    def add_image(self, image_id: int) -> None:
        """The stored vector; for an image that the space does not hold yet, its thumbnail is encoded now."""
        if _has(self._embedded, image_id):
            self.rows.append(get_store(self._examples.space).get(np.array([image_id], dtype=np.int64))[0])
            return
        try:
            if (picture := thumbnails.pixels(image_id)) is not None:
                self.add_picture(picture)
                return
        except Unreadable:
            pass  # a broken thumbnail is as good as none
        self._examples.notices.append(
            f"Image {image_id} has not been read yet, so nothing can be compared with it. Try again when it has."
        )


def _has(embedded: Bitmap, image_id: int) -> bool:
    return image_id < len(embedded) and bool(embedded[image_id])


def _check_examples(ids: Sequence[int], user: Any) -> None:
    """One sentence for images that are not there and for those this user may not see."""
    if not ids:
        return
    visible = Image.objects.visible_to(user).filter(pk__in=ids)
    known = set(visible.listed().values_list("pk", flat=True))
    known |= set(visible.editable_by(user).values_list("pk", flat=True))
    for image_id in ids:
        if image_id not in known:
            raise BadQuery(f"There is no picture {image_id} that you may see. Take it out of the search.")
