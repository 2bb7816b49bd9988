"""Pause, resume and quiet hours: workers rest within seconds, lose nothing, and go on."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.management import call_command

from ingestion import ledger, pausing, tasks
from ingestion.models import Work
from ingestion.register import crawl
from ingestion.worker import Worker
from search.models import Counter
from tests import patterns
from tests.factories import make_source, make_user

COUNT = 1000
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.django_db
def test_quiet_hours_follow_the_clock_and_cross_midnight(settings):
    settings.TIME_ZONE = "UTC"
    settings.IMAGESEARCH_QUIET_HOURS = [(22 * 60, 7 * 60), (12 * 60, 13 * 60)]

    def at(hour: int, minute: int = 0) -> str:
        rest = pausing.rest(datetime(2026, 3, 1, hour, minute, 30, tzinfo=UTC))
        return rest.sentence if rest else ""

    assert at(21, 59) == "" and at(7) == "" and at(11, 59) == "" and at(13) == ""
    assert "until 07:00" in at(22) and "until 07:00" in at(6, 59) and "until 13:00" in at(12)
    now = datetime(2026, 3, 1, 23, tzinfo=UTC)
    assert pausing.resume(now) and pausing.rest(now) is None
    assert pausing.rest(datetime(2026, 3, 2, 6, 59, tzinfo=UTC)) is None, "for this night"
    assert pausing.rest(datetime(2026, 3, 2, 23, tzinfo=UTC)) is not None, "the next one is quiet again"


@pytest.mark.django_db
def test_the_commands_say_what_they_did(capsys):
    call_command("pause")
    call_command("pause")
    call_command("resume")
    call_command("resume")
    first, second, third, fourth = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("The work is paused since") and second.startswith("Nothing to do: The work is paused")
    assert third == "The work goes on." and fourth.startswith("Nothing to do")


@pytest.mark.django_db
def test_no_folder_is_read_again_while_the_work_rests(tmp_path):
    make_source(tmp_path)
    pausing.pause()
    assert tasks.crawl_due() == 0
    pausing.resume()
    assert tasks.crawl_due() == 1


@pytest.mark.django_db
def test_only_staff_pause_and_everybody_sees_it(client):
    user, staff = make_user(), make_user(staff=True)
    client.force_login(user)
    refused = client.post("/progress/pause/")
    assert refused.status_code == 403 and "up to those who run this installation" in refused.content.decode()
    assert client.post("/progress/resume/").status_code == 403
    assert "Pause the work" not in client.get("/progress/").content.decode()
    assert not Counter.objects.filter(name=pausing.PAUSED).exists()
    client.force_login(staff)
    assert client.get("/progress/pause/").status_code == 405
    assert "Pause the work" in client.get("/progress/").content.decode()
    assert client.post("/progress/pause/").status_code == 302
    page = client.get("/progress/").content.decode()
    assert "The work is paused since" in page and "Go on" in page and "Pause the work" not in page
    client.force_login(user)
    page = client.get("/progress/").content.decode()
    assert "The work is paused since" in page and "Go on" not in page
    client.force_login(staff)
    client.post("/progress/resume/")
    assert "The work is paused" not in client.get("/progress/").content.decode()


@pytest.mark.django_db(transaction=True)
def test_a_worker_rests_within_seconds_holds_nothing_and_goes_on(tmp_path, monkeypatch):
    # It looks every two seconds; these small pictures would all be read by then.
    monkeypatch.setattr("ingestion.worker._GLANCE_SECONDS", 0.05)
    crawl(make_source(patterns.folder_of(tmp_path / "photos", COUNT)))
    worker = Worker(only="read")
    thread = threading.Thread(target=_run, args=(worker,))
    thread.start()
    try:
        _wait(lambda: ledger.counts()["read"][1] > 0)
        pausing.pause()
        paused = time.monotonic()
        _wait(lambda: bool(worker._resting) and not Work.objects.exclude(lease_owner="").exists())
        assert time.monotonic() - paused < 15
        done = ledger.counts()["read"][1]
        time.sleep(2.5)
        assert ledger.counts()["read"][1] == done and thread.is_alive(), "it waits"
        assert 0 < done < COUNT
        pausing.resume()
        thread.join(timeout=60)
        assert ledger.counts()["read"] == (0, COUNT, 0) and not thread.is_alive()
        assert Work.objects.filter(attempts__gt=0).count() == 0
        assert ledger.counts() == ledger.count_anew()
    finally:
        worker.stop()
        thread.join(timeout=30)


def _run(worker: Worker) -> None:
    from django.db import connection

    try:
        worker.run()
    finally:
        connection.close()


def _wait(condition) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_the_compose_file_runs_commands_that_exist():
    """Read as YAML with its merges: commands and options are those of the program, photos are read-only."""
    import yaml
    from django.core.management import get_commands

    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    assert set(compose["services"]) == {"web", "workers", "postgres", "redis"}
    for name in ("web", "workers"):
        service = compose["services"][name]
        assert service["command"][:2] == ["python", "manage.py"] and service["command"][2] in get_commands()
        assert service["environment"]["DATABASE_URL"].startswith("postgres://")
        assert any(volume.endswith(":/photos:ro") for volume in service["volumes"])
    for path in ("deploy/Dockerfile", "deploy/imagesearch.service"):
        assert "manage.py" in (ROOT / path).read_text()
