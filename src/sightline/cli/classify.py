"""`sightline classify FILE... --labels a,b`: which of these labels."""

from __future__ import annotations

import click

from sightline.cli.options import batch_option, shared_options, template_options
from sightline.cli.output import Call
from sightline.cli.pictures import answer_each, labels_json, labels_row
from sightline.cli.words import sentences, word_list


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--labels", required=True, metavar="A,B|@FILE", help="The labels to choose from.")
@template_options
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
              help="Labels to print for each picture; --json has all.")  # fmt: skip
@batch_option
@shared_options()
def classify(
    call: Call,
    files: tuple[str, ...],
    labels: str,
    template: tuple[str, ...],
    templates: str | None,
    top: int,
    batch: int,
) -> int:
    """Say which of the labels fits each picture, with a score.

    CLIP shares one between the labels; SigLIP scores each on its own. A folder stands for its
    pictures.
    """
    from sightline.tasks.classify import classify_each

    names = word_list("--labels", labels)
    prompts = sentences("--templates", template, templates) or None
    results = answer_each(
        call,
        "classify",
        files,
        lambda model, sources: classify_each(model, sources, names, prompts, batch, "collect"),
        lambda name, found: ({"labels": labels_json(found)}, labels_row(name, found, top)),
    )
    call.document({"labels": names, "results": results})
    return call.exit_code(len(results))
