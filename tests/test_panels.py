"""What other apps add to pages."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from search import panels
from tests.factories import make_image, make_user


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    for name in ("_progress", "_image_panels", "_health", "_admin_actions"):
        monkeypatch.setattr(panels, name, {})


@dataclass
class Row:
    stage: str
    waiting: int = 0
    done: int = 0
    failed: int = 0
    per_second: float | None = None
    eta_seconds: float | None = None


def rows() -> list[Row]:
    return [Row("read", waiting=3), Row("embed:look")]


def test_progress_is_asked_each_time_and_registered_once() -> None:
    panels.register_progress(rows)
    panels.register_progress(rows)
    assert [row.stage for row in panels.progress_rows()] == ["read", "embed:look"]


@pytest.mark.django_db
def test_image_panels_come_in_order_and_may_be_left_out() -> None:
    image, user = make_image(), make_user()
    panels.register_image_panel("people", lambda image, user: panels.ImagePanel("People", "p.html"), order=50)
    panels.register_image_panel("none", lambda image, user: None, order=1)
    panels.register_image_panel(
        "work", lambda image, user: panels.ImagePanel(f"Work of {image.pk}", "w.html"), order=10
    )
    assert [panel.title for panel in panels.image_panels(image, user)] == [f"Work of {image.pk}", "People"]
    panels.register_image_panel("people", lambda image, user: None)
    assert len(panels.image_panels(image, user)) == 1


def test_health_and_admin_actions_by_name() -> None:
    panels.register_health("queue", lambda: panels.Health("degraded", "No worker runs. Start one.", {"waiting": 3}))
    panels.register_health("index", lambda: panels.Health("ok"))
    assert [(name, part.status) for name, part in panels.health_parts().items()] == [
        ("queue", "degraded"),
        ("index", "ok"),
    ]
    for name in ("b", "a", "b"):
        panels.register_admin_action(panels.AdminAction(name, name.upper(), lambda *_: None, "search.source"))
    assert [action.name for action in panels.admin_actions("search.source")] == ["a", "b"]
    assert panels.admin_actions("search.image") == []
