"""`sightline classify FILE... --labels a,b`: which of these labels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.options import batch_option, shared_options, template_options
from sightline.cli.output import Call
from sightline.cli.pictures import answer_each, labels_json, labels_row
from sightline.cli.words import templates_of, word_list

if TYPE_CHECKING:
    from sightline.cli.pictures import Source
    from sightline.tasks.model import Model


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--labels", metavar="A,B|@FILE",
              help="The labels to choose from; a classifier has its own.")  # fmt: skip
@template_options
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
              help="Labels to print for each picture; --json has all.")  # fmt: skip
@batch_option
@shared_options()
def classify(
    call: Call,
    files: tuple[str, ...],
    labels: str | None,
    template: tuple[str, ...],
    templates: str | None,
    top: int,
    batch: int,
) -> int:
    """Say which of the labels fits each picture, with a score.

    CLIP shares one between the labels; SigLIP scores each on its own. A classifier (a ViT or a
    ResNet that was trained on labels) shares one between its own labels and can name no others.
    A folder stands for its pictures.
    """
    from sightline.tasks.classify import classify_each, closed_names

    if labels is None and not (call.model_name or os.environ.get("SIGHTLINE_MODEL")):
        raise click.UsageError("give --labels a,b, or --model NAME of a classifier")
    names = None if labels is None else word_list("--labels", labels)
    prompts = templates_of(template, templates) or None
    asked: list[str] = list(names or ())

    def ask(model: Model, sources: list[Source]) -> Iterable[Any]:
        answers = classify_each(model, sources, names, prompts, batch, "collect")
        if names is None:
            asked[:] = closed_names(model)
        return answers

    results = answer_each(
        call,
        "classify",
        files,
        ask,
        lambda name, found: ({"labels": labels_json(found)}, labels_row(name, found, top)),
    )
    call.document({"labels": asked, "results": results})
    return call.exit_code(len(results))
