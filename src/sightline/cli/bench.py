"""`sightline bench embed`: pictures a second on this machine, beside those of its peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter
from sightline.cli.words import word_list

if TYPE_CHECKING:
    from sightline.bench.embed import EmbedBench
    from sightline.bench.embedders import Start

DEFAULT = "clip:B/32"


@click.command()
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, metavar="N",
              help="Pictures through the network at once.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
              help="Timed repetitions.")  # fmt: skip
@click.option("--from", "start", type=click.Choice(["pixels", "pictures", "files"]),
              default="pixels", show_default=True,
              help="Start of the clock: tensors, decoded pictures, or JPEG files.")  # fmt: skip
@click.option("--files", type=click.IntRange(min=1), default=128, show_default=True, metavar="N",
              help="JPEG files of a round, 960 x 1280.")  # fmt: skip
@click.option("--only", metavar="A,B", help="Names of the contenders, instead of all.")
@shared_options(adapter=False)
def embed(call: Call, batch: int, rounds: int, start: str, files: int, only: str | None) -> int:
    """Measure how fast pictures are embedded, with random weights of full size.

    The peers are transformers in its default and in bfloat16, from pixels also OpenVINO, and from
    files a loop over torch's DataLoader. The limit is what products alone would allow.

    --model takes a published size as system:variant, such as clip:B/32 (the default) or
    siglip:B/16-224.
    """
    if call.device not in ("auto", "cpu"):
        raise click.BadParameter("this benchmark runs on the CPU", param_hint="--device")
    if call.dtype != "auto":
        raise click.BadParameter("every number type is measured", param_hint="--dtype")
    from sightline.bench.embed import bench_embed

    with Meter(call, "rounds") as meter:
        result = bench_embed(
            call.model_name or DEFAULT,
            batch,
            rounds,
            start=cast("Start", start),
            files=files,
            only=[] if only is None else word_list("--only", only),
            progress=meter.update,
        )
    call.model = result.model
    _print(call, result)
    call.document(result.to_json())
    return 0


def _print(call: Call, result: EmbedBench) -> None:
    sizes = f"{result.gflop_per_picture:.1f} GFLOP a picture, batches of {result.batch}"
    call.note(f"{result.model}: {sizes}, {result.cores} cores")
    headers = ("who", "pictures/s", "slowest to fastest", "cosine", "share of the limit")
    call.table(
        headers,
        [
            (
                row.name,
                f"{row.pictures_per_second:.1f}",
                f"{row.slowest:.1f} to {row.fastest:.1f}",
                f"{row.cosine:.5f}",
                "-" if row.share_of_limit is None else f"{row.share_of_limit:.0%}",
            )
            for row in result.rows
        ],
    )
    for name in result.skipped:
        call.note(f"not measured, not installed: {name}")
