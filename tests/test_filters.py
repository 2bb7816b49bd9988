"""The registry of filters, and the built-in ones over real rows."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from search import curation, filters
from search.errors import BadQuery
from search.filters import Choice, Filter, Term, filtered, term
from search.folding import contains
from search.models import Album, Comment, Image, SourceAccess
from search.query import parse
from search.text import clean, fold
from tests.factories import make_image, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner():
    return make_user()


@pytest.fixture
def source(owner):
    return make_source(owner=owner, name="My photos")


def found(text: str, user=None) -> set[str]:
    return set(filtered(parse(text).filters, user).values_list("name", flat=True))


def utc(
    year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0, micro: int = 0
) -> dt.datetime:
    return dt.datetime(year, month, day, hour, minute, second, micro, tzinfo=dt.UTC)


def filter_of(name: str) -> Filter:
    found = filters.get(name)
    assert found is not None
    return found


def choices(name: str, user=None) -> list[Choice]:
    offered = filter_of(name).choices
    assert offered is not None
    return offered(user)


# --- the registry -------------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(filters, "_registry", dict(filters._registry))


def test_another_app_registers_a_filter_and_it_works_everywhere(registry, source, owner) -> None:
    wide = make_image(source, "wide.jpg", width=2000, height=500)
    make_image(source, "tall.jpg", width=500, height=2000)

    def apply(queryset, value, user):
        from django.db.models import F

        return queryset.filter(width__gt=F("height")) if value == "wide" else queryset.filter(width__lt=F("height"))

    filters.register(Filter("shape", "Shape", "Wide or tall.", str.lower, apply, "shape:wide", several="any"))
    assert found("shape:WIDE", owner) == {wide.name}
    assert found("-shape:wide", owner) == {"tall.jpg"}
    assert found("shape:wide shape:tall", owner) == {"wide.jpg", "tall.jpg"}
    assert parse("", {"shape": "wide"}).filters == (Term("shape", "wide"),)
    assert filter_of("Shape").label == "Shape"


@pytest.mark.parametrize("name", ["", "Tag", "two words", "like", "q", "order", "a1", "é"])
def test_a_name_that_cannot_be_typed_is_refused(registry, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a filter's name"):
        filters.register(Filter(name, "x", "x", str, lambda queryset, value, user: queryset))


def test_unknown_filters_and_forbidden_negation_are_sentences(registry) -> None:
    with pytest.raises(BadQuery, match="These are known: after, album, before"):
        term("nonsense", "x")
    filters.register(Filter("only", "Only", "x", str, lambda queryset, value, user: queryset, negatable=False))
    with pytest.raises(BadQuery, match="Leave the minus sign away"):
        term("only", "x", negated=True)
    with pytest.raises(BadQuery, match="any more"):
        list(filtered([Term("gone", "x")], None))


def test_every_builtin_filter_explains_itself_by_an_example_that_works(source) -> None:
    Album.objects.create(owner=make_user(), name="The best")
    make_image(source, captured_at=utc(2019, 5, 1), shown_at=utc(2019, 5, 1))
    for one in filters.all_filters():
        assert one.label and one.help.endswith(".") and one.example.startswith(f"{one.name}:"), one.name
        query = parse(one.example)
        assert [found_term.name for found_term in query.filters] == [one.name] and not query.phrases
        filtered(query.filters, None).count()
        filtered([Term(t.name, t.value, True) for t in query.filters], None).count()
        for choice in one.choices(None) if one.choices else []:
            assert one.parse(choice.value) == choice.value


# --- the built-in ones --------------------------------------------------------------------------------


def test_source_by_name_in_any_case_and_only_ones_own(owner, source) -> None:
    make_image(source, "a.jpg")
    other = make_source(name="Ärchive")
    make_image(other, "b.jpg")
    assert found('source:"my PHOTOS"', owner) == {"a.jpg"}
    assert found("source:äRCHIVE") == {"b.jpg"}
    assert found('source:"My photos" source:Ärchive') == {"a.jpg", "b.jpg"}
    assert found("-source:Ärchive") == {"a.jpg"}
    said = set()
    for name in ("Ärchive", "Nowhere"):
        with pytest.raises(BadQuery) as caught:
            found(f"source:{name}", owner)
        said.add(str(caught.value).replace(name, "X"))
    assert said == {"There is no source named 'X'. Sources you can search: My photos."}
    with pytest.raises(BadQuery, match="none yet"):
        found("source:Ärchive", AnonymousUser())


def test_folder_matches_whole_names_at_any_depth(source) -> None:
    for path in ["2019/Italy/a.jpg", "2019/italy-2/b.jpg", "x/2019/italy/y/c.jpg", "d.jpg", "100%/e_e.jpg"]:
        make_image(source, path)
    assert found("folder:2019/italy") == {"a.jpg", "c.jpg"}
    assert found("folder:/2019/") == {"a.jpg", "b.jpg", "c.jpg"}
    assert found("folder:ital") == set()
    assert found("folder:100%") == {"e_e.jpg"} and found("folder:1%%") == set()
    assert found("-folder:2019") == {"d.jpg", "e_e.jpg"}
    assert found("name:E_E name:.jpg") == {"e_e.jpg"}
    assert found("name:_ name:%") == set()


@given(st.text(max_size=12).map(clean).filter(bool), st.text(max_size=3))
def test_text_is_folded_the_same_by_python_and_by_the_database(text: str, around: str) -> None:
    from django.db.models import TextField, Value

    from search.folding import Folded

    stored = clean(around) + text + clean(around)
    row = Folded(Value(stored, output_field=TextField()))
    with connection.cursor() as cursor:
        sql, params = Image.objects.values_list(row).query.get_compiler(connection=connection).compile(row)
        cursor.execute(f"SELECT {sql}", params)
        (value,) = cursor.fetchone()
    if connection.vendor == "sqlite":
        assert value == (stored if stored.isascii() else fold(stored))  # of ASCII its LIKE regards no case
    elif stored.isascii() or all(ord(char) < 0x250 for char in stored if char not in "ŉ"):
        assert fold(value) == fold(stored)


@pytest.mark.parametrize("word", ["ÉTÉ", "été", "STRASSE", "straße", "ΟΔΟΣ", "οδος", "Москва", "МОСКВА"])
def test_case_is_ignored_in_every_script(source, word: str) -> None:
    for name in ("Été.jpg", "Straße.jpg", "Οδος.jpg", "москва.jpg"):
        make_image(source, name)
    assert Image.objects.filter(contains("name", word)).count() == 1


def test_format_camera_lens(source) -> None:
    make_image(source, "a", format="JPEG", camera="Canon EOS 5D", lens="EF 50mm f/1.8")
    make_image(source, "b", format="HEIF", camera="NIKON D750")
    make_image(source, "c", format="PNG")
    assert found("format:jpg") == {"a"} and found("format:heic format:png") == {"b", "c"}
    assert found("-format:jpeg -format:png") == {"b"}
    assert (
        found("camera:canon") == {"a"} and found('lens:"50MM f/1.8"') == {"a"} and found("-camera:nikon") == {"a", "c"}
    )


def test_size_in_bytes_and_megapixels(source) -> None:
    make_image(source, "small", size=999, width=1000, height=999)
    make_image(source, "large", size=5_000_000, width=4000, height=3000)
    make_image(source, "unread", size=10, width=None, height=None, state="waiting")
    assert found("size:5MB") == {"large"} and found("size:<1kB") == {"small", "unread"}
    assert found("size:>5MB") == set() and found("size:>=12mp") == {"large"} and found("size:<1MP") == {"small"}


def test_rating_tags_and_what_is_lacking(source, owner) -> None:
    images = {str(n): make_image(source, str(n), rating=n) for n in range(6)}
    assert found("rating:4") == {"4"} and found("rating:>3") == {"4", "5"} and found("rating:1..2") == {"1", "2"}
    assert found("rating:<=1") == {"0", "1"} and found("rating:0") == {"0"} and found("-rating:>=1") == {"0"}
    assert found("rating:1 rating:5") == {"1", "5"}
    curation.tag([images["1"].pk, images["2"].pk], "Beach", owner)
    curation.tag([images["2"].pk], "sun", owner)
    assert (
        found("tag:BEACH") == {"1", "2"}
        and found("tag:beach tag:sun") == {"2"}
        and found("tag:beach -tag:sun") == {"1"}
    )
    assert found("tag:bea") == set()
    assert found("is:untagged is:unrated") == {"0"} and found("-is:untagged") == {"1", "2"} == found("has:tags")
    assert found("has:rating") == {"1", "2", "3", "4", "5"}


def test_has(source, owner) -> None:
    everything = make_image(
        source, "full", latitude=1.0, longitude=2.0, title="t", description="d", captured_at=utc(2020, 1, 1), rating=1
    )
    Comment.objects.create(image=everything, author=owner, text="nice")
    curation.tag([everything.pk], "x", owner)
    make_image(source, "bare")
    for value in ("gps", "tags", "rating", "title", "description", "date", "comments"):
        assert found(f"has:{value}") == {"full"} and found(f"-has:{value}") == {"bare"}, value


def test_ids(source) -> None:
    images = [make_image(source, str(n)) for n in range(4)]
    first, second, third, fourth = (image.pk for image in images)
    assert found(f"id:{first}") == {"0"} and found(f"id:{first},{third}..{fourth}") == {"0", "2", "3"}
    assert found(f"id:{first} id:{second}") == {"0", "1"} and found(f"-id:{second}..{third}") == {"0", "3"}
    assert found("id:999999999999999999") == set() and found(f"id:{fourth}..{first}") == set()


# --- dates --------------------------------------------------------------------------------------------


@pytest.fixture
def dated(source, settings):
    settings.TIME_ZONE = "America/New_York"
    from django.utils import timezone

    timezone.get_default_timezone.cache_clear()  # type: ignore[attr-defined]
    yield {
        name: make_image(source, name, shown_at=captured or file_time, captured_at=captured, captured_offset=offset)
        for name, captured, offset, file_time in [
            # 23:30 on New Year's Eve in Tokyo
            ("tokyo", utc(2019, 12, 31, 14, 30), 540, None),
            # 00:30 on New Year's Day in Tokyo, still the old year in UTC
            ("tokyo-after", utc(2019, 12, 31, 15, 30), 540, None),
            # 20:00 on New Year's Eve in Honolulu, the new year in UTC
            ("honolulu", utc(2020, 1, 1, 6, 0, 0, 250_000), -600, None),
            # a camera's wall clock without an offset
            ("clock", utc(2019, 12, 31, 23, 59, 59), None, None),
            # no capture date: 22:00 in New York by the file
            ("file", None, None, utc(2020, 1, 1, 3)),
            ("midnight", utc(2020, 1, 1), None, None),
            ("may", utc(2019, 5, 31, 12), 120, None),
        ]
    }
    timezone.get_default_timezone.cache_clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("date:2019", {"tokyo", "honolulu", "clock", "file", "may"}),
        ("date:2020", {"tokyo-after", "midnight"}),
        ("date:2019-12", {"tokyo", "honolulu", "clock", "file"}),
        ("date:2019-12-31", {"tokyo", "honolulu", "clock", "file"}),
        ("date:2020-01-01", {"tokyo-after", "midnight"}),
        ("date:2019-05..2019-11", {"may"}),
        ("date:2020..", {"tokyo-after", "midnight"}),
        ("date:..2019-05-31", {"may"}),
        ("date:2019-05 date:2020", {"may", "tokyo-after", "midnight"}),
        ("before:2019-12-31", {"may"}),
        ("before:2020", {"tokyo", "honolulu", "clock", "file", "may"}),
        ("after:2019", {"tokyo-after", "midnight"}),
        ("after:2019-12-30", {"tokyo", "honolulu", "clock", "file", "tokyo-after", "midnight"}),
        ("after:2019-05 before:2020", {"tokyo", "honolulu", "clock", "file"}),
        ("-date:2019", {"tokyo-after", "midnight"}),
        ("date:1000..9000", {"tokyo", "honolulu", "clock", "file", "may", "tokyo-after", "midnight"}),
        ("date:2024-02-29", set()),
    ],
)
def test_dates_are_those_of_the_clock_where_the_picture_was_taken(dated, text: str, names: set[str]) -> None:
    assert found(text) == names


def test_years_are_offered_by_the_same_clock(dated) -> None:
    assert choices("date") == [Choice("2020", "2020", 2), Choice("2019", "2019", 5)]


# --- what is listed, what is offered ------------------------------------------------------------------


def test_unlisted_images_are_for_editors_who_ask(source, owner) -> None:
    viewer, staff = make_user(), make_user(staff=True)
    SourceAccess.objects.create(source=source, user=viewer)
    make_image(source, "listed")
    make_image(source, "hidden", hidden=True)
    for state in ("missing", "removed", "unreadable", "waiting"):
        make_image(source, state, state=state)
    make_image(source, "hidden-missing", hidden=True, state="missing")
    make_image(make_source(), "elsewhere", hidden=True)
    for who in (owner, viewer):
        assert found("", who) == {"listed", "waiting"} == found("-is:hidden", who)
    assert found("is:waiting", viewer) == {"waiting"}
    assert found("is:hidden", owner) == {"hidden"} and found("is:hidden", staff) == {"hidden", "elsewhere"}
    assert found("is:missing", owner) == {"missing", "hidden-missing"}
    assert found("is:missing is:hidden", owner) == {"hidden-missing"}
    assert found("is:removed", owner) == {"removed"} and found("is:unreadable", None) == {"unreadable"}
    for state in ("hidden", "missing", "removed", "unreadable"):
        assert found(f"is:{state}", viewer) == set() == found(f"is:{state}", AnonymousUser())


def test_choices_are_counted_only_through_what_one_may_see(source, owner) -> None:
    other = make_source(name="Secret")
    for n in range(3):
        curation.tag([make_image(source, str(n), camera="Canon", lens="50mm", rating=n).pk], "beach", owner)
    hidden = make_image(source, hidden=True, camera="Hidden", format="GIF", rating=5)
    curation.tag([hidden.pk], "hush", owner)
    unseen = make_image(other, camera="Leica", lens="35mm", format="PNG", rating=4, shown_at=utc(1999, 7, 1))
    curation.tag([unseen.pk], ["private", "beach"], None)
    group = Group.objects.create(name="family")
    member = make_user()
    member.groups.add(group)
    SourceAccess.objects.create(source=source, group=group)

    def offered(name: str, user) -> list[tuple[str, int | None]]:
        return [(choice.value, choice.count) for choice in choices(name, user)]

    for user in (owner, member):
        assert offered("source", user) == [("My photos", 3)]
        assert offered("tag", user) == [("beach", 3)]
        assert offered("camera", user) == [("Canon", 3)] and offered("lens", user) == [("50mm", 3)]
        assert offered("format", user) == [("jpeg", 3)]
        assert offered("date", user) == [("2024", 3)]
        assert offered("rating", user) == [("5", 0), (">=4", 0), (">=3", 0), (">=2", 1), (">=1", 2)]
    assert offered("tag", None) == [("beach", 4), ("private", 1)]
    assert [year for year, _ in offered("date", None)] == ["2024", "1999"]
    for user in (make_user(), AnonymousUser()):
        assert all(not offered(name, user) for name in ("source", "tag", "camera", "lens", "format", "date"))


def test_choices_take_a_constant_number_of_queries(source, owner) -> None:
    for n in range(2):
        curation.tag([make_image(source, str(n), camera=f"c{n}").pk], f"t{n}", owner)

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            for name in ("source", "tag", "camera", "lens", "format", "rating", "date"):
                choices(name, owner)
        return len(queries)

    cost()  # what is counted is read once, and followed from then on
    few = cost()
    for n in range(20):
        curation.tag([make_image(source, f"x{n}", camera=f"d{n}").pk], f"u{n}", owner)
    choices("tag", owner)
    assert cost() == few <= 16
