"""The program: finds a command in the table, runs it, and turns wrong usage into two lines."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from sightline.cli.table import COMMANDS, GROUPS, SECTIONS
from sightline.core.errors import nearest
from sightline.core.version import __version__

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
INTERRUPTED = 130


class TableGroup(click.Group):
    """The commands of the table whose full name begins with `prefix`; imported one at a time."""

    def __init__(self, prefix: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of one word below the prefix, in the table's order."""
        below = [name[len(self.prefix) :] for name in COMMANDS if name.startswith(self.prefix)]
        return list(dict.fromkeys(name.split()[0] for name in below))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or make the group of that name."""
        name = self.prefix + cmd_name
        if name in COMMANDS:
            return load_command(name)
        if name in GROUPS:
            summary = GROUPS[name]
            return TableGroup(
                f"{name} ", name=cmd_name, help=summary, context_settings=SETTINGS,
                no_args_is_help=False,
            )  # fmt: skip
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or an error that names the nearest ones."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            close = nearest(args[0], known)
            words = " or ".join(repr(name) for name in close)
            hint = f"did you mean {words}?" if close else f"there are {', '.join(known)}"
            raise click.UsageError(f"no command {self.prefix + args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Sections from the table; nothing is imported."""
        for section in SECTIONS:
            rows = [
                (name[len(self.prefix) :], entry.summary)
                for name, entry in COMMANDS.items()
                if entry.section == section and name.startswith(self.prefix)
            ]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)


class Program(TableGroup):
    """The root: exits with one of our codes, whatever happens."""

    def main(
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run with these arguments (by default those of the process) and exit."""
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            code = super().main(arguments, "sightline", complete_var, False, **extra)
        except click.ClickException as error:
            code = _wrong_usage(error)
        except click.Abort:
            click.echo("sightline: stopped", err=True)
            code = INTERRUPTED
        if not standalone_mode:
            return code
        sys.exit(code or 0)


def load_command(name: str) -> click.Command:
    """Import the command of that full name."""
    module, _, function = COMMANDS[name].target.partition(":")
    command: click.Command = getattr(importlib.import_module(f"sightline.cli.{module}"), function)
    return command


def _wrong_usage(error: click.ClickException) -> int:
    click.echo(f"sightline: {error.format_message()}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"try '{error.ctx.command_path} --help'", err=True)
    return error.exit_code


@click.group(cls=Program, name="sightline", context_settings=SETTINGS)
@click.version_option(__version__, prog_name="sightline", message="%(prog)s %(version)s")
def program() -> None:
    """Vision-language models of every family: embed, classify, tag, search, ask, train, measure."""
