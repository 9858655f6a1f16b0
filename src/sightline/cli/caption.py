"""`sightline caption FILE...`: a sentence about each picture."""

from __future__ import annotations

from typing import Any

import click

from sightline.cli.generation import generation_options, streamable
from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call
from sightline.cli.pictures import answer_sources, expand, text_row
from sightline.tasks.abilities import CAPTION_DETAILS


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--detail", type=click.Choice(CAPTION_DETAILS), help="How much. Default: short.")
@click.option("--prompt", metavar="TEXT", help="Exactly this, instead of the model's own prompt.")
@batch_option
@generation_options
@shared_options()
def caption(
    call: Call,
    files: tuple[str, ...],
    detail: str | None,
    prompt: str | None,
    batch: int,
    options: dict[str, Any],
) -> int:
    """Write a sentence about each picture.

    A folder stands for its pictures. One picture's caption appears on a terminal as it is written.
    """
    from sightline.tasks.caption import caption_each, caption_stream

    if detail is not None:
        options = {**options, "detail": detail}
    sources = expand(call, files)
    results = answer_sources(
        call,
        "caption",
        sources,
        lambda model, rows: caption_each(model, rows, prompt, options, batch, "collect"),
        lambda name, text: ({"caption": text}, text_row(name, text, sources)),
        (lambda model, row: caption_stream(model, row, prompt, options))
        if streamable(options)
        else None,
    )
    call.document({"results": results})
    return call.exit_code(len(results))
