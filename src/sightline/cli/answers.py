"""`sightline eval caption|vqa|docvqa|chartqa|hallucination|mcq`: a model's answers, measured."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.generation import generation_options
from sightline.cli.measured import Measured, measured_options
from sightline.cli.options import batch_option
from sightline.cli.output import Call
from sightline.cli.words import object_list

if TYPE_CHECKING:
    from sightline.cli.measured import Measure
    from sightline.data.records import Dataset
    from sightline.evaluation.results import Result
    from sightline.tasks.model import Model
    from sightline.tasks.report import Report


def asking_options(function: Callable[..., int]) -> Callable[..., Any]:
    """Those of everything measured, batches, and how answers are written."""
    return measured_options(function, lambda own: batch_option(generation_options(own)))


def _run(call: Call, measured: Measured, task: str, measure: Measure) -> int:
    return measured.run(call, task, measure, _page, _warnings)


def _page(model: Model, result: Result, dataset: Dataset, count: int) -> Report:
    from sightline.evaluation.answer_page import answer_page

    return answer_page(result, dataset, count)


def _warnings(result: Result) -> Iterator[str]:
    yield from (f"cannot be asked: {line}" for line in result.settings["refused"])
    unknown = result.settings.get("unknown_labels", ())
    if unknown:
        yield (
            f"{len(unknown)} name(s) of regions are not in the object list, so that captions with "
            "them in other words are called false: " + ", ".join(unknown[:5])
        )


@click.command()
@click.option("--prompt", metavar="TEXT", help="Exactly this, instead of the model's own prompt.")
@asking_options
def caption(call: Call, measured: Measured, prompt: str | None) -> int:
    """Measure captions against those of people: CIDEr, BLEU-4, ROUGE-L.

    The data needs captions: a text file beside each picture, or a column named caption. Beside the
    score stands that of the same prompt without a picture. A run that was stopped goes on where it
    was, with the same --out.
    """
    from sightline.evaluation.caption import caption as measure

    return _run(call, measured, "caption", functools.partial(measure, prompt=prompt))


@click.command()
@asking_options
def vqa(call: Call, measured: Measured) -> int:
    """Measure answers to questions about pictures by agreement with people.

    Read are VQAv2, TextVQA and other questions with answers, usually ten each; with one
    answer each (GQA) it is the share of exact answers. Beside the score stands that of the same
    model without the pictures. A run that was stopped goes on where it was, with the same --out.
    """
    from sightline.evaluation.vqa import vqa as measure

    return _run(call, measured, "chat", measure)


@click.command()
@asking_options
def docvqa(call: Call, measured: Measured) -> int:
    """Measure answers about documents by the letters that are right (ANLS).

    Beside the score stands that of the same model without the pictures. A run that was stopped goes
    on where it was, with the same --out.
    """
    from sightline.evaluation.docvqa import docvqa as measure

    return _run(call, measured, "chat", measure)


@click.command()
@asking_options
def chartqa(call: Call, measured: Measured) -> int:
    """Measure answers about charts: numbers may be 5 % off.

    Read is ChartQA; its questions by people and by machines are told apart by the names of their
    files. Beside the score stands that of the same model without the pictures. A run that was
    stopped goes on where it was, with the same --out.
    """
    from sightline.evaluation.chartqa import chartqa as measure

    return _run(call, measured, "chat", measure)


@click.command()
@click.option("--objects", metavar="FILE|park",
              help="CHAIR of captions: the JSON file of words that name things.")  # fmt: skip
@click.option("--prompt", metavar="TEXT", help="Of captions, instead of the model's own.")
@asking_options
def hallucination(call: Call, measured: Measured, objects: str | None, prompt: str | None) -> int:
    """Measure whether a model sees things that are not there.

    POPE: questions with yes or no for an answer, read as its authors do and, beside it, strictly;
    random, popular and adversarial ones apart, with their mean. With --objects, CHAIR: the things
    that captions name, against captions and regions of the data; less is better. An empty answer
    is wrong. Beside the score stands that of the same model without the pictures. A run that was
    stopped goes on where it was, with the same --out.
    """
    if prompt is not None and objects is None:
        raise click.UsageError("--prompt is for captions: give --objects too, or leave it out")
    named = None if objects is None else object_list("--objects", objects)
    from sightline.evaluation.hallucination import hallucination as measure

    task = "chat" if objects is None else "caption"
    return _run(call, measured, task, functools.partial(measure, objects=named, prompt=prompt))


@click.command()
@click.option("--by", type=click.Choice(["likelihood", "letter"]),
              help="How a choice is taken; likelihood, where the model can give it.")  # fmt: skip
@click.option("--circular", is_flag=True,
              help="Every rotation of the choices; right where all are.")  # fmt: skip
@asking_options
def mcq(call: Call, measured: Measured, by: str | None, circular: bool) -> int:
    """Measure questions with choices: is the right one taken?

    Read are the tables of MMBench and others, and questions with choices in JSON lines. The
    likeliest choice is taken, by the sum and by the mean over its tokens, or with --by letter
    the one whose letter is written. A tie is wrong. Beside the score stands that of the same model
    without the pictures. A run that was stopped goes on where it was, with the same --out.
    """
    from sightline.evaluation.mcq import mcq as measure

    return _run(call, measured, "chat", functools.partial(measure, by=by, circular=circular))
