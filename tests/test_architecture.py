"""The walls of the house: imports point one way, heavy libraries wait, files stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.test import WITHOUT_DATABASE
from tests import (
    test_adoption_kill,
    test_backup_elsewhere,
    test_faiss_index,
    test_kill,
    test_kill_errands,
    test_kill_rows,
    test_kill_spaces,
)

ROOT = Path(__file__).resolve().parent.parent
APPS = ["imagesearch", "ingestion", "faces", "search"]
"""An app imports only what stands to its right."""
HEAVY = {
    "torch", "torchvision", "open_clip", "timm", "faiss", "cv2", "skimage", "scipy", "onnxruntime", "onnx",
    "insightface", "imagehash", "safetensors", "huggingface_hub", "pymilvus", "rapidocr", "rawpy", "lxml",
}  # fmt: skip
FORBIDDEN_NAMES = {"utils", "helpers", "services", "common", "manager", "misc"}
MOST_LINES = 480


def sources(app: str) -> list[Path]:
    return sorted(path for path in (ROOT / app).rglob("*.py") if "migrations" not in path.parts)


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """First names of the modules that a file imports (relative imports do not occur)."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()

    def waits(node: ast.AST) -> bool:
        """Whether what stands in this node is not imported with the module."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return True
        return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"{path}: relative import"
                found.add((child.module or "").partition(".")[0])
            elif not (top_level_only and waits(child)):
                visit(child)

    visit(tree)
    return found


@pytest.mark.parametrize("app", APPS)
def test_arrows_point_one_way(app):
    forbidden = set(APPS[: APPS.index(app)])
    wrong = {str(path.relative_to(ROOT)): sorted(imports(path) & forbidden) for path in sources(app)}
    assert not {path: names for path, names in wrong.items() if names}


def test_settings_do_not_import_the_apps():
    for path in sources("imagesearch"):
        if path.name not in {"urls.py", "wsgi.py"}:  # the wiring
            assert not imports(path) & set(APPS[1:]), path.name


@pytest.mark.parametrize("app", APPS)
def test_heavy_libraries_are_imported_when_first_used(app):
    wrong = {str(path.relative_to(ROOT)): sorted(imports(path, top_level_only=True) & HEAVY) for path in sources(app)}
    assert not {path: names for path, names in wrong.items() if names}


@pytest.mark.parametrize("app", APPS)
def test_modules_are_named_by_nouns_of_the_domain(app):
    assert not [str(path) for path in sources(app) if path.stem in FORBIDDEN_NAMES]


@pytest.mark.parametrize("app", APPS)
def test_files_have_one_concern_each(app):
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources(app)}
    assert not {path: lines for path, lines in long.items() if lines > MOST_LINES}


def test_a_command_line_loads_nothing_heavy():
    """`manage.py help`, a check and the addresses: none of them imports torch or its like."""
    code = (
        "import os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'imagesearch.settings'\n"
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('check'); from django.urls import get_resolver; get_resolver().url_patterns\n"
        f"print(sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_no_page_names_another_host():
    """Templates, styles and scripts load nothing from elsewhere (links that a person follows are allowed)."""
    wrong = []
    for path in [*(ROOT / "templates").rglob("*.html"), *(ROOT / "static").rglob("*.css")]:
        for found in re.findall(r"(?:src|href|action|url)\s*[=(]\s*[\"']?((?:https?:)?//[^\"')\s]+)", path.read_text()):
            wrong.append(f"{path.relative_to(ROOT)}: {found}")
    assert not wrong


def test_templates_have_no_inline_scripts_styles_or_handlers():
    wrong = []
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text()
        if re.search(r"<style|\sstyle=|\son(?:click|load|change|submit|error|input)=|<script(?![^>]*\bsrc=)", text):
            wrong.append(str(path.relative_to(ROOT)))
    assert not wrong


@pytest.mark.parametrize("name", WITHOUT_DATABASE)
def test_what_runs_on_one_database_only_touches_none(name):
    text = (ROOT / "tests" / f"test_{name}.py").read_text()
    words = ("django_db", "sandbox", "transactional_db", "call_command", "manage.py", "objects.", "import embeddings")
    assert not [word for word in words if word in text]


def test_every_fault_point_is_gone_through():
    """A new `reach(...)` in the code has to be added to one of the tests that kill at each point."""
    tested = {
        *test_kill.POINTS, *test_kill_rows.POINTS, *test_kill_spaces.BUILDING, *test_kill_spaces.REMOVING,
        *test_adoption_kill.POINTS, *test_kill_errands.POINTS, *test_faiss_index.POINTS,
        *test_backup_elsewhere.BACKUP_POINTS, *test_backup_elsewhere.BEFORE, *test_backup_elsewhere.AFTER,
    }  # fmt: skip
    named = set()
    for app in APPS:
        for path in sources(app):
            named |= set(re.findall(r'\breach\("([a-z-]+)"\)', path.read_text()))
    assert named == tested
