"""What other apps add to the pages of `search`, registered in their `AppConfig.ready()`.

Registering under a name that is taken replaces what was there, so `ready()` may run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from search.models import Image


class ProgressRow(Protocol):
    """One stage of the work in the background, as `ingestion.progress.StageProgress` has it."""

    @property
    def stage(self) -> str: ...
    @property
    def waiting(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def per_second(self) -> float | None: ...
    @property
    def eta_seconds(self) -> float | None: ...


@dataclass(frozen=True)
class ImagePanel:
    """A part of the image page: its heading, and the template that is included with this context."""

    title: str
    template: str
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Health:
    """The state of one part of the program; `sentence` says what is wrong and what mends it, "" when all is well."""

    status: Literal["ok", "degraded", "down"]
    sentence: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AdminAction:
    """An action of a list in the admin: `run(modeladmin, request, queryset)`."""

    name: str
    description: str
    run: Callable[[Any, Any, Any], Any]
    of: str
    """Whose list: the model's label in small letters, "search.source"."""


@dataclass(frozen=True)
class Chore:
    """Something that can be asked for a selection besides curation: `run(ids, user)` answers a sentence."""

    name: str
    label: str
    run: Callable[[Any, Any], str]


ProgressSource = Callable[[], Iterable[ProgressRow]]
PanelBuilder = Callable[[Image, Any], ImagePanel | None]
HealthCheck = Callable[[], Health]

_progress: dict[str, ProgressSource] = {}
_image_panels: dict[str, tuple[int, PanelBuilder]] = {}
_health: dict[str, HealthCheck] = {}
_admin_actions: dict[str, AdminAction] = {}
_chores: dict[str, Chore] = {}


def register_progress(report: ProgressSource) -> None:
    """Add a callable that answers the rows of the progress shown on search pages."""
    _progress[f"{report.__module__}.{report.__qualname__}"] = report


def progress_rows() -> list[ProgressRow]:
    """Every registered row, in the order of registration."""
    return [row for report in _progress.values() for row in report()]


def register_image_panel(name: str, build: PanelBuilder, *, order: int = 100) -> None:
    """Add a panel to the image page: `build(image, user)` answers it, or None for no panel on this image."""
    _image_panels[name] = (order, build)


def image_panels(image: Image, user: Any) -> list[ImagePanel]:
    """The panels of an image's page, by their `order`, then by name. The caller has checked that `user` may see it."""
    built = (
        build(image, user) for _, (_, build) in sorted(_image_panels.items(), key=lambda item: (item[1][0], item[0]))
    )
    return [panel for panel in built if panel is not None]


def register_health(name: str, check: HealthCheck) -> None:
    """Add a part to the health report; `check()` answers quickly and handles its own failures."""
    _health[name] = check


def health_parts() -> dict[str, Health]:
    """Every part by name, in the order of registration."""
    return {name: check() for name, check in _health.items()}


def register_admin_action(action: AdminAction) -> None:
    """Add an action to a list of the admin."""
    _admin_actions[action.name] = action


def admin_actions(of: str) -> list[AdminAction]:
    """The registered actions of one list, by name. What can be done to images is a chore: see `register_chore`."""
    return [_admin_actions[name] for name in sorted(_admin_actions) if _admin_actions[name].of == of]


def register_chore(chore: Chore) -> None:
    """Add something to what can be done with a selection."""
    _chores[chore.name] = chore


def chores() -> list[Chore]:
    """What other apps offer to do with a selection."""
    return list(_chores.values())
