"""`sightline eval grounding|detect|segment --data PATH`: places that a model finds, measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.measured import Measured, measured_options
from sightline.cli.output import Call

if TYPE_CHECKING:
    from sightline.cli.measured import Page
    from sightline.data.records import Dataset
    from sightline.evaluation.judged import Measuring
    from sightline.evaluation.place_page import Finder
    from sightline.evaluation.results import Result
    from sightline.tasks.model import Model
    from sightline.tasks.report import Report


def _drawn(finder: Callable[[Model, Result], Finder]) -> Page:
    """The page of what is found when the model is asked again for a few."""

    def page(model: Model, result: Result, dataset: Dataset, count: int) -> Report:
        from sightline.evaluation.place_page import place_page

        return place_page(result, dataset, finder(model, result), count)

    return page


@click.command()
@measured_options
def grounding(call: Call, measured: Measured) -> int:
    """Measure whether the box given for an expression fits the thing it means.

    Read are RefCOCO and other data with named boxes; a name that several boxes of a record share is
    left out. An answer without a box is wrong. Beside it stands what the model reaches before a
    grey picture. A run that was stopped goes on where it was, with the same --out.
    """
    from sightline.evaluation.grounding import grounding as measure

    def boxes(model: Model, dataset: Dataset, how: Measuring) -> Result:
        return measure(model, dataset, how.limit, how.progress, blind=how.blind, folder=how.folder)

    return measured.run(
        call, "detect", boxes,
        _drawn(lambda model, result: (
            lambda pixels, sample: model.detect(pixels, [sample.prompt or ""])[:1]
        )),
    )  # fmt: skip


@click.command()
@click.option(
    "--queries", type=click.Choice(["together", "single"]), default="together", show_default=True,
    help="Ask for all labels at once, or for one after the other.",
)  # fmt: skip
@measured_options
def detect(call: Call, measured: Measured, queries: Any) -> int:
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

    return measured.run(call, "detect", functools.partial(measure, queries=queries), _drawn(finder))


@click.command()
@measured_options
def segment(call: Call, measured: Measured) -> int:
    """Measure the masks given for the labels of each picture: mIoU, oIoU and P@.

    Read are COCO and other data with outlines. All masks of a label count as one; an answer without
    a mask is wrong. Beside it stands what the model reaches before a grey picture. A run that was
    stopped goes on where it was, with the same --out.
    """
    from sightline.evaluation.segment import segment as measure

    return measured.run(
        call, "segment", measure,
        _drawn(lambda model, result: (
            lambda pixels, sample: model.segment(pixels, [sample.prompt or ""])
        )),
    )  # fmt: skip
