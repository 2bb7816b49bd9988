"""Pictures people search with: private, small, without metadata, gone in time."""

from __future__ import annotations

import datetime as dt
import io
import os
import re
import stat
from pathlib import Path

import PIL.Image
import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.utils import timezone

from search import uploads
from search.errors import BadQuery, NotAllowed, TooLarge, TooSmall, Unreadable
from search.models import Upload
from tests.factories import make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def user():
    return make_user()


def picture(size=(1600, 900), colour="orange", format="JPEG", **options) -> bytes:
    out = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(out, format, **options)
    return out.getvalue()


def with_metadata() -> bytes:
    exif = PIL.Image.Exif()
    exif[0x010F] = "SECRET CAMERA"
    exif[0x0112] = 6
    return picture(exif=exif, icc_profile=None)


def test_what_is_kept_is_small_private_and_without_metadata(user, settings) -> None:
    upload = uploads.keep(SimpleUploadedFile("my holiday\x00.jpg", with_metadata()), user)
    assert len(upload.token) == 43 and upload.owner == user and upload.name == "my holiday .jpg"
    path = Path(settings.IMAGESEARCH_UPLOADS) / f"{upload.token}.jpg"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    data = path.read_bytes()
    assert b"SECRET" not in data and b"Exif" not in data
    kept = uploads.pixels(upload.token, user)
    assert kept.mode == "RGB" and kept.size == (576, 1024)
    red, green, blue = kept.tobytes()[:3]
    assert red > 245 and abs(green - 165) < 6 and blue < 8
    assert uploads.content(upload.token, user) == data


def test_two_tokens_never_meet(user) -> None:
    first, second = (uploads.keep(io.BytesIO(picture((64, 64))), user) for _ in range(2))
    assert first.token != second.token and re.fullmatch(r"[\w-]{43}", first.token)


def test_only_its_owner_sees_a_picture_and_only_in_time(user) -> None:
    upload = uploads.keep(io.BytesIO(picture()), user)
    said = set()
    for token, who in [
        (upload.token, make_user(staff=True)), (upload.token, AnonymousUser()), (upload.token, None), ("x" * 43, user),
        ("../" + upload.token, user),
    ]:  # fmt: skip
        for call in (uploads.pixels, uploads.content):
            with pytest.raises(BadQuery) as caught:
                call(token, who)
            said.add(str(caught.value))
    Upload.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    with pytest.raises(BadQuery) as caught:
        uploads.pixels(upload.token, user)
    said.add(str(caught.value))
    assert len(said) == 1 and "drop it again" in said.pop()


def test_a_file_that_is_gone_or_broken_is_the_same_sentence(user, settings) -> None:
    upload = uploads.keep(io.BytesIO(picture()), user)
    path = Path(settings.IMAGESEARCH_UPLOADS) / f"{upload.token}.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadQuery, match="again"):
        uploads.pixels(upload.token, user)
    path.unlink()
    with pytest.raises(BadQuery, match="again"):
        uploads.pixels(upload.token, user)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", Unreadable, "empty"),
        (b"%PDF-1.7 hello", Unreadable, "PDF"),
        (picture()[:4000], Unreadable, "cut off"),
        (picture((8, 8)), TooSmall, "8 x 8"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(user, settings, data: bytes, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        uploads.keep(SimpleUploadedFile("x.jpg", data), user)
    assert not Upload.objects.exists()
    assert not list(Path(settings.IMAGESEARCH_UPLOADS).glob("*"))


def test_a_bomb_and_a_huge_file_are_refused(user, settings, monkeypatch) -> None:
    settings.IMAGESEARCH_MAX_MEGAPIXELS = 1
    with pytest.raises(TooLarge, match="megapixels"):
        uploads.keep(io.BytesIO(picture((2000, 1000), format="PNG")), user)
    monkeypatch.setattr(uploads, "MAX_BYTES", 1000)
    with pytest.raises(TooLarge, match="smaller copy"):
        uploads.keep(io.BytesIO(b"\xff" * 2000), user)


def test_one_must_be_signed_in(settings) -> None:
    for who in (AnonymousUser(), None, make_user(is_active=False)):
        with pytest.raises(NotAllowed, match="Sign in"):
            uploads.keep(io.BytesIO(picture()), who)


@pytest.mark.django_db(transaction=True)
def test_expire_deletes_rows_and_files_once_committed(user, settings) -> None:
    old, new = (uploads.keep(io.BytesIO(picture((64, 64))), user) for _ in range(2))
    folder = Path(settings.IMAGESEARCH_UPLOADS)
    Upload.objects.filter(pk=old.pk).update(expires_at=timezone.now())
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        uploads.expire()
        raise ZeroDivisionError
    assert (folder / f"{old.token}.jpg").exists() and Upload.objects.count() == 2
    assert uploads.expire() == 1
    assert [path.stem for path in folder.iterdir()] == [new.token]
    assert list(Upload.objects.values_list("token", flat=True)) == [new.token]
    assert uploads.expire() == 0


@pytest.mark.django_db(transaction=True)
def test_files_without_a_row_go_after_an_hour(user, settings) -> None:
    upload = uploads.keep(io.BytesIO(picture((64, 64))), user)
    folder = Path(settings.IMAGESEARCH_UPLOADS)
    user.delete()
    (folder / "upload-x.part").write_bytes(b"x")
    (folder / "notes.txt").write_text("not ours")
    assert uploads.expire() == 0
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert uploads.expire() == 2
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert upload.token


@pytest.mark.django_db(transaction=True)
def test_the_oldest_give_way(user, settings, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "KEPT_FOR_EACH", 2)
    kept = [uploads.keep(io.BytesIO(picture((64, 64))), user).token for _ in range(4)]
    assert set(Upload.objects.values_list("token", flat=True)) == set(kept[2:])
    assert {path.stem for path in Path(settings.IMAGESEARCH_UPLOADS).iterdir()} == set(kept[2:])


def test_a_full_disk_leaves_nothing_behind(user, settings, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        uploads.keep(io.BytesIO(picture((64, 64))), user)
    assert not Upload.objects.exists() and not list(Path(settings.IMAGESEARCH_UPLOADS).iterdir())
