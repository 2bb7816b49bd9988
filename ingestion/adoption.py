"""Taking over an archive of vectors: nothing of it is believed, and only what is proven is accepted.

The order of things, each step repeatable after a kill: the rows' images are looked up (files that are not known yet are
registered by a crawl); samples are embedded again and `alignment` says which rows they prove; these go into the space
through `search.embeddings.record`, so that everything holds for them that holds for computed vectors; the others are
queued. What has been looked up and computed stands in a folder of its own under `data/adoptions` until the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings

from ingestion import ledger, register, rowmaps, settlement, stages
from ingestion.addresses import Addresses, Found, double_rows
from ingestion.adoption_report import Report, hints
from ingestion.alignment import Alignment, Terms, align
from ingestion.archive import Archive, copies_of
from ingestion.errors import BadArchive
from ingestion.resampling import Samples
from ingestion.stages import EmbedStage
from search import embeddings, spaces
from search.arrays import Bitmap, Ids, Vectors
from search.encoders import get_encoder
from search.faultpoints import reach
from search.models import Embedding, EmbeddingSpace, Image, Source
from search.verification import SAME

_CHUNK = 10_000
_LOOK = 5_000

ASKABLE, NO_IMAGE, HAS_VECTOR, UNREADABLE, UNUSABLE, CONFLICT, COPY = range(7)
"""What stands against a row before anything is asked: its image is not there, has a vector already, cannot be read;
the row is no vector; two rows of one image differ; an earlier row of the image says the same."""

Tell = Callable[[str, int, int], None]
"""(what is being done, done, of)"""


@dataclass(frozen=True)
class Request:
    """What a person asked for."""

    vectors: Path
    row_map: rowmaps.RowMap | None = None
    """None: the `.npz` brings its list of paths along."""
    space: EmbeddingSpace | None = None
    user: Any = None
    root: str | None = None
    source: Source | None = None
    moved: Sequence[tuple[bytes, bytes]] = ()
    offset: int = 0
    sample: int | None = None
    exhaustive: bool = False
    crawl: bool = True
    dry_run: bool = False
    tell: Tell = lambda what, done, of: None
    say: Callable[[str], None] = lambda sentence: None


@dataclass
class _Look:
    """What is known of each row before anything is asked, as it is kept between runs."""

    ids: Ids
    codes: np.ndarray[Any, Any]
    stamps: Ids
    """Of each row's file as the catalogue knew it: what changes afterwards is not accepted."""
    notes: dict[str, Any] = field(default_factory=dict)


def space_for(name: str | None) -> EmbeddingSpace:
    """The named space; else the one that serves, unless that is only `look`; else that of the configured model.

    Raises BadArchive for an unknown name, EncoderUnavailable when the model is not here.
    """
    serving = serving_space(name)
    spec = settings.IMAGESEARCH_ENCODER
    if name is not None or serving.encoder != spaces.LOOK or spec == spaces.LOOK:
        return serving
    return spaces.ensure_space(get_encoder(spec), spec)


def serving_space(name: str | None) -> EmbeddingSpace:
    """The named space, else the one that serves. Raises BadArchive for an unknown name."""
    if name is None:
        return spaces.active_space()
    images = EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE)
    space = spaces.look_space() if name == spaces.LOOK else images.filter(name=name).first()
    if space is None:
        known = ", ".join(images.values_list("name", flat=True)) or "none yet"
        raise BadArchive(f"There is no space {name!r}. Spaces: {known}.")
    return space


