"""System checks: what is wrong with an installation, each with the line that mends it."""

from __future__ import annotations

import pytest
from django.core import checks as django_checks

from search import checks, highwater
from search.models import Counter
from tests.factories import make_image


def test_a_sound_installation_has_nothing_to_say():
    assert not [one for one in django_checks.run_checks() if str(one.id).startswith("search.")]


def test_a_folder_that_cannot_be_written_is_an_error_with_what_mends_it(settings, tmp_path):
    (tmp_path / "file").write_text("")
    settings.IMAGESEARCH_SPACES = tmp_path / "file" / "spaces"
    (error,) = checks.check_folders(None)
    assert error.id == "search.E001"
    assert "IMAGESEARCH_SPACES" in error.msg and "is not a folder" in error.msg
    assert "chown" in str(error.hint) and "set IMAGESEARCH_SPACES to another folder" in str(error.hint)


def test_a_folder_that_is_not_there_yet_is_fine(settings, tmp_path):
    settings.IMAGESEARCH_LOGS = tmp_path / "not" / "there" / "yet"
    assert checks.check_folders(None) == []


def test_rights_that_are_missing_are_named(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(checks.os, "access", lambda path, mode: False)
    settings.IMAGESEARCH_MODELS = tmp_path / "models"
    messages = [error.msg for error in checks.check_folders(None) if "IMAGESEARCH_MODELS" in error.msg]
    assert "may not be written" in messages[0]


def test_an_encoder_setting_nobody_understands_is_an_error(settings):
    settings.IMAGESEARCH_ENCODER = "ViT-B-99/none"
    (error,) = checks.check_encoder(None)
    assert error.id == "search.E002"


def test_a_missing_model_is_a_warning_with_what_brings_it(settings):
    settings.IMAGESEARCH_ENCODER = "ViT-B-32-256/datacomp_s34b_b86k"
    (warning,) = checks.check_encoder(None)
    assert warning.id == "search.W001" and warning.level == django_checks.WARNING
    assert "manage.py model fetch" in str(warning.hint)


def test_an_unknown_setting_is_a_warning(settings):
    settings.IMAGESEARCH_UNKNOWN_SETTINGS = ["IMAGESEARCH_PROT is set, but there is no such setting."]
    (warning,) = checks.check_names(None)
    assert warning.id == "search.W002" and "IMAGESEARCH_PROT" in warning.msg


@pytest.mark.django_db
def test_an_old_sqlite_is_an_error(monkeypatch):
    from django.db import connection

    monkeypatch.setattr(checks.sqlite3, "sqlite_version_info", (3, 30, 0))
    found = checks.check_sqlite(None)
    assert [one.id for one in found] == (["search.E003"] if connection.vendor == "sqlite" else [])


@pytest.mark.django_db(transaction=True)
def test_ids_that_would_be_used_twice_are_an_error_with_the_command_that_mends_it():
    far = make_image().pk + 1_000
    Counter.objects.update_or_create(name=highwater.PREFIX + "image", defaults={"value": far})
    (error,) = checks.check_ids(None, databases=["default"])
    assert error.id == "search.E005" and "repair --ids" in str(error.hint)
    highwater.mend()
    assert checks.check_ids(None, databases=["default"]) == []


def test_without_a_database_the_ids_are_not_asked():
    assert checks.check_ids(None, databases=None) == []


def test_manage_check_prints_the_hint(sandbox):
    box = sandbox(IMAGESEARCH_ENCODER="local-dir:/nowhere/model")
    done = box.manage("check")
    assert "There is no folder /nowhere/model" in done.stderr


def test_commands_refuse_a_folder_that_cannot_be_written(sandbox, tmp_path):
    (tmp_path / "file").write_text("")
    done = sandbox(IMAGESEARCH_ENCODER="look").manage(
        "stats", check=False, IMAGESEARCH_THUMBNAILS=str(tmp_path / "file" / "x")
    )
    assert done.returncode == 1
    assert "IMAGESEARCH_THUMBNAILS" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("https", "proxies", "warned"), [(True, 0, True), (True, 1, False), (False, 0, False)])
def test_a_proxy_that_hides_addresses_is_said(settings, https, proxies, warned):
    from search.checks import check_proxies

    settings.SECURE_SSL_REDIRECT, settings.IMAGESEARCH_PROXIES = https, proxies
    assert [one.id for one in check_proxies(None)] == (["search.W003"] if warned else [])
