"""`GET /health`: a word for strangers, the parts for staff, never slow, never an exception."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection
from django.test import Client
from django.utils import timezone
from django_q.models import Schedule

from ingestion import health, ledger, presence
from ingestion.models import StageCount
from search import serving, warmup
from search.errors import StoreFault
from search.spaces import look_space
from tests.factories import make_image, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh(db):
    """Nothing remembered, and no schedule overdue: those of the test database are as old as the test run."""
    health.forget()
    Schedule.objects.update(next_run=timezone.now())
    yield
    health.forget()


def parts(client: Client) -> dict:
    client.force_login(make_user(staff=True))
    return client.get("/health").json()["parts"]


def test_a_stranger_gets_one_word_and_nothing_else(client):
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "no-store" in answer["Cache-Control"]


def test_a_signed_in_user_who_is_not_staff_gets_the_word_only(client):
    client.force_login(make_user())
    assert client.get("/health").json() == {"status": "ok"}


def test_staff_get_every_part(client):
    found = parts(client)
    assert {"database", "queue", "workers", "model", "coverage", "disk"} <= set(found)
    assert found["database"]["vendor"] == connection.vendor
    assert found["model"]["encoder"] == "look"
    assert found["disk"]["free_bytes"]["data"] > 0


def test_waiting_work_without_a_worker_is_degraded_and_says_what_starts_one(client):
    ledger.queue([make_image().pk], ["read"])
    assert client.get("/health").json() == {"status": "degraded"}
    part = parts(client)["workers"]
    assert part["waiting"] == 1 and part["live"] == 0
    assert "manage.py process" in part["sentence"]


def test_a_live_worker_makes_waiting_work_fine(client):
    ledger.queue([make_image().pk], ["read"])
    worker = presence.Presence()
    try:
        part = parts(client)["workers"]
    finally:
        worker.close()
    assert part["status"] == "ok" and part["live"] == 1


def test_coverage_comes_from_the_counters(client):
    StageCount.objects.create(stage="embed:toy", waiting=25, done=75, failed=0)
    assert parts(client)["coverage"]["spaces"]["toy"] == {"embedded": 75, "of": 100, "percent": 75.0}


def test_a_serving_space_whose_file_is_gone_is_degraded(client):
    StageCount.objects.create(stage=look_space().stage, waiting=0, done=3, failed=0)
    part = parts(client)["coverage"]
    assert part["status"] == "degraded" and "vectors.npy is not there" in part["sentence"]


def test_a_schedule_that_nobody_runs_is_degraded(client):

    Schedule.objects.create(func="math.sqrt", next_run=timezone.now() - timedelta(hours=1))
    part = parts(client)["queue"]
    assert part["status"] == "degraded" and "qcluster" in part["sentence"]


def test_redis_that_does_not_answer_is_named(client, settings):
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "redis": "redis://127.0.0.1:1/0"}
    part = parts(client)["queue"]
    assert part["status"] == "degraded" and "REDIS_URL" in part["sentence"]


def test_a_model_that_is_not_here_is_degraded_with_what_brings_it(client, settings):
    settings.IMAGESEARCH_ENCODER = "local-dir:/nowhere/at/all"
    part = parts(client)["model"]
    assert part["status"] == "degraded" and "/nowhere/at/all" in part["sentence"]


def test_a_full_disk_is_degraded(client, monkeypatch):
    monkeypatch.setattr(health, "LEAST_FREE_BYTES", 1 << 62)
    part = parts(client)["disk"]
    assert part["status"] == "degraded" and "make room" in part["sentence"]


def test_a_database_that_does_not_answer_is_down_with_503(client):
    def refuse(execute, sql, params, many, context):
        raise DatabaseError("the server went away")

    with connection.execute_wrapper(refuse):
        answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json() == {"status": "down"}


def test_a_part_that_raises_is_degraded_and_the_others_are_still_told(client, monkeypatch):
    monkeypatch.setattr(presence, "live_workers", lambda: 1 / 0)
    found = parts(client)
    assert found["workers"]["status"] == "degraded"
    assert found["coverage"]["status"] == "ok"


def test_a_registered_part_is_reported(client, monkeypatch):
    from search import panels

    monkeypatch.setattr(panels, "_health", {"faces": lambda: panels.Health("down", "No faces today.")})
    client.force_login(make_user(staff=True))
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["parts"]["faces"] == {"status": "down", "sentence": "No faces today."}


def test_the_number_of_queries_does_not_grow_with_the_library(client, django_assert_max_num_queries):
    ledger.queue([make_image().pk for _ in range(30)], ["read"])
    with django_assert_max_num_queries(13):
        client.get("/health")


def test_https_does_not_redirect_the_health_address(client, settings):
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/health").status_code == 200
    assert client.get("/health/ready").status_code == 200


def test_only_reading_is_allowed(client):
    assert client.post("/health").status_code == 405


def test_ready_is_said_once_what_searches_need_was_loaded_or_could_not_be(client, monkeypatch):
    assert client.get("/health/ready").json() == {"ready": True}, "a process that loads with its first search"
    loading, loaded = threading.Event(), threading.Event()

    def catch_up() -> int:
        loading.set()
        loaded.wait(30)
        raise StoreFault("the file of the vectors is gone")

    monkeypatch.setattr(serving.here, "catch_up", catch_up)
    monkeypatch.setattr(warmup, "_LEAST_SECONDS", 3600.0)
    warmup.keep_warm()
    assert loading.wait(30)
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert "loading" in answer.json()["sentence"]
    loaded.set()
    assert warmup._looked.wait(30)
    assert client.get("/health/ready").status_code == 200
    serving.here.reset()
