"""Vectors for other programs, and for `import_embeddings` elsewhere: only rows that are believed.

Written beside the file and renamed when whole; memory stays flat.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ingestion.errors import BadArchive
from search.arrays import Ids, Vectors
from search.errors import StoreFault
from search.models import Embedding, EmbeddingSpace, Image
from search.querysets import ImageQuerySet
from search.vectors import get_store
from search.vectors.embedding_file import header, row_crcs

FORMATS = ("npz", "npy+paths", "json")
_CHUNK = 2_000

Tell = Callable[[str, int, int], None]


@dataclass
class Exported:
    """What was written."""

    files: list[str]
    format: str
    space: str
    rows: int = 0
    dim: int = 0
    mismatched: int = 0
    """Rows that are not what was written once (`verify` names them): left out."""
    separator: str = "line feed"
    """What ends each path in the list; NUL where a name holds a line feed."""


def export(
    path: Path, space: EmbeddingSpace, images: ImageQuerySet, *, format: str, overwrite: bool, tell: Tell
) -> Exported:
    """Write the space's vectors of these images, by id. Raises BadArchive, StoreFault; nothing half is left."""
    listed = path.with_name(path.stem + ".paths.txt")
    files = [path, listed] if format == "npy+paths" else [path]
    for file in files:
        if file.is_dir():
            raise BadArchive(f"{file} is a folder; name a file.")
        if file.exists() and not overwrite:
            raise BadArchive(f"{file} is there already; name another file, or replace it with --overwrite.")
    done = Exported([str(file) for file in files], format, space.name, dim=space.dim)
    get_store(space).file.require()
    ids = _believed(space, images, done, tell)
    if not len(ids):
        raise BadArchive(f"{space.label} has no vectors of these images; nothing was written.")
    done.rows = len(ids)
    beside = [file.with_name(f".{file.name}.{os.getpid()}.new") for file in files]
    try:
        with contextlib.ExitStack() as stack:
            outs = [stack.enter_context(open(file, "wb")) for file in beside]
            _WRITERS[format](outs, space, ids, done, tell)
            for out in outs:
                out.flush()
                os.fsync(out.fileno())
        for temporary, file in reversed(list(zip(beside, files, strict=True))):
            os.replace(temporary, file)
    except OSError as error:
        raise BadArchive(f"{path} cannot be written: {error.strerror or error}. Nothing was changed.") from error
    finally:
        for temporary in beside:
            temporary.unlink(missing_ok=True)
    return done


def _believed(space: EmbeddingSpace, images: ImageQuerySet, done: Exported, tell: Tell) -> Ids:
    """Ids of these images whose rows are what the database says, ascending."""
    found = np.fromiter(images.order_by("pk").values_list("pk", flat=True).iterator(chunk_size=_CHUNK), dtype=np.int64)
    kept: list[Ids] = []
    for start in range(0, len(found), _CHUNK):
        ids, rows, good = _rows(space, found[start : start + _CHUNK])
        done.mismatched += int((~good).sum())
        kept.append(ids[good])
        tell("Checking", start + len(rows), len(found))
    return np.concatenate([*kept, np.zeros(0, dtype=np.int64)])


def _rows(space: EmbeddingSpace, some: Ids) -> tuple[Ids, Vectors, np.ndarray[Any, Any]]:
    """(ids that are believed, their rows, whether each still is what was written)"""
    pairs = Embedding.objects.filter(space=space, image_id__in=some.tolist()).order_by("image_id")
    believed = np.array(list(pairs.values_list("image_id", "crc32")), dtype=np.int64).reshape(-1, 2)
    rows = get_store(space).get(believed[:, 0])
    return believed[:, 0], rows, row_crcs(rows) == believed[:, 1]


def _blocks(space: EmbeddingSpace, ids: Ids, tell: Tell) -> Iterator[tuple[Ids, Vectors]]:
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        kept, rows, good = _rows(space, some)
        if len(kept) != len(some) or not good.all():
            raise StoreFault(f"Vectors of {space.name} changed while they were exported; run it again.")
        yield some, rows
        tell("Writing", start + len(some), len(ids))


def _paths(ids: Ids) -> Iterator[bytes]:
    """Full paths, in the order of the ids."""
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK].tolist()
        rows = Image.objects.filter(pk__in=some).values_list("pk", "source__root", "path")
        found = {pk: os.path.join(bytes(root), bytes(path)) for pk, root, path in rows}
        yield from (found[i] for i in some)


def _write_paths(out: IO[bytes], ids: Ids, done: Exported) -> None:
    end = b"\n"
    if any(b"\n" in path for path in _paths(ids)):
        end, done.separator = b"\0", "NUL"
    for path in _paths(ids):
        out.write(path + end)


def _write_npy(outs: Sequence[IO[bytes]], space: EmbeddingSpace, ids: Ids, done: Exported, tell: Tell) -> None:
    outs[0].write(header(len(ids), space.dim))
    for _, rows in _blocks(space, ids, tell):
        outs[0].write(np.ascontiguousarray(rows, dtype="<f4").data)
    _write_paths(outs[1], ids, done)


def _write_npz(outs: Sequence[IO[bytes]], space: EmbeddingSpace, ids: Ids, done: Exported, tell: Tell) -> None:
    # numpy.savez would take the whole matrix into memory; not compressed, since vectors hardly shrink.
    with zipfile.ZipFile(outs[0], "w", zipfile.ZIP_STORED) as bundle:
        with bundle.open("vectors.npy", "w", force_zip64=True) as out:
            out.write(header(len(ids), space.dim))
            for _, rows in _blocks(space, ids, tell):
                out.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        with bundle.open("ids.npy", "w", force_zip64=True) as out:
            small = io.BytesIO()
            np.save(small, ids)
            out.write(small.getvalue())
        with bundle.open("paths.txt", "w", force_zip64=True) as out:
            _write_paths(out, ids, done)


def _write_json(outs: Sequence[IO[bytes]], space: EmbeddingSpace, ids: Ids, done: Exported, tell: Tell) -> None:
    """One line for each image, so that it can be read without holding it whole."""
    about = {"space": space.name, "label": space.label, "key": space.key, "dim": space.dim, "rows": len(ids)}
    outs[0].write(json.dumps(about)[:-1].encode() + b', "images": [\n')
    paths, last = _paths(ids), int(ids[-1])
    for some, rows in _blocks(space, ids, tell):
        for image_id, row in zip(some.tolist(), rows, strict=True):
            entry = {"id": image_id, "path": os.fsdecode(next(paths)), "vector": [float(str(x)) for x in row]}
            outs[0].write(json.dumps(entry).encode() + (b"\n" if image_id == last else b",\n"))
    outs[0].write(b"]}\n")


_WRITERS: dict[str, Callable[[Sequence[IO[bytes]], EmbeddingSpace, Ids, Exported, Tell], None]] = {
    "npz": _write_npz,
    "npy+paths": _write_npy,
    "json": _write_json,
}
