"""The guide as pages: every chapter is shown, its links and pictures lead somewhere, and nothing of it is inline."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from search import handbook

pytestmark = pytest.mark.django_db


def test_every_chapter_is_a_page_whose_links_and_pictures_are_there(signed_in: Client) -> None:
    contents = signed_in.get("/help/").content.decode()
    chapters = handbook.contents()
    assert len(handbook.guide()) == 9 and len(chapters) > 14 and len({one.slug for one in chapters}) == len(chapters)
    links: set[str] = set()
    for one in chapters:
        assert f'href="/help/{one.slug}/"' in contents
        page = signed_in.get(f"/help/{one.slug}/").content.decode()
        assert "<h1" in page and ' style="' not in page and "<script>" not in page, one.slug
        links |= set(re.findall(r'(?:href|src)="(/help/[^"]*)"', page))
        assert not re.findall(r'(?:href|src)="(?!/|https?://|#)[^"]*"', page), f"{one.slug}: a link that leads nowhere"
    for link in links:
        address, _, part = link.partition("#")
        answer = signed_in.get(address)
        assert answer.status_code == 200, link
        if part:
            assert f'id="{part}"' in answer.content.decode(), link
    assert any(link.endswith(".png") for link in links)


def test_chapters_lead_on_to_the_next(signed_in: Client) -> None:
    page = signed_in.get("/help/finding/").content.decode()
    assert 'rel="prev" href="/help/first-hour/"' in page and 'rel="next" href="/help/curating/"' in page


@pytest.mark.parametrize("address", ["/help/nothing/", "/help/README/", "/help/picture/nothing.png"])
def test_what_is_not_in_the_guide_is_not_there(signed_in: Client, address: str) -> None:
    assert signed_in.get(address).status_code == 404


def test_the_guide_needs_a_sign_in(client: Client) -> None:
    for address in ("/help/", "/help/finding/", "/help/picture/search.png"):
        assert client.get(address)["Location"].startswith("/signin")
