"""`sightline bench objectives`: what a contrastive loss takes, whole and in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.bench.objectives import ObjectivesBench


@click.command()
@click.option("--loss", type=click.Choice(["sigmoid", "softmax"]), default="sigmoid",
              show_default=True, help="SigLIP's loss, or CLIP's.")  # fmt: skip
@click.option("--pairs", type=click.IntRange(min=1), multiple=True, default=(4096, 16384),
              show_default=True, metavar="N",
              help="Pairs of a batch; may be repeated.")  # fmt: skip
@click.option("--width", type=click.IntRange(min=1), default=512, show_default=True, metavar="N",
              help="Numbers in an embedding.")  # fmt: skip
@click.option("--chunk", type=click.IntRange(min=1), default=256, show_default=True, metavar="N",
              help="Columns of the matrix of all pairs that exist at once.")  # fmt: skip
@shared_options(adapter=False)
def objectives(call: Call, loss: str, pairs: tuple[int, ...], width: int, chunk: int) -> int:
    """Measure memory and time of a loss with its gradients: the whole matrix of pairs, and blocks.

    No model takes part: random unit vectors in float32, one process a measurement. A batch whose
    whole matrix does not fit into memory is computed in blocks only.
    """
    if call.device not in ("auto", "cpu"):
        raise click.BadParameter("this benchmark runs on the CPU", param_hint="--device")
    if call.dtype not in ("auto", "float32"):
        raise click.BadParameter("losses compute in float32", param_hint="--dtype")
    if call.model_name is not None:
        raise click.BadParameter("a loss has no model", param_hint="--model")
    from sightline.bench.objectives import bench_objectives

    with Meter(call, "batches") as meter:
        result = bench_objectives(loss, pairs, width, chunk, progress=meter.update)
    _print(call, result)
    call.document(result.to_json())
    return 0


def _print(call: Call, result: ObjectivesBench) -> None:
    call.note(
        f"{result.loss} loss and gradients of pairs of {result.width} numbers, "
        f"{result.cores} cores; memory above the embeddings"
    )
    call.table(
        ("pairs", "columns at once", "memory", "seconds", "loss", "gradient norm"),
        [
            (
                str(row.pairs),
                "all" if row.chunk is None else str(row.chunk),
                f"{row.bytes_above / 1e6:.0f} MB",
                f"{row.seconds:.1f}",
                f"{row.loss:.6f}",
                f"{row.gradient_norm:.6f}",
            )
            for row in result.rows
        ],
    )
    for count in result.skipped:
        call.note(f"not measured, the whole matrix of {count} pairs does not fit into memory")
