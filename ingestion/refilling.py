"""The database's half of a restore: one transaction in which the rows go, the backup's come, and none is wrong.

Every `Embedding` row is compared with the vector that is laid out for it before it goes in: a row whose checksum
does not match is not inserted at all, and its work is queued. So what the commit makes true is proven already.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone

from ingestion import backup_file, ledger, pausing, tables
from ingestion.errors import IngestionError
from ingestion.fingerprints import fingerprint
from ingestion.models import Crawl, Work
from ingestion.switchover import MARK, Switchover
from search import changes, highwater, thumbnails
from search.arrays import Bitmap, Ids
from search.errors import StoreFault
from search.faultpoints import reach
from search.models import Counter, Embedding, EmbeddingSpace, Image, Source
from search.vectors.embedding_file import row_crcs
from search.vectors.local import LocalStore

_BLOCK = 16_384
_SAME_PICTURE = 6
"""Bits of 64 in which the perceptual hash of a thumbnail may differ from that of the pixels it was made from."""

Contents = tuple[Ids, np.ndarray]
"""Image ids, ascending, and (n, 32) uint8: the SHA-256 of each file."""


@dataclass
class Filled:
    """What went into the database."""

    rows: dict[str, int] = field(default_factory=dict)
    believed: dict[str, int] = field(default_factory=dict)
    """{space: vectors that are what was written}"""
    dropped: dict[str, list[int]] = field(default_factory=dict)
    """{space: images whose vector in the backup is not the one the database speaks of}"""
    queued: int = 0
    leases: int = 0
    mapped: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    thumbnails_kept: int = 0
    """Thumbnails that were here already and are known to be those of these images."""


class Refill:
    """Everything that happens between `BEGIN` and `COMMIT`."""

    def __init__(
        self,
        file: Path,
        checked: backup_file.Checked,
        switch: Switchover,
        roots: Mapping[int, bytes],
        thumbnail_ids: Ids,
        tell: Callable[[str], None],
    ) -> None:
        self._file, self._checked, self._switch, self._tell = file, checked, switch, tell
        self._roots, self._thumbnail_ids = roots, thumbnail_ids
        self._proofs: dict[int, _Proof] = {}
        self.filled = Filled()

    def run(self) -> Filled:
        """Fill the database. Raises BadRows, BadArchive, IngestionError: nothing was changed then."""
        self._switch.old_spaces = list(EmbeddingSpace.objects.values_list("name", flat=True))
        marks, change = highwater.marks(), changes.last_number()
        before = contents()
        try:
            with transaction.atomic():
                tables.empty(tables.all_models())
                self._load()
                reach("restore-rows-inserted")
                self._set_right(marks, change)
                self._finish_files(before)
                self._switch.announce()
                reach("restore-before-commit")
        except IntegrityError as error:
            raise IngestionError(
                f"The rows of the backup do not fit together ({str(error).splitlines()[0]}). Nothing was changed; take "
                "another backup."
            ) from error
        finally:
            ContentType.objects.clear_cache()
        reach("restore-after-commit")
        return self.filled

    # --- rows -------------------------------------------------------------------------------------------

    def _load(self) -> None:
        known = tables.kept_models()
        described = self._checked.manifest["tables"]
        first = EmbeddingSpace._meta.label_lower
        with open(self._file, "rb") as archived:
            for label in sorted(described, key=lambda one: one != first):
                if label not in known:
                    continue
                self._tell(f"Table {label}")
                table = tables.Table(known[label], described[label]["columns"])
                for name in described[label]["members"]:
                    rows = table.read(backup_file.lines_of(self._read(archived, name)))
                    if label == first:
                        self._open_proofs(table, rows)
                    if known[label] is Embedding:
                        rows = self._proven(table, rows)
                    table.insert(rows)
                    self.filled.rows[label] = self.filled.rows.get(label, 0) + len(rows)
                    reach("restore-in-the-database")
                self.filled.cut += table.cut

    def _read(self, archived: io.BufferedReader, name: str) -> bytes:
        offset, size = self._checked.places[name]
        archived.seek(offset)
        return archived.read(size)

    def _open_proofs(self, table: tables.Table, rows: list[tables.Row]) -> None:
        at = {name: table.columns.index(name) for name in ("id", "name", "kind", "dim")}
        for row in rows:
            name = row[at["name"]]
            folder = self._switch.spaces / "new" / name
            folder.mkdir(exist_ok=True)
            self._switch.new_spaces.append(name)
            self._proofs[row[at["id"]]] = _Proof(name, row[at["kind"]], LocalStore(folder, row[at["dim"]]))

    def _proven(self, table: tables.Table, rows: list[tables.Row]) -> list[tables.Row]:
        at = [table.columns.index(name) for name in ("space_id", "image_id", "crc32")]
        keys = np.array([[row[place] for place in at] for row in rows], dtype=np.int64).reshape(-1, 3)
        right = np.zeros(len(rows), dtype=bool)
        for space in np.unique(keys[:, 0]).tolist():
            mine = np.flatnonzero(keys[:, 0] == space)
            right[mine] = self._proofs[space].compare(keys[mine, 1], keys[mine, 2])
        return [row for row, fine in zip(rows, right.tolist(), strict=True) if fine]

    # --- what is not as it was --------------------------------------------------------------------------

    def _set_right(self, marks: dict[str, int], change: int) -> None:
        """Leases, running crawls, folders, numbers: what was true of the other moment or the other machine."""
        held = Work.objects.exclude(lease_owner="")
        held.filter(attempts__gt=0).update(attempts=F("attempts") - 1)
        self.filled.leases = held.update(lease_owner="", lease_until=None)
        Crawl.objects.filter(state=Crawl.State.RUNNING).update(
            state=Crawl.State.FAILED, message="It was stopped before its end.", finished_at=timezone.now()
        )
        for source in Source.objects.filter(pk__in=self._roots):
            old, source.root, source.mounts = source.root_text, self._roots[source.pk], []
            source.save(update_fields=["root", "mounts"])
            self.filled.mapped[old] = source.root_text
        Counter.objects.filter(name__in=[MARK, pausing.PAUSED, pausing.AWAKE]).delete()
        # A number that no entry leads to: every reader of the change log loads everything anew.
        number = max(change, changes.last_number()) + 2
        Counter.objects.update_or_create(name=changes.COUNTER, defaults={"value": number})
        tables.raise_sequences(tables.kept_models())
        self._write_marks(highwater.stand_above(marks))
        for proof in self._proofs.values():
            self.filled.believed[proof.name] = int(proof.believed.sum())
            if proof.dropped:
                self.filled.dropped[proof.name] = sorted(proof.dropped)
                self._queue(proof)
        ledger.recount()
        Counter.objects.create(name=MARK, value=self._switch.token)

    def _queue(self, proof: _Proof) -> None:
        if proof.kind != EmbeddingSpace.Kind.IMAGE:
            return
        ids = np.array(sorted(proof.dropped), dtype=np.int64)
        for start in range(0, len(ids), tables.CHUNK):
            chunk = ids[start : start + tables.CHUNK].tolist()
            ready = list(
                Image.objects.filter(pk__in=chunk, state=Image.State.READY).order_by("pk").values_list("pk", flat=True)
            )
            ledger.queue(ready, [f"{ledger.EMBED}{proof.name}"])
            self.filled.queued += len(ready)

    def _write_marks(self, marks: dict[str, int]) -> None:
        (self._switch.spaces / "new" / "highwater.json").write_text(json.dumps(marks))

    def _finish_files(self, before: Contents) -> None:
        """Zero what nobody believes, and say which thumbnails may stay."""
        for proof in self._proofs.values():
            proof.zero_strays()
        here = thumbnails_here()
        here = here[~np.isin(here, self._thumbnail_ids)]
        if len(before[0]):
            stay = here[np.isin(here, same_contents(before, contents()))]
        else:
            stay = recognised(here)
        self.filled.thumbnails_kept = len(stay)
        self._switch.keep_thumbnails(np.union1d(stay, self._thumbnail_ids))


class _Proof:
    """One space's laid-out vectors against the checksums of its rows."""

    def __init__(self, name: str, kind: str, store: LocalStore) -> None:
        self.name, self.kind, self._store = name, kind, store
        self._rows = _rows_of(store)
        self.believed: Bitmap = np.zeros(len(self._rows), dtype=np.bool_)
        self.dropped: list[int] = []

    def compare(self, ids: Ids, crcs: Ids) -> Bitmap:
        """Which of these rows (n,) are what the database says was written."""
        right = np.zeros(len(ids), dtype=np.bool_)
        inside = (ids >= 0) & (ids < len(self._rows))
        right[inside] = row_crcs(np.asarray(self._rows[ids[inside]])) == crcs[inside]
        self.believed[ids[right]] = True
        self.dropped.extend(ids[~right].tolist())
        return right

    def zero_strays(self) -> None:
        for start in range(0, len(self._rows), _BLOCK):
            written = self._rows[start : start + _BLOCK].any(axis=1)
            strays = np.flatnonzero(written & ~self.believed[start : start + _BLOCK]) + start
            if len(strays):
                self._store.delete(strays)


