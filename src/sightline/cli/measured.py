"""What the commands share that measure a model beside itself without the pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.evaluate import (
    PAGE,
    blind_table,
    data_options,
    finished,
    open_data,
    picture_options,
)
from sightline.cli.loading import load_model
from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.data.records import Dataset
    from sightline.evaluation.judged import Measuring
    from sightline.evaluation.results import Result
    from sightline.tasks.model import Model
    from sightline.tasks.report import Report

    Measure = Callable[[Model, Dataset, Measuring], Result]
    Page = Callable[[Model, Result, Dataset, int], Report]


@dataclass(frozen=True)
class Measured:
    """What is measured, as the command line says it."""

    data: str
    format_: str | None
    split: str | None
    images: str | None
    limit: int | None
    out: Path | None
    no_blind: bool
    pictures: int | None
    batch: int = 8
    options: dict[str, Any] = field(default_factory=dict)

    def run(
        self,
        call: Call,
        task: str,
        measure: Measure,
        page: Page,
        warnings: Callable[[Result], Iterator[str]] = lambda result: iter(()),
    ) -> int:
        """Ask, score, print and write; the exit code.

        Args:
            task: what the model must be able to do.
            page: draws so many of the worst and of the best.
            warnings: what is told about a result beside its numbers.
        """
        if self.pictures is not None and self.out is None:
            raise click.UsageError("--pictures writes a page: say where with --out DIR")
        dataset = open_data(self.data, self.format_, self.split, self.images)
        model = load_model(call, task)
        from sightline.evaluation.judged import Measuring

        with Meter(call, "records") as meter:
            how = Measuring(self.limit, not self.no_blind, self.batch, self.options, meter.update,
                            self.out)  # fmt: skip
            result = measure(model, dataset, how)
        for warning in warnings(result):
            call.warn(warning)
        blind_table(call, result)
        code = finished(call, result, self.out)
        if self.pictures is not None and self.out is not None:
            page(model, result, dataset, self.pictures).write(self.out / PAGE)
            call.note(f"wrote {self.out / PAGE}")
        return code


def measured_options(
    function: Callable[..., int], more: Callable[..., Any] = lambda function: function
) -> Callable[..., Any]:
    """Data, blind run, pictures and how to write; the function gets one `measured`.

    Args:
        more: adds options that stand in front of those that all commands share.
    """

    @functools.wraps(function)
    def gathered(*arguments: Any, **given: Any) -> int:
        own = {f.name: given.pop(f.name) for f in fields(Measured) if f.name in given}
        return function(*arguments, measured=Measured(**own), **given)

    decorated: Callable[..., Any] = more(shared_options()(gathered))
    return data_options(picture_options(decorated))
