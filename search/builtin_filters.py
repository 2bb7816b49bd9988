"""The filters that the catalogue itself knows; `SearchConfig.ready()` registers them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from django.db.models import Exists, F, OuterRef, Q

from search import dates, review
from search.errors import BadQuery
from search.filters import AtHand, Filter, register
from search.folding import containing, contains, folder_text
from search.formats import EXTENSIONS
from search.text import fold

if TYPE_CHECKING:
    from search.arrays import Bitmap
    from search.bitmaps import Library
    from search.facets import Facets
    from search.querysets import ImageQuerySet

FORMATS = ("jpeg", "png", "gif", "bmp", "tiff", "webp", "heif", "avif", "jpeg2000", "raw")
_FORMAT_NAMES = {
    **dict.fromkeys(EXTENSIONS["RAW"], "raw"),
    "jpg": "jpeg",
    "jpe": "jpeg",
    "jfif": "jpeg",
    "tif": "tiff",
    "heic": "heif",
    "hif": "heif",
} | dict.fromkeys(["jp2", "j2k", "jpx", "jpf", "jpeg-2000"], "jpeg2000")
_NUMBER = re.compile(r"^(>=|<=|>|<|=)?\s*(\d{1,9}(?:\.\d{1,6})?)\s*([a-z]*)$", re.ASCII)
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "mp": 0}
_IDS = re.compile(r"^\d{1,18}(\s*(\.\.|,)\s*\d{1,18})*$", re.ASCII)

STARS = 5
"""The best rating."""
HAS = ("gps", "tags", "rating", "title", "description", "date", "comments")
UNLISTED = ("hidden", "missing", "removed", "unreadable")
IS = (*UNLISTED, "untagged", "unrated", "waiting", "favourite", "commented", "flagged", *review.FLAWS, "kept", "live")


def plain(name: str) -> Callable[[str], str]:
    """A `parse` for free text: single spaces, not longer than a name can be. `name` is the filter's, for messages."""

    def parse(value: str) -> str:
        value = " ".join(value.split())
        if not value:
            raise BadQuery(f"{name}: needs a value right after the colon.")
        if len(value) > 500:
            raise BadQuery(f"{name}: takes at most 500 characters.")
        return value

    return parse


def one_of(name: str, values: tuple[str, ...]) -> Callable[[str], str]:
    """A `parse` for a fixed list of words, in any case."""

    def parse(value: str) -> str:
        word = value.strip().lower()
        if word not in values:
            raise BadQuery(f"{name}: is one of {', '.join(values)}, not {value[:40]!r}.")
        return word

    return parse


# --- where it lies ---------------------------------------------------------------------------------


