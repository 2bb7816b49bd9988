"""How everything stands, for the front page of the administration: from counters, a few files and indexed rows.

The same few queries whatever the size of the library; what asks the file system a little more is remembered for a
minute, and what cannot be asked is left out of the page, never an error on it.
"""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Count

from ingestion import backup_schedule, building, pausing, presence, progress
from ingestion.models import Crawl, Work
from search import panels, queues, thumbnails
from search.models import EmbeddingSpace, Image
from search.wording import agreeing, counted

log = logging.getLogger(__name__)

REMEMBER_SECONDS = 60.0
SAMPLE = 200
"""So many thumbnails are measured for the estimate of what all of them take."""
MOST_REASONS = 2_000
"""Reasons are counted among the newest so many failures."""
LITTLE_BYTES = 5_000_000_000
"""Less room than that on a disk is pointed out."""

_lock = threading.Lock()
_remembered: dict[str, tuple[float, Any]] = {}


NONE = queues.Tally(0)


@dataclass(frozen=True)
class Kind:
    """One kind of failure."""

    stage: str
    label: str
    number: int


@dataclass(frozen=True)
class Place:
    """One thing that takes room: its name, bytes (None: unknown), and whether they are estimated."""

    name: str
    bytes: int | None
    estimated: bool = False


@dataclass(frozen=True)
class Disk:
    """One disk that the program writes on."""

    names: str
    free: int
    total: int

    @property
    def percent(self) -> int:
        """How full it is."""
        return 100 * (self.total - self.free) // self.total if self.total else 0

    @property
    def little(self) -> bool:
        return self.free < LITTLE_BYTES


