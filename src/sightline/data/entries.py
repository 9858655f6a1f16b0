"""Values of JSON documents that strangers wrote, each of the type it has to be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.lines import place, read_document


def lists_of(path: Path, *names: str) -> list[list[Any]]:
    """The lists under these names in a file that is one JSON object.

    Raises:
        DataError: not an object, or a list is not there.
    """
    document = read_document(path)
    for name in names:
        if not isinstance(document, Mapping) or not isinstance(document.get(name), list):
            raise DataError(f"{place(path)}: an object with the list {name!r} is expected")
    return [document[name] for name in names]


def object_of(value: Any, where: str) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: a JSON object is expected, got {type(value).__name__}")
    return value


def key_of(entry: Any, name: str, where: str) -> str | int:
    """What names another entry: a number or text."""
    value = object_of(entry, where).get(name)
    if not isinstance(value, str | int):
        raise DataError(f"{where}: {name!r} must be a number or text, got {value!r:.40}")
    return value


def text_of(entry: Any, name: str, where: str, empty: bool = False) -> str:
    """A text, which is not empty unless it may be."""
    value = object_of(entry, where).get(name)
    if not isinstance(value, str) or not (value or empty):
        raise DataError(f"{where}: {name!r} must be text, got {value!r:.40}")
    return value
