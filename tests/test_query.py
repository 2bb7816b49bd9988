"""The language of the search box."""

from __future__ import annotations

import datetime as dt

import pytest
from django.http import QueryDict
from hypothesis import example, given
from hypothesis import strategies as st

from search import filters
from search.errors import BadQuery
from search.filters import Term
from search.query import MAX_PARTS, MAX_TEXT, ORDERS, Query, from_params, parse
from search.text import clean

TOKEN = "a" * 43


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Query()),
        ("   ; ;  ", Query()),
        ("a dog  on grass", Query(phrases=("a dog on grass",))),
        ("dog; cat;dog", Query(phrases=("dog", "cat"))),
        ('"dog on" grass', Query(phrases=("dog on grass",))),
        ("“dog; on” grass", Query(phrases=("dog; on grass",))),
        ("dog -snow", Query(phrases=("dog",), negatives=("snow",))),
        ('-"deep snow" not:"two dogs" NOT:rain', Query(negatives=("deep snow", "two dogs", "rain"))),
        ("t-shirt - x --y", Query(phrases=("t-shirt - x --y",))),
        ("tag:beach", Query(filters=(Term("tag", "beach"),))),
        ('sea -tag:"my family" TAG:sun', Query(("sea",), filters=(Term("tag", "my family", True), Term("tag", "sun")))),
        ("rating:3+ rating:>=3", Query(filters=(Term("rating", ">=3"),))),
        ("date:2019-5..2020", Query(filters=(Term("date", "2019-05..2020"),))),
        ("format:.JPG format:heic", Query(filters=(Term("format", "jpeg"), Term("format", "heif")))),
        ("size:5mb size:<2.50kB", Query(filters=(Term("size", ">=5MB"), Term("size", "<2.5kB")))),
        ("folder:/2019/italy/", Query(filters=(Term("folder", "2019/italy"),))),
        ("id:007,9..12", Query(filters=(Term("id", "7,9..12"),))),
        ("like:12 -like:7 like:12", Query(like=(12,), unlike=(7,))),
        ("dog order:newest", Query(("dog",), order="newest")),
        ('"tag:beach" "10:30"', Query(("tag:beach 10:30",))),
        (r'"say \"hi\" C:\photos"', Query(('say "hi" C:\\photos',))),
        ("tag:a;b", Query(("b",), filters=(Term("tag", "a"),))),
        ("caf\u0065\u0301 \x00dog", Query(("café dog",))),
    ],
)
def test_what_is_typed_becomes_a_query(text: str, expected: Query) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["10:30", "https://example.org/a", "colour:red", "-colour:red"])
def test_an_unknown_operator_is_plain_words_with_a_notice(text: str) -> None:
    query = parse(text)
    assert (*query.phrases, *query.negatives) == (text.removeprefix("-"),)
    assert "plain words" in query.notices[0] and text.removeprefix("-") in query.notices[0]


def test_the_canonical_text_of_such_words_gives_no_notice_again() -> None:
    assert parse(parse("10:30").text()).notices == ()


