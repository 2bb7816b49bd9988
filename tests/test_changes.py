"""The change log: numbered in the order of commits, without gaps."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from django.db import connection, transaction

from search import changes
from search.compact import pack_ids, unpack_ids
from search.models import Change


@pytest.mark.django_db
def test_numbers_follow_each_other_and_a_rollback_gives_its_number_back() -> None:
    with transaction.atomic():
        first = changes.record(Change.Kind.IMAGES, [3, 1])
    with pytest.raises(RuntimeError), transaction.atomic():
        changes.record(Change.Kind.IMAGES, [2])
        raise RuntimeError
    with transaction.atomic():
        second = changes.record(Change.Kind.EMBEDDINGS, np.array([9]), space=4)
    assert second == first + 1 == changes.last_number()
    assert unpack_ids(Change.objects.get(number=first).ids).tolist() == [1, 3]


@pytest.mark.django_db(transaction=True)
def test_recording_outside_a_transaction_is_refused() -> None:
    with pytest.raises(transaction.TransactionManagementError):
        changes.record(Change.Kind.IMAGES, [1])


@pytest.mark.django_db(transaction=True)
def test_a_reader_never_misses_a_late_commit() -> None:
    """Many writers that commit late: a reader that follows by number sees each number once, in order."""
    stop = threading.Event()
    seen: list[int] = []
    faults: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(15):
                with transaction.atomic():
                    changes.record(Change.Kind.IMAGES, [number])
                    stop.wait(0.002)
        except BaseException as fault:  # carried to the main thread
            faults.append(fault)
        finally:
            connection.close()

    def follow() -> None:
        try:
            last = 0
            while not stop.is_set() or last < changes.last_number():
                for number in (
                    Change.objects.filter(number__gt=last).order_by("number").values_list("number", flat=True)
                ):
                    seen.append(number)
                    last = number
        except BaseException as fault:  # carried to the main thread
            faults.append(fault)
        finally:
            connection.close()

    reader = threading.Thread(target=follow)
    writers = [threading.Thread(target=write) for _ in range(3)]
    for thread in [reader, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert not faults
    assert seen == list(range(1, 46))


@pytest.mark.django_db
def test_pruning_keeps_the_newest() -> None:
    with transaction.atomic():
        for number in range(10):
            changes.record(Change.Kind.IMAGES, [number])
    assert changes.prune(keep=4) == 6
    assert list(Change.objects.values_list("number", flat=True)) == [7, 8, 9, 10]
    assert changes.last_number() == 10


@pytest.mark.parametrize("ids", [[], [5], [1, 2, 3], list(range(1, 50_001)), [2**40, 1, 7, 7]])
def test_packed_ids_come_back_sorted_and_once(ids: list[int]) -> None:
    assert unpack_ids(pack_ids(ids)).tolist() == sorted(set(ids))
    assert len(pack_ids(list(range(1, 50_001)))) < 1000
