"""Lists of words from the command line: `a,b,c`, or one a line from `@file.txt`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.core.errors import InputError

if TYPE_CHECKING:
    from sightline.metrics.chair import ObjectList

PARK = "park"
"""Names what is drawn, where no file is called so."""


def word_list(option: str, text: str) -> list[str]:
    """`a,b` split at the commas, or the lines of `@FILE`.

    Raises:
        click.BadParameter: a file that cannot be read, or no word.
    """
    if text.startswith("@"):
        return lines_of(option, text)
    words = [word.strip() for word in text.split(",")]
    words = [word for word in words if word]
    if not words:
        raise click.BadParameter(f"no word in {text!r}: write a,b,c or @FILE", param_hint=option)
    return words


def label_words(option: str, text: str) -> list[str] | dict[str, list[str]]:
    """What `word_list` takes, or `@FILE.json`: the labels of the data with a name or several each.

    Raises:
        click.BadParameter: a file that cannot be read, or that holds something else.
    """
    if not (text.startswith("@") and text.lower().endswith(".json")):
        return word_list(option, text)
    name = text.removeprefix("@")
    try:
        document = json.loads(_content(option, name))
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{name!r} is no JSON: {error}", param_hint=option) from None
    if isinstance(document, list) and document and all(isinstance(w, str) for w in document):
        return document
    if not isinstance(document, Mapping) or not document:
        raise click.BadParameter(
            f"{name!r} must be a list of names, or an object of data labels with their names such "
            'as {"n02123045": ["tabby", "tabby cat"]}', param_hint=option,
        )  # fmt: skip
    return {label: _names(option, name, label, found) for label, found in document.items()}


def label_map(option: str, text: str) -> dict[str, str]:
    """`@FILE.json`: each label of the data with one name.

    Raises:
        click.BadParameter: a file that cannot be read, or that holds something else.
    """
    names = label_words(option, text)
    if isinstance(names, list) or any(len(own) != 1 for own in names.values()):
        raise click.BadParameter(
            f"{text!r} must be a .json file of data labels with one name each, such as "
            '{"n02123045": "tabby"}', param_hint=option,
        )  # fmt: skip
    return {label: own[0] for label, own in names.items()}


def templates_of(given: Sequence[str], source: str | None) -> list[str]:
    """Sentences given one by one, and those of `--templates`: a file, an ensemble, or a sentence.

    Raises:
        ConfigError: neither a file nor an ensemble, or a line of it without exactly one {}.
    """
    from sightline.inputs.prompts import SLOT, read_templates

    if source is None:
        return list(given)
    return [*given, *([source] if SLOT in source else read_templates(source.removeprefix("@")))]


def sentences(option: str, given: Sequence[str], file: str | None) -> list[str]:
    """Sentences given one by one, and those of a file (`@FILE`; a sentence stands for itself)."""
    if file is None:
        return list(given)
    return [*given, *(lines_of(option, file) if file.startswith("@") else [file])]


def lines_of(option: str, text: str) -> list[str]:
    """The lines of `@FILE`; empty ones and those that begin with # are left out."""
    name = text.removeprefix("@")
    lines = [line.strip() for line in _content(option, name).splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    if not kept:
        raise click.BadParameter(f"{name!r} holds no line of text", param_hint=option)
    return kept


def object_list(option: str, text: str) -> ObjectList:
    """Which words name a thing, from a file; `park` for those of drawn parks.

    Raises:
        click.BadParameter: a file that cannot be read, or that holds something else.
    """
    from sightline.metrics.chair import park_objects, read_object_list

    if text == PARK and not Path(text).exists():
        return park_objects()
    try:
        return read_object_list(_content(option, text))
    except InputError as error:
        raise click.BadParameter(f"{text}: {error}", param_hint=option) from None


def _content(option: str, name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise click.BadParameter(f"{name!r} cannot be read: {reason}", param_hint=option) from None


def _names(option: str, file: str, label: str, found: Any) -> list[str]:
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise click.BadParameter(
            f"{file!r}: the label {label!r} has {json.dumps(found)[:60]}, not a name or a list of "
            "names", param_hint=option,
        )  # fmt: skip
    return names
