"""Numbers and the words that go with them."""

from __future__ import annotations

import pytest
from django.core.management import call_command

from ingestion import ledger
from ingestion.guard import Findings, judge
from ingestion.models import StageCount
from search.models import Image
from search.wording import agreeing, counted
from tests.factories import make_image


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1_000, "1,000 images")]
)
def test_a_noun_agrees_with_its_number(number: int, said: str) -> None:
    assert counted(number, "image") == said


def test_a_plural_of_its_own_is_given() -> None:
    assert [counted(n, "query", "queries") for n in (0, 1, 2)] == ["0 queries", "1 query", "2 queries"]
    assert [agreeing(n, "waits", "wait") for n in (0, 1, 2)] == ["wait", "waits", "wait"]


def said(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    call_command(*command)
    return capsys.readouterr().out


@pytest.mark.django_db
def test_stats_and_retry_speak_of_none_one_and_many(capsys) -> None:
    assert said(capsys, "stats").startswith("0 images, 0 of them readable\n")
    assert said(capsys, "problems", "--retry") == "Nothing that failed is to be tried again.\n"
    images = [make_image()]
    assert said(capsys, "stats").startswith("1 image, 1 of them readable\n")
    for again in ("1 failed stage waits again; `manage.py process` tries it.\n",
                  "2 failed stages wait again; `manage.py process` tries them.\n"):  # fmt: skip
        for image in images:
            ledger.queue([image.pk], ["read"])
            ledger.fail([ledger.Failure(image.pk, "read", "It is broken.")])
        assert said(capsys, "problems", "--retry") == again
        images.append(make_image())
    assert said(capsys, "stats").startswith("3 images, 3 of them readable\n")


@pytest.mark.django_db
def test_repair_says_only_what_was_mended(capsys) -> None:
    make_image(state=Image.State.WAITING)
    assert said(capsys, "repair") == (
        "1 image without work queued.\nRun `manage.py process` to do the queued work.\n"
    )  # fmt: skip
    assert said(capsys, "repair") == "Nothing was wrong.\n"
    StageCount.objects.filter(stage="read").update(waiting=7)
    assert said(capsys, "repair") == "1 counter put right.\n"


@pytest.mark.parametrize(
    ("known", "absent", "begins"),
    [(1, 1, "1 of 1 known picture in it was"), (40, 39, "39 of 40 known pictures in it were")],
)
def test_the_guard_speaks_of_one_and_many(known: int, absent: int, begins: str) -> None:
    findings = Findings(found=1, known=known, absent=absent, same_root=False)
    assert judge(findings, place="it", mass_change=0.5).startswith(f"{begins} not found")
