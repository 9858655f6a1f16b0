"""The options that every command takes, and the frame around a command that reports its errors."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click

from sightline.cli.logs import logging_to_stderr
from sightline.cli.output import FAILED, WRONG_USAGE, Call, error_code
from sightline.cli.program import INTERRUPTED
from sightline.core.devices import DTYPES
from sightline.core.errors import ConfigError, InputError, SightlineError

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

_SHARED = ("json", "quiet", "debug", "model_name", "adapter", "device", "dtype", "quantize")


def shared_options(
    model: bool = True, adapter: bool = True
) -> Callable[[Callable[..., int | None]], Callable[..., Any]]:
    """Options of every command; the function gets a `Call` first and returns an exit code.

    Args:
        model: whether the command runs a model. Where not, the model's options are still taken,
            so that a script may pass the same to every command, but change nothing.
        adapter: whether an adapter can be put on that model, and its bits be made fewer; where not,
            asking for it is wrong usage.
    """

    def decorate(function: Callable[..., int | None]) -> Callable[..., Any]:
        framed = _framed(function)
        for option in reversed(_options(model, adapter)):
            framed = option(framed)
        return framed

    return decorate


def batch_option(function: F) -> F:
    """--batch: pictures through the network at once."""
    option: Decorator[F] = click.option(
        "--batch", type=click.IntRange(min=1), default=32, show_default=True, metavar="N",
        help="Pictures through the network at once.",
    )  # fmt: skip
    return option(function)


def template_options(function: F) -> F:
    """--template and --templates: the sentences that a label is put into."""
    one: Decorator[F] = click.option(
        "--template", "template", multiple=True, metavar="TEXT",
        help="Sentence with {} for the label; several are averaged. Default: the model's own.",
    )  # fmt: skip
    file: Decorator[F] = click.option(
        "--templates", "templates", metavar="@FILE", help="The same from a file, one a line."
    )
    return one(file(function))


def _options(model: bool, adapter: bool) -> list[Decorator[Any]]:
    hidden = not model
    worn = click.option("--adapter", metavar="NAME", hidden=hidden,
                        help="Folder or hub id of a LoRA adapter to put on the model.")  # fmt: skip
    narrow = click.option("--quantize", metavar="KIND", hidden=hidden,
                          help="int8: the image tower in 8 bits, quicker on a CPU.")  # fmt: skip
    return [
        click.option("--model", "model_name", metavar="NAME", hidden=hidden,
                     help="Hub id, known name, bundled name or folder."),
        *([worn] if adapter else []),
        click.option("--device", default="auto", show_default=True, hidden=hidden,
                     help="auto, cpu, cuda, cuda:1, mps."),
        click.option("--dtype", default="auto", show_default=True, hidden=hidden,
                     help=f"Number type of the linear layers: {', '.join(DTYPES)}."),
        *([narrow] if adapter else []),
        click.option("--json", is_flag=True, help="One JSON document on standard output."),
        click.option("-q", "--quiet", is_flag=True, help="No progress and no notes."),
        click.option("--debug", is_flag=True, help="Show tracebacks and the log."),
    ]  # fmt: skip


def _framed(function: Callable[..., int | None]) -> Callable[..., int]:
    """The command with its `Call`, its log, and its errors as one or two lines."""

    @functools.wraps(function)
    def framed(**options: Any) -> int:
        context = click.get_current_context()
        name = context.command_path.removeprefix("sightline ")
        call = Call(name, **{key: options.pop(key) for key in _SHARED if key in options})
        with logging_to_stderr(call.quiet, call.debug):
            try:
                return function(call, **options) or 0
            except click.UsageError as error:
                error.ctx = error.ctx or context
                raise
            except (click.exceptions.Exit, BrokenPipeError, SystemExit):
                raise
            except KeyboardInterrupt:
                call.warn("stopped")
                return INTERRUPTED
            except Exception as error:
                return _reported(call, error)

    return framed


def _reported(call: Call, error: Exception) -> int:
    """Say what went wrong; the exit code."""
    if call.debug:
        traceback.print_exception(error)
    else:
        call.warn(_sentence(error))
    # Settings and words come from the command line; everything else from files and models.
    if isinstance(error, ConfigError) or type(error) is InputError:
        return WRONG_USAGE
    call.document({"error": {"code": error_code(error), "message": str(error)}})
    return FAILED


def _sentence(error: Exception) -> str:
    if isinstance(error, SightlineError):
        return str(error)
    first = str(error).split("\n", 1)[0]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory: use a smaller --batch or a smaller model"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    return (
        f"this should not have happened ({type(error).__name__}: {first}): run it again with "
        "--debug and report what it shows"
    )
