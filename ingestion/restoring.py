"""Bring a backup back: onto this machine or another, under this mount path or another.

Nothing is touched before every checksum of the archive was compared; what happens then is told in `switchover`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.sql import emit_post_migrate_signal
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection
from django.utils import timezone

from ingestion import backup_file, preparation, presence, tables
from ingestion.errors import IngestionError
from ingestion.models import Work
from ingestion.refilling import Refill, is_empty
from ingestion.repair import repair
from ingestion.switchover import Switchover, only_restore
from search.arrays import Ids
from search.bitmaps import reset_library
from search.faultpoints import reach
from search.models import Source
from search.vectors import reset_stores
from search.wording import agreeing, counted

Tell = Callable[[str], None]
_BLOCK = 1 << 20
_OURS = {"search", "faces", "ingestion"}


class RestoreRefused(IngestionError):
    """Nothing was changed; the message says what stands in the way."""


@dataclass
class RestoreReport:
    """What was brought back."""

    file: str
    created_at: str
    made_by: str
    dry_run: bool = False
    whole: bool = True
    rows: dict[str, int] = field(default_factory=dict)
    """{table: rows}"""
    vectors: dict[str, int] = field(default_factory=dict)
    """{space: vectors that are what was written}"""
    dropped: dict[str, int] = field(default_factory=dict)
    """{space: vectors that were not, and were dropped}"""
    queued: int = 0
    """Of those: images whose vector is queued to be computed again."""
    thumbnails: int = 0
    thumbnails_kept: int = 0
    leases_cleared: int = 0
    mapped: dict[str, str] = field(default_factory=dict)
    repairs: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def restore(
    file: Path,
    *,
    maps: Sequence[tuple[bytes, bytes]] = (),
    replace: bool = False,
    partial: bool = False,
    dry_run: bool = False,
    tell: Tell = lambda sentence: None,
) -> RestoreReport:
    """Replace the database, the vectors and the thumbnails by those of a backup.

    `maps` are (old, new) paths: sources at or beneath the old one are then beneath the new one. `partial` accepts a
    backup whose vectors or thumbnails are cut off or damaged, and computes those again. Raises RestoreRefused,
    backup_file.BadArchive, tables.BadRows, IngestionError: nothing was changed.
    """
    file = Path(os.path.abspath(file.expanduser()))
    tell("Comparing the checksums of the backup")
    try:
        checked = backup_file.check(file)
    except OSError as error:
        raise RestoreRefused(f"{file} cannot be read ({error.strerror}). Nothing was changed.") from error
    report = RestoreReport(
        file=str(file), created_at=checked.about["created_at"],
        made_by=f"{checked.about.get('host', '?')}: {checked.about.get('data', '?')}", whole=checked.whole,
        rows={label: table["rows"] for label, table in checked.manifest["tables"].items()},
        thumbnails=checked.thumbnails if checked.thumbnails_whole else 0, dry_run=dry_run,
    )  # fmt: skip
    _require_whole(file, checked, partial, report)
    _require_known_tables(checked, report)
    roots = _mapped_roots(file, checked, maps, report)
    _require_quiet()
    if not replace and not dry_run and not _nothing_there():
        raise RestoreRefused(
            "There are images in this database already, and a restore replaces all of it: make a backup of it first "
            "(`manage.py backup FILE`), then say --replace; or restore into another folder with --data FOLDER."
        )
    if dry_run:
        if not _nothing_there():
            report.notes.append("The database here holds images: the restore itself will ask for --replace.")
        return report
    with contextlib.closing(preparation.hold_data_folder()), only_restore():
        _restore(file, checked, roots, report, tell)
    return report


def _restore(
    file: Path, checked: backup_file.Checked, roots: dict[int, bytes], report: RestoreReport, tell: Tell
) -> None:
    preparation.migrate()
    switch = Switchover(token=secrets.randbits(60))
    try:
        switch.lay_out()
        tell("Laying out the vectors")
        with_thumbnails = report.thumbnails > 0
        ids = _lay_out(file, checked, switch, with_thumbnails)
        reach("restore-laid-out")
        filled = Refill(file, checked, switch, roots, ids, tell).run()
        tell("Putting everything in its place")
        switch.complete()
    except BaseException as error:
        with contextlib.suppress(OSError, DatabaseError):
            switch.resolve()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RestoreRefused(
                "There is no room for the restore: vectors and thumbnails are laid out beside what is there. Make "
                "room, then start again; nothing was changed."
            ) from error
        raise
    reset_stores()
    reset_library()
    emit_post_migrate_signal(verbosity=0, interactive=False, db=DEFAULT_DB_ALIAS)
    report.rows = filled.rows
    report.vectors, report.queued = filled.believed, filled.queued
    report.dropped = {name: len(ids) for name, ids in filled.dropped.items()}
    report.thumbnails, report.thumbnails_kept = len(ids), filled.thumbnails_kept
    report.leases_cleared, report.mapped = filled.leases, filled.mapped
    if filled.cut:
        report.notes.append(
            f"{counted(filled.cut, 'text')} {agreeing(filled.cut, 'was', 'were')} changed: PostgreSQL takes no NUL "
            "characters and none longer than the column."
        )
    tell("Queueing what is lacking")
    report.repairs = {name: number for name, number in dataclasses.asdict(repair([])).items() if number}
    _note_queued_work(report)


# --- before anything is touched -----------------------------------------------------------------------


def _require_whole(file: Path, checked: backup_file.Checked, partial: bool, report: RestoreReport) -> None:
    if checked.whole:
        return
    what = "vectors" if checked.damage else ""
    if not checked.thumbnails_whole:
        what = f"{what} and thumbnails" if what else "thumbnails"
    sentence = f"{file} is cut off or damaged: its database is whole, its {what or 'end'} " + (
        "is not." if not what else "are not."
    )
    if not partial:
        raise RestoreRefused(
            f"{sentence} Take another backup, or say --partial: every human decision comes back, every vector is "
            "compared with its checksum, and what is wrong is computed again."
        )
    report.notes.append(f"{sentence} What is wrong is computed again.")


def _require_known_tables(checked: backup_file.Checked, report: RestoreReport) -> None:
    known = tables.kept_models()
    for label, described in checked.manifest["tables"].items():
        if label in known:
            tables.Table(known[label], described["columns"])
        elif label.partition(".")[0] in _OURS and described["rows"]:
            raise RestoreRefused(
                f"The backup was made by another version of the program: this one has no table {label}, which holds "
                f"{counted(described['rows'], 'row')}. Restore it with the version that made it."
            )
        elif described["rows"] and label not in tables.all_models():
            report.notes.append(
                f"The {counted(described['rows'], 'row')} of {label} were left out: no such table here."
            )


def _mapped_roots(
    file: Path, checked: backup_file.Checked, maps: Sequence[tuple[bytes, bytes]], report: RestoreReport
) -> dict[int, bytes]:
    """{source id: its new root} for the sources that the maps move. Raises RestoreRefused."""
    described = checked.manifest["tables"][Source._meta.label_lower]
    table = tables.Table(Source, described["columns"])
    at_id, at_root = table.columns.index("id"), table.columns.index("root")
    roots: dict[int, bytes] = {}
    with open(file, "rb") as archived:
        for name in described["members"]:
            offset, size = checked.places[name]
            archived.seek(offset)
            for row in table.read(backup_file.lines_of(archived.read(size))):
                roots[row[at_id]] = row[at_root]
    used: set[bytes] = set()
    moved: dict[int, bytes] = {}
    for pk, root in roots.items():
        fitting = [(old, new) for old, new in maps if root == old or root.startswith(old.rstrip(b"/") + b"/")]
        if fitting:
            old, new = max(fitting, key=lambda pair: len(pair[0]))
            used.update(one for one, _ in fitting)
            moved[pk] = (new.rstrip(b"/") + root[len(old.rstrip(b"/")) :]) or b"/"
    for old, _ in maps:
        if old not in used:
            listed = ", ".join(sorted(_shown(root) for root in roots.values())) or "none"
            raise RestoreRefused(
                f"--map {_shown(old)}=...: no source of the backup lies there. Its sources are: {listed}."
            )
    _require_apart({**roots, **moved})
    report.mapped = {_shown(roots[pk]): _shown(root) for pk, root in moved.items()}
    for root in {**roots, **moved}.values():
        if not os.path.isdir(root):
            report.notes.append(
                f"The folder {_shown(root)} is not there: mount it, or restore with --map {_shown(root)}=NEW. "
                "Until then its pictures can be found, but not opened."
            )
    return moved


def _require_apart(roots: dict[int, bytes]) -> None:
    """Sources do not nest, and no two are the same folder."""
    ordered = sorted(root.rstrip(b"/") + b"/" for root in roots.values())
    for first, second in itertools.pairwise(ordered):
        if second.startswith(first):
            raise RestoreRefused(
                f"With these maps one source would lie within another: {_shown(second[:-1])} and {_shown(first[:-1])}. "
                "Map each to a folder of its own."
            )


def _require_quiet() -> None:
    live = presence.live_workers()
    if live:
        raise RestoreRefused(
            f"{counted(len(live), 'worker')} {agreeing(len(live), 'is', 'are')} running on this data folder: stop the "
            "program first (Ctrl-C where `start` runs, or its service), then restore."
        )
    if _nothing_there():
        return
    held = Work.objects.filter(lease_until__gte=timezone.now()).exclude(lease_owner="")
    others = sorted({owner for owner in held.values_list("lease_owner", flat=True).distinct() if _may_live(owner)})
    if others:
        raise RestoreRefused(
            f"A worker on {others[0].partition(':')[0]} has images of this database in hand: stop it, wait two "
            "minutes, then restore."
        )


def _may_live(owner: str) -> bool:
    return not presence.is_dead(owner)


def _nothing_there() -> bool:
    if connection.vendor == "sqlite" and not Path(connection.settings_dict["NAME"]).exists():
        return True
    return is_empty()


# --- files ----------------------------------------------------------------------------------------------


def _lay_out(file: Path, checked: backup_file.Checked, switch: Switchover, with_thumbnails: bool) -> Ids:
    """Copy vectors and thumbnails beside the old ones; returns the ids of the images that got a thumbnail."""
    ids: list[int] = []
    copied: set[Path] = set()
    with contextlib.suppress(backup_file.tarfile.TarError):  # only where `partial` accepted that its end is missing
        for name, _, member in backup_file.members(file):
            kind, _, rest = name.partition("/")
            if kind == "spaces":
                target = switch.spaces / "new" / rest
            elif kind == "thumbnails" and with_thumbnails:
                target = switch.thumbnails / "new" / rest
                ids.append(int(target.stem))
            else:
                continue
            if target.parent not in copied:
                target.parent.mkdir(parents=True, exist_ok=True)
                copied.add(target.parent)
            _copy(member, target)
            reach("restore-laying-out")
    return np.array(sorted(ids), dtype=np.int64)


def _copy(member: Any, target: Path) -> None:
    with open(target, "wb") as out:
        shutil.copyfileobj(member, out, _BLOCK)


def _note_queued_work(report: RestoreReport) -> None:
    waiting = report.queued + sum(report.repairs.values())
    if waiting:
        report.notes.append("Run `manage.py process` (or `start`) to do the queued work.")


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
