"""The vectors of an archive: opened without loading them, checked, and read in blocks as rows of unit length."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ingestion.errors import BadArchive
from search.arrays import Bitmap, Ids, Vectors
from search.vectors.embedding_file import header

BLOCK = 4_096
"""Rows read at once."""
_UNIT = 1e-5
"""float32 rows whose length is this near to 1 are kept bit for bit."""
_MEMBERS = ("vectors", "embeddings", "arr_0")


class Archive:
    """A matrix of vectors on disk: (rows, dim), of any floating type, byte order and memory order.

    A `.npy` file is mapped; a `.npz` and what `export_embeddings` writes as JSON are unpacked into `scratch` first.
    Raises BadArchive for what is none.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self.paths: Path | None = None
        """The list of paths that a `.npz` or JSON brought along; None without."""
        self._matrix = self._open(path, scratch)
        self.rows, self.dim = self._matrix.shape

    @property
    def described(self) -> str:
        """Its type and layout, for people: "float16, Fortran order"."""
        fortran = self._matrix.flags.f_contiguous and not self._matrix.flags.c_contiguous
        return f"{self._matrix.dtype.newbyteorder('=')}{', Fortran order' if fortran else ''}"

    def block(self, start: int, stop: int) -> tuple[Vectors, Bitmap]:
        """Rows `start` to `stop - 1` (cut at the ends) as float32 of unit length, and which of them are usable."""
        return unit_rows(self._matrix[max(start, 0) : max(stop, 0)])

    def take(self, rows: Ids) -> tuple[Vectors, Bitmap]:
        """These rows, in their order, as `block` gives them."""
        return unit_rows(self._matrix[rows])

    def blocks(self) -> Iterator[tuple[int, Vectors, Bitmap]]:
        """(first row, rows, usable) from the first to the last."""
        for start in range(0, self.rows, BLOCK):
            yield start, *self.block(start, start + BLOCK)

    def _open(self, path: Path, scratch: Path) -> np.ndarray[Any, Any]:
        try:
            if path.is_dir():
                raise BadArchive(f"{path} is a folder; name the .npy or .npz file with the vectors.")
            if zipfile.is_zipfile(path):
                path = self._unpack(path, scratch)
            elif _begins_with(path, b"{"):
                path = self._read_json(path, scratch)
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise BadArchive(f"There is no file {path}.") from None
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise BadArchive(
                f"{path} is no NumPy file of vectors ({error}). Save them with numpy.save(file, matrix)."
            ) from None
        except OSError as error:
            raise BadArchive(f"{path} cannot be opened: {error.strerror or error}.") from None
        if not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
            shape = getattr(matrix, "shape", "no matrix")
            raise BadArchive(f"{path} holds {shape}, not a matrix of one row for each picture.")
        if matrix.dtype.kind != "f":
            raise BadArchive(
                f"{path} holds {matrix.dtype}, not floating point numbers. Quantised vectors cannot be adopted; "
                "give those they were made from."
            )
        return matrix

    def _unpack(self, path: Path, scratch: Path) -> Path:
        with zipfile.ZipFile(path) as bundle:
            names = bundle.namelist()
            wanted = next((f"{name}.npy" for name in _MEMBERS if f"{name}.npy" in names), None)
            if wanted is None:
                listed = ", ".join(name.removesuffix(".npy") for name in names[:10]) or "nothing"
                raise BadArchive(f"{path} holds {listed}; one array named {', '.join(_MEMBERS)} is looked for.")
            with bundle.open(wanted) as packed, open(scratch / "vectors.npy", "wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
            if "paths.txt" in names:
                self.paths = scratch / "paths.txt"
                with bundle.open("paths.txt") as packed, open(self.paths, "wb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)
        return scratch / "vectors.npy"

    def _read_json(self, path: Path, scratch: Path) -> Path:
        """What `export_embeddings --format json` wrote: one line for each image."""
        self.paths = scratch / "paths.txt"
        with open(path, "rb") as file, open(self.paths, "wb") as paths, open(scratch / "vectors.npy", "wb") as out:
            try:
                about = json.loads(file.readline().rstrip() + b"]}")
                out.write(header(about["rows"], about["dim"]))
                for _ in range(about["rows"]):
                    entry = json.loads(file.readline().rstrip().removesuffix(b","))
                    row = np.array(entry["vector"], dtype="<f4")
                    if row.shape != (about["dim"],):
                        raise ValueError(f"image {entry['id']} has {len(row)} numbers")
                    out.write(row.tobytes())
                    paths.write(os.fsencode(entry["path"]) + b"\0")
            except (ValueError, KeyError, TypeError) as error:
                raise BadArchive(
                    f"{path} is not what `export_embeddings` writes as JSON ({error}). Save the vectors with "
                    "numpy.save(file, matrix), and give JSON that says whose they are with --ids."
                ) from None
        return scratch / "vectors.npy"


def _begins_with(path: Path, sign: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(sign)) == sign


def unit_rows(block: np.ndarray[Any, Any]) -> tuple[Vectors, Bitmap]:
    """Rows of any floating type -> (n, dim) float32 of unit length, and which are usable.

    A row that is not finite, or all but zero, is not, and comes out as zeros. float32 rows that have unit length
    already are kept bit for bit.
    """
    wide = np.asarray(block, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    usable = np.isfinite(lengths) & (lengths > 1e-6)
    rows = np.zeros(wide.shape, dtype=np.float32)
    rows[usable] = wide[usable] / lengths[usable, None]
    if block.dtype.itemsize == 4:
        kept = usable & (np.abs(lengths - 1) < _UNIT)
        rows[kept] = block[kept]
    return rows, usable


def copies_of(archive: Archive, first: Ids, second: Ids, *, alike: float) -> Bitmap:
    """Whether the rows first[i] and second[i] point the same way: cosine at least `alike`."""
    same = np.zeros(len(first), dtype=np.bool_)
    for start in range(0, len(first), BLOCK):
        one, one_usable = archive.take(first[start : start + BLOCK])
        two, two_usable = archive.take(second[start : start + BLOCK])
        same[start : start + BLOCK] = one_usable & two_usable & (np.einsum("ij,ij->i", one, two) >= alike)
    return same
