"""`sightline eval zeroshot|classify|retrieval|explain --data PATH`: scores with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.loading import load_model
from sightline.cli.options import (
    F,
    batch_option,
    label_option,
    shared_options,
    template_options,
)
from sightline.cli.output import FAILED, Call
from sightline.cli.progress import Meter
from sightline.cli.words import label_map, label_words, templates_of, word_list

if TYPE_CHECKING:
    from sightline.data.records import Dataset
    from sightline.evaluation.results import Result

PARK, SCENES = "park", 100
"""What `eval explain` draws by itself, and how many scenes."""
PAGE = "report.html"


def data_options(function: F) -> F:
    """--data and how to read it, --limit, --out."""
    function = result_options(function)
    for option in reversed((
        click.option("--data", required=True, metavar="PATH", help="Folder or list of pictures."),
        click.option("--format", "format_", metavar="NAME", help="Where it is not found itself."),
        click.option("--split", metavar="NAME", help="Only this part, such as test."),
        click.option("--images", metavar="DIR", help="The folder that paths are relative to."),
    )):  # fmt: skip
        function = option(function)
    return function


def result_options(function: F) -> F:
    """--limit, --out."""
    for option in reversed((
        click.option("--limit", type=click.IntRange(min=1), metavar="N",
                     help="A seeded sample of so many pictures; marked partial."),
        click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                     help="Write results.json and samples.jsonl there."),
    )):  # fmt: skip
        function = option(function)
    return function


def picture_options(function: F) -> F:
    """--no-blind, --pictures."""
    for option in (
        click.option("--pictures", type=click.IntRange(min=1), metavar="N",
                     help=f"Write {PAGE} to --out, with the N worst and the N best pictures."),
        click.option("--no-blind", is_flag=True,
                     help="Do not ask the same without pictures, which takes less time."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command()
@data_options
@label_option
@template_options
@batch_option
@shared_options()
def zeroshot(
    call: Call,
    data: str,
    format_: str | None,
    split: str | None,
    images: str | None,
    limit: int | None,
    out: Path | None,
    labels: str | None,
    template: tuple[str, ...],
    templates: str | None,
    batch: int,
) -> int:
    """Measure classification by labels alone: top-1, top-5 and accuracy per class.

    The data needs a label for each picture: a folder per class, or a column named label.
    """
    names = None if labels is None else label_words("--labels", labels)
    prompts = templates_of(template, templates) or None
    dataset = open_data(data, format_, split, images)
    model = load_model(call, "eval")
    from sightline.evaluation.zeroshot import zeroshot as measure

    with Meter(call) as meter:
        result = measure(model, dataset, names, prompts, limit, batch, meter.update)
    return finished(call, result, out)


@click.command()
@data_options
@click.option("--labels", metavar="@FILE.json",
              help="Maps each label of the data to the model's name of it.")  # fmt: skip
@batch_option
@shared_options()
def classify(
    call: Call,
    data: str,
    format_: str | None,
    split: str | None,
    images: str | None,
    limit: int | None,
    out: Path | None,
    labels: str | None,
    batch: int,
) -> int:
    """Measure a classifier on the labels of its training: top-1, top-5 and accuracy per class.

    The data needs a label for each picture: a folder per class, or a column named label. Pictures
    of a label that the model was not trained on count as wrong. Give --model: a ViT or a ResNet
    with a classification layer.
    """
    names = None if labels is None else label_map("--labels", labels)
    dataset = open_data(data, format_, split, images)
    model = load_model(call, "eval")
    from sightline.evaluation.closed_set import closed_set

    with Meter(call) as meter:
        result = closed_set(model, dataset, names, limit, batch, meter.update)
    unknown = result.settings["unknown_labels"]
    if unknown:
        call.warn(
            f"{len(unknown)} label(s) of the data are none of the model's, and count as wrong: "
            + ", ".join(unknown[:5])
        )
    return finished(call, result, out)


@click.command()
@data_options
@batch_option
@shared_options()
def retrieval(
    call: Call,
    data: str,
    format_: str | None,
    split: str | None,
    images: str | None,
    limit: int | None,
    out: Path | None,
    batch: int,
) -> int:
    """Measure finding the text for a picture and the picture for a text.

    The data needs captions: a text file beside each picture, or a column named caption.
    """
    dataset = open_data(data, format_, split, images)
    model = load_model(call, "eval")
    from sightline.evaluation.retrieval import retrieval as measure

    with Meter(call) as meter:
        result = measure(
            model, dataset, limit=limit, batch_size=batch, progress=meter.update
        )  # fmt: skip
    return finished(call, result, out)


@click.command()
@data_options
@click.option("--against", metavar="A,B|@FILE",
              help="Other texts: what speaks for them alike falls away.")  # fmt: skip
@shared_options()
def explain(
    call: Call,
    data: str,
    format_: str | None,
    split: str | None,
    images: str | None,
    limit: int | None,
    out: Path | None,
    against: str | None,
) -> int:
    """Measure whether explanations find the thing that a text names, beside random maps.

    --data park draws scenes whose every pixel is known (--limit of them, 100 by default). Other
    data needs objects with boxes, as 'sightline data park' writes them. Each method's share of heat
    on the thing, in units of chance, how often its hottest pixel is on it, and deletion (better the
    lower) and insertion (better the higher).
    """
    others = [] if against is None else word_list("--against", against)
    from sightline.evaluation import explain as measuring

    if data == PARK:
        name, partial = f"park {split or 'test'}", False
        subjects = measuring.park_subjects(limit or SCENES, split or "test")
    else:
        dataset = open_data(data, format_, split, images)
        name, (subjects, partial) = dataset.name, measuring.subjects_of(dataset, limit)
    model = load_model(call, "eval")
    with Meter(call) as meter:
        result = measuring.explanations(
            model, subjects, against=others, data=name, partial=partial, progress=meter.update
        )
    call.table(("method", *measuring.MEASURES), measuring.rows_of(result))
    rest = [row for row in result.summary_rows() if row[0] not in result.metrics]
    return finished(call, result, out, rest)


def blind_table(call: Call, result: Result) -> None:
    """A row for each metric: with the pictures and, where that was asked, without them."""
    blind = result.groups.get("blind", {})
    call.table(
        ("measure", "model", "blind"),
        [
            [name, f"{m.value:.4f}", f"{blind[name].value:.4f}" if name in blind else "-"]
            for name, m in result.metrics.items()
        ],
    )


def open_data(data: str, format_: str | None, split: str | None, images: str | None) -> Dataset:
    """The records of --data; raises what `open_dataset` does."""
    from sightline.data.formats import open_dataset

    return open_dataset(data, format_, split=split, images=images)


def finished(
    call: Call, result: Result, out: Path | None, rows: Sequence[tuple[str, str]] | None = None
) -> int:
    """Print and write a result; exit 1 where there is no score, 3 where pictures were missing.

    Args:
        rows: what to print, instead of the result's own summary.
    """
    result = replace(result, settings={**result.settings, **call.precision})
    for line in result.missing:
        name, _, reason = line.partition(": ")
        call.failed.append({"file": name, "error": reason, "code": "image_unreadable"})
    call.table(("what", "value"), result.summary_rows() if rows is None else rows)
    document: dict[str, Any] = result.to_json()
    if out is not None:
        document["out"] = str(result.write(out))
        call.note(f"wrote {document['out']}")
    call.document(document)
    if result.failed:
        call.warn("no score: nothing to evaluate, or no picture could be read")
        return FAILED
    return call.exit_code(result.n - result.n_missing)
