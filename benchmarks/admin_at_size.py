"""The administration over a million images: how long each list takes, and how many queries it asks.

    python -m benchmarks.admin_at_size [--size 1000000] [--data FOLDER]

Fills a scratch database (SQLite, or the empty one that DATABASE_URL names) with rows that only look like a library:
a thousand are made as the program makes them, and copied by the database until there are enough. Then every list of
the administration, with its filters, searches, last pages and its front page, is asked for as a signed-in owner
asks for it. With --data the database is kept there and used again. The bar is 300 milliseconds for each page.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

BAR_MS = 300
SEED_ROWS = 1_000
TAGS = 50_000
FORMATS = ["JPEG"] * 80 + ["HEIF"] * 10 + ["PNG"] * 8 + ["TIFF", "RAW"]
STATES = ["ready"] * 970 + ["unreadable"] * 10 + ["missing"] * 10 + ["removed"] * 5 + ["waiting"] * 5


def fill(size: int) -> None:
    """Rows of every large table for a library of `size` images. Needs an empty, migrated database."""
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.utils import timezone

    from ingestion.models import Crawl, SeenFile, StageCount, StageTick, Work
    from search import highwater
    from search.compact import pack_ids
    from search.models import (
        Action,
        Comment,
        Embedding,
        EmbeddingSpace,
        Event,
        Favourite,
        Image,
        ImageTag,
        Source,
        SourceAccess,
        Tag,
        path_digest,
    )
    from search.spaces import look_space

    chance = random.Random(7)
    owner = get_user_model().objects.create_superuser("owner", password="a-long-word")
    sources = [Source.objects.create(name=f"Disk {n}", root=b"/nowhere/%d" % n) for n in range(12)]
    SourceAccess.objects.bulk_create(SourceAccess(source=one, user=owner, role="owner") for one in sources)
    now = datetime(2025, 6, 1, tzinfo=UTC)
    images = []
    for n in range(min(size, SEED_ROWS)):
        folder, name = f"{2008 + n % 17}/trip {n % 83}", f"IMG_{n:05d}.jpg"
        path = f"{folder}/{name}".encode()
        images.append(
            Image(
                source=sources[n % 12], path=path, path_digest=path_digest(path),
                directory=path_digest(folder.encode()), name=name, folder=folder,
                size=3_000_000 + n, mtime_ns=1_700_000_000_000_000_000 + n,
                state=chance.choice(STATES), format=chance.choice(FORMATS), width=4000, height=3000,
                shown_at=now - timedelta(hours=chance.randrange(130_000)), camera="Canon EOS R5", read_at=now,
                title=f"A title {n}" if n % 20 == 0 else "", hidden=n % 97 == 0,
                rating=chance.choice([0] * 85 + [1, 2, 3, 3, 4, 4, 4, 5] + [0] * 7),
            )
        )  # fmt: skip
    Image.objects.bulk_create(images)
    grow(size)
    _said(f"{size:,} images")

    spaces = [
        look_space(),
        EmbeddingSpace.objects.create(name="large", encoder="x/y", key="k", label="Large", dim=8, text=True),
    ]
    _put(
        Embedding,
        f"SELECT {{i}}.id, {spaces[0].pk}, 1, {{now}} FROM search_image {{i}} WHERE {{i}}.id % 100 > 0",
        "image_id, space_id, crc32, created_at",
    )
    _put(
        Embedding,
        f"SELECT {{i}}.id, {spaces[1].pk}, 1, {{now}} FROM search_image {{i}} WHERE {{i}}.id % 3 = 0",
        "image_id, space_id, crc32, created_at",
    )
    Tag.objects.bulk_create([Tag(name=f"tag {n}", key=f"tag {n}") for n in range(min(TAGS, size))], batch_size=5_000)
    first = Tag.objects.order_by("pk").values_list("pk", flat=True)[0]
    wide = min(TAGS, size) - 2
    columns = "image_id, tag_id, origin, created_at"
    _put(
        ImageTag, f"SELECT {{i}}.id, {first}, 'person', {{now}} FROM search_image {{i}} WHERE {{i}}.id % 2 = 0", columns
    )
    _put(
        ImageTag, f"SELECT {{i}}.id, {first} + 1 + {{i}}.id % {wide}, 'file', {{now}} FROM search_image {{i}}", columns
    )
    _said("embeddings and tags")
    work = "image_id, stage, state, newest, attempts, lease_owner, reason, failed_at"
    _put(
        Work,
        "SELECT {i}.id, 'embed:large', 'waiting', {i}.mtime_ns, 0, '', '', {null} FROM search_image {i} "
        "WHERE {i}.id % 3 = 1",
        work,
    )
    _put(
        Work,
        "SELECT {i}.id, 'embed:look', 'failed', {i}.mtime_ns, 1, '', 'The file ends too early.', {now} "
        "FROM search_image {i} WHERE {i}.id % 50 = 0",
        work,
    )
    StageCount.objects.bulk_create(
        [
            StageCount(stage="read", waiting=0, done=size, failed=0),
            StageCount(stage="embed:look", waiting=0, done=size * 98 // 100, failed=size // 50),
            StageCount(stage="embed:large", waiting=size // 3, done=size // 3, failed=0),
        ],
        ignore_conflicts=True,
    )
    StageTick.objects.create(stage="read", started_at=timezone.now(), done=400)
    for one in range(100):
        Crawl.objects.create(source=sources[one % 12], state="finished", counts={"found": size}, finished_at=now)
    few = max(1, size // 20)
    _put(
        Comment,
        f"SELECT {{i}}.id, {owner.pk}, 'fine', {{now}} FROM search_image {{i}} WHERE {{i}}.id <= {few}",
        "image_id, author_id, text, created_at",
    )
    _put(
        Favourite,
        f"SELECT {{i}}.id, {owner.pk}, {{now}} FROM search_image {{i}} WHERE {{i}}.id <= {few}",
        "image_id, user_id, created_at",
    )
    Event.objects.bulk_create(
        [Event(kind="opened", user=owner, name="owner", image_id=n, created_at=now) for n in range(SEED_ROWS)]
    )
    _multiply(Event, size // 5, {})
    Action.objects.bulk_create(
        [Action(user=owner, verb="tag", summary=f"Tagged {n}", ids=pack_ids([n]), count=1) for n in range(SEED_ROWS)]
    )
    _multiply(Action, size // 20, {})
    SeenFile.objects.bulk_create(
        SeenFile(source=sources[n % 12], path=b"%d.pdf" % n, path_digest=path_digest(b"%d.pdf" % n),
                 directory=path_digest(b""), size=1, mtime_ns=1, why="unsupported", kind=f"kind {n % 7}")
        for n in range(SEED_ROWS)
    )  # fmt: skip
    _multiply(SeenFile, size // 10, {"path_digest": _digest()})
    _said("work, comments, events, actions")
    for sentence in highwater.mend():
        _said(sentence)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def grow(size: int) -> None:
    """More images, until there are `size`."""
    from django.db import connection

    from search.models import Image

    sqlite = connection.vendor == "sqlite"
    later = (
        "strftime('%Y-%m-%d %H:%M:%f', shown_at, '-' || ({n} * 7919 % 43000) || ' minutes')"
        if sqlite
        else "shown_at - ({n}::bigint * 7919 %% 43000) * interval '1 minute'"
    )
    text = "CAST('{n}' || name AS text)"
    _multiply(Image, size, {"path_digest": _digest(), "shown_at": later, "name": text})


def _digest() -> str:
    """Sixteen bytes that differ from row to row, in the database's words."""
    from django.db import connection

    return "randomblob(16)" if connection.vendor == "sqlite" else "decode(md5(random()::text || id), 'hex')"


