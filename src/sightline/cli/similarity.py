"""`sightline similarity FILE... --text "..."`: the score of every picture with every text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.match import required_texts, scored
from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call
from sightline.cli.pictures import Source, answer_each

if TYPE_CHECKING:
    from sightline.tasks.model import Model


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="A sentence; several times.")
@click.option("--texts", "file", metavar="@FILE", help="Sentences from a file, one a line.")
@batch_option
@shared_options()
def similarity(
    call: Call, files: tuple[str, ...], texts: tuple[str, ...], file: str | None, batch: int
) -> int:
    """Score every picture with every text: logits, scale and bias applied.

    Higher fits better; what a value means depends on the model. `match` gives probabilities.
    """
    wanted = required_texts(texts, file)
    results = answer_each(
        call,
        "similarity",
        files,
        lambda model, sources: _logits(model, sources, wanted, batch),
        lambda name, scores: scored(name, wanted, scores, "logit"),
    )
    call.document({"texts": wanted, "results": results})
    return call.exit_code(len(results))


def _logits(model: Model, sources: list[Source], texts: list[str], batch: int) -> Iterator[Any]:
    from sightline.tasks.batching import Failed
    from sightline.tasks.embed import embed_each, embed_texts
    from sightline.tasks.scores import logits

    words = embed_texts(model, texts)
    for row in embed_each(model, sources, batch, "collect"):
        yield row if isinstance(row, Failed) else logits(model, row, words)
