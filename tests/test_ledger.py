"""The work ledger: nothing lost, nothing handed out twice, counters that equal a recount."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from datetime import timedelta

import numpy as np
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from ingestion import ledger, presence, tally
from ingestion.models import StageCount, StageTick, Work
from search.models import Embedding, EmbeddingSpace, Image
from tests.factories import make_image, make_source

pytestmark = pytest.mark.django_db(transaction=True)
EMBED = "embed:one"


@pytest.fixture
def space() -> EmbeddingSpace:
    return EmbeddingSpace.objects.create(name="one", encoder="x", key="x", label="X", dim=4, text=False)


def make_images(count: int, **fields) -> list[int]:
    source = make_source()
    return [make_image(source, mtime_ns=1_000 + n, state="waiting", **fields).pk for n in range(count)]


def assert_counts_true() -> None:
    said = {stage: numbers for stage, numbers in ledger.counts().items() if any(numbers)}
    assert said == {stage: numbers for stage, numbers in ledger.count_anew().items() if any(numbers)}
    assert ledger.recount() == 0


def read_them(owner: str, ids: list[int]) -> int:
    with transaction.atomic():
        Image.objects.filter(pk__in=ids).update(read_at=timezone.now(), state="ready")
        return ledger.finish(owner, "read", ids)


def test_queued_work_is_claimed_newest_first_with_all_its_stages(space) -> None:
    ids = make_images(5)
    ledger.queue(ids, ["read", EMBED])
    batch = ledger.claim("me", ["read", EMBED], 3)
    assert [item.image_id for item in batch.items] == ids[:1:-1]
    assert all(set(item.stages) == {"read", EMBED} for item in batch.items)
    assert ledger.counts() == {"read": (5, 0, 0), EMBED: (5, 0, 0)}
    assert_counts_true()


def test_what_one_worker_holds_another_passes_over_even_for_another_stage(space) -> None:
    ids = make_images(4)
    ledger.queue(ids, ["read", EMBED])
    first = ledger.claim("a:1:x", ["read"], 2)
    second = ledger.claim("b:1:x", ["read", EMBED], 10)
    assert {i.image_id for i in first.items} & {i.image_id for i in second.items} == set()
    assert len(second) == 2
    assert not ledger.claimable(["read", EMBED]) or len(ledger.claim("c:1:x", ["read"], 10)) == 0


def test_finished_work_leaves_no_row_and_moves_the_counters() -> None:
    ids = make_images(3)
    ledger.queue(ids, ["read"])
    ledger.claim("me", ["read"], 10)
    assert read_them("me", ids[:2]) == 2
    assert list(Work.objects.values_list("image_id", flat=True)) == ids[2:]
    assert ledger.counts()["read"] == (1, 2, 0)
    assert sum(StageTick.objects.values_list("done", flat=True)) == 2
    assert_counts_true()


def test_queueing_anew_takes_the_claim_away() -> None:
    (one,) = make_images(1)
    ledger.queue([one], ["read"])
    ledger.claim("me", ["read"], 1)
    ledger.queue([one], ["read"])
    assert ledger.still_mine("me", "read", np.array([one])).tolist() == []
    assert read_them("me", [one]) == 0
    assert Work.objects.count() == 1


def test_done_work_that_is_queued_again_is_no_longer_done(space) -> None:
    ids = make_images(2)
    ledger.queue(ids, ["read", EMBED])
    ledger.claim("me", ["read", EMBED], 2)
    read_them("me", ids)
    with transaction.atomic():
        Embedding.objects.create(image_id=ids[0], space=space, crc32=1)
        ledger.finish("me", EMBED, ids[:1])
    assert ledger.counts() == {"read": (0, 2, 0), EMBED: (1, 1, 0)}
    ledger.queue(ids[:1], ["read", EMBED])
    assert ledger.counts() == {"read": (1, 1, 0), EMBED: (2, 0, 0)}
    assert_counts_true()
    ledger.drop(ids[:1])  # the file went missing: what was done before stands again
    assert ledger.counts() == {"read": (0, 2, 0), EMBED: (1, 1, 0)}
    assert_counts_true()


def test_failed_work_stays_failed_until_retried() -> None:
    one, two = make_images(2)
    ledger.queue([one, two], ["read"])
    ledger.claim("me", ["read"], 2)
    assert ledger.fail([ledger.Failure(one, "read", "It is broken.", size=5, mtime_ns=6)], "me") == 1
    row = Work.objects.get(image=one)
    assert (row.state, row.reason, row.size, row.mtime_ns, row.lease_owner) == ("failed", "It is broken.", 5, 6, "")
    assert ledger.counts()["read"] == (1, 0, 1)
    ledger.release("me")
    assert [i.image_id for i in ledger.claim("me", ["read"], 9).items] == [two]
    Image.objects.filter(pk=one).update(state="unreadable", reason="It is broken.")
    assert ledger.retry([one]) == 1
    assert ledger.counts()["read"] == (2, 0, 0)
    assert Image.objects.get(pk=one).state == "waiting"
    assert [i.image_id for i in ledger.claim("me", ["read"], 9).items] == [one]
    assert_counts_true()


def test_retry_takes_ids_a_stage_or_a_queryset(space) -> None:
    ids = make_images(3)
    ledger.queue(ids, ["read", EMBED])
    ledger.fail([ledger.Failure(i, stage, "no") for i in ids for stage in ("read", EMBED)])
    assert ledger.retry(stage=EMBED) == 3
    assert ledger.retry(images=Image.objects.filter(pk=ids[0])) == 1
    assert ledger.retry(ids) == 2
    assert ledger.retry() == 0
    assert_counts_true()


def test_a_failure_is_recorded_only_where_the_claim_stands() -> None:
    (one,) = make_images(1)
    ledger.queue([one], ["read"])
    ledger.claim("me", ["read"], 1)
    ledger.queue([one], ["read"])
    assert ledger.fail([ledger.Failure(one, "read", "late")], "me") == 0
    assert Work.objects.get().state == "waiting"


def test_release_hands_back_without_counting_the_attempt() -> None:
    ids = make_images(2)
    ledger.queue(ids, ["read"])
    ledger.claim("me", ["read"], 2)
    assert ledger.release("me", ids[:1]) == 1
    assert Work.objects.get(image=ids[0]).attempts == 0
    ledger.release("me", ids[1:], wait_seconds=60)
    assert Work.objects.get(image=ids[1]).attempts == 1
    assert [i.image_id for i in ledger.claim("you", ["read"], 9).items] == ids[:1]
    assert ledger.waits(["read"]) and not ledger.claimable(["read"])


def test_an_expired_lease_is_claimed_again_and_the_death_counts() -> None:
    (one,) = make_images(1)
    ledger.queue([one], ["read"])
    for died in range(ledger.GIVE_UP_AFTER):
        (item,) = ledger.claim(f"elsewhere:{died}:x", ["read"], 1).items
        assert item.attempts == died
        Work.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert len(ledger.claim("me", ["read"], 1)) == 0
    row = Work.objects.get()
    assert row.state == "failed" and "5 times" in row.reason
    assert_counts_true()


def test_renew_extends_only_ones_own_leases() -> None:
    ids = make_images(2)
    ledger.queue(ids, ["read"])
    ledger.claim("me", ["read"], 1)
    ledger.claim("you", ["read"], 1)
    soon = timezone.now() + timedelta(seconds=1)
    Work.objects.update(lease_until=soon)
    assert ledger.renew("me") == 1
    assert Work.objects.filter(lease_owner="me", lease_until__gt=soon).exists()
    assert Work.objects.get(lease_owner="you").lease_until == soon


def test_sources_that_are_not_there_are_left_out() -> None:
    here, away = make_source(), make_source()
    one, two = make_image(here, mtime_ns=1), make_image(away, mtime_ns=2)
    ledger.queue([one.pk, two.pk], ["read"])
    batch = ledger.claim("me", ["read"], 5, scope=ledger.Scope(without=(away.pk,)))
    assert [i.image_id for i in batch.items] == [one.pk]
    assert not ledger.claimable(["read"], scope=ledger.Scope(without=(away.pk,)))
    assert ledger.claimable(["read"])


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="the planner of PostgreSQL goes by old statistics")
def test_queue_all_looks_each_image_up_and_leaves_the_planner_as_it_was(space) -> None:
    def ways() -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM pg_settings WHERE name LIKE 'enable_%' AND setting = 'off' ORDER BY 1")
            return [name for (name,) in cursor.fetchall()]

    make_image()
    before = ways()
    with CaptureQueriesContext(connection) as queries:
        assert ledger.queue_all(EMBED) == 1
    said = [one["sql"] for one in queries.captured_queries]
    assert "SET LOCAL enable_seqscan = off" in said
    put = next(n for n, sql in enumerate(said) if "INSERT INTO ingestion_work" in sql)
    assert said.index("SET LOCAL enable_seqscan = off") < put
    assert ways() == before


def test_queue_all_fills_what_is_lacking_and_can_be_repeated(space, monkeypatch) -> None:
    monkeypatch.setattr(ledger, "_RANGE", 3)
    ids = make_images(8)
    Image.objects.filter(pk=ids[0]).update(state="missing")
    Image.objects.filter(pk=ids[1]).update(state="unreadable")
    Embedding.objects.create(image_id=ids[2], space=space, crc32=1)
    ledger.recount()
    ledger.queue(ids[3:4], [EMBED])
    told: list[int] = []

    def go_on(queued: int) -> bool:
        told.append(queued)
        return queued < 1

    stopped_after = ledger.queue_all(EMBED, go_on)
    assert 1 <= stopped_after < 4 and told[-1] == stopped_after, "whoever asks it to end waits for one range"
    assert_counts_true()
    assert ledger.queue_all(EMBED) == 4 - stopped_after
    assert ledger.queue_all(EMBED) == 0
    assert ledger.counts()[EMBED] == (5, 1, 0)
    assert_counts_true()


def test_ensure_leaves_failures_alone() -> None:
    one, two = make_images(2)
    ledger.queue([one], ["read"])
    ledger.fail([ledger.Failure(one, "read", "no")])
    ledger.ensure([one, two], ["read"])
    assert dict(Work.objects.values_list("image_id", "state")) == {one: "failed", two: "waiting"}
    assert_counts_true()


def test_counters_roll_back_with_the_transaction() -> None:
    ids = make_images(2)
    with pytest.raises(RuntimeError), transaction.atomic():
        ledger.queue(ids, ["read"])
        raise RuntimeError
    assert Work.objects.count() == 0 and not StageCount.objects.exists()


def test_finish_belongs_in_a_transaction() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        ledger.finish("me", "read", [1])


def test_claiming_costs_the_same_number_of_queries_for_few_and_many(space) -> None:
    ids = make_images(60)
    ledger.queue(ids, ["read", EMBED])
    with CaptureQueriesContext(
        connection,
    ) as few:
        assert len(ledger.claim("me", ["read", EMBED], 2)) == 2
    with CaptureQueriesContext(connection) as many:
        assert len(ledger.claim("me", ["read", EMBED], 50)) == 50
    assert len(few) == len(many)


def test_the_claim_reads_its_index_and_not_the_whole_table() -> None:
    make_images(3)
    if connection.vendor != "sqlite":
        pytest.skip("the planner of PostgreSQL chooses by statistics that a small table has not")
    rows = Work.objects.filter(state="waiting", stage="read").order_by("-newest", "-image_id")[:10]
    plan = rows.explain()
    assert "work_newest_first" in plan and "TEMP B-TREE" not in plan


def _hold_and_wait(ready, in_hand: int) -> None:
    """Runs in a process of its own: takes work, says so, and waits to be killed."""
    connection.close()
    me = presence.Presence()
    ledger.claim(me.owner, ["read"], 10)
    with me.in_hand(in_hand):
        ready.send(me.owner)
        signal.pause()


def _killed_holder(in_hand: int) -> str:
    connection.close()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_hold_and_wait, args=(there, in_hand))
    process.start()
    assert here.poll(30)
    owner = here.recv()
    assert not presence.is_dead(owner)
    assert ledger.release_dead() == 0
    process.kill()
    process.join()
    return owner


def test_a_killed_worker_is_released_at_once_and_only_what_it_had_in_hand_is_blamed() -> None:
    one, two = make_images(2)
    ledger.queue([one, two], ["read"])
    owner = _killed_holder(in_hand=two)
    assert presence.is_dead(owner) and owner in presence.owners() and owner not in presence.live_workers()
    assert ledger.release_dead() == 2
    assert dict(Work.objects.values_list("image_id", "attempts")) == {one: 0, two: 1}
    assert presence.owners() == []
    assert len(ledger.claim("me", ["read"], 5)) == 2


def test_a_dead_worker_without_its_file_is_known_by_its_process() -> None:
    (one,) = make_images(1)
    ledger.queue([one], ["read"])
    owner = _killed_holder(in_hand=0)
    presence.bury(owner)
    assert ledger.release_dead() == 1
    assert Work.objects.get().attempts == 1  # nobody can tell: the attempt stands
    assert not presence.is_dead("another-host:1:abc")
    assert not presence.is_dead(f"{owner.split(':')[0]}:{os.getpid()}:abc")


def test_many_claimers_at_once_share_the_work_without_overlap() -> None:
    ids = make_images(120)
    ledger.queue(ids, ["read"])
    taken: dict[str, list[int]] = {}
    errors: list[BaseException] = []

    def work(owner: str) -> None:
        try:
            while batch := ledger.claim(owner, ["read"], 7).items:
                got = [item.image_id for item in batch]
                taken.setdefault(owner, []).extend(got)
                read_them(owner, got)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(f"worker{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(i for got in taken.values() for i in got) == ids
    assert ledger.counts()["read"] == (0, 120, 0)
    assert_counts_true()


def test_queueing_while_others_finish_neither_deadlocks_nor_drifts() -> None:
    ids = make_images(40)
    ledger.queue(ids, ["read"])
    errors: list[BaseException] = []

    def finishes() -> None:
        try:
            for _ in range(30):
                got = [item.image_id for item in ledger.claim("finisher", ["read"], 9).items]
                read_them("finisher", got)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    def queues() -> None:
        try:
            for n in range(30):
                ledger.queue(ids[n % 5 :: 5], ["read"])
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=target) for target in (finishes, queues, queues)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert_counts_true()


def test_recount_puts_drifted_counters_right_and_says_how_many() -> None:
    ledger.queue(make_images(2), ["read"])
    StageCount.objects.filter(stage="read").update(waiting=7)
    assert ledger.recount() == 1
    assert ledger.counts()["read"] == (2, 0, 0)
    StageCount.objects.filter(stage="read").update(waiting=7)
    with transaction.atomic():
        assert ledger.recount() == 1
    assert ledger.counts()["read"] == (2, 0, 0)


@pytest.mark.parametrize("recounted_too", [False, True])
def test_nobody_waits_for_a_recount_and_what_is_written_meanwhile_is_not_lost(
    recounted_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = make_images(6)
    ledger.queue(ids[:2], ["read"])
    StageCount.objects.filter(stage="read").update(waiting=7, failed=1)
    real, others = tally.count_anew, []

    def counting() -> dict[str, tuple[int, int, int]]:
        found = real()
        if not others:
            others.append(threading.Thread(target=meanwhile))
            others[0].start()
            others[0].join(20)
            assert not others[0].is_alive()
        return found

    def meanwhile() -> None:
        ledger.queue(ids[2:], ["read"])
        if recounted_too:
            ledger.recount()
        connection.close()

    monkeypatch.setattr(tally, "count_anew", counting)
    assert ledger.recount() == (0 if recounted_too else 1)
    assert ledger.counts()["read"] == (6, 0, 0) == real()["read"]


def test_what_a_worker_still_has_in_hand_is_not_claimed_by_it_again() -> None:
    """Queued anew while it is in hand, an image must not get a second claim under the same name."""
    one, two = make_images(2)
    ledger.queue([one, two], ["read"])
    ledger.claim("me", ["read"], 2)
    ledger.queue([two], ["read"])
    assert len(ledger.claim("me", ["read"], 2, besides={one, two})) == 0
    assert [item.image_id for item in ledger.claim("me", ["read"], 2, besides={one}).items] == [two]


@pytest.mark.django_db(transaction=True)
def test_a_recount_does_not_bring_back_the_counters_of_a_space_that_goes_meanwhile(monkeypatch):
    space = EmbeddingSpace.objects.create(name="gone", encoder="x", key="k", label="L", dim=8, text=False)
    StageCount.objects.create(stage=space.stage, waiting=7)
    hold, gone = tally.hold, []

    def hold_late() -> None:
        if not gone:
            gone.append(StageCount.objects.filter(stage=space.stage).delete())
            EmbeddingSpace.objects.filter(pk=space.pk).delete()
        hold()

    monkeypatch.setattr(tally, "hold", hold_late)
    ledger.recount()
    assert not StageCount.objects.filter(stage=space.stage).exists()
