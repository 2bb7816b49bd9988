"""The bytes of pictures: what one may see, and how it is sent."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from django.test import Client

from search import thumbnails
from search.models import Action, Image, Source
from search.views import grid
from search.views.files import safe_name
from tests.factories import make_image, make_source, make_user
from tests.pages.pictures import body, image_on_disk, jpeg

pytestmark = pytest.mark.django_db


# --- what one may see -------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/image/{}/", "/thumbnail/{}.jpg", "/picture/{}.jpg", "/original/{}/"])
def test_images_one_may_not_see_are_the_same_404_as_none(signed_in: Client, address: str) -> None:
    theirs = make_image(make_source(owner=make_user("bert")))
    hidden, absent = signed_in.get(address.format(theirs.pk)), signed_in.get(address.format(theirs.pk + 999))
    assert hidden.status_code == absent.status_code == 404
    assert hidden.content == absent.content


@pytest.mark.parametrize("verb", ["rate", "remove", "hide"])
def test_images_one_may_not_see_cannot_be_changed(signed_in: Client, verb: str) -> None:
    theirs = make_image(make_source(owner=make_user("bert")))
    assert signed_in.post(f"/image/{theirs.pk}/{verb}/", {"rating": "5"}).status_code == 404
    assert not Action.objects.exists()


def test_viewers_see_no_forms_and_may_not_change(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(viewer=owner))
    page = signed_in.get(f"/image/{image.pk}/").content.decode()
    assert "tag-box" not in page and "rating-5" not in page
    response = signed_in.post(f"/image/{image.pk}/rate/", {"rating": "5"})
    assert response.status_code == 403
    assert "ask an owner of their source to make you an editor." in response.content.decode()
    image.refresh_from_db()
    assert image.rating == 0


def test_lists_show_only_what_one_may_see(signed_in: Client, owner: Any) -> None:
    mine = make_image(make_source(owner=owner), "mine.jpg")
    make_image(make_source(owner=make_user("bert")), "theirs.jpg")
    for address in ["/", "/browse/", "/?q=name:jpg"]:
        page = signed_in.get(address).content.decode()
        assert f"/image/{mine.pk}/" in page, address
        assert "theirs.jpg" not in page, address


def test_tag_suggestions_come_from_images_one_may_see(signed_in: Client, owner: Any) -> None:
    from search import curation

    curation.tag([make_image(make_source(owner=owner)).pk], ["beach"], None)
    curation.tag([make_image(make_source(owner=make_user("bert"))).pk], ["bedroom secret"], None)
    options = signed_in.get("/tags/suggest/", {"tag": "be"}).content.decode()
    assert "beach" in options and "secret" not in options
    assert 'value="family, beach"' in signed_in.get("/tags/suggest/", {"tag": "family, be"}).content.decode()


# --- files ------------------------------------------------------------------------------------------


def test_thumbnail_is_kept_for_a_year_under_its_versioned_address(
    signed_in: Client, owner: Any, tmp_path: Path
) -> None:
    image = image_on_disk(make_source(tmp_path, owner=owner))
    thumbnails.save(image.pk, jpeg())
    versioned = signed_in.get(grid.thumbnail_url(image))
    assert versioned["Content-Type"] == "image/jpeg"
    assert versioned["Cache-Control"] == "private, max-age=31536000, immutable"
    assert versioned["X-Content-Type-Options"] == "nosniff"
    stale = signed_in.get(f"/thumbnail/{image.pk}.jpg?v=0123456789abcdef")
    assert "immutable" not in stale["Cache-Control"], "an address of other contents must not be kept"
    again = signed_in.get(f"/thumbnail/{image.pk}.jpg", headers={"If-None-Match": versioned["ETag"]})
    assert again.status_code == 304 and not again.content


def test_missing_thumbnail_is_a_placeholder_that_is_not_kept(signed_in: Client, owner: Any) -> None:
    image = make_image(make_source(owner=owner), state=Image.State.WAITING)
    response = signed_in.get(grid.thumbnail_url(image))
    assert response["Content-Type"] == "image/svg+xml"
    assert "no-store" in response["Cache-Control"]
    assert signed_in.get(f"/thumbnail/{image.pk}.jpg?strict=1").status_code == 404


@pytest.mark.parametrize(
    ("format", "suffix", "sent_as"),
    [("JPEG", "jpg", "image/jpeg"), ("PNG", "png", "image/png"), ("TIFF", "tif", "image/jpeg")],
)
def test_large_view_sends_what_browsers_show(
    signed_in: Client, owner: Any, tmp_path: Path, format: str, suffix: str, sent_as: str
) -> None:
    data = jpeg(format=format)
    image = image_on_disk(make_source(tmp_path, owner=owner), f"a.{suffix}", data, format=format, width=64, height=48)
    response = signed_in.get(grid.picture_url(image))
    assert response["Content-Type"] == sent_as and response["X-Content-Type-Options"] == "nosniff"
    sent = body(response)
    assert (sent == data) == (format != "TIFF")
    with PIL.Image.open(io.BytesIO(sent)) as shown:
        assert shown.size == (64, 48)


def test_large_view_falls_back_to_the_thumbnail_when_the_file_is_gone(
    signed_in: Client, owner: Any, tmp_path: Path
) -> None:
    image = image_on_disk(make_source(tmp_path, owner=owner))
    thumbnails.save(image.pk, jpeg("blue"))
    (tmp_path / "a.jpg").unlink()
    response = signed_in.get(grid.picture_url(image))
    assert body(response) == jpeg("blue") and "no-store" in response["Cache-Control"]
    assert signed_in.get(f"/original/{image.pk}/").status_code == 404


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"a.jpg", 'attachment; filename="a.jpg"'),
        ("Gr\u00fc\u00dfe \u732b.jpg".encode(), "attachment; filename*=utf-8''Gr%C3%BC%C3%9Fe%20%E7%8C%AB.jpg"),
        (b'quo"te;.jpg', 'attachment; filename="quo\\"te;.jpg"'),
        (b"line\r\nSet-Cookie: a=b.jpg", 'attachment; filename="line__Set-Cookie: a=b.jpg"'),
        (b"bad\xff\xfe.jpg", 'attachment; filename="bad_xff_xfe.jpg"'),
        (b"page.html", 'attachment; filename="page.html"'),
    ],
)
def test_original_is_a_download_whatever_its_name(
    signed_in: Client, owner: Any, tmp_path: Path, name: bytes, expected: str
) -> None:
    image = image_on_disk(make_source(tmp_path, owner=owner), name)
    response = signed_in.get(f"/original/{image.pk}/")
    assert response["Content-Disposition"] == expected
    assert response["X-Content-Type-Options"] == "nosniff"
    assert body(response) == jpeg()


def test_files_that_became_pages_are_never_sent_as_pages(signed_in: Client, owner: Any, tmp_path: Path) -> None:
    page = b"<html><script>alert(1)</script></html>"
    image = image_on_disk(make_source(tmp_path, owner=owner), "a.svg", page, format="")
    for address in [f"/original/{image.pk}/", f"/picture/{image.pk}.jpg"]:
        response = signed_in.get(address)
        kind, sent = response["Content-Type"], body(response)
        assert "html" not in kind
        assert sent != page or response["Content-Disposition"].startswith("attachment")


def test_links_out_of_the_source_are_not_followed(signed_in: Client, owner: Any, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg("green"))
    image = image_on_disk(make_source(root, owner=owner))
    (root / "a.jpg").unlink()
    (root / "a.jpg").symlink_to(secret)
    assert signed_in.get(f"/original/{image.pk}/").status_code == 404
    assert body(signed_in.get(f"/picture/{image.pk}.jpg")) != secret.read_bytes()
    Source.objects.update(follow_symlinks=True)
    assert body(signed_in.get(f"/original/{image.pk}/")) == secret.read_bytes()


def test_a_pipe_in_the_place_of_a_file_does_not_hang(signed_in: Client, owner: Any, tmp_path: Path) -> None:
    image = image_on_disk(make_source(tmp_path, owner=owner))
    (tmp_path / "a.jpg").unlink()
    os.mkfifo(tmp_path / "a.jpg")
    assert signed_in.get(f"/original/{image.pk}/").status_code == 404


@pytest.mark.parametrize("name", ["", "...", "\x00", "a" * 500, "/etc/passwd", "\u2028"])
def test_safe_names_are_never_empty_long_or_paths(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe) <= 200 and "/" not in safe and safe.isprintable()
