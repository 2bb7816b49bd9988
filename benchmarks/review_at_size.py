"""The review queues at a million images: each counter, the next picture, the grid, settling and sorting anew.

    .venv/bin/python benchmarks/review_at_size.py [--rows 1000000]

Makes a library of its own in a temporary folder (DATABASE_URL: in that database, which has to be empty). Half of the
images lie in a large source, the others in ten; two thirds are unrated, a twentieth untagged, a hundredth blurred.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IMAGESEARCH_DATA"] = folder
        os.environ["IMAGESEARCH_ENV_FILE"] = os.devnull
        os.environ.setdefault("IMAGESEARCH_ENCODER", "look")
        os.environ["DJANGO_SETTINGS_MODULE"] = "imagesearch.settings"
        sys.path.insert(0, str(ROOT))
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        run(options.rows)
    return 0


def timed(name: str, doing: Callable[[], Any], *, times: int = 5) -> None:
    took = []
    for _ in range(times):
        started = time.perf_counter()
        said = doing()
        took.append(1000 * (time.perf_counter() - started))
    print(f"{name:<58}{sorted(took)[len(took) // 2]:>10.1f} ms   {said if said is not None else ''}", flush=True)


def run(rows: int) -> None:
    from django.contrib.auth import get_user_model
    from django.db import connection

    from search import curation, filters, review
    from search.models import Image, ImageTag, Source, SourceAccess, Tag, path_digest
    from search.views.browse import page_of

    def next_two(queue: str, user: Any) -> int:
        return len(review.waiting(queue, user).newest_first()[:2])

    def first_page(term: Any, user: Any) -> int:
        return len(page_of(filters.filtered([term], user), limit=80)[0])

    people = get_user_model().objects
    staff = people.create_superuser("staff", password="x")
    small, large = people.create_user("small"), people.create_user("large")
    sources = [Source.objects.create(name=f"source {n}", root=f"/nowhere/{n}".encode()) for n in range(11)]
    SourceAccess.objects.create(source=sources[3], user=small, role="owner")
    SourceAccess.objects.create(source=sources[0], user=large, role="owner")
    tag = Tag.objects.create(name="tag")
    start, read = datetime(2000, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    began = time.perf_counter()
    for first in range(0, rows, 20_000):
        made = []
        for n in range(first, min(first + 20_000, rows)):
            path = b"folder%d/photo%d.jpg" % (n // 500, n)
            made.append(
                Image(
                    source=sources[0 if n % 2 else 1 + n // 2 % 10], path=path, path_digest=path_digest(path),
                    directory=path_digest(b"folder%d" % (n // 500)), name=f"photo{n}.jpg", folder=f"folder{n // 500}",
                    size=3_000_000 + n, mtime_ns=n, state="ready", shown_at=start + timedelta(minutes=n * 7 % rows),
                    format="JPEG", width=4000 if n % 101 else 400, height=3000 if n % 103 else 90,
                    sharpness=3.0 if n % 100 == 7 else 700.0, uniformity=0.99 if n % 1_000 == 3 else 0.05,
                    rating=n % 3 if n % 3 == 0 else 0 if n % 3 == 1 else 4, read_at=read,
                    camera="Canon EOS R5", lens="RF24-105mm F4 L IS USM", colours=[["#aabbcc", 0.5]] * 5,
                )
            )  # fmt: skip
        Image.objects.bulk_create(made)
    ids = Image.objects.order_by("pk").values_list("pk", flat=True)
    for first in range(0, rows, 20_000):
        some = [pk for pk in ids[first : first + 20_000] if pk % 20]
        ImageTag.objects.bulk_create([ImageTag(image_id=pk, tag=tag) for pk in some], batch_size=5_000)
    print(f"{rows:,} images made in {time.perf_counter() - began:.0f} s on {connection.vendor}")
    timed("sorting all of them for the first time", review.refresh, times=1)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    timed("sorting again, nothing to do", review.refresh, times=1)
    for name, user in (("staff", staff), ("owner of half", large), ("owner of a twentieth", small)):
        for queue in review.NAMES:
            timed(f"counter {queue}, {name}", partial(review.count, queue, user))
            timed(f"  the next two of {queue}", partial(next_two, queue, user))
            term = filters.term("review", queue)
            timed(f"  first page of its grid, {queue}", partial(first_page, term, user), times=3)
    some = list(review.waiting("blurred", staff).values_list("pk", flat=True)[:5_000])
    timed("keeping 5,000 blurred ones", lambda: str(curation.keep(some, "blurred", staff)), times=1)
    timed("counter blurred after that", lambda: review.count("blurred", staff))
    many = list(ids[:50_000])
    timed("rating 50,000", lambda: str(curation.rate(many, 5, staff)), times=1)
    timed("tagging 50,000", lambda: str(curation.tag(many, "another", staff)), times=1)
    timed("untagging 50,000", lambda: str(curation.untag(many, ["another", "tag"], staff)), times=1)


if __name__ == "__main__":
    sys.exit(main())
