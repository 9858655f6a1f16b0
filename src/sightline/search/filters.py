"""Filters as a person types them: `width>=640 and folder="holiday" and added<2026-01-01`.

    filter  = and-part { "or" and-part }
    and     = part { "and" part }
    part    = "not" part | "(" filter ")" | flag | field operator value | field "in" "(" values ")"
    operator = "=" "!=" "<" "<=" ">" ">=", and for texts "~" (holds) and "!~"
    value   = "quoted" | 'quoted' | word | number | date | date"T"time | true | false

The text becomes a tree of `search.conditions` and nothing of it goes further: an engine gets typed
values, never a string that it would read as a language. Dates are UTC; a date without a time is the
whole day, so that `added=2026-01-01` and `added<=2026-01-01` mean what they say.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, NoReturn, cast

from sightline.core.errors import ConfigError, nearest
from sightline.search.conditions import Among, Both, Compare, Condition, Like, Not, Operator, Value
from sightline.search.store import FieldKind, Fields

LONGEST, DEEPEST, MOST = 10_000, 50, 100
"""Characters, parentheses inside parentheses, comparisons: engines walk the tree by recursion."""
_OPERATORS = {"=", "==", "!=", "<", "<=", ">", ">=", "~", "!~"}
_LARGEST = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400 * 10**9
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<operator>!=|<=|>=|!~|==|[=<>~(),])
    | (?P<word>[^\s"'=<>~!(),]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_KINDS = {"text": "a text", "whole": "a whole number", "time": "a date", "flag": "true or false"}
_WORDS = {"and", "or", "not", "in"}


class _Token(NamedTuple):
    text: str
    quoted: bool
    at: int

    @property
    def word(self) -> str:
        """The text as a word of the language; empty where it was quoted."""
        return "" if self.quoted else self.text.lower()


def parse_filter(text: str, fields: Fields) -> Condition:
    """A filter as a condition.

    Args:
        text: what was typed.
        fields: what may be asked about, with its kind.

    Raises:
        ConfigError: it cannot be read, or a field or the kind of a value is wrong; what is allowed
            stands in the message.
    """
    if len(text) > LONGEST:
        raise ConfigError(f"the filter has {len(text):,} characters; at most {LONGEST:,} are read")
    known = {name: kind for name, kind in fields.items() if kind != "raw"}
    return _Parser(text, known).whole()


class _Parser:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, text: str, fields: Fields) -> None:
        self.text, self.fields = text, fields
        self.tokens = _tokens(text)
        self.place = self.depth = self.comparisons = 0

    def whole(self) -> Condition:
        found = self.either()
        if self.peek() is not None:
            self.fail("a filter goes on with 'and' or 'or'")
        return found

    def either(self) -> Condition:
        found = self.every()
        while self.took("or"):
            found = Both("or", found, self.every())
        return found

    def every(self) -> Condition:
        found = self.part()
        while self.took("and"):
            found = Both("and", found, self.part())
        return found

    def part(self) -> Condition:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ConfigError(f"the filter is nested more than {DEEPEST} deep")
        try:
            if self.took("not"):
                return Not(self.part())
            if self.took("("):
                inner = self.either()
                self.must_take(")")
                return inner
            return self.comparison()
        finally:
            self.depth -= 1

    def comparison(self) -> Condition:
        self.comparisons += 1
        if self.comparisons > MOST:
            raise ConfigError(f"the filter has more than {MOST} comparisons: ask with 'in' lists")
        token = self.next("a field, 'not' or '('")
        field, kind = self.field(token)
        if self.took("in"):
            return self.among(field, kind)
        operator = self.peek()
        if kind == "flag" and (operator is None or operator.word in (")", "and", "or")):
            return Compare(field, "=", True)
        word = self.word_ahead()
        if word not in _OPERATORS:
            self.fail(f"after {field} comes one of = != < <= > >= ~ in")
        word = "=" if word == "==" else word
        self.place += 1
        if word in ("~", "!~"):
            return self.like(field, kind, word)
        if word not in ("=", "!=") and kind in ("text", "flag"):
            raise ConfigError(f"{field} is {_KINDS[kind]}: ask for = or !=, not {word}")
        return self.compare(field, kind, cast(Operator, word))

    def compare(self, field: str, kind: FieldKind, operator: Operator) -> Condition:
        token = self.next(f"{_KINDS[kind]} for {field}")
        if kind == "time":
            return _compare_time(field, operator, token)
        return Compare(field, operator, _value(field, kind, token))

    def like(self, field: str, kind: FieldKind, word: str) -> Condition:
        if kind != "text":
            raise ConfigError(f"{field} is {_KINDS[kind]}: {word} asks about texts")
        found = Like(field, self.next(f"a text for {field}").text)
        return found if word == "~" else Not(found)

    def among(self, field: str, kind: FieldKind) -> Condition:
        if kind in ("time", "flag"):
            raise ConfigError(f"{field} is {_KINDS[kind]}: 'in' takes texts and whole numbers")
        self.must_take("(")
        values = [_value(field, kind, self.next(f"{_KINDS[kind]} for {field}"))]
        while self.took(","):
            values.append(_value(field, kind, self.next(f"{_KINDS[kind]} for {field}")))
        self.must_take(")")
        return Among(field, tuple(values))

    def field(self, token: _Token) -> tuple[str, FieldKind]:
        name = token.word
        if name in self.fields:
            return name, self.fields[name]
        known = ", ".join(self.fields)
        close = nearest(token.text, self.fields, 1)
        hint = f"did you mean {close[0]}? " if close and not token.quoted else ""
        raise ConfigError(f"there is no field {_shown(token.text)}: {hint}fields are {known}")

    # Tokens

    def peek(self) -> _Token | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def word_ahead(self) -> str:
        token = self.peek()
        return "" if token is None else token.word

    def took(self, word: str) -> bool:
        if self.word_ahead() != word:
            return False
        self.place += 1
        return True

    def must_take(self, word: str) -> None:
        if not self.took(word):
            self.fail(f"{word!r} is missing")

    def next(self, wanted: str) -> _Token:
        token = self.peek()
        if token is None or token.word in {*_OPERATORS, "(", ")", ","}:
            self.fail(f"{wanted} is missing")
        self.place += 1
        return token

    def fail(self, reason: str) -> NoReturn:
        token = self.peek()
        where = "at the end" if token is None else f"before {_shown(self.text[token.at :])}"
        raise ConfigError(f"the filter cannot be read {where}: {reason}")


def _tokens(text: str) -> list[_Token]:
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise ConfigError(f"the filter cannot be read at {_shown(text[at:].lstrip())}")
        at = match.end()
        start = match.start(match.lastgroup or 0)
        raw = text[start:at]
        quoted = match.lastgroup == "quoted"
        found.append(_Token(_unquoted(raw) if quoted else raw, quoted, start))
    return found


def _unquoted(raw: str) -> str:
    return re.sub(r"\\(.)", r"\1", raw[1:-1], flags=re.DOTALL)


def _value(field: str, kind: FieldKind, token: _Token) -> Value:
    if kind == "text":
        if not token.quoted and token.word in _WORDS:
            raise ConfigError(f"{field}: put {token.text!r} in quotes to ask for that text")
        return token.text
    if kind == "flag" and token.word in ("true", "false"):
        return token.word == "true"
    if kind == "whole" and re.fullmatch(r"[+-]?[0-9]{1,19}", token.word):
        number = int(token.word)
        if abs(number) <= _LARGEST:
            return number
    raise ConfigError(f"{field} is {_KINDS[kind]}, {_shown(token.text)} arrived")


def _compare_time(field: str, operator: Operator, token: _Token) -> Condition:
    """A moment, or a whole day from its first to its last nanosecond."""
    start, length = _moment(field, token)
    if operator in ("=", "!="):
        day = Both("and", Compare(field, ">=", start), Compare(field, "<", start + length))
        return day if operator == "=" else Not(day)
    if operator == ">":
        return Compare(field, ">=", start + length)
    if operator == "<=":
        return Compare(field, "<", start + length)
    return Compare(field, operator, start)


def _moment(field: str, token: _Token) -> tuple[int, int]:
    """Nanoseconds since 1970, and how long the moment lasts: a day, or a second."""
    for layout, length in (
        ("%Y-%m-%d", _DAY),
        ("%Y-%m-%dT%H:%M", 60 * 10**9),
        ("%Y-%m-%dT%H:%M:%S", 10**9),
    ):
        try:
            moment = datetime.strptime(token.text.upper(), layout).replace(tzinfo=UTC)
        except ValueError:
            continue
        nanoseconds = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
        if 0 <= nanoseconds <= _LARGEST - _DAY:
            return nanoseconds, length
    raise ConfigError(
        f"{field} is a date such as 2026-01-31 or 2026-01-31T09:30 (UTC), "
        f"{_shown(token.text)} arrived"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
