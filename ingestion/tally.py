"""The counters of the work ledger: waiting, done and failed of each stage, and the pace at which it is done.

    waiting = rows that wait, failed = rows that failed,
    done    = images that have the stage's result (see `describe_results`) and no row

They move in the transactions that move the work, so `recount()` always finds what is already there.
Only `ingestion.ledger` moves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Q
from django.utils import timezone

from ingestion.models import StageCount, StageTick, Work
from search.changes import COUNTER
from search.models import Counter, Embedding, EmbeddingSpace, Image

READ = "read"
EMBED = "embed:"
TICK_SECONDS = 10
_RECOUNTS = "recounts"
"""The name under which is counted how often counters were put right."""

_results: dict[str, Callable[[str], Q | Exists]] = {}


def describe_results(prefix: str, results: Callable[[str], Q | Exists]) -> None:
    """How to tell whether an image has a stage's result: `results(stage)` is a condition on Image."""
    _results[prefix] = results


def recount() -> int:
    """Set every counter to what is there; returns how many stages were counted wrong (0 when all is well).

    Outside of a transaction nobody waits while millions of rows are counted: counters and rows are read as they stood
    at one moment, and put right by the difference, which is the same ever after since both move together.
    """
    if connection.in_atomic_block:
        hold()
        return _put_right(_differences())
    while True:
        with _moment():
            before = _recounts()
            differences = _differences()
        with transaction.atomic():
            hold()
            if before == _recounts():  # else somebody put them right meanwhile
                return _put_right(differences)


def _recounts() -> int:
    return Counter.objects.filter(name=_RECOUNTS).values_list("value", flat=True).first() or 0


def _differences() -> dict[str, tuple[int, int, int]]:
    """{stage: (waiting, done, failed)}: what is there less what the counters say, where they differ or are not kept."""
    said = counts()
    found = {}
    for stage, numbers in count_anew().items():
        old = said.get(stage, (0, 0, 0))
        if stage not in said or old != numbers:
            found[stage] = (numbers[0] - old[0], numbers[1] - old[1], numbers[2] - old[2])
    return found


def _gone(stage: str) -> bool:
    """Whether the space that the stage fills was removed."""
    name = stage.removeprefix(EMBED)
    return name != stage and not EmbeddingSpace.objects.filter(name=name, removing=False).exists()


def _put_right(differences: dict[str, tuple[int, int, int]]) -> int:
    for stage, (waiting, done, failed) in sorted(differences.items()):
        if _gone(stage) and not StageCount.objects.filter(stage=stage).exists():
            continue  # its space was removed since it was counted
        move(stage, waiting=waiting, done=done, failed=failed)
    wrong = sum(any(numbers) for numbers in differences.values())
    if wrong and not Counter.objects.filter(name=_RECOUNTS).update(value=F("value") + 1):
        Counter.objects.bulk_create([Counter(name=_RECOUNTS, value=1)], ignore_conflicts=True)
    return wrong


@contextmanager
def _moment() -> Iterator[None]:
    """What the block reads is the database as it stands at one moment; it keeps nobody from writing."""
    mode = "ISOLATION LEVEL REPEATABLE READ, READ ONLY" if connection.vendor == "postgresql" else "DEFERRED"
    with connection.cursor() as cursor:
        cursor.execute(f"BEGIN {mode}")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def count_anew() -> dict[str, tuple[int, int, int]]:
    """{stage: (waiting, done, failed)} as counted from the rows themselves."""
    stages = set(Work.objects.order_by().values_list("stage", flat=True).distinct())
    stages |= set(StageCount.objects.values_list("stage", flat=True)) | {READ}
    stages |= {space.stage for space in EmbeddingSpace.objects.filter(kind=EmbeddingSpace.Kind.IMAGE)}
    found: dict[str, tuple[int, int, int]] = {}
    for stage in sorted(stages):
        states = dict(Work.objects.filter(stage=stage).order_by().values_list("state").annotate(n=Count("id")))
        found[stage] = (states.get(Work.State.WAITING, 0), count_done(stage), states.get(Work.State.FAILED, 0))
    return found


def counts() -> dict[str, tuple[int, int, int]]:
    """{stage: (waiting, done, failed)} as the counters say."""
    return {row.stage: (row.waiting, row.done, row.failed) for row in StageCount.objects.all()}


def prune_ticks(keep: timedelta = timedelta(days=2)) -> int:
    """Delete rate samples older than `keep`."""
    return StageTick.objects.filter(started_at__lt=timezone.now() - keep).delete()[0]


def hold() -> None:
    """Take the lock that every transaction that moves counters takes; see the module's text."""
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("The ledger is moved inside the transaction that it speaks of.")
    if connection.features.has_select_for_update:
        row = Counter.objects.select_for_update().filter(name=COUNTER)
        if not row.exists():
            Counter.objects.bulk_create([Counter(name=COUNTER, value=0)], ignore_conflicts=True)
        row.get()


def has_result(stage: str) -> Q | Exists:
    for prefix in sorted(_results, key=len, reverse=True):
        if stage.startswith(prefix):
            return _results[prefix](stage)
    raise LookupError(f"Nothing says how to find the results of the stage {stage!r}.")


def has_row(stage: str) -> Exists:
    return Exists(Work.objects.filter(image_id=OuterRef("pk"), stage=stage))


def count_done(stage: str, ids: Sequence[int] | None = None) -> int:
    """How many images (of these) have the result and no row."""
    images = Image.objects.filter(has_result(stage), ~has_row(stage))
    return (images if ids is None else images.filter(pk__in=ids)).count()


def move(stage: str, *, waiting: int = 0, done: int = 0, failed: int = 0) -> None:
    moves = {"waiting": F("waiting") + waiting, "done": F("done") + done, "failed": F("failed") + failed}
    if not StageCount.objects.filter(stage=stage).update(**moves):
        StageCount.objects.bulk_create([StageCount(stage=stage)], ignore_conflicts=True)
        StageCount.objects.filter(stage=stage).update(**moves)


def tick(stage: str, done: int) -> None:
    seconds = int(timezone.now().timestamp()) // TICK_SECONDS * TICK_SECONDS
    span = {"stage": stage, "started_at": datetime.fromtimestamp(seconds, tz=UTC)}
    if not StageTick.objects.filter(**span).update(done=F("done") + done):
        StageTick.objects.bulk_create([StageTick(**span)], ignore_conflicts=True)
        StageTick.objects.filter(**span).update(done=F("done") + done)


def _is_read(stage: str) -> Q:
    return Q(read_at__isnull=False)


def _is_embedded(stage: str) -> Exists:
    space = EmbeddingSpace.objects.filter(name=stage.removeprefix(EMBED)).values_list("pk", flat=True).first()
    return Exists(Embedding.objects.filter(image_id=OuterRef("pk"), space_id=space or 0))


describe_results(READ, _is_read)
describe_results(EMBED, _is_embedded)
