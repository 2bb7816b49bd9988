"""`GET /health`: one word for anyone, the parts for signed-in staff. Quick at any size, and never an exception.

Every part looks at counters, a file or an indexed row, so the answer takes milliseconds with a million
images; what asks the file system a little more is remembered for a few seconds.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ingestion import pausing, presence, tally
from ingestion.models import StageTick
from search import panels, warmup
from search.errors import StoreFault
from search.models import EmbeddingSpace, Image
from search.panels import Health
from search.spaces import LOOK
from search.vectors import get_store
from search.wording import agreeing, counted

log = logging.getLogger(__name__)

LEAST_FREE_BYTES = 1_000_000_000
OVERDUE = timedelta(minutes=5)
REMEMBER_SECONDS = 5.0
MIGRATE = "Run: python manage.py migrate"

_lock = threading.Lock()
_remembered: dict[str, tuple[float, Health]] = {}


@login_not_required
@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """200 for "ok" and "degraded", 503 for "down"; the parts only for signed-in staff."""
    found = parts()
    word = overall(found)
    body: dict[str, Any] = {"status": word}
    if _is_staff(request):
        body["parts"] = {
            name: {
                "status": part.status,
                **({"sentence": part.sentence} if part.sentence else {}),
                **part.details,
            }
            for name, part in found.items()
        }
    return JsonResponse(body, status=503 if word == "down" else 200)


@login_not_required
@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """200 once this server process has loaded model, vectors and index, or has found that it cannot; 503 before."""
    if warmup.is_ready():
        return JsonResponse({"ready": True})
    sentence = "The server is loading what searches need. Pages answer; the first search would wait."
    return JsonResponse({"ready": False, "sentence": sentence}, status=503)


def parts() -> dict[str, Health]:
    """Every part of the program by name; a part that cannot be asked is degraded, never an exception."""
    found = {"database": _safely("database", database, failure="down")}
    if found["database"].status != "down":
        for name, check in (("queue", queue), ("workers", workers), ("coverage", coverage)):
            found[name] = _safely(name, check)
    found["model"] = _safely("model", lambda: _lately("model", model))
    found["disk"] = _safely("disk", disk)
    try:
        found.update(panels.health_parts())
    except Exception:
        log.exception("A registered part of the health report failed.")
        found["registered parts"] = Health("degraded", "A part could not be asked; the log says why.")
    return found


def overall(found: dict[str, Health]) -> str:
    """The worst of the parts, as one word."""
    words = {part.status for part in found.values()}
    return next((word for word in ("down", "degraded") if word in words), "ok")


def database() -> Health:
    started = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        tables = connection.introspection.table_names(cursor) if _tables_unknown() else None
    if tables is not None:
        if Image._meta.db_table not in tables:
            return Health("down", f"The database has no tables yet. {MIGRATE}")
        _remembered["tables"] = (time.monotonic(), Health("ok"))
    milliseconds = round((time.perf_counter() - started) * 1000, 1)
    return Health("ok", details={"vendor": connection.vendor, "milliseconds": milliseconds})


def queue() -> Health:
    """Whether the background tasks are run: nothing that is due has waited for minutes."""
    from django_q.models import OrmQ, Schedule

    late = timezone.now() - OVERDUE
    details: dict[str, Any] = {"broker": "redis" if "redis" in settings.Q_CLUSTER else "database"}
    if "redis" in settings.Q_CLUSTER:
        import redis

        client = redis.Redis.from_url(settings.Q_CLUSTER["redis"], socket_timeout=0.3, socket_connect_timeout=0.3)
        try:
            details["waiting"] = client.llen(f"django_q:{settings.Q_CLUSTER['name']}:q")
        except (redis.RedisError, OSError) as error:
            return Health("degraded", f"Redis does not answer ({error}): start it, or unset REDIS_URL.", details)
        finally:
            client.close()
        stuck = False
    else:
        details["waiting"] = OrmQ.objects.count()
        stuck = OrmQ.objects.filter(lock__lt=late).exists()
    overdue = Schedule.objects.filter(next_run__lt=late).exclude(repeats=0).count()
    details["overdue_schedules"] = overdue
    if stuck or overdue:
        sentence = "Background tasks wait and nothing runs them: start the program, or python manage.py qcluster"
        return Health("degraded", sentence, details)
    return Health("ok", details=details)


def workers() -> Health:
    """Whether somebody does the work that waits."""
    live = presence.live_workers()
    waiting = sum(numbers[0] for numbers in tally.counts().values())
    lately = StageTick.objects.filter(started_at__gt=timezone.now() - timedelta(minutes=2)).exists()
    details: dict[str, Any] = {"live": len(live), "waiting": waiting, "working": lately}
    rest = pausing.rest()
    if rest:
        details["resting"] = rest.sentence
    if waiting and not live and not lately and not rest:
        waits = f"{counted(waiting, 'step')} {agreeing(waiting, 'waits', 'wait')}"
        sentence = f"{waits} and no worker runs: start the program, or python manage.py process"
        return Health("degraded", sentence, details)
    return Health("ok", details=details)


def model() -> Health:
    from search.encoders import availability

    found = availability()
    details = {"encoder": found.spec, "label": found.label}
    return Health("ok" if found.ready else "degraded", found.sentence, details)


def coverage() -> Health:
    """How much of the library the serving space covers; being filled is no fault, a file that is gone is one."""
    images = EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE)
    space = images.filter(active=True).first() or images.filter(name=LOOK).first()
    numbers = tally.counts()
    spaces = {}
    for stage, (waiting, done, failed) in numbers.items():
        if stage.startswith(tally.EMBED) and (total := waiting + done + failed):
            spaces[stage.removeprefix(tally.EMBED)] = {
                "embedded": done,
                "of": total,
                "percent": round(100 * done / total, 2),
            }
    waiting, done, failed = numbers.get(tally.READ, (0, 0, 0))
    details = {
        "active": space.name if space else LOOK,
        "read": done,
        "waiting": waiting,
        "failed": failed,
        "spaces": spaces,
    }
    if space is not None and spaces.get(space.name, {}).get("embedded"):
        try:
            get_store(space).file.require()
        except StoreFault as fault:
            return Health("degraded", str(fault), details)
    return Health("ok", details=details)


def disk() -> Health:
    """Room on the disks that hold what the program writes."""
    folders = {
        "data": settings.IMAGESEARCH_DATA,
        "spaces": settings.IMAGESEARCH_SPACES,
        "thumbnails": settings.IMAGESEARCH_THUMBNAILS,
    }
    free = {name: shutil.disk_usage(_existing(Path(folder))).free for name, folder in folders.items()}
    details = {"free_bytes": free}
    short = [name for name, size in free.items() if size < LEAST_FREE_BYTES]
    if short:
        names = ", ".join(str(folders[name]) for name in short)
        return Health("degraded", f"Less than 1 GB is free for {names}: make room.", details)
    return Health("ok", details=details)


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _tables_unknown() -> bool:
    return "tables" not in _remembered


def _safely(name: str, check: Callable[[], Health], *, failure: Any = "degraded") -> Health:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  whatever is wrong with a part, the report names it and goes on
        log.warning("Health of %s could not be asked: %s", name, error)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Health(failure, f"It could not be asked ({first}).")


def _lately(name: str, check: Callable[[], Health]) -> Health:
    """The answer of the last few seconds, else a new one."""
    now = time.monotonic()
    with _lock:
        at, answer = _remembered.get(name, (0.0, None))
        if answer is None or now - at > REMEMBER_SECONDS:
            answer = check()
            _remembered[name] = (now, answer)
        return answer


def forget() -> None:
    """Ask every part anew the next time."""
    _remembered.clear()


def _is_staff(request: HttpRequest) -> bool:
    """Whether a signed-in member of staff asks; a database that is down makes everyone a stranger."""
    try:
        user = request.user
        return bool(user.is_authenticated and user.is_active and user.is_staff)
    except Exception as error:  # noqa: BLE001  the database or the session store may be down in any way
        log.warning("Nobody can be recognised: %s", error)
        return False
