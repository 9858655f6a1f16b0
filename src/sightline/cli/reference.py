"""The page `docs/cli.md`, made from the commands themselves.

python -m sightline.cli.reference > docs/cli.md
"""

from __future__ import annotations

import inspect

import click

from sightline.cli.program import SETTINGS, load_command
from sightline.cli.table import COMMANDS, SECTIONS

_HEAD = """# The command line

Every command takes `--json` (one document on standard output and nothing else there; it always
has `model`), `--model`, `--device` and `--dtype`; where no model runs, these three change nothing.
A folder stands for its pictures. Progress and errors go to standard error.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with some items failed (each is named, and
listed under `failed` in the JSON), 130 stopped by Ctrl-C, or a training run by any signal.

Without `--model` a command takes `SIGHTLINE_MODEL`, then its public default. Only where the hub
cannot be reached, a bundled model of drawn parks answers, and says so: it is not for photographs.

This page is generated: `python -m sightline.cli.reference > docs/cli.md`.
"""


def render() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD]
    for section in SECTIONS:
        parts.append(f"## {section}\n")
        parts += [_command(n) for n, entry in COMMANDS.items() if entry.section == section]
    return "\n".join(parts)


def _command(name: str) -> str:
    command = load_command(name)
    context = click.Context(command, info_name=f"sightline {name}", **SETTINGS)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = [
        param.get_help_record(context)
        for param in command.get_params(context)
        if isinstance(param, click.Option)
    ]
    options = "\n".join(f"| `{_cell(row[0])}` | {_cell(row[1])} |" for row in rows if row)
    text = inspect.cleandoc(command.help or "")
    about = "\n\n".join(_paragraph(part) for part in text.split("\n\n"))
    return (
        f"### sightline {name}\n\n{COMMANDS[name].summary}.\n\n    {usage}\n\n{about}\n\n"
        f"| option | meaning |\n|---|---|\n{options}\n"
    )


def _paragraph(text: str) -> str:
    """A paragraph, or the lines that Click was told to leave alone, as code."""
    if text.startswith("\b"):
        return "\n".join(f"    {line}" for line in text.splitlines()[1:])
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    click.echo(render(), nl=False)
