"""`sightline ask FILE... "question" --choices a,b`: an answer about each picture."""

from __future__ import annotations

import click

from sightline.cli.options import batch_option, shared_options
from sightline.cli.output import Call, one_line
from sightline.cli.pictures import answer_each, labels_json
from sightline.cli.words import word_list
from sightline.core.errors import UnsupportedTaskError


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.argument("question")
@click.option("--choices", metavar="A,B|@FILE", help="The answers to choose from.")
@batch_option
@shared_options()
def ask(call: Call, files: tuple[str, ...], question: str, choices: str | None, batch: int) -> int:
    """Answer a question about each picture.

    A model that can only score (CLIP, SigLIP) chooses among --choices; that is selection, not
    reasoning.
    """
    from sightline.hub.catalogue import models_for
    from sightline.tasks.ask import score_choices

    if choices is None:
        able = ", ".join(entry.name for entry in models_for("chat"))
        raise UnsupportedTaskError(
            "the models of this version cannot answer freely: give --choices a,b to let one choose"
            + (f", or name one which can: {able}" if able else "")
        )
    names = word_list("--choices", choices)
    results = answer_each(
        call,
        "ask",
        files,
        lambda model, sources: score_choices(
            model, sources, question, names, batch_size=batch, on_error="collect"
        ),
        lambda name, found: (
            {"answer": found[0].label, "choices": labels_json(found)},
            f"{one_line(name)}\t{found[0].label}\t{found[0].score:.3f}"
            if len(files) > 1
            else found[0].label,
        ),
    )
    call.document({"question": question, "results": results})
    return call.exit_code(len(results))
