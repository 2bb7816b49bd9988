"""The watcher with real files: what changes in a folder is in the catalogue soon after, however it changed."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingestion import disks, pausing, watcher, watchstate
from ingestion.listeners import Budget, LibraryListener, listen
from ingestion.models import Crawl, Watch
from ingestion.register import crawl, source_for
from ingestion.watcher import Watcher
from search.models import Image, Source
from tests.crawling import as_read, root
from tests.photos import jpeg, put

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="the kernel's own watch is Linux's"),
]

__all__ = ["root"]

PATIENCE = 60


def library(root: bytes, rules: Any, own: Any, pending: Any, budget: Any) -> LibraryListener:
    return LibraryListener(root, rules, own, pending)


def waited(condition: Callable[[], Any], what: str = "") -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError(what or "it never came true")


class Running:
    """A watcher in threads of this process."""

    def __init__(self, **options: Any) -> None:
        self.watcher = Watcher(**{"budget": Budget(None), **options})
        self.thread = threading.Thread(target=self.watcher.run)
        self.thread.start()

    def stop(self) -> None:
        self.watcher.stop()
        self.thread.join()

    def quiet(self) -> None:
        """Wait until everything that was heard has been looked at."""
        looks = 0
        while looks < 5:
            looks = looks + 1 if all(keeper.idle for keeper in self.watcher.keepers.values()) else 0
            time.sleep(0.05)


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    monkeypatch.setattr(watcher, "GRACE", watcher.GRACE * 0)
    monkeypatch.setattr(watcher, "LOOK_SECONDS", 0.2)
    running: list[Running] = []

    def begin(*, watched: bool = True, **options: Any) -> Running:
        running.append(Running(**options))
        if watched:
            waited(lambda: watchstate.watched_ids() == set(Source.objects.values_list("pk", flat=True)))
            running[-1].quiet()
        return running[-1]

    yield begin
    for one in running:
        one.stop()


@pytest.fixture(params=["kernel", pytest.param("library", marks=pytest.mark.slow)])
def either(request: pytest.FixtureRequest, watching: Callable[..., Running]) -> Callable[[], Running]:
    """Both ways to listen: Linux's own, and the library that is used elsewhere (it runs on Linux too)."""
    return lambda: watching(listen=listen if request.param == "kernel" else library)


def old(path: Path, number: int) -> None:
    """A picture that lies there since long ago."""
    put(path, number, mtime=time.time() - 1000)


def states() -> dict[str, str]:
    return {os.fsdecode(bytes(path)): state for path, state in Image.objects.values_list("path", "state")}


def present() -> set[str]:
    return {path for path, state in states().items() if state not in ("missing", "removed")}


def ids() -> dict[str, int]:
    return {os.fsdecode(bytes(path)): pk for path, pk in Image.objects.values_list("path", "pk")}


def test_new_changed_moved_and_deleted_files_appear(root: Path, either: Any) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        old(root / name, len(name) + int(name[2]))
    crawl(source_for(root)[0])
    as_read()
    before = ids()
    either()
    put(root / "a" / "new.jpg", 40)
    put(root / "c" / "deep" / "new.jpg", 41)
    waited(lambda: {"a/new.jpg", "c/deep/new.jpg"} <= present(), "new files, also in new folders")
    put(root / "a" / "1.jpg", jpeg(42, size=(90, 70)))
    waited(lambda: states()["a/1.jpg"] == "waiting", "a changed file waits to be read again")
    os.rename(root / "a" / "2.jpg", root / "b" / "renamed.jpg")
    waited(lambda: ids().get("b/renamed.jpg") == before["a/2.jpg"], "a moved file keeps its id")
    os.unlink(root / "b" / "3.jpg")
    waited(lambda: states()["b/3.jpg"] == "missing", "a deleted file is missing")
    assert states()["b/renamed.jpg"] == "ready" and "a/2.jpg" not in states()