@dataclass(frozen=True)
class Dashboard:
    """What the front page shows."""

    spaces: list[building.Building] = field(default_factory=list)
    stages: list[progress.StageProgress] = field(default_factory=list)
    failed: list[Kind] = field(default_factory=list)
    reasons: list[tuple[str, int]] = field(default_factory=list)
    reasons_capped: bool = False
    unreadable: queues.Tally = NONE
    missing: queues.Tally = NONE
    removed: queues.Tally = NONE
    workers: int = 0
    waiting: int = 0
    rest: str = ""
    crawls: list[Crawl] = field(default_factory=list)
    last_crawl: Crawl | None = None
    places: list[Place] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    backups: bool = False
    last_backup: datetime | None = None
    backup_wrong: str = ""
    unverified: bool = False
    """No space was ever verified."""
    parts: list[tuple[str, panels.Health]] = field(default_factory=list)
    """What other parts of the program say of themselves, but the backups."""
    review: list[tuple[queues.Queue, queues.Tally]] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Work waits, and nobody does it."""
        return bool(self.waiting) and not self.workers and not self.rest


def dashboard(user: Any) -> Dashboard:
    """How everything stands. A constant number of queries."""
    stages = progress.report()
    rest = pausing.rest()
    spaces = building.buildings()
    crawls = list(Crawl.objects.select_related("source").order_by("-pk")[:20])
    reasons, capped = _reasons()
    health = panels.health_parts()
    backup = _backup(health.pop("backup", panels.Health("ok")))
    return Dashboard(
        spaces=spaces,
        stages=stages,
        failed=[Kind(row.stage, row.label, row.failed) for row in stages if row.failed],
        reasons=reasons,
        reasons_capped=capped,
        unreadable=_in_state(Image.State.UNREADABLE, user),
        missing=_in_state(Image.State.MISSING, user),
        removed=_in_state(Image.State.REMOVED, user),
        workers=len(presence.live_workers()),
        waiting=sum(row.waiting for row in stages),
        rest=rest.sentence if rest else "",
        crawls=[one for one in crawls if one.state == Crawl.State.RUNNING],
        last_crawl=next((one for one in crawls if one.state != Crawl.State.RUNNING), None),
        places=_safely(lambda: _lately("places", lambda: _places(spaces)), []),
        disks=_safely(_disks, []),
        backups=bool(backup.get("scheduled")),
        last_backup=backup.get("newest"),
        backup_wrong=backup.get("wrong", ""),
        unverified=not any(row.space.verified_at for row in spaces),
        parts=[(name.capitalize(), part) for name, part in health.items()],
        review=[(queue, queue.counter(user)) for queue in queues.all_queues()],
    )


def _in_state(state: str, user: Any) -> queues.Tally:
    return queues.tally(Image.objects.visible_to(user).filter(state=state))


def _reasons() -> tuple[list[tuple[str, int]], bool]:
    """The most frequent reasons among the newest failures, and whether there are more failures than were looked at."""
    newest = Work.objects.filter(state=Work.State.FAILED).order_by("state", "stage", "-newest", "-image")
    ids = list(newest.values_list("pk", flat=True)[: MOST_REASONS + 1])
    rows = Work.objects.filter(pk__in=ids[:MOST_REASONS]).order_by().values_list("reason").annotate(number=Count("pk"))
    found = sorted(rows, key=lambda one: (-one[1], one[0]))[:5]
    return [(str(reason), int(number)) for reason, number in found], len(ids) > MOST_REASONS


def _backup(found: panels.Health) -> dict[str, Any]:
    newest = found.details.get("newest")
    return {
        "scheduled": found.details.get("scheduled"),
        "newest": datetime.fromisoformat(newest) if newest else None,
        "wrong": found.sentence,
    }


def _places(spaces: list[building.Building]) -> list[Place]:
    found = [
        Place("Database", _database_bytes()),
        Place("Spaces", sum(row.bytes for row in spaces)),
        _thumbnails(),
        Place("Models", _folder_bytes(Path(settings.IMAGESEARCH_MODELS))),
    ]
    if (home := backup_schedule.folder()) is not None and home.is_dir():
        found.append(Place("Backups", sum(one.path.stat().st_size for one in backup_schedule.kept(home))))
    return found


def _database_bytes() -> int | None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_database_size(current_database())")
            return int(cursor.fetchone()[0])
    file = Path(str(connection.settings_dict["NAME"]))
    parts = [file, file.with_name(file.name + "-wal")]
    return sum(part.stat().st_size for part in parts if part.exists())


def _thumbnails() -> Place:
    """What the thumbnails take, from the sizes of a few hundred: a folder of a million files is not walked."""
    last = Image.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    ids = range(1, last + 1)
    chosen = ids if last <= SAMPLE else random.Random(last).sample(ids, SAMPLE)
    sizes = []
    for one in chosen:
        try:
            sizes.append(thumbnails.path_of(one).stat().st_size)
        except OSError:
            sizes.append(0)
    if not sizes:
        return Place("Thumbnails", 0)
    return Place("Thumbnails", sum(sizes) * last // len(sizes), estimated=last > SAMPLE)


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder of a few hundred files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def _disks() -> list[Disk]:
    """The disks that hold what the program writes, each once."""
    folders = {
        "data": Path(settings.IMAGESEARCH_DATA),
        "spaces": Path(settings.IMAGESEARCH_SPACES),
        "thumbnails": Path(settings.IMAGESEARCH_THUMBNAILS),
        "models": Path(settings.IMAGESEARCH_MODELS),
    }
    if (home := backup_schedule.folder()) is not None:
        folders["backups"] = home
    by_device: dict[int, tuple[list[str], Path]] = {}
    for name, folder in folders.items():
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        by_device.setdefault(folder.stat().st_dev, ([], folder))[0].append(name)
    disks = []
    for names, folder in by_device.values():
        usage = shutil.disk_usage(folder)
        disks.append(Disk(", ".join(names), usage.free, usage.total))
    return disks


def said_of_verification(space: EmbeddingSpace) -> str:
    """What the last verification found, in a few words."""
    if space.verified_at is None:
        return "never verified"
    if space.verified_fault:
        return space.verified_fault
    if space.verified_bad:
        return f"{counted(space.verified_bad, 'row')} {agreeing(space.verified_bad, 'was', 'were')} wrong"
    return f"all {counted(space.verified_rows, 'row')} right"


def _safely(ask: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return ask()
    except OSError as error:
        log.warning("A part of the administration's front page could not be asked: %s", error)
        return otherwise


def _lately(name: str, ask: Callable[[], Any]) -> Any:
    """The answer of the last minute, else a new one."""
    with _lock:
        at, answer = _remembered.get(name, (float("-inf"), None))
    if time.monotonic() - at > REMEMBER_SECONDS:
        answer = ask()
        with _lock:
            _remembered[name] = (time.monotonic(), answer)
    return answer


def forget() -> None:
    """Ask everything anew the next time."""
    _remembered.clear()