def adopt(request: Request) -> Report:
    """Adopt what can be proven; see the module's text. Raises BadArchive and what crawls and encoders raise."""
    space = request.space or space_for(None)
    encoder = spaces.encoder_of(space)
    stage = EmbedStage(space, encoder, batch=settings.IMAGESEARCH_BATCH_SIZE)
    with _scratch(request, space) as scratch:
        archive = Archive(request.vectors, scratch)
        if archive.dim != space.dim:
            raise BadArchive(
                f"{request.vectors} holds vectors of {archive.dim} numbers, but those of {space.label} have "
                f"{space.dim}: another model made them. Name the space of that model with --space, or set "
                "IMAGESEARCH_ENCODER to it."
            )
        look = _look(request, archive, space, scratch)
        askable = look.codes == ASKABLE
        terms = Terms.for_rows(int(askable.sum()), sample=request.sample, exhaustive=request.exhaustive)
        request.say(_cost(terms, int(askable.sum()), space))
        samples = Samples(
            archive, look.ids, stage, scratch / "samples.bin", lambda done, of: request.tell("Sampling", done, of)
        )
        random = np.random.default_rng(int.from_bytes(hashlib.blake2b(scratch.name.encode()).digest()[:8]))
        alignment = align(archive.rows, askable, samples.ask, terms, random)
        report = _report(request, space, archive, look, alignment, samples, terms)
        if not request.dry_run:
            report.accepted, report.busy = _accept(request, space, archive, look, alignment.accepted)
            report.queued = _queue_rest(space, look)
            if report.accepted:
                stages.activate_when_searchable([stage], stage.name)
        else:
            report.accepted = int(alignment.accepted.sum())
        _keep(report)
        if not request.dry_run:
            shutil.rmtree(scratch)
    return report


def _cost(terms: Terms, rows: int, space: EmbeddingSpace) -> str:
    if not rows:
        return "No row is to be proven."
    return (
        f"{rows:,} rows are to be proven with {space.label}: {terms.sample:,} of their pictures are embedded again "
        f"to begin with, {terms.most:,} at most."
    )


# --- what is kept between runs ------------------------------------------------------------------------


@contextlib.contextmanager
def _scratch(request: Request, space: EmbeddingSpace) -> Iterator[Path]:
    """The folder of this adoption, the same for the same question; one process at a time."""
    name = hashlib.blake2b(digest_size=12)
    for path in (request.vectors, request.row_map.path if request.row_map else None):
        if path is not None:
            try:
                status = os.stat(path)
            except OSError as error:
                raise BadArchive(f"{path} cannot be opened: {error.strerror or error}.") from None
            name.update(repr((os.fsencode(path.resolve()), status.st_size, status.st_mtime_ns)).encode())
    asked = (request.root, request.source and request.source.pk, request.moved, request.offset, request.exhaustive)
    name.update(repr((space.key, asked, request.user and request.user.pk)).encode())
    folder = Path(settings.IMAGESEARCH_DATA) / "adoptions" / name.hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadArchive(
                f"{request.vectors} is being adopted by another process just now; wait until it is done."
            ) from None
        try:
            yield folder
        finally:
            if not folder.exists():
                os.unlink(lock.name)


def _look(request: Request, archive: Archive, space: EmbeddingSpace, scratch: Path) -> _Look:
    """What stands against each row; read again from an earlier run of the same adoption."""
    kept = scratch / "look.npz"
    if kept.exists() and not request.dry_run:
        with np.load(kept) as found:
            if len(found["ids"]) == archive.rows:
                return _Look(found["ids"], found["codes"], found["stamps"], json.loads(str(found["notes"])))
    look = _look_anew(request, archive, space)
    if not request.dry_run:
        with open(scratch / "look.new", "wb") as out:
            notes = np.array(json.dumps(look.notes))
            np.savez(out, ids=look.ids, codes=look.codes, stamps=look.stamps, notes=notes)
            out.flush()
            os.fsync(out.fileno())
        os.replace(scratch / "look.new", kept)
        reach("rows-looked-up")
    return look


