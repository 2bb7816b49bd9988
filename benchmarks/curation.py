"""Curation of many images at once: each verb on 50,000 of them, and its undo, in a scratch SQLite database.

    python -m benchmarks.curation [--size 50000] [--library 200000]

What is measured is what a person waits for: the verb of `search.curation` with its Action, and `undo` of it, each one
transaction with `synchronous=FULL`. The bar is 5 seconds for each. Then tagging and its undo once more as the pages do
it with so many: in portions, each a transaction with its place in the errand.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

BAR_SECONDS = 5.0


def measure(size: int = 50_000, library: int = 200_000) -> dict[str, Any]:
    """Seconds of every verb and its undo on the newest `size` of `library` images, which one person may edit.

    Needs Django set up on a migrated scratch database.
    """
    from django.db import connection

    from search import albums, curation, personal, tagging
    from search.models import Action, Tag

    owner, newest = _library(library, size)
    album = albums.create("Everything", owner)[0]
    verbs: list[tuple[str, Callable[[], Action | None]]] = [
        ("tag", lambda: curation.tag(newest, ["benchmark"], owner)),
        ("tag_again", lambda: curation.tag(newest, ["benchmark", "second"], owner)),
        ("rate", lambda: curation.rate(newest, 4, owner)),
        ("title", lambda: curation.set_title(newest, "One title for all", owner)),
        ("hide", lambda: curation.hide(newest, owner)),
        ("remove", lambda: curation.remove(newest, owner)),
        ("favourite", lambda: personal.favourite(newest, owner)),
        ("comment", lambda: personal.comment(newest, "The same words on all of them", owner)),
        ("add_to_album", lambda: albums.add(album, newest, owner)),
        ("reverse_album", lambda: albums.reorder(album, newest[::-1], owner)),
        ("untag", lambda: curation.untag(newest, ["benchmark"], owner)),
        ("merge_tags", lambda: tagging.merge([Tag.objects.get(key="benchmark")], "merged", owner)),
    ]
    stays = {"tag", "add_to_album"}
    report: dict[str, Any] = {"images": size, "library": library, "database": connection.vendor, "bar": BAR_SECONDS}
    slowest = 0.0
    for name, verb in verbs:
        started = time.perf_counter()
        action = verb()
        done = time.perf_counter() - started
        assert action is not None and action.count == size, (name, action and action.count)
        started = time.perf_counter()
        undone = curation.undo(action, owner)
        taken_back = time.perf_counter() - started
        assert undone is not None and undone.count == size, name
        if name in stays:
            assert verb() is not None
        report[name] = {"seconds": round(done, 2), "undo_seconds": round(taken_back, 2)}
        slowest = max(slowest, done, taken_back)
    report["in_portions"] = _in_portions(newest, owner)
    return {**report, "slowest_seconds": round(slowest, 2), "within_bar": slowest < BAR_SECONDS}


def _in_portions(ids: Any, owner: Any) -> dict[str, float]:
    """Seconds of tagging and undoing the same as errands do it, and of the longest of their transactions."""
    from django.utils import timezone

    from search import errands, undoing
    from search.compact import pack_ordered
    from search.models import Action, Errand

    def run(verb: str, arguments: dict[str, Any], packed: bytes) -> tuple[float, float, Action]:
        errand = Errand.objects.create(
            user=owner, verb=verb, arguments=arguments, ids=packed, total=len(ids), beat_at=timezone.now()
        )
        longest, started, more = 0.0, time.perf_counter(), True
        while more:
            began = time.perf_counter()
            more = errands._portion(errand.pk)
            longest = max(longest, time.perf_counter() - began)
        errand.refresh_from_db()
        assert errand.state == Errand.State.DONE and errand.action is not None and errand.action.count == len(ids)
        return time.perf_counter() - started, longest, errand.action

    done, longest, action = run("tag", {"names": ["portions"]}, pack_ordered(ids))
    assert undoing.size_of(action) == len(ids)
    undone, longest_undo, _ = run(errands.UNDO, {"undoes": action.pk}, b"")
    return {
        "seconds": round(done, 2), "undo_seconds": round(undone, 2),
        "longest_transaction_seconds": round(max(longest, longest_undo), 2),
    }  # fmt: skip


def _library(number: int, size: int) -> tuple[Any, Any]:
    """A person, `number` images as wide as those of real photos, and the ids of the newest `size` of them."""
    import numpy as np
    from django.contrib.auth import get_user_model

    from search.models import Image, Source, SourceAccess, path_digest

    owner = get_user_model().objects.create_user("owner")
    source = Source.objects.create(name="photos", root=b"/nowhere")
    SourceAccess.objects.create(source=source, user=owner, role=SourceAccess.Role.OWNER)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for first in range(0, number, 10_000):
        Image.objects.bulk_create(
            [
                Image(
                    source=source, path=b"%04d/IMG_%06d.jpg" % (n // 500, n), path_digest=path_digest(b"%d" % n),
                    directory=path_digest(b"%04d" % (n // 500)), name=f"IMG_{n:06}.jpg", folder=f"{n // 500:04}",
                    size=4_000_000 + n, mtime_ns=n, state=Image.State.READY, sha256=path_digest(b"%d" % n) * 2,
                    format="JPEG", width=6000, height=4000, camera="Camera 5D", lens="EF 24-70mm",
                    shown_at=start - timedelta(minutes=n), colours=[["#336699", 0.4], ["#aabbcc", 0.3]],
                )
                for n in range(first, min(first + 10_000, number))
            ]
        )  # fmt: skip
    ids = np.fromiter(Image.objects.newest_first().values_list("pk", flat=True)[:size], dtype=np.int64)
    return owner, ids


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=50_000, help="How many images are changed (default 50,000).")
    parser.add_argument("--library", type=int, default=200_000, help="How many there are (default 200,000).")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="curation-data-") as data:
        os.environ["IMAGESEARCH_DATA"] = data
        os.environ.setdefault("IMAGESEARCH_ENCODER", "look")
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imagesearch.settings")
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        print(json.dumps(measure(options.size, options.library), indent=2))


if __name__ == "__main__":
    main()
