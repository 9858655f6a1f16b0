"""`sightline rescore samples.jsonl --metric X`: kept answers by another metric."""

from __future__ import annotations

from pathlib import Path

import click

from sightline.cli.evaluate import blind_table, finished
from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.words import object_list


@click.command()
@click.argument("samples", metavar="SAMPLES.JSONL|DIR", type=click.Path(path_type=Path))
@click.option("--metric", required=True, metavar="NAME",
              help="Such as anls; a name that is none lists those that fit.")  # fmt: skip
@click.option("--objects", metavar="FILE|park",
              help="Which words name a thing, for chair_i and its kin.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write results.json and samples.jsonl there.")  # fmt: skip
@shared_options(model=False)
def rescore(call: Call, samples: Path, metric: str, objects: str | None, out: Path | None) -> int:
    """Score the answers that 'eval --out' kept by another metric, without the model.

    Metrics that the evaluation had are computed again beside it, and so is what the model wrote
    without pictures. A metric that does not fit these answers is refused.
    """
    from sightline.evaluation.rescore import read_answers
    from sightline.evaluation.rescore import rescore as again

    named = None if objects is None else object_list("--objects", objects)
    result = again(read_answers(samples), metric, objects=named)
    call.model = result.model
    blind_table(call, result)
    return finished(call, result, out)
