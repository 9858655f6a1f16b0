"""`sightline bench open-set`: what a new class costs a classifier and a dual encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.evaluation.results import Metric
    from sightline.recipes.open_set import Row


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              metavar="DIR", help="A new folder for data, runs and scores.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=900, show_default=True, metavar="N",
              help="Steps of the training on known classes.")  # fmt: skip
@click.option("--again", type=click.IntRange(min=1), default=300, show_default=True, metavar="N",
              help="Steps of the training with the new ones.")  # fmt: skip
@click.option("--pictures", type=click.IntRange(min=1), default=6000, show_default=True,
              metavar="N", help="Pictures of known classes to train on.")  # fmt: skip
@click.option("--test", type=click.IntRange(min=1), default=500, show_default=True, metavar="N",
              help="Pictures of known, and of new classes, for the scores.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of first weights and order.")  # fmt: skip
@shared_options()
def open_set(
    call: Call, out: Path, steps: int, again: int, pictures: int, test: int, seed: int
) -> int:
    """Compare a classifier with a dual encoder when classes are added that neither has seen.

    Eight short trainings on drawn parks: both kinds of model, on known classes and again with the
    new ones, for quite new words and for new combinations of known words. Accuracy is among all
    labels, known and new.
    """
    if call.device not in ("auto", "cpu"):
        raise click.BadParameter("this comparison runs on the CPU", param_hint="--device")
    if call.dtype != "auto" or call.model_name is not None:
        raise click.UsageError("the comparison trains its own models: leave these options out")
    from sightline.recipes.open_set import OpenSetSettings, as_json
    from sightline.recipes.open_set import open_set as carry_out

    settings = OpenSetSettings(steps, again, pictures, test, seed=seed)
    with Meter(call, "trainings") as meter:
        rows = carry_out(out, settings, progress=meter.update)
    headers = ("classes", "model", "trained on", "known", "new", "new, among the new alone",
               "pictures", "core minutes")  # fmt: skip
    call.table(headers, [_cells(row) for row in rows])
    call.document({"out": str(out), "rows": [as_json(row) for row in rows]})
    return 0


def _cells(row: Row) -> tuple[str, ...]:
    scores = (_text(row.known), _text(row.new), _text(row.among_new))
    seen = (f"{row.pictures:,}", f"{row.core_minutes:.1f}")
    return (row.case, row.model, row.trained_on, *scores, *seen)


def _text(score: Metric | None) -> str:
    if score is None or score.ci95 is None:
        return "-"
    return f"{score.value:.3f} ({score.ci95[0]:.3f} to {score.ci95[1]:.3f})"
