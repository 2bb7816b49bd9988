"""index, process, embed, stats, problems: what they print, and how they end."""

from __future__ import annotations

import errno
import json
import os
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from ingestion import ledger, tasks, turns
from ingestion.models import Work
from search import thumbnails
from search.models import Embedding, EmbeddingSpace, Image, Source
from tests import patterns
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db(transaction=True)

COUNTS = ("registered", "unchanged", "moved", "unreadable", "too_small", "unsupported", "excluded", "vanished")


def call(*args, status: int = 0, **options):
    """What the command printed: (stdout, stderr); its exit status is checked."""
    out, err = StringIO(), StringIO()
    try:
        call_command(*args, stdout=out, stderr=err, **options)
        ended: object = 0
    except SystemExit as exit_:
        ended = exit_.code
    assert ended == status, (ended, out.getvalue(), err.getvalue())
    return out.getvalue(), err.getvalue()


def report(*args, status: int = 0):
    return json.loads(call(*args, "--json", status=status)[0].splitlines()[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return patterns.folder_of(tmp_path / "photos", 4)


# --- index -------------------------------------------------------------------------------------------------


def test_index_accounts_for_every_file_in_exactly_one_count(folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "x.tmp").write_text("left out")
    patterns.write(folder / "tiny.png", 9, size=(8, 8))
    found = report("index", folder)
    assert found == {
        "found": 8, "registered": 4, "unchanged": 0, "moved": 0, "unreadable": 1, "too_small": 1, "unsupported": 1,
        "excluded": 1, "vanished": 0, "process": {"done": {"read": 4, "embed:look": 4}, "failed": {"read": 1},
                                                  "waiting": []},
    }  # fmt: skip
    assert found["found"] == sum(found[name] for name in COUNTS)
    again = report("index", folder)
    assert (again["unchanged"], again["registered"], again["unreadable"]) == (4, 0, 1)
    assert Image.objects.filter(state="ready").count() == 4


def test_index_ends_with_status_0_despite_problems_and_1_when_strict(folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"")
    out, _ = call("index", folder)
    assert "5 files found" in out and "1 unreadable" in out and "manage.py problems" in out
    call("index", folder, "--strict", status=1)
    (folder / "broken.jpg").unlink()
    call("index", folder, "--strict")


def test_index_ends_with_status_1_when_it_could_not_finish(folder: Path, monkeypatch) -> None:
    def full(image_id: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(thumbnails, "write_beside", full)
    with pytest.raises(CommandError, match="No space left on device"):
        call("index", folder)
    monkeypatch.undo()
    assert report("index", folder)["unchanged"] == 4
    assert Image.objects.filter(state="ready").count() == 4


def test_index_refuses_what_is_no_folder_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nowhere"):
        call("index", tmp_path / "nowhere")


def test_index_of_a_file_or_of_a_parent_of_sources_is_refused_in_one_sentence(folder: Path) -> None:
    with pytest.raises(CommandError, match=r"\.\w+ is a file; name the folder that holds it"):
        call("index", next(folder.glob("*.*")))
    with pytest.raises(CommandError, match="The path is empty"):
        call("index", "")
    call("index", folder)
    with pytest.raises(CommandError, match=r"contains what is a source already: photos .*: name that folder"):
        call("index", folder.parent)
    assert Source.objects.count() == 1


def test_index_of_a_folder_within_a_source_names_the_source(folder: Path) -> None:
    patterns.folder_of(folder / "holidays", 2)
    call("index", folder)
    out, _ = call("index", folder / "holidays")
    assert out.startswith("photos, folder holidays: 2 files found:\n  2 unchanged\n")
    with pytest.raises(CommandError, match=r"There is no folder .*/gone.* crawl the whole source photos"):
        call("index", folder / "gone")


def test_index_while_the_source_is_being_crawled_says_by_whom_and_leaves_the_work(tmp_path: Path) -> None:
    folder = patterns.folder_of(tmp_path / "photos", 60)
    call("crawl", folder)
    with (
        turns.turn(Source.objects.get()),
        pytest.raises(CommandError, match=rf"The source photos is being crawled by .*:{os.getpid()} just now; wait"),
    ):
        call("index", folder)
    assert Image.objects.filter(state="ready").count() < 60
    call("index", folder)
    assert Image.objects.filter(state="ready").count() == 60


def test_index_without_the_model_does_everything_else_and_says_what_waits(folder: Path, settings) -> None:
    settings.IMAGESEARCH_ENCODER = f"local-dir:{folder.parent / 'model'}"
    _, err = call("index", folder)
    assert str(folder.parent / "model") in err
    assert Image.objects.filter(state="ready").count() == 4 and Embedding.objects.count() == 4


def test_index_gives_a_new_source_to_its_user(folder: Path) -> None:
    user = make_user("ann")
    call("index", folder, "--user", "ann")
    assert Image.objects.visible_to(user).count() == 4


# --- process -----------------------------------------------------------------------------------------------


def test_process_says_what_it_did(folder: Path) -> None:
    call("crawl", folder)
    out, _ = call("process")
    assert "read: 4 done" in out
    assert "nothing to do" in call("process")[0]


def test_process_can_be_limited_to_a_stage_and_a_number(folder: Path) -> None:
    call("crawl", folder)
    assert report("process", "--stage", "read", "--limit", "3") == {
        "finished": True, "done": {"read": 3}, "failed": {}, "waiting": [],
    }  # fmt: skip
    assert ledger.counts()["read"] == (1, 3, 0)


@pytest.mark.parametrize("option", ["--limit", "--workers"])
def test_process_refuses_numbers_below_one(option: str) -> None:
    with pytest.raises(CommandError, match=f"{option} is 0; it accepts"):
        call("process", option, "0")


def test_process_names_the_stages_when_one_is_unknown() -> None:
    with pytest.raises(CommandError, match=r"no stage 'dance'.*read"):
        call("process", "--stage", "dance")


def test_process_ends_with_status_1_when_a_source_is_away(folder: Path) -> None:
    call("crawl", folder)
    folder.rename(folder.parent / "gone")
    _, err = call("process", status=1)
    assert str(folder) in err and "wait" in err


# --- embed --------------------------------------------------------------------------------------------------


def test_embed_lists_what_it_would_do_and_does_it(folder: Path) -> None:
    call("crawl", folder)
    call("process", "--stage", "read")
    listed = report("embed", "--dry-run")
    assert listed["count"] == 4 and listed["images"][0] == {
        "id": Image.objects.order_by("pk")[0].pk, "path": Image.objects.order_by("pk")[0].absolute_path_text,
    }  # fmt: skip
    lines = call("embed", "--dry-run")[0].splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(one["id"]) for one in listed["images"]]
    assert not Embedding.objects.exists()
    assert "4 done" in call("embed", "--batch-size", "2")[0]
    assert report("embed", "--dry-run") == {"count": 0, "images": []}
    assert "nothing to embed" in call("embed")[0]


def test_embed_keeps_to_what_a_user_may_see(folder: Path) -> None:
    ann = make_user("ann")
    other = patterns.folder_of(folder.parent / "other", 2, first=20)
    call("crawl", folder, "--user", "ann")
    call("crawl", other, "--user", make_user("bob").username)
    assert report("embed", "--dry-run", "--user", "ann")["count"] == 4
    call("embed", "--user", "ann")
    assert set(Embedding.objects.values_list("image", flat=True)) == set(
        Image.objects.visible_to(ann).values_list("pk", flat=True)
    )
    with pytest.raises(CommandError, match="no user named 'eve'"):
        call("embed", "--user", "eve")


def test_embed_retries_what_failed_only_when_told(folder: Path) -> None:
    call("index", folder)
    space = EmbeddingSpace.objects.get()
    image = Image.objects.order_by("pk")[0]
    ledger.queue([image.pk], [space.stage])
    ledger.fail([ledger.Failure(image.pk, space.stage, "It would not.")])
    Embedding.objects.filter(image=image).delete()
    assert report("embed", "--dry-run")["count"] == 0
    assert report("embed", "--dry-run", "--retry-failed")["count"] == 1
    assert report("embed")["done"] == {}
    assert report("embed", "--retry-failed")["done"] == {space.stage: 1}


def test_embed_names_the_spaces_when_one_is_unknown_and_the_model_when_it_is_away(folder: Path, settings) -> None:
    with pytest.raises(CommandError, match=r"no space 'nothing'\. Spaces: look"):
        call("embed", "--space", "nothing")
    with pytest.raises(CommandError, match="--batch-size is 0"):
        call("embed", "--batch-size", "0")
    settings.IMAGESEARCH_ENCODER = f"local-dir:{folder.parent / 'model'}"
    with pytest.raises(CommandError, match="model"):
        call("embed")
    call("embed", "--space", "look")


# --- stats and problems ----------------------------------------------------------------------------------------


def test_stats_counts_what_the_user_may_see(folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"")
    call("index", folder)
    make_user("eve")
    numbers = report("stats")
    assert (numbers["total"], numbers["readable"], numbers["embedded"]) == (5, 4, {"look": 4})
    assert numbers["coverage_percent"] == {"look": 100.0} and numbers["failed"] == {"read": 1}
    nothing = report("stats", "--user", "eve")
    assert (nothing["total"], nothing["readable"], nothing["failed"]) == (0, 0, {})
    out, _ = call("stats")
    assert "5 images, 4 of them readable" in out and "read: 1 failed" in out


def test_problems_are_listed_with_their_reasons_and_retried(folder: Path) -> None:
    (folder / "bro\nken.jpg").write_bytes(b"")
    assert "No problems." in call("problems")[0]
    call("index", folder)
    (problem,) = report("problems")
    assert problem["stage"] == "read" and "empty" in problem["reason"] and problem["path"].endswith("bro\nken.jpg")
    out, _ = call("problems")
    assert "bro\\nken.jpg" in out and out.count("\n") == 2
    make_user("eve")
    assert report("problems", "--user", "eve") == []
    assert report("problems", "--retry", "--user", "eve") == {"retried": 0}
    assert report("problems", "--retry", str(problem["id"])) == {"retried": 1}
    assert Work.objects.get(stage="read").state == "waiting"
    with pytest.raises(CommandError, match="'abc' is not the id"):
        call("problems", "--retry", "abc")


# --- scheduled tasks --------------------------------------------------------------------------------------------


def test_schedules_are_made_once_and_put_right() -> None:
    from django_q.models import Schedule

    tasks.ensure_schedules()
    Schedule.objects.filter(name="prune").update(minutes=1)
    Schedule.objects.create(name="prune", func="ingestion.tasks.prune", schedule_type=Schedule.MINUTES, minutes=1)
    tasks.ensure_schedules()
    tasks.ensure_schedules()
    names = list(Schedule.objects.order_by("name").values_list("name", flat=True))
    assert names == [
        "back up", "crawl due sources", "expire uploads", "finish removals", "keep indexes",
        "keep look-alikes", "prune", "sort review queues",
    ]  # fmt: skip
    assert Schedule.objects.get(name="prune").minutes == 24 * 60


def test_every_scheduled_function_exists_and_runs_without_arguments() -> None:
    from django.utils.module_loading import import_string

    for function, _ in tasks._SCHEDULES.values():
        import_string(function)()


def test_due_sources_are_crawled_and_missing_ones_are_left(folder: Path) -> None:
    source = make_source(folder)
    make_source("/nowhere/at/all")
    assert tasks.crawl_due() == 1
    source.refresh_from_db()
    assert source.images.count() == 4 and source.crawled_at is not None
    assert tasks.crawl_due() == 0
    assert tasks.crawl_source(999_999) is False


def test_pruning_keeps_what_is_recent() -> None:
    make_image()
    assert {"ticks", "changes", "crawls"} <= set(tasks.prune()) and not any(tasks.prune().values())
