"""`sightline bench stream`: a tar set streamed once, and how busy the cores were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.bench.stream import StreamBench


@click.command()
@click.option("--pictures", type=click.IntRange(min=1), default=100_000, show_default=True,
              metavar="N", help="Pictures in all.")  # fmt: skip
@click.option("--size", type=click.IntRange(min=32), default=64, show_default=True,
              metavar="PIXELS", help="Side of a picture.")  # fmt: skip
@click.option("--drawings", type=click.IntRange(min=1), default=2000, show_default=True,
              metavar="N", help="Different ones; pictures repeat them.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), metavar="N",
              help="Threads or processes of each reader (default: one a core).")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True, metavar="N",
              help="Passes of each reader; they alternate.")  # fmt: skip
@click.option("--shards", metavar="FOLDER",
              help="Stream the tars in FOLDER; if it has none, write them there.")  # fmt: skip
@shared_options(model=False)
def stream(
    call: Call, pictures: int, size: int, drawings: int, workers: int | None, rounds: int,
    shards: str | None,
) -> int:  # fmt: skip
    """Measure how fast a large set of small pictures is streamed by several workers.

    Each pass reads and decodes every picture once, in a process of its own. A share of 1 means that
    no core was idle meanwhile; other programs on the machine cost speed and not share.
    """
    from sightline.bench.stream import bench_stream

    with Meter(call, "passes") as meter:
        result = bench_stream(pictures, size, drawings, workers, rounds, shards, meter.update)
    _print(call, result)
    call.document(result.to_json())
    return 0


def _print(call: Call, result: StreamBench) -> None:
    drawn = "" if result.drawings is None else f", {result.drawings:,} different drawings"
    call.note(
        f"{result.pictures:,} pictures in {result.shards} tar(s), {result.bytes_per_picture:,.0f} "
        f"bytes each{drawn}; {result.workers} worker(s), {result.cores} core(s)"
    )
    rows = [
        (
            row.name,
            f"{row.pictures_per_second:,.0f}",
            f"{row.slowest:,.0f} to {row.fastest:,.0f}",
            f"{row.core_use:.2f}",
            "-" if row.share_of_free is None else f"{row.share_of_free:.2f}",
            f"{row.microseconds:.0f}",
            f"{row.peak_bytes / 1e6:,.0f}",
        )
        for row in result.rows
    ]
    heads = ("who", "pictures/s", "slowest to fastest", "core use", "of what was free",
             "CPU microseconds a picture", "peak MB")  # fmt: skip
    call.table(heads, rows)
    for name in result.skipped:
        call.note(f"not measured, not installed: {name}")
