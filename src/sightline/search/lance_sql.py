"""Conditions in the SQL that LanceDB filters by.

LanceDB's typed expressions know no pattern matching, so text is written; but only from a typed
tree, whose operators and fields come from tables of ours. What a person typed appears as a quoted
literal or as an escaped pattern inside one, and nowhere else.
"""

from __future__ import annotations

import re

from sightline.search.conditions import Among, Both, Condition, Like, Not, Value

_FIELD = re.compile(r"[a-z_]+")
_OPERATORS = {"=", "!=", "<", "<=", ">", ">="}
_WILD = {"*": ".*", "?": "."}


def sql(condition: Condition) -> str:
    """The same as a boolean expression of DataFusion."""
    if isinstance(condition, Both):
        word = "AND" if condition.operator == "and" else "OR"
        return f"({sql(condition.left)} {word} {sql(condition.right)})"
    if isinstance(condition, Not):
        return f"(NOT {sql(condition.part)})"
    assert _FIELD.fullmatch(condition.field), condition.field
    if isinstance(condition, Among):
        return f"({condition.field} IN ({', '.join(map(_literal, condition.values))}))"
    if isinstance(condition, Like):
        return f"regexp_like({condition.field}, {_literal(_pattern(condition.pattern))})"
    assert condition.operator in _OPERATORS, condition.operator
    return f"({condition.field} {condition.operator} {_literal(condition.value)})"


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    # Standard SQL: a quote is doubled, and a backslash is only a backslash.
    return "'" + value.replace("'", "''") + "'"


def _pattern(text: str) -> str:
    """A pattern of `Like` in the syntax of Rust's regular expressions, which take linear time."""
    inner = "".join(_WILD.get(letter) or _escaped(letter) for letter in text)
    whole = any(letter in text for letter in _WILD)
    return rf"(?is)\A{inner}\z" if whole else f"(?is){inner}"


def _escaped(letter: str) -> str:
    return re.escape(letter) if letter.isascii() else letter