def _look_anew(request: Request, archive: Archive, space: EmbeddingSpace) -> _Look:
    found = _find(request, archive)
    ids = found.ids
    codes = np.full(archive.rows, ASKABLE, dtype=np.int8)
    for start, rows, usable in archive.blocks():
        codes[start : start + len(rows)][~usable] = UNUSABLE
        request.tell("Looking through the vectors", start + len(rows), archive.rows)
    first, second = double_rows(ids)
    if len(first):
        same = copies_of(archive, first, second, alike=SAME)
        codes[second[same]] = COPY
        codes[np.isin(ids, np.unique(ids[second[~same]]))] = CONFLICT
    stamps = np.zeros(archive.rows, dtype=np.int64)
    for start in range(0, archive.rows, _LOOK):
        part = slice(start, start + _LOOK)
        images = _images(ids[part])
        unreadable = [i for i, (_, state) in images.items() if state == Image.State.UNREADABLE]
        codes[part][np.isin(ids[part], unreadable)] = UNREADABLE
        codes[part][_with_vector(space, ids[part])] = HAS_VECTOR
        stamps[part] = _stamps(ids[part], images)
    codes[ids == 0] = NO_IMAGE
    notes = {
        "entries": found.entries, "beyond": found.beyond, "repeated": found.repeated, "absent": found.absent,
        "examples": found.examples,
        "unregistered": sum(one.count for one in found.unknown.values() if one.there),
    }  # fmt: skip
    return _Look(ids, codes, stamps, notes)


def _images(ids: Ids) -> dict[int, tuple[int, str]]:
    """{id: (what tells a changed file, state)}"""
    rows = Image.objects.filter(pk__in=np.unique(ids[ids > 0]).tolist())
    return {
        pk: (hash((size, mtime_ns)), state)
        for pk, size, mtime_ns, state in rows.values_list("pk", "size", "mtime_ns", "state")
    }


def _stamps(ids: Ids, images: dict[int, tuple[int, str]]) -> Ids:
    return np.array([images[i][0] if i in images else 0 for i in ids.tolist()], dtype=np.int64)


def _find(request: Request, archive: Archive) -> Found:
    """The rows' images; where files are there that the catalogue does not know, after a crawl."""
    row_map = request.row_map
    if row_map is None:
        if archive.paths is None:
            raise BadArchive(
                f"{request.vectors} does not say whose its rows are: give a list with --paths (line n is row n) or a "
                "table with --ids."
            )
        row_map = rowmaps.lines(archive.paths)
    if row_map.note:
        request.say(row_map.note)
    base = _base(request)
    addresses = Addresses(request.user, base=base, moved=request.moved)
    found = addresses.find(row_map, archive.rows, offset=request.offset)
    if request.dry_run or not request.crawl:
        return found
    crawled = False
    for source_id, unknown in sorted(found.unknown.items()):
        if not unknown.there:
            continue
        source = Source.objects.get(pk=source_id)
        request.say(f"{unknown.count:,} paths of {source.name} are not in the catalogue: its folder is crawled first.")
        register.crawl(
            source,
            subpath=unknown.folder,
            progress=lambda report: request.tell("Crawling", report.counts()["found"], 0),
        )
        crawled = True
    return addresses.find(row_map, archive.rows, offset=request.offset) if crawled else found


def _base(request: Request) -> bytes | None:
    """The folder from which relative paths start; with --root it becomes a source, unless it lies in one."""
    if request.source is not None:
        return bytes(request.source.root)
    if request.root is None:
        return None
    real = os.path.realpath(os.fsencode(os.path.expanduser(request.root)))
    inside = any(real == bytes(one.root) or real.startswith(bytes(one.root) + b"/") for one in Source.objects.all())
    if not inside and not request.dry_run:
        register.source_for(request.root, owner=request.user)
    return real


# --- accepting ----------------------------------------------------------------------------------------


def _accept(
    request: Request, space: EmbeddingSpace, archive: Archive, look: _Look, accepted: Bitmap
) -> tuple[int, int]:
    """Record the accepted rows; (how many were, how many were left to the workers: in their hands, or changed)."""
    rows = np.flatnonzero(accepted)
    kept = left = 0
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        already = _with_vector(space, look.ids[some])
        kept += int(already.sum())  # by an earlier run that was stopped
        some = some[~already]
        same = _stamps(look.ids[some], _images(look.ids[some])) == look.stamps[some]
        left += int((~same).sum())
        some = some[same]
        vectors, usable = archive.take(some)
        some, vectors = some[usable], vectors[usable]
        recorded = _record(space, look.ids[some], vectors)
        kept += len(recorded)
        left += len(some) - len(recorded)
        reach("rows-adopted")
        request.tell("Accepting", min(start + _CHUNK, len(rows)), len(rows))
    return kept, left