def test_a_renamed_folder_is_one_crawl_and_nothing_is_read_again(
    root: Path, watching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        old(root / "2023" / f"{number % 3}" / f"{number}.jpg", number)
    source = source_for(root)[0]
    crawl(source)
    as_read()
    before = ids()
    running = watching()
    running.quiet()
    monkeypatch.setattr("ingestion.arrivals.sha256_of", lambda *_, **__: pytest.fail("the kernel said who is who"))
    last = Crawl.objects.latest("pk").pk
    os.rename(root / "2023", root / "2024")
    waited(lambda: present() == {path.replace("2023/", "2024/") for path in before})
    running.quiet()
    assert {path.replace("2024/", "2023/"): pk for path, pk in ids().items()} == before
    assert set(states().values()) == {"ready"}
    assert [row.counts["moved"] for row in Crawl.objects.filter(pk__gt=last)] == [30]
    # What happens in the renamed folder is heard of, and so is the next name.
    put(root / "2024" / "0" / "late.jpg", 77)
    waited(lambda: "2024/0/late.jpg" in present())
    os.rename(root / "2024", root / "2025")
    waited(lambda: ids().get("2025/0/0.jpg") == before["2023/0/0.jpg"])


def test_files_moved_in_and_out_of_the_source(root: Path, either: Any, tmp_path: Path) -> None:
    for number in range(20):
        old(root / "kept" / f"{number}.jpg", number)
    old(root / "trip" / "deep" / "1.jpg", 50)
    crawl(source_for(root)[0])
    as_read()
    trip = ids()["trip/deep/1.jpg"]
    either()
    os.rename(root / "trip", tmp_path / "elsewhere")
    waited(lambda: states()["trip/deep/1.jpg"] == "missing")
    os.rename(tmp_path / "elsewhere", root / "journey")
    waited(lambda: ids().get("journey/deep/1.jpg") == trip)
    assert states()["journey/deep/1.jpg"] == "ready", "nothing is read again"
    shutil.rmtree(root / "journey")
    waited(lambda: states()["journey/deep/1.jpg"] == "missing")


@pytest.mark.slow
def test_a_file_is_registered_once_it_is_whole(root: Path, watching: Any) -> None:
    running = watching() if source_for(root) else None
    whole = jpeg(5, size=(1200, 900))
    put(root / "beside.jpg", 6)
    seen: list[int] = []
    step = max(1, len(whole) // 12)
    with open(root / "big.jpg", "wb") as file:
        for start in range(0, len(whole), step):
            file.write(whole[start : start + step])
            file.flush()
            time.sleep(0.3)
            if start == step:
                put(root / "after.jpg", 7)
            seen += Image.objects.filter(path=b"big.jpg").values_list("size", flat=True)
    waited(lambda: {"big.jpg", "beside.jpg", "after.jpg"} <= present())
    running.quiet()  # type: ignore[union-attr]
    assert not seen, "not while it was being written"
    assert Image.objects.get(path=b"big.jpg").size == len(whole)
    assert sum(row.counts["registered"] for row in Crawl.objects.all()) == 3, "each file once"


@pytest.mark.slow
def test_the_library_waits_for_a_growing_file_too(root: Path, watching: Any) -> None:
    source_for(root)
    watching(listen=library)
    whole = jpeg(5, size=(1200, 900))
    step = max(1, len(whole) // 6)
    with open(root / "big.jpg", "wb") as file:
        for start in range(0, len(whole), step):
            file.write(whole[start : start + step])
            file.flush()
            time.sleep(0.2)
    waited(lambda: "big.jpg" in present())
    assert [row.size for row in Image.objects.all()] == [len(whole)]


@pytest.mark.slow
def test_two_thousand_files_at_once(root: Path, watching: Any, tmp_path: Path) -> None:
    source_for(root)
    running = watching()
    body = jpeg(1)
    for number in range(2000):
        folder = root / f"{number % 40}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(body + b"%d" % number)
    waited(lambda: Image.objects.count() == 2000)
    running.quiet()
    assert len(present()) == 2000
    assert sum(row.counts["registered"] for row in Crawl.objects.all()) == 2000


@pytest.mark.slow
def test_an_overflowing_queue_leads_to_a_look_at_everything(root: Path, watching: Any) -> None:
    old(root / "a.jpg", 1)
    source_for(root)
    running = watching()
    listener = next(iter(running.watcher.keepers.values()))._listener
    from ingestion import inotify

    real = listener._queue.read
    lost: list[Any] = []

    def read() -> list[inotify.Event]:
        if lost:
            return real()
        lost.extend(real())
        return [inotify.Event(-1, inotify.OVERFLOW, 0, b"")]

    listener._queue.read = read
    put(root / "unheard" / "of.jpg", 2)
    waited(lambda: "unheard/of.jpg" in present())
    put(root / "unheard" / "later.jpg", 3)
    waited(lambda: "unheard/later.jpg" in present(), "folders that nobody was told of are watched afterwards")


def test_too_many_folders(root: Path, watching: Any) -> None:
    for number in range(6):
        old(root / f"{number}" / "a.jpg", number)
    source = source_for(root)[0]
    running = watching(watched=False, budget=Budget(5))
    waited(lambda: "has more folders than may be watched (5 folders in all)" in watchstate.kept([source])[0].sentence)
    assert watchstate.kept([source])[0].sentence.startswith("Looked through every hour, because it has more folders")
    assert not watchstate.watched_ids()
    assert running.watcher._budget._used == 0, "what was taken is given back"


@pytest.mark.slow
def test_growing_beyond_the_limit_while_watched(root: Path, watching: Any) -> None:
    old(root / "0" / "a.jpg", 1)
    source = source_for(root)[0]
    watching(budget=Budget(4))
    for number in range(1, 6):
        (root / f"{number}").mkdir()
    waited(lambda: "more folders than may be watched" in watchstate.kept([source])[0].sentence)
    assert watchstate.health().details == {"watched": 0, "by_time": 1}


@pytest.mark.slow
def test_nothing_is_watched_when_told_so(root: Path, watching: Any, settings: Any) -> None:
    settings.IMAGESEARCH_WATCH_FOLDERS = 0
    source = source_for(root)[0]
    watching(watched=False)
    waited(lambda: "because IMAGESEARCH_WATCH_FOLDERS is 0." in watchstate.kept([source])[0].sentence)


@pytest.mark.parametrize("kind", ["nfs4"])
def test_network_disks_are_looked_through_by_time(
    root: Path, watching: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    disk = disks.Disk(os.fsencode(root), kind, local=False, identity=b"1")
    monkeypatch.setattr(disks, "mounted", lambda: [disks.Disk(b"/", "ext4", True, b"0"), disk])
    source = source_for(root)[0]
    watching(watched=False)
    waited(lambda: f"it is on a file system ({kind})" in watchstate.kept([source])[0].sentence)


@pytest.mark.slow
def test_a_root_that_goes_and_comes_back(root: Path, watching: Any, tmp_path: Path) -> None:
    for number in range(3):
        old(root / f"{number}.jpg", number)
    source = source_for(root)[0]
    running = watching()
    os.rename(root, tmp_path / "unplugged")
    waited(lambda: "its folder is not there just now" in watchstate.kept([source])[0].sentence)
    put(tmp_path / "unplugged" / "meanwhile.jpg", 9)
    assert len(present()) == 3, "nothing is missing because a disk is"
    os.rename(tmp_path / "unplugged", root)
    waited(lambda: "meanwhile.jpg" in present())
    running.quiet()
    assert watchstate.kept([source])[0].sentence == "Watched: changes appear within seconds."


@pytest.mark.slow
def test_another_folder_in_the_roots_place_is_not_believed(root: Path, watching: Any, tmp_path: Path) -> None:
    for number in range(15):
        old(root / f"{number}.jpg", number)
    source = source_for(root)[0]
    running = watching()
    os.rename(root, tmp_path / "unplugged")
    root.mkdir()
    waited(lambda: Crawl.objects.filter(state="guarded").exists())
    running.quiet()
    assert len(present()) == 15
    assert "Nothing was marked missing" in Crawl.objects.filter(state="guarded").latest("pk").message
    assert Source.objects.get(pk=source.pk).root_inode is not None


@pytest.mark.slow
def test_mass_disappearance_is_not_believed_in_small_steps(root: Path, watching: Any) -> None:
    for number in range(60):
        old(root / f"{number % 6}" / f"{number}.jpg", number)
    source_for(root)
    running = watching()
    running.quiet()
    for number in range(6):
        shutil.rmtree(root / f"{number}")
        running.quiet()
    waited(lambda: Crawl.objects.filter(state="guarded").exists())
    assert 30 <= len(present()) < 60, "up to half of it is believed"


def test_pausing_holds_the_changes_back(root: Path, watching: Any) -> None:
    source = source_for(root)[0]
    running = watching()
    pausing.pause()
    keeper = running.watcher.keepers[source.pk]
    waited(lambda: keeper.resting)
    put(root / "new.jpg", 1)
    waited(lambda: len(keeper.pending))
    time.sleep(1)
    assert not present()
    assert watchstate.kept([source])[0].sentence == "Watched: changes are noted, and appear when the work goes on."
    pausing.resume()
    waited(lambda: present() == {"new.jpg"})


@pytest.mark.slow
def test_sources_come_change_and_go_while_it_runs(root: Path, watching: Any, tmp_path: Path) -> None:
    source = source_for(root)[0]
    running = watching()
    other = tmp_path / "other"
    other.mkdir()
    second = source_for(other)[0]
    waited(lambda: second.pk in watchstate.watched_ids())
    put(other / "x.jpg", 1)
    waited(lambda: "x.jpg" in present())
    Source.objects.filter(pk=source.pk).update(excludes="left out/")
    first = running.watcher.keepers[source.pk]
    waited(lambda: running.watcher.keepers.get(source.pk, first) is not first)
    put(root / "left out" / "a.jpg", 2)
    put(root / "in.jpg", 3)
    waited(lambda: "in.jpg" in present())
    running.quiet()
    assert "left out/a.jpg" not in states()
    Source.objects.filter(pk=second.pk).update(recrawl_minutes=0)
    waited(lambda: second.pk not in watchstate.watched_ids())
    second.refresh_from_db()
    assert watchstate.kept([second])[0].sentence == "Looked through only when somebody asks for it."


def test_names_that_are_no_text_links_and_excluded_files(root: Path, watching: Any, tmp_path: Path) -> None:
    source_for(root)
    outside = tmp_path / "outside"
    put(outside / "a.jpg", 1)
    running = watching()
    os.symlink(outside, root / "link")
    odd = os.fsencode(root) + b"/caf\xe9"
    os.mkdir(odd)
    body = (outside / "a.jpg").read_bytes()
    with open(odd + b"/gr\xfc\xdfe.jpg", "wb") as file:
        file.write(body)
    (root / ".hidden.jpg").write_bytes(body)
    (root / "x.jpg.part").write_bytes(body)
    os.rename(root / "x.jpg.part", root / "x.jpg")
    os.link(outside / "a.jpg", root / "hard.jpg")
    waited(lambda: Image.objects.count() == 3)
    put(outside / "b.jpg", 2)
    running.quiet()
    assert {bytes(path) for path in Image.objects.values_list("path", flat=True)} == {
        b"caf\xe9/gr\xfc\xdfe.jpg", b"x.jpg", b"hard.jpg",
    }  # fmt: skip


@pytest.mark.slow
def test_the_programs_own_folders_inside_a_source_are_not_watched(root: Path, watching: Any, settings: Any) -> None:
    settings.IMAGESEARCH_THUMBNAILS = root / "data" / "thumbnails"
    old(settings.IMAGESEARCH_THUMBNAILS / "1.jpg", 1)
    old(root / "a.jpg", 1)
    source = source_for(root)[0]
    running = watching()
    keeper = running.watcher.keepers[source.pk]
    assert set(keeper._listener._watches) == {b"", b"data"}
    put(settings.IMAGESEARCH_THUMBNAILS / "2.jpg", 2)
    put(root / "b.jpg", 2)
    waited(lambda: "b.jpg" in present())
    running.quiet()
    assert present() == {"a.jpg", "b.jpg"}


def test_without_a_watcher_the_page_says_so(root: Path) -> None:
    source = source_for(root)[0]
    assert watchstate.kept([source])[0].sentence == "Looked through every hour, because no watcher runs."
    Watch.objects.create(source=source, watched=True, beat_at=source.created_at.replace(year=2020))
    assert not watchstate.kept([source])[0].watched, "an old word is not believed"


def test_how_often_for_people() -> None:
    assert [watchstate.every(n) for n in (1, 15, 60, 90, 120, 1440, 2880)] == [
        "every minute", "every 15 minutes", "every hour", "every 90 minutes", "every 2 hours", "every day",
        "every 2 days",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_watcher_finds_what_happened_meanwhile(sandbox: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for number in range(4):
        old(folder / f"{number}.jpg", number)
    box = sandbox(IMAGESEARCH_ENCODER="look")
    box.manage("crawl", folder)

    def kept() -> str:
        return str(box.report("watch", "--check")[0]["kept"])

    def sees(total: int) -> bool:
        states = box.report("stats")["states"]
        return bool(sum(states.values()) - states.get("missing", 0) == total)

    first = box.popen("watch")
    try:
        waited(lambda: kept() == "Watched: changes appear within seconds.")
        refused = box.manage("watch", check=False)
        assert refused.returncode == 1 and "A watcher runs on this data folder already" in refused.stderr
        put(folder / "new.jpg", 10)
        waited(lambda: sees(5))
    finally:
        first.kill()
        first.communicate()
    put(folder / "while it was dead.jpg", 11)
    os.unlink(folder / "0.jpg")
    (folder / "sub").mkdir()
    os.rename(folder / "1.jpg", folder / "sub" / "1.jpg")
    second = box.popen("watch")
    try:
        put(folder / "and now.jpg", 12)
        waited(lambda: sees(6) and box.report("stats")["states"].get("missing") == 1)
    finally:
        second.terminate()
        assert second.wait(timeout=60) == 0
        second.communicate()
    assert kept() == "Looked through every hour, because no watcher runs."
