"""What a command writes: rows for people, one JSON document for programs, errors, exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sightline.tasks.model import Model

DONE, FAILED, WRONG_USAGE, SOME_FAILED = 0, 1, 2, 3


@dataclass
class Call:
    """One call of a command: its shared options, and what it has to report."""

    command: str
    json: bool = False
    quiet: bool = False
    debug: bool = False
    model_name: str | None = None
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    model: str | None = None
    """Name of the model that answered."""
    domain: str | None = None
    """What that model knows, where it is little."""
    precision: dict[str, str | None] = field(default_factory=dict)
    """The number type of that model's products, and how its weights are stored in fewer bits."""
    failed: list[dict[str, str]] = field(default_factory=list)

    @property
    def drawn(self) -> bool:
        """Whether rows go to a person's terminal, and not to a program or a file."""
        return not self.json and sys.stdout.isatty()

    def answered_by(self, model: Model) -> None:
        """Remember the model for the document, and what it computed in for results."""
        self.model, self.domain = str(model.name), model.domain
        kind = str(model.dtype).removeprefix("torch.")
        self.precision = {"dtype": kind, "quantize": model.quantize}

    def note(self, text: str) -> None:
        """A line on standard error, unless asked to be quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        click.echo(f"sightline: {printable(text)}", err=True)

    def line(self, text: str = "") -> None:
        """A line on standard output, where no JSON is written."""
        if not self.json:
            click.echo(printable(text))

    def pieces(self, pieces: Iterable[str]) -> str:
        """Text on standard output as it comes, and a line end; the whole of it."""
        said = []
        for piece in pieces:
            said.append(piece)
            click.echo(printable(piece), nl=False)
        click.echo()
        return "".join(said)

    def fail(self, file: str | os.PathLike[str], error: Exception) -> None:
        """Name one item that gave no answer, and go on."""
        name = os.fspath(file)
        self.failed.append({"file": name, "error": str(error), "code": error_code(error)})
        text = str(error)
        self.warn(text if text.startswith(name[:40]) else f"{name}: {text}")

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns: drawn for a terminal, separated by tabs for everything else."""
        if self.json:
            return
        cells = [[" ".join(printable(cell).split("\n")) for cell in row] for row in rows]
        if not self.drawn:
            for row in [list(headers), *cells]:
                click.echo("\t".join(row))
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=box.SIMPLE_HEAD, show_edge=False)
        for place, header in enumerate(headers):
            drawn.add_column(header, no_wrap=place == 0)  # names stay whole
        for row in cells:
            drawn.add_row(*(Text(cell) for cell in row))  # Text: brackets are no markup
        Console().print(drawn)

    def document(self, fields: Mapping[str, Any]) -> None:
        """The one JSON document, where JSON is asked for."""
        if not self.json:
            return
        head: dict[str, Any] = {"command": self.command, "model": self.model}
        if self.domain is not None:
            head["domain"] = self.domain
        own = {name: value for name, value in fields.items() if name not in head}
        text = json.dumps(finite({**head, **own, "failed": self.failed}), indent=2, default=str)
        click.echo(text)

    def exit_code(self, answered: int) -> int:
        """0, 1 or 3 by what failed beside so many answers."""
        if not self.failed:
            return DONE
        return SOME_FAILED if answered else FAILED


def error_code(error: Exception) -> str:
    """The stable code of an error: its own, or made of its kind ("address_error")."""
    own = getattr(error, "code", None)
    if isinstance(own, str):
        return own
    kind = type(error).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).lstrip("_")


def printable(text: str) -> str:
    """The text without control characters, which could rewrite a terminal; line ends stay."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def one_line(name: str) -> str:
    """A name for a row: line ends and tabs in it would make two rows or columns of one."""
    return printable(name).replace("\n", "\N{REPLACEMENT CHARACTER}").replace("\t", " ")


def finite(value: Any) -> Any:
    """The same document with null for numbers that JSON cannot write."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
