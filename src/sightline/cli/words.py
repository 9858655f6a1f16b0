"""Lists of words from the command line: `a,b,c`, or one a line from `@file.txt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


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


def sentences(option: str, given: Sequence[str], file: str | None) -> list[str]:
    """Sentences given one by one, and those of a file (`@FILE`; a sentence stands for itself)."""
    if file is None:
        return list(given)
    return [*given, *(lines_of(option, file) if file.startswith("@") else [file])]


def lines_of(option: str, text: str) -> list[str]:
    """The lines of `@FILE`; empty ones and those that begin with # are left out."""
    name = text.removeprefix("@")
    try:
        content = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise click.BadParameter(f"{name!r} cannot be read: {reason}", param_hint=option) from None
    lines = [line.strip() for line in content.splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    if not kept:
        raise click.BadParameter(f"{name!r} holds no line of text", param_hint=option)
    return kept
