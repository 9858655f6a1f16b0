"""`sightline plan MODEL`: what a run needs in memory, before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter

if TYPE_CHECKING:
    from sightline.recipes.plan import MemoryPlan

_GIGABYTE = 1e9
_KINDS = {
    "none": "inference",
    "full": "train full",
    "lora": "train lora",
    "qlora": "train qlora",
    "projector": "train projector",
    "locked": "train locked",
}


@click.command()
@click.argument("name", required=False)
@batch_option
@click.option("--train", "kind", type=click.Choice([name for name in _KINDS if name != "none"]),
              help="All weights, low-rank additions (qlora: to weights of 4 bits), the layer "
                   "behind the image tower, or all but the tower. Default: none.")  # fmt: skip
@click.option("--accumulate", type=click.IntRange(min=1), default=1, show_default=True,
              metavar="K", help="Micro-batches of a training step.")  # fmt: skip
@click.option("--rank", type=click.IntRange(min=1), default=8, show_default=True, metavar="R",
              help="Of the additions of lora and qlora.")  # fmt: skip
@click.option("--tokens", type=click.IntRange(min=2), default=64, show_default=True, metavar="N",
              help="Of a prompt and its answer, half each, where a model writes.")  # fmt: skip
@click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS",
              help="Side of the pictures. Default: the model's own.")  # fmt: skip
@click.option("--activation-checkpointing", is_flag=True,
              help="Compute each block's inner values again on the way back.")  # fmt: skip
@click.option("--memory", metavar="AMOUNT",
              help="What may be used, such as 24GB. Default: what is free here.")  # fmt: skip
@shared_options(adapter=False)
def plan(
    call: Call,
    name: str | None,
    batch: int,
    kind: str | None,
    accumulate: int,
    rank: int,
    tokens: int,
    image_size: int | None,
    activation_checkpointing: bool,
    memory: str | None,
) -> int:
    """Predict what a model needs in memory, and the largest batch that fits.

    NAME is a published size such as clip:B/32, a known or bundled name, or a folder. Nothing is
    fetched and no weights are loaded: one step is followed on tensors without memory. Left out are
    pictures that the loader decodes ahead, evaluation, and the writing of checkpoints. With
    --memory, '--device cuda' plans for a GPU that this machine does not have.
    """
    from sightline.recipes.free_memory import parse_amount
    from sightline.recipes.plan import plan as predict

    wanted = name or call.model_name
    if wanted is None:
        raise click.UsageError("give the NAME of a model; 'sightline models' lists the known ones")
    if kind is None and (accumulate > 1 or activation_checkpointing):
        raise click.UsageError("--accumulate and --activation-checkpointing are for --train")
    with Meter(call, "kinds of work") as meter:
        found = predict(
            wanted, batch=batch, kind=kind or "none", dtype=call.dtype, device=call.device,
            accumulate=accumulate, rank=rank, tokens=tokens, image_size=image_size,
            activation_checkpointing=activation_checkpointing,
            memory=None if memory is None else parse_amount(memory), progress=meter.update,
        )  # fmt: skip
    call.model = found.model
    call.line(verdict(found))
    rows = sorted(found.parts.items(), key=lambda part: -part[1])
    call.table(
        ("part", "memory"), [(part, _size(n)) for part, n in [*rows, ("total", found.total)]]
    )
    call.table(
        ("work", "largest batch"),
        [(_KINDS[fit.kind], str(fit.batch) if fit.batch else "none fits") for fit in found.largest],
    )
    call.document(found.to_json())
    return 0


def verdict(found: MemoryPlan) -> str:
    """One sentence: whether it fits, and what would."""
    times = f"{found.accumulate} x " if found.accumulate > 1 else ""
    what = f"{_KINDS[found.kind]} of {found.model}, batch {times}{found.batch}, {found.dtype}"
    needs = f"{what} on {found.device} needs {_size(found.total)}"
    if found.free is None:
        return f"{needs}; this system does not say what is free: give --memory"
    if found.fits:
        return f"{needs} and fits into {_size(found.free)}"
    largest = next(fit.batch for fit in found.largest if fit.kind == found.kind)
    advice = f"use --batch {largest}" if largest else "no batch of this work fits"
    return f"{needs} and does not fit into {_size(found.free)}: {advice}"


def _size(count: int) -> str:
    return f"{count / _GIGABYTE:.2f} GB" if count >= _GIGABYTE else f"{count / 1e6:.1f} MB"
