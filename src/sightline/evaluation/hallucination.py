"""Things that are not there: does a model say that it sees them?

Two ways to ask. *POPE* (Li et al. 2023, arXiv:2305.10355): questions with yes or no for an answer.
The headline reads answers as the authors' script does; `pope_acc:strict` beside it wants them to
begin with yes or no. *CHAIR* (Rohrbach et al. 2018, arXiv:1809.02156): the things that captions
name, by a list of objects, against what people wrote and marked. Here less is better, except of
`object_recall`: to name nothing is to name nothing wrong.

What is not answered gains nothing, see `evaluation.pope_chair`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sightline.data.published.questions import YES_NO
from sightline.data.records import Dataset, Record
from sightline.evaluation import results
from sightline.evaluation.answer_metrics import with_objects
from sightline.evaluation.asked import Question, caption_way, question_way
from sightline.evaluation.judged import Benchmark, Measuring, category_of, measure, no_truth
from sightline.evaluation.pope_chair import pope_counts
from sightline.evaluation.results import Result
from sightline.metrics.chair import ObjectList
from sightline.metrics.hallucination import undefined_of

if TYPE_CHECKING:
    from sightline.tasks.model import Model

VERSION = 1
"""Raised when the same model and data would score differently than before."""
POPE = (
    "pope_acc:official", "pope_acc:strict", "pope_precision", "pope_recall", "pope_f1",
    "pope_yes_share", "pope_unparsed",
)  # fmt: skip
CHAIR = ("chair_s", "chair_i", "object_recall")


def hallucination(
    model: Model,
    dataset: Dataset,
    how: Measuring | None = None,
    objects: ObjectList | None = None,
    prompt: str | None = None,
) -> Result:
    """POPE, or with an object list CHAIR, with the same blind.

    Groups: `category` (random, popular, adversarial, and their mean), where the data say it.
    Intervals draw whole pictures. `settings["undefined"]` names numbers of POPE that are 0 because
    they are 0/0; `settings["unknown_labels"]` regions whose names the object list does not know.

    Args:
        model: what `sightline.load` returns.
        dataset: records with a question and yes or no; with `objects`, with captions or regions.
            Others are counted as excluded.
        how: limit, blind run, batches, options.
        objects: which words name a thing (`metrics.chair.read_object_list`, `park_objects`).
        prompt: of captions, instead of the model's own; the signature then has its hash.

    Raises:
        DataError: no record can be asked about so.
        UnsupportedTaskError: the model answers no questions, or writes no captions.
        ConfigError: a limit or an option that cannot be.
    """
    how = how or Measuring()
    if objects is None:
        return _pope(model, dataset, how)
    return _chair(model, dataset, how, objects, prompt)


def _pope(model: Model, dataset: Dataset, how: Measuring) -> Result:
    questions = [
        Question(record, record.answers, record.question, category_of(record))
        for record in dataset
        if record.question is not None and _yes_or_no(record.answers)
    ]
    if not questions and len(dataset):
        raise no_truth(
            dataset, "a question with yes or no for an answer",
            "for captions or regions, give the object list",
        )  # fmt: skip
    result = measure(
        model, dataset, questions, question_way(model, how.options, how.batch_size),
        Benchmark("hallucination", VERSION, POPE, "pope", "questions", {"reading": "official"}),
        how,
    )  # fmt: skip
    said = [sample.raw or "" for sample in result.samples]
    counts = pope_counts(said, [sample.target for sample in result.samples])
    return _noted(result, undefined=undefined_of(counts.sum(axis=0)))


def _chair(
    model: Model, dataset: Dataset, how: Measuring, objects: ObjectList, prompt: str | None
) -> Result:
    questions = [Question(record, said) for record in dataset if (said := _people(record))]
    if not questions and len(dataset):
        raise no_truth(
            dataset, "a caption or a region", "for questions with yes or no, give no object list"
        )
    signed = {"objects": objects.sha256[:12],
              "prompt": "own" if prompt is None else results.short_hash([prompt])}  # fmt: skip
    result = measure(
        model, dataset, questions, caption_way(model, prompt, how.options, how.batch_size),
        Benchmark("hallucination", VERSION, CHAIR, "chair", "pictures", signed,
                  with_objects(objects)), how,
    )  # fmt: skip
    labels = {region.label for question in questions for region in question.record.regions}
    unknown = sorted(label for label in labels if not objects.mentions(label))
    return _noted(result, objects=objects.sha256, unknown_labels=unknown)


def _noted(result: Result, **more: Any) -> Result:
    return replace(result, settings={**result.settings, **more})


def _yes_or_no(answers: Sequence[str]) -> bool:
    """Whether people agreed, and on one of the two."""
    said = {answer.strip().lower() for answer in answers}
    return len(said) == 1 and said <= set(YES_NO)


def _people(record: Record) -> tuple[str, ...]:
    """What people said is in the picture: captions, and the names of regions."""
    said = (*record.captions, *(region.label for region in record.regions))
    return tuple(text for text in said if text.strip())
