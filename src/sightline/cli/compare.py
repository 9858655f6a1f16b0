"""`sightline compare RUN_A RUN_B ...`: whether evaluations differ by more than chance.

`sightline compare --table NAME --out DIR`: systems side by side at equal budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.evaluation.compare import Row
    from sightline.evaluation.results import Result
    from sightline.metrics.intervals import PairedTest


@click.command()
@click.argument("runs", metavar="RUN_A RUN_B...", nargs=-1, type=click.Path())
@click.option("--markdown", is_flag=True, help="The table as Markdown, for a report.")
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
    runs: tuple[str, ...],
    markdown: bool,
    table: str | None,
    out: Path | None,
    seeds: int,
    only: tuple[str, ...],
    steps: int | None,
) -> int:
    """Compare folders that `eval --out` wrote, sample by sample, or train a table of systems.

    One row a metric: the value of each run, A minus the other, the 95 % interval of the
    difference, and two p-values. The first is exact where every sample is right or wrong
    (McNemar), else of sign flips; the second is of the bootstrap. Only samples on which the two
    runs differ say anything; their numbers stand in the last column. Runs of other data or
    settings are refused. With --table every system learns from the same drawn parks at equal
    budget, and one table tells their scores over several seeds: dual-encoders has two towers each,
    a few minutes a run; prefix-lm asks whether a writing model should read its prompt in both
    directions, some ten minutes a run.
    """
    if table is not None:
        if runs or out is None:
            raise click.UsageError("--table takes --out DIR and no runs to compare")
        return _table(call, table, out, seeds, only, steps)
    if len(runs) < 2:
        raise click.UsageError("give two or more folders that 'eval --out' wrote, or --table NAME")
    return _compared(call, runs, markdown)


def _table(
    call: Call, table: str, out: Path, seeds: int, only: tuple[str, ...], steps: int | None
) -> int:
    from sightline.recipes.comparison import as_markdown, compare_systems
    from sightline.recipes.comparison_tables import TABLES

    with Meter(call, "runs") as meter:
        finished = compare_systems(table, out, seeds, steps, only, meter.update)
    call.line(as_markdown(finished, TABLES[table]).rstrip())
    call.document({"table": table, "runs": [asdict(run) for run in finished], "out": str(out)})
    return 0


def _compared(call: Call, runs: Sequence[str], markdown: bool) -> int:
    from sightline.evaluation.compare import compare_metrics
    from sightline.evaluation.results import read_result

    results = [read_result(folder) for folder in runs]
    rows = compare_metrics(results)
    names = _names(runs, results)
    headers = ("metric", *names, "difference", "95 % interval", "p", "p bootstrap", "better:worse")
    cells = [line for row in rows for line in _lines(row)]
    if markdown:
        for line in (headers, ["---"] * len(headers), *cells):
            call.line(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |")
    else:
        call.table(headers, cells)
    if len(runs) > 2:
        call.note(f"each difference is {names[0]} minus another; the p-values are of one test each")
    call.document({
        "models": names,
        "runs": list(runs),
        "signature": results[0].signature,
        "values": [result.value for result in results],
        "metrics": {
            row.metric: {
                "values": row.values,
                "tests": [None if test is None else test._asdict() for test in row.tests],
            }
            for row in rows
        },
    })  # fmt: skip
    return 0


def _names(runs: Sequence[str], results: Sequence[Result]) -> list[str]:
    """The models; the folders where two have the same."""
    names = [result.model or run for run, result in zip(runs, results, strict=True)]
    return names if len(set(names)) == len(names) else list(runs)


def _lines(row: Row) -> Iterator[list[str]]:
    """One line for each run that the first is compared with; only the first has the values."""
    for place, test in enumerate(row.tests, start=1):
        values = [f"{value:.4f}" if value == value else "-" for value in row.values]
        shown = values if len(row.tests) == 1 else [
            value if number in (0, place) else "" for number, value in enumerate(values)
        ]  # fmt: skip
        yield [row.metric, *shown, *_test_cells(test)]


def _test_cells(test: PairedTest | None) -> list[str]:
    if test is None:
        return ["-"] * 5
    return [
        f"{test.difference:+.4f}",
        f"{test.low:+.4f} to {test.high:+.4f}",
        _p(test.p_value) + ("" if test.test == "McNemar exact" else " (sign flips)"),
        _p(test.p_bootstrap),
        f"{test.first_better}:{test.second_better}, {test.equal} equal",
    ]


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"