def _multiply(model: Any, number: int, changed: dict[str, str]) -> None:
    """Copy the rows of a table, with new ids, until it has `number`."""
    from django.db import connection

    columns = [field.column for field in model._meta.concrete_fields if not field.primary_key]
    table, have = model._meta.db_table, model.objects.count()
    while have < number:
        n = min(have, number - have)
        values = ", ".join(changed.get(one, '"' + one + '"').replace("{n}", str(have)) for one in columns)
        named = ", ".join(f'"{one}"' for one in columns)
        with connection.cursor() as cursor:
            sql = f"INSERT INTO {table} ({named}) SELECT {values} FROM {table} ORDER BY id LIMIT {n}"
            cursor.execute(sql, [] if connection.vendor == "postgresql" else None)
        have += n


def _put(model: Any, select: str, columns: str) -> None:
    from django.db import connection

    now = "'2025-06-01 00:00:00'" if connection.vendor == "sqlite" else "timestamptz '2025-06-01 00:00:00+00'"
    null = "NULL" if connection.vendor == "sqlite" else "NULL::timestamptz"
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {model._meta.db_table} ({columns}) " + select.format(i="i", now=now, null=null))


def addresses() -> dict[str, str]:
    """{what it is: address} of every page that is timed."""
    from django.contrib import admin
    from django.urls import reverse

    from search.models import Image, Tag

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
        "in a space": "space=large.in", "lacking in a space": "space=look.out",
        "common tag and rated 5": f"tag={common.name}&rating=5",
        "searched, in many names": "q=IMG", "searched, in no name": "q=zanzibar", "searched, an id": f"q={last}",
        "searched, a path": "q=2010/trip 2", "before a date": "before=2012-01-01",
    }.items():  # fmt: skip
        found[f"Image, {what}"] = f"{images}?{asked.replace(' ', '+')}"
    work = found["Work"]
    for what, asked in {
        "failed": "state__exact=failed",
        "one stage": "stage=embed:look",
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
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or Path(scratch)
        os.environ |= {"IMAGESEARCH_DATA": str(data), "IMAGESEARCH_ENV_FILE": os.devnull, "IMAGESEARCH_ENCODER": "look"}
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
        import django

        django.setup()
        from django.conf import settings
        from django.core.management import call_command

        from search.models import Image

        settings.ALLOWED_HOSTS = ["testserver"]
        settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
        call_command("migrate", verbosity=0)
        if not Image.objects.exists():
            fill(options.size)
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
