"""`sightline bench step`: seconds of an optimiser step on this machine, beside transformers'."""

from __future__ import annotations

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

DEFAULT = "clip:B/32"


@click.command()
@click.option("--batch", type=click.IntRange(min=2), default=16, show_default=True, metavar="N",
              help="Pairs of a step.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
              help="Timed steps of each.")  # fmt: skip
@click.option("--compile", "compiled", is_flag=True, help="Also both as torch.compile makes them.")
@shared_options()
def step(call: Call, batch: int, rounds: int, compiled: bool) -> int:
    """Measure how long a training step takes, with random weights.

    --model takes a published size as system:variant, such as clip:B/32 (the default) or
    siglip:B/16-224. Needs about 8 GB for that size.
    """
    if call.device not in ("auto", "cpu"):
        raise click.BadParameter("this benchmark runs on the CPU", param_hint="--device")
    if call.dtype != "auto":
        raise click.BadParameter("training chooses its number type", param_hint="--dtype")
    from sightline.bench.step import bench_step

    with Meter(call, "rounds") as meter:
        result = bench_step(call.model_name or DEFAULT, batch, rounds, compiled, meter.update)
    call.model = result.model
    work = f"{result.gflop:.0f} GFLOP a step of {result.batch} pairs"
    call.note(f"{result.model}: {work}, {result.dtype}, {result.cores} cores")
    headers = ("who", "s/step", "fastest to slowest", "first loss", "share of the limit")
    call.table(
        headers,
        [
            (
                row.name,
                f"{row.seconds:.2f}",
                f"{row.fastest:.2f} to {row.slowest:.2f}",
                f"{row.loss:.4f}",
                f"{row.share_of_limit:.0%}",
            )
            for row in result.rows
        ],
    )
    for name in result.skipped:
        call.note(f"not measured, not installed: {name}")
    call.document(result.to_json())
    return 0