def _with_vector(space: EmbeddingSpace, ids: Ids) -> Bitmap:
    found = Embedding.objects.filter(space=space, image_id__in=ids.tolist()).values_list("image_id", flat=True)
    return np.isin(ids, np.fromiter(found, dtype=np.int64))


def _record(space: EmbeddingSpace, ids: Ids, vectors: Vectors) -> Ids:
    def within(kept: Ids) -> None:
        settlement.settle(space.stage, kept)

    if not len(ids):
        return ids
    return embeddings.record(
        space, ids, vectors, still_mine=lambda some: settlement.unclaimed(space.stage, some), within=within
    )


def _queue_rest(space: EmbeddingSpace, look: _Look) -> int:
    """Queue every image of the archive that has no vector now; returns how many of them wait."""
    ids = np.unique(look.ids[look.ids > 0])
    waiting = 0
    eligible = [Image.State.WAITING, Image.State.READY, Image.State.REMOVED]
    for start in range(0, len(ids), _LOOK):
        some = ids[start : start + _LOOK]
        some = some[~_with_vector(space, some)]
        here = list(Image.objects.filter(pk__in=some.tolist(), state__in=eligible).values_list("pk", flat=True))
        if here:
            ledger.ensure(here, [space.stage], lacking=True)
            waiting += len(here)
    return waiting


# --- reporting ----------------------------------------------------------------------------------------


def _report(
    request: Request, space: EmbeddingSpace, archive: Archive, look: _Look, alignment: Alignment, samples: Samples,
    terms: Terms,
) -> Report:  # fmt: skip
    def count(code: int) -> int:
        return int((look.codes == code).sum())

    right = [one.cosine for row, one in samples.judgements.items() if alignment.answers.get(row) == 1]
    wrong = [one.cosine for row, one in samples.judgements.items() if alignment.answers.get(row) == 0]
    return Report(
        vectors=str(request.vectors), space=space.name, label=space.label, rows=archive.rows, dim=archive.dim,
        kind=archive.described, dry_run=request.dry_run, exhaustive=terms.exhaustive,
        confidence=terms.confidence, step=alignment.step, bridge=max(terms.bridge * alignment.step, 8),
        entries=look.notes["entries"], beyond=look.notes["beyond"], repeated=look.notes["repeated"],
        absent=look.notes["absent"], examples=look.notes["examples"], unregistered=look.notes["unregistered"],
        without_image=count(NO_IMAGE), had_vector=count(HAS_VECTOR), unreadable=count(UNREADABLE),
        unusable=count(UNUSABLE), conflicts=count(CONFLICT), copies=count(COPY), askable=count(ASKABLE),
        asked=len(alignment.answers), computed=samples.computed,
        right=len(right), wrong=len(wrong), unknown=len(alignment.answers) - len(right) - len(wrong),
        alike=sum(one.alike for one in samples.judgements.values()),
        median_right=float(np.median(right)) if right else None, lowest_right=min(right, default=None),
        median_wrong=float(np.median(wrong)) if wrong else None,
        unasked_reasons=dict(samples.reasons.most_common(5)), complete=alignment.complete,
        proven_rows=int(alignment.accepted.sum()), ranges=alignment.ranges,
        hints=hints(archive, alignment, samples, request.offset),
        root=request.root or (request.source.name if request.source else ""),
    )  # fmt: skip


def _keep(report: Report) -> None:
    """The newest report of each archive stays, for whoever asks later why something was accepted."""
    folder = Path(settings.IMAGESEARCH_DATA) / "adoptions"
    digest = hashlib.blake2b(report.vectors.encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()
    path = folder / f"report-{digest}{'-dry-run' if report.dry_run else ''}.json"
    report.kept_at = str(path)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(report.as_dict(), indent=1))
    os.replace(temporary, path)
