"""The encoder protocol: what turns pictures and words into vectors of one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import PIL.Image

from search.arrays import Vectors
from search.errors import runs_the_server


@runtime_checkable
class Encoder(Protocol):
    """One encoder, loaded and ready. Thread-safe: the worker calls it from several threads."""

    key: str
    """Identity: architecture, fingerprint of the weights and of the preprocessing. Two encoders with one key
    give the same vectors up to the precision of the arithmetic."""
    label: str
    """Name for people, as on the results page: "ViT-B-32-256, datacomp_s34b_b86k"."""
    dim: int
    text: bool
    """Whether words can be encoded at all."""
    side: int
    """Shortest side in pixels that `prepare` wants to start from; decoding never goes below it."""

    def prepare(self, image: PIL.Image.Image) -> Any:
        """RGB pixels -> one prepared input (runs in reader threads; independent of the batch)."""
        ...

    def encode_images(self, batch: Sequence[Any]) -> Vectors:
        """Prepared inputs -> (n, dim) float32, rows of unit length, in order. Halves a batch that does not fit."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts -> (n, dim) float32, rows of unit length. Raises ValueError when a text has no known word."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """The words of `text` that this encoder does not know, in order; [] for an encoder of free text."""
        ...


@dataclass(frozen=True)
class Availability:
    """Whether an encoder could be loaded right now, said without loading it (no torch import, no network)."""

    spec: str
    ready: bool
    label: str
    sentence: str
    """When not ready: what brings it, as a sentence for people; "" when ready."""
    download_bytes: int | None = None

    def said_to(self, user: Any) -> str:
        """`sentence` as this person may read it: folders and commands only for those who run the server."""
        guests = "Whoever runs this installation can bring it." if self.sentence else ""
        return self.sentence if runs_the_server(user) else guests
