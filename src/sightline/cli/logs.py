"""The library's log on standard error, for the time of one command."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from sightline.cli.output import printable

TOLD = (
    "sightline.hub.download",
    "sightline.training.loop",
    "sightline.recipes.image_vectors",
)
"""Loggers whose plain remarks a person wants to read: a download begins, a run goes on."""


class _Lines(logging.Handler):
    """One line a record; a warning says that it is one."""

    def __init__(self, debug: bool) -> None:
        super().__init__()
        self.debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.levelname.lower() + ": " if record.levelno >= logging.WARNING else ""
        where = f"[{record.name}] " if self.debug else ""
        # click.echo: standard error as it is now, which tests and programs may have replaced.
        click.echo(f"sightline: {where}{kind}{printable(record.getMessage())}", err=True)


@contextmanager
def logging_to_stderr(quiet: bool, debug: bool) -> Iterator[None]:
    """Warnings and a few remarks; with `debug` everything, with `quiet` errors alone."""
    root = logging.getLogger("sightline")
    names = ["sightline", *TOLD]
    before = {name: logging.getLogger(name).level for name in names}
    handler = _Lines(debug)
    root.addHandler(handler)
    for name in names:
        usual = logging.INFO if name in TOLD else logging.WARNING
        level = logging.DEBUG if debug else logging.ERROR if quiet else usual
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
