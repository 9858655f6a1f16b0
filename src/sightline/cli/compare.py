"""`sightline compare RUN_A RUN_B`: whether two evaluations differ by more than chance.

`sightline compare --table NAME --out DIR`: systems side by side at equal budget.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter


@click.command()
@click.argument("first", metavar="RUN_A", type=click.Path(), required=False)
@click.argument("second", metavar="RUN_B", type=click.Path(), required=False)
@click.option("--table", metavar="NAME", help="Train and score every system of a table instead.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Where the runs of a table are kept; a rerun goes on.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
              help="Runs of each system.")  # fmt: skip
@click.option("--only", multiple=True, metavar="SYSTEM", help="One row; several times for more.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N",
              help="Instead of each system's own, for a quick look.")  # fmt: skip
@shared_options(model=False)
def compare(
    call: Call,
    first: str | None,
    second: str | None,
    table: str | None,
    out: Path | None,
    seeds: int,
    only: tuple[str, ...],
    steps: int | None,
) -> int:
    """Compare two folders that `eval --out` wrote, sample by sample, or train a table of systems.

    The difference is A minus B, with its 95 % interval and the p-value of a paired test. With
    --table dual-encoders every system learns from the same drawn parks at equal budget, a few
    minutes each, and one table tells their scores over several seeds.
    """
    if table is not None:
        if first is not None or out is None:
            raise click.UsageError("--table takes --out DIR and no runs to compare")
        return _table(call, table, out, seeds, only, steps)
    if first is None or second is None:
        raise click.UsageError("give two folders that 'eval --out' wrote, or --table NAME")
    return _pair(call, first, second)


def _table(
    call: Call, table: str, out: Path, seeds: int, only: tuple[str, ...], steps: int | None
) -> int:
    from sightline.recipes.comparison import TABLES, as_markdown, compare_systems

    with Meter(call, "runs") as meter:
        finished = compare_systems(table, out, seeds, steps, only, meter.update)
    call.line(as_markdown(finished, TABLES[table]).rstrip())
    call.document({"table": table, "runs": [asdict(run) for run in finished], "out": str(out)})
    return 0


def _pair(call: Call, first: str, second: str) -> int:
    from sightline.evaluation.compare import compare as paired
    from sightline.evaluation.results import read_result

    results = [read_result(folder) for folder in (first, second)]
    tests = paired(results[0], results[1])
    names = [results[0].model or first, results[1].model or second]
    call.note(f"A: {names[0]} ({results[0].value:.4f}); B: {names[1]} ({results[1].value:.4f})")
    headers = ("what", "A - B", "95 % interval", "p")
    call.table(
        headers,
        [
            (kind, f"{t.difference:+.4f}", f"{t.low:+.4f} to {t.high:+.4f}", f"{t.p_value:.4f}")
            for kind, t in tests.items()
        ],
    )
    call.document(
        {
            "models": names,
            "values": [result.value for result in results],
            "tests": {kind: test._asdict() for kind, test in tests.items()},
        }
    )
    return 0
