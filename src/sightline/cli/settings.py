"""The settings of a recipe as a list: name, value, type, and the sentence beside it in the code."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import fields
from itertools import pairwise
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """One field of a recipe."""

    name: str
    value: Any
    kind: str
    meaning: str


def describe_settings(recipe: Any) -> list[Setting]:
    """Every field of a dataclass instance, in its order; the meaning is the string below it."""
    meanings: dict[str, str] = {}
    for base in reversed(type(recipe).__mro__[:-1]):
        meanings |= field_docstrings(base)
    return [
        Setting(f.name, getattr(recipe, f.name), str(f.type), meanings.get(f.name, ""))
        for f in fields(recipe)
    ]


def field_docstrings(owner: type) -> dict[str, str]:
    """Field name to the string literal that follows it in the class body."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = {}
    for statement, following in pairwise(body):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr)):
            continue
        name, text = statement.target, following.value
        if isinstance(name, ast.Name) and isinstance(text, ast.Constant):
            found[name.id] = " ".join(str(text.value).split())
    return found
