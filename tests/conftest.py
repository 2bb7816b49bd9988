"""Fixtures of all tests: a data folder for each test, fresh factories, the shared photos where they are."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

ROOT = Path(__file__).resolve().parent.parent
# Before the settings are read: no test touches the installation's own data or network.
os.environ["IMAGESEARCH_DATA"] = tempfile.mkdtemp(prefix="imagesearch-tests-")
atexit.register(shutil.rmtree, os.environ["IMAGESEARCH_DATA"], ignore_errors=True)
os.environ["IMAGESEARCH_ENV_FILE"] = os.devnull
os.environ["DJANGO_SETTINGS_MODULE"] = "imagesearch.settings"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("IMAGESEARCH_ENCODER", "look")
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright's sync API runs an event loop in the test's thread

# The same examples every time, so that a failure belongs to the change that brought it; HYPOTHESIS_PROFILE=search looks
# for new ones.
hypothesis_settings.register_profile("same", derandomize=True)
hypothesis_settings.register_profile("search", derandomize=False, print_blob=True)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

SHARED = Path(os.environ.get("IMAGESEARCH_SHARED", ROOT.parent / "shared")).resolve()


NO_TIME = "no time was left for it (--until)"
LONGEST = ["test_kill.py", "test_accessibility.py", "test_crawl_properties.py", "test_backup_elsewhere.py"]
"""Files of slow tests that are begun first, so that no worker is left alone with one of them at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("loadscopereorder", True):
        order = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--until", type=float, default=0, help="No test is begun after this time (seconds since 1970).")
    parser.addoption("--left-out", default="", help="File into which goes how many --until left out, and how many ran.")


def pytest_runtest_setup(item: pytest.Item) -> None:
    until = item.config.getoption("until")
    if until and time.time() > until:
        pytest.skip(NO_TIME)


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings here, after the lines above: named in pyproject.toml they would be read before them."""
    from django.conf import settings

    _ = settings.INSTALLED_APPS


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """SQLite tests run on a file, as the product does, so that threads and processes share it.

    The fixture asked for gives each of pytest-xdist's processes a database of its own.
    """
    from django.conf import settings

    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        database.setdefault("TEST", {})["NAME"] = str(
            Path(os.environ["IMAGESEARCH_DATA"]) / f"test-{os.getpid()}.sqlite3"
        )


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, settings) -> Iterator[None]:  # type: ignore[no-untyped-def]
    data = tmp_path / "data"
    settings.IMAGESEARCH_DATA = data
    settings.IMAGESEARCH_SPACES = data / "spaces"
    settings.IMAGESEARCH_THUMBNAILS = data / "thumbnails"
    settings.IMAGESEARCH_MODELS = data / "models"
    settings.IMAGESEARCH_LOGS = data / "logs"
    settings.IMAGESEARCH_UPLOADS = data / "uploads"
    settings.IMAGESEARCH_MIN_MATCH = 0  # libraries of three pictures are ranked whole; see test_matches.py
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    reset_factories()
    yield
    reset_factories()


def reset_factories() -> None:
    from search import look_alikes
    from search.bitmaps import reset_library
    from search.retrieval import reset_rankings
    from search.serving import here
    from search.vectors import reset_stores

    here.reset()
    reset_stores()
    reset_library()
    reset_rankings()
    look_alikes.reset()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and small models; the test is skipped, loudly, where it is missing."""
    if not (SHARED / "photos").is_dir():
        pytest.skip(f"no shared photos and models at {SHARED} (set IMAGESEARCH_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def dev_clip(shared: Path) -> str:
    """The encoder setting of the small real CLIP."""
    return f"local-dir:{shared / 'models' / 'dev-clip'}"


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:  # type: ignore[type-arg]
    """`sandbox(**env)` makes an installation of its own that is driven through `manage.py`."""
    from tests.sandbox import Sandbox

    made: list[Sandbox] = []

    def make(**env: str) -> Sandbox:
        made.append(Sandbox(tmp_path_factory.mktemp("sandbox"), **env))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pytest_terminal_summary(terminalreporter) -> None:  # type: ignore[no-untyped-def]
    """Say aloud what was skipped, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons: dict[str, int] = {}
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason] = reasons.get(reason, 0) + 1
    if file := terminalreporter.config.getoption("left_out"):
        stats = terminalreporter.stats
        ran = sum(len(stats.get(kind, [])) for kind in ("passed", "failed", "error"))
        Path(file).write_text(f"{reasons.get('Skipped: ' + NO_TIME, 0)} {ran}")
    if reasons:
        terminalreporter.section("NOT TESTED HERE")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")
