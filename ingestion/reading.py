"""The `read` stage: what a file's bytes say of it, and how that is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from ingestion import ledger
from ingestion.fingerprints import Fingerprint, fingerprint
from ingestion.metadata import Metadata, read_metadata
from ingestion.pictures import Picture
from search import changes, review, thumbnails
from search.embeddings import disbelieve
from search.errors import StoreFault
from search.faultpoints import reach
from search.models import (
    Change,
    Embedding,
    EmbeddingSpace,
    Image,
    ImageMetadata,
    ImageTag,
    RefusedKeyword,
    Tag,
    tag_key,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY_LENGTH = 255


@dataclass(frozen=True)
class ReadResult:
    """What one file's bytes said."""

    sha256: bytes
    size: int
    mtime_ns: int
    format: str
    width: int
    height: int
    metadata: Metadata
    fingerprint: Fingerprint
    thumbnail: bytes
    """The encoded thumbnail: put in its place by the commit, so that one of old bytes never replaces a newer one."""


class ReadStage:
    """SHA-256, metadata, fingerprints, thumbnail; keywords become tags; the image becomes ready."""

    name = ledger.READ
    side = 512
    """Twice the thumbnail's short side."""
    batch = 0

    def prepare(self, picture: Picture) -> ReadResult:
        decoded = picture.decoded
        return ReadResult(
            sha256=hashlib.sha256(picture.data).digest(),
            size=picture.size,
            mtime_ns=picture.mtime_ns,
            format=decoded.format,
            width=decoded.width,
            height=decoded.height,
            metadata=read_metadata(picture.data, sidecars=picture.sidecars),
            fingerprint=fingerprint(picture.thumbnail),
            thumbnail=picture.encoded_thumbnail,
        )

    def compute(self, inputs: Sequence[Any]) -> Sequence[Any]:
        return inputs

    def commit(self, owner: str, ids: Sequence[int], results: Sequence[ReadResult]) -> None:
        """One transaction: the images' columns, their tags from the file, the change log, the finished work.

        The thumbnails are written before it and put in their places in it, where the claim still stands.
        """
        found = dict(zip(ids, results, strict=True))
        with _thumbnails_beside(found) as beside, transaction.atomic():
            before = _locked(list(found))
            mine = ledger.still_mine(owner, self.name, np.array(sorted(before), dtype=np.int64)).tolist()
            kept = {i: found[i] for i in mine}
            if not kept:
                return
            _update(kept)
            _keywords(kept)
            review.settle(kept)
            _forget_old_vectors(kept, before)
            _more_stages(kept, before)
            changes.record(Change.Kind.IMAGES, list(kept))
            ledger.finish(owner, self.name, list(kept))
            for image_id in kept:
                thumbnails.place(image_id, beside.pop(image_id))
            reach("before-read-commit")
        reach("after-read-commit")


def mark_unreadable(owner: str, failures: Sequence[ledger.Failure]) -> None:
    """These files cannot be read: the image says why, its `read` work is failed, its other work is dropped."""
    said = {one.image_id: one for one in failures}
    with transaction.atomic():
        before = _locked(list(said))
        mine = ledger.still_mine(owner, ledger.READ, np.array(sorted(before), dtype=np.int64)).tolist()
        now = []
        for i in mine:
            state = before[i][1] if before[i][1] == Image.State.REMOVED else Image.State.UNREADABLE
            fields: dict[str, Any] = {"state": state, "reason": said[i].reason}
            if said[i].size is not None:
                fields.update(size=said[i].size, mtime_ns=said[i].mtime_ns)
            Image.objects.filter(pk=i).update(**fields)
            now.append(said[i])
        if now:
            changes.record(Change.Kind.IMAGES, mine)
            ledger.fail(now, owner)
            ledger.drop(mine, waiting_only=True)
        reach("before-failure-commit")


def mark_missing(owner: str, ids: Sequence[int]) -> None:
    """These files are gone: the images say so, and nothing is left to do for them."""
    with transaction.atomic():
        before = _locked(list(ids))
        gone = ledger.holds(owner, list(before))
        Image.objects.filter(pk__in=gone).exclude(state=Image.State.REMOVED).update(state=Image.State.MISSING)
        if gone:
            changes.record(Change.Kind.IMAGES, gone)
            ledger.drop(gone)


