"""`manage.py spaces`: the embedding spaces: what there is, building another one, letting it serve, taking one away."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.timezone import localtime

from search.management.base import DomainCommand
from search.models import EmbeddingSpace
from search.spaces import SpaceReport, active_space, list_spaces, named
from search.wording import agreeing, counted

_INPUTS = ("originals", "thumbnails")


class Command(DomainCommand):
    help = (
        "List the embedding spaces with their coverage, or: add, build, pause and resume one beside the one that "
        "serves; compare two on the same query; activate one without any downtime; rollback; remove one; make one's "
        "index."
    )
    reports = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        verbs = parser.add_subparsers(dest="verb", metavar="VERB")

        def verb(name: str, text: str) -> argparse.ArgumentParser:
            one: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
            one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="Print one line of JSON.")
            return one

        add = verb("add", "Add the space of an encoder and let the running workers fill it.")
        add.add_argument("spec", metavar="SETTING", help="As IMAGESEARCH_ENCODER accepts it.")
        add.add_argument("--from", choices=_INPUTS, default="originals", dest="source", help="default: originals")

        build = verb("build", "Fill a space now, with a bar; stopped and called again, it goes on.")
        build.add_argument("name", metavar="NAME", help="A space, or the setting of an encoder, which adds its space.")
        build.add_argument(
            "--from", choices=_INPUTS, dest="source",
            help="thumbnails: needs no originals and takes hours rather than days, with vectors of a little less "
            "detail, in a space of their own.",
        )  # fmt: skip
        build.add_argument("--batch-size", type=int, metavar="N", help="Images a batch.")
        build.add_argument("--background", action="store_true", help="Only queue it; the running workers fill it.")

        for name, text in [
            ("pause", "Let the workers leave this space alone; its work waits."),
            ("resume", "Let the workers go on with it."),
        ]:
            verb(name, text).add_argument("name", metavar="NAME")

        activate = verb("activate", "Let this space serve searches from now on, without any failed search.")
        activate.add_argument("name", metavar="NAME")
        activate.add_argument("--anyway", action="store_true", help="Also when it lacks many images.")
        verb("rollback", "Let the space serve again that served before.")

        remove = verb("remove", "Take a space away: its vectors, its work, its files. Never the one that serves.")
        remove.add_argument("name", metavar="NAME")

        index = verb("index", "Make the approximate index of a space anew, for quick searches in a large library.")
        index.add_argument("name", metavar="NAME")
        index.add_argument(
            "--recall", type=float, default=0.99, metavar="SHARE",
            help="Tune it until so much of the first 20 of an exact search is found (default 0.99).",
        )  # fmt: skip
        index.add_argument("--drop", action="store_true", help="Delete it instead: every search is exact then.")

        compare = verb("compare", "The same query in two spaces, side by side.")
        compare.add_argument("text", metavar="QUERY", help="As typed into the search box.")
        compare.add_argument("--with", metavar="SPACE", required=True, dest="other", help="The space to compare with.")
        compare.add_argument("--space", metavar="SPACE", help="Instead of the one that serves.")
        compare.add_argument("--limit", type=int, default=20, metavar="N", help="Results of each (default 20).")
        compare.add_argument("--user", metavar="NAME", help="Only what this user may see (default: everything).")

    def run(self, **options: Any) -> int | None:
        from search.highwater import require_sound_ids

        verb = options["verb"]
        if verb in {"add", "build", "resume", "remove"}:
            require_sound_ids()
        return getattr(self, f"_{verb or 'list'}")(**options)  # type: ignore[no-any-return]

    # --- looking ----------------------------------------------------------------------------------------

    def _list(self, **options: Any) -> None:
        reports = list_spaces()
        if options["json"]:
            self.print_json({"spaces": [{**_told(report), "index": _index_of(report)} for report in reports]})
            return
        for report in reports:
            states = [
                word
                for word, holds in [
                    ("being removed: `spaces remove` goes on with it", report.removing),
                    ("paused", report.paused),
                    ("chosen by hand", report.chosen),
                ]
                if holds
            ]
            self.stdout.write(
                f"{'*' if report.active else ' '} {report.name}  {report.label}, {counted(report.dim, 'dimension')}, "
                f"{report.embedded:,} of {counted(report.readable, 'image')} ({report.coverage_percent} %)"
                + "".join(f", {state}" for state in states)
                + _index_said(report)
            )
        self.stdout.write("* serves searches")

    def _compare(self, **options: Any) -> None:
        from django.contrib.auth import get_user_model

        from search.comparison import compare
        from search.query import from_params

        if options["limit"] < 1:
            raise CommandError(f"--limit is {options['limit']}; it accepts whole numbers from 1.")
        if options["user"]:
            self.user = get_user_model().objects.filter(username=options["user"]).first()
            if self.user is None:
                raise CommandError(f"There is no user named {options['user']!r}.")
        query = from_params({"q": options["text"]})
        if not query.ranked:
            raise CommandError("Say what to find, in words or with like:ID: only what is ranked can be compared.")
        first = named(options["space"]) if options["space"] else active_space()
        second = named(options["other"])
        if first.pk == second.pk:
            raise CommandError(f"{first.name} cannot be compared with itself; name another one.")
        found = compare(query, self.user, first, second, k=options["limit"])
        if options["json"]:
            sides = [
                {
                    "space": page.space.name, "covered": page.covered, "of": page.of,
                    "hits": [
                        {
                            "id": h.id,
                            "path": h.image.absolute_path_text,
                            "score": h.score,
                            "match": None if h.match is None else float(h.match),
                            "rank_there": there,
                        }
                        for _, h, there in hits
                    ],
                }
                for page, hits in found.sides()
            ]  # fmt: skip
            self.print_json({"k": found.k, "overlap": round(found.overlap, 4), "spaces": sides})
            return
        for page, hits in found.sides():
            self.stdout.write(f"{page.space.name} ({page.covered:,} of {counted(page.of, 'image')}):")
            for rank, hit, there in hits:
                score = "     -" if hit.score is None else f"{hit.score:6.3f}"
                place = f"#{there} there" if there else "not there"
                path = hit.image.absolute_path_text.encode("unicode_escape").decode("ascii")
                self.stdout.write(f"{rank:>4}  {score}  {hit.id:>8}  {place:<10}  {path}")
        longest = max(len(found.first.hits), len(found.second.hits))
        self.stdout.write(f"{len(found.shared)} of {longest} are in both ({100 * found.overlap:.0f} %).")

    # --- building ---------------------------------------------------------------------------------------

    def _add(self, **options: Any) -> None:
        from ingestion import building, presence

        space = building.add(options["spec"], from_thumbnails=options["source"] == "thumbnails")
        self._said(
            options, space,
            f"{space.name}: {space.label}, {counted(space.dim, 'dimension')}, {space.key}. "
            + (
                "The running workers fill it."
                if presence.live_workers()
                else f"No worker is running: `manage.py spaces build {space.name}` fills it, or start one."
            ),
        )  # fmt: skip

    def _build(self, **options: Any) -> int:
        from ingestion import building, ledger, presence
        from ingestion.bars import Bars
        from ingestion.crew import Worker, stopping

        if options["batch_size"] is not None and options["batch_size"] < 1:
            raise CommandError(f"--batch-size is {options['batch_size']}; it accepts whole numbers from 1.")
        wanted = None if options["source"] is None else options["source"] == "thumbnails"
        space = building.find_or_add(options["name"], from_thumbnails=wanted)
        building.resume(space)
        ledger.queue_all(space.stage)
        if options["background"]:
            waiting = ledger.counts().get(space.stage, (0, 0, 0))[0]
            who = "the running workers fill it" if presence.live_workers() else "no worker is running yet"
            self._said(
                options, space,
                f"{space.name}: {counted(waiting, 'image')} {agreeing(waiting, 'waits', 'wait')}; {who}.",
            )  # fmt: skip
            return 0
        bars = Bars(quiet=options["json"])
        worker = Worker(only=space.stage, batch_size=options["batch_size"], tell=bars.show)
        with stopping(worker.stop) as stopped:
            try:
                summary = worker.run()
            finally:
                bars.close()
        for sentence in summary.waiting:
            self.stderr.write(sentence)
        report = next((one for one in list_spaces() if one.name == space.name), None)
        if report is None:
            raise CommandError(f"The space {space.name} was removed meanwhile.")
        if stopped:
            self.stderr.write("Stopped. What was finished is kept; the same command goes on from there.")
        failed = summary.failed.get(space.stage, 0)
        self._said(
            options, space,
            f"{space.name}: {report.embedded:,} of {counted(report.readable, 'image')} ({report.coverage_percent} %)"
            + (f", {failed:,} failed (see `manage.py problems`)" if failed else "")
            + ("" if report.active or stopped else f". `manage.py spaces activate {space.name}` lets it serve."),
            finished=summary.finished and not summary.waiting,
        )  # fmt: skip
        return 0 if summary.finished and not summary.waiting else 1

    def _pause(self, **options: Any) -> None:
        from ingestion import building

        space = named(options["name"])
        building.pause(space)
        self._said(options, space, f"{space.name} is paused: workers leave it alone within seconds, its work waits.")

    def _resume(self, **options: Any) -> None:
        from ingestion import building

        space = named(options["name"])
        building.resume(space)
        self._said(options, space, f"{space.name} goes on.")

    def _index(self, **options: Any) -> None:
        from ingestion.bars import Steps
        from search import indexing

        if not 0.5 <= options["recall"] <= 1:
            raise CommandError(f"--recall is {options['recall']}; it accepts shares from 0.5 to 1.")
        space = named(options["name"])
        if options["drop"]:
            there = indexing.drop(space)
            self._said(
                options, space,
                f"{space.name}: the index is deleted; every search is exact." if there
                else f"{space.name} has no index; every search is exact.",
            )  # fmt: skip
            return
        os.nice(10)
        bar = Steps(quiet=options["json"])
        try:
            about = indexing.make(
                space,
                recall=options["recall"],
                go_on=lambda share: bar.show("Making the index, per cent", round(100 * share), 100),
            )
        finally:
            bar.close()
        self._said(
            options, space,
            f"{space.name}: {counted(about.rows, 'vector')} indexed in {about.seconds:.0f} s, "
            f"recall@20 {about.recall:.3f}"
            + ("." if about.reached else f", short of {about.wanted:g}: it is the best that was found."),
        )  # fmt: skip

    # --- switching and removing -------------------------------------------------------------------------

    def _activate(self, **options: Any) -> None:
        from search.switching import switch_to

        space = named(options["name"])
        notes = switch_to(space, anyway=options["anyway"])
        self._said(options, space, " ".join([f"{space.name} serves searches now.", *notes]), notes=notes)

    def _rollback(self, **options: Any) -> None:
        from search.switching import roll_back

        space, notes = roll_back()
        self._said(options, space, " ".join([f"{space.name} serves searches again.", *notes]), notes=notes)

    def _remove(self, **options: Any) -> None:
        from ingestion import removal

        space = named(options["name"])
        if not space.removing:
            removal.begin(space)
        gone = removal.finish(space)
        if options["json"]:
            self.print_json({"removed": space.name, "vectors": gone})
            return
        self.stdout.write(f"{space.name} is gone, and with it {counted(gone, 'vector')}.")

    def _said(self, options: dict[str, Any], space: EmbeddingSpace, sentence: str, **more: Any) -> None:
        """The sentence; with --json the space as the list shows it."""
        if not options["json"]:
            self.stdout.write(sentence)
            return
        report = next(one for one in list_spaces() if one.name == space.name)
        self.print_json({"space": _told(report), **more})


def _told(report: SpaceReport) -> dict[str, Any]:
    return {**dataclasses.asdict(report), "coverage_percent": report.coverage_percent}


def _index_of(report: SpaceReport) -> dict[str, Any] | None:
    """The space's approximate index for `--json`; None when there is none."""
    from search import indexing

    found = indexing.state(named(report.name))
    return dataclasses.asdict(found) if found.rows or found.fault or found.failed else None


def _index_said(report: SpaceReport) -> str:
    from search import indexing

    found = indexing.state(named(report.name))
    parts = []
    if found.fault:
        parts.append(f"no index in use: {found.fault}")
    elif found.rows:
        parts.append(f"index of {counted(found.rows, 'vector')}, recall@20 {found.recall:.3f}")
        parts += [f"{found.besides:,} written since"] if found.besides else []
    if found.failed:
        again = localtime(found.again).strftime("%d %b %H:%M")
        times = "once" if found.tries == 1 else f"{found.tries} times"
        parts.append(f"making an index failed {times}, tried again from {again} on: {found.failed}")
    return "".join(f", {part}" for part in parts)
