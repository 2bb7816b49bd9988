"""The registry of review queues."""

from __future__ import annotations

import pytest

from search import queues
from search.models import Image
from search.queues import Queue, Tally
from tests.factories import make_image


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(queues, "_queues", {})


def queue(name: str, label: str = "", order: int = 100) -> Queue:
    return Queue(name, label or name, "Look at it.", lambda user: Tally(3), lambda: f"/{name}/", order)


@pytest.mark.usefixtures("registry")
def test_queues_stand_in_order_and_a_second_one_of_a_name_replaces_the_first():
    queues.register_queue(queue("copies"))
    queues.register_queue(queue("blurred", order=1))
    queues.register_queue(queue("copies", "Exact copies"))
    assert [one.label for one in queues.all_queues()] == ["blurred", "Exact copies"]
    assert queues.queue_named("copies").label == "Exact copies"
    assert queues.queue_named("nothing") is None


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", ["", "Copies", "ex/act", "exact copies", "kopiên"])
def test_a_name_has_to_fit_an_address(name):
    with pytest.raises(ValueError, match="cannot be a queue's name"):
        queues.register_queue(queue(name))


@pytest.mark.django_db
def test_a_tally_counts_no_further_than_it_says():
    for _ in range(4):
        make_image()
    assert queues.tally(Image.objects.all()) == Tally(4)
    assert queues.tally(Image.objects.all(), 4) == Tally(4)
    assert queues.tally(Image.objects.all(), 3) == Tally(3, capped=True)
    assert queues.tally_of(2_500) == Tally(1_000, capped=True)
    assert [str(one) for one in (Tally(0), Tally(12), Tally(1_000, capped=True))] == ["0", "12", "1,000+"]
    assert not Tally(0) and Tally(1)
