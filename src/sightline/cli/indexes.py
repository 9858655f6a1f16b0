"""What the commands of `sightline index` share: the option, the index, its model, its hits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sightline.cli.loading import load_model

if TYPE_CHECKING:
    from sightline.cli.output import Call
    from sightline.tasks.index import Index
    from sightline.tasks.index_answers import Found

F = TypeVar("F", bound=Callable[..., Any])

TASK = "retrieve"


def index_option(function: F) -> F:
    """--index: the folder of the index."""
    option = click.option(
        "--index", "folder", type=click.Path(file_okay=False, path_type=Path), required=True,
        metavar="DIR", help="Folder of the index.",
    )  # fmt: skip
    decorated: F = option(function)
    return decorated


def where_option(function: F) -> F:
    """--where: a filter."""
    option = click.option(
        "--where", metavar="FILTER",
        help="Only pictures that fit, such as 'width>=640 and folder=\"holiday\"'.",
    )  # fmt: skip
    decorated: F = option(function)
    return decorated


def open_index(call: Call, folder: Path) -> Index:
    """An index that is there, without its model; the document names that model."""
    from sightline.tasks.index import Index

    index = Index.open(folder)
    call.model = index.model_name[0]
    return index


def with_model(call: Call, index: Index) -> Index:
    """The same index with its own model loaded, or the one that was asked for, if it fits."""
    index.use(load_model(call, TASK, index.model_name))
    return index


def found_json(found: Found) -> dict[str, Any]:
    """A hit as JSON."""
    return {"id": found.id, "score": found.score, **found.fields, "path": found.path}
