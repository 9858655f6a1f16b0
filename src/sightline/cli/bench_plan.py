"""`sightline bench plan`: predicted memory beside what processes really hold."""

from __future__ import annotations

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter


@click.command()
@click.option("--small", is_flag=True, help="Only the two cheapest cases.")
@shared_options(adapter=False)
def plan(call: Call, small: bool) -> int:
    """Measure how well 'sightline plan' predicts: each case in a process of its own, on the CPU.

    Memory is above the loaded libraries, which both sides leave out. The cases together take
    minutes and 4 GB.
    """
    if call.device not in ("auto", "cpu"):
        raise click.BadParameter("this benchmark runs on the CPU", param_hint="--device")
    if call.dtype != "auto" or call.model_name is not None:
        raise click.UsageError("the cases bring their models and number types: leave these out")
    from sightline.bench.plan import CASES, SMALL, bench_plan

    with Meter(call, "cases") as meter:
        result = bench_plan(SMALL if small else CASES, progress=meter.update)
    call.table(
        ("case", "predicted", "measured", "ratio"),
        [
            (
                row.case,
                f"{row.predicted / 1e6:.0f} MB",
                f"{row.measured / 1e6:.0f} MB",
                f"{row.ratio:.2f}",
            )
            for row in result.rows
        ],
    )
    call.document(result.to_json())
    return 0
