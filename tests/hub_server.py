"""A small Hugging Face hub on this machine: answers as the real one does, and misbehaves when told to."""

from __future__ import annotations

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves `files` (name -> bytes or a path) as one repository. Use as a context manager.

    Large files answer a HEAD with a redirect to the storage (`/storage/...`), X-Linked-Size and X-Linked-Etag (their
    SHA-256), as the hub does; the storage answers Range requests.
    """

    def __init__(self, files: dict[str, bytes | Path], *, large: int = 100_000, repository: str = "test/model") -> None:
        self.files = {name: data if isinstance(data, bytes) else data.read_bytes() for name, data in files.items()}
        self.large = large
        self.repository = repository
        self.requests: list[tuple[str, str, str | None]] = []
        """(method, path, Range header) of every request, in order."""
        self.authorization: list[tuple[str, str | None]] = []
        self.sent = 0
        """Bytes of large files that were sent."""
        self.cut_after: list[int] = []
        """One entry for each coming transfer of a large file: close the connection after so many bytes."""
        self.stall_after: int | None = None
        self.pause = 0.0
        self.status: int | None = None
        self.ignore_ranges = False
        self.spoiled: set[str] = set()
        """Files whose bytes come out wrong, though their announcement is right."""
        self._release = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # The storage has another name than the hub, as in the real world.
        self.storage = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._release.set()
        self._server.shutdown()
        self._server.server_close()

    def gets(self, name: str) -> list[str | None]:
        """The Range headers of all transfers of this file from the storage."""
        return [span for method, path, span in self.requests if method == "GET" and path == f"/storage/{name}"]

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(head=True)

            def do_GET(self) -> None:
                self._answer(head=False)

            def _answer(self, *, head: bool) -> None:
                hub.requests.append((self.command, self.path, self.headers.get("Range")))
                hub.authorization.append((self.headers.get("Host", ""), self.headers.get("Authorization")))
                name = self.path.rsplit("/", 1)[-1]
                data = hub.files.get(name)
                known = self.path.startswith((f"/{hub.repository}/resolve/", "/storage/"))
                if hub.status is not None or data is None or not known:
                    return self._plain(hub.status or 404, b"")
                if self.path.startswith("/storage/"):
                    return self._send_storage(name, data)
                digest = hashlib.sha256(data).hexdigest()
                common = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
                if len(data) >= hub.large:
                    linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"'}
                    return self._plain(302, b"", {**common, **linked, "Location": f"{hub.storage}/storage/{name}"})
                etag = hashlib.sha1(data).hexdigest()
                return self._plain(200, b"" if head else data, {**common, "ETag": f'"{etag}"'}, length=len(data))

            def _plain(
                self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
            ) -> None:
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)

            def _send_storage(self, name: str, data: bytes) -> None:
                start = 0
                span = self.headers.get("Range")
                if span and not hub.ignore_ranges:
                    start = int(span.removeprefix("bytes=").split("-")[0])
                if start > len(data):
                    return self._plain(416, b"")
                body = data[start:] if name not in hub.spoiled else bytes(len(data) - start)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"an-etag-of-the-storage"')
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.end_headers()
                cut = hub.cut_after.pop(0) if hub.cut_after else None
                for at in range(0, len(body), 65_536):
                    piece = body[at : at + 65_536]
                    if cut is not None and at + len(piece) > cut:
                        piece = piece[: cut - at]
                    if hub.stall_after is not None and hub.sent >= hub.stall_after:
                        hub._release.wait(60)
                        self.close_connection = True
                        return None
                    self.wfile.write(piece)
                    hub.sent += len(piece)
                    if cut is not None and at + len(piece) >= cut:
                        self.close_connection = True
                        return None
                    time.sleep(hub.pause)
                return None

            def log_message(self, *args: Any) -> None:
                pass

        return Handler
