"""`sightline demo --out DIR`: everything in a few minutes, offline."""

from __future__ import annotations

from pathlib import Path

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              metavar="DIR", help="Where the report and its pictures go.")  # fmt: skip
@shared_options(adapter=False)
def demo(call: Call, out: Path) -> int:
    """Show what Sightline can do on drawn pictures; needs no connection. Writes a report."""
    from sightline.demo.run import run_demo

    model = None
    if call.model_name is not None:
        from sightline.cli.loading import load_model

        model = load_model(call, "classify")
    with Meter(call, "steps") as meter:
        result = run_demo(
            out, model, lambda step, done, total: meter.show(done, total, step)
        )  # fmt: skip
    call.model, call.domain = result.model, result.domain
    for line in result.lines:
        call.line(line)
    call.line(f"report: {result.report}")
    call.document(result.to_json())
    return 0