def _rows_of(store: LocalStore) -> np.ndarray:
    """The rows that are laid out; none when the backup has no file, or a broken one, which then goes."""
    empty = np.zeros((0, store.dim), dtype=np.float32)
    if not store.file.path.exists():
        return empty
    try:
        store.file.mend_length()
        return store.file.rows()
    except (StoreFault, OSError, ValueError, SyntaxError):
        store.file.path.unlink()
        return empty


# --- thumbnails ---------------------------------------------------------------------------------------


def contents() -> Contents:
    """What each image's file holds, as far as it was read."""
    ids: list[np.ndarray] = []
    digests: list[np.ndarray] = []
    rows = Image.objects.exclude(sha256=None).order_by("pk").values_list("pk", "sha256")
    chunk: list[Any] = []
    for row in rows.iterator(chunk_size=tables.CHUNK):
        chunk.append(row)
        if len(chunk) == tables.CHUNK:
            _pack(chunk, ids, digests)
            chunk = []
    _pack(chunk, ids, digests)
    return np.concatenate(ids), np.concatenate(digests)


def _pack(chunk: list[Any], ids: list[np.ndarray], digests: list[np.ndarray]) -> None:
    ids.append(np.array([row[0] for row in chunk], dtype=np.int64))
    digests.append(np.frombuffer(b"".join(row[1] for row in chunk), dtype=np.uint8).reshape(-1, 32))


