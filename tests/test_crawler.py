"""The walk and the excludes: no database."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagesearch.environment import DEFAULT_EXCLUDES
from ingestion.crawler import Folder, readable, walk
from ingestion.errors import BadPattern
from ingestion.excludes import Rules, lines, literal
from tests.photos import put


def look(root: Path, *globs: str, **options: object) -> dict[bytes, Folder]:
    return {folder.path: folder for folder in walk(os.fsencode(root), Rules(globs), **options)}  # type: ignore[arg-type]


def names(folder: Folder) -> set[bytes]:
    return {name for name, _, _ in folder.files}


def kept(*globs: str, path: str) -> bool:
    """Whether a file at this path is walked, asking folder by folder as the walk does."""
    rules = Rules(map(literal, globs))
    *folders, name = path.encode().split(b"/")
    if rules.pruned_at(b"/".join(folders)):
        return False
    test = rules.file_test(b"/".join(folders))
    return not (test and test(name))


@pytest.mark.parametrize(
    ("globs", "path", "stays"),
    [
        (["*.tmp"], "a/b.tmp", False),
        (["*.tmp"], "a/b.tmpx", True),
        (["*.tmp"], "a/b.tmp\n", True),
        (["*.tmp"], "a\nb.tmp", False),
        (["*.tmp"], "x.tmp/photo.jpg", False),
        (["cache/"], "cache", True),
        (["cache/"], "a/cache/b.jpg", False),
        (["/cache/"], "cache/b.jpg", False),
        (["/cache/"], "a/cache/b.jpg", True),
        (["a/b.jpg"], "a/b.jpg", False),
        (["a/b.jpg"], "c/a/b.jpg", True),
        (["**/b/*.jpg"], "x/y/b/1.jpg", False),
        (["raw/**"], "raw/deep/1.jpg", False),
        (["IMG_?.jpg"], "IMG_ä.jpg", False),
        (["IMG_?.jpg"], "IMG_ab.jpg", True),
        (["[äö]*"], "ölbild.jpg", False),
        (["[äö]*"], "bild.jpg", True),
        (["ä*"], "ähre.jpg", False),
        (["#recycle/"], "#recycle/1.jpg", False),
        (["*.jpg", "!keep.jpg"], "keep.jpg", True),
        (["*.jpg", "!keep.jpg"], "a/other.jpg", False),
        (["*.jpg", "!keep.jpg", "a/keep.jpg"], "a/keep.jpg", False),
        (["*.jpg", "!keep.jpg", "a/keep.jpg"], "b/keep.jpg", True),
        (["!keep.jpg"], "keep.jpg", True),
        ([""], "a.jpg", True),
        (DEFAULT_EXCLUDES, ".hidden/a.jpg", False),
        (DEFAULT_EXCLUDES, "a/.a.jpg", False),
        (DEFAULT_EXCLUDES, "a/Thumbs.db", False),
        (DEFAULT_EXCLUDES, "a/photo.jpg~", False),
        (DEFAULT_EXCLUDES, "@eaDir/a.jpg", False),
        (DEFAULT_EXCLUDES, "$RECYCLE.BIN/a.jpg", False),
        (DEFAULT_EXCLUDES, "2020/My.photoslibrary/resources/a.jpg", False),
        (DEFAULT_EXCLUDES, "2020/My.photoslibrary/originals/a.jpg", True),
        (DEFAULT_EXCLUDES, "2020/summer/a.b.jpg", True),
    ],
)
def test_globs_are_gitignore_globs_relative_to_the_root(globs: list[str], path: str, stays: bool) -> None:
    assert kept(*globs, path=path) is stays


def test_lines_of_a_source_may_be_comments_and_settings_may_not() -> None:
    rules = Rules(lines("# keep this\n\n*.bak\n"))
    test = rules.file_test(b"")
    assert test is not None and test(b"a.bak") and not test(b"# keep this")


def test_a_glob_that_cannot_be_understood_is_named() -> None:
    with pytest.raises(BadPattern, match=r"The exclude 'a\\\\' is no valid glob"):
        Rules(["a\\"])


def test_the_walk_goes_folder_by_folder_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    put(tmp_path / "b.tmp", b"x")
    put(tmp_path / "deep" / "er" / "c.jpg")
    put(tmp_path / "cache" / "d.jpg")
    found = look(tmp_path, "*.tmp", "cache/")
    assert set(found) == {b"", b"deep", b"deep/er"}
    assert names(found[b""]) == {b"a.jpg"} and found[b""].excluded == 1
    status = os.stat(tmp_path / "deep" / "er" / "c.jpg")
    assert found[b"deep/er"].files == [(b"c.jpg", status.st_size, status.st_mtime_ns)]


def test_the_root_itself_is_never_excluded(tmp_path: Path) -> None:
    put(tmp_path / ".hidden" / "a.jpg")
    assert names(look(tmp_path / ".hidden", ".*")[b""]) == {b"a.jpg"}


def test_names_of_any_bytes_survive(tmp_path: Path) -> None:
    odd = [b"\xff\xfe.jpg", b"new\nline.jpg", b" sp ace .jpg", b"quo'te\".jpg", "\U0001f600.jpg".encode(), b"\\xff.jpg",
           b"a" * 251 + b".jpg", b"\xed\xa0\x80.jpg"]  # fmt: skip
    for name in odd:
        put(os.path.join(os.fsencode(tmp_path), b"\xfe dir", name), b"x")
    assert names(look(tmp_path, *DEFAULT_EXCLUDES)[b"\xfe dir"]) == set(odd)
    assert readable(b"new\nline\xff.jpg") == "new\\nline\\xff.jpg"


def test_only_regular_files_are_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket.jpg"))
        os.symlink("/dev/zero", tmp_path / "zero.jpg")
        found = look(tmp_path)[b""]
        followed = look(tmp_path, follow_symlinks=True)[b""]
    assert found.files == [] and found.excluded == 3
    assert followed.files == [] and followed.excluded == 3


def test_links_are_left_out_unless_they_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "outside" / "album" / "a.jpg")
    put(tmp_path / "outside" / "b.jpg")
    root = tmp_path / "root"
    put(root / "own" / "c.jpg")
    os.symlink(tmp_path / "outside" / "album", root / "album")
    os.symlink(tmp_path / "outside" / "b.jpg", root / "b.jpg")
    os.symlink(root / "own", root / "again")
    os.symlink(root / "own" / "c.jpg", root / "c-again.jpg")
    still = look(root)
    assert set(still) == {b"", b"own"} and still[b""].excluded == 4 and still[b""].files == []
    followed = look(root, follow_symlinks=True)
    assert set(followed) == {b"", b"own", b"album"}
    assert names(followed[b"album"]) == {b"a.jpg"} and names(followed[b""]) == {b"b.jpg"}
    assert followed[b""].excluded == 2, "links into the root are left out: what they lead to is walked itself"


def test_loops_of_links_end(tmp_path: Path) -> None:
    root, one, two = tmp_path / "root", tmp_path / "one", tmp_path / "two"
    put(root / "a.jpg")
    put(one / "b.jpg")
    put(two / "c.jpg")
    os.symlink(root, root / "self")
    os.symlink(tmp_path, root / "above")
    os.symlink(two, one / "to-two")
    os.symlink(one, two / "to-one")
    os.symlink("round", root / "round")
    found = look(root, follow_symlinks=True)
    everything = sorted(name for folder in found.values() for name in names(folder))
    assert everything == [b"a.jpg", b"b.jpg", b"c.jpg"]


def test_a_followed_link_that_leads_nowhere_protects_what_is_known_there(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(tmp_path / "unplugged", root / "usb")
    found = look(root, follow_symlinks=True)[b""]
    assert found.blocked == [b"usb"] and found.excluded == 1
    assert "The link usb leads to" in found.errors[0]


def test_the_programs_own_folders_are_pruned_wherever_they_lie(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.jpg")
    put(tmp_path / "photos" / "data" / "thumbnails" / "1.jpg")
    status = os.stat(tmp_path / "photos" / "data")
    found = look(tmp_path / "photos", own=frozenset({(status.st_dev, status.st_ino)}))
    assert set(found) == {b""}


def test_a_part_of_the_root_can_be_walked_alone(tmp_path: Path) -> None:
    put(tmp_path / "a" / "b" / "1.jpg")
    put(tmp_path / "c" / "2.jpg")
    assert set(look(tmp_path, start=b"a")) == {b"a", b"a/b"}


def test_recently_changed_folders_come_first(tmp_path: Path) -> None:
    for number, name in enumerate(["old", "new", "middle"]):
        put(tmp_path / name / "a.jpg")
        os.utime(tmp_path / name, (1000 + [0, 20, 10][number],) * 2)
    assert list(look(tmp_path)) == [b"", b"new", b"middle", b"old"]


def test_a_folder_that_vanishes_is_reported_and_protected(tmp_path: Path) -> None:
    put(tmp_path / "one" / "a.jpg")
    put(tmp_path / "two" / "b.jpg")
    going = walk(os.fsencode(tmp_path), Rules([]))
    assert next(going).path == b""
    for name in ("one", "two"):
        os.rename(tmp_path / name, tmp_path.parent / f"{tmp_path.name}-{name}")
    rest = list(going)
    assert {tuple(folder.blocked) for folder in rest} == {(b"one",), (b"two",)}
    assert all("went away" in folder.errors[0] for folder in rest)


def test_a_folder_that_cannot_be_read_is_reported_and_protected(tmp_path: Path) -> None:
    """A path longer than the system takes cannot be opened, whoever asks (permissions do not stop root)."""
    deep = os.fsencode(tmp_path)
    fd = os.open(deep, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir(b"d" * 250, dir_fd=fd)
            lower = os.open(b"d" * 250, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = lower
    finally:
        os.close(fd)
    found = list(walk(deep, Rules([])))
    assert found[-1].blocked == [found[-1].path + b"/" + b"d" * 250]
    assert "cannot be read (File name too long)" in found[-1].errors[0]


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder everybody may enter, and this process with the rights of a plain user: root may read anything."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        me = os.geteuid()
        if me != 0:
            yield Path(folder)
            return

        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(me)


def test_permission_errors_are_reported_and_protect(as_nobody: Path) -> None:
    put(as_nobody / "closed" / "a.jpg")
    put(as_nobody / "listed" / "c.jpg")
    put(as_nobody / "b.jpg")
    os.chmod(as_nobody / "closed", 0)
    os.chmod(as_nobody / "listed", 0o400)
    try:
        found = look(as_nobody)
    finally:
        os.chmod(as_nobody / "closed", 0o700)
        os.chmod(as_nobody / "listed", 0o700)
    assert found[b"closed"].blocked == [b"closed"] and "Permission denied" in found[b"closed"].errors[0]
    assert found[b"listed"].blocked == [b"listed/c.jpg"] and found[b"listed"].files == []
    assert names(found[b""]) == {b"b.jpg"}


def test_a_root_that_is_not_there_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(walk(os.fsencode(tmp_path / "gone"), Rules([])))
