"""`sightline eval compositionality --data PATH`: true captions against nearly true ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.evaluate import finished, result_options
from sightline.cli.loading import load_model
from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.data.contrasts import ContrastSet
    from sightline.evaluation.results import Result

PARK = "park"
SCORES = ("auto", "cosine", "match", "logprob", "logprob-blank")
"""A test compares these with `evaluation.caption_scores`, which imports torch."""


@click.command()
@click.option("--data", required=True, metavar="PATH|park",
              help="File or folder of contrasts; park draws them.")  # fmt: skip
@click.option("--images", metavar="DIR", help="The folder that paths are relative to.")
@click.option("--split", type=click.Choice(["train", "test", "pairs"]), default="test",
              show_default=True, help="Of the park.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), default=200, show_default=True, metavar="N",
              help="Contrasts of each kind in the park.")  # fmt: skip
@click.option("--score", type=click.Choice(SCORES), default="auto", show_default=True,
              help="What captions are scored by; auto is the first the model has.")  # fmt: skip
@click.option("--prompt", default="", metavar="TEXT", help="What a likelihood comes after.")
@result_options
@batch_option
@shared_options()
def compositionality(
    call: Call,
    data: str,
    images: str | None,
    split: str,
    count: int,
    score: str,
    prompt: str,
    limit: int | None,
    out: Path | None,
    batch: int,
) -> int:
    """Measure whether a model reads sentences or only their words.

    Read are Winoground, SugarCrepe, ARO, VL-CheckList and captions in another order. A tie is
    wrong. Beside each subset stands what is reached without a picture: by a small language model
    of the captions, and by the model before a grey picture.
    """
    contrasts = _contrasts(data, images, split, count)
    model = load_model(call, "eval")
    from sightline.evaluation.compositionality import compositionality as measure

    with Meter(call) as meter:
        result = measure(
            model, contrasts, None if score == "auto" else score, prompt, limit, batch, meter.update
        )
    call.table(*_subsets(result))
    if contrasts.dropped:
        call.note(f"{contrasts.dropped} false caption(s) equal to the true one were left out")
    return finished(call, result, out)


def _contrasts(data: str, images: str | None, split: str, count: int) -> ContrastSet:
    """A folder or file named `park` goes before the drawn park."""
    if data == PARK and not Path(data).exists():
        from sightline.data.park.contrasts import twins

        return twins(count, split)
    from sightline.data.contrast_files import open_contrasts

    return open_contrasts(data, images)


def _subsets(result: Result) -> tuple[list[str], list[list[str]]]:
    """A row a subset: the model, those that cannot see, the number of contrasts."""
    shown = [kind for kind in result.groups if kind.startswith("subset")]
    headers = ["subset", "right", *(kind.removeprefix("subset ") for kind in shown[1:]), "n"]
    rows = [
        [name, *(f"{result.groups[kind][name].value:.4f}" for kind in shown), str(metric.n)]
        for name, metric in result.groups["subset"].items()
    ]
    return headers, rows
