"""Questions about pictures: does a model answer as people do?

The headline is VQA accuracy as the authors' script computes it (Antol et al. 2015; see
`metrics.vqa`). Beside it stand the two forms that harnesses compute under the same name, because
they differ by points. Data with one answer a question (GQA) have no people to agree with: the
headline is then exact match. Groups: `answer_type` and `question_type`, where the data say them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sightline.data.records import Dataset
from sightline.evaluation.asked import Question, question_way
from sightline.evaluation.judged import Benchmark, Measuring, measure, no_truth
from sightline.evaluation.results import Result

if TYPE_CHECKING:
    from sightline.tasks.model import Model

VERSION = 1
"""Raised when the same model and data would score differently than before."""
METRICS = ("vqa_acc:official", "vqa_acc:always", "vqa_acc:lavis")
ALONE = ("exact_match",)
"""Where every question has one answer."""
TYPES = ("answer_type", "question_type")


def vqa(model: Model, dataset: Dataset, how: Measuring | None = None) -> Result:
    """VQA accuracy, official, always normalised and as LAVIS has it, with the same blind.

    Answers are written freely, also where the data offer choices. A picture that cannot be read, a
    question that cannot be asked and an answer without a character score 0. Intervals draw whole
    pictures with all their questions.

    Args:
        model: what `sightline.load` returns.
        dataset: records with a question and answers, usually ten; records without are excluded.
        how: limit, blind run, batches, options.

    Raises:
        DataError: no record has a question with an answer.
        UnsupportedTaskError: the model answers no questions.
        ConfigError: a limit or an option that cannot be.
    """
    how = how or Measuring()
    questions = answered(dataset)
    alone = bool(questions) and all(len(question.target) == 1 for question in questions)
    names, variant = (ALONE, "exact") if alone else (METRICS, "official")
    return measure(
        model, dataset, questions, question_way(model, how.options, how.batch_size),
        Benchmark("vqa", VERSION, names, variant, "questions", {"answers": "free"}), how,
    )  # fmt: skip


def answered(dataset: Dataset) -> list[Question]:
    """The questions of the records that have one, with what people answered.

    Raises:
        DataError: there are records, and none has a question with an answer.
    """
    found = [
        Question(record, record.answers, record.question, _types(record.extra))
        for record in dataset
        if record.question is not None and record.answers
    ]
    if not found and len(dataset):
        raise no_truth(
            dataset, "a question with an answer", "'sightline data inspect' says what it holds"
        )
    return found


def _types(extra: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(extra[name]) for name in TYPES if isinstance(extra.get(name), str)}
