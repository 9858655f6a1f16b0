"""Conditions as expressions of LanceDB: built from typed nodes, never from text."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from sightline.search.conditions import Among, Compare, Condition, Like, Not

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def expression(condition: Condition) -> Any:
    """The `lancedb.expr.Expr` that means the same."""
    from lancedb.expr import col, func, lit

    if isinstance(condition, Compare):
        return _COMPARE[condition.operator](col(condition.field), lit(condition.value))
    if isinstance(condition, Among):
        return col(condition.field).isin([lit(value) for value in condition.values])
    if isinstance(condition, Like):
        return func("regexp_like", col(condition.field), lit(_pattern(condition.pattern)))
    if isinstance(condition, Not):
        return ~expression(condition.part)
    left, right = expression(condition.left), expression(condition.right)
    return left & right if condition.operator == "and" else left | right


def _pattern(text: str) -> str:
    """A pattern of `Like` in the syntax of Rust's regular expressions."""
    wild = {"*": ".*", "?": "."}
    inner = "".join(wild.get(letter) or _escaped(letter) for letter in text)
    return f"(?is)^{inner}$" if any(letter in text for letter in wild) else f"(?is){inner}"


def _escaped(letter: str) -> str:
    return re.escape(letter) if letter.isascii() else letter
