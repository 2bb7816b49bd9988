"""Settings: each wrong value gives one sentence; what must hold in the database does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from imagesearch import environment

ROOT = Path(__file__).resolve().parent.parent

WRONG = [
    ("IMAGESEARCH_DATA", "/etc/passwd", "this is a file"),
    ("IMAGESEARCH_DATA", "~nobody-of-this-name/x", "cannot be looked at"),
    ("IMAGESEARCH_SPACES", "/etc/passwd", "the path of a folder"),
    ("IMAGESEARCH_THUMBNAILS", "/etc/passwd", "the path of a folder"),
    ("IMAGESEARCH_MODELS", "/etc/passwd", "the path of a folder"),
    ("IMAGESEARCH_LOGS", "/etc/passwd", "the path of a folder"),
    ("IMAGESEARCH_SECRET_KEY", "short", "at least 32 characters"),
    ("IMAGESEARCH_DEBUG", "perhaps", "1 or 0"),
    ("IMAGESEARCH_HTTPS", "2", "1 or 0"),
    ("IMAGESEARCH_ALLOWED_HOSTS", "http://photos.example.org", "without scheme and port"),
    ("IMAGESEARCH_ALLOWED_HOSTS", "photos.example.org:8000", "without scheme and port"),
    ("IMAGESEARCH_TRUSTED_ORIGINS", "photos.example.org", "origins with scheme"),
    ("IMAGESEARCH_TIME_ZONE", "Mars/Olympus", "a time zone such as"),
    ("IMAGESEARCH_TIME_ZONE", "Europe", "a time zone such as"),
    ("IMAGESEARCH_TIME_ZONE", "../../etc/passwd", "a time zone such as"),
    ("IMAGESEARCH_ENCODER", "clip", "ARCHITECTURE/WEIGHTS"),
    ("IMAGESEARCH_ENCODER", "local-dir:", "local-dir:FOLDER"),
    ("IMAGESEARCH_ENCODER", "onnx:", "onnx:FOLDER"),
    ("IMAGESEARCH_ENCODER", "hf-hub:name", "hf-hub:ORGANISATION/NAME"),
    ("IMAGESEARCH_PRECISION", "int8", "one of auto, fp32, bf16, fp16"),
    ("IMAGESEARCH_THREADS", "-1", "a whole number from 0 to 1024"),
    ("IMAGESEARCH_THREADS", "many", "a whole number from 0 to 1024"),
    ("IMAGESEARCH_BATCH_SIZE", "0", "a whole number from 1 to 4096"),
    ("IMAGESEARCH_WORKERS", "1.5", "a whole number from 1 to 64"),
    ("IMAGESEARCH_MIN_SIDE", "0", "a whole number from 1"),
    ("IMAGESEARCH_REVIEW_RATIO", "0.5", "a number from 1 to 1000"),
    ("IMAGESEARCH_REVIEW_SMALL", "-1", "a whole number from 0"),
    ("IMAGESEARCH_REVIEW_BLUR", "soft", "a number from 0"),
    ("IMAGESEARCH_REVIEW_PLAIN", "97", "a number from 0.01 to 1"),
    ("IMAGESEARCH_LOOK_ALIKES", "11", "a whole number from 0 to 10"),
    ("IMAGESEARCH_MAX_MEGAPIXELS", "nan", "a number from 1"),
    ("IMAGESEARCH_FILE_SECONDS", "inf", "a number from 1"),
    ("IMAGESEARCH_MASS_CHANGE", "50%", "a number from 0 to 1"),
    ("IMAGESEARCH_MASS_CHANGE", "2", "a number from 0 to 1"),
    ("IMAGESEARCH_STACKS", "maybe", "1 or 0"),
    ("IMAGESEARCH_MAX_RESULTS", "all", "a whole number from 1"),
    ("IMAGESEARCH_MIN_MATCH", "101", "a whole number from 0 to 100"),
    ("IMAGESEARCH_UPLOAD_HOURS", "0", "a number from 0.01"),
    ("IMAGESEARCH_QUIET_HOURS", "at night", "spans of the day such as 22:00-07:00"),
    ("IMAGESEARCH_WATCH_FOLDERS", "some", "a whole number from 0"),
    ("IMAGESEARCH_AUDIT_DAYS", "-1", "a whole number from 0 to 36500"),
    ("IMAGESEARCH_PROXIES", "two", "a whole number from 0 to 10"),
    ("IMAGESEARCH_SIGNIN_ATTEMPTS", "0", "a whole number from 1 to 1000"),
    ("IMAGESEARCH_SIGNIN_MINUTES", "0", "a number from 0.1 to 10080"),
    ("IMAGESEARCH_BACKUPS", "/etc/passwd", "this is a file"),
    ("IMAGESEARCH_BACKUP_HOURS", "0", "a number from 0.1"),
    ("IMAGESEARCH_BACKUP_KEEP", "0", "a whole number from 1"),
    ("IMAGESEARCH_HOST", "http://127.0.0.1", "one address or host name"),
    ("IMAGESEARCH_PORT", "70000", "a whole number from 1 to 65535"),
    ("IMAGESEARCH_LOG_FORMAT", "xml", "one of text, json"),
    ("IMAGESEARCH_LOG_LEVEL", "LOUD", "one of DEBUG, INFO, WARNING, ERROR"),
    ("IMAGESEARCH_ENV_FILE", "/nowhere/settings.env", "cannot be read"),
    ("DATABASE_URL", "mysql://user:secret@host/name", "postgres://USER:PASSWORD@HOST:PORT/NAME"),
    ("DATABASE_URL", "postgres://user:secret@host:port/name", "postgres://"),
    ("DATABASE_URL", "postgres://host", "postgres://"),
    ("DATABASE_URL", "sqlite://:memory:", "it must be a file"),
    ("DATABASE_URL", "nonsense", "postgres://"),
    ("REDIS_URL", "http://127.0.0.1:6379", "redis://HOST:PORT/NUMBER"),
    ("REDIS_URL", "redis://127.0.0.1:port/0", "redis://HOST:PORT/NUMBER"),
    ("REDIS_URL", "redis://127.0.0.1/zero", "redis://HOST:PORT/NUMBER"),
]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load the environment of an installation in an empty folder, with these variables alone."""
    for name in os.environ:
        if name in environment.NAMES or name.startswith("IMAGESEARCH_"):
            monkeypatch.delenv(name)
    before = dict(os.environ)

    def load(**variables: str) -> environment.Environment:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return environment.load(tmp_path)

    yield load
    for name in set(os.environ) - set(before):
        os.environ.pop(name)  # what reading .env left


