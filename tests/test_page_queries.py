"""Every list page costs the same number of queries for 2 and for 50 rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ingestion.models import SeenFile, Work
from search import albums, changes, curation
from search.models import Change, Image, path_digest
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db

START = datetime(2024, 5, 1, tzinfo=UTC)


def _library(number: int, owner, source) -> None:  # type: ignore[no-untyped-def]
    """`number` more images of one source, each with a problem, a change in the history and a foreign file."""
    for _ in range(number):
        image = make_image(source, shown_at=START - timedelta(days=9 * Image.objects.count()))
        with transaction.atomic():
            changes.record(Change.Kind.IMAGES, [image.pk])
        curation.tag([image.pk], ["beach", f"tag {image.pk}"], owner)
        Work.objects.create(image=image, stage="read", state=Work.State.FAILED, newest=1, reason="It ends too early.")
        path = f"{image.pk}.pdf".encode()
        SeenFile.objects.create(
            source=source, path=path, path_digest=path_digest(path), directory=path_digest(b""), size=1, mtime_ns=1,
            why=SeenFile.Why.UNSUPPORTED, kind=f"kind {image.pk % 7}",
        )  # fmt: skip


def _cost(client: Client, address: str) -> tuple[int, str]:
    for _ in range(2):  # whatever is made once (spaces, bitmaps, the log followed) is made
        client.get(address)
    with CaptureQueriesContext(connection) as captured:
        response = client.get(address)
    assert response.status_code == 200, address
    return len(captured), response.content.decode()


@pytest.mark.parametrize("staff", [False, True])
@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/?q=tag:beach",
        "/?q=photo",
        "/browse/",
        "/browse/?tag=beach&rating=0",
        "/problems/",
        "/problems/?kind=kind+1&why=unsupported",
        "/history/",
        "/progress/",
    ],
)
def test_list_page_costs_the_same_for_2_and_50_rows(address: str, staff: bool, client: Client) -> None:
    owner = make_user(staff=staff)
    source = make_source(owner=owner)
    client.force_login(owner)
    _library(2, owner, source)
    few, _ = _cost(client, address)
    _library(48, owner, source)
    many, page = _cost(client, address)
    assert many == few, f"{few} queries for 2 rows, {many} for 50"
    if "progress" not in address and "kind" not in address:
        assert page.count("<li class=") >= 50, "the page must really show the rows"


def test_a_later_page_of_browse_costs_no_more_than_the_first(client: Client) -> None:
    owner = make_user()
    client.force_login(owner)
    source = make_source(owner=owner)
    for number in range(200):
        make_image(source, shown_at=START - timedelta(hours=number))
    second = client.get("/browse/").context["more_href"]
    assert second
    assert _cost(client, second)[0] <= _cost(client, "/browse/")[0]


@pytest.mark.parametrize("staff", [False, True])
@pytest.mark.parametrize("address", ["/albums/", "/albums/{}/", "/tags/", "/filters/", "/copies/", "/identify/"])
def test_what_is_counted_costs_the_same_for_2_and_50(address: str, staff: bool, client: Client) -> None:
    owner = make_user(staff=staff)
    source = make_source(owner=owner)
    client.force_login(owner)
    first, _ = albums.create("Album 0", owner)

    def more(number: int) -> None:
        before = Image.objects.count()
        _library(number, owner, source)
        ids = list(Image.objects.order_by("pk").values_list("pk", flat=True)[before:])
        for n, pk in enumerate(ids):
            Image.objects.filter(pk=pk).update(sha256=bytes([1 + (before + n) // 2]) * 32, camera=f"Camera {pk}")
            albums.add(albums.create(f"Album {pk}", owner)[0], [pk], owner)
        albums.add(first, ids, owner)
        with transaction.atomic():
            changes.record(Change.Kind.IMAGES, ids)

    more(2)
    few, _ = _cost(client, address.format(first.pk))
    more(48)
    many, page = _cost(client, address.format(first.pk))
    assert many == few, f"{few} queries for 2 rows, {many} for 50"
    if address not in {"/filters/", "/identify/"}:
        assert page.count("<li") >= 50, "the page must really show the rows"
