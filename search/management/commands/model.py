"""`manage.py model`: which model is set, whether it is here, and `model fetch`, which downloads it."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser

from search.encoders import DEFAULT_BYTES, availability, fetch, weights
from search.encoders.base import Availability
from search.encoders.specification import Specification, parse
from search.errors import EncoderUnavailable
from search.management.base import DomainCommand


class Command(DomainCommand):
    help = (
        "Say which model is set (IMAGESEARCH_ENCODER), whether it is here and what would be downloaded; exit status 1 "
        "when it is not here. `model fetch` downloads it and goes on where an earlier download stopped."
    )
    reports = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("action", nargs="?", choices=["show", "fetch"], default="show", help="default: show")
        parser.add_argument("--encoder", metavar="SETTING", help="Another model than the one in IMAGESEARCH_ENCODER.")
        parser.add_argument("--dry-run", action="store_true", help="With fetch: ask the hub and list the files only.")

    def run(self, **options: Any) -> int | None:
        try:
            specification = parse(options["encoder"])
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        if options["action"] == "show":
            return self._show(specification, as_json=options["json"])
        if options["dry_run"]:
            return self._list(specification, as_json=options["json"])
        return self._fetch(specification, as_json=options["json"])

    def _show(self, specification: Specification, *, as_json: bool) -> int:
        state = availability(specification.text)
        found = _files_of(specification)
        if as_json:
            self.print_json(_report(specification, state, found))
            return 0 if state.ready else 1
        self.stdout.write(f"Model: {state.label} (IMAGESEARCH_ENCODER={specification.text})")
        if found:
            self.stdout.write(f"Weights: {found.checkpoint} ({_amount(found.checkpoint.stat().st_size)})")
        if state.ready:
            self.stdout.write("It is here." if found else "It is built in; nothing needs to be downloaded.")
            return 0
        self.stdout.write(state.sentence)
        if specification.repository and not found:
            size = _amount(state.download_bytes) if state.download_bytes else "the size is said before it begins"
            self.stdout.write(
                f"To download: {specification.repository} ({size}) into {weights.download_folder(specification)}"
            )
        return 1

    def _list(self, specification: Specification, *, as_json: bool) -> int:
        from search.encoders.hub import announce

        files = announce(specification)
        if as_json:
            self.print_json({"files": [dataclasses.asdict(file) for file in files]})
        else:
            for file in files:
                self.stdout.write(f"{file.name}  {_amount(file.size)}  {file.url}")
        return 0

    def _fetch(self, specification: Specification, *, as_json: bool) -> int:
        before = availability(specification.text)
        if not before.ready and not as_json and specification.repository:
            size = DEFAULT_BYTES.get((specification.architecture, specification.tag))
            about = f", about {_amount(size)}" if size else ""
            self.stdout.write(
                f"Downloading {specification.label} from {specification.repository}{about}, "
                f"into {weights.download_folder(specification)}"
            )
        bar = _Bar(self.stderr if as_json else self.stdout)
        try:
            state = fetch(specification.text, bar)
        finally:
            bar.close()
        if as_json:
            self.print_json(_report(specification, state, _files_of(specification)))
        elif state.ready:
            self.stdout.write(f"{state.label} is here.")
        else:
            self.stdout.write(state.sentence)
        return 0 if state.ready else 1


class _Bar:
    """The progress of a download: one line that renews itself on a terminal, a line for each tenth elsewhere."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._shown: dict[str, int] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._next = 0.0
        self._open = False

    def __call__(self, name: str, done: int, size: int | None) -> None:
        now = time.monotonic()
        since, first = self._started.setdefault(name, (now, done))
        finished = size is not None and done >= size
        if self._terminal and (now >= self._next or finished):
            self._next = now + 0.2
            self._out.write(f"\r\033[K{self._line(name, done, size, now - since, done - first)}", ending="")
            self._out.flush()
            self._open = True
        elif not self._terminal:
            tenth = 10 * done // size if size else done // 50_000_000
            if tenth > self._shown.get(name, -1):
                self._shown[name] = tenth
                self._out.write(self._line(name, done, size, now - since, done - first))

    def close(self) -> None:
        if self._open:
            self._out.write("")

    @staticmethod
    def _line(name: str, done: int, size: int | None, seconds: float, brought: int) -> str:
        of = f" of {_amount(size)} ({100 * done // size if size else 100} %)" if size is not None else ""
        pace = brought / seconds if seconds > 0.5 else 0
        rest = f", {_amount(round(pace))} a second" if pace else ""
        if pace and size and size > done:
            rest += f", {(size - done) / pace:.0f} s left"
        return f"{name}: {_amount(done)}{of}{rest}"


def _files_of(specification: Specification) -> weights.Weights | None:
    try:
        return weights.locate(specification)
    except EncoderUnavailable:
        return None


def _report(specification: Specification, state: Availability, found: weights.Weights | None) -> dict[str, Any]:
    missing = not state.ready and found is None and bool(specification.repository)
    return {
        "encoder": specification.text,
        "kind": specification.kind.value,
        "label": state.label,
        "ready": state.ready,
        "sentence": state.sentence,
        "weights": str(found.checkpoint) if found else None,
        "bytes": found.checkpoint.stat().st_size if found else None,
        "download": (
            {
                "repository": specification.repository,
                "folder": str(weights.download_folder(specification)),
                "bytes": state.download_bytes,
            }
            if missing
            else None
        ),
    }


def _amount(size: int | None) -> str:
    if size is None:
        return "size unknown"
    if size < 1e6:
        return f"{size / 1e3:,.1f} kB"
    return f"{size / 1e6:,.1f} MB" if size < 100e6 else f"{size / 1e6:,.0f} MB"
