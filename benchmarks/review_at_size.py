"""The review queues at a million images: each counter, the next picture, the grid, settling and sorting anew.

    python -m benchmarks.review_at_size [--size 1000000] [--data FOLDER]

On a library of `benchmarks.library`: as the owner who sees all of it, as somebody who sees a third, and as somebody
who sees a hundredth. It changes the library: give it a copy of one that is to be kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import library


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="A library of rows that is there already, or is to be kept.")
    options = parser.parse_args()
    with library.settings_of(options.data):
        library.make(options.size, vectors=False)
        run()
    return 0


def timed(name: str, doing: Callable[[], Any], *, times: int = 5) -> None:
    took = []
    for _ in range(times):
        started = time.perf_counter()
        said = doing()
        took.append(1000 * (time.perf_counter() - started))
    print(f"{name:<58}{sorted(took)[len(took) // 2]:>10.1f} ms   {said if said is not None else ''}", flush=True)


def run() -> None:
    from django.contrib.auth import get_user_model
    from django.db import connection

    from search import curation, filters, review
    from search.models import Image
    from search.views.browse import page_of

    def next_two(queue: str, user: Any) -> int:
        return len(review.waiting(queue, user).newest_first()[:2])

    def first_page(term: Any, user: Any) -> int:
        return len(page_of(filters.filtered([term], user), limit=80)[0])

    people = get_user_model().objects
    staff, large, small = (people.get(username=name) for name in ("owner", "anna", "ben"))
    ids = Image.objects.order_by("pk").values_list("pk", flat=True)
    print(f"{len(ids):,} images on {connection.vendor}")
    timed("sorting all of them, nothing to do", review.refresh, times=1)
    for name, user in (("staff", staff), ("who sees a third", large), ("who sees a hundredth", small)):
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
    raise SystemExit(main())
