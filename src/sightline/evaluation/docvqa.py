"""Questions about documents: are the letters right that a model read?

Average normalised Levenshtein similarity (Biten et al. 2019; DocVQA, Mathew et al. 2021): an answer
scores 1 less its distance to the nearest right answer, and nothing from half the letters on
(`metrics.answers.anls`). `anls:lmms` is what lmms-eval computes, `exact_match` the share without
any slip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sightline.data.records import Dataset
from sightline.evaluation.asked import question_way
from sightline.evaluation.judged import Benchmark, Measuring, measure
from sightline.evaluation.results import Result
from sightline.evaluation.vqa import answered

if TYPE_CHECKING:
    from sightline.tasks.model import Model

VERSION = 1
"""Raised when the same model and data would score differently than before."""
METRICS = ("anls", "anls:lmms", "exact_match")


def docvqa(model: Model, dataset: Dataset, how: Measuring | None = None) -> Result:
    """ANLS, with the same blind; what scores 0 and how intervals draw as in `evaluation.vqa`.

    Args:
        model: what `sightline.load` returns.
        dataset: records with a question and one or more right answers; others are excluded.
        how: limit, blind run, batches, options.

    Raises:
        DataError: no record has a question with an answer.
        UnsupportedTaskError: the model answers no questions.
        ConfigError: a limit or an option that cannot be.
    """
    how = how or Measuring()
    return measure(
        model, dataset, answered(dataset), question_way(model, how.options, how.batch_size),
        Benchmark("docvqa", VERSION, METRICS, "strict", "questions", {"threshold": "below-0.5"}),
        how,
    )  # fmt: skip