def read_first(owner: str, ids: Sequence[int]) -> None:
    """What these images wait for needs their thumbnails, which are not there: they are to be read before it."""
    with transaction.atomic():
        _locked(ids)
        mine = ledger.holds(owner, ids)
        ledger.ensure(mine, [ledger.READ])
        ledger.release(owner, mine)


@contextmanager
def _thumbnails_beside(results: dict[int, ReadResult]) -> Iterator[dict[int, Path]]:
    """{id: the thumbnail, written beside its place}; what the block leaves in it is deleted. Raises StoreFault."""
    beside: dict[int, Path] = {}
    try:
        for image_id, result in results.items():
            try:
                beside[image_id] = thumbnails.write_beside(image_id, result.thumbnail)
            except OSError as error:
                raise StoreFault(
                    f"The thumbnail of image {image_id} could not be written: {error.strerror or error}. "
                    "Make room or mend the folder of IMAGESEARCH_THUMBNAILS, then start again."
                ) from error
        yield beside
    finally:
        for path in beside.values():
            with suppress(OSError):
                path.unlink()


Before = tuple[bytes | None, str, bool, int, int]
"""sha256, state, whether the image was ever read, size and mtime_ns as they were before the commit."""


def _locked(ids: Sequence[int]) -> dict[int, Before]:
    """{id: what was known}; the image rows are locked first, as every transaction does."""
    rows = Image.objects.filter(pk__in=ids).order_by("pk")
    if connection.features.has_select_for_no_key_update:
        rows = rows.select_for_update(no_key=True)
    known = rows.values_list("pk", "sha256", "state", "read_at", "size", "mtime_ns")
    return {pk: (sha256, state, read_at is not None, size, ns) for pk, sha256, state, read_at, size, ns in known}


_PLAIN = (
    "size", "mtime_ns", "sha256", "format", "width", "height", "shown_at", "captured_at", "captured_offset", "camera",
    "lens", "exposure_time", "aperture", "iso", "focal_length", "latitude", "longitude", "altitude", "description",
    "perceptual_hash", "sharpness", "uniformity", "colours", "read_at",
)  # fmt: skip


def _update(results: dict[int, ReadResult]) -> None:
    """All columns in one statement an image, prepared once: a person's title and rating are left alone."""
    columns = {field.name: field for field in Image._meta.concrete_fields}
    fields = [columns[name] for name in _PLAIN]
    sets = [f'"{field.column}" = %s' for field in fields]
    for name, empty in (("title", "''"), ("rating", "0")):
        mine = f"\"{name}_origin\" = '{Image.Origin.PERSON}'"
        sets.append(f'"{name}" = CASE WHEN {mine} THEN "{name}" ELSE COALESCE(%s, {empty}) END')
        sets.append(f"\"{name}_origin\" = CASE WHEN {mine} THEN '{Image.Origin.PERSON}' ELSE %s END")
    sets.append(
        f'"state" = CASE WHEN "state" = \'{Image.State.REMOVED}\' THEN "state" ELSE \'{Image.State.READY}\' END'
    )
    sets.append("\"reason\" = ''")
    now = timezone.now()
    rows = []
    for image_id, result in results.items():
        values = _columns(result, now)
        row: list[Any] = [field.get_db_prep_save(values[field.name], connection) for field in fields]
        title, rating = result.metadata.title or None, result.metadata.rating or None
        row += [title, Image.Origin.FILE if title else Image.Origin.NONE]
        row += [rating, Image.Origin.FILE if rating else Image.Origin.NONE]
        rows.append([*row, image_id])
    with connection.cursor() as cursor:
        cursor.executemany(f"UPDATE {Image._meta.db_table} SET {', '.join(sets)} WHERE id = %s", rows)
    ImageMetadata.objects.bulk_create(
        [ImageMetadata(image_id=image_id, exif=result.metadata.exif) for image_id, result in results.items()],
        update_conflicts=True,
        unique_fields=["image"],
        update_fields=["exif"],
    )


