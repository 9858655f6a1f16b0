"""Filters: what a person types becomes a typed condition, or one sentence, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import ConfigError
from sightline.search.conditions import Among, Both, Compare, Condition, Like, Not
from sightline.search.filters import parse_filter
from sightline.search.store import Fields

FIELDS: Fields = {"path": "text", "width": "whole", "added": "time", "missing": "flag",
                  "file": "raw"}  # fmt: skip
DAY = 86_400 * 10**9


def nanoseconds(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[arg-type,misc]


def parsed(text: str) -> Condition:
    return parse_filter(text, FIELDS)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("width>=640", Compare("width", ">=", 640)),
        ("WIDTH == -3", Compare("width", "=", -3)),
        ("path=cat.png", Compare("path", "=", "cat.png")),
        ('path!="it\'s \\"so\\""', Compare("path", "!=", 'it\'s "so"')),
        ("path = 'and'", Compare("path", "=", "and")),
        ("path ~ holiday", Like("path", "holiday")),
        ("path!~*.jpg", Not(Like("path", "*.jpg"))),
        ("missing", Compare("missing", "=", True)),
        ("not missing", Not(Compare("missing", "=", True))),
        ("missing=false", Compare("missing", "=", False)),
        ("path in (a, 'b c')", Among("path", ("a", "b c"))),
        ("width in (1)", Among("width", (1,))),
        (
            "width>1 and missing or not width<2",
            Both(
                "or",
                Both("and", Compare("width", ">", 1), Compare("missing", "=", True)),
                Not(Compare("width", "<", 2)),
            ),
        ),
        (
            "width>1 and (missing or width<2)",
            Both(
                "and",
                Compare("width", ">", 1),
                Both("or", Compare("missing", "=", True), Compare("width", "<", 2)),
            ),
        ),
    ],
)
def test_what_is_typed_is_what_is_meant(text: str, condition: Condition) -> None:
    assert parsed(text) == condition


def test_a_date_is_the_whole_day_and_a_time_its_minute() -> None:
    start = nanoseconds(2026, 1, 31)
    assert parsed("added<2026-01-31") == Compare("added", "<", start)
    assert parsed("added>=2026-01-31") == Compare("added", ">=", start)
    assert parsed("added<=2026-01-31") == Compare("added", "<", start + DAY)
    assert parsed("added>2026-01-31") == Compare("added", ">=", start + DAY)
    whole = Both("and", Compare("added", ">=", start), Compare("added", "<", start + DAY))
    assert parsed("added=2026-01-31") == whole
    assert parsed("added!=2026-01-31") == Not(whole)
    minute = nanoseconds(2026, 1, 31, 9, 30)
    assert parsed("added>2026-01-31T09:30") == Compare("added", ">=", minute + 60 * 10**9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "widht>3",
            "no field 'widht': did you mean width\\? fields are path, width, added, missing$",
        ),
        ("file=x", "no field 'file'"),
        ("width=wide", "width is a whole number, 'wide' arrived"),
        ("width=1.5", "width is a whole number"),
        ("width=99999999999999999999", "width is a whole number"),
        ("width~3", "width is a whole number: ~ asks about texts"),
        ("path<b", "path is a text: ask for = or !=, not <"),
        ("missing=3", "missing is true or false, '3' arrived"),
        ("added=yesterday", "added is a date such as 2026-01-31"),
        ("added=2026-02-30", "added is a date"),
        ("added=0001-01-01", "added is a date"),
        ("added in (2026-01-01)", "'in' takes texts and whole numbers"),
        ("width", "at the end: after width comes one of = != < <= > >= ~ in"),
        ("width>", "at the end: a whole number for width is missing"),
        ("width>3 path=a", "before 'path=a': a filter goes on with 'and' or 'or'"),
        ("(width>3", "'\\)' is missing"),
        ("width>3)", "goes on with 'and' or 'or'"),
        ("path=and", "put 'and' in quotes"),
        ('path="open', "cannot be read at '\"open'"),
        ("", "a field, 'not' or '\\(' is missing"),
        ("width in ()", "a whole number for width is missing"),
        ("'width'=3", "there is no field 'width'"),
        ("width=1; drop table vectors", "cannot be read|whole number"),
        ("(" * 60 + "missing" + ")" * 60, "nested more than 50 deep"),
        (" or ".join(["missing"] * 101), "more than 100 comparisons"),
        ("path=" + "a" * 10_000, "10,005 characters; at most 10,000"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.sampled_from("'\""))
def test_any_text_can_be_asked_for_in_quotes(text: str, quote: str) -> None:
    escaped = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
    assert parsed(f"path={quote}{escaped}{quote}") == Compare("path", "=", text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text("widthpa=<>~()'\"\\ orandnt.1-*?,", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsed(text)
    except ConfigError as error:
        assert len(str(error)) < 400
