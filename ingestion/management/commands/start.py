"""`manage.py start`: the whole program in one foreground process."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db import connection

from ingestion import listening, preparation, progress, stages
from ingestion.children import Job
from ingestion.console import Completion, Console, progress_text
from ingestion.supervisor import Supervisor
from search.management.base import DomainCommand
from search.models import Image
from search.wording import counted

DEFAULT_PORT = 8000
WEB_THREADS = 12
PATIENCE_SECONDS = 60
DOWNLOAD_AGAIN_SECONDS = 600
LOOK_SECONDS = 2
LINE_SECONDS = 60
"""Without a terminal, a line of progress comes so often."""


class Command(DomainCommand):
    help = (
        "Start the program: web pages, background tasks, the watcher and workers under one supervisor, until Ctrl-C. "
        "With --photos it also reads these folders."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--photos",
            metavar="DIR",
            action="append",
            default=[],
            help="A folder of photos to read and watch; may be given several times.",
        )
        parser.add_argument("--port", type=int, help=f"Port of the pages (default {DEFAULT_PORT} or the next free).")
        parser.add_argument("--host", help="Address to listen at (default 127.0.0.1: this machine only).")
        parser.add_argument("--workers", type=int, help="How many worker processes read and embed (default 1).")
        parser.add_argument("--no-browser", action="store_true", help="Do not open a browser.")
        parser.add_argument("--no-download", action="store_true", help="Do not download the model.")

    def run(self, **options: Any) -> int:
        self.console = Console(sys.stdout)
        folders = [self._folder(text) for text in options["photos"]]
        workers = settings.IMAGESEARCH_WORKERS if options["workers"] is None else options["workers"]
        if not 0 <= workers <= 64:
            raise CommandError(f"--workers is {workers}, but it accepts a whole number from 0 to 64.")
        claim = preparation.hold_data_folder()
        applied = preparation.migrate()
        if applied:
            self.console.say(f"The database is prepared ({counted(applied, 'step')}).")
        preparation.collect_static_files()
        for line in preparation.run_checks():
            self.console.say(f"Note: {line}")
        host = options["host"] or settings.IMAGESEARCH_HOST
        listener = self._listen(host, options["port"] or settings.IMAGESEARCH_PORT)
        self.listener = listener
        self.base_url = listening.address_for_people(host, listener.getsockname()[1])
        preparation.note(claim, self.base_url)
        self._say_what_else_must_be_set(host)
        supervisor = Supervisor(
            self._lasting(listener, workers),
            [[crawl(folder) for folder in folders], self._download(options["no_download"])],
            logs=settings.IMAGESEARCH_LOGS,
            json_logs="json" in settings.LOGGING["handlers"]["console"]["formatter"],
            cwd=Path(settings.BASE_DIR),
            console=self.console,
            on_tick=self._tick,
            on_done=self._errand_done,
        )
        self.supervisor = supervisor
        self.open_browser = not options["no_browser"] and self.console.terminal and has_display()
        self.started = self.looked = self.lined = time.monotonic()
        self.greeted = self.complained = False
        self.completion, self.crawls = Completion(), len(folders)
        self.download_failed = False
        self.console.say("Starting. Ctrl-C stops everything.")
        try:
            return supervisor.run()
        finally:
            listener.close()
            claim.close()

    def _folder(self, text: str) -> str:
        """The folder as typed, with ~ and relative parts resolved. Raises CommandError when it is none."""
        if not text:
            raise CommandError("--photos is empty: give the path of an existing folder.")
        path = os.path.abspath(os.path.expanduser(text))
        if not os.path.isdir(path):
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            what = "is a file" if os.path.exists(path) else "is not there"
            raise CommandError(f"The folder of photos {shown} {what}: give the path of an existing folder.")
        return path

    def _listen(self, host: str, port: int | None) -> socket.socket:
        try:
            return listening.listen(host, port or DEFAULT_PORT)
        except listening.AddressTaken as taken:
            listener = listening.next_free(host, port or DEFAULT_PORT)
            if listener is None:
                raise CommandError(f"{taken} No port near it is free either; give one with --port.") from None
            free = listener.getsockname()[1]
            if port is not None:
                listener.close()
                raise CommandError(f"{taken} The next free one: --port {free}") from None
            if self.console.terminal and sys.stdin.isatty() and not agrees(f"{taken} Use {free} instead? [Y/n] "):
                listener.close()
                raise CommandError("Not started. Choose a port with --port.") from None
            self.console.say(f"{taken} Using {free} instead.")
            return listener

    def _say_what_else_must_be_set(self, host: str) -> None:
        if listening.is_loopback(host):
            return
        self.console.say(
            f"Listening at {host}: other machines can reach the pages, and the connection is not encrypted. Set "
            "IMAGESEARCH_ALLOWED_HOSTS to the names they use for this machine (now: "
            f"{', '.join(settings.ALLOWED_HOSTS)}); behind a proxy that speaks HTTPS also IMAGESEARCH_HTTPS=1 and "
            "IMAGESEARCH_TRUSTED_ORIGINS."
        )

    def _lasting(self, listener: socket.socket, workers: int) -> list[Job]:
        number = listener.fileno()
        web = [
            *(sys.executable, "-m", "gunicorn", "imagesearch.wsgi:application", "--bind", f"fd://{number}"),
            *("--workers", "1", "--worker-class", "gthread", "--threads", str(WEB_THREADS)),
            *("--timeout", "120", "--graceful-timeout", "3", "--no-control-socket", "--log-level", "warning"),
            *(("--worker-tmp-dir", "/dev/shm") if os.access("/dev/shm", os.W_OK) else ()),
        ]
        return [
            Job("The web server", "web", web, pass_fds=(number,)),
            Job("The background tasks", "tasks", manage("qcluster")),
            Job("The watcher", "watcher", manage("watch")),
            *(Job(f"Worker {n}", f"worker-{n}", manage("process", "--forever")) for n in range(1, workers + 1)),
        ]

    def _download(self, unwanted: bool) -> list[Job]:
        """The download of the model, announced, when it is not here and can be downloaded."""
        from search.encoders import availability

        found = availability()
        if found.ready:
            return []
        can = "model fetch" in found.sentence and not unwanted and os.environ.get("HF_HUB_OFFLINE", "0") in {"", "0"}
        if not can:
            self.console.say(f"{found.sentence} Until then pictures are found by look, colour, name and tag.")
            return []
        size = f" ({found.download_bytes / 1e6:,.0f} MB)" if found.download_bytes else ""
        self.console.say(
            f"The model {found.label} is not here yet: downloading it{size} into {settings.IMAGESEARCH_MODELS}. "
            "Until it is here pictures are found by look, colour, name and tag."
        )
        return [Job("Downloading the model", "download", manage("model", "fetch"))]

    def _errand_done(self, job: Job, status: int, words: list[str]) -> float | None:
        self.console.clear()
        if job.log == "download":
            if status == 0:
                self.console.say("The model is here: pictures are now read for searching by meaning.")
                return None
            if not self.download_failed:
                said = words[-1].removeprefix("CommandError: ") if words else "no reason given."
                self.console.say(f"The model could not be downloaded: {said} It is tried again every ten minutes.")
                self.download_failed = True
            return DOWNLOAD_AGAIN_SECONDS
        self.crawls -= 1
        if status:
            said = words[-1].removeprefix("CommandError: ") if words else f"see {settings.IMAGESEARCH_LOGS}"
            self.console.say(f"{job.name} was not finished: {said}")
            return None
        for line in words[-6:]:
            self.console.say(line)
        self.completion.expect()
        return None

    # --- while it runs ------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.monotonic()
        if not self.greeted:
            status = self._status()
            self.supervisor.ready = self.supervisor.ready or bool(status)
            if status == 200 or (status and now - self.started > PATIENCE_SECONDS):
                self.greeted = True
                self._greet()
            elif not status and now - self.started > PATIENCE_SECONDS and not self.complained:
                self.complained = True
                self.console.say(f"The pages do not answer yet; see {settings.IMAGESEARCH_LOGS / 'web.log'}")
            return
        if now - self.looked >= LOOK_SECONDS:
            self.looked = now
            self._show_progress(now)

    def _status(self) -> int:
        """What the server answers when it is asked whether it is ready; 0: nothing yet."""
        address = self.listener.getsockname()
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
        client = http.client.HTTPConnection(host, address[1], timeout=0.4)
        try:
            client.request("GET", "/health/ready")
            return client.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            client.close()

    def _greet(self) -> None:
        from search import welcome

        link = f"{self.base_url}/"
        try:
            path = welcome.issue()
        except DatabaseError as error:
            path = None
            self.console.say(f"The database does not answer: {str(error).splitlines()[0]}")
        finally:
            connection.close()
        if path:
            link = self.base_url + path
            self.console.say("Open this link to create your account. It works once:")
            self.console.say(f"    {link}")
        else:
            self.console.say(f"Ready: {link}")
        if self.open_browser:
            threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()

    def _show_progress(self, now: float) -> None:
        """Renew the status line (without a terminal: a line now and then), and say when everything is done."""
        done = False
        try:
            wanted = stages.wanted()
            rows = [row for row in progress.report() if row.stage in wanted]
            done = self.completion.reached(rows, more_comes=self.crawls > 0)
            searchable = Image.objects.listed().filter(state=Image.State.READY).count() if done else 0
        except DatabaseError:
            if done:
                self.completion.expect()
            return
        finally:
            connection.close()
        if done:
            failed = max((row.failed for row in rows), default=0)
            self.console.clear()
            problems = f" {failed:,} could not be read: {self.base_url}/problems/" if failed else ""
            self.console.say(
                f"Everything found so far is done: {counted(searchable, 'picture')} can be searched.{problems}"
            )
        parts = [progress_text(rows)]
        parts += [f"{name}: {said}" if said else name for name, said in self.supervisor.doing().items()]
        text = "  ".join(filter(None, parts))
        if self.console.terminal:
            self.console.status(text)
        elif text and now - self.lined >= LINE_SECONDS:
            self.lined = now
            self.console.say(text)


def manage(*arguments: str) -> list[str]:
    """The command line of a manage.py command."""
    return [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), *arguments]


def crawl(folder: str) -> Job:
    shown = os.fsencode(folder).decode("utf-8", "backslashreplace")
    return Job(f"Looking through {shown}", "crawl", manage("crawl", "--wait", folder))


def agrees(question: str) -> bool:
    try:
        return input(question).strip().lower() in {"", "y", "yes"}
    except EOFError:
        return False


def has_display() -> bool:
    """Whether a graphical browser could open here."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