@pytest.mark.parametrize(("name", "value", "accepts"), WRONG)
def test_a_wrong_value_names_the_setting_the_value_and_what_it_accepts(load, tmp_path, name, value, accepts):
    with pytest.raises(ImproperlyConfigured) as caught:
        load(**{name: value})
    sentence = str(caught.value)
    assert name in sentence and accepts in sentence
    assert sentence.endswith(".") and "\n" not in sentence
    if name == "IMAGESEARCH_SECRET_KEY":
        assert value not in sentence
    elif "secret" not in value:
        assert value in sentence
    assert "secret@" not in sentence, "a password is never shown"
    assert not list(tmp_path.iterdir()), "a wrong setting leaves nothing behind"


def test_every_setting_has_a_test_with_a_wrong_value_or_takes_any():
    """IMAGESEARCH_EXCLUDES takes any list of globs; what no glob can be is said by the crawl."""
    assert environment.NAMES - {name for name, _, _ in WRONG} == {"IMAGESEARCH_EXCLUDES"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("IMAGESEARCH_PORT", "abc"), ("DATABASE_URL", "oracle://x/y"), ("IMAGESEARCH_ENCODER", "clip")],
)
@pytest.mark.parametrize("command", ["check", "help", "stats"])
def test_manage_says_one_sentence_and_ends_with_status_1(tmp_path, name, value, command):
    env = {**os.environ, "IMAGESEARCH_DATA": str(tmp_path), name: value}
    done = subprocess.run([sys.executable, "manage.py", command], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith(f"{name} is '{value}', but it accepts ")


def test_a_database_that_does_not_answer_is_one_sentence(tmp_path):
    env = {**os.environ, "IMAGESEARCH_DATA": str(tmp_path), "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}
    for command in (["stats"], ["start"], ["showmigrations"]):
        done = subprocess.run(
            [sys.executable, "manage.py", *command], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert done.returncode == 1, command
        assert "Traceback" not in done.stderr
        assert "DATABASE_URL" in done.stderr.strip().splitlines()[-1]


def test_a_database_without_tables_says_migrate(tmp_path):
    env = {**os.environ, "IMAGESEARCH_DATA": str(tmp_path), "DATABASE_URL": ""}
    done = subprocess.run([sys.executable, "manage.py", "stats"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "manage.py migrate" in done.stderr and "Traceback" not in done.stderr


def test_without_any_setting_everything_has_a_default(load, tmp_path):
    found = load()
    assert found.data == tmp_path / "data"
    assert found.spaces == tmp_path / "data" / "spaces"
    assert found.encoder == environment.DEFAULT_ENCODER
    assert found.database["NAME"] == str(tmp_path / "data" / "imagesearch.sqlite3")
    assert found.host == "127.0.0.1" and found.port is None
    assert found.debug is False and found.unknown == []
    assert "orm" in found.broker


def test_each_folder_can_be_moved_and_relative_paths_start_at_the_program(load, tmp_path):
    found = load(IMAGESEARCH_DATA="elsewhere", IMAGESEARCH_SPACES="/mnt/fast/spaces", IMAGESEARCH_MODELS="~/models")
    assert found.data == tmp_path / "elsewhere"
    assert found.spaces == Path("/mnt/fast/spaces")
    assert found.models == Path.home() / "models"
    assert found.thumbnails == tmp_path / "elsewhere" / "thumbnails"


def test_the_env_file_is_read_and_the_environment_wins(load, tmp_path):
    (tmp_path / ".env").write_text(
        '# a comment\nIMAGESEARCH_WORKERS=3\nIMAGESEARCH_PORT=8123\nIMAGESEARCH_DATA="my data"\n'
    )
    found = load(IMAGESEARCH_PORT="8999")
    assert (found.workers, found.port, found.data) == (3, 8999, tmp_path / "my data")


def test_a_wrong_value_in_the_env_file_is_named_too(load, tmp_path):
    (tmp_path / ".env").write_text("IMAGESEARCH_WORKERS=lots\n")
    with pytest.raises(ImproperlyConfigured, match="IMAGESEARCH_WORKERS is 'lots'"):
        load()


def test_an_env_file_that_is_no_text_is_named(load, tmp_path):
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImproperlyConfigured, match=r"\.env cannot be read \(it is not UTF-8 text\)"):
        load()


def test_the_example_file_can_be_copied_as_it_is_and_with_every_line_switched_on(load, tmp_path):
    example = (ROOT / ".env.example").read_text()
    (tmp_path / ".env").write_text(example)
    assert load().workers == 1
    lines = [line.removeprefix("#") for line in example.splitlines() if line.startswith(("#IMAGE", "#DATA", "#REDIS"))]
    lines = [line for line in lines if not line.startswith("IMAGESEARCH_ENV_FILE")]
    (tmp_path / ".env").write_text("\n".join(lines))
    found = load()
    assert found.broker == {"redis": "redis://127.0.0.1:6379/0"}
    assert found.unknown == []


def test_an_unknown_setting_is_said_with_the_nearest_known_one(load):
    (sentence,) = load(IMAGESEARCH_ENCODR="look").unknown
    assert sentence == "IMAGESEARCH_ENCODR is set, but there is no such setting: did you mean IMAGESEARCH_ENCODER?"
    assert "docs/settings.md" in load(IMAGESEARCH_QWXYZ="1").unknown[-1]


def test_the_secret_key_is_made_once_and_kept_private(load, tmp_path):
    first = load().secret_key
    file = tmp_path / "data" / "secret_key"
    assert len(first) >= 50
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load().secret_key == first
    assert [path.name for path in file.parent.iterdir()] == ["secret_key"]


def test_a_key_file_that_a_crash_left_empty_is_made_anew(load, tmp_path):
    load()
    (tmp_path / "data" / "secret_key").write_text("")
    assert len(load().secret_key) >= 50


def test_a_given_key_is_not_written_anywhere(load, tmp_path):
    assert load(IMAGESEARCH_SECRET_KEY="k" * 40).secret_key == "k" * 40
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_that_may_not_be_written_is_named(load, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ImproperlyConfigured, match="a folder that can be read and written"):
        load()


def test_https_turns_on_everything_that_deployment_asks_for(tmp_path):
    env = {
        **os.environ, "IMAGESEARCH_DATA": str(tmp_path), "IMAGESEARCH_HTTPS": "1",
        "IMAGESEARCH_PROXIES": "1",
        "IMAGESEARCH_SECRET_KEY": "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_",
    }  # fmt: skip
    env.pop("DJANGO_ALLOW_ASYNC_UNSAFE", None)  # Playwright in the tests asks for it
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- the database ------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.skipif("connection.vendor != 'sqlite'")
def test_sqlite_writes_ahead_flushes_fully_and_waits_for_other_writers():
    def pragma(name: str):
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA {name}")
            return cursor.fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2, "FULL: the order of commits is the promise"
    assert pragma("busy_timeout") == 30_000
    assert pragma("foreign_keys") == 1
    assert connection.settings_dict["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'sqlite'")
def test_sqlite_transactions_take_the_write_lock_when_they_begin():
    from django.db import transaction
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        pass
    assert queries.captured_queries[0]["sql"] == "BEGIN IMMEDIATE"


@pytest.mark.django_db
@pytest.mark.skipif("connection.vendor != 'postgresql'")
def test_postgresql_commits_are_on_disk_and_read_committed(monkeypatch):
    monkeypatch.delenv("PGOPTIONS", raising=False)  # with which the tests spare the disk
    own = connection.copy()

    def shown(name: str) -> str:
        with own.cursor() as cursor:
            cursor.execute(f"SHOW {name}")
            return cursor.fetchone()[0]

    assert shown("synchronous_commit") in {"on", "remote_apply", "remote_write", "local"}
    assert shown("transaction_isolation") == "read committed"
    own.close()


def test_no_request_waits_in_a_transaction_of_its_own():
    assert connection.settings_dict["ATOMIC_REQUESTS"] is False


# --- security ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_every_answer_carries_the_strict_policy(client, settings):
    policy = client.get("/signin")["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "style-src 'self'" in policy
    assert "unsafe" not in policy and "http:" not in policy and "https:" not in policy
    assert "frame-ancestors 'none'" in policy


# --- logs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["text", "json"])
def test_logs_are_readable_or_json(style, tmp_path):
    code = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'imagesearch.settings'; import django; django.setup();"
        "import logging; logging.getLogger('search.x').warning('found %s', 'ünïcode');"
        "\ntry: 1 / 0\nexcept ZeroDivisionError: logging.getLogger('search.x').exception('it broke')"
    )
    env = {**os.environ, "IMAGESEARCH_DATA": str(tmp_path), "IMAGESEARCH_LOG_FORMAT": style}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    if style == "text":
        assert lines[0].endswith("WARNING search.x: found ünïcode")
        return
    import json

    first, second = (json.loads(line) for line in lines)
    assert (first["level"], first["logger"], first["message"]) == ("WARNING", "search.x", "found ünïcode")
    assert "ZeroDivisionError" in second["exc_info"]


# --- optional parts that ask for system libraries ----------------------------------------------------


def test_libraries_that_may_lack_libgl_import_here():
    """insightface asks for cv2; the set-up makes that the build that needs no libGL."""
    done = subprocess.run([sys.executable, "-c", "import cv2, insightface"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_main_path_needs_no_cv2():
    """Decoding, look, thumbnails, vectors and the pages work where cv2 cannot be imported."""
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'imagesearch.settings'\n"
        "import django; django.setup()\n"
        "import PIL.Image; from search.encoders import get_encoder\n"
        "look = get_encoder('look')\n"
        "vectors = look.encode_images([look.prepare(PIL.Image.new('RGB', (64, 64), 'red'))])\n"
        "from search import decoding, thumbnails; from ingestion import worker, register, fingerprints, metadata\n"
        "thumbnails.encode(thumbnails.make(PIL.Image.new('RGB', (640, 480))))\n"
        "print(vectors.shape[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(("given", "said"), [({}, "6"), ({"OPENBLAS_THREAD_TIMEOUT": "20"}, "20")])
def test_threads_of_matrix_products_sleep_unless_somebody_says_otherwise(given: dict[str, str], said: str) -> None:
    code = "import django, os, sys; django.setup(); print(os.environ['OPENBLAS_THREAD_TIMEOUT'])"
    around = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"} | given
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=around, capture_output=True, text=True)
    assert done.stdout.strip() == said, done.stderr
