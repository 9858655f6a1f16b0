"""`sightline train RECIPE --data PATH --out RUN`: train, or go on with a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.options import shared_options
from sightline.cli.output import FAILED, Call
from sightline.cli.program import INTERRUPTED
from sightline.cli.progress import TrainingMeter
from sightline.cli.settings import chosen_settings

if TYPE_CHECKING:
    from sightline.recipes.run import Outcome

logger = logging.getLogger(__name__)


@click.command()
@click.argument("recipe", required=False)
@click.option("--data", metavar="PATH", help="Folder or list of pictures; park: drawn parks.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="RUN",
              help="Folder of the run; a rerun goes on where it stopped.")  # fmt: skip
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE",
              help="Change a setting; several times. init=NAME starts from weights.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), metavar="M",
              help="Stop after this time, with everything saved.")  # fmt: skip
@click.option("--processes", type=click.IntRange(min=1), metavar="N",
              help="Train in N processes of this machine, which share every batch.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="List the recipes.")
@click.option("--show", is_flag=True, help="Show every setting of the recipe.")
@shared_options(adapter=False)
def train(
    call: Call,
    recipe: str | None,
    data: str | None,
    out: Path | None,
    assignments: tuple[str, ...],
    minutes: float | None,
    processes: int | None,
    listing: bool,
    show: bool,
) -> int:
    """Train a model by a recipe and write checkpoints, curves, scores and a report.

    The run can be stopped at any time (Ctrl-C once, SIGTERM, --minutes) and goes on when the same
    command is given again. --model NAME is short for --set init=NAME. Exit code 130 after a
    signal, with everything saved. Under torchrun, or with --processes, several processes train
    together; the first one reports.
    """
    if listing:
        return _list(call)
    if recipe is None:
        raise click.UsageError("give a RECIPE; 'sightline train --list' names them")
    settings = chosen_settings(call, recipe, data, assignments)
    if show:
        return _show(call, recipe, settings)
    if out is None:
        raise click.UsageError("give --out RUN, the folder that the run is kept in")
    if processes is not None:
        return _launch(processes)
    return _run(call, recipe, settings, out, minutes)


def _launch(count: int) -> int:
    """The same command again, `count` times over, without --processes."""
    from sightline.training.launch import launch

    return launch([sys.executable, "-m", "sightline", *without_processes(sys.argv[1:])], count)


def without_processes(words: Sequence[str]) -> list[str]:
    """A command line without the option --processes and its value."""
    kept, rest = [], iter(words)
    for word in rest:
        if word == "--processes":
            next(rest, None)
        elif not word.startswith("--processes="):
            kept.append(word)
    return kept


def _run(call: Call, recipe: str, settings: Any, out: Path, minutes: float | None) -> int:
    from sightline.recipes.table import find_recipe
    from sightline.training.distributed import EndedByAnotherError, rank
    from sightline.training.processes import processes

    train_recipe = find_recipe(recipe).run()
    try:
        with processes(settings.device):
            if rank() != 0:
                logging.getLogger("sightline").setLevel(logging.ERROR)
                outcome = train_recipe(settings, out, minutes=minutes)
                return INTERRUPTED if outcome.summary.stopped == "signal" else 0
            with TrainingMeter(call) as meter:
                outcome = train_recipe(settings, out, minutes=minutes, progress=meter)
    except EndedByAnotherError as error:
        logger.debug("%s", error)  # the other process says it itself
        return FAILED
    _report(call, recipe, settings, outcome)
    if outcome.summary.stopped == "signal":
        call.warn(f"stopped by a signal at step {outcome.summary.steps}; everything is saved")
        return INTERRUPTED
    return 0


def _report(call: Call, recipe: str, settings: Any, outcome: Outcome) -> None:
    summary = outcome.summary
    call.model = str(outcome.model)
    rows = []
    for name in {**outcome.before, **outcome.after}:
        pair = (outcome.before.get(name), outcome.after.get(name))
        rows.append((name, *("-" if value is None else f"{value:.4f}" for value in pair)))
    call.table(("score", "before", "after"), rows)
    call.line(f"model: {outcome.model}")
    call.line(f"report: {outcome.report}")
    call.line(f"cost: {summary.cost} ({summary.stopped})")
    call.document(
        {
            "recipe": recipe,
            "settings": asdict(settings),
            "steps": summary.steps,
            "stopped": summary.stopped,
            "loss": summary.loss,
            "before": dict(outcome.before),
            "after": dict(outcome.after),
            "cost": {
                "flops": summary.flops,
                "hours": summary.hours,
                "pictures": summary.pictures,
                "peak_memory_bytes": summary.peak_memory_bytes,
            },
            "out": str(summary.out),
            "report": str(outcome.report),
        }
    )


def _list(call: Call) -> int:
    from sightline.recipes.table import RECIPES

    call.table(("recipe", "what"), [(name, entry.summary) for name, entry in RECIPES.items()])
    call.document({"recipes": {name: entry.summary for name, entry in RECIPES.items()}})
    return 0


def _show(call: Call, recipe: str, settings: Any) -> int:
    from sightline.cli.settings import describe_settings

    described = describe_settings(settings)
    rows = [(s.name, str(s.value), s.kind, s.meaning) for s in described]
    call.table(("setting", "value", "type", "meaning"), rows)
    call.document({"recipe": recipe, "settings": [s._asdict() for s in described]})
    return 0
