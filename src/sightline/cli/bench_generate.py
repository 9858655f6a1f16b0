"""`sightline bench generate`: tokens a second on this machine, beside transformers'."""

from __future__ import annotations

import click

from sightline.cli.options import shared_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter


@click.command()
@click.option("--tokens", type=click.IntRange(min=2), default=128, show_default=True, metavar="N",
              help="Tokens that each sequence writes.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
              help="Timed repetitions.")  # fmt: skip
@click.option("--small", is_flag=True, help="A network of 1/50 of the size, to try it out.")
@shared_options(adapter=False)
def generate(call: Call, tokens: int, rounds: int, small: bool) -> int:
    """Measure how fast a model writes, alone and eight sequences at a time.

    Random weights of one fixed shape: a decoder of 241 M parameters with a vocabulary of 32,768
    behind 196 picture tokens. The limit is what reading the weights from memory alone would allow.
    """
    if call.model_name is not None:
        raise click.BadParameter("this benchmark has one shape", param_hint="--model")
    if call.device not in ("auto", "cpu"):
        raise click.BadParameter("this benchmark runs on the CPU", param_hint="--device")
    if call.dtype != "auto":
        raise click.BadParameter("it is what 'auto' takes here", param_hint="--dtype")
    from sightline.bench import generate as bench

    with Meter(call, "rounds") as meter:
        config = bench.small() if small else bench.SHAPE
        result = bench.bench_generate(config, tokens, rounds=rounds, progress=meter.update)
    call.model = "paligemma, random weights"
    call.note(
        f"{result.parameters / 1e6:.0f} M parameters in {result.dtype}, {result.image_tokens} "
        f"picture tokens, {result.cores} cores; memory reads {result.read_gb_per_second:.1f} GB/s "
        f"allow {result.limit:.1f} steps/s"
    )
    headers = ("who", "sequences", "prefill s", "tokens/s", "slowest to fastest", "of the limit")
    call.table(
        headers,
        [
            (
                row.name,
                str(row.sequences),
                f"{row.prefill_seconds:.3f}",
                f"{row.tokens_per_second:.1f}",
                f"{row.slowest:.1f} to {row.fastest:.1f}",
                f"{row.share_of_limit:.0%}",
            )
            for row in result.rows
        ],
    )
    for count in () if result.skipped else dict.fromkeys(row.sequences for row in result.rows):
        ratio = result.ratio("sightline", "transformers", count)
        call.note(f"sequences {count}: {ratio:.2f} times the tokens of transformers")
    for name in result.skipped:
        call.note(f"not measured, not installed: {name}")
    call.document(result.to_json())
    return 0
