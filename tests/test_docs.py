"""The documents cannot drift: every setting, command, page, migration and dependency is in them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import get_commands
from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver

from imagesearch import environment

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
MIGRATIONS = (ROOT / "docs" / "migrations.md").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
OURS = ["search", "faces", "ingestion"]


@pytest.mark.parametrize("name", sorted(environment.NAMES))
def test_setting_is_documented(name):
    assert f"| `{name}` |" in SETTINGS
    assert re.search(rf"^#{name}=", EXAMPLE, re.MULTILINE)


def test_every_setting_that_is_read_is_among_the_names():
    source = (ROOT / "imagesearch" / "environment.py").read_text() + (ROOT / "imagesearch" / "settings.py").read_text()
    assert set(re.findall(r'"(IMAGESEARCH_\w+|DATABASE_URL|REDIS_URL)"', source)) - environment.OF_THE_TESTS == set(
        environment.NAMES
    )


def test_nothing_else_reads_the_program_s_variables():
    """The environment is read in one place; the fault points of the kill tests are the one exception."""
    found = []
    for app in [*OURS, "imagesearch"]:
        for path in (ROOT / app).rglob("*.py"):
            if path.name in {"environment.py", "faultpoints.py"}:
                continue
            if re.search(r"environ(\.get\(|\.setdefault\(|\[)[\"']IMAGESEARCH_", path.read_text()):
                found.append(str(path.relative_to(ROOT)))
    assert not found


def test_documented_settings_exist():
    documented = set(re.findall(r"\b(IMAGESEARCH_[A-Z_]+[A-Z])\b", SETTINGS + README + EXAMPLE + COMMANDS))
    assert documented - {"IMAGESEARCH_PROT"} <= environment.NAMES | environment.OF_THE_TESTS


def our_commands() -> list[str]:
    return sorted(name for name, app in get_commands().items() if app in OURS)


@pytest.mark.parametrize("name", our_commands())
def test_command_is_documented(name):
    assert re.search(rf"^\| `{name}[ `]", COMMANDS, re.MULTILINE)
    assert f"`{name}`" in README


def test_documented_commands_exist():
    section = COMMANDS.split("## make")[0]
    assert set(re.findall(r"^\| `(\w+)", section, re.MULTILINE)) == set(our_commands())


def pages() -> list[str]:
    """The addresses of our own pages, as in the documents: /image/<id>/."""

    def walk(patterns, prefix=""):
        for one in patterns:
            route = prefix + str(one.pattern)
            if isinstance(one, URLResolver):
                if one.app_name != "admin":
                    yield from walk(one.url_patterns, route)
            elif isinstance(one, URLPattern):
                yield "/" + re.sub(r"<(?:\w+:)?(?:image_|action_|tag_|album_)?(\w+)>", r"<\1>", route)

    return sorted(set(walk(get_resolver().url_patterns)) - {"/favicon.ico"})


@pytest.mark.parametrize("page", pages())
def test_page_is_documented(page):
    assert f"`{page}`" in README


@pytest.mark.parametrize("app", OURS)
def test_migrations_are_documented(app):
    folder = Path(apps.get_app_config(app).path) / "migrations"
    for path in folder.glob("0*.py"):
        assert f"| {app} | `{path.stem}` |" in MIGRATIONS


def test_make_targets_are_documented():
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    for target in set(targets) - {"help", "setup-dev"}:
        assert f"`make {target}" in COMMANDS, target


GUIDE = {path.stem: path.read_text() for path in (ROOT / "docs" / "guide").glob("*.md")}


def test_chapters_of_the_guide_are_listed_and_their_pictures_used():
    listed = re.findall(r"^\d+\. \[.+\]\(([a-z-]+)\.md\)", GUIDE["README"], re.MULTILINE)
    assert sorted([*listed, "README"]) == sorted(GUIDE)
    used = {name for text in GUIDE.values() for name in re.findall(r"\(pictures/([a-z-]+)\.png\)", text)}
    assert used == {path.stem for path in (ROOT / "docs" / "guide" / "pictures").glob("*.png")}


def test_what_the_guide_tells_to_press_is_there_under_that_name():
    """Every **name** in the guide stands in a template or in a sentence of the program."""
    sources = [*(ROOT / "templates").rglob("*.html")]
    sources += [path for app in OURS for path in (ROOT / app).rglob("*.py") if "migrations" not in path.parts]
    program = " ".join(path.read_text() for path in sources)
    names = {name.rstrip(".") for text in GUIDE.values() for name in re.findall(r"\*\*([^*]+)\*\*", text)}
    names.discard("Not in it: your photos")
    assert not [part for name in names for part in name.split(" … ") if part not in program]


def test_settings_and_commands_in_the_guide_exist():
    text = " ".join(GUIDE.values())
    assert set(re.findall(r"manage\.py (\w+)", text)) <= {*our_commands(), "changepassword"}
    assert set(re.findall(r"\b(IMAGESEARCH_[A-Z_]+[A-Z])\b", text)) <= environment.NAMES


def test_links_between_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_requirements_are_pinned_and_name_no_platform():
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith("#"):
                assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*( +# .+)?", line), line
                assert not line.lower().startswith(("nvidia", "cuda", "triton")), line


def test_what_the_code_imports_is_pinned_with_a_reason():
    """Every package imported by the apps stands in the first part of requirements.txt, where the reasons are."""
    import importlib.metadata
    import sys

    direct = (ROOT / "requirements.txt").read_text().split("# --- what those ask for")[0]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in direct.splitlines() if "==" in line}
    of = importlib.metadata.packages_distributions()
    missing = set()
    for app in [*OURS, "imagesearch"]:
        for path in (ROOT / app).rglob("*.py"):
            for name in re.findall(r"^\s*(?:import|from) ([a-zA-Z0-9_]+)", path.read_text(), re.MULTILINE):
                if name in sys.stdlib_module_names or name in {*OURS, "imagesearch", "tests"} or name not in of:
                    continue
                if not {one.lower().replace("_", "-") for one in of[name]} & pinned:
                    missing.add((name, str(path.relative_to(ROOT))))
    assert not missing


def test_vendored_files_name_their_version_and_licence():
    for folder in (ROOT / "static" / "vendor").iterdir():
        assert (folder / "LICENSE").is_file() and (folder / "VERSION").is_file(), folder.name


def test_the_installed_packages_are_those_that_are_pinned():
    done = subprocess.run(
        [str(ROOT / ".venv" / "bin" / "python"), "-m", "pip", "freeze"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("no .venv here")
    installed = dict(line.lower().replace("_", "-").split("==") for line in done.stdout.splitlines() if "==" in line)
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if "==" in line and not line.startswith("#"):
            name, version = line.split()[0].lower().replace("_", "-").split("==")
            assert installed.get(name) == version, name
