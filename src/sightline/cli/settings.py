"""The settings of a recipe: what a command line changes, and a list of them for people."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from sightline.cli.output import Call

_AUTOCAST = {"float32": "off", "bfloat16": "bfloat16"}


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


def chosen_settings(call: Call, recipe: str, data: str | None, assignments: tuple[str, ...]) -> Any:
    """The recipe with what the command line changes."""
    from sightline.recipes.settings import override, parse_assignments
    from sightline.recipes.table import find_recipe

    changed = parse_assignments(assignments)
    if data is not None:
        changed["data"] = data
    if call.model_name is not None:
        changed.setdefault("init", call.model_name)
    if call.dtype != "auto":
        if call.dtype not in _AUTOCAST:
            known = "auto, float32 or bfloat16"
            raise click.BadParameter(f"training takes {known}", param_hint="--dtype")
        changed["autocast"] = _AUTOCAST[call.dtype]
    if call.device != "auto":
        changed["device"] = call.device
    return override(find_recipe(recipe).recipe(), changed)
