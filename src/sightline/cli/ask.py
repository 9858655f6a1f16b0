"""`sightline ask FILE... "question"`: an answer about each picture."""

from __future__ import annotations

import os
from typing import Any

import click

from sightline.cli.generation import generation_options, streamable
from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call, one_line
from sightline.cli.pictures import answer_sources, expand, labels_json, text_row
from sightline.cli.words import word_list
from sightline.core.errors import UnsupportedTaskError


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.argument("question")
@click.option("--choices", metavar="A,B|@FILE", help="The answers to choose from.")
@batch_option
@generation_options
@shared_options()
def ask(
    call: Call,
    files: tuple[str, ...],
    question: str,
    choices: str | None,
    batch: int,
    options: dict[str, Any],
) -> int:
    """Answer a question about each picture.

    A model that writes answers in its own words, or with the likeliest of --choices. A model that
    can only score (CLIP, SigLIP) chooses among --choices; that is selection, not reasoning.
    """
    from sightline.tasks.ask import ask_each, ask_stream

    if choices is not None:
        return _chosen(call, files, question, word_list("--choices", choices), batch)
    _check_named(call)
    sources = expand(call, files)
    results = answer_sources(
        call,
        "chat",
        sources,
        lambda model, rows: ask_each(model, rows, question, options, batch, "collect"),
        lambda name, text: ({"answer": text}, text_row(name, text, sources)),
        (lambda model, row: ask_stream(model, row, question, options))
        if streamable(options)
        else None,
    )
    call.document({"question": question, "results": results})
    return call.exit_code(len(results))


def _check_named(call: Call) -> None:
    """Raises `UnsupportedTaskError` where no model is named and none is there that writes."""
    from sightline.hub.catalogue import models_for, offline_substitute

    if call.model_name or os.environ.get("SIGHTLINE_MODEL") or offline_substitute("chat"):
        return
    able = ", ".join(entry.name for entry in models_for("chat")[:4])
    raise UnsupportedTaskError(
        "no model is named that can answer freely: give --choices a,b to let one choose"
        + (f", or --model NAME of one which can: {able}" if able else ", or --model NAME")
    )


def _chosen(call: Call, files: tuple[str, ...], question: str, names: list[str], batch: int) -> int:
    """One of the given answers for each picture."""
    from sightline.tasks.ask import score_choices

    sources = expand(call, files)
    results = answer_sources(
        call,
        "ask",
        sources,
        lambda model, rows: score_choices(
            model, rows, question, names, batch_size=batch, on_error="collect"
        ),
        lambda name, found: (
            {"answer": found[0].label, "choices": labels_json(found)},
            f"{one_line(name)}\t{found[0].label}\t{found[0].score:.3f}"
            if len(sources) > 1
            else found[0].label,
        ),
    )
    call.document({"question": question, "results": results})
    return call.exit_code(len(results))
