"""axe-core finds nothing on any page: each address of the URLconf, as owner, viewer and stranger, on desktop and phone,
in light and dark, with every menu closed and open. A new page is taken up by itself, through the tables that
tests/test_second_user.py insists on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from search.models import AlbumShare, SourceAccess
from tests.browser.in_process import BASE, Pages
from tests.test_second_user import World, addresses

pytestmark = pytest.mark.django_db
AXE = (Path(__file__).parent.parent / "vendor/axe-core-4.14.1/axe.min.js").read_text()
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
QUICK = [(DESKTOP, "light", True)]
LOOKS = [(DESKTOP, "light", False), (DESKTOP, "dark", True), (PHONE, "light", True), (PHONE, "dark", False)]
"""Window, colours, and whether every menu is open."""

OTHER_PAGES = ["/nothing-here/", "/?q=rating:9", "/?q=name:nothing-is-called-so", "/browse/?tag=nothing"]
"""Pages without an address of their own: what is not there, what cannot be understood, what is empty."""

RUN = """async () => {
    document.getAnimations().forEach(one => one.finish());
    const found = await axe.run(document, {resultTypes: ['violations']});
    return found.violations.map(one => [one.impact, one.id, one.help, one.nodes.slice(0, 4).map(
        node => node.html.slice(0, 200) + ' | ' + (node.any.concat(node.all, node.none)[0] || {}).message)]);
}"""
OPEN = "open => document.querySelectorAll('details').forEach(one => { one.open = open })"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def pages(browser: Any, db: None) -> Iterator[Any]:
    """`pages(client)` opens a browser context that this client answers."""
    opened: list[Pages] = []

    def make(client: Client) -> Pages:
        opened.append(Pages(browser, client, viewport=DESKTOP, reduced_motion="reduce"))
        opened[-1].context.add_init_script(AXE)
        return opened[-1]

    yield make
    foreign = [address for one in opened for address in one.foreign]
    for one in opened:
        one.close()
    assert not foreign


def owner_of(world: World) -> Client:
    """Anna owns the folder and, here, runs the installation too: she is shown every page there is."""
    world.anna.is_staff = world.anna.is_superuser = True
    world.anna.save()
    return world.as_anna


def viewer_of(world: World) -> Client:
    """Bert may look at Anna's folder and her album, and change nothing."""
    SourceAccess.objects.create(source=world.source, user=world.bert, role=SourceAccess.Role.VIEWER)
    AlbumShare.objects.create(album=world.album, user=world.bert, role=AlbumShare.Role.VIEWER)
    return world.as_bert


def documents(world: World, client: Client, *, every: bool) -> list[str]:
    """The addresses that answer with a whole page (parts of pages, files and changes do not): every one, or the first
    of each name.
    """
    found: list[str] = []
    for name, pattern in addresses().items():
        pages = world.pages(name, pattern) if name != "signout" else []
        whole = [page for page in pages if is_document(client.get(page))]
        found += whole if every else whole[:1]
    return found + [page for page in OTHER_PAGES if is_document(client.get(page))]


def is_document(response: Any) -> bool:
    if response.streaming:
        b"".join(response.streaming_content)
        return False
    return response.get("Content-Type", "").startswith("text/html") and b"<html" in response.content


def findings(page: Any, address: str, looks: list[tuple[dict[str, int], str, bool]]) -> list[str]:
    found = []
    for size, scheme, menus in looks:
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.goto(BASE + address)
        page.evaluate(OPEN, menus)
        where = f"{address} ({size['width']} px, {scheme}, menus {'open' if menus else 'closed'})"
        for impact, rule, help, nodes in page.evaluate(RUN):
            found.append("\n      ".join([f"{where}: {impact} {rule}: {help}", *nodes]))
    return found


def test_no_page_has_a_finding(world: World, pages: Any) -> None:
    """Each page as its owner sees it, with every menu open."""
    page = pages(owner_of(world)).page()
    asked = documents(world, world.as_anna, every=False)
    assert len(asked) >= 25, "nearly every name has a page"
    found = [line for address in asked for line in findings(page, address, QUICK)]
    assert not found, "\n".join(found)


def _pairs() -> list[Any]:
    """Each person with each window and each colours; their other combinations are left to `make test-all`."""
    chosen = {("owner", 1), ("owner", 2), ("viewer", 0), ("viewer", 3), ("stranger", 1), ("stranger", 2)}
    return [
        pytest.param(
            who,
            look,
            marks=[] if (who, number) in chosen else [pytest.mark.rare],
            id=f"{who}-{look[0]['width']}-{look[1]}",
        )
        for who in ("owner", "viewer", "stranger")
        for number, look in enumerate(LOOKS)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("who", "look"), _pairs())
def test_no_page_has_a_finding_for_anybody_in_any_look(
    world: World, pages: Any, who: str, look: tuple[dict[str, int], str, bool]
) -> None:
    client = {"owner": owner_of, "viewer": viewer_of, "stranger": lambda _: Client()}[who](world)
    page = pages(client).page()
    found = [line for address in documents(world, client, every=True) for line in findings(page, address, [look])]
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS[:1] + LOOKS[-1:], ids=lambda one: f"{one[0]['width']}-{one[1]}")
def test_no_page_of_the_administration_has_a_serious_finding(
    world: World, pages: Any, look: tuple[dict[str, int], str, bool]
) -> None:
    page = pages(owner_of(world)).page()
    asked = ["/admin/"]
    for model in admin.site._registry:
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        asked.append(address)
    found = [line for address in asked for line in findings(page, address, [look])]
    found = [line for line in found if "): serious" in line or "): critical" in line]
    assert not found, "\n".join(found)