def same_contents(before: Contents, after: Contents) -> Ids:
    """The ids that mean the same bytes in both."""
    ids, first, second = np.intersect1d(before[0], after[0], assume_unique=True, return_indices=True)
    return ids[(before[1][first] == after[1][second]).all(axis=1)]


def thumbnails_here() -> Ids:
    """Ids of the images of which a thumbnail lies in the folder, ascending."""
    home = thumbnails.path_of(0).parent.parent
    folders = [folder for folder in home.iterdir() if folder.name.isdigit()] if home.is_dir() else []
    return np.array(
        sorted(int(file.stem) for folder in folders for file in folder.glob("*.jpg") if file.stem.isdigit()),
        dtype=np.int64,
    )


def recognised(ids: Ids) -> Ids:
    """Those of the ids whose thumbnail shows what the image's perceptual hash says; for a database that was lost.

    A picture of (almost) one colour cannot be told from another one: its thumbnail is made again.
    """
    from PIL import Image as PilImage

    found: list[int] = []
    for start in range(0, len(ids), tables.CHUNK):
        rows = Image.objects.filter(pk__in=ids[start : start + tables.CHUNK].tolist(), uniformity__lt=0.5)
        for pk, said in rows.exclude(perceptual_hash=None).order_by("pk").values_list("pk", "perceptual_hash"):
            try:
                with PilImage.open(io.BytesIO(thumbnails.read(pk) or b"")) as picture:
                    seen = fingerprint(picture.convert("RGB")).perceptual_hash
            except (OSError, ValueError):
                continue
            if said is not None and ((seen ^ said) & (2**64 - 1)).bit_count() <= _SAME_PICTURE:
                found.append(pk)
    return np.array(found, dtype=np.int64)


def is_empty() -> bool:
    """Whether nothing is in the database that a restore could overwrite (an account alone is nothing)."""
    from search.models import Action, Album

    there = set(connection.introspection.table_names())
    return not any(
        model._meta.db_table in there and model._default_manager.exists() for model in (Image, Source, Action, Album)
    )
