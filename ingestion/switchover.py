"""The moment at which a restore becomes true: one commit of the database, and everything else follows from it.

Whatever a restore brings is laid beside what is there, and rows go into one transaction. Just before the commit a
journal is written. A restore that is killed before the commit changed nothing: the next process that starts throws
away what was laid out. One that is killed after it is finished by the next process that starts. So at no moment are
the old database's rows read against the new vectors, or the new ones against the old.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import DatabaseError, connection

from ingestion.errors import IngestionError
from search.arrays import Ids
from search.faultpoints import reach
from search.models import Counter

log = logging.getLogger(__name__)

_PATIENCE = 600.0
MARK = "restored"
"""The `Counter` that holds the token of the last restore: there with the commit, or not."""


class RestoreBusy(IngestionError):
    """Another restore is running on this data folder."""


@dataclass
class Switchover:
    """What is laid out beside the old, and which of the old has to go."""

    token: int
    old_spaces: list[str] = field(default_factory=list)
    new_spaces: list[str] = field(default_factory=list)

    @property
    def spaces(self) -> Path:
        """Where the new spaces lie until the switch: on the disk on which they will be."""
        return Path(settings.IMAGESEARCH_SPACES) / f".restore-{self.token:x}"

    @property
    def thumbnails(self) -> Path:
        return Path(settings.IMAGESEARCH_THUMBNAILS) / f".restore-{self.token:x}"

    def lay_out(self) -> None:
        """Make the empty folders."""
        for folder in (self.spaces / "new", self.thumbnails / "new"):
            folder.mkdir(parents=True)

    def keep_thumbnails(self, ids: Ids) -> None:
        """After the switch there are thumbnails of these images only."""
        np.save(self.thumbnails / "keep.npy", ids)

    def announce(self) -> None:
        """Write the journal; the commit has to follow. All that was laid out must be on disk before."""
        for folder, _, names in os.walk(self.spaces):
            for name in names:
                _flush(Path(folder) / name)
            _flush(Path(folder))
        _flush(self.thumbnails / "keep.npy")
        if any((self.thumbnails / "new").iterdir()):
            os.sync()  # one call for very many small files
        fresh = _journal().with_suffix(".new")
        with open(fresh, "w") as out:
            json.dump(asdict(self), out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(fresh, _journal())
        _flush(_journal().parent)

    def complete(self) -> None:
        """After the commit: put everything in its place. Killed and called again it goes on."""
        home, aside = Path(settings.IMAGESEARCH_SPACES), self.spaces / "old"
        aside.mkdir(parents=True, exist_ok=True)
        for name in sorted({*self.old_spaces, *self.new_spaces}):
            fresh = self.spaces / "new" / name
            if (home / name).exists() and (name not in self.new_spaces or fresh.exists()):
                shutil.rmtree(aside / name, ignore_errors=True)
                os.rename(home / name, aside / name)
            reach("restore-between-spaces")
            if fresh.exists():
                os.rename(fresh, home / name)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.spaces / "new" / "highwater.json", home / "highwater.json")
        _flush(home)
        reach("restore-spaces-placed")
        self._place_thumbnails()
        self.throw_away()

    def _place_thumbnails(self) -> None:
        home = Path(settings.IMAGESEARCH_THUMBNAILS)
        for folder in sorted((self.thumbnails / "new").glob("*")):
            (home / folder.name).mkdir(exist_ok=True)
            for file in folder.iterdir():
                os.replace(file, home / folder.name / file.name)
        reach("restore-thumbnails-placed")
        try:
            keep = np.load(self.thumbnails / "keep.npy")
        except FileNotFoundError:  # thrown away already: the last step before the journal goes
            return
        shutil.rmtree(home / "renditions", ignore_errors=True)
        for folder in home.iterdir():
            if not (folder.name.isdigit() and folder.is_dir()):
                continue
            names = {int(file.stem): file for file in folder.glob("*.jpg") if file.stem.isdigit()}
            ids = np.fromiter(names, dtype=np.int64, count=len(names))
            for image_id in ids[~np.isin(ids, keep)].tolist():
                names[image_id].unlink(missing_ok=True)

    def resolve(self) -> bool:
        """Complete what was committed, throw away what was not; True for the former. Raises DatabaseError."""
        committed = Counter.objects.filter(name=MARK, value=self.token).exists()
        if committed:
            self.complete()
        else:
            self.throw_away()
        return committed

    def throw_away(self) -> None:
        """Remove what is left of the laying out, then the journal."""
        shutil.rmtree(self.thumbnails, ignore_errors=True)
        shutil.rmtree(self.spaces, ignore_errors=True)
        _journal().unlink(missing_ok=True)
        _flush(_journal().parent)


@contextlib.contextmanager
def only_restore() -> Iterator[None]:
    """Hold the data folder for one restore. Raises RestoreBusy."""
    with _locked(patience=2.0) as file:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def settle() -> None:
    """Finish, or take back, what a killed restore left; called when a process starts. Costs a look for a file."""
    if not _journal().exists():
        _sweep()
        return
    with _locked(patience=_PATIENCE):
        try:
            switch = Switchover(**json.loads(_journal().read_text()))
        except FileNotFoundError:  # the restore itself was quicker
            return
        try:
            committed = switch.resolve()
        except DatabaseError as error:
            log.error("A restore was interrupted, and the database cannot be asked how far it was: %s", error)
            return
        finally:
            connection.close()  # it was opened before the apps added what they add to connections
        if committed:
            log.warning("The interrupted restore was finished. Run `manage.py repair` to queue what it lacks.")
        else:
            log.warning("The interrupted restore was taken back; nothing of what was here was changed.")


def check_restore(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """No restore is running or half done; a check of every command."""
    if _lock_file().exists():
        try:
            with _locked(shared=True):
                pass
        except RestoreBusy as busy:
            return [Error(str(busy), id="ingestion.E001")]
        except OSError:
            return []  # a folder that cannot be read is named by another check
    if _journal().exists():
        return [
            Error(
                "A restore was interrupted, and nobody could tell yet how far it was: the database did not answer.",
                hint="See that the database runs, then run any command again: it finishes the restore, or takes it "
                "back.",
                id="ingestion.E002",
            )
        ]
    return []


def _sweep() -> None:
    """Remove what restores that were killed before they had a journal laid out."""
    homes = (Path(settings.IMAGESEARCH_SPACES), Path(settings.IMAGESEARCH_THUMBNAILS))
    left = [folder for home in homes for folder in home.glob(".restore-*")]
    if not left:
        return
    with contextlib.suppress(RestoreBusy, OSError), _locked():
        if not _journal().exists():
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)


def _journal() -> Path:
    return Path(settings.IMAGESEARCH_DATA) / "restore.journal"


def _lock_file() -> Path:
    return Path(settings.IMAGESEARCH_DATA) / "locks" / "restore.lock"


@contextlib.contextmanager
def _locked(*, patience: float = 0.0, shared: bool = False) -> Iterator[Any]:
    path = _lock_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + patience
    with open(path, "a+") as file:
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    file.seek(0)
                    pid = file.read().strip()
                    raise RestoreBusy(
                        f"A restore is running on the data folder {settings.IMAGESEARCH_DATA}"
                        f"{f' (process {pid})' if pid else ''}: wait until it has finished."
                    ) from None
            time.sleep(0.02)
        yield file


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
