"""The page that says which picture of a collection another one is."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from search import changes, embeddings, identification
from search.encoders import get_encoder
from search.models import Change, Image, Upload
from search.spaces import look_space
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


def painted(number: int, size: tuple[int, int] = (96, 64)) -> PIL.Image.Image:
    """Large patches of colour, as different as pictures are."""
    patches = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return PIL.Image.fromarray(patches).resize(size, PIL.Image.Resampling.BICUBIC)


def file_of(picture: PIL.Image.Image) -> SimpleUploadedFile:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return SimpleUploadedFile("query.png", out.getvalue(), "image/png")


def fill(source: Any, numbers: range) -> list[Image]:
    images = [make_image(source, f"p{number}.png") for number in numbers]
    encoder = get_encoder("look")
    vectors = encoder.encode_images([encoder.prepare(painted(number)) for number in numbers])
    embeddings.record(look_space(), np.array([image.pk for image in images], dtype=np.int64), vectors)
    changes.record(Change.Kind.IMAGES, [image.pk for image in images])
    return images


@pytest.fixture
def images(owner: Any) -> list[Image]:
    identification.reset_samples()
    return fill(make_source(owner=owner, name="Patches"), range(20))


def among(images: list[Image]) -> str:
    return f"source:{images[0].source_id}"


def test_a_picture_is_handed_in_and_the_verdict_has_an_address(signed_in: Client, images: list[Image]) -> None:
    page = signed_in.get("/identify/").content.decode()
    assert "Patches" in page and 'enctype="multipart/form-data"' in page
    answer = signed_in.post("/identify/", {"among": among(images), "picture": file_of(painted(3, (60, 40)))})
    assert answer.status_code == 302
    page = signed_in.get(answer["Location"])
    assert "This is very likely “p3.png”." in page.content.decode()
    assert page.context["found"].best.image == images[3] and len(page.context["tiles"]) == 20
    assert page["Cache-Control"] == "private, no-cache"
    token = Upload.objects.get().token
    assert f"/upload/{token}.jpg" in page.content.decode()
    # Another collection keeps the picture.
    answer = signed_in.post("/identify/", {"among": among(images), "upload": token, "space": "look"})
    assert "upload=" in answer["Location"] and "space=look" in answer["Location"]


def test_what_is_not_there_is_no_match(signed_in: Client, images: list[Image]) -> None:
    answer = signed_in.post("/identify/", {"among": among(images), "picture": file_of(painted(77))}, follow=True)
    page = answer.content.decode()
    assert "No good match. The nearest is" in page and "very likely" not in page


def test_an_image_of_the_library_is_identified_from_its_page(signed_in: Client, images: list[Image]) -> None:
    address = f"/identify/?like={images[4].pk}"
    assert address in signed_in.get(f"/image/{images[4].pk}/").content.decode()
    page = signed_in.get(address).content.decode()
    assert "p4.png" in page and f'value="{images[4].pk}"' in page
    found = signed_in.get(f"{address}&among={among(images)}").context["found"]
    assert images[4] not in [match.image for match in found.matches] and found.of == 19


def test_every_mistake_is_said_and_nothing_is_lost(signed_in: Client, images: list[Image]) -> None:
    here = among(images)
    for data, sentence in [
        ({"among": here}, "Choose, drop or paste a picture first."),
        ({"picture": file_of(painted(1))}, "Choose the source, album or tag to look in."),
        (
            {"among": here, "picture": SimpleUploadedFile("a.jpg", b"no picture")},
            "holds text",
        ),
        ({"among": here, "picture": SimpleUploadedFile("a.jpg", b"")}, "That file is empty."),
    ]:
        page = signed_in.post("/identify/", data, follow=True)
        assert page.status_code == 200 and sentence in page.content.decode(), data
    for query, sentence in [
        (f"among={here}&upload=gone", "no longer here"),
        (f"among={here}&like=999999", "no such picture that you may see"),
        (f"among={here}&like=" + "9" * 30, "no such picture that you may see"),
        (f"among=source:9999&like={images[0].pk}", "not there, or you may not see it"),
        (f"among=album:x&like={images[0].pk}", "not there, or you may not see it"),
        (f"among={here}&space=gone&like={images[0].pk}", "That space is no longer there"),
    ]:
        page = signed_in.get(f"/identify/?{query}")
        assert page.status_code == 422 and sentence in page.content.decode(), query
        assert 'name="among"' in page.content.decode(), "the form stays"


def test_strangers_see_nothing_of_it(client: Client, signed_in: Client, images: list[Image]) -> None:
    signed_in.post("/identify/", {"among": among(images), "picture": file_of(painted(3))})
    token = Upload.objects.get().token
    client.force_login(make_user("mallory"))
    page = client.get("/identify/").content.decode()
    assert "Patches" not in page and "Nothing to look in yet" in page
    for query in (f"among={among(images)}&upload={token}", f"among={among(images)}&like={images[0].pk}"):
        page = client.get(f"/identify/?{query}")
        assert (
            page.status_code == 422 and "Patches" not in page.content.decode() and "p0.png" not in page.content.decode()
        )
    client.logout()
    assert client.get("/identify/").status_code == 302 and client.post("/identify/").status_code == 302


def test_the_page_asks_the_database_the_same_for_few_and_many(
    signed_in: Client, owner: Any, images: list[Image]
) -> None:
    few = fill(make_source(owner=owner, name="Few"), range(40, 43))

    def queries(some: list[Image]) -> int:
        identification.reset_samples()
        with CaptureQueriesContext(connection) as caught:
            assert signed_in.get(f"/identify/?among={among(some)}&like={some[0].pk}").status_code == 200
        return len(caught)

    queries(few)
    assert queries(few) == queries(images)


def test_it_has_no_inline_code_and_loads_nothing_from_elsewhere(signed_in: Client, images: list[Image]) -> None:
    page = signed_in.get(f"/identify/?among={among(images)}&like={images[0].pk}")
    assert "unsafe" not in page["Content-Security-Policy"]
    text = page.content.decode()
    assert "style=" not in text and "http://" not in text and "https://" not in text
