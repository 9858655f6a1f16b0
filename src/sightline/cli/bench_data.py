"""`sightline bench data`: tars of pictures read and decoded on this machine, beside webdataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.bench.data import DataBench


@click.command()
@click.option("--pictures", type=click.IntRange(min=1), default=20_000, show_default=True,
              metavar="N", help="Pictures written to tars and read again.")  # fmt: skip
@click.option("--size", type=click.IntRange(min=8), default=64, show_default=True,
              metavar="PIXELS", help="Side of a picture.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
              help="Passes of each reader; they alternate.")  # fmt: skip
@shared_options(model=False)
def data(call: Call, pictures: int, size: int, rounds: int) -> int:
    """Measure how fast tars of small pictures are read and decoded, and how far the limit is."""
    from sightline.bench.data import bench_data

    with Meter(call, "passes") as meter:
        result = bench_data(pictures, size, rounds, meter.update)
    _print(call, result)
    call.document(result.to_json())
    return 0


def _print(call: Call, result: DataBench) -> None:
    call.note(
        f"{result.pictures:,} pictures of {result.bytes_per_picture:,.0f} bytes in "
        f"{result.shards} tar(s), indexed in {result.index_seconds:.2f} s, {result.cores} core(s)"
    )
    rows = [
        (
            row.name,
            f"{row.pictures_per_second:,.0f}",
            f"{row.slowest:,.0f} to {row.fastest:,.0f}",
            "-" if row.share_of_limit is None else f"{row.share_of_limit:.0%}",
        )
        for row in result.rows
    ]
    call.table(("who", "pictures/s", "slowest to fastest", "share of the limit"), rows)
    for name in result.skipped:
        call.note(f"not measured, not installed: {name}")
