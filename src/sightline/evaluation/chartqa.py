"""Questions about charts: is the number within 5 % of the right one?

Relaxed accuracy (Methani et al. 2020; ChartQA, Masry et al. 2022, arXiv:2203.10244; see
`metrics.answers.relaxed_accuracy`). Five percent of a year are a century, so
`relaxed_accuracy:strict_year` wants years exactly. Group `questions`: `human` and `augmented`, by
the names of ChartQA's files, which differ by twenty points and more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.data.published.detect import PARTS
from sightline.data.records import Dataset, Record
from sightline.evaluation.asked import question_way
from sightline.evaluation.judged import Benchmark, Measuring, measure
from sightline.evaluation.results import Result
from sightline.evaluation.vqa import answered

if TYPE_CHECKING:
    from sightline.tasks.model import Model

VERSION = 1
"""Raised when the same model and data would score differently than before."""
METRICS = ("relaxed_accuracy", "relaxed_accuracy:strict_year", "exact_match")


def chartqa(model: Model, dataset: Dataset, how: Measuring | None = None) -> Result:
    """Relaxed accuracy, with the same blind; what scores 0 and how intervals draw as in
    `evaluation.vqa`.

    Args:
        model: what `sightline.load` returns.
        dataset: records with a question and its one right answer; others are excluded.
        how: limit, blind run, batches, options.

    Raises:
        DataError: no record has a question with an answer, or one has several different ones.
        UnsupportedTaskError: the model answers no questions.
        ConfigError: a limit or an option that cannot be.
    """
    how = how or Measuring()
    questions = [
        question._replace(tags={**question.tags, **_source(question.record)})
        for question in answered(dataset)
    ]
    return measure(
        model, dataset, questions, question_way(model, how.options, how.batch_size),
        Benchmark("chartqa", VERSION, METRICS, "5 %", "questions", {"tolerance": "0.05"}), how,
    )  # fmt: skip


def _source(record: Record) -> dict[str, str]:
    """Who wrote the question, by the name of the file ("test_human/12")."""
    file = record.id.rpartition("/")[0]
    found = [source for source in PARTS["chartqa"] if source in file]
    return {"questions": found[0]} if len(found) == 1 else {}
