"""The administration over a million images: how long each list takes, and how many queries it asks.

    python -m benchmarks.admin_at_size [--size 1000000] [--data FOLDER]

Fills a scratch database (SQLite, or the empty one that DATABASE_URL names) with the rows of a library
(`benchmarks.library`). Then every list of the administration, with its filters, searches, last pages and its front
page, is asked for as a signed-in owner asks for it. With --data the database is kept there and used again. The bar is
150 milliseconds for each page.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import library

BAR_MS = 150


def addresses() -> dict[str, str]:
    """{what it is: address} of every page that is timed."""
    from django.contrib import admin
    from django.urls import reverse

    from search.models import Image, Tag
    from search.spaces import active_space

    space = active_space().name
    found = {"front page": reverse("admin:index")}
    for model in admin.site._registry:
        if model._meta.app_label in ("search", "ingestion"):
            found[f"{model.__name__}"] = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    images = found["Image"]
    common, rare = Tag.objects.order_by("pk")[0], Tag.objects.order_by("pk")[500]
    last = Image.objects.order_by("-pk").values_list("pk", flat=True)[0]
    for what, asked in {
        "a late page": f"p={min(150, Image.objects.count() // 50)}", "state ready": "state__exact=ready",
        "state unreadable": "state__exact=unreadable",
        "rated 5": "rating=5", "not rated": "rating=0", "hidden": "hidden__exact=1", "format RAW": "format=RAW",
        "one source": "source__id__exact=3", "source, rating and format": "source__id__exact=3&rating=5&format=PNG",
        "source and unreadable": "source__id__exact=3&state__exact=unreadable",
        "common tag": f"tag={common.name}", "rare tag": f"tag={rare.name}", "no tag": "tag=-",
        "in a space": f"space={space}.in", "lacking in a space": "space=look.out",
        "common tag and rated 5": f"tag={common.name}&rating=5",
        "searched, in many names": "q=IMG", "searched, in no name": "q=zanzibar", "searched, an id": f"q={last}",
        "searched, a path": "q=2010/trip 2", "before a date": "before=2012-01-01",
    }.items():  # fmt: skip
        found[f"Image, {what}"] = f"{images}?{asked.replace(' ', '+')}"
    work = found["Work"]
    for what, asked in {
        "failed": "state__exact=failed",
        "one stage": "stage=read",
        "searched": "q=early",
    }.items():
        found[f"Work, {what}"] = f"{work}?{asked}"
    return found


def measure(rounds: int = 5) -> list[dict[str, Any]]:
    """[{page, ms, queries}]: the quickest of some rounds, after a first that is not counted."""
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client

    client = Client()
    client.force_login(get_user_model().objects.get(username="owner"))
    rows = []
    for page, address in addresses().items():
        client.get(address)
        queries: list[tuple[float, str]] = []

        def count(execute: Any, sql: str, params: Any, many: bool, context: Any, seen: Any = queries) -> Any:
            began = time.perf_counter()
            try:
                return execute(sql, params, many, context)
            finally:
                seen.append((time.perf_counter() - began, sql))

        with connection.execute_wrapper(count):
            answer = client.get(address)
        assert answer.status_code == 200, (page, address, answer.status_code, answer.headers.get("Location"))
        taken = []
        for _ in range(rounds):
            started = time.perf_counter()
            client.get(address)
            taken.append(time.perf_counter() - started)
        slowest = max(queries, default=(0.0, ""))
        rows.append(
            {"page": page, "ms": round(min(taken) * 1000), "queries": len(queries),
             "slowest_ms": round(slowest[0] * 1000), "slowest": slowest[1][:500]}
        )  # fmt: skip
        _said(f"{page:38} {rows[-1]['ms']:6,} ms {rows[-1]['queries']:3} queries")
    return rows


def report(rows: list[dict[str, Any]], size: int) -> str:
    """The figures as a table for people."""
    from django.db import connection

    lines = [f"The administration over {size:,} images, {connection.vendor}:", ""]
    lines += [f"{row['page']:38} {row['ms']:6,} ms {row['queries']:3} queries" for row in rows]
    slow = [row["page"] for row in rows if row["ms"] > BAR_MS]
    lines += ["", f"Over {BAR_MS} ms: {', '.join(slow) or 'none'}."]
    return "\n".join(lines)


def _said(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="Keep the database in this folder, and use it again.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="The figures as JSON.")
    options = parser.parse_args()
    with library.settings_of(options.data):
        library.make(options.size, vectors=False)
        rows = measure(options.rounds)
        if options.json:
            slow = [row["page"] for row in rows if row["ms"] > BAR_MS]
            found = {"images": options.size, "bar_ms": BAR_MS, "over_the_bar": ", ".join(slow) or "none"}
            print(json.dumps({**found, "ms": {row["page"]: row["ms"] for row in rows}}))
        else:
            print(report(rows, options.size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
