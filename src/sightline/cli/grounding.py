"""`sightline eval grounding --data PATH`: the box for an expression."""

from __future__ import annotations

from pathlib import Path

import click

from sightline.cli.evaluate import blind_table, data_options, finished, open_data
from sightline.cli.loading import load_model
from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter


@click.command()
@data_options
@shared_options()
def grounding(
    call: Call,
    data: str,
    format_: str | None,
    split: str | None,
    images: str | None,
    limit: int | None,
    out: Path | None,
) -> int:
    """Measure whether the box given for an expression fits the thing it means.

    Read are RefCOCO and other data with named boxes; a name that several boxes of a record share is
    left out. An answer without a box is wrong. Beside it stands what the model reaches before a
    grey picture.
    """
    dataset = open_data(data, format_, split, images)
    model = load_model(call, "eval")
    from sightline.evaluation.grounding import grounding as measure

    with Meter(call) as meter:
        result = measure(model, dataset, limit, meter.update)
    blind_table(call, result)
    return finished(call, result, out)
