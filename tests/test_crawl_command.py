"""`manage.py crawl` as a person runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from search.models import Image, Source
from tests.factories import make_user
from tests.photos import put

pytestmark = pytest.mark.django_db(transaction=True)


def crawl(capsys: pytest.CaptureFixture[str], *args: Any, **options: Any) -> tuple[str, str]:
    call_command("crawl", *map(str, args), **options)
    said = capsys.readouterr()
    return said.out, said.err


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "My photos"
    put(folder / "a.jpg", 1)
    put(folder / "b.txt", b"words")
    put(folder / ".c", b"hidden")
    return folder


def test_the_report_is_one_line_for_people_and_one_line_of_json(root: Path, capsys: Any) -> None:
    out, err = crawl(capsys, root)
    assert out == "My photos: 3 files found: 1 registered, 1 unsupported, 1 excluded.\n" and err == ""
    out, _ = crawl(capsys, root, "--json")
    assert json.loads(out) == {
        "found": 3, "registered": 0, "unchanged": 1, "moved": 0, "unreadable": 0, "too_small": 0, "unsupported": 1,
        "excluded": 1, "vanished": 0, "missing": 0, "errors": 0, "guarded": False, "message": "",
    }  # fmt: skip
    assert out.count("\n") == 1


def test_options_of_a_new_source(root: Path, capsys: Any) -> None:
    user = make_user("anna")
    crawl(
        capsys,
        root,
        "--name",
        "Holidays",
        "--user",
        "anna",
        "--exclude",
        "*.txt",
        "--exclude",
        "#x",
        "--follow-symlinks",
    )
    source = Source.objects.get()
    assert (source.name, source.excludes, source.follow_symlinks) == ("Holidays", "*.txt\n\\#x", True)
    assert source.access.get().user == user


def test_without_a_path_all_sources_are_crawled_and_one_that_is_gone_fails_alone(
    root: Path, tmp_path: Path, capsys: Any
) -> None:
    out, _ = crawl(capsys)
    assert "There is no source yet" in out
    put(tmp_path / "other" / "x.jpg", 2)
    crawl(capsys, root)
    crawl(capsys, tmp_path / "other")
    out, _ = crawl(capsys, "--json")
    assert json.loads(out)["unchanged"] == 2 and json.loads(out)["found"] == 4
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(SystemExit) as stopped:
        call_command("crawl", "--json")
    said = capsys.readouterr()
    assert stopped.value.code == 1
    assert "of the source other is not there" in said.err and json.loads(said.out)["unchanged"] == 1


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["/no/such folder"], "There is no folder /no/such folder"),
        (["ROOT", "--user", "nobody"], "There is no user named 'nobody'"),
        (["ROOT", "--exclude", "a\\"], "is no valid glob"),
        (["--name", "x"], "belong to one folder: name its path"),
        (["ROOT/a.jpg"], "is a file; name the folder that holds it"),
    ],
)
def test_bad_input_gets_one_sentence(root: Path, args: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence.replace("\\", r"\\")) as error:
        call_command("crawl", *[arg.replace("ROOT", str(root)) for arg in args])
    assert "\n" not in str(error.value)
    assert not Image.objects.exists()


def test_what_the_guard_says_is_said_and_the_flag_overrides_it(root: Path, capsys: Any) -> None:
    crawl(capsys, root)
    shutil.rmtree(root)
    root.mkdir()
    out, err = crawl(capsys, root)
    assert "perhaps a disk is not mounted" in err and "missing" not in out
    out, err = crawl(capsys, root, "--accept-missing")
    assert out == "My photos: 0 files found: 1 now missing.\n" and err == ""


def test_a_whole_run_in_a_process_of_its_own(sandbox: Any, root: Path) -> None:
    box = sandbox()
    assert box.report("crawl", f"{root}/")["registered"] == 1
    done = box.manage("crawl", root / "nothing", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "There is no folder" in done.stderr
