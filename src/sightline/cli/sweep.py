"""`sightline sweep RECIPE --data PATH --out DIR --grid KEY=A,B`: which settings fit the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter
from sightline.cli.settings import chosen_settings

if TYPE_CHECKING:
    from sightline.recipes.sweep import Sweep


@click.command()
@click.argument("recipe")
@click.option("--data", metavar="PATH", help="Folder or list of pictures; park: drawn parks.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              required=True, help="Where the runs are kept; a rerun goes on.")  # fmt: skip
@click.option("--grid", multiple=True, metavar="KEY=A,B", required=True,
              help="A setting and its values; several times for every combination.")  # fmt: skip
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE",
              help="Change a setting of all runs; several times.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Runs of each combination.")  # fmt: skip
@shared_options(adapter=False)
def sweep(
    call: Call,
    recipe: str,
    data: str | None,
    out: Path,
    grid: tuple[str, ...],
    assignments: tuple[str, ...],
    seeds: int,
) -> int:
    """Train a recipe with every combination of some settings, and compare what is held out.

    'sightline train RECIPE --show' lists the settings; lr, epochs and image_size are those that
    matter most for a model with weights. Each combination is a run of its own folder, with
    everything that 'train' writes. Finished runs are not made again, an interrupted one goes on,
    and one that fails is named and stops no other. One table, best first, in the order of the score
    on validation data; the test score stands beside it and decides nothing. DIR holds table.json,
    sweep.png and report.html.
    """
    from sightline.recipes.sweep import TABLE, parse_grid
    from sightline.recipes.sweep import sweep as make

    settings = chosen_settings(call, recipe, data, assignments)
    with Meter(call, "runs") as meter:
        found = make(recipe, settings, parse_grid(grid), out, seeds, meter.update)
    for name, error in found.failed.items():
        call.fail(name, error)
    _report(call, found, out)
    call.document({**found.to_json(), "out": str(out), "table": str(out / TABLE)})
    return call.exit_code(len(found.rows))


def _report(call: Call, found: Sweep, out: Path) -> None:
    from sightline.recipes.sweep_report import PAGE, cells_of, columns_of

    if found.rows:
        call.model = str(out / found.rows[0].best.model)
        call.table(columns_of(found), cells_of(found))
        call.line(f"model: {call.model}")
    call.line(f"report: {out / PAGE}")
