"""`sightline bench search`: an index of vectors built and searched, beside plain LanceDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.bench.search import SearchBench


@click.command()
@click.option("--vectors", type=click.IntRange(min=20), default=100_000, show_default=True,
              metavar="N", help="Rows; from 100,000 on there is an approximate index.")  # fmt: skip
@click.option("--width", type=click.IntRange(min=8), default=512, show_default=True, metavar="D",
              help="Numbers in a vector.")  # fmt: skip
@click.option("--clusters", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="Centres that the vectors gather around; 0: random directions.")  # fmt: skip
@click.option("--queries", type=click.IntRange(min=1), default=200, show_default=True, metavar="N",
              help="Searches of each kind.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True, metavar="N",
              help="Passes of each; they alternate.")  # fmt: skip
@shared_options(model=False)
def search(call: Call, vectors: int, width: int, clusters: int, queries: int, rounds: int) -> int:
    """Measure how long an index takes to build and to search, and what it finds.

    Plain LanceDB does the same without keys, seals and syncing, with an index of the same kind.
    """
    from sightline.bench.search import bench_search

    with Meter(call, "passes") as meter:
        result = bench_search(vectors, width, clusters, queries, rounds, meter.update)
    _print(call, result)
    call.document(result.to_json())
    return 0


def _print(call: Call, result: SearchBench) -> None:
    call.note(
        f"{result.vectors:,} vectors of {result.width} numbers, {result.queries:,} searches for "
        f"10, {result.cores} core(s)"
    )
    rows = [
        (
            row.name,
            f"{row.build_seconds:.1f}",
            f"{row.index_seconds:.1f}",
            f"{row.peak_bytes / 1e6:,.0f}",
            _times(row.exact),
            _times(row.filtered),
            _times(row.approximate),
            f"{row.exact_recall:.3f}",
            "-" if row.approximate_recall is None else f"{row.approximate_recall:.3f}",
        )
        for row in result.rows
    ]
    heads = ("who", "build s", "index s", "peak MB", "exact ms", "a tenth ms", "approximate ms",
             "recall, exact", "recall, approximate")  # fmt: skip
    call.table(heads, rows)


def _times(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else f"{pair[0]:.1f} ({pair[1]:.1f})"
