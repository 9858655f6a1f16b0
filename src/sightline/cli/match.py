"""`sightline match FILE... --text "..."`: how likely each text describes the picture."""

from __future__ import annotations

from typing import Any

import click

from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call, one_line
from sightline.cli.pictures import answer_each
from sightline.cli.words import sentences


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="A sentence; several times.")
@click.option("--texts", "file", metavar="@FILE", help="Sentences from a file, one a line.")
@batch_option
@shared_options()
def match(
    call: Call, files: tuple[str, ...], texts: tuple[str, ...], file: str | None, batch: int
) -> int:
    """Say how likely each text describes each picture, every text judged on its own."""
    from sightline.tasks.match import match_each

    wanted = required_texts(texts, file)
    results = answer_each(
        call,
        "match",
        files,
        lambda model, sources: match_each(model, sources, wanted, batch, "collect"),
        lambda name, scores: scored(name, wanted, scores, "probability"),
    )
    call.document({"texts": wanted, "results": results})
    return call.exit_code(len(results))


def required_texts(texts: tuple[str, ...], file: str | None) -> list[str]:
    """The sentences of --text and --texts.

    Raises:
        click.UsageError: there is none.
    """
    wanted = sentences("--texts", texts, file)
    if not wanted:
        raise click.UsageError('no text: give --text "..." or --texts @FILE')
    return wanted


def scored(name: str, texts: list[str], scores: Any, what: str) -> tuple[dict[str, Any], str]:
    """The JSON and the rows of one picture: a number for each text, in the order given."""
    pairs = list(zip(texts, scores.tolist(), strict=True))
    found = [{"text": text, what: score} for text, score in pairs]
    return {"texts": found}, "\n".join(
        f"{one_line(name)}\t{score:.3f}\t{text}" for text, score in pairs
    )