def _columns(result: ReadResult, now: datetime) -> dict[str, Any]:
    said, print_ = result.metadata, result.fingerprint
    return {
        "size": result.size, "mtime_ns": result.mtime_ns, "sha256": result.sha256, "format": result.format,
        "width": result.width, "height": result.height,
        "shown_at": said.captured_at or _EPOCH + timedelta(microseconds=result.mtime_ns // 1000),
        "captured_at": said.captured_at, "captured_offset": said.captured_offset, "camera": said.camera,
        "lens": said.lens, "exposure_time": said.exposure_time, "aperture": said.aperture, "iso": said.iso,
        "focal_length": said.focal_length, "latitude": said.latitude, "longitude": said.longitude,
        "altitude": said.altitude, "description": said.description,
        "perceptual_hash": print_.perceptual_hash, "sharpness": print_.sharpness, "uniformity": print_.uniformity,
        "colours": print_.colours, "read_at": now,
    }  # fmt: skip


def _keywords(results: dict[int, ReadResult]) -> None:
    """The file's keywords as tags; replaces only tags that came from the file, never what a person refused."""
    names: dict[str, str] = {}
    keys: dict[int, set[str]] = {}
    for image_id, result in results.items():
        keys[image_id] = set()
        for keyword in result.metadata.keywords:
            name = " ".join(keyword.split())[:200]
            while len(tag_key(name)) > _KEY_LENGTH:  # case folding may lengthen
                name = name[:-10]
            if key := tag_key(name):
                names.setdefault(key, name)
                keys[image_id].add(key)
    tags = _tags(names)
    links = ImageTag.objects.filter(image_id__in=list(results))
    refused = set(RefusedKeyword.objects.filter(image_id__in=list(results)).values_list("image_id", "tag_id"))
    want = {(i, tags[key]) for i, some in keys.items() for key in some} - refused
    have = {(i, tag): origin for i, tag, origin in links.values_list("image_id", "tag_id", "origin")}
    gone = [pair for pair, origin in have.items() if origin == Image.Origin.FILE and pair not in want]
    for start in range(0, len(gone), 200):
        condition = Q()
        for image_id, tag_id in gone[start : start + 200]:
            condition |= Q(image_id=image_id, tag_id=tag_id)
        links.filter(condition).delete()
    new = [ImageTag(image_id=i, tag_id=t, origin=Image.Origin.FILE) for i, t in sorted(want - have.keys())]
    ImageTag.objects.bulk_create(new, ignore_conflicts=True, batch_size=500)


def _tags(names: dict[str, str]) -> dict[str, int]:
    """{key: id of the tag}, made where it is not there."""
    if not names:
        return {}
    found = dict(Tag.objects.filter(key__in=list(names)).values_list("key", "pk"))
    missing = [Tag(name=name, key=key) for key, name in sorted(names.items()) if key not in found]
    if missing:
        Tag.objects.bulk_create(missing, ignore_conflicts=True, batch_size=500)
        found = dict(Tag.objects.filter(key__in=list(names)).values_list("key", "pk"))
    return found


def _is_renewed(before: Before, result: ReadResult) -> bool:
    """Whether the image's vectors, if it has any, are of other bytes than these.

    An image that was never read can have vectors all the same: adopted ones, of the file as it was registered. (A
    crawl that finds such a file changed forgets them at once.)
    """
    sha256, _, was_read, size, mtime_ns = before
    return sha256 != result.sha256 if was_read else (size, mtime_ns) != (result.size, result.mtime_ns)


def _forget_old_vectors(results: dict[int, ReadResult], before: dict[int, Before]) -> None:
    """Vectors are of the bytes that were read before: in other spaces than those being filled nobody replaces them,
    and elsewhere their work may have been dropped or may fail."""
    renewed = [i for i, result in results.items() if _is_renewed(before[i], result)]
    found: dict[int, list[int]] = {}
    for space, image_id in Embedding.objects.filter(image_id__in=renewed).values_list("space_id", "image_id"):
        found.setdefault(space, []).append(image_id)
    for one in EmbeddingSpace.objects.filter(pk__in=list(found)).order_by("pk"):
        with ledger.losing_results(one.stage, found[one.pk]):
            disbelieve(one, np.array(sorted(found[one.pk]), dtype=np.int64))


def _more_stages(results: dict[int, ReadResult], before: dict[int, Before]) -> None:
    """A space made since the image was registered, or a content nobody announced, needs its work too."""
    from ingestion.stages import wanted

    stages = [stage for stage in wanted() if stage != ledger.READ]
    changed = [i for i, result in results.items() if before[i][0] not in (None, result.sha256)]
    same = sorted(set(results) - set(changed))
    ledger.ensure(changed, stages)
    ledger.ensure(same, stages, lacking=True)
