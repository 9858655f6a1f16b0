"""How far long work is: a bar on a terminal, a line now and then elsewhere, nothing when short."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sightline.cli.output import Call

SHOWN_AFTER = 1.0
"""Seconds; shorter work shows nothing."""
BETWEEN_LINES = 10.0


class Meter:
    """Progress of one command; `update` takes (done, total), as the library's callbacks give it."""

    def __init__(self, call: Call, what: str = "pictures", beside_rows: bool = False) -> None:
        """
        Args:
            call: says whether to be quiet.
            what: what is counted, in the plural.
            beside_rows: the command prints a row for each item as it goes; on a terminal these
                are progress enough, and a bar would be torn apart.
        """
        self.what = what
        self.terminal = sys.stderr.isatty()
        torn = beside_rows and not call.json and sys.stdout.isatty()
        self.silent = call.quiet or torn
        self.started = self.last_line = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def update(self, done: int, total: int) -> None:
        """Show that so many are done."""
        seconds = time.monotonic() - self.started
        rate = done / max(seconds, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        self.show(done, total, f"{rate:,.1f} {self.what}/s, {duration(left)} left")

    def show(self, done: int, total: int, text: str) -> None:
        """Show a line of text behind the count."""
        now = time.monotonic()
        if self.silent or now - self.started < SHOWN_AFTER:
            return
        if self.terminal:
            self._draw(done, total, text)
        elif now - self.last_line >= BETWEEN_LINES:
            self.last_line = now
            click.echo(f"sightline: {done:,} of {total:,}, {text}", err=True)

    def _draw(self, done: int, total: int, text: str) -> None:
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task("", total=total)
        self.bar.update(self.task, completed=done, total=total, description=text)


class TrainingMeter(Meter):
    """The same for a run: step, loss, pictures a second, time left."""

    def prepare(self, done: int, total: int, what: str) -> None:
        """How far the work before the first step is."""
        rate = done / max(time.monotonic() - self.started, 1e-9)
        left = duration((total - done) / max(rate, 1e-9))
        self.show(done, total, f"{what}, {rate:,.1f} pictures/s, {left} left")

    def update(  # type: ignore[override]  # the training loop's Progress, not a count
        self,
        step: int,
        total: int,
        loss: float,
        pictures_per_second: float,
        seconds_left: float,
    ) -> None:
        rate = f"{pictures_per_second:,.1f} pictures/s"
        self.show(step, total, f"loss {loss:.4f}, {rate}, {duration(seconds_left)} left")


def duration(seconds: float) -> str:
    """Seconds for a person: "42 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(min(seconds, 1e9))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