def test_an_open_quotation_mark_closes_at_the_end_with_a_notice() -> None:
    query = parse('sea "two dogs')
    assert query.phrases == ("sea two dogs",)
    assert "left open" in query.notices[0]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("rating:9", "0 to 5"),
        ("rating:5..3", "0 to 5"),
        ("rating:>5", "0 to 5"),
        ("date:2019-13", "2019-05-17"),
        ("date:0000", "2019-05-17"),
        ("date:9999", "2019-05-17"),
        ("date:..", ".."),
        ("date:2020..2019", "earlier date first"),
        ("before:soon", "2019-05-17"),
        ("format:docx", "jpeg"),
        ("is:nice", "hidden"),
        ("has:fun", "gps"),
        ("size:big", "5MB"),
        ("size:5parsec", "5MB"),
        ("like:abc", "like:123"),
        ("like:0", "like:123"),
        ("-like:" + "9" * 30, "like:123"),
        ("id:1..2..3", "12..40"),
        ("id:x", "12..40"),
        ("id:" + ",".join(["1"] * 1_001), "1,000"),
        ("tag:", "tag:beach"),
        ('name:""', "name:IMG_12"),
        ("folder:/", "folder:2019/italy"),
        ("tag:" + "x" * 501, "500"),
        ("order:random", "newest"),
        ("x" * (MAX_TEXT + 1), "4,000"),
        (";".join(f"w{n}" for n in range(MAX_PARTS + 1)), "200"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_says_what_would_do(text: str, names: str) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(text)
    message = str(caught.value)
    assert names in message and message.endswith(".") and len(message) < 300


def test_parameters_of_a_form_join_the_text() -> None:
    params = QueryDict(
        "q=ignored&tag=sea&tag=sun&-tag=rain&rating=4&rating=&like=3&not=two+dogs&page=2&offset=9&next=/x"
    )
    assert parse("dog", params) == Query(
        ("dog",),
        ("two dogs",),
        like=(3,),
        filters=(Term("tag", "sea"), Term("tag", "sun"), Term("tag", "rain", True), Term("rating", "4")),
    )


def test_several_boxes_are_several_phrases() -> None:
    assert from_params(QueryDict("q=dog&q=cat+-snow")) == Query(("dog", "cat"), ("snow",))


@pytest.mark.parametrize("params", [{"upload": "../../etc"}, {"like": "x"}, {"unlike": "-1"}, {"rating": "7"}])
def test_wrong_parameters_are_sentences(params: dict[str, str]) -> None:
    with pytest.raises(BadQuery, match=r"\.$"):
        from_params(params)


def test_a_chip_is_taken_away() -> None:
    query = Query(("x",), like=(1, 2), unlike=(3,), filters=(Term("tag", "a"), Term("tag", "a", True)))
    assert query.without(term=Term("tag", "a")).filters == (Term("tag", "a", True),)
    assert query.without(like=2).like == (1,)
    assert query.without(unlike=3).unlike == ()


def test_ranked_and_empty() -> None:
    assert Query().empty and not Query().ranked
    assert not parse("tag:x").ranked and not parse("tag:x").empty
    some = (Query(like=(1,)), Query(unlike=(1,)), Query(upload=TOKEN), Query(negatives=("a",)))
    assert all(one.ranked for one in some)


# --- round trips --------------------------------------------------------------------------------------

signs = st.text(alphabet=st.sampled_from('ab :;-"“”\\\t\n\x00\ud800é\u0301日tagnotlike1.2>=<,/'), max_size=12)
texts = st.one_of(signs, st.text(max_size=20))
phrases = st.lists(texts.map(clean).filter(bool), max_size=4, unique=True).map(tuple)
ids = st.lists(st.integers(1, 2**63 - 1), max_size=3, unique=True).map(tuple)
dates = st.one_of(
    st.integers(1000, 9000).map(str),
    st.dates(min_value=dt.date(1000, 1, 1)).filter(lambda d: d.year <= 9000).map(lambda d: d.isoformat()),
)
numbers = st.integers(0, 10**8).map(str)
values = {
    "source": texts, "folder": texts, "name": texts, "tag": texts, "album": texts, "camera": texts, "lens": texts,
    "format": st.sampled_from(["jpg", "HEIC", "png", ".tif"]),
    "date": st.one_of(dates, dates.map("{}..".format), dates.map("..{}".format)),
    "before": dates, "after": dates,
    "rating": st.sampled_from(["0", "5", ">=3", "<=2", "2..4", ">1", "<5", "3+", "0..5"]),
    "size": st.tuples(st.sampled_from(["", ">", "<=", "="]), numbers, st.sampled_from(["MB", "kb", "b"])).map("".join),
    "has": st.sampled_from(["gps", "TAGS"]), "is": st.sampled_from(["hidden", "untagged"]),
    "review": st.sampled_from(["wide", "blurred", "unrated"]),
    "id": st.lists(st.integers(0, 10**17), min_size=1, max_size=4).map(lambda n: ",".join(map(str, n))),
}  # fmt: skip


@st.composite
def terms(draw: st.DrawFn) -> Term | None:
    name = draw(st.sampled_from(sorted(values)))
    try:
        return filters.term(name, clean(draw(values[name])), negated=draw(st.booleans()))
    except BadQuery:
        return None


queries = st.builds(
    Query,
    phrases=phrases,
    negatives=phrases,
    like=ids,
    unlike=ids,
    upload=st.sampled_from(["", TOKEN]),
    filters=st.lists(terms(), max_size=4, unique=True).map(lambda found: tuple(term for term in found if term)),
    order=st.sampled_from(ORDERS),
)


@given(queries)
def test_text_and_parameters_give_the_query_back(query: Query) -> None:
    assert parse(query.text(), query.params()) == query
    assert from_params(query.params()) == query
    address = QueryDict(mutable=True)
    for name, value in query.params().items():
        address.setlist(name, value if isinstance(value, list) else [value])
    assert from_params(QueryDict(address.urlencode())) == query


@given(
    st.one_of(
        signs, st.lists(st.one_of(texts, st.sampled_from(['tag:"', "-like:3", "not:", ";", "-tag:a"]))).map(" ".join)
    )
)
@example('-"')
@example("not:")
@example('tag:"\\"')
def test_whatever_is_typed_is_a_query_or_a_sentence(text: str) -> None:
    try:
        query = parse(text)
    except BadQuery as error:
        assert str(error).endswith(".")
        return
    assert parse(query.text(), query.params()) == query


def test_every_builtin_filter_is_in_the_round_trip() -> None:
    assert {one.name for one in filters.all_filters()} >= set(values)
    builtin = {one.name for one in filters.all_filters() if one.parse.__module__.startswith("search.")}
    assert builtin == set(values)
