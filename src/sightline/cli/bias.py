"""`sightline eval bias --data PATH --groups FILE|COLUMN`: are groups treated differently?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sightline.cli.evaluate import data_options, finished, open_data
from sightline.cli.loading import load_model
from sightline.cli.options import batch_option, shared_options, template_options
from sightline.cli.output import Call
from sightline.cli.progress import Meter
from sightline.cli.words import sentences, word_list

if TYPE_CHECKING:
    from sightline.data.records import Dataset
    from sightline.evaluation.results import Result
    from sightline.metrics.bias import Target


@click.command()
@data_options
@click.option("--groups", required=True, metavar="FILE|COLUMN",
              help="An annotation file with a row a picture, or a column of the data.")  # fmt: skip
@click.option("--by", metavar="COLUMN", help="Which column of that file is the group.")
@click.option("--prompt", multiple=True, metavar="TEXT", help="A search; several are allowed.")
@click.option("--prompts", metavar="@FILE", help="The same from a file, one a line.")
@click.option("-k", "k", type=click.IntRange(min=1), metavar="N",
              help="How many of the first hits are looked at.")  # fmt: skip
@click.option("--target", type=click.Choice(["population", "equal"]), default="population",
              show_default=True, help="The shares that a fair search has.")  # fmt: skip
@click.option("--words", type=click.Path(dir_okay=False), metavar="FILE",
              help="Word lists of an association test (JSON: attr1, attr2).")  # fmt: skip
@click.option("--labels", metavar="A,B|@FILE|data",
              help="Names to choose among; data takes those of the data.")  # fmt: skip
@template_options
@batch_option
@shared_options()
def bias(
    call: Call,
    data: str,
    format_: str | None,
    split: str | None,
    images: str | None,
    limit: int | None,
    out: Path | None,
    groups: str,
    by: str | None,
    prompt: tuple[str, ...],
    prompts: str | None,
    k: int | None,
    target: str,
    words: str | None,
    labels: str | None,
    template: tuple[str, ...],
    templates: str | None,
    batch: int,
) -> int:
    """Measure whether searches, words and labels treat groups of pictures differently.

    Which picture belongs to which group is read from the annotations; nothing is guessed from
    pictures. Every test is corrected for the number of tests (Holm), and the verdict is "yes" only
    where one of them is significant at 5 %.
    """
    dataset = open_data(data, format_, split, images)
    from sightline.data.annotations import groups_of, read_word_lists

    told = groups_of(dataset, groups, by)
    names = _labels(labels, dataset)
    searches = sentences("--prompts", prompt, prompts)
    sets = sentences("--templates", template, templates) or None
    lists = None if words is None else read_word_lists(words)
    model = load_model(call, "eval")
    from sightline.evaluation.bias import Questions
    from sightline.evaluation.bias import bias as measure

    shares: Target = "equal" if target == "equal" else "population"
    asked = Questions(searches, k, shares, names, lists, sets)
    with Meter(call) as meter:
        result = measure(model, dataset, told, asked, limit, batch, meter.update)
    _report(call, result)
    return finished(call, result, out)


def _labels(option: str | None, dataset: Dataset) -> list[str] | None:
    if option is None:
        return None
    return list(dataset.labels) if option == "data" else word_list("--labels", option)


def _report(call: Call, result: Result) -> None:
    """A row a test, and what to be careful about."""
    rows = []
    for name, corrected in result.groups["p_holm"].items():
        what = next(kind for kind in ("max_skew", "effect", "gap") if _has(result, kind, name))
        shares = [
            f"{group.removeprefix(name + ' / ')} {share.value:.2f}"
            for group, share in result.groups.get("share", {}).items()
            if group.startswith(name + " / ")
        ]
        value, p = result.groups[what][name].value, result.groups["p"][name].value
        rows.append((name, what, f"{value:.3f}", f"{p:.3g}", f"{corrected.value:.3g}",
                     ", ".join(shares)))  # fmt: skip
    call.table(("test", "what", "value", "p", "p (Holm)", "shares"), rows)
    for group, size in result.settings["small_groups"].items():
        call.note(f"group {group!r} has only {size} picture(s): its numbers mean little")
    for name, tied in result.settings["tied"].items():
        call.note(
            f"{name!r}: {tied} picture(s) tie with the last hit; the order of the data decided"
        )


def _has(result: Result, kind: str, name: str) -> bool:
    return name in result.groups.get(kind, {})