def _in_source(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    return queryset.filter(source__in=_sources_named(value, user))


def _sources_named(value: str, user: Any) -> list[int]:
    from search.models import Source

    sources = Source.objects.all() if user is None or user.is_staff else _readable(user)
    known = list(sources.values_list("pk", "name"))
    wanted = [pk for pk, name in known if name == value] or [pk for pk, name in known if fold(name) == fold(value)]
    if not wanted:
        names = ", ".join(sorted(name for _, name in known)[:20]) or "none yet"
        raise BadQuery(f"There is no source named {value!r}. Sources you can search: {names}.")
    return wanted


def _known_of_source(value: str, library: Library, number: int, user: Any) -> Bitmap | None:
    return library.of_sources(_sources_named(value, user)) if library.number >= number else None


def _readable(user: Any) -> Any:
    from search.access import readable_sources
    from search.models import Source

    return readable_sources(user) if user.is_active else Source.objects.none()


def _parse_folder(value: str) -> str:
    folder = plain("folder")(value).strip("/ ")
    if not folder:
        raise BadQuery("folder: needs the name of a folder, for example folder:2019/italy.")
    return folder


def _in_folder(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    # What the folder does not contain at all is told without putting its slashes around it.
    return queryset.filter(contains("folder", value) & contains(folder_text(), f"/{value}/"))


def _named(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    return queryset.filter(contains("name", value))


# --- what the file is -------------------------------------------------------------------------------


def _parse_format(value: str) -> str:
    word = value.strip().lower().lstrip(".")
    word = _FORMAT_NAMES.get(word, word)
    if word not in FORMATS:
        raise BadQuery(f"format: is one of {', '.join(FORMATS)}, not {value[:40]!r}.")
    return word


def _of_format(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    return queryset.filter(format=value.upper())


def _taken_with(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    return queryset.filter(contains("camera", value))


def _through_lens(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    return queryset.filter(contains("lens", value))


def _at_hand(tell: Callable[[Facets, str], Bitmap | None]) -> AtHand:
    """What passes, told by the arrays that pages count with, where this process has read them."""

    def told(value: str, library: Library, number: int, user: Any) -> Bitmap | None:
        from search.facets import loaded_facets

        facets = loaded_facets(library, number)
        return None if facets is None else tell(facets, value)

    return told


def _counted_text(column: str) -> Callable[[Facets, str], Bitmap | None]:
    """What `contains(column, value)` finds."""
    return lambda facets, value: facets.carrying(column, lambda texts: containing(texts, value))


def _counted_format(facets: Facets, value: str) -> Bitmap | None:
    return facets.carrying("format", lambda texts: [text == value.upper() for text in texts])


def _counted_years(facets: Facets, value: str) -> Bitmap | None:
    """A whole year, or from one to another."""
    first, dots, last = value.partition("..")
    last = last if dots else first
    return facets.between("year", int(first), int(last)) if len(first) == len(last) == 4 else None


def _parse_size(value: str) -> str:
    match = _NUMBER.match(value.strip().lower())
    if match is None or match[3] not in _BYTES:
        raise BadQuery(f"size: takes a file size or megapixels such as >=5MB, <500kB or >12MP, not {value[:40]!r}.")
    sign = match[1] or ">="
    unit = {"kb": "kB"}.get(match[3], match[3].upper())
    return f"{'>=' if sign == '=' else sign}{float(match[2]):.6f}".rstrip("0").rstrip(".") + unit


def _of_size(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    match = _NUMBER.match(value.lower())
    if match is None:
        raise BadQuery(f"size:{value} cannot be understood.")
    lookup = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}[match[1]]
    if match[3] == "mp":
        queryset = queryset.alias(pixels=F("width") * F("height"))
        return queryset.filter(**{f"pixels__{lookup}": int(float(match[2]) * 10**6)})
    return queryset.filter(**{f"size__{lookup}": int(float(match[2]) * _BYTES[match[3]])})


# --- what people said of it -------------------------------------------------------------------------


def _parse_rating(value: str) -> str:
    word = value.strip().replace(" ", "")
    accepts = f"rating: takes 0 to 5, alone or as >=3, <=2 or 2..4, not {value[:40]!r}."
    if match := re.fullmatch(r"([0-5])\.\.([0-5])", word, re.ASCII):
        low, high = int(match[1]), int(match[2])
    elif match := re.fullmatch(r"([0-5])\+", word, re.ASCII):
        low, high = int(match[1]), 5
    elif match := re.fullmatch(r"(>=|<=|>|<|=)?([0-5])", word, re.ASCII):
        number = int(match[2])
        low, high = {
            ">=": (number, 5), "<=": (0, number), ">": (number + 1, 5), "<": (0, number - 1)
        }.get(match[1], (number, number))  # fmt: skip
    else:
        raise BadQuery(accepts)
    if low > high:
        raise BadQuery(accepts)
    if low == high:
        return str(low)
    return f">={low}" if high == 5 else f"<={high}" if low == 0 else f"{low}..{high}"


def _of_rating(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    low, high = _stars(value)
    if low == high:
        return queryset.filter(rating=low)
    return queryset.rated(low) if high == STARS else queryset.filter(rating__range=(low, high))


def _stars(value: str) -> tuple[int, int]:
    """The fewest and the most stars of a canonical value."""
    if value[:2] in (">=", "<="):
        number = int(value[2:])
        return (number, STARS) if value[0] == ">" else (0, number)
    low, _, high = value.partition("..")
    return int(low), int(high or low)


def _counted_stars(facets: Facets, value: str) -> Bitmap | None:
    return facets.between("rating", *_stars(value))


def _tagged(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    from search.models import ImageTag
    from search.tagtree import with_those_under

    return queryset.having(ImageTag.objects.filter(tag__in=with_those_under(value)))


def _counted_tag(facets: Facets, value: str) -> Bitmap | None:
    from search.tagtree import with_those_under

    return facets.tagged(np.array(with_those_under(value), dtype=np.int64))


def _in_album(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    from search.models import Album, AlbumEntry

    known = list(Album.objects.visible_to(user).values_list("pk", "name"))
    wanted = [pk for pk, name in known if name == value] or [pk for pk, name in known if fold(name) == fold(value)]
    if not wanted:
        raise BadQuery(f"You have no album named {value!r}.")
    return queryset.having(AlbumEntry.objects.filter(album__in=wanted))


def _having(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    from search.facets import FACTS
    from search.models import Comment, ImageTag

    links: dict[str, Any] = {"tags": ImageTag.objects.all(), "comments": Comment.objects.all()}
    if value in links:
        return queryset.having(links[value], mostly=True)
    return queryset.filter(Q(rating__gt=0) if value == "rating" else FACTS[value])


def _counted_having(facets: Facets, value: str) -> Bitmap | None:
    from search.facets import FACTS

    if value == "tags":
        return facets.tagged()
    if value == "rating":
        return facets.between("rating", 1, STARS)
    return facets.having(value) if value in FACTS else None


def _being(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    from search import live
    from search.models import Comment, Favourite, ImageTag, Reviewed

    if value == "favourite":
        favourites = Favourite.objects.all() if user is None else Favourite.objects.filter(user=user.pk)
        return queryset.having(favourites)
    if value == "commented":
        return queryset.having(Comment.objects.all())
    if value in {"hidden", "flagged"}:
        return queryset.filter(**{value: True})
    if value in review.FLAWS:
        return queryset.filter(review.found(value))
    if value == "live":
        return live.only_live(queryset)
    if value == "kept":
        return queryset.having(Reviewed.objects.all())
    if value == "unrated":
        return queryset.filter(rating=0)
    if value == "untagged":
        return queryset.filter(~Exists(ImageTag.objects.filter(image=OuterRef("pk"))))
    return queryset.filter(state=value)


def _counted_being(facets: Facets, value: str) -> Bitmap | None:
    if value == "unrated":
        return facets.between("rating", 0, 0)
    tagged = facets.tagged() if value == "untagged" else None
    return None if tagged is None else ~tagged


def _waiting_for_review(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    return queryset.editable_by(user, lead=False).filter(**{value: True})


# --- numbers ----------------------------------------------------------------------------------------


def _parse_ids(value: str) -> str:
    word = value.strip()
    if not _IDS.match(word):
        raise BadQuery(f"id: takes numbers of pictures such as 12, 12,15 or 12..40, not {value[:40]!r}.")
    parts = []
    for part in word.split(","):
        numbers = [str(int(number)) for number in part.split("..")]
        if len(numbers) > 2:
            raise BadQuery(f"id: takes numbers of pictures such as 12, 12,15 or 12..40, not {value[:40]!r}.")
        parts.append("..".join(numbers))
    if len(parts) > 1_000:
        raise BadQuery("id: takes at most 1,000 numbers.")
    return ",".join(parts)


def _numbered(queryset: ImageQuerySet, value: str, user: Any) -> ImageQuerySet:
    alone: list[int] = []
    condition = Q()
    for part in value.split(","):
        low, _, high = part.partition("..")
        if high:
            condition |= Q(pk__range=(int(low), int(high)))
        else:
            alone.append(int(low))
    return queryset.filter(condition | Q(pk__in=alone) if alone else condition)


def register_builtin_filters() -> None:
    """Register every filter of this module."""
    from search import filter_choices as offer
    from search.models import Change

    access = frozenset({Change.Kind.ACCESS.value})

    for one in (
        Filter(
            "source", "Source", "From one of the folders that are searched, by its name.",
            plain("source"), _in_source, 'source:"My photos"', offer.sources, several="any",
            kept=True, anew=access, at_hand=_known_of_source,
        ),
        Filter(
            "folder", "Folder", "In a folder of this name or path, at any depth.",
            _parse_folder, _in_folder, "folder:2019/italy", several="any",
            kept=True, personal=False,
        ),
        Filter(
            "name", "File name", "The file's name contains this.", plain("name"), _named, "name:IMG_12",
            kept=True, personal=False,
        ),
        Filter(
            "format", "Format", f"The file's format: {', '.join(FORMATS)}.",
            _parse_format, _of_format, "format:heic", offer.formats, several="any",
            kept=True, personal=False, at_hand=_at_hand(_counted_format),
        ),
        Filter(
            "date", "Date", "Taken in a year, month or day, or between two of them.",
            dates.parse_range, dates.within, "date:2019-05..2020-01", offer.years, several="any",
            kept=True, personal=False, at_hand=_at_hand(_counted_years),
        ),
        Filter(
            "before", "Before", "Taken before this year, month or day begins.",
            lambda value: dates.parse_date("before", value), dates.before, "before:2019",
            kept=True, personal=False,
        ),
        Filter(
            "after", "After", "Taken after this year, month or day has ended.",
            lambda value: dates.parse_date("after", value), dates.after, "after:2019-05-17",
            kept=True, personal=False,
        ),
        Filter(
            "rating", "Rating", "Rated with this many stars; 0 is unrated.",
            _parse_rating, _of_rating, "rating:>=3", offer.ratings, several="any",
            kept=True, personal=False, at_hand=_at_hand(_counted_stars),
        ),
        Filter(
            "tag", "Tag", "Carries this tag, or one that stands under it.",
            plain("tag"), _tagged, "tag:beach", offer.tags,
            kept=True, anew=frozenset({Change.Kind.TAGS.value}), personal=False, at_hand=_at_hand(_counted_tag),
        ),
        Filter(
            "album", "Album", "Lies in one of your albums, by its name.",
            plain("album"), _in_album, 'album:"The best"', offer.albums, several="any",
            kept=True, anew=frozenset({Change.Kind.ALBUMS.value}),
        ),
        Filter(
            "camera", "Camera", "The camera's name contains this.",
            plain("camera"), _taken_with, "camera:canon", offer.cameras, several="any",
            kept=True, personal=False, at_hand=_at_hand(_counted_text("camera")),
        ),
        Filter(
            "lens", "Lens", "The lens's name contains this.",
            plain("lens"), _through_lens, 'lens:"50mm"', offer.lenses, several="any",
            kept=True, personal=False, at_hand=_at_hand(_counted_text("lens")),
        ),
        Filter(
            "size", "Size", "File size (kB, MB, GB) or megapixels (MP), at least or at most.",
            _parse_size, _of_size, "size:>=5MB",
            kept=True, personal=False,
        ),
        Filter(
            "has", "Has", f"Has {', '.join(HAS)}.",
            one_of("has", HAS), _having, "has:gps", offer.nothing_counted(HAS),
            kept=True, personal=False, at_hand=_at_hand(_counted_having),
        ),
        Filter(
            "is", "Is", f"Is {', '.join(IS)}. Images that are not listed are shown to those who may edit them.",
            one_of("is", IS), _being, "is:untagged", offer.nothing_counted(IS), unlisted=frozenset(UNLISTED),
            kept=True, personal=frozenset({"favourite"}), at_hand=_at_hand(_counted_being),
        ),
        Filter(
            "review", "Review", f"Waits for you in a review queue: {', '.join(review.NAMES)}.",
            one_of("review", review.NAMES), _waiting_for_review, "review:blurred", offer.review_queues, several="any",
            kept=True, anew=access,
        ),
        Filter(
            "id", "Number", "The picture's number, or several.",
            _parse_ids, _numbered, "id:12,15", several="any",
            kept=True, personal=False,
        ),
    ):  # fmt: skip
        register(one)
