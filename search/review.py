"""What waits for a person's eye: pictures that look wrong, those without stars or tags, those somebody flagged.

An image's columns `wide`, `small`, `blurred`, `plain`, `unrated` and `untagged` say in which queues it waits. They
follow from what is known of it anyway (pixels, sharpness, uniformity, stars, tags), from the settings and from what
a person kept; `settle` brings them up to date and is called by everything that changes one of these. No file is read
again when a setting changes: `refresh` goes through the rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.db.models import BooleanField, Case, Exists, F, Max, OuterRef, Q, QuerySet, Value, When

from search import changes
from search.models import Change, Counter, Image, ImageTag, Reviewed
from search.queues import Queue, Tally, register_queue, tally

if TYPE_CHECKING:
    from search.arrays import Ids
    from search.querysets import ImageQuerySet

FLAWS = ("wide", "small", "blurred", "plain")
"""What may be wrong with a picture, as its pixels say."""
SORTED = (*FLAWS, "unrated", "untagged")
"""The queues into which images are sorted: columns of `Image` that `settle` keeps, and what can be kept out of them."""
NAMES = (*SORTED, "flagged")
"""All queues of this module, in the order in which the overview shows them."""
CHUNK = 10_000
_COUNTER = "review settings"


def thresholds() -> tuple[float, float, float, float]:
    """What the settings say now: ratio of the sides, pixels of the shorter side, sharpness, uniformity."""
    return (
        float(settings.IMAGESEARCH_REVIEW_RATIO),
        float(settings.IMAGESEARCH_REVIEW_SMALL),
        float(settings.IMAGESEARCH_REVIEW_BLUR),
        float(settings.IMAGESEARCH_REVIEW_PLAIN),
    )


def found(flaw: str) -> Q:
    """What makes an image `wide`, `small`, `blurred` or `plain` under the present settings, kept or not.

    wide: one side is more than IMAGESEARCH_REVIEW_RATIO times the other. small: the shorter side has fewer pixels
    than IMAGESEARCH_REVIEW_SMALL. plain: at least the share IMAGESEARCH_REVIEW_PLAIN of the thumbnail lies near its
    mean colour. blurred: the variance of the Laplacian of the grey thumbnail (Pech-Pacheco et al. 2000, "Diatom
    autofocusing in brightfield microscopy") is below IMAGESEARCH_REVIEW_BLUR, and it is not plain: what shows nothing
    has no edges either.
    """
    ratio, small, blur, plain = thresholds()
    conditions: dict[str, Callable[[], Q]] = {
        "wide": lambda: Q(width__gt=F("height") * ratio) | Q(height__gt=F("width") * ratio),
        "small": lambda: Q(width__lt=small) | Q(height__lt=small),
        "blurred": lambda: Q(sharpness__lt=blur, uniformity__lt=plain),
        "plain": lambda: Q(uniformity__gte=plain),
    }
    return conditions[flaw]()


def _waits(queue: str) -> Case:
    """Whether an image should wait in a queue, as an expression."""
    lacks = {
        "unrated": Q(rating=0),
        "untagged": Q(~Exists(ImageTag.objects.filter(image=OuterRef("pk")))),
    }
    # Before its file was read nothing is known of a picture, and there is nothing to look at.
    wanted = Q(read_at__isnull=False) & (lacks[queue] if queue in lacks else found(queue))
    wanted &= Q(~Exists(Reviewed.objects.filter(image=OuterRef("pk"), queue=queue)))
    return Case(When(wanted, then=Value(True)), default=Value(False), output_field=BooleanField())


def settle(ids: Iterable[int] | Ids, queues: Iterable[str] = SORTED) -> None:
    """Bring the columns of these queues up to date, inside a transaction in which the images are locked."""
    numbers = [int(i) for i in ids]
    for start in range(0, len(numbers), CHUNK):
        wrong, right = _wrong(Image.objects.filter(pk__in=numbers[start : start + CHUNK]), queues)
        wrong.update(**right)


def _wrong(images: QuerySet[Image], queues: Iterable[str]) -> tuple[QuerySet[Image], dict[str, Case]]:
    """Those of the images of which a column is not as it should be, and how it should be."""
    right = {queue: _waits(queue) for queue in queues}
    differs = Q()
    for queue, case in right.items():
        differs |= Q(Q(**{queue: True}) & ~Q(case)) | Q(Q(**{queue: False}) & Q(case))
    return images.filter(differs), right


def is_stale() -> bool:
    """Whether the settings are others than those after which the images were sorted."""
    kept = Counter.objects.filter(name=_COUNTER).values_list("value", flat=True).first()
    return kept != _digest()


def refresh(tell: Callable[[int, int], None] | None = None, *, portion: int = CHUNK) -> int:
    """Sort every image anew after the present settings, in short transactions; returns how many changed.

    `tell(done, of)` is called after each portion of ids. Stopping it loses nothing: it begins again, and what stands
    right is only looked at.
    """
    digest = _digest()
    last = Image.objects.aggregate(last=Max("pk"))["last"] or 0
    changed = 0
    for start in range(0, last + 1, portion):
        with transaction.atomic():
            span = Image.objects.filter(pk__gte=start, pk__lt=start + portion)
            wrong, _ = _wrong(span, SORTED)
            ids = list(wrong.order_by("pk").select_for_update(of=("self",)).values_list("pk", flat=True))
            settle(ids)
            if ids:
                changes.record(Change.Kind.FACTS, ids)
        changed += len(ids)
        if tell is not None:
            tell(min(start + portion, last + 1), last + 1)
    Counter.objects.update_or_create(name=_COUNTER, defaults={"value": digest})
    return changed


def _digest() -> int:
    return zlib.crc32(repr(thresholds()).encode())


def waiting(queue: str, user: Any) -> ImageQuerySet:
    """The images that wait in a queue for this user (None: the command line, all), in no order: of those that are
    listed, the ones which the user may change."""
    return Image.objects.editable_by(user, lead=False).listed().filter(**{queue: True})


def count(queue: str, user: Any, most: int | None = None) -> Tally:
    """How many wait in a queue; counted from its own index, and no further than `most` (see `search.queues`)."""
    rows = waiting(queue, user)
    return tally(rows) if most is None else tally(rows, most)


LABELS = {
    "wide": ("Extreme shape", "One side is much longer than the other: strips, banners, scanned rolls."),
    "small": ("Too small", "Few pixels: icons, previews, pictures saved from web pages."),
    "blurred": ("Blurred", "Hardly an edge in the picture: out of focus or moved."),
    "plain": ("One colour", "Nearly all of the picture is one colour: lens caps, empty scans, misfires."),
    "unrated": ("Unrated", "No stars yet: press 1 to 5."),
    "untagged": ("Untagged", "No tags yet: press t and name what is to be seen."),
    "flagged": ("Flagged", "Somebody flagged these to come back to them."),
}
"""{queue: (its name for people, what lies in it)}"""


def register_queues() -> None:
    """Register every queue of this module with `search.queues`."""
    from django.urls import reverse

    def counter(name: str) -> Callable[[Any], Tally]:
        return lambda user: count(name, user)

    def address(name: str) -> Callable[[], str]:
        return lambda: reverse("review_queue", args=[name])

    def grid(name: str) -> Callable[[], str]:
        return lambda: f"{reverse('browse')}?review={name}"

    for place, name in enumerate(NAMES):
        label, said = LABELS[name]
        register_queue(Queue(name, label, said, counter(name), address(name), order=10 + place, grid=grid(name)))
