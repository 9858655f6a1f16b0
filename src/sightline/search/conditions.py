"""Conditions on the fields of a row, as typed values; a store translates them for its engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Value: TypeAlias = str | int | bool
Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Compare:
    """A field beside one value of its own kind."""

    field: str
    operator: Operator
    value: Value


@dataclass(frozen=True)
class Among:
    """A field has one of these values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Like:
    """A text holds the pattern, whatever the case.

    `*` stands for any text and `?` for one character; a pattern with one of them has to fit the
    whole text, one without is found anywhere in it.
    """

    field: str
    pattern: str


@dataclass(frozen=True)
class Not:
    """The opposite."""

    part: Condition


@dataclass(frozen=True)
class Both:
    """Both halves have to hold ("and"), or at least one of them ("or")."""

    operator: Literal["and", "or"]
    left: Condition
    right: Condition


Condition: TypeAlias = Compare | Among | Like | Not | Both


def fields_of(condition: Condition) -> set[str]:
    """The fields that a condition looks at."""
    if isinstance(condition, Both):
        return fields_of(condition.left) | fields_of(condition.right)
    return fields_of(condition.part) if isinstance(condition, Not) else {condition.field}


def both(left: Condition | None, right: Condition | None) -> Condition | None:
    """What has to hold where either may be absent."""
    if left is None or right is None:
        return left if right is None else right
    return Both("and", left, right)
