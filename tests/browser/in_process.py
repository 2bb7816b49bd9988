"""Chromium on pages that Django's test client answers: any state of the rows, no server to start, nothing beside it.

Every request of the browser is taken by Playwright and given to the client, which goes through the whole program:
middleware, views, templates, headers. The flows themselves are tested against gunicorn; this is for looking at pages.
"""

from __future__ import annotations

import mimetypes
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.staticfiles import finders
from django.db import connections
from django.test import Client

BASE = "http://testserver"


class Pages:
    """A browser context whose every request `client` answers; what it asked of other hosts is in `foreign`."""

    def __init__(self, browser: Any, client: Client, **options: Any) -> None:
        self.client = client
        self.foreign: list[str] = []
        self._database = connections["default"]
        self.context = browser.new_context(**options)
        self.context.route("**/*", self._answer)

    def page(self) -> Any:
        return self.context.new_page()

    def close(self) -> None:
        self.context.unroute_all(behavior="ignoreErrors")
        self.context.close()

    def _answer(self, route: Any, request: Any) -> None:
        parts = urlsplit(request.url)
        if f"{parts.scheme}://{parts.netloc}" != BASE:
            self.foreign.append(request.url)
            route.abort()
        elif parts.path.startswith(settings.STATIC_URL):
            self._file(route, parts.path.removeprefix(settings.STATIC_URL))
        else:
            self._page(route, request, parts)

    def _file(self, route: Any, name: str) -> None:
        found = finders.find(name)
        if not found:
            route.fulfill(status=404)
            return
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        route.fulfill(path=found, content_type=kind)

    def _page(self, route: Any, request: Any, parts: Any) -> None:
        connections["default"] = self._database  # else Playwright's event loop would have one without the test's rows
        address = parts.path + (f"?{parts.query}" if parts.query else "")
        names = {name: value for name, value in request.headers.items() if name in {"hx-request", "hx-target"}}
        if request.method == "POST":
            kind = request.headers.get("content-type", "application/x-www-form-urlencoded")
            response = self.client.generic("POST", address, request.post_data_buffer or b"", kind, headers=names)
        else:
            response = self.client.get(address, headers=names)
        content = b"".join(response.streaming_content) if response.streaming else response.content
        headers = {name.lower(): value for name, value in response.headers.items()}
        route.fulfill(status=response.status_code, headers=headers, body=content)
