"""The array types that cross module boundaries."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
"""Row ids, shape (n,), int64."""

Vectors = npt.NDArray[np.float32]
"""Embeddings, shape (n, dim), float32, rows of unit length."""

Bitmap = npt.NDArray[np.bool_]
"""One flag per row id: `bitmap[id]`, shape (largest id + 1 or more,), bool."""
