"""`sightline eval grounding|detect|segment --data PATH`: places that a model finds, measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
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
    from sightline.evaluation.place_page import Finder
    from sightline.evaluation.results import Result
    from sightline.tasks.model import Model

    Measure = Callable[[Model, Dataset, Measuring], Result]


@dataclass(frozen=True)
class Looking:
    """What is measured, as the command line says it."""

    data: str
    format_: str | None
    split: str | None
    images: str | None
    limit: int | None
    out: Path | None
    no_blind: bool
    pictures: int | None

    def run(
        self, call: Call, task: str, measure: Measure, finder: Callable[[Model, Result], Finder]
    ) -> int:
        """Ask, score, print and write; the exit code.

        Args:
            task: what the model must be able to do.
            finder: how the model is asked again for what is drawn.
        """
        if self.pictures is not None and self.out is None:
            raise click.UsageError("--pictures writes a page: say where with --out DIR")
        dataset = open_data(self.data, self.format_, self.split, self.images)
        model = load_model(call, task)
        from sightline.evaluation.judged import Measuring

        with Meter(call) as meter:
            how = Measuring(self.limit, not self.no_blind, progress=meter.update, folder=self.out)
            result = measure(model, dataset, how)
        blind_table(call, result)
        code = finished(call, result, self.out)
        if self.pictures is not None and self.out is not None:
            from sightline.evaluation.place_page import place_page

            find = finder(model, result)
            place_page(result, dataset, find, self.pictures).write(self.out / PAGE)
            call.note(f"wrote {self.out / PAGE}")
        return code


def looking_options(function: Callable[..., int]) -> Callable[..., Any]:
    """Data, grey run, pictures and how to write; the function gets one `looking`."""

    @functools.wraps(function)
    def gathered(*arguments: Any, **given: Any) -> int:
        own = {name: given.pop(name) for name in Looking.__dataclass_fields__}
        return function(*arguments, looking=Looking(**own), **given)

    decorated: Callable[..., Any] = shared_options()(gathered)
    return data_options(picture_options(decorated))


@click.command()
@looking_options
def grounding(call: Call, looking: Looking) -> int:
    """Measure whether the box given for an expression fits the thing it means.

    Read are RefCOCO and other data with named boxes; a name that several boxes of a record share is
    left out. An answer without a box is wrong. Beside it stands what the model reaches before a
    grey picture. A run that was stopped goes on where it was, with the same --out.
    """
    from sightline.evaluation.grounding import grounding as measure

    def measured(model: Model, dataset: Dataset, how: Measuring) -> Result:
        return measure(model, dataset, how.limit, how.progress, blind=how.blind, folder=how.folder)

    return looking.run(
        call, "detect", measured,
        lambda model, result: (
            lambda pixels, sample: model.detect(pixels, [sample.prompt or ""])[:1]
        ),
    )  # fmt: skip


@click.command()
@click.option(
    "--queries", type=click.Choice(["together", "single"]), default="together", show_default=True,
    help="Ask for all labels at once, or for one after the other.",
)  # fmt: skip
@looking_options
def detect(call: Call, looking: Looking, queries: Any) -> int:
    """Measure the boxes of everything labelled: COCO's AP, and F1 at an overlap of 0.5.

    Read are COCO, VOC and other data with labelled boxes; the model is asked for all labels that
    occur. AP ranks by the score of each box. Beside it stands what the model reaches before a grey
    picture. A run that was stopped goes on where it was, with the same --out. Needs
    sightline[eval].
    """
    from sightline.evaluation.detect import asked_for
    from sightline.evaluation.detect import detect as measure

    def finder(model: Model, result: Result) -> Finder:
        asked = asked_for(result.settings["labels"], queries)
        return lambda pixels, sample: [
            each for words in asked for each in model.detect(pixels, words)
        ]

    return looking.run(call, "detect", functools.partial(measure, queries=queries), finder)


@click.command()
@looking_options
def segment(call: Call, looking: Looking) -> int:
    """Measure the masks given for the labels of each picture: mIoU, oIoU and P@.

    Read are COCO and other data with outlines. All masks of a label count as one; an answer without
    a mask is wrong. Beside it stands what the model reaches before a grey picture. A run that was
    stopped goes on where it was, with the same --out.
    """
    from sightline.evaluation.segment import segment as measure

    return looking.run(
        call, "segment", measure,
        lambda model, result: lambda pixels, sample: model.segment(pixels, [sample.prompt or ""]),
    )  # fmt: skip
